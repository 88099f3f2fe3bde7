//! `xdpban block` and `xdpban unblock`

use std::io::BufRead;
use std::path::Path;

use super::args::{Block, Unblock};
use super::list::DRY_RUN;
use super::{CliError, complain, open, print, print_json};
use crate::control::client::{Client, ClientError};
use crate::control::wire::{self, BlockRequest, Done, Refusal, UnblockRequest};
use crate::human;
use xdpban_engine::measure::Measure;
use xdpban_engine::target::Target;

/// Targets in one request: it stays well below the bound of a request's body.
const PART: usize = 10_000;

/// The longest line of a list of targets that is read.
const MAX_LINE: u64 = 1024;

pub(super) fn block(client: &Client, args: &Block, json: bool) -> Result<(), CliError> {
    let targets = targets(&args.targets, args.from.as_deref())?;
    let measure = measure(args)?;
    let (done, failed) = in_parts(&targets, |targets, more| {
        client.block(&BlockRequest {
            targets,
            timeout_s: args.timeout.map(|timeout| timeout.as_secs()),
            measure: wire::Measure::of(measure),
            reason: args.reason.clone(),
            more,
        })
    });
    let done_to =
        if measure == Measure::default() { "blocked".to_owned() } else { format!("set to {measure},") };
    let how_long = match args.timeout {
        Some(timeout) => format!("for {}", human::duration(timeout)),
        None => "until unblocked".to_owned(),
    };
    let what = match done.dry_run {
        true => format!("would be {done_to} {how_long}; {DRY_RUN}"),
        false => format!("{done_to} {how_long}"),
    };
    tell_parts(&done, failed, &what, json)
}

/// What befalls the packets.
fn measure(args: &Block) -> Result<Measure, CliError> {
    let scope = if args.new_only { wire::MeasureScope::New } else { wire::MeasureScope::All };
    let asked = wire::Measure { rate: args.throttle, burst: args.burst, ports: args.ports.clone(), scope };
    asked.read().map_err(CliError::Usage)
}

pub(super) fn unblock(client: &Client, args: &Unblock, json: bool) -> Result<(), CliError> {
    if args.all {
        let reason = args.reason.clone();
        let done = client.unblock(&UnblockRequest { targets: Vec::new(), all: true, reason, more: false })?;
        return tell(&done, "unblocked", json);
    }
    let targets = targets(&args.targets, args.from.as_deref())?;
    let (done, failed) = in_parts(&targets, |targets, more| {
        client.unblock(&UnblockRequest { targets, all: false, reason: args.reason.clone(), more })
    });
    tell_parts(&done, failed, "unblocked", json)
}

/// Has each part sent, with whether another follows: that all are on record is waited for once. Returns what was done, and why
/// one failed, after which none was sent.
fn in_parts(
    targets: &[Target],
    mut send: impl FnMut(Vec<String>, bool) -> Result<Done, ClientError>,
) -> (Done, Option<ClientError>) {
    let mut all = Done::default();
    let mut parts = targets.chunks(PART).peekable();
    while let Some(part) = parts.next() {
        let done = match send(part.iter().map(Target::to_string).collect(), parts.peek().is_some()) {
            Ok(done) => done,
            Err(error) => return (all, Some(error)),
        };
        all.done += done.done;
        all.refused.extend(done.refused);
        all.unrecorded = done.unrecorded;
        all.dry_run = done.dry_run;
        all.notes.extend(done.notes);
    }
    (all, None)
}

/// As [`tell`]; where a part failed, what was done before it is told all the same.
fn tell_parts(done: &Done, failed: Option<ClientError>, what: &str, json: bool) -> Result<(), CliError> {
    let Some(failed) = failed else { return tell(done, what, json) };
    if done.done > 0 || !done.refused.is_empty() {
        match tell(done, what, json) {
            // Each has been told, and the command fails in any case.
            Ok(()) | Err(CliError::Told | CliError::Partly { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(failed.into())
}

pub(super) fn tell(done: &Done, what: &str, json: bool) -> Result<(), CliError> {
    if json {
        print_json(done)?;
    } else if done.done > 0 || done.refused.is_empty() {
        print(&format!("{} {what}\n", human::counted(done.done as u64, "target")))?;
    }
    tell_unrecorded(done);
    done.notes.iter().for_each(|note| complain(note));
    if done.refused.is_empty() {
        return Ok(());
    }
    for Refusal { reason, .. } in &done.refused {
        complain(reason);
    }
    if done.done == 0 && done.refused.len() == 1 {
        return Err(CliError::Told);
    }
    Err(CliError::Partly { done: done.done, refused: done.refused.len() })
}

/// Says why what was done is not yet on record, where it is not.
pub(super) fn tell_unrecorded(done: &Done) {
    if let Some(why) = &done.unrecorded {
        complain(&format!("what was done is in force, and not yet on record: {why}"));
    }
}

/// The targets of the arguments and of the file: all of them sound, or none is taken.
fn targets(given: &[Target], from: Option<&Path>) -> Result<Vec<Target>, CliError> {
    let mut targets = given.to_vec();
    let Some(path) = from else { return Ok(targets) };
    let mut faults = Vec::new();
    let mut input = open(path)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = std::io::Read::take(&mut input, MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|source| CliError::Read { what: path.display().to_string(), source })?;
        if read == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        match text.parse() {
            Ok(target) => targets.push(target),
            Err(error) => faults.push(format!("{}:{number}: {error}", path.display())),
        }
        // One wrong file must not fill the screen.
        if faults.len() == 20 {
            break;
        }
    }
    if faults.is_empty() {
        return Ok(targets);
    }
    faults.push("nothing was done; correct these lines first".to_owned());
    Err(CliError::Usage(faults.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_before_a_part_failed_is_known() {
        let targets: Vec<Target> =
            (0..25_000).map(|number| Target::exact(std::net::Ipv4Addr::from_bits(number).into())).collect();
        let mut sent = 0;
        let mut send = |part: Vec<String>, more: bool| {
            sent += 1;
            if sent == 3 {
                return Err(ClientError::Stopping);
            }
            assert!(more);
            Ok(Done { done: part.len() - 1, notes: vec!["a note".to_owned()], ..Done::default() })
        };
        let (done, failed) = in_parts(&targets, &mut send);
        assert_eq!((done.done, done.notes.len()), (19_998, 2));
        assert!(matches!(failed, Some(ClientError::Stopping)));
        let (done, failed) = in_parts(&targets, |part, _| Ok(Done { done: part.len(), ..Done::default() }));
        assert_eq!(done.done, 25_000);
        assert!(failed.is_none());
    }

    #[test]
    fn reads_a_list_and_names_every_faulty_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        std::fs::write(&path, "# attackers\n203.0.113.7\n\n 2001:db8::/32 # a net\r\n").unwrap();
        let read = targets(&["192.0.2.1".parse().unwrap()], Some(&path)).unwrap();
        assert_eq!(
            read.iter().map(Target::to_string).collect::<Vec<_>>(),
            ["192.0.2.1", "203.0.113.7", "2001:db8::/32"]
        );
        std::fs::write(&path, "203.0.113.7\nnonsense\n192.0.2.1/24\n").unwrap();
        let error = targets(&[], Some(&path)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains(":2: `nonsense`") && text.contains(":3: `192.0.2.1/24`"), "{text}");
    }
}
