//! Notifications: an event as a mail or as the body of a request, and several as one digest.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use xdpban_engine::time::Wall;

use crate::clock;
use crate::host;
use crate::human::printable;

/// How many of a kind a digest names, the commonest, and how many it tells apart at most.
const NAMED: usize = 10;
const TOLD_APART: usize = 1024;

/// The longest line of a mail's body, in characters: with four bytes each still below the 998 bytes of RFC 5322.
const LINE: usize = 240;

/// A mail for `sendmail -t`. Nothing that a client chose stands in its header.
pub(super) fn mail(to: &str, event: &Value) -> Vec<u8> {
    let host = text(event, "/host");
    let (subject, lines) = match event.get("matches") {
        Some(matches) => (format!("{matches} matches"), digest_lines(event)),
        None => {
            let done = match text(event, "/blocked/action").as_str() {
                "" => "not blocked",
                "throttle" => "throttled",
                _ => "blocked",
            };
            let subject = format!("{} {done} (rule {})", text(event, "/srcip"), text(event, "/rule/id"));
            (subject, event_lines(event, done))
        }
    };
    let mut mail = format!(
        "To: {to}\nSubject: xdpban on {}: {subject}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: 8bit\nAuto-Submitted: auto-generated\n\n",
        printable(&host),
    );
    for line in lines {
        mail.extend(printable(&line).chars().take(LINE));
        mail.push('\n');
    }
    mail.into_bytes()
}

/// What there is at `pointer`, without quotation marks; empty where there is nothing.
fn text(event: &Value, pointer: &str) -> String {
    match event.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The time at `pointer`, as it is on this host.
fn local(event: &Value, pointer: &str) -> String {
    clock::localized(&text(event, pointer))
}

fn event_lines(event: &Value, done: &str) -> Vec<String> {
    let text = |pointer| text(event, pointer);
    let list = |name: &str| {
        let texts = event.get(name).and_then(Value::as_array).into_iter().flatten();
        texts.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let until = match (done, local(event, "/blocked/expires_at")) {
        ("not blocked", _) => String::new(),
        (_, until) if until.is_empty() => format!(": {}, until unblocked", text("/blocked/target")),
        (_, until) => format!(": {}, until {until}", text("/blocked/target")),
    };
    let mut lines = vec![
        format!("Source     {}, {done}{until}", text("/srcip")),
        format!(
            "Rule       {}, level {}: {}",
            text("/rule/id"),
            text("/rule/level"),
            text("/rule/description")
        ),
        format!("Host       {}", text("/host")),
        format!("At         {}", local(event, "/at")),
        format!("Attempts   {}", text("/attempts")),
    ];
    let users = list("users");
    if !users.is_empty() {
        lines.push(format!("Users      {}", users.join(", ")));
    }
    lines.push(String::new());
    lines.extend(list("evidence").into_iter().map(|line| format!("  {line}")));
    lines.push(String::new());
    lines.push(format!("All that is known of it: xdpban show {}", text("/srcip")));
    lines
}

fn digest_lines(event: &Value) -> Vec<String> {
    let text = |pointer| text(event, pointer);
    let (from, to) = (local(event, "/from"), local(event, "/to"));
    let mut lines = vec![
        format!("Host       {}", text("/host")),
        format!("From       {from}"),
        format!("To         {to}"),
        format!("Matches    {}", text("/matches")),
    ];
    for (title, name) in [("Rules", "rules"), ("Sources", "sources"), ("Users", "users")] {
        let named = event.get(name).and_then(Value::as_array).into_iter().flatten();
        let mut named =
            named.map(|it| format!("{:>7}  {}", self::text(it, "/count"), self::text(it, "/name")));
        if let Some(first) = named.next() {
            lines.extend([String::new(), title.to_owned(), first]);
            lines.extend(named);
        }
    }
    lines.push(String::new());
    lines.push(format!("All of it: xdpban incidents --since {from} --until {to}"));
    lines
}

/// A request, as a configuration of curl(1) for its stdin: so the URL, which may hold a secret, is in no list of processes.
pub(super) fn request(url: &str, event: &Value, time_limit: Duration) -> Vec<u8> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    format!(
        "url = {}\nheader = \"Content-Type: application/json\"\ndata-raw = {}\nfail\nsilent\nshow-error\n\
         max-time = {}\nproto = \"=http,https\"\noutput = \"/dev/null\"\n",
        quoted(url),
        quoted(&event.to_string()),
        time_limit.as_secs_f64(),
    )
    .into_bytes()
}

/// Events of some time, summed up.
#[derive(Debug, Default)]
pub(super) struct Digest {
    since: Option<Wall>,
    matches: u64,
    rules: HashMap<String, u64>,
    sources: HashMap<String, u64>,
    users: HashMap<String, u64>,
}

impl Digest {
    pub(super) fn add(&mut self, event: &Value, now: Wall) {
        self.since.get_or_insert(now);
        self.matches += 1;
        let rule = event.get("rule");
        let rule = rule.map(|rule| {
            let text = |name| rule.get(name).map(Value::to_string).unwrap_or_default();
            format!("{} {}", text("id"), text("description").trim_matches('"'))
        });
        let text = |name| event.get(name).and_then(Value::as_str).map(str::to_owned);
        for (counts, name) in
            [(&mut self.rules, rule), (&mut self.sources, text("srcip")), (&mut self.users, text("user"))]
        {
            let Some(name) = name else { continue };
            if counts.len() < TOLD_APART || counts.contains_key(&name) {
                *counts.entry(name).or_default() += 1;
            }
        }
    }

    /// The digest as one object, after which another begins; none where there was nothing.
    pub(super) fn take(&mut self, now: Wall) -> Option<Value> {
        let this = std::mem::take(self);
        let top = |counts: HashMap<String, u64>| {
            let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
            counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let named = counts.into_iter().take(NAMED);
            named.map(|(name, count)| json!({ "name": name, "count": count })).collect::<Vec<_>>()
        };
        Some(json!({
            "version": 1,
            "command": "digest",
            "host": host::name(),
            "from": clock::rfc3339(this.since?),
            "to": clock::rfc3339(now),
            "matches": this.matches,
            "rules": top(this.rules),
            "sources": top(this.sources),
            "users": top(this.users),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(source: &str, user: &str) -> Value {
        json!({ "rule": { "id": 5710, "level": 5, "description": "x" }, "host": "web1", "srcip": source, "user": user })
    }

    fn told(event: &Value) -> (String, String) {
        let text = String::from_utf8(mail("root", event)).unwrap();
        let (header, body) = text.split_once("\n\n").unwrap();
        (header.to_owned(), body.to_owned())
    }

    #[test]
    fn a_mail_has_nothing_of_the_client_in_its_header() {
        let mut event = event("203.0.113.7", "x");
        event["users"] = json!(["x\nBcc: all@example.org\n\u{202e}y"]);
        event["evidence"] = json!(["a".repeat(1000)]);
        let (header, body) = told(&event);
        assert!(header.contains("Subject: xdpban on web1: 203.0.113.7 not blocked (rule 5710)"), "{header}");
        assert!(!header.contains("Bcc"), "{header}");
        assert!(body.contains("Users      x\u{fffd}Bcc: all@example.org\u{fffd}\u{fffd}y\n"), "{body}");
        assert!(body.lines().all(|line| line.len() <= 998), "{body}");
    }

    #[test]
    fn a_mail_says_what_was_done_and_until_when() {
        let mut event = event("2001:db8::7", "x");
        event["blocked"] = json!({ "target": "2001:db8::/64", "action": "throttle", "expires_at": null });
        let (header, body) = told(&event);
        assert!(header.contains("xdpban on web1: 2001:db8::7 throttled (rule 5710)"), "{header}");
        assert!(
            body.starts_with("Source     2001:db8::7, throttled: 2001:db8::/64, until unblocked\n"),
            "{body}"
        );
        event["blocked"] =
            json!({ "target": "2001:db8::/64", "action": "block", "expires_at": "2026-11-24T14:03:15Z" });
        let (header, body) = told(&event);
        assert!(header.contains("2001:db8::7 blocked (rule 5710)"), "{header}");
        let until = clock::localized("2026-11-24T14:03:15Z");
        assert!(body.contains(&format!(", blocked: 2001:db8::/64, until {until}\n")), "{body}");
    }

    #[test]
    fn a_request_cannot_be_left_by_what_it_quotes() {
        let text = request(
            "https://example.org/\"x",
            &event("203.0.113.7", "a\"\noutput = \"/etc/passwd"),
            Duration::from_secs(20),
        );
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("url = \"https://example.org/\\\"x\"\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("output")).count(), 1, "{text}");
        assert!(text.contains(r#"a\\\"\\noutput"#), "{text}");
    }

    #[test]
    fn a_digest_counts_and_begins_anew() {
        let mut digest = Digest::default();
        assert_eq!(digest.take(Wall(9)), None);
        for (source, user) in [("192.0.2.1", "root"), ("192.0.2.1", "bob"), ("192.0.2.2", "root")] {
            digest.add(&event(source, user), Wall(5));
        }
        let told = digest.take(Wall(9)).unwrap();
        assert_eq!(
            (&told["matches"], &told["sources"][0]),
            (&json!(3), &json!({"name": "192.0.2.1", "count": 2}))
        );
        assert_eq!(digest.take(Wall(9)), None);
        let (header, body) = self::told(&told);
        assert!(header.ends_with("auto-generated") && header.contains(": 3 matches\n"), "{header}");
        assert!(body.contains("\nSources\n      2  192.0.2.1\n      1  192.0.2.2\n"), "{body}");
    }
}
