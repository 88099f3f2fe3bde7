//! What a command is told: one line of JSON on stdin, and the same in short in its environment.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use xdpban_engine::change::{Block, CommandRun};
use xdpban_engine::measure::Measure;
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use crate::clock;
use crate::control::wire;
use crate::host;
use crate::store::Standing;

/// The version of the object's shape. It changes where a field goes or gets another meaning.
const VERSION: u32 = 1;

/// What a source is blocked or throttled by.
#[derive(Clone, Copy, Debug)]
pub struct Blocked {
    target: Target,
    measure: Measure,
    /// None for one without an end.
    expires: Option<Wall>,
}

impl From<&Block> for Blocked {
    fn from(block: &Block) -> Blocked {
        let expires = block.expires.map(|expires| expires.wall);
        Blocked { target: block.target, measure: block.measure, expires }
    }
}

/// The event of a run as one object.
pub(super) fn of(run: &CommandRun, blocked: Option<Blocked>) -> Value {
    let why = &run.why;
    let timeout_s = why.expires.map(|expires| expires.wall.since(why.created).as_secs());
    let texts = |texts: &[Arc<str>]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    let blocked = blocked.map(|Blocked { target, measure, expires }| {
        json!({
            "target": target.to_string(),
            "action": measure.action.name(),
            "expires_at": expires.map(clock::rfc3339),
        })
    });
    json!({
        "version": VERSION,
        "command": if run.undo.is_some() { "delete" } else { "add" },
        "name": &*run.command,
        "host": host::name(),
        "rule": why.rule.as_ref().map(wire::Rule::from),
        "srcip": run.source.to_string(),
        "target": why.target.to_string(),
        "blocked": blocked,
        "user": run.user.as_deref(),
        "users": texts(&why.users),
        "attempts": why.attempts,
        "evidence": texts(&why.evidence),
        "timeout_s": timeout_s,
        "origin": why.origin.name(),
        "at": clock::rfc3339(why.created),
        "incident": format!("{}/{}/{}", run.on_record(), why.target, why.created.0),
    })
}

/// The event as variables of the environment. A value has no control characters in it.
pub(super) fn environment(event: &Value) -> Vec<(String, String)> {
    let fields = [
        ("COMMAND", "/command"),
        ("HOST", "/host"),
        ("SRCIP", "/srcip"),
        ("TARGET", "/target"),
        ("USER", "/user"),
        ("RULE_ID", "/rule/id"),
        ("RULE_LEVEL", "/rule/level"),
        ("RULE_DESCRIPTION", "/rule/description"),
        ("ATTEMPTS", "/attempts"),
        ("TIMEOUT", "/timeout_s"),
        ("INCIDENT", "/incident"),
    ];
    let value = |pointer| match event.pointer(pointer)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    fields
        .into_iter()
        .filter_map(|(name, pointer)| {
            let text: String = value(pointer)?.chars().filter(|c| !c.is_control()).collect();
            Some((format!("XDPBAN_{name}"), text))
        })
        .collect()
}

/// The run that did what is to be undone, from what the store kept of it.
pub fn restored(standing: Standing, per_user: impl Fn(&str) -> bool) -> CommandRun {
    let input: Value = serde_json::from_str(&standing.input).unwrap_or_default();
    let text = |name: &str| input.get(name).and_then(Value::as_str);
    // The name on record has the user behind the command's, which has no spaces.
    let command = standing.command.split(' ').next().unwrap_or_default();
    let source: Option<IpAddr> = text("srcip").and_then(|source| source.parse().ok());
    CommandRun {
        command: command.into(),
        per_user: per_user(command),
        user: text("user").map(Arc::from),
        source: source.unwrap_or(standing.why.target.address()),
        why: standing.why,
        undo: None,
    }
}
