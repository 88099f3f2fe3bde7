//! Every kind of record that is streamed, against the reference of the schema: which fields there are, of which type, and which
//! values they may have.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use xdpban_engine::change::{Block, End, Expiry, Origin, Protection, Protector, Refusal, Refused, Undo};
use xdpban_engine::measure::{Action, Measure, Rate};
use xdpban_engine::rules::{RuleId, RuleRef};
use xdpban_engine::time::Mono;

use super::*;
use crate::store::{Archive, Exit, Ran, Step, Store, Write};

/// The types of the reference (`generated/ecs/ecs_flat.yml`); what is an array there is one of keywords or of addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    Keyword,
    Keywords,
    Text,
    Long,
    Date,
    Ip,
    Ips,
}

const FIELDS: [(&str, Type); 38] = [
    ("@timestamp", Type::Date),
    ("ecs.version", Type::Keyword),
    ("event.action", Type::Keyword),
    ("event.category", Type::Keywords),
    ("event.dataset", Type::Keyword),
    ("event.duration", Type::Long),
    ("event.end", Type::Date),
    ("event.id", Type::Keyword),
    ("event.kind", Type::Keyword),
    ("event.module", Type::Keyword),
    ("event.original", Type::Keyword),
    ("event.outcome", Type::Keyword),
    ("event.provider", Type::Keyword),
    ("event.reason", Type::Keyword),
    ("event.sequence", Type::Long),
    ("event.severity", Type::Long),
    ("event.start", Type::Date),
    ("event.type", Type::Keywords),
    ("host.hostname", Type::Keyword),
    ("host.name", Type::Keyword),
    ("message", Type::Text),
    ("observer.hostname", Type::Keyword),
    ("observer.product", Type::Keyword),
    ("observer.type", Type::Keyword),
    ("observer.vendor", Type::Keyword),
    ("observer.version", Type::Keyword),
    ("related.hosts", Type::Keywords),
    ("related.ip", Type::Ips),
    ("related.user", Type::Keywords),
    ("rule.description", Type::Keyword),
    ("rule.id", Type::Keyword),
    ("rule.name", Type::Keyword),
    ("rule.ruleset", Type::Keyword),
    ("source.address", Type::Keyword),
    ("source.bytes", Type::Long),
    ("source.ip", Type::Ip),
    ("source.packets", Type::Long),
    ("user.name", Type::Keyword),
];

/// `signal` is not to be used by those who send events.
const KINDS: [&str; 7] = ["alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error"];
const OUTCOMES: [&str; 3] = ["failure", "success", "unknown"];

/// The types that are expected of events of a category.
const CATEGORIES: [(&str, &[&str]); 2] = [
    ("intrusion_detection", &["allowed", "denied", "info"]),
    ("network", &["access", "allowed", "connection", "denied", "end", "info", "protocol", "start"]),
];

/// 2026-11-23 08:06:40 UTC.
const START: Wall = Wall(1_795_421_200_000_000);

fn wall(seconds: u64) -> Wall {
    START.after(Duration::from_secs(seconds))
}

fn block(target: &str, origin: Origin) -> Block {
    let rule = RuleRef { id: RuleId(5710), level: 5, description: "unknown user".into() };
    Block {
        target: target.parse().unwrap(),
        created: START,
        expires: Some(Expiry { mono: Mono(0), wall: wall(100) }),
        measure: Measure::default(),
        rule: origin.is_by_rule().then_some(rule),
        reason: "why".into(),
        origin,
        offences: 1,
        attempts: 3,
        users: if origin.is_by_rule() { vec!["admin".into(), "root".into()] } else { Vec::new() },
        evidence: vec!["Invalid user admin from 203.0.113.7".into()],
    }
}

fn blocked(block: &Block, uid: Option<u32>) -> Write {
    let took = uid.is_none().then_some(Duration::from_micros(700));
    Write::Blocked { block: Arc::new(block.clone()), at: wall(1), took, uid, from: (0, 0), dry_run: false }
}

fn ended(block: &Block, end: End, uid: Option<u32>) -> Write {
    let block = Arc::new(block.clone());
    Write::Ended { block, end, at: wall(30), packets: 7, bytes: 420, reason: None, uid }
}

fn ran(command: &str, target: &str, step: Step, status: i32, undone: bool) -> Write {
    ran_with(command, target, step, Exit::Status(status), undone)
}

fn ran_with(command: &str, target: &str, step: Step, exit: Exit, undone: bool) -> Write {
    let mut why = block(target, Origin::Rule);
    why.expires = why.expires.filter(|_| undone);
    Write::Ran(Box::new(Ran {
        command: command.into(),
        why: Some(why),
        step,
        exit,
        stands: false,
        output: "said".into(),
        input: "{}".into(),
        at: wall(2),
        took: Duration::from_millis(5),
    }))
}

/// What is streamed of these, by the kind of record.
fn streamed(writes: &[Write]) -> Vec<(String, Value)> {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    store.write(writes).unwrap();
    let changes = Archive::open(directory.path()).unwrap().changes_after(0, 1000).unwrap();
    let documents = changes.iter().filter_map(|change| Some((change.kind.clone(), line(change)?)));
    documents.map(|(kind, line)| (kind, serde_json::from_str(&line).unwrap())).collect()
}

/// All kinds of records, from everybody who can lead to one.
fn everything() -> Vec<(String, Value)> {
    let number = std::num::NonZeroU32::new(20).unwrap();
    let throttle = Measure {
        action: Action::Throttle(Rate { per_second: number, burst: number }),
        ..Measure::default()
    };
    let strict = block("203.0.113.7", Origin::Rule);
    let weak = Block { measure: throttle, ..block("203.0.113.7", Origin::Wazuh) };
    let by_hand = block("2001:db8:7::/64", Origin::Operator);
    let adopted = block("203.0.113.9", Origin::Adopted);
    let (at, beneath) = (wall(3), strict.target);
    let refused = |origin| {
        let block = block("192.0.2.1", origin);
        let target = block.target;
        let because = Refusal::Protected(Protection { target, protected: target, by: Protector::Own });
        Write::Refused { refused: Box::new(Refused { block, because }), at }
    };
    let weak_one = || Arc::new(weak.clone());
    streamed(&[
        blocked(&weak, None),
        blocked(&strict, None),
        Write::Rests { block: weak_one(), at, beneath, packets: 3, bytes: 180 },
        blocked(&strict, None),
        ended(&strict, End::Expired, None),
        Write::Resumed { block: weak_one(), at: wall(31), from: (7, 420) },
        ended(&weak, End::Lifted, Some(0)),
        blocked(&by_hand, Some(1000)),
        blocked(&by_hand, Some(1000)),
        ended(&by_hand, End::Failed, None),
        blocked(&adopted, None),
        refused(Origin::Rule),
        refused(Origin::Wazuh),
        ended(&block("203.0.113.10", Origin::Rule), End::Failed, None),
        ran("notify", "203.0.113.7", Step::Add, 0, false),
        ran("broken", "203.0.113.7", Step::Add, 1, false),
        ran_with("lock root", "203.0.113.7", Step::Add, Exit::Declined, true),
        ran("lock", "203.0.113.7", Step::Add, 0, true),
        ran("lock", "203.0.113.7", Step::Add, 0, true),
        ran("lock", "203.0.113.7", Step::Delete(Undo::EXPIRED), 0, true),
        ran("stuck", "203.0.113.7", Step::Add, 0, true),
        ran("stuck", "203.0.113.7", Step::Delete(Undo::EXPIRED), 1, true),
    ])
}

/// The fields of a document by their full names.
fn fields<'d>(name: &str, value: &'d Value, into: &mut BTreeMap<String, &'d Value>) {
    match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                fields(&name, value, into);
            }
        }
        _ => drop(into.insert(name.to_owned(), value)),
    }
}

fn is_of(value: &Value, wanted: Type) -> bool {
    let all = |one| value.as_array().is_some_and(|values| values.iter().all(|value| is_of(value, one)));
    match wanted {
        Type::Keyword | Type::Text => value.is_string(),
        Type::Keywords => all(Type::Keyword),
        Type::Long => value.is_i64(),
        Type::Date => value.as_str().is_some_and(|text| text.parse::<Timestamp>().is_ok()),
        Type::Ip => value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()),
        Type::Ips => all(Type::Ip),
    }
}

#[test]
fn every_field_is_of_the_reference_and_of_its_type() {
    let types = BTreeMap::from(FIELDS);
    let mut seen = BTreeMap::new();
    let documents = everything();
    for (kind, document) in &documents {
        let mut fields = BTreeMap::new();
        self::fields("", document, &mut fields);
        for (name, value) in fields {
            let wanted = if name.starts_with("labels.") { Type::Keyword } else { types[&*name] };
            assert!(is_of(value, wanted), "{kind}: {name} is no {wanted:?}: {value}");
            seen.insert(name, kind.clone());
        }
    }
    let unseen: Vec<&str> = types.into_keys().filter(|name| !seen.contains_key(*name)).collect();
    assert_eq!(unseen, [""; 0], "no document has them");
}

#[test]
fn the_categories_are_of_the_reference_and_go_together() {
    let documents = everything();
    let mut kinds: Vec<&str> = documents.iter().map(|(kind, _)| kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let all = ["ended", "extended", "failed", "opened", "refused", "rests", "resumed"];
    assert_eq!(kinds, all.map(|kind| format!("incident.{kind}")));
    for (kind, document) in &documents {
        let event = &document["event"];
        let texts = |name: &str| {
            let texts = event[name].as_array().unwrap().iter();
            texts.map(|text| text.as_str().unwrap()).collect::<Vec<_>>()
        };
        let (categories, types) = (texts("category"), texts("type"));
        let expected = |category: &&str| CATEGORIES.iter().find(|(name, _)| name == category).unwrap().1;
        let expected = categories.iter().map(expected).collect::<Vec<_>>().concat();
        assert!(!types.is_empty() && types.iter().all(|of| expected.contains(of)), "{kind}: {types:?}");
        assert!(KINDS.contains(&event["kind"].as_str().unwrap()), "{kind}: {event}");
        if let Some(outcome) = event.get("outcome") {
            assert!(OUTCOMES.contains(&outcome.as_str().unwrap()), "{kind}: {event}");
        }
        if let Some(end) = event.get("end") {
            let at = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
            let nanoseconds = at(end).duration_since(at(&event["start"])).as_nanos();
            assert_eq!(event["duration"].as_i64().map(i128::from), Some(nanoseconds), "{kind}");
        }
        assert_eq!(event["id"], event["sequence"].to_string(), "{kind}");
    }
}

#[test]
fn what_each_kind_says_of_itself() {
    let documents = everything();
    let told: Vec<String> = documents
        .iter()
        .map(|(kind, document)| {
            let event = &document["event"];
            let types: Vec<&str> =
                event["type"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let action = document["labels"]["action"].as_str().unwrap();
            let origin = document["labels"]["origin"].as_str().unwrap();
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            format!(
                "{kind} {action} {origin}: {} {} {} {}",
                text(&event["kind"]),
                types.join("+"),
                text(&event["outcome"]),
                text(&document["rule"]["ruleset"])
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "incident.opened throttle wazuh: alert denied+start success wazuh",
            "incident.opened block rule: alert denied+start success xdpban",
            "incident.rests throttle wazuh: event info - wazuh",
            "incident.extended block rule: alert denied success xdpban",
            "incident.ended block rule: event end success xdpban",
            "incident.resumed throttle wazuh: event denied success wazuh",
            "incident.ended throttle wazuh: event end success wazuh",
            "incident.opened block operator: event denied+start success -",
            "incident.extended block operator: event denied success -",
            "incident.ended block operator: event end failure -",
            "incident.opened block adopted: event denied+start success -",
            "incident.refused block rule: alert allowed failure xdpban",
            "incident.refused block wazuh: alert allowed failure wazuh",
            "incident.failed block rule: alert allowed failure xdpban",
            "incident.opened run rule: alert info success xdpban",
            "incident.opened run rule: alert info failure xdpban",
            "incident.opened run rule: alert info failure xdpban",
            "incident.opened run rule: alert info success xdpban",
            "incident.extended run rule: alert info success xdpban",
            "incident.ended run rule: event end success xdpban",
            "incident.opened run rule: alert info success xdpban",
            "incident.ended run rule: event end failure xdpban",
        ]
    );
}

#[test]
fn a_command_that_declined_or_failed_has_answered_nothing() {
    let messages: Vec<Value> = streamed(&[
        ran("lock", "203.0.113.7", Step::Add, 0, true),
        ran_with("lock root", "203.0.113.7", Step::Add, Exit::Declined, true),
        ran("broken", "203.0.113.7", Step::Add, 1, false),
    ])
    .into_iter()
    .map(|(_, document)| document["message"].clone())
    .collect();
    assert_eq!(
        messages,
        [
            "answered 203.0.113.7 for 1 min 40 s: rule 5710 unknown user",
            "203.0.113.7 was not answered: said",
            "203.0.113.7 could not be answered: the command ended with status 1: said",
        ]
    );
}
