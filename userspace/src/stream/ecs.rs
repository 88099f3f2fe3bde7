//! A record of an incident as a document of the Elastic Common Schema, version 8.17
//! (www.elastic.co/guide/en/ecs/8.17/ecs-field-reference.html).

use serde_json::{Map, Value, json};
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use crate::clock::rfc3339_micros;
use crate::host;
use crate::human;
use crate::store::Changed;

/// As much of the evidence as goes along, in bytes: messages of syslog are cut at 8 KiB by default.
const EVIDENCE: usize = 4096;

/// The document, on one line. None for records that tell of nothing new.
pub(super) fn line(change: &Changed) -> Option<String> {
    let of = Columns(&change.columns);
    let runs = of.text("action") == Some("run");
    let (types, outcome) = match change.kind.as_str() {
        // A command denies nothing.
        "incident.opened" | "incident.extended" if runs => (["info"].as_slice(), Some("success")),
        "incident.opened" => (["denied", "start"].as_slice(), Some("success")),
        "incident.extended" | "incident.resumed" => (["denied"].as_slice(), Some("success")),
        "incident.rests" => (["info"].as_slice(), None),
        "incident.ended" => (["end"].as_slice(), Some("success")),
        "incident.refused" | "incident.failed" => (["allowed"].as_slice(), Some("failure")),
        _ => return None,
    };
    let outcome =
        if matches!(of.text("outcome"), Some("failed" | "refused")) { Some("failure") } else { outcome };
    let ruleset = match of.text("origin") {
        Some("rule") => Some("xdpban"),
        Some("wazuh") => Some("wazuh"),
        _ => None,
    };
    // An alert is what a rule has found.
    let tells_of_a_match = matches!(
        change.kind.as_str(),
        "incident.opened" | "incident.extended" | "incident.refused" | "incident.failed"
    );
    let kind = if ruleset.is_some() && tells_of_a_match { "alert" } else { "event" };
    // In a dry run nothing is denied, and nobody knows whether it would have been.
    let dry_run = of.integer("dry_run") == Some(1);
    let types: Vec<&str> =
        types.iter().map(|kind| if dry_run && *kind == "denied" { "allowed" } else { *kind }).collect();
    let outcome = if dry_run { Some("unknown") } else { outcome };
    let (start, end) = (of.integer("first_seen"), of.integer("outcome_at"));
    let target = of.text("target")?;
    let address = target.parse::<Target>().ok().filter(Target::is_exact).map(|target| target.to_string());
    let users = of.texts("users");
    let host = host::name();
    let number = |name: &str| of.integer(name).map(|number| number.to_string());
    let mut document = json!({
        "@timestamp": rfc3339_micros(change.at),
        "ecs": { "version": "8.17.0" },
        "message": message(change.kind.as_str(), target, &of),
        "event": {
            "kind": kind,
            "category": ["intrusion_detection", "network"],
            "type": types,
            "action": change.kind.replace('.', "-"),
            "outcome": outcome,
            "module": "xdpban",
            "dataset": "xdpban.incident",
            "provider": "xdpban",
            "id": change.seq.to_string(),
            "sequence": change.seq,
            "start": start.map(|at| rfc3339_micros(Wall(at))),
            "end": end.map(|at| rfc3339_micros(Wall(at))),
            "duration": start.zip(end).map(|(start, end)| end.saturating_sub(start).max(0).saturating_mul(1000)),
            "severity": of.integer("rule_level"),
            "reason": of.text("outcome_reason").or(of.text("reason")),
            "original": evidence(&of.texts("evidence")),
        },
        "source": {
            "address": target,
            "ip": address,
            "packets": of.integer("dropped_packets"),
            "bytes": of.integer("dropped_bytes"),
        },
        "rule": {
            "id": number("rule_id"),
            "name": of.text("rule_description"),
            "description": of.text("rule_description"),
            "ruleset": of.integer("rule_id").and(ruleset),
        },
        "user": { "name": users.first() },
        "related": { "ip": address.as_ref().map(|address| [address]), "user": users, "hosts": host.as_ref().map(|host| [host]) },
        "observer": {
            "vendor": "xdpban",
            "product": "xdpban",
            "type": "ips",
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": host,
        },
        "host": { "name": host, "hostname": host },
        // All labels are keywords.
        "labels": {
            "incident": change.incident.to_string(),
            "record_hash": change.hash,
            "action": of.text("action"),
            "command": of.text("command"),
            "origin": of.text("origin"),
            "outcome": of.text("outcome"),
            "attempts": number("attempts"),
            "offences": number("offences"),
            "timeout_s": of.integer("timeout_us").map(|micros| (micros / 1_000_000).to_string()),
            "expires_at": of.integer("expires_at").map(|at| rfc3339_micros(Wall(at))),
            "line_to_block_us": number("line_to_block_us"),
            "uid": number("uid"),
            "outcome_uid": number("outcome_uid"),
            "dry_run": dry_run.then_some("true"),
        },
    });
    without_nulls(&mut document);
    Some(document.to_string())
}

/// The columns of an incident, as its records set them.
struct Columns<'a>(&'a Map<String, Value>);

impl<'a> Columns<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_i64()
    }

    fn texts(&self, name: &str) -> Vec<&'a str> {
        let texts = self.0.get(name).and_then(Value::as_array);
        texts.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// For people: what happened, or would have.
fn message(kind: &str, target: &str, of: &Columns<'_>) -> String {
    let what = what(kind, target, of);
    if of.integer("dry_run") == Some(1) { format!("dry run: {what}") } else { what }
}

fn what(kind: &str, target: &str, of: &Columns<'_>) -> String {
    let why = match (of.integer("rule_id"), of.text("rule_description")) {
        (Some(id), Some(description)) => format!("rule {id} {description}"),
        _ => of.text("reason").unwrap_or_default().to_owned(),
    };
    let seconds = of.integer("timeout_us").and_then(|micros| u64::try_from(micros / 1_000_000).ok());
    let how_long = match seconds {
        Some(seconds) => format!("for {}", human::duration(std::time::Duration::from_secs(seconds))),
        None => "until unblocked".to_owned(),
    };
    let done = match of.text("action") {
        Some("throttle") => "throttled",
        Some("run") => "answered",
        _ => "blocked",
    };
    let dropped = if of.integer("dry_run") == Some(1) { "would have been dropped" } else { "dropped" };
    let ended = || {
        let outcome = of.text("outcome").unwrap_or("ended");
        let packets = of.integer("dropped_packets").unwrap_or(0).unsigned_abs();
        match of.text("outcome_reason") {
            Some(reason) => format!("{outcome}: {reason}; {} {dropped}", human::counted(packets, "packet")),
            None => format!("{outcome}; {} {dropped}", human::counted(packets, "packet")),
        }
    };
    let because = of.text("outcome_reason").unwrap_or_default();
    match kind {
        // A command that declined, or failed, has this record only.
        "incident.opened" if of.text("outcome") == Some("refused") => {
            format!("{target} was not {done}: {because}")
        }
        "incident.opened" if of.text("outcome") == Some("failed") => {
            format!("{target} could not be {done}: {because}")
        }
        "incident.opened" => format!("{done} {target} {how_long}: {why}"),
        "incident.extended" => format!("{done} {target} further, {how_long}: {why}"),
        "incident.resumed" => format!("{done} {target} again: {why}"),
        "incident.rests" => {
            format!("that {target} is {done} {because}")
        }
        "incident.refused" => format!("{target} was left alone: {because}"),
        "incident.failed" => format!("{target} could not be {done}: {because}"),
        _ => format!("{target} is {done} no longer: {}", ended()),
    }
}

/// The lines that led to it, as many as there is room for.
fn evidence(lines: &[&str]) -> Option<String> {
    let mut text = String::new();
    for line in lines {
        if text.len() + line.len() + 1 > EVIDENCE {
            break;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
    Some(text).filter(|text| !text.is_empty())
}

/// Takes out fields without a value, and objects that are left without a field.
fn without_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(without_nulls);
        fields.retain(|_, value| !value.is_null() && !value.as_object().is_some_and(Map::is_empty));
    }
}

#[cfg(test)]
mod tests;
