//! Notifications: an event as a mail or as the body of a request, and several as one digest.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock;
use xdpban_engine::time::Wall;

/// How many of a kind a digest names, the commonest, and how many it tells apart at most.
const NAMED: usize = 10;
const TOLD_APART: usize = 1024;

/// A mail for `sendmail -t`. Nothing that a client chose stands in its header.
pub(super) fn mail(to: &str, event: &Value) -> Vec<u8> {
    let subject = match event.get("matches") {
        Some(matches) => format!("xdpban: {matches} matches"),
        None => {
            let text = |pointer| event.pointer(pointer).map(Value::to_string).unwrap_or_default();
            format!("xdpban: rule {} because of {}", text("/rule/id"), text("/srcip").trim_matches('"'))
        }
    };
    let body = serde_json::to_string_pretty(event).unwrap_or_default();
    format!(
        "To: {to}\nSubject: {subject}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
         Auto-Submitted: auto-generated\n\n{body}\n"
    )
    .into_bytes()
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
        json!({ "rule": { "id": 5710, "description": "x" }, "srcip": source, "user": user })
    }

    #[test]
    fn a_mail_has_nothing_of_the_client_in_its_header() {
        let text = String::from_utf8(mail("root", &event("203.0.113.7", "x\nBcc: all@example.org"))).unwrap();
        let (header, body) = text.split_once("\n\n").unwrap();
        assert!(header.contains("Subject: xdpban: rule 5710 because of 203.0.113.7"), "{header}");
        assert!(!header.contains("Bcc") && body.contains("x\\nBcc: all@example.org"), "{body}");
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
    }
}
