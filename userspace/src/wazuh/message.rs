//! Wazuh's messages, in the forms of 4.x and 5.x.
//!
//! Much of an alert is what a client chose, but only as the content of strings: which field is which is Wazuh's own word. A
//! field that is written twice makes the message none.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::AT_MOST;
use crate::config::duration;
use crate::control::wire::Rule;

/// Characters kept of a description or a name.
const TEXT: usize = 200;

/// Arguments that are not understood, of which so many are told.
const UNKNOWN: usize = 8;

/// Why a line of Wazuh's cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is no JSON, or not of Wazuh's form.
    #[error("Invalid input format: {0}")]
    Form(#[from] serde_json::Error),
    /// A part is missing, or of another type.
    #[error("Invalid input format: no {0}")]
    Missing(&'static str),
    /// The command is none that can come here.
    #[error("Invalid value of 'command': `{0}`")]
    Command(String),
    /// There is no source address.
    #[error("Cannot read 'srcip' from data")]
    NoSource,
    /// The source address is no address in numbers.
    #[error("Invalid IP address: `{0}`")]
    Source(String),
}

/// What Wazuh asks to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// To block: `add`, or `enable` in 5.x.
    Add,
    /// To lift it: `delete`, or `disable`.
    Delete,
}

/// What Wazuh answers to the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// To go ahead.
    Continue,
    /// To leave it, since the same has been done and is in force.
    Abort,
}

/// What matters of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) command: Command,
    pub(super) source: IpAddr,
    /// The source as Wazuh writes it.
    key: String,
    /// How long it is to last, where the message or the extra arguments tell. None: until Wazuh lifts it.
    pub(super) timeout: Option<Duration>,
    /// `--socket` of the extra arguments.
    pub(super) socket: Option<PathBuf>,
    /// Extra arguments that are not understood.
    pub(super) unknown_arguments: Vec<String>,
    pub(super) rule: Option<Rule>,
    /// The name of the response in 5.x.
    name: Option<String>,
    pub(super) user: Option<String>,
    /// The log line behind it.
    pub(super) log: Option<String>,
}

impl Message {
    /// Reads a line.
    pub(super) fn parse(line: &[u8]) -> Result<Message, Fault> {
        let printed: Printed = serde_json::from_slice(line)?;
        let command = printed.command()?;
        let parts = match printed.wazuh {
            Some(_) => printed.parts_5(),
            None => printed.parts_4()?,
        };
        let key = parts.source.ok_or(Fault::NoSource)?;
        let source: IpAddr = key.parse().map_err(|_| Fault::Source(short(&key)))?;
        let arguments = Arguments::parse(&parts.arguments);
        Ok(Message {
            command,
            source: source.to_canonical(),
            key,
            timeout: arguments.timeout.or(parts.timeout),
            socket: arguments.socket,
            unknown_arguments: arguments.unknown,
            rule: parts.rule,
            name: parts.name,
            user: parts.user,
            log: parts.log,
        })
    }

    /// Why the source is to be blocked, in words.
    pub(super) fn reason(&self) -> String {
        let described = self.rule.as_ref().map(|rule| rule.description.clone());
        described
            .filter(|text| !text.is_empty())
            .or_else(|| self.name.clone())
            .unwrap_or_else(|| "asked for by Wazuh's Active Response".to_owned())
    }

    /// The line that asks Wazuh whether what this message is about is in force already.
    pub(super) fn check_keys(&self, own: &str) -> String {
        json!({
            "version": 1,
            "origin": {"name": own, "module": "active-response"},
            "command": "check_keys",
            "parameters": {"keys": [self.key]},
        })
        .to_string()
    }
}

impl Answer {
    /// Reads the line that answers [`Message::check_keys`].
    pub(super) fn parse(line: &[u8]) -> Result<Answer, Fault> {
        #[derive(Deserialize)]
        struct Printed {
            command: Option<String>,
        }
        let Printed { command } = serde_json::from_slice(line)?;
        match command.ok_or(Fault::Missing("command"))?.as_str() {
            "continue" => Ok(Answer::Continue),
            "abort" => Ok(Answer::Abort),
            other => Err(Fault::Command(short(other))),
        }
    }
}

/// A message as Wazuh prints it.
#[derive(Deserialize)]
struct Printed {
    version: Option<Value>,
    origin: Option<Value>,
    command: Option<Value>,
    parameters: Option<Parameters>,
    // From here on: 5.x.
    wazuh: Option<Wazuh>,
    source: Option<Source>,
    user: Option<Value>,
    rule: Option<PrintedRule>,
    event: Option<Value>,
}

#[derive(Deserialize)]
struct Parameters {
    extra_args: Option<Value>,
    alert: Option<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    rule: Option<PrintedRule>,
    data: Option<Data>,
    full_log: Option<Value>,
}

#[derive(Deserialize)]
struct Data {
    /// Not ours to insist on: any log in JSON can bring a field of this name.
    win: Option<Value>,
    srcip: Option<Value>,
    srcuser: Option<Value>,
    dstuser: Option<Value>,
}

#[derive(Deserialize)]
struct PrintedRule {
    id: Option<Value>,
    level: Option<Value>,
    description: Option<Value>,
    title: Option<Value>,
}

#[derive(Deserialize)]
struct Wazuh {
    active_response: Option<Response>,
}

#[derive(Deserialize)]
struct Response {
    name: Option<Value>,
    extra_arguments: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<Value>,
    stateful_timeout: Option<Value>,
}

#[derive(Deserialize)]
struct Source {
    ip: Option<Value>,
}

/// The same parts of both forms.
struct Parts {
    source: Option<String>,
    arguments: Vec<String>,
    timeout: Option<Duration>,
    rule: Option<Rule>,
    name: Option<String>,
    user: Option<String>,
    log: Option<String>,
}

impl Printed {
    fn command(&self) -> Result<Command, Fault> {
        let command = self.command.as_ref().and_then(Value::as_str).ok_or(Fault::Missing("command"))?;
        match command {
            "add" | "enable" => Ok(Command::Add),
            "delete" | "disable" => Ok(Command::Delete),
            other => Err(Fault::Command(short(other))),
        }
    }

    fn parts_4(self) -> Result<Parts, Fault> {
        if !self.version.is_some_and(|version| version.is_number()) {
            return Err(Fault::Missing("version"));
        }
        if !self.origin.is_some_and(|origin| origin.is_object()) {
            return Err(Fault::Missing("origin"));
        }
        let parameters = self.parameters.ok_or(Fault::Missing("parameters"))?;
        let (rule, data, log) = match parameters.alert {
            Some(alert) => (alert.rule, alert.data, alert.full_log),
            None => (None, None, None),
        };
        let (windows, srcip, user) = match data {
            Some(data) => (data.win, data.srcip, text(data.srcuser).or_else(|| text(data.dstuser))),
            None => (None, None, None),
        };
        let of_windows = |name: &str| text(windows.as_ref()?.get("eventdata")?.get(name).cloned());
        Ok(Parts {
            source: of_windows("ipAddress").or_else(|| of_windows("destinationIp")).or_else(|| text(srcip)),
            arguments: words(parameters.extra_args),
            timeout: None,
            rule: rule.and_then(PrintedRule::named),
            name: None,
            user,
            log: text(log),
        })
    }

    fn parts_5(self) -> Parts {
        let response = self.wazuh.and_then(|wazuh| wazuh.active_response);
        let (name, arguments, timeout) = match response {
            Some(response) => {
                let stateful = text(response.kind).is_none_or(|kind| kind == "stateful");
                let told = || duration::seconds(number(response.stateful_timeout)?).ok();
                // A response without a state is never disabled.
                let timeout = if stateful { told() } else { Some(AT_MOST) };
                (text(response.name).map(|name| short(&name)), words(response.extra_arguments), timeout)
            }
            None => (None, Vec::new(), None),
        };
        Parts {
            source: self.source.and_then(|source| text(source.ip)),
            arguments,
            timeout,
            rule: self.rule.and_then(PrintedRule::named),
            name,
            user: self.user.and_then(|user| text(user.get("name").cloned())),
            log: self.event.and_then(|event| text(event.get("original").cloned())),
        }
    }
}

impl PrintedRule {
    /// The rule; none where it has no number, as with responses that somebody started by hand.
    fn named(self) -> Option<Rule> {
        let id = number(self.id).and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0)?;
        Some(Rule {
            id,
            level: number(self.level).and_then(|level| u8::try_from(level).ok()).unwrap_or_default(),
            description: text(self.description)
                .or_else(|| text(self.title))
                .map(|text| short(&text))
                .unwrap_or_default(),
        })
    }
}

/// What the extra arguments of the command in Wazuh's configuration say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    timeout: Option<Duration>,
    socket: Option<PathBuf>,
    unknown: Vec<String>,
}

impl Arguments {
    /// Reads `--timeout DURATION` and `--socket PATH`, their values also after `=`.
    fn parse(words: &[String]) -> Arguments {
        let mut arguments = Arguments::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None if matches!(word.as_str(), "--timeout" | "--socket") => {
                    (word.as_str(), words.next().map(String::as_str))
                }
                None => (word.as_str(), None),
            };
            let understood = match (name, value) {
                ("--timeout", Some(value)) => {
                    // One that is no duration is told as not understood.
                    let timeout = duration::parse(value).ok();
                    arguments.timeout = timeout.or(arguments.timeout);
                    timeout.is_some()
                }
                ("--socket", Some(value)) if value.starts_with('/') => {
                    arguments.socket = Some(value.into());
                    true
                }
                _ => false,
            };
            if !understood && arguments.unknown.len() < UNKNOWN {
                let value = value.map(|value| format!(" {value}")).unwrap_or_default();
                arguments.unknown.push(short(&format!("{name}{value}")));
            }
        }
        arguments
    }
}

/// The words of a list of texts, or of one text.
fn words(value: Option<Value>) -> Vec<String> {
    let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    match value {
        Some(Value::String(text)) => split(&text),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).flat_map(split).collect(),
        _ => Vec::new(),
    }
}

fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// A whole number, which Wazuh writes in quotes at times.
fn number(value: Option<Value>) -> Option<u64> {
    match value {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// As much of a text as is worth keeping, on one line.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn add() -> Value {
        json!({
            "version": 1,
            "origin": {"name": "node01", "module": "wazuh-execd"},
            "command": "add",
            "parameters": {
                "extra_args": [],
                "alert": {
                    "timestamp": "2026-05-03T07:18:04.836-0700",
                    "rule": {"level": 5, "description": "no such user", "id": "5710", "groups": ["sshd"]},
                    "full_log": "sshd[7]: Invalid user admin from 203.0.113.5 port 22",
                    "data": {"srcip": "203.0.113.5", "srcuser": "admin"},
                },
                "program": "active-response/bin/firewall-drop",
            },
        })
    }

    fn enable() -> Value {
        json!({
            "wazuh": {
                "active_response": {
                    "name": "block-ssh", "executable": "block-ip", "extra_arguments": "",
                    "type": "stateful", "stateful_timeout": 180, "location": "local", "agent_id": "001",
                },
                "agent": {"id": "001", "name": "gw1"},
            },
            "source": {"ip": "2001:db8::7"},
            "user": {"name": "admin"},
            "event": {"original": "a line"},
            "command": "enable",
        })
    }

    fn parse(message: &Value) -> Result<Message, Fault> {
        Message::parse(message.to_string().as_bytes())
    }

    fn with(mut message: Value, pointer: &str, value: Value) -> Value {
        *message.pointer_mut(pointer).unwrap() = value;
        message
    }

    #[test]
    fn reads_the_form_of_version_4() {
        let message = parse(&add()).unwrap();
        assert_eq!((message.command, message.source.to_string().as_str()), (Command::Add, "203.0.113.5"));
        assert_eq!(message.timeout, None);
        let rule = message.rule.as_ref().unwrap();
        assert_eq!((rule.id, rule.level, rule.description.as_str()), (5710, 5, "no such user"));
        assert_eq!(message.user.as_deref(), Some("admin"));
        assert!(message.log.as_deref().unwrap().starts_with("sshd[7]: Invalid"));
        let keys: Value = serde_json::from_str(&message.check_keys("firewall-drop")).unwrap();
        assert_eq!(
            keys,
            json!({
                "version": 1,
                "origin": {"name": "firewall-drop", "module": "active-response"},
                "command": "check_keys",
                "parameters": {"keys": ["203.0.113.5"]},
            })
        );
        let delete = with(add(), "/command", json!("delete"));
        assert_eq!(parse(&delete).unwrap().command, Command::Delete);
    }

    #[test]
    fn reads_the_form_of_version_5() {
        let message = parse(&enable()).unwrap();
        assert_eq!((message.command, message.source.to_string().as_str()), (Command::Add, "2001:db8::7"));
        assert_eq!(message.timeout, Some(Duration::from_secs(180)));
        assert_eq!((message.rule.as_ref(), message.reason().as_str()), (None, "block-ssh"));
        assert_eq!((message.user.as_deref(), message.log.as_deref()), (Some("admin"), Some("a line")));
        let stateless = with(enable(), "/wazuh/active_response/type", json!("stateless"));
        assert_eq!(parse(&stateless).unwrap().timeout, Some(AT_MOST));
        assert_eq!(parse(&with(enable(), "/command", json!("disable"))).unwrap().command, Command::Delete);
    }

    #[test]
    fn the_address_is_the_first_of_three_and_in_numbers() {
        let windows = json!({"eventdata": {"ipAddress": "198.51.100.1", "destinationIp": "198.51.100.2"}});
        let data = json!({"win": windows, "srcip": "198.51.100.3"});
        let source = |data: Value| parse(&with(add(), "/parameters/alert/data", data));
        assert_eq!(source(data.clone()).unwrap().key, "198.51.100.1");
        let data = with(data, "/win/eventdata/ipAddress", Value::Null);
        assert_eq!(source(data.clone()).unwrap().key, "198.51.100.2");
        assert_eq!(source(with(data, "/win", Value::Null)).unwrap().key, "198.51.100.3");
        let mapped = source(json!({"srcip": "::ffff:203.0.113.5"})).unwrap();
        assert_eq!(
            (mapped.key.as_str(), mapped.source.to_string().as_str()),
            ("::ffff:203.0.113.5", "203.0.113.5")
        );
        for wrong in ["gw1.example.com", "203.0.113.0/24", "203.0.113.5 ", "-", "", "203.0.113", "0x7f.1"] {
            assert!(matches!(source(json!({"srcip": wrong})), Err(Fault::Source(_))), "{wrong}");
        }
        // What some log in JSON brought along does not keep its author from being blocked.
        assert_eq!(source(json!({"win": "x", "srcip": "203.0.113.5"})).unwrap().key, "203.0.113.5");
        for none in [json!({}), json!({"srcip": 7}), json!({"srcip": ["203.0.113.5"]})] {
            assert!(matches!(source(none), Err(Fault::NoSource)));
        }
    }

    #[test]
    fn a_response_that_was_started_by_hand_has_no_rule() {
        let message =
            parse(&with(add(), "/parameters/alert", json!({"data": {"srcip": "203.0.113.5"}}))).unwrap();
        assert_eq!((message.rule.as_ref(), message.log.as_ref()), (None, None));
        assert_eq!(message.reason(), "asked for by Wazuh's Active Response");
    }

    #[test]
    fn every_part_of_the_frame_must_be_there() {
        for (pointer, wrong) in [
            ("/version", json!("1")),
            ("/origin", json!("node01")),
            ("/command", json!(1)),
            ("/command", json!("check_keys")),
            ("/parameters", json!([])),
            ("/parameters", Value::Null),
        ] {
            assert!(parse(&with(add(), pointer, wrong.clone())).is_err(), "{pointer} {wrong}");
        }
        for line in ["", "add", "[]", "{}", "{\"command\":\"add\"}", "\u{0}"] {
            assert!(Message::parse(line.as_bytes()).is_err(), "{line}");
        }
        let twice = add().to_string().replacen("\"srcip\"", "\"srcip\":\"198.51.100.1\",\"srcip\"", 1);
        assert!(matches!(Message::parse(twice.as_bytes()), Err(Fault::Form(_))));
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        assert!(Message::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn extra_arguments_set_timeout_and_socket() {
        for arguments in [
            json!(["--timeout", "100s", "--socket", "/run/x/control.sock"]),
            json!(["--timeout 100s --socket /run/x/control.sock"]),
            json!(["--timeout=100", "--socket=/run/x/control.sock"]),
        ] {
            let message = parse(&with(add(), "/parameters/extra_args", arguments)).unwrap();
            assert_eq!(message.timeout, Some(Duration::from_secs(100)));
            assert_eq!(message.socket, Some("/run/x/control.sock".into()));
            assert_eq!(message.unknown_arguments, [""; 0]);
        }
        let wrong = json!(["--timeout", "soon", "--socket", "x", "-n", 7]);
        let message = parse(&with(add(), "/parameters/extra_args", wrong)).unwrap();
        assert_eq!((message.timeout, message.socket), (None, None));
        assert_eq!(message.unknown_arguments, ["--timeout soon", "--socket x", "-n"]);
        let newer = with(enable(), "/wazuh/active_response/extra_arguments", json!("--timeout 5m"));
        assert_eq!(parse(&newer).unwrap().timeout, Some(Duration::from_secs(300)));
    }

    #[test]
    fn wazuh_answers_to_go_ahead_or_to_leave_it() {
        let answer =
            |command: &str| Answer::parse(with(add(), "/command", json!(command)).to_string().as_bytes());
        assert_eq!(answer("continue").unwrap(), Answer::Continue);
        assert_eq!(answer("abort").unwrap(), Answer::Abort);
        assert!(matches!(answer("add"), Err(Fault::Command(_))));
        assert!(Answer::parse(b"{}").is_err() && Answer::parse(b"continue").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// Whatever a client had written into the log, the source is the one that Wazuh's decoder found.
        #[test]
        fn no_text_changes_the_source(text in any::<String>()) {
            let mut message = with(add(), "/parameters/alert/full_log", json!(text));
            message = with(message, "/parameters/alert/data/srcuser", json!(text));
            message = with(message, "/parameters/alert/rule/description", json!(text));
            prop_assert_eq!(parse(&message).unwrap().key, "203.0.113.5");
        }

        #[test]
        fn no_damage_panics(at in 0..300usize, bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut line = add().to_string().into_bytes();
            let end = (at + bytes.len()).min(line.len());
            line.splice(at..end, bytes);
            if let Ok(message) = Message::parse(&line) {
                prop_assert!(message.unknown_arguments.len() <= UNKNOWN);
            }
        }
    }
}
