//! What happened beside incidents, in words.

use serde_json::Value;
use xdpban_engine::time::Wall;

use super::tally::cut;
use super::times::seconds;
use crate::human::{count, counted};
use crate::store::Record;

/// Where in a report a record belongs, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// An operator did something.
    Act(String),
    /// Configuration or allowlist changed.
    Change(String),
    /// Something befell the record itself.
    OfRecord(String),
    /// Nothing that has a line of its own.
    Nothing,
}

/// What `record` says; `body` is its body.
pub(super) fn told(record: &Record, body: &Value) -> Told {
    let text = |name: &str| body[name].as_str().map(cut);
    let number = |name: &str| body[name].as_u64().unwrap_or(0);
    let what = match record.kind.as_str() {
        "operator.block" => blocked(body),
        "operator.unblock" if body["all"] == true => format!("lifted all blocks{}", reason(body)),
        "operator.unblock" => match number("done") {
            0 => format!(
                "wanted to lift the block of {}, of which there was none{}",
                targets(body),
                reason(body)
            ),
            done => format!("lifted the block of {}{}", done_to(body, done), reason(body)),
        },
        "operator.unlock" => {
            let user = text("user").unwrap_or_default();
            match body["done"] == true {
                true => format!("had the account {user} unlocked"),
                false => format!("asked to unlock the account {user}, which xdpban had not locked"),
            }
        }
        "operator.detach" => match texts(&body["interfaces"]) {
            interfaces if interfaces.is_empty() => "took xdpban off the host".to_owned(),
            interfaces => format!("took xdpban off {interfaces}"),
        },
        "trial.began" => format!("began a trial of {}", seconds(number("for_s"))),
        "trial.confirmed" => "confirmed the trial".to_owned(),
        "trial.ended" => "nobody confirmed the trial: everything was taken off".to_owned(),
        "trial.cut-short" => {
            "the trial was cut short by the end of its controller: blocks have their whole time again"
                .to_owned()
        }
        "controller.started" if body["dry_run"] == true => {
            return Told::Change("the controller started in a dry run: nothing is enforced".to_owned());
        }
        "enforcement.changed" if body["dry_run"] == true => {
            return Told::Change("a dry run began: nothing is enforced".to_owned());
        }
        "enforcement.changed" => {
            return Told::Change("the dry run ended: what is blocked is dropped".to_owned());
        }
        "config.read" if texts(&body["changes"]).is_empty() => return Told::Nothing,
        "config.read" | "config.changed" => return Told::Change(configuration(record, body)),
        "config.refused" => {
            let faults = counted(number("faults"), "fault");
            let first = text("first").unwrap_or_default();
            return Told::Change(format!("a new configuration was refused for {faults}, the first: {first}"));
        }
        "allow.added" => {
            let network = text("network").unwrap_or_default();
            let comment = text("comment").map_or(String::new(), |comment| format!(": {comment}"));
            let long = body["expires_at"].as_i64().map(|at| Wall(at).since(record.at).as_secs_f64().round());
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "seconds, not before 0"
            )]
            let long = long.map_or(String::new(), |long| format!(" for {}", seconds(long as u64)));
            return Told::Change(format!("{network} was put on the allowlist{long}{comment}"));
        }
        "allow.removed" => {
            let network = text("network").unwrap_or_default();
            let reason = text("reason").map_or(String::new(), |reason| format!(" ({reason})"));
            return Told::Change(format!("{network} is no longer on the allowlist{reason}"));
        }
        "store.set_aside" => {
            let why = text("why").unwrap_or_default();
            return Told::OfRecord(format!("the record before this one was set aside: {why}"));
        }
        "store.migrated" => {
            let (from, to) = (number("from"), number("to"));
            return Told::OfRecord(format!("the record was brought from version {from} to version {to}"));
        }
        "record.lost" => {
            let lost = counted(number("count"), "record");
            return Told::OfRecord(format!("{lost} were given up, because the store could not be written"));
        }
        "record.pruned" => {
            let (records, incidents) =
                (counted(number("records"), "record"), counted(number("incidents"), "incident"));
            let why = text("why").unwrap_or_default();
            return Told::OfRecord(format!(
                "{records} with {incidents} were taken off, because of their {why}"
            ));
        }
        "command.ran" => match text("failure") {
            Some(failure) => format!("`{}`: {failure}", text("command").unwrap_or_default()),
            None => return Told::Nothing,
        },
        "controller.started" | "controller.stopped" => return Told::Nothing,
        kind => format!("{kind} {}", cut(&record.body)),
    };
    Told::Act(what)
}

fn configuration(record: &Record, body: &Value) -> String {
    let when = if record.kind == "config.read" { "at start" } else { "while running" };
    let file = body["file"].as_str().map_or("no file".to_owned(), cut);
    match texts(&body["changes"]) {
        changes if changes.is_empty() => format!("{file} was read again, with no change"),
        changes => format!("{file} was read {when}: {changes}"),
    }
}

/// The first few targets, and how many more there are.
fn targets(body: &Value) -> String {
    const NAMED: usize = 5;
    let count = body["count"].as_u64().unwrap_or(0);
    let named: Vec<&str> =
        body["targets"].as_array().into_iter().flatten().filter_map(Value::as_str).take(NAMED).collect();
    match count.saturating_sub(named.len() as u64) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// What an operator had done by a block, or wanted to.
fn blocked(body: &Value) -> String {
    let long =
        body["timeout_s"].as_u64().map_or("until lifted".to_owned(), |s| format!("for {}", seconds(s)));
    let dry_run = if body["dry_run"] == true { "in a dry run, which enforces nothing, " } else { "" };
    let measure = body["measure"].as_str().map(cut);
    // Those before this was on record were not told apart.
    let done = body["done"].as_u64().unwrap_or(1);
    let what = match (measure, done) {
        (None, 0) => format!("was refused a block of {} {long}", targets(body)),
        (Some(measure), 0) => format!("was refused to set {} to {measure}, {long}", targets(body)),
        (None, done) => format!("blocked {} {long}", done_to(body, done)),
        (Some(measure), done) => format!("set {} to {measure}, {long}", done_to(body, done)),
    };
    format!("{dry_run}{what}{}", reason(body))
}

/// The targets, and to how many of them it was done where that is not all.
fn done_to(body: &Value, done: u64) -> String {
    let targets = targets(body);
    match body["refused"].as_u64() {
        None | Some(0) => targets,
        Some(refused) => format!("{} of {} ({targets})", count(done), counted(done + refused, "target")),
    }
}

/// Why, in the operator's words.
fn reason(body: &Value) -> String {
    body["reason"].as_str().map_or(String::new(), |reason| format!(": {}", cut(reason)))
}

fn texts(array: &Value) -> String {
    let texts: Vec<&str> = array.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // A new configuration can have a hundred changes.
    cut_to(&texts.join("; "), 1000)
}

fn cut_to(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use xdpban_engine::time::Wall;

    use super::*;

    fn said(kind: &str, body: &str) -> Told {
        let record =
            Record { seq: 1, at: Wall(0), kind: kind.to_owned(), incident: None, body: body.to_owned() };
        told(&record, &serde_json::from_str(body).unwrap())
    }

    #[test]
    fn records_in_words() {
        let act = |text: &str| Told::Act(text.to_owned());
        let change = |text: &str| Told::Change(text.to_owned());
        for (kind, body, told) in [
            (
                "operator.block",
                r#"{"count":7,"targets":["a","b","c","d","e","f"],"timeout_s":3600,"reason":"scan","done":6,"refused":1}"#,
                act("blocked 6 of 7 targets (a, b, c, d, e and 2 more) for 1 h: scan"),
            ),
            (
                "operator.block",
                r#"{"count":1,"targets":["10.99.80.1"],"timeout_s":null,"reason":null,"done":0,"refused":1}"#,
                act("was refused a block of 10.99.80.1 until lifted"),
            ),
            (
                "operator.block",
                r#"{"count":1,"targets":["a"],"timeout_s":30,"measure":"throttle to 3/s (burst 3), packets to port 22 only","dry_run":true,"reason":null,"done":1,"refused":0}"#,
                act(
                    "in a dry run, which enforces nothing, set a to throttle to 3/s (burst 3), packets to port 22 only, for 30 s",
                ),
            ),
            (
                "operator.unblock",
                r#"{"count":1,"targets":["10.99.91.5"],"all":false,"reason":null,"done":0,"refused":1}"#,
                act("wanted to lift the block of 10.99.91.5, of which there was none"),
            ),
            (
                "allow.added",
                r#"{"network":"192.0.2.0/24","comment":"visitors","expires_at":604800000001,"uid":0}"#,
                change("192.0.2.0/24 was put on the allowlist for 7 d: visitors"),
            ),
            (
                "operator.unblock",
                r#"{"count":0,"targets":[],"all":true,"reason":null,"done":3,"refused":0}"#,
                act("lifted all blocks"),
            ),
            (
                "operator.unblock",
                r#"{"count":1,"targets":["203.0.113.7"],"all":false,"reason":"a customer","done":1,"refused":0}"#,
                act("lifted the block of 203.0.113.7: a customer"),
            ),
            (
                "operator.unlock",
                r#"{"user":"alice","done":true,"uid":0}"#,
                act("had the account alice unlocked"),
            ),
            (
                "operator.unlock",
                r#"{"user":"bob","done":false,"uid":0}"#,
                act("asked to unlock the account bob, which xdpban had not locked"),
            ),
            (
                "config.changed",
                r#"{"file":"/etc/x.toml","digest":"00","changes":["rule 5710: timeout 100s is 1h"]}"#,
                change("/etc/x.toml was read while running: rule 5710: timeout 100s is 1h"),
            ),
            ("config.read", r#"{"file":null,"digest":"00","changes":[]}"#, Told::Nothing),
            (
                "allow.added",
                r#"{"network":"192.0.2.0/24","comment":"the office","expires_at":null,"uid":0}"#,
                change("192.0.2.0/24 was put on the allowlist: the office"),
            ),
            ("controller.started", "{}", Told::Nothing),
            (
                "record.lost",
                r#"{"count":3}"#,
                Told::OfRecord("3 records were given up, because the store could not be written".to_owned()),
            ),
            ("something.new", r#"{"a":1}"#, act(r#"something.new {"a":1}"#)),
        ] {
            assert_eq!(said(kind, body), told, "{kind}");
        }
    }
}
