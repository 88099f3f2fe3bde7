//! xdpban as an executable of Wazuh's Active Response: one message in, the keys out, Wazuh's answer in, and what was asked
//! for is handed over to the controller.
//!
//! Wazuh's `execd` starts it without arguments, waits for its end before it does anything else, and keeps its standard input
//! open, so that nothing here may read to the end of it or wait for long. Everything that happens is written to
//! `active-responses.log` as Wazuh's own programs write it. The protocol is that of Wazuh 4.2 and later, and of 5.x
//! (`src/active-response` and `src/os_execd` in its repository).

mod input;
mod journal;
mod message;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::input::{Input, InputError};
use self::journal::Journal;
use self::message::{Answer, Command, Fault, Message};
use crate::control::client::{Client, ClientError};
use crate::control::wire::{ActiveCommand, ActiveResponse};
use crate::error::chain;

/// The names under which the program is Wazuh's executable, in 4.x and in 5.x.
const NAMES: [&str; 2] = ["firewall-drop", "block-ip"];

/// Wazuh's other executables, of which somebody may take a link to this program for one.
const OTHERS: [&str; 13] = [
    "disable-account",
    "firewalld-drop",
    "host-deny",
    "ip-customblock",
    "ipfw",
    "kaspersky",
    "netsh",
    "npf",
    "pf",
    "restart-wazuh",
    "restart.sh",
    "route-null",
    "wazuh-slack",
];

/// How long a block lasts at most where nothing tells how long Wazuh wants it, or it never lifts it: that long after an agent that
/// died the address is free again. The longest of Wazuh's growing timeouts are usually within it.
const AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// For how long a line of Wazuh's is waited for. It writes them at once.
const LINE_LIMIT: Duration = Duration::from_secs(10);

/// For how long the controller's answer is waited for, which comes within a millisecond; Wazuh waits as well.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The bytes of a log line that go on record; the controller keeps fewer.
const EVIDENCE: usize = 4096;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum WazuhError {
    /// The program was linked under the name of another of Wazuh's executables.
    #[error("xdpban does not do what Wazuh's `{0}` does; link it as `firewall-drop`, which blocks addresses")]
    Name(String),
    /// Wazuh's message did not arrive.
    #[error("cannot read Wazuh's message: {0}")]
    Input(#[from] InputError),
    /// Wazuh's message is not one.
    #[error("{0}")]
    Message(#[from] Fault),
    /// Standard output is gone.
    #[error("cannot write the keys to standard output: {0}")]
    Output(#[source] io::Error),
    /// The controller did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The controller did not do it; why, in words.
    #[error("{0}")]
    Refused(String),
}

/// What is said beside the message; each in the place of what is found out otherwise.
#[derive(Debug, Default)]
pub struct Options {
    /// The control socket.
    pub socket: Option<PathBuf>,
    /// The file in the place of Wazuh's `active-responses.log`.
    pub log: Option<PathBuf>,
}

impl Options {
    /// What the environment says, which is what there is when Wazuh starts the program: `XDPBAN_SOCKET` and `XDPBAN_AR_LOG`.
    pub fn or_environment(self) -> Options {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Options {
            socket: self.socket.or_else(|| variable("XDPBAN_SOCKET")),
            log: self.log.or_else(|| variable("XDPBAN_AR_LOG")),
        }
    }
}

/// Whether a program that was started as `name`, with or without a path, is to be an executable of Wazuh's.
pub fn is_meant(name: &OsStr) -> bool {
    file_name(name).is_some_and(|name| NAMES.contains(&name) || OTHERS.contains(&name))
}

/// Does what Wazuh asks for on standard input. `name` is how the program was started.
///
/// # Errors
/// [`WazuhError`]; it stands in `active-responses.log`, too.
pub fn run(name: &OsStr, options: &Options) -> Result<(), WazuhError> {
    let own = file_name(name).filter(|name| is_meant(OsStr::new(name))).unwrap_or(NAMES[0]);
    let journal = Journal::open(options.log.as_deref(), Path::new(name), own);
    journal.write("Starting");
    let done = converse(own, options, &journal);
    match &done {
        Ok(end) => journal.write(end),
        Err(error) => journal.write(&format!("xdpban: {}", chain(error))),
    }
    done.map(drop)
}

/// Talks to Wazuh and to the controller; returns the word that it ends with.
fn converse(own: &str, options: &Options, journal: &Journal) -> Result<&'static str, WazuhError> {
    if OTHERS.contains(&own) {
        return Err(WazuhError::Name(own.to_owned()));
    }
    let stdin = io::stdin();
    let mut input = Input::new(stdin.as_fd(), LINE_LIMIT);
    let line = input.line()?;
    journal.write_raw(&line);
    let message = Message::parse(&line)?;
    for word in &message.unknown_arguments {
        journal.write(&format!("xdpban: the extra argument `{word}` is not understood and passed over"));
    }
    let socket = message.socket.clone().or_else(|| options.socket.clone()).unwrap_or_else(default_socket);
    let client = Client::of_socket(socket, ANSWER_LIMIT);
    // Wazuh takes a program that asked for its keys for one that blocks, and would not start it again for this address
    // until the timeout is over. So without a controller it must not ask.
    client.reach()?;

    if message.command == Command::Delete {
        hand_over(&client, ActiveCommand::Delete, &message, journal)?;
        return Ok("Ended");
    }
    let keys = message.check_keys(own);
    journal.write(&keys);
    writeln!(io::stdout(), "{keys}").and_then(|()| io::stdout().flush()).map_err(WazuhError::Output)?;
    let line = input.line()?;
    journal.write_raw(&line);
    match Answer::parse(&line)? {
        Answer::Continue => {
            hand_over(&client, ActiveCommand::Add, &message, journal)?;
            Ok("Ended")
        }
        // The address is blocked already, and Wazuh begins its timeout anew, so the block must last that long.
        Answer::Abort => {
            hand_over(&client, ActiveCommand::Renew, &message, journal)?;
            Ok("Aborted")
        }
    }
}

fn hand_over(
    client: &Client,
    command: ActiveCommand,
    message: &Message,
    journal: &Journal,
) -> Result<(), WazuhError> {
    let timeout = message.timeout;
    let answer = client.active_response(&ActiveResponse {
        command,
        source: message.source,
        timeout_s: timeout.unwrap_or(AT_MOST).as_secs(),
        timeout_known: timeout.is_some(),
        rule: message.rule.clone(),
        reason: message.reason(),
        user: message.user.clone(),
        evidence: message.log.as_deref().map(|log| {
            let end = (0..=EVIDENCE.min(log.len())).rfind(|&end| log.is_char_boundary(end));
            log[..end.unwrap_or(0)].to_owned()
        }),
    })?;
    if !answer.done {
        return Err(WazuhError::Refused(answer.message));
    }
    journal.write(&format!("xdpban: {}", answer.message));
    Ok(())
}

fn default_socket() -> PathBuf {
    crate::config::Paths::default().runtime.join(crate::control::SOCKET)
}

fn file_name(path: &OsStr) -> Option<&str> {
    Path::new(path).file_name().and_then(OsStr::to_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides() {
        for name in ["firewall-drop", "/var/ossec/active-response/bin/firewall-drop", "bin/route-null"] {
            assert!(is_meant(OsStr::new(name)), "{name}");
        }
        for name in ["xdpban", "/usr/bin/xdpban", "firewall-drop/xdpban", ""] {
            assert!(!is_meant(OsStr::new(name)), "{name}");
        }
    }
}
