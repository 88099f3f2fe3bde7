//! The systemd journal, read through `journalctl --follow --output=json`: the format of its files is systemd's own
//! affair, and linking libsystemd would make that a requirement.
//!
//! Only what sshd wrote as root is asked for. Any local user can log with the identifier `sshd` (`logger -t sshd`), but
//! `_UID` is what the kernel told journald of the sender (systemd.journal-fields(7), "Trusted Journal Fields"), and
//! those of sshd's processes that speak before and about authentication run as root. What the unprivileged process of
//! a logged-in user says is left out thereby; it is evidence of nothing.
//!
//! journald tells its readers of new entries up to 250 ms late, to save wakeups. A file source has no such delay.

#![allow(unsafe_code, reason = "what the child does before it becomes journalctl")]

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;

use super::lines::Splitter;
use super::outbox::{Outbox, Stopped};
use super::{JournalEntry, Position, Records};

/// Which entries: those of root with one of these identifiers. Matches of one field are alternatives, those of
/// different fields must all hold (journalctl(1)).
const MATCHES: [&str; 4] =
    ["_UID=0", "SYSLOG_IDENTIFIER=sshd", "SYSLOG_IDENTIFIER=sshd-session", "SYSLOG_IDENTIFIER=sshd-auth"];

/// How they are printed. The cursor and the time come with any choice of fields. A field of more than 4096 bytes is
/// printed as null, which bounds an entry; a message of sshd has at most 1 KiB.
const FORMAT: [&str; 4] = [
    "--output=json",
    "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_COMM,_HOSTNAME,_PID",
    "--no-pager",
    "--quiet",
];

/// The shortest and the longest pause before a `journalctl` that ended is started again. It doubles in between.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// How long `journalctl` must run without a word to pass for being in order.
const SETTLED: Duration = Duration::from_secs(2);

/// How much is kept of what it says on standard error, in bytes.
const MAX_STDERR: usize = 512;

/// What is asked of the journal.
pub(super) struct Query {
    /// The `journalctl` to run.
    pub(super) journalctl: OsString,
    /// Further identifiers, whoever logs under them: these programs do not all run as root.
    pub(super) programs: Vec<String>,
}

impl Query {
    /// The entries that are wanted, as arguments.
    fn matches(&self) -> impl Iterator<Item = String> {
        let or = if self.programs.is_empty() { None } else { Some("+".to_owned()) };
        let others = self.programs.iter().map(|program| format!("SYSLOG_IDENTIFIER={program}"));
        MATCHES.map(str::to_owned).into_iter().chain(or).chain(others)
    }
}

/// Follows the journal until `outbox` or `wake` says that it is over.
pub(super) fn run(query: &Query, from: Option<Position>, outbox: &mut Outbox, wake: &io::PipeReader) {
    let start = match from {
        Some(Position::Journal { cursor }) => Start::After(cursor),
        Some(Position::File { .. }) | None => Start::Here,
    };
    // The one way to end is the daemon's wish, and it knows of that.
    let Err(Stopped) = follow(query, start, outbox, wake);
}

/// Where to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    /// From here on: where that is must be asked first.
    Here,
    /// After the entry with this cursor.
    After(String),
    /// All there is: when that was asked, the journal had nothing of sshd's.
    Beginning,
}

/// Why one run of `journalctl` is over.
enum Over {
    Stopped,
    Failed(String),
}

impl From<Stopped> for Over {
    fn from(Stopped: Stopped) -> Over {
        Over::Stopped
    }
}

fn follow(
    query: &Query,
    mut start: Start,
    outbox: &mut Outbox,
    wake: &io::PipeReader,
) -> Result<std::convert::Infallible, Stopped> {
    let mut pause = PAUSES.0;
    loop {
        let Err(over) = anchor(query, &mut start, outbox, wake)
            .and_then(|()| read_on(query, &mut start, outbox, wake, &mut pause));
        let Over::Failed(why) = over else { return Err(Stopped) };
        outbox.begun();
        outbox
            .trouble(format!("{why}; it is started again, after {} s at the latest", PAUSES.1.as_secs()))?;
        if let Ready::Wake = wait(wake, &[], pause) {
            return Err(Stopped);
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Finds the last entry there is, so that following can begin right after it, and saves that as the position.
/// `--lines=0` would do but until the first entry: a restart before it would not know where to begin.
fn anchor(query: &Query, start: &mut Start, outbox: &mut Outbox, wake: &io::PipeReader) -> Result<(), Over> {
    if *start != Start::Here {
        outbox.begun();
        return Ok(());
    }
    let mut journalctl = Journalctl::spawn(query, &["--lines=1"])?;
    let mut last = None;
    loop {
        match journalctl.next(wake, PAUSES.1) {
            Next::Stop => return Err(Over::Stopped),
            Next::Entries(entries) => last = entries.cursor.or(last),
            Next::Idle => return Err(Over::Failed("journalctl --lines=1 does not end".to_owned())),
            Next::Ended { well: true, .. } => break,
            Next::Ended { well: false, message } => return Err(Over::Failed(message)),
        }
    }
    *start = match last {
        Some(cursor) => {
            outbox.batch(
                Records::Journal(Vec::new()),
                Position::Journal { cursor: cursor.clone() },
                false,
                0,
            )?;
            Start::After(cursor)
        }
        None => Start::Beginning,
    };
    outbox.begun();
    Ok(())
}

/// Hands on entries until `journalctl` ends, as it never should.
fn read_on(
    query: &Query,
    start: &mut Start,
    outbox: &mut Outbox,
    wake: &io::PipeReader,
    pause: &mut Duration,
) -> Result<std::convert::Infallible, Over> {
    let mut arguments = vec!["--follow".to_owned(), "--no-tail".to_owned()];
    if let Start::After(cursor) = &start {
        arguments.push(format!("--after-cursor={cursor}"));
    }
    let mut journalctl = Journalctl::spawn(query, &arguments)?;
    let mut unreadable = 0_u32;
    loop {
        match journalctl.next(wake, SETTLED) {
            Next::Stop => return Err(Over::Stopped),
            Next::Idle => outbox.well()?,
            Next::Entries(entries) => {
                unreadable = unreadable.saturating_add(entries.unreadable);
                let Some(cursor) = entries.cursor else { continue };
                *pause = PAUSES.0;
                *start = Start::After(cursor.clone());
                outbox.well()?;
                // journald's own timestamps are right, however late they are read.
                let position = Position::Journal { cursor };
                outbox.batch(Records::Journal(entries.entries), position, false, unreadable)?;
                unreadable = 0;
            }
            Next::Ended { message, .. } => {
                // A cursor that journalctl cannot make sense of it never will.
                if message.contains("cursor") {
                    *start = Start::Here;
                }
                return Err(Over::Failed(message));
            }
        }
    }
}

/// A running `journalctl`. It is killed and waited for when this is dropped, and killed by the kernel when the thread
/// that started it is gone.
struct Journalctl {
    child: Child,
    stdout: ChildStdout,
    /// None once it is closed.
    stderr: Option<ChildStderr>,
    splitter: Splitter,
    /// The last of what it said on standard error.
    said: Vec<u8>,
}

/// What comes from `journalctl`.
enum Next {
    Entries(Entries),
    /// Nothing, for as long as was asked to wait.
    Idle,
    /// It ended: well, and in words how.
    Ended {
        well: bool,
        message: String,
    },
    /// The daemon wants the source to end.
    Stop,
}

impl Journalctl {
    fn spawn(query: &Query, arguments: &[impl AsRef<OsStr>]) -> Result<Journalctl, Over> {
        let mut command = Command::new(&query.journalctl);
        command.args(FORMAT).args(arguments).args(query.matches()).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let parent = nix::unistd::getpid();
        // SAFETY: between fork and exec only async-signal-safe calls are allowed, and prctl(2) and getppid(2) are
        // such; neither allocates.
        unsafe {
            command.pre_exec(move || {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before that was in force.
                if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
            });
        }
        let mut child = command.spawn().map_err(|error| {
            Over::Failed(match error.kind() {
                io::ErrorKind::NotFound => {
                    "there is no journalctl on this host; install systemd, or name a log file as source"
                        .to_owned()
                }
                _ => format!("cannot start {}: {error}", query.journalctl.display()),
            })
        })?;
        match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), Some(stderr)) => Ok(Journalctl {
                child,
                stdout,
                stderr: Some(stderr),
                splitter: Splitter::new(),
                said: Vec::new(),
            }),
            // Both were asked for above, so this does not happen.
            _ => Err(Over::Failed("journalctl was started without its pipes".to_owned())),
        }
    }

    /// Waits for entries, as long as `timeout` between two signs of life.
    fn next(&mut self, wake: &io::PipeReader, timeout: Duration) -> Next {
        loop {
            let mut fds = vec![self.stdout.as_fd()];
            fds.extend(self.stderr.as_ref().map(AsFd::as_fd));
            match wait(wake, &fds, timeout) {
                Ready::Wake => return Next::Stop,
                Ready::Timeout => return Next::Idle,
                Ready::Again => {}
                Ready::Fd(0) => match self.stdout.read(self.splitter.space()) {
                    Ok(0) => return self.end(),
                    Ok(read) => {
                        let lines = self.splitter.take(read);
                        if lines.taken > 0 {
                            return Next::Entries(Entries::parse(&lines.bytes));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        return Next::Ended {
                            well: false,
                            message: format!("cannot read from journalctl: {error}"),
                        };
                    }
                },
                Ready::Fd(_) => self.listen(),
            }
        }
    }

    /// Takes in some of what it says on standard error.
    fn listen(&mut self) {
        let mut buffer = [0; MAX_STDERR];
        match self.stderr.as_mut().map(|stderr| stderr.read(&mut buffer)) {
            Some(Ok(read @ 1..)) => {
                self.said.extend_from_slice(&buffer[..read]);
                let excess = self.said.len().saturating_sub(MAX_STDERR);
                self.said.drain(..excess);
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            // Closed or broken: there is no more to hear.
            Some(Ok(_) | Err(_)) | None => self.stderr = None,
        }
    }

    /// It has closed its output; says how it ended.
    fn end(&mut self) -> Next {
        // One that closed its output and lives on is of no use. Where it is dead already this does nothing.
        let status = self.child.kill().and_then(|()| self.child.wait());
        // What it said is there already; whoever else holds the pipe open is not waited for.
        while let Some(stderr) = &self.stderr
            && poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
        {
            self.listen();
        }
        let said = String::from_utf8_lossy(&self.said);
        let last =
            said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it did not say why");
        let last: String = last.chars().filter(|char| !char.is_control()).collect();
        match status {
            Ok(status) => Next::Ended {
                well: status.success(),
                message: format!("journalctl ended ({status}): {last}"),
            },
            Err(error) => {
                Next::Ended { well: false, message: format!("cannot wait for journalctl: {error}") }
            }
        }
    }
}

impl Drop for Journalctl {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            log::warn!("ending journalctl: {error}");
        }
    }
}

/// What a wait ended with.
enum Ready {
    Wake,
    /// The one with this index.
    Fd(usize),
    Timeout,
    /// Nothing yet.
    Again,
}

fn wait(wake: &io::PipeReader, fds: &[BorrowedFd<'_>], timeout: Duration) -> Ready {
    let mut polled = vec![PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
    polled.extend(fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
    match poll(&mut polled, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
        Ok(0) => return Ready::Timeout,
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => {
            // Out of memory is all that can go wrong here; the time is given to pass.
            log::warn!("waiting for journalctl: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    // The daemon says nothing through the pipe but that it closes it.
    match polled.iter().position(|fd| fd.any().unwrap_or(false)) {
        Some(0) => Ready::Wake,
        Some(index) => Ready::Fd(index - 1),
        None => Ready::Again,
    }
}

/// What some lines of `journalctl` hold.
#[derive(Debug, Default)]
struct Entries {
    entries: Vec<JournalEntry>,
    /// The cursor of the last one.
    cursor: Option<String>,
    /// Lines that are no entry, and entries without a message that can be read.
    unreadable: u32,
}

/// An entry as journalctl prints it. A field is a string, an array of bytes where it is not printable, null where it is
/// too long, or an array of all these where it occurs more than once.
#[derive(Deserialize)]
struct Printed {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    realtime: Value,
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: Value,
    #[serde(rename = "_COMM", default)]
    comm: Value,
    #[serde(rename = "_PID", default)]
    pid: Value,
    #[serde(rename = "SYSLOG_PID", default)]
    syslog_pid: Value,
    #[serde(rename = "_HOSTNAME", default)]
    host: Value,
}

impl Entries {
    fn parse(lines: &[u8]) -> Entries {
        let mut found = Entries::default();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Ok(printed) = serde_json::from_slice::<Printed>(line) else {
                found.unreadable += 1;
                continue;
            };
            found.cursor = Some(printed.cursor.clone());
            match printed.entry() {
                Some(entry) => found.entries.push(entry),
                None => found.unreadable += 1,
            }
        }
        found
    }
}

/// The entry in one line of output; none where it cannot be read.
pub(super) fn entry(line: &[u8]) -> Option<JournalEntry> {
    serde_json::from_slice::<Printed>(line).ok()?.entry()
}

impl Printed {
    fn entry(self) -> Option<JournalEntry> {
        let message = field(self.message)?;
        let text = |value| field(value).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let number = |value| text(value).and_then(|text| text.parse().ok());
        Some(JournalEntry {
            identifier: text(self.identifier).or_else(|| text(self.comm)).unwrap_or_default(),
            pid: number(self.pid).or_else(|| number(self.syslog_pid)),
            host: text(self.host).unwrap_or_default(),
            realtime: text(self.realtime).and_then(|text| text.parse().ok()),
            message: Bytes::from(message),
        })
    }
}

/// A field that occurs once and can be read.
fn field(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.into_bytes()),
        Value::Array(bytes) => {
            bytes.into_iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use proptest::prelude::*;
    use tempfile::TempDir;
    use tokio::sync::mpsc;

    use super::super::{Batch, Report, Running, spawn};
    use super::*;

    /// A source that reads from a program, and what it reports.
    struct Bench {
        running: Running,
        reports: mpsc::Receiver<Report>,
    }

    impl Bench {
        fn start(program: &Path, from: Option<&str>) -> Bench {
            let (sender, reports) = mpsc::channel(16);
            let query = Query { journalctl: program.into(), programs: vec!["nginx".to_owned()] };
            let from = from.map(|cursor| Position::Journal { cursor: cursor.to_owned() });
            let running =
                spawn("journal", 0, sender, move |outbox, wake| run(&query, from, outbox, wake)).unwrap();
            Bench { running, reports }
        }

        fn next(&mut self) -> Report {
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                match self.reports.try_recv() {
                    Ok(report) => return report,
                    Err(error) => assert!(Instant::now() < deadline, "no report in 10 s: {error}"),
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        fn batch(&mut self) -> Batch {
            match self.next() {
                Report::Batch(batch) => batch,
                other => panic!("not a batch: {other:?}"),
            }
        }

        fn entries(&mut self) -> Vec<JournalEntry> {
            match self.batch().records {
                Records::Journal(entries) => entries,
                Records::Lines(_) => panic!("lines from the journal"),
            }
        }

        fn trouble(&mut self) -> String {
            match self.next() {
                Report::Trouble { message, .. } => message,
                other => panic!("no trouble: {other:?}"),
            }
        }
    }

    /// A stand-in for journalctl: it notes its arguments in a file and does what the script says.
    fn stand_in(script: &str) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journalctl");
        let calls = directory.path().join("calls");
        fs::write(&path, format!("#!/bin/sh\necho \"$*\" >> {}\n{script}\n", calls.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        (directory, path)
    }

    /// An entry as journalctl 252 printed it, with other names.
    const ENTRY: &str = r#"{"_PID":"812","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"Invalid user x from 192.0.2.7 port 1","__REALTIME_TIMESTAMP":"1795420417945365","__CURSOR":"s=1;i=15c","_COMM":"sshd","_HOSTNAME":"vm","__MONOTONIC_TIMESTAMP":"1115488714","_BOOT_ID":"3f37"}"#;

    #[test]
    fn fields_in_each_of_their_forms() {
        let entries = Entries::parse(ENTRY.as_bytes());
        let entry = JournalEntry {
            identifier: "sshd".to_owned(),
            pid: Some(812),
            host: "vm".to_owned(),
            realtime: Some(1_795_420_417_945_365),
            message: Bytes::from_static(b"Invalid user x from 192.0.2.7 port 1"),
        };
        assert_eq!(entries.entries, [entry]);
        assert_eq!(entries.cursor.as_deref(), Some("s=1;i=15c"));

        let bytes =
            Entries::parse(br#"{"__CURSOR":"c","MESSAGE":[104,255,0],"_COMM":"sshd","SYSLOG_PID":"7"}"#);
        assert_eq!(bytes.entries[0].message, &b"h\xff\0"[..]);
        assert_eq!((bytes.entries[0].identifier.as_str(), bytes.entries[0].pid), ("sshd", Some(7)));
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        for (line, cursor) in [
            ("no json", false),
            ("{}", false),
            (r#"{"__CURSOR":7,"MESSAGE":"x"}"#, false),
            (r#"{"__CURSOR":"c"}"#, true),
            (r#"{"__CURSOR":"c","MESSAGE":null}"#, true),
            (r#"{"__CURSOR":"c","MESSAGE":[256]}"#, true),
            (r#"{"__CURSOR":"c","MESSAGE":["x","y"]}"#, true),
            (r#"{"__CURSOR":"c","MESSAGE":{"x":1}}"#, true),
            (&"[".repeat(60_000), false),
        ] {
            let found = Entries::parse(line.as_bytes());
            assert_eq!(
                (found.entries.len(), found.unreadable, found.cursor.is_some()),
                (0, 1, cursor),
                "{line:.80}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_input_does_harm(bytes: Vec<u8>, at in 0..ENTRY.len(), flip: u8) {
            Entries::parse(&bytes);
            let mut near = ENTRY.as_bytes().to_vec();
            near[at] ^= flip;
            prop_assert!(Entries::parse(&near).entries.len() <= 1);
        }
    }

    #[test]
    fn a_journalctl_that_dies_is_started_again_after_what_it_gave() {
        let (directory, program) = stand_in(&format!("echo '{ENTRY}'; echo 'the disk is gone' >&2; exit 3"));
        let mut bench = Bench::start(&program, Some("s=0"));
        assert_eq!(bench.entries().len(), 1);
        let trouble = bench.trouble();
        assert!(trouble.contains("exit status: 3): the disk is gone;"), "{trouble}");
        assert_eq!(bench.next(), Report::Well { source: 0 });
        bench.running.stop().unwrap();
        let calls = fs::read_to_string(directory.path().join("calls")).unwrap();
        let after: Vec<_> = calls.lines().map(|call| call.split("--after-cursor=").nth(1).unwrap()).collect();
        assert!(after[0].starts_with("s=0 _UID=0 SYSLOG_IDENTIFIER=sshd "), "{calls}");
        assert!(after[1].starts_with("s=1;i=15c _UID=0 "), "{calls}");
        assert!(after[0].ends_with(" SYSLOG_IDENTIFIER=sshd-auth + SYSLOG_IDENTIFIER=nginx"), "{calls}");
    }

    #[test]
    fn a_cursor_that_means_nothing_is_given_up() {
        let (directory, program) = stand_in(
            "case \"$*\" in *after-cursor=bad*) echo 'Failed to seek to cursor: Invalid argument' >&2; exit 1;; \
             *lines=1*) exit 0;; *) exec sleep 60;; esac",
        );
        let mut bench = Bench::start(&program, Some("bad"));
        assert!(bench.trouble().contains("Failed to seek to cursor"));
        assert_eq!(bench.next(), Report::Well { source: 0 });
        bench.running.stop().unwrap();
        let calls = fs::read_to_string(directory.path().join("calls")).unwrap();
        assert_eq!(calls.lines().filter(|call| call.contains("--follow")).count(), 2, "{calls}");
    }

    #[test]
    fn stop_is_quick_and_leaves_no_child() {
        let (directory, program) = stand_in("echo $$ > \"$0.pid\"; exec sleep 60");
        let bench = Bench::start(&program, Some("s=0"));
        let pid = directory.path().join("journalctl.pid");
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read(&pid).unwrap_or_default().is_empty() {
            assert!(Instant::now() < deadline, "it was not started");
            std::thread::sleep(Duration::from_millis(1));
        }
        let started = Instant::now();
        bench.running.stop().unwrap();
        assert!(started.elapsed() < Duration::from_millis(200));
        let pid = fs::read_to_string(&pid).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }

    #[test]
    fn a_missing_journalctl_is_said() {
        let mut bench = Bench::start(Path::new("/nonexistent/journalctl"), None);
        assert!(bench.trouble().starts_with("there is no journalctl on this host; install systemd"));
        bench.running.stop().unwrap();
    }

    /// A journald of the test's own, seen by this thread and those that it starts alone.
    struct Journald(Child);

    impl Journald {
        fn start() -> Journald {
            const PROGRAM: &str = "/usr/lib/systemd/systemd-journald";
            assert!(
                nix::unistd::geteuid().is_root(),
                "this test needs root: it mounts in a namespace of its own"
            );
            assert!(Path::new(PROGRAM).exists(), "this test needs {PROGRAM} (Debian's package systemd)");
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            for over in ["/run", "/var/log"] {
                mount(Some("test"), over, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            }
            fs::create_dir_all("/run/systemd/journal").unwrap();
            let journald = Journald(Command::new(PROGRAM).stderr(Stdio::null()).spawn().unwrap());
            let deadline = Instant::now() + Duration::from_secs(10);
            while !Path::new("/run/systemd/journal/dev-log").exists() {
                assert!(Instant::now() < deadline, "journald did not open its socket in 10 s");
                std::thread::sleep(Duration::from_millis(5));
            }
            journald
        }

        fn log(user: &str, identifier: &str, message: &[u8]) {
            let mut logger = Command::new("setpriv")
                .args([
                    "--reuid",
                    user,
                    "--clear-groups",
                    "logger",
                    "--socket",
                    "/run/systemd/journal/dev-log",
                ])
                .args(["--tag", identifier])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Write::write_all(&mut logger.stdin.take().unwrap(), message).unwrap();
            assert!(logger.wait().unwrap().success());
            assert!(Command::new("journalctl").arg("--sync").status().unwrap().success());
        }
    }

    impl Drop for Journald {
        fn drop(&mut self) {
            self.0.kill().and_then(|()| self.0.wait()).unwrap();
        }
    }

    #[test]
    fn the_real_journal_gives_what_root_said_and_nothing_that_another_user_forged() {
        // The namespace goes with the thread.
        std::thread::spawn(|| {
            let _journald = Journald::start();
            Journald::log("0", "sshd", b"before the first start");

            let program = Path::new("journalctl");
            let mut bench = Bench::start(program, None);
            assert_eq!(bench.batch().records, Records::Journal(Vec::new()), "the position alone");
            Journald::log("65534", "sshd", b"Failed password for root from 192.0.2.1 port 1 ssh2");
            Journald::log("0", "cron", b"Failed password for root from 192.0.2.2 port 1 ssh2");
            Journald::log("0", "sshd-session", b"Invalid user \xff from 192.0.2.7 port 1");
            let batch = bench.batch();
            let Records::Journal(entries) = batch.records else { panic!() };
            assert_eq!(entries.len(), 1, "{entries:?}");
            assert_eq!(entries[0].identifier, "sshd-session");
            assert_eq!(entries[0].message, &b"Invalid user \xff from 192.0.2.7 port 1"[..]);
            assert!(entries[0].pid.is_some() && entries[0].realtime.is_some() && !entries[0].host.is_empty());
            bench.running.stop().unwrap();

            Journald::log("0", "sshd", b"while nobody read");
            let Position::Journal { cursor } = batch.position else { panic!() };
            let mut bench = Bench::start(program, Some(&cursor));
            let entries = bench.entries();
            assert_eq!(entries.len(), 1, "{entries:?}");
            assert_eq!(entries[0].message, &b"while nobody read"[..]);
            bench.running.stop().unwrap();
        })
        .join()
        .unwrap();
    }
}
