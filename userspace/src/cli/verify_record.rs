//! `xdpban verify-record`

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde_json::json;
use xdpban_engine::time::Wall;

use super::progress::Progress;
use super::table::{BAD, GOOD, STRONG, styled};
use super::{CliError, complain_of_unrecorded, print, print_json};
use crate::clock;
use crate::config::Paths;
use crate::human::{self, printable};
use crate::store::{Archive, Fault, Head, StoreError, Verified};

/// How often to look how far it is.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn run(paths: &Paths, kept: &[Head], json: bool) -> Result<(), CliError> {
    let verified = verify(&Archive::open(&paths.state)?, kept)?;
    complain_of_unrecorded(paths);
    if json {
        print_json(&document(&verified))?;
    } else {
        print(&text(&verified))?;
    }
    if verified.faults.is_empty() { Ok(()) } else { Err(CliError::Told) }
}

/// Verifies the record, and shows how far that is where anybody sees it.
fn verify(archive: &Archive, kept: &[Head]) -> Result<Verified, StoreError> {
    if !Progress::is_seen() {
        return archive.verify(kept);
    }
    let (total, taken) = (archive.steps()?, archive.steps_taken());
    let (end, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut progress = Progress::new(Some(total), "step");
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let taken = taken.load(Ordering::Relaxed);
                progress.update(taken, taken);
            }
        });
        let verified = archive.verify(kept);
        drop(end);
        verified
    })
}

fn text(verified: &Verified) -> String {
    let Verified { head, faults, more, .. } = verified;
    let mut text = String::new();
    for fault in faults {
        let place = match (fault.seq, fault.incident) {
            (Some(seq), Some(incident)) => format!("record {seq} (of incident {incident})"),
            (Some(seq), None) => format!("record {seq}"),
            (None, Some(incident)) => format!("incident {incident}"),
            (None, None) => "the allowlist".to_owned(),
        };
        let of = [fault.at.map(clock::local_rfc3339), fault.kind.clone()];
        let of: String = of.into_iter().flatten().map(|part| format!(", {part}")).collect();
        text.push_str(&format!("{}{}: {}\n", styled(BAD, &place), printable(&of), printable(&fault.what)));
    }
    if *more > 0 {
        text.push_str(&format!("and {} more\n", human::count(*more)));
    }
    let verdict = if faults.is_empty() {
        styled(GOOD, "intact")
    } else {
        styled(BAD, "NOT INTACT: it is not what was written")
    };
    text.push_str(&format!(
        "{verdict}: {}, {}\n",
        human::counted(verified.records, "record"),
        human::counted(verified.incidents, "incident")
    ));
    if verified.pruned_through > 0 {
        text.push_str(&format!(
            "records 1 to {} were pruned, as [record] asks for\n",
            human::count(verified.pruned_through.unsigned_abs())
        ));
    }
    text.push_str(&format!("head: {}\n", styled(STRONG, &head.to_string())));
    text.push_str(if faults.is_empty() {
        "keep that elsewhere: `xdpban verify-record --head` says whether it is still part of the record\n"
    } else {
        "it vouches for what stands there now, and not for what was written: keep the file, and the heads of before\n"
    });
    text
}

fn document(verified: &Verified) -> serde_json::Value {
    let Verified { head, pruned_through, records, incidents, faults, more, .. } = verified;
    let fault = |fault: &Fault| {
        let Fault { seq, at, kind, incident, what } = fault;
        json!({ "seq": seq, "at": at.map(|at: Wall| clock::rfc3339(at)), "kind": kind, "incident": incident, "what": what })
    };
    json!({
        "intact": faults.is_empty(),
        "head": head.to_string(),
        "records": records,
        "incidents": incidents,
        "pruned_through": pruned_through,
        "faults": faults.iter().map(fault).collect::<Vec<_>>(),
        "more_faults": more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_record_that_was_altered_is_not_worth_keeping() {
        let intact = text(&Verified::default());
        assert!(intact.contains("keep that elsewhere"), "{intact}");
        let fault = Fault { seq: Some(9), what: "it was altered".to_owned(), ..Fault::default() };
        let altered = text(&Verified { faults: vec![fault], ..Verified::default() });
        assert!(altered.contains("NOT INTACT") && !altered.contains("keep that elsewhere"), "{altered}");
    }
}
