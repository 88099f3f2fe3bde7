//! `ossec.conf` of Wazuh: `<active-response>`, the `<command>`s that it names, and the `<white_list>`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use roxmltree::{Document, Node};
use xdpban_engine::rules::Rule;

use super::{Draft, draft, fault, finish, network};
use crate::config::{Config, Faults, SourceConfig, duration, read};

/// Executables of Wazuh that keep an address out, by whatever means.
const BLOCKING: [&str; 9] = [
    "firewall-drop",
    "block-ip",
    "firewalld-drop",
    "host-deny",
    "route-null",
    "ip-customblock",
    "ipfw",
    "npf",
    "pf",
];

/// The roots of its configuration: a host's own, and what a manager hands to its agents.
const ROOTS: [&str; 2] = ["ossec_config", "agent_config"];

/// Sections that only a manager's configuration has.
const MANAGER: [&str; 4] = ["alerts", "remote", "ruleset", "rules"];

/// Where sshd's messages go, by what the configuration of Wazuh's log collector says.
const SSHD_LOGS: [&str; 2] = ["/var/log/auth.log", "/var/log/secure"];

/// What of an `ossec.conf` matters here.
#[derive(Debug, Default)]
struct Ossec {
    commands: BTreeMap<String, Command>,
    responses: Vec<Response>,
    /// `<repeated_offenders>`, in minutes; they hold for every response.
    repeated_offenders: Vec<u64>,
    white_list: Vec<String>,
    /// The log of sshd, or none for the journal, of each `<localfile>` that is one.
    logs: Vec<Option<String>>,
    manager: bool,
    /// What cannot be taken over, for a comment each.
    left: Vec<String>,
}

#[derive(Debug)]
struct Command {
    executable: String,
    timeout_allowed: bool,
}

#[derive(Debug)]
struct Response {
    /// Where it stands.
    line: u32,
    command: String,
    location: String,
    rules: Vec<u32>,
    groups: Vec<String>,
    level: Option<u8>,
    timeout: Option<Duration>,
    notes: Vec<String>,
}

/// Turns `file` into a configuration of ours.
///
/// # Errors
/// The file cannot be read, or is no XML; with the line.
pub fn import(file: &Path) -> Result<String, Faults> {
    let mut faults = Faults::default();
    let text = read::file(file, &mut faults).map_err(|error| fault(file, None, read::refused(&error)))?;
    let Some(text) = text else { return Err(faults) };
    write(&parse(&text, file)?, file)
}

fn parse(text: &str, file: &Path) -> Result<Ossec, Faults> {
    let wrapped = one_root(text);
    let document = Document::parse(&wrapped).map_err(|error| {
        let line = usize::try_from(error.pos().row).ok();
        fault(file, line, format!("this is not well-formed: {error}"))
    })?;
    if !elements(document.root_element()).any(|root| ROOTS.contains(&root.tag_name().name())) {
        return Err(fault(
            file,
            None,
            "this is no configuration of Wazuh or OSSEC: it has no <ossec_config>",
        ));
    }
    let mut ossec = Ossec::default();
    for section in elements(document.root_element()).flat_map(elements) {
        match section.tag_name().name() {
            "command" => ossec.command(section),
            "active-response" => ossec.response(section),
            "global" => {
                let listed = elements(section).filter(|item| item.has_tag_name("white_list"));
                ossec.white_list.extend(listed.map(content).filter(|text| !text.is_empty()));
            }
            "localfile" => ossec.local_file(section),
            name => ossec.manager |= MANAGER.contains(&name),
        }
    }
    Ok(ossec)
}

/// The text as XML with one root, its lines where they were. Wazuh's own reader takes several roots, and ampersands that
/// begin no entity.
fn one_root(text: &str) -> String {
    let text = text.trim_start_matches('\u{feff}');
    let (declaration, rest) = match (text.trim_start().starts_with("<?xml"), text.find("?>")) {
        (true, Some(end)) => text.split_at(end + 2),
        _ => ("", text),
    };
    let mut wrapped = "\n".repeat(declaration.matches('\n').count());
    wrapped.push_str("<files>");
    let mut pieces = rest.split('&');
    wrapped.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let name = piece.split_once(';').map(|(name, _)| name.strip_prefix('#').unwrap_or(name));
        let entity =
            name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric()));
        wrapped.push_str(if entity { "&" } else { "&amp;" });
        wrapped.push_str(piece);
    }
    wrapped.push_str("</files>");
    wrapped
}

fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

/// The text of an element, without its comments.
fn content(node: Node<'_, '_>) -> String {
    let text: String = node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect();
    text.trim().to_owned()
}

/// The values of all elements of that name.
fn values(section: Node<'_, '_>, name: &str) -> Vec<String> {
    elements(section)
        .filter(|item| item.has_tag_name(name))
        .map(content)
        .filter(|text| !text.is_empty())
        .collect()
}

/// The last value of that name, which is the one that holds.
fn value(section: Node<'_, '_>, name: &str) -> Option<String> {
    values(section, name).pop()
}

fn line(node: Node<'_, '_>) -> u32 {
    node.document().text_pos_at(node.range().start).row
}

impl Ossec {
    fn command(&mut self, section: Node<'_, '_>) {
        // The log collector has a `<command>` of its own within `<localfile>`, which is not this one.
        let (Some(name), Some(executable)) = (value(section, "name"), value(section, "executable")) else {
            return;
        };
        let timeout_allowed = value(section, "timeout_allowed").is_none_or(|text| text != "no");
        if let Some(arguments) = value(section, "extra_args") {
            self.left.push(format!("the extra arguments `{arguments}` of the command {name}"));
        }
        self.commands.insert(name, Command { executable, timeout_allowed });
    }

    fn response(&mut self, section: Node<'_, '_>) {
        for list in values(section, "repeated_offenders") {
            let minutes = list.split(',').map(|minutes| minutes.trim().parse::<u64>());
            match minutes.collect::<Result<Vec<u64>, _>>() {
                Ok(minutes) => self.repeated_offenders = minutes,
                Err(_) => {
                    self.left.push(format!("repeated_offenders `{list}`, which are not numbers of minutes"))
                }
            }
        }
        let disabled = value(section, "disabled").is_some_and(|text| text == "yes");
        let line = line(section);
        let Some(command) = value(section, "command") else {
            if disabled {
                self.left.push(format!(
                    "line {line} turns all Active Responses of this host off; those of other lines stand here all the same"
                ));
            }
            return;
        };
        if disabled {
            self.left.push(format!("the response `{command}` of line {line}, which is disabled"));
            return;
        }
        let mut response = Response {
            line,
            command,
            location: value(section, "location").unwrap_or_default(),
            rules: Vec::new(),
            groups: Vec::new(),
            level: None,
            timeout: None,
            notes: Vec::new(),
        };
        response.select(section);
        response.time(section);
        self.responses.push(response);
    }

    fn local_file(&mut self, section: Node<'_, '_>) {
        match (value(section, "log_format").as_deref(), value(section, "location")) {
            (Some("journald"), _) => self.logs.push(None),
            (Some("syslog"), Some(path)) if SSHD_LOGS.contains(&path.as_str()) => self.logs.push(Some(path)),
            _ => {}
        }
    }
}

impl Response {
    fn select(&mut self, section: Node<'_, '_>) {
        for id in values(section, "rules_id").iter().flat_map(|list| list.split([',', ' '])) {
            match id.parse() {
                _ if id.is_empty() => {}
                Ok(id) if id > 0 => self.rules.push(id),
                _ => self.notes.push(format!("`{id}` is no rule")),
            }
        }
        for pattern in values(section, "rules_group") {
            for group in pattern.split('|').map(|group| group.trim_matches([',', ' '])) {
                let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
                if group.is_empty() {
                } else if group.chars().all(plain) {
                    self.groups.push(group.to_owned());
                } else {
                    self.notes.push(format!(
                        "the pattern `{group}` of rules_group has no counterpart; name the groups"
                    ));
                }
            }
        }
        if let Some(level) = value(section, "level") {
            match level.parse() {
                Ok(level @ 0..=15) => self.level = Some(level),
                _ => self.notes.push(format!("there is no level `{level}` here, 15 is the highest")),
            }
        }
    }

    fn time(&mut self, section: Node<'_, '_>) {
        let Some(timeout) = value(section, "timeout").filter(|text| text != "0") else { return };
        match timeout.parse().map_err(|_| ()).and_then(|seconds| duration::seconds(seconds).map_err(|_| ())) {
            Ok(timeout) => self.timeout = Some(timeout),
            Err(()) => self.notes.push(format!("the timeout `{timeout}` is no number of seconds")),
        }
    }

    /// Takes out what no rule of ours is or has; returns the names of it.
    fn without_unknown(&mut self, known: &[Rule]) -> Vec<String> {
        let mut unknown = Vec::new();
        // Rules of level 0 are never answered, in Wazuh neither.
        let answered = |id: u32| known.iter().any(|rule| rule.id.0 == id && rule.level > 0);
        self.rules.retain(|id| {
            answered(*id) || {
                unknown.push(format!("rule {id}"));
                false
            }
        });
        let has = |group: &String| known.iter().any(|rule| rule.groups.contains(group));
        self.groups.retain(|group| {
            has(group) || {
                unknown.push(format!("group {group}"));
                false
            }
        });
        unknown
    }
}

fn write(ossec: &Ossec, file: &Path) -> Result<String, Faults> {
    let known = Config::parse("", file, &[])?.policy.rules;
    let mut draft = Draft::default();
    draft.comment(&format!("Imported from {}, a configuration of Wazuh.", file.display()));
    for left in &ossec.left {
        draft.comment(&format!("Left out: {left}."));
    }
    draft.blank();

    let foreign =
        ossec.manager && ossec.responses.iter().any(|response| needs_alerts(response, known.rules()));
    if foreign {
        sources(&mut draft, ossec);
    }
    draft.comment(
        "Of the responses that fit a match the first is taken, where Wazuh takes all. Without any in this file the default ones hold.",
    );
    draft.blank();
    for response in &ossec.responses {
        response_of(&mut draft, ossec, response, (!foreign).then_some(known.rules()));
        draft.blank();
    }
    allow(&mut draft, &ossec.white_list);
    finish(draft)
}

/// Whether a response names what only Wazuh's rules are.
fn needs_alerts(response: &Response, known: &[Rule]) -> bool {
    let ids = response.rules.iter().any(|id| known.iter().all(|rule| rule.id.0 != *id));
    ids || response.groups.iter().any(|group| known.iter().all(|rule| !rule.groups.contains(group)))
}

fn sources(draft: &mut Draft, ossec: &Ossec) {
    draft.comment("Some responses name rules that only Wazuh has, so its alerts are followed.");
    draft.table("[[source]]");
    draft.key("kind", &draft::text("wazuh-alerts"));
    draft.key("path", &draft::text(SourceConfig::WAZUH_ALERTS));
    draft.blank();
    for log in ossec.logs.iter().collect::<BTreeSet<_>>() {
        draft.comment("sshd's messages, read here, are answered seconds before Wazuh's alerts about them.");
        draft.table("[[source]]");
        match log {
            Some(path) => {
                draft.key("kind", &draft::text("file"));
                draft.key("path", &draft::text(path));
            }
            None => draft.key("kind", &draft::text("journal")),
        }
        draft.blank();
    }
}

/// Writes a response. `known`: the rules that there are, where Wazuh's are out of reach.
fn response_of(draft: &mut Draft, ossec: &Ossec, response: &Response, known: Option<&[Rule]>) {
    let Response { line, command, location, .. } = response;
    draft.comment(&format!("Line {line}: `{command}`, location `{location}`"));
    for note in &response.notes {
        draft.comment(&format!("Left out: {note}."));
    }
    let defined = ossec.commands.get(command);
    let executable = defined.map_or(command, |command| &command.executable);
    let program = executable.trim_end_matches(".sh");
    if !BLOCKING.contains(&program) {
        draft.comment(&no_counterpart(executable));
        return;
    }
    if !matches!(location.as_str(), "local" | "all") {
        draft.comment(&format!(
            "Left out: its location is `{location}`, and xdpban acts on the host that it runs on alone. Write the response into \
             the configuration of xdpban on that host."
        ));
        return;
    }
    if location == "all" {
        draft.comment("In Wazuh this blocks on every agent; here on this host alone.");
    }
    let mut selected = Response {
        notes: Vec::new(),
        rules: response.rules.clone(),
        groups: response.groups.clone(),
        command: String::new(),
        location: String::new(),
        ..*response
    };
    let unknown = known.map(|known| selected.without_unknown(known)).unwrap_or_default();
    if !unknown.is_empty() {
        draft.comment(&format!(
            "Left out: {}. xdpban has rules for sshd; others need decoders and rules of your own (docs/rules.md), or the alerts of \
             a Wazuh manager on this host (docs/wazuh.md).",
            unknown.join(", ")
        ));
    }
    // Where a group was asked for, the level alone would fit more than it did.
    let narrowed = selected.groups.is_empty() && !response.groups.is_empty();
    let level = selected.level.filter(|_| !narrowed);
    if selected.rules.is_empty() && selected.groups.is_empty() && level.is_none() {
        draft.comment("Nothing is left that it could answer.");
        return;
    }
    if !selected.groups.is_empty() {
        draft.comment("Wazuh finds a group by any part of its name; here the names are whole.");
    }
    draft.table("[[response]]");
    if !selected.rules.is_empty() {
        draft.key("rules", &draft::list(&selected.rules));
    }
    if !selected.groups.is_empty() {
        draft.key("groups", &draft::texts(&selected.groups));
    }
    if let Some(level) = level {
        draft.key("level", &level.to_string());
    }
    draft.key("location", &draft::text("local"));
    let timeout = selected.timeout.filter(|_| defined.is_none_or(|command| command.timeout_allowed));
    match timeout {
        Some(timeout) => {
            draft.key("timeout", &draft::text(&draft::duration(timeout)));
            let minutes = ossec.repeated_offenders.iter().filter_map(|minutes| minutes.checked_mul(60));
            let longer: Vec<Duration> =
                minutes.filter_map(|seconds| duration::seconds(seconds).ok()).collect();
            if !longer.is_empty() {
                draft.key("repeat_offenders", &draft::texts(longer.into_iter().map(draft::duration)));
            }
        }
        None => draft.comment("As in Wazuh it has no timeout: it lasts until `xdpban unblock`."),
    }
}

fn no_counterpart(executable: &str) -> String {
    match executable.trim_end_matches(".sh") {
        "disable-account" => "Left out: it locks the account of any match. `action = \"lock-account\"` locks one after so many \
             failed logins from anywhere; see docs/commands.md."
            .to_owned(),
        "restart-wazuh" | "restart-ossec" | "restart" => {
            format!("Left out: `{executable}` restarts Wazuh, which Wazuh itself has to do.")
        }
        _ => format!(
            "Left out: `{executable}` is none of Wazuh's programs that block addresses. A program of your own can be run with \
             `action = \"run\"`; see docs/commands.md."
        ),
    }
}

fn allow(draft: &mut Draft, white_list: &[String]) {
    if white_list.is_empty() {
        return;
    }
    let mut networks = BTreeSet::new();
    let mut others = Vec::new();
    for entry in white_list {
        match network(entry) {
            Some(network) => {
                networks.insert(network.to_string());
            }
            // Wazuh writes its default entry for localhost as a pattern.
            None if entry.trim_matches(['^', '$']).starts_with("localhost") => {}
            None => others.push(entry.as_str()),
        }
    }
    draft.comment("<white_list>");
    for other in others {
        draft.comment(&format!(
            "Left out: `{other}`; only addresses and networks can be allowed, names cannot."
        ));
    }
    draft.table("[allow]");
    draft.key("networks", &draft::texts(networks));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns the text of a file into a configuration; its settings and its comments.
    fn imported(text: &str) -> (Vec<String>, String, Config) {
        let file = Path::new("ossec.conf");
        let written = write(&parse(text, file).unwrap(), file).unwrap();
        let config = Config::parse(&written, Path::new("x.toml"), &[]).unwrap();
        let (comments, settings): (Vec<&str>, Vec<&str>) =
            written.lines().filter(|line| !line.is_empty()).partition(|line| line.starts_with('#'));
        let comments = comments.into_iter().map(|line| line.trim_start_matches('#')).collect();
        (settings.into_iter().map(str::to_owned).collect(), comments, config)
    }

    const COMMANDS: &str = "<command><name>drop</name><executable>firewall-drop</executable><timeout_allowed>yes</timeout_allowed></command>";

    #[test]
    fn another_file_is_refused() {
        for text in ["", "root:x:0:0:root:/root:/bin/bash\n", "<html><global></global></html>", "<!-- -->"] {
            let refused = parse(text, Path::new("passwd")).unwrap_err().to_string();
            assert!(refused.contains("passwd: this is no configuration of Wazuh or OSSEC"), "{refused}");
        }
    }

    #[test]
    fn the_example_that_the_project_starts_from() {
        let (settings, _, config) = imported(&format!(
            "<!-- Wazuh -->\n<ossec_config>{COMMANDS}<active-response><command>drop</command><location>local</location>\
             <rules_id>5710</rules_id><timeout>100</timeout></active-response></ossec_config>"
        ));
        assert_eq!(
            settings,
            ["[[response]]", "rules = [5710]", "location = \"local\"", "timeout = \"100s\""]
        );
        assert_eq!(config.policy.responses[0].timeout, Some(Duration::from_secs(100)));
    }

    #[test]
    fn everything_that_has_a_counterpart() {
        let (settings, comments, config) = imported(
            "<?xml version=\"1.0\"?>
<ossec_config>
  <global>
    <white_list>127.0.0.1</white_list>
    <white_list>^localhost.localdomain$</white_list>
    <white_list>192.0.2.9/24</white_list>
    <white_list>office.example.com</white_list>
  </global>
  <command><name>drop</name><executable>firewall-drop</executable></command>
  <command><name>null</name><executable>route-null</executable><timeout_allowed>no</timeout_allowed></command>
  <command><name>lock</name><executable>disable-account</executable><timeout_allowed>yes</timeout_allowed></command>
  <command><name>own</name><executable>mine.py</executable><extra_args>-v</extra_args></command>
  <active-response><disabled>no</disabled><repeated_offenders>30, 60,120</repeated_offenders></active-response>
  <active-response>
    <command>drop</command><location>local</location>
    <level>10</level><rules_group>authentication_failures,|exploit_attempt|^sshd$|web</rules_group>
    <rules_id>5710, 31151,5722</rules_id><timeout>600</timeout>
  </active-response>
</ossec_config>
<ossec_config>
  <active-response><command>null</command><location>all</location><level>12</level><timeout>60</timeout></active-response>
  <active-response><command>lock</command><location>local</location><rules_id>5710</rules_id></active-response>
  <active-response><command>own</command><location>local</location><rules_id>5710</rules_id></active-response>
  <active-response><command>drop</command><location>server</location><rules_id>5710</rules_id></active-response>
  <active-response><command>drop</command><location>defined-agent</location><agent_id>001</agent_id><rules_id>5710</rules_id></active-response>
  <active-response><command>drop</command><location>local</location><rules_id>31151</rules_id></active-response>
  <active-response><command>drop</command><location>local</location><rules_group>web</rules_group><level>6</level></active-response>
  <active-response><disabled>yes</disabled><command>drop</command><location>local</location><level>1</level></active-response>
</ossec_config>
<!-- text & more -->
",
        );
        assert_eq!(
            settings,
            [
                "[[response]]",
                "rules = [5710]",
                "groups = [\"authentication_failures\", \"exploit_attempt\"]",
                "level = 10",
                "location = \"local\"",
                "timeout = \"10m\"",
                "repeat_offenders = [\"30m\", \"1h\", \"2h\"]",
                "[[response]]",
                "level = 12",
                "location = \"local\"",
                "[allow]",
                "networks = [\"127.0.0.1\", \"192.0.2.0/24\"]",
            ]
        );
        for left in [
            "`-v` of the command own",
            "the pattern `^sshd$`",
            "rule 31151, rule 5722, group web",
            "on every agent",
            "it locks the account of any match",
            "`mine.py` is none of",
            "its location is `server`",
            "its location is `defined-agent`",
            "Nothing is left that it could answer",
            "`drop` of line 28, which is disabled",
            "`office.example.com`",
            "no timeout",
        ] {
            assert!(comments.contains(left), "{left}: {comments}");
        }
        assert_eq!(config.policy.responses.len(), 2);
    }

    #[test]
    fn a_managers_own_rules_are_answered_by_its_alerts() {
        let (settings, ..) = imported(&format!(
            "<ossec_config><alerts><log_alert_level>3</log_alert_level></alerts>{COMMANDS}
             <localfile><log_format>syslog</log_format><location>/var/log/auth.log</location></localfile>
             <localfile><log_format>command</log_format><command>df -P & x</command></localfile>
             <active-response><command>drop</command><location>local</location><rules_group>web</rules_group>
             <rules_id>31151</rules_id><timeout>60</timeout></active-response></ossec_config>"
        ));
        assert_eq!(
            settings,
            [
                "[[source]]",
                "kind = \"wazuh-alerts\"",
                "path = \"/var/ossec/logs/alerts/alerts.json\"",
                "[[source]]",
                "kind = \"file\"",
                "path = \"/var/log/auth.log\"",
                "[[response]]",
                "rules = [31151]",
                "groups = [\"web\"]",
                "location = \"local\"",
                "timeout = \"1m\"",
            ]
        );
    }

    #[test]
    fn what_is_malformed_is_told_with_its_line() {
        for (text, line) in [
            ("<ossec_config>\n<global>\n</ossec_config>\n", 3),
            ("<ossec_config>\n<white_list>1 < 2</white_list>\n</ossec_config>", 2),
            ("<?xml version=\"1.0\"\n?>\n<a>\n</b>", 4),
            ("<a>\n</a>\n</b>", 3),
            ("<!DOCTYPE x [\n<!ENTITY e \"e\">]>\n<a/>", 1),
        ] {
            let said = parse(text, Path::new("ossec.conf")).unwrap_err().to_string();
            assert!(
                said.starts_with(&format!("ossec.conf:{line}: this is not well-formed")),
                "{text}: {said}"
            );
        }
    }

    #[test]
    fn nothing_in_a_file_writes_settings() {
        let evil = "x\n[[response]]\nlevel = 1\n#";
        let (settings, ..) = imported(&format!(
            "<ossec_config><global><white_list>{evil}</white_list></global>\
             <command><name>{evil}</name><executable>{evil}</executable><extra_args>{evil}</extra_args></command>\
             <active-response><command>{evil}</command><location>{evil}</location><rules_id>{evil}</rules_id>\
             <rules_group>{evil}</rules_group><level>{evil}</level><timeout>{evil}</timeout></active-response></ossec_config>"
        ));
        assert_eq!(settings, ["[allow]", "networks = []"]);
    }
}
