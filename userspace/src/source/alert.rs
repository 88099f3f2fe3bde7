//! Alerts of Wazuh: one JSON object a line, in its `alerts.json`.
//!
//! Much of an alert is what a client chose. Only what is named here is read, each part bounded, and nothing is searched: the
//! source is what Wazuh's decoder put into `data.srcip`, and it must be a numeric address.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use xdpban_engine::ForeignMatch;
use xdpban_engine::change::Origin;
use xdpban_engine::rules::RuleId;
use xdpban_engine::time::{Now, Wall};

/// Groups that are kept of an alert; Wazuh's own rules have up to twenty, with those of the compliance lists.
const GROUPS: usize = 64;

/// Bytes of a group's name; there is none that is longer in Wazuh's rules.
const GROUP: usize = 128;

/// Characters kept of a description.
const DESCRIPTION: usize = 200;

/// The most attempts that one alert can tell of: the largest `frequency` that Wazuh takes.
const ATTEMPTS: u64 = 9999;

/// What matters of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert<'a> {
    /// The number of Wazuh's rule.
    pub rule: u32,
    /// Its level.
    pub level: u8,
    /// Its groups.
    pub groups: Vec<String>,
    /// What it found, on one line.
    pub description: String,
    /// `data.srcip`, where it is a numeric address.
    pub source: Option<IpAddr>,
    /// `data.srcuser` or `data.dstuser`.
    pub user: Option<Cow<'a, str>>,
    /// The attempts that the rule counted: its `frequency`, at least 1.
    pub attempts: u32,
    /// When Wazuh made the alert.
    pub time: Option<Wall>,
    /// The line that led to it.
    pub log: Option<Cow<'a, str>>,
}

impl<'a> Alert<'a> {
    /// Reads a line; none where it is no alert. Times without a zone are read in that of `now`.
    pub fn parse(line: &'a [u8], now: &Now) -> Option<Alert<'a>> {
        let printed: Printed<'a> = serde_json::from_slice(line).ok()?;
        let Printed { timestamp, rule, data, full_log } = printed;
        let rule_id = rule.id.number().and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0)?;
        Some(Alert {
            rule: rule_id,
            level: rule.level.number().and_then(|level| u8::try_from(level).ok())?,
            groups: rule.groups.0,
            description: rule
                .description
                .text()
                .unwrap_or_default()
                .chars()
                .filter(|c| !c.is_control())
                .take(DESCRIPTION)
                .collect(),
            source: data.srcip.text().and_then(|text| text.parse().ok()).map(|ip: IpAddr| ip.to_canonical()),
            user: data.srcuser.text().or_else(|| data.dstuser.text()),
            attempts: rule
                .frequency
                .number()
                .and_then(|times| u32::try_from(times.clamp(1, ATTEMPTS)).ok())
                .unwrap_or(1),
            time: timestamp.text().and_then(|text| Wall::parse(text.as_bytes(), now)),
            log: full_log.text(),
        })
    }

    /// The alert as the engine takes it; none where it names no source.
    pub fn found(&self) -> Option<ForeignMatch<'_>> {
        Some(ForeignMatch {
            id: RuleId(self.rule),
            level: self.level,
            groups: &self.groups,
            description: &self.description,
            source: self.source?,
            user: self.user.as_deref().map(str::as_bytes),
            attempts: self.attempts,
            time: self.time,
            origin: Origin::Wazuh,
        })
    }
}

/// An alert as Wazuh prints it. A part that is written twice makes it none.
#[derive(Deserialize)]
struct Printed<'a> {
    #[serde(borrow, default)]
    timestamp: Loose<'a>,
    #[serde(borrow)]
    rule: PrintedRule<'a>,
    #[serde(borrow, default)]
    data: Data<'a>,
    #[serde(borrow, default)]
    full_log: Loose<'a>,
}

#[derive(Deserialize)]
struct PrintedRule<'a> {
    #[serde(borrow)]
    id: Loose<'a>,
    #[serde(borrow)]
    level: Loose<'a>,
    #[serde(borrow, default)]
    description: Loose<'a>,
    #[serde(default)]
    groups: Groups,
    #[serde(borrow, default)]
    frequency: Loose<'a>,
}

#[derive(Default, Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    srcip: Loose<'a>,
    #[serde(borrow, default)]
    srcuser: Loose<'a>,
    #[serde(borrow, default)]
    dstuser: Loose<'a>,
}

/// A text or a whole number. Anything else may stand in its place and is passed over.
#[derive(Debug, Default)]
enum Loose<'a> {
    #[default]
    Other,
    Text(Cow<'a, str>),
    Number(u64),
}

impl<'a> Loose<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Loose::Text(text) => Some(text),
            Loose::Number(_) | Loose::Other => None,
        }
    }

    /// The number, which Wazuh writes in quotes at times.
    fn number(self) -> Option<u64> {
        match self {
            Loose::Number(number) => Some(number),
            Loose::Text(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            Loose::Text(_) | Loose::Other => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Loose<'a>, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Loose<'de>, E> {
        Ok(Loose::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Loose<'de>, E> {
        Ok(Loose::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Loose<'de>, E> {
        Ok(Loose::Number(number))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Loose<'de>, E> {
        Ok(Loose::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Loose<'de>, E> {
        Ok(Loose::Other)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Loose<'de>, E> {
        Ok(Loose::Other)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Loose<'de>, E> {
        Ok(Loose::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Loose<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Loose<'de>, A::Error> {
        while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }
}

/// The first [`GROUPS`] of a list of names; what is no name is passed over.
#[derive(Default)]
struct Groups(Vec<String>);

impl<'de> Deserialize<'de> for Groups {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Groups, D::Error> {
        struct GroupsVisitor;
        impl<'de> Visitor<'de> for GroupsVisitor {
            type Value = Groups;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of groups")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Groups, A::Error> {
                let mut groups = Vec::new();
                while let Some(item) = items.next_element::<Loose<'de>>()? {
                    let name = item.text().filter(|name| name.len() <= GROUP && groups.len() < GROUPS);
                    groups.extend(name.map(Cow::into_owned));
                }
                Ok(Groups(groups))
            }
        }
        deserializer.deserialize_seq(GroupsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-05-03T07:18:04.836-0700","rule":{"level":5,"description":"a user that does not exist","id":"5710","mitre":{"id":["T1110"]},"firedtimes":3,"mail":false,"groups":["syslog","sshd","authentication_failed","invalid_login"],"gdpr":["IV_35.7.d"]},"agent":{"id":"001","name":"gw1","ip":"198.51.100.4"},"manager":{"name":"siem"},"id":"1777817884.1","full_log":"May  3 07:18:04 gw1 sshd[7]: Invalid user admin from 203.0.113.7 port 22","predecoder":{"program_name":"sshd"},"decoder":{"name":"sshd"},"data":{"srcip":"203.0.113.7","srcport":"22","srcuser":"admin"},"location":"/var/log/auth.log"}"#;

    fn alert(line: &str) -> Option<Alert<'_>> {
        Alert::parse(line.as_bytes(), &Now::default())
    }

    /// An alert with nothing but a rule and this as its data.
    fn with_data(data: &str) -> String {
        format!(r#"{{"rule":{{"id":"5710","level":5}},"data":{data}}}"#)
    }

    fn source(data: &str) -> Option<IpAddr> {
        alert(&with_data(data)).expect("it is an alert").source
    }

    #[test]
    fn reads_an_alert() {
        let alert = alert(LINE).unwrap();
        assert_eq!((alert.rule, alert.level, alert.attempts), (5710, 5, 1));
        assert_eq!(alert.groups, ["syslog", "sshd", "authentication_failed", "invalid_login"]);
        assert_eq!(alert.source, Some("203.0.113.7".parse().unwrap()));
        assert_eq!(alert.user.as_deref(), Some("admin"));
        assert!(alert.log.as_deref().unwrap().ends_with("Invalid user admin from 203.0.113.7 port 22"));
        // 14:18:04.836 in UTC.
        assert_eq!(alert.time, Some(Wall(1_777_817_884_836_000)));
    }

    #[test]
    fn reads_what_a_correlated_rule_counted() {
        let line = r#"{"rule":{"id":5763,"level":"10","frequency":8},"data":{"srcip":"2001:db8::1","dstuser":"root"}}"#;
        let alert = alert(line).unwrap();
        assert_eq!((alert.rule, alert.level, alert.attempts), (5763, 10, 8));
        assert_eq!(alert.user.as_deref(), Some("root"));
    }

    #[test]
    fn only_a_numeric_address_is_a_source() {
        for (data, expected) in [
            (r#"{"srcip":"::ffff:203.0.113.7"}"#, Some("203.0.113.7")),
            (r#"{"srcip":"2001:db8::1"}"#, Some("2001:db8::1")),
            (r#"{"srcip":"203.0.113.\u0037"}"#, Some("203.0.113.7")),
            (r#"{"srcip":"gw1.example.com"}"#, None),
            (r#"{"srcip":"203.0.113.7 "}"#, None),
            (r#"{"srcip":"203.0.113.7/8"}"#, None),
            (r#"{"srcip":"0203.0.113.7"}"#, None),
            (r#"{"srcip":"any"}"#, None),
            (r#"{"srcip":""}"#, None),
            (r#"{"srcip":3405803783}"#, None),
            (r#"{"srcip":["203.0.113.7"]}"#, None),
            (r#"{"srcip":{"srcip":"203.0.113.7"}}"#, None),
            (r#"{"srcip":null}"#, None),
            (r#"{"srcip":1.5,"srcuser":true}"#, None),
            (r#"{"other":{"srcip":"203.0.113.7"}}"#, None),
            ("{}", None),
        ] {
            assert_eq!(source(data), expected.map(|address| address.parse().unwrap()), "{data}");
        }
    }

    #[test]
    fn what_is_no_alert_is_none() {
        for line in [
            "",
            "{}",
            "[]",
            "5710",
            "Invalid user admin from 203.0.113.7 port 22",
            r#"{"rule":"5710","data":{"srcip":"203.0.113.7"}}"#,
            r#"{"rule":{"id":"5710"},"data":{"srcip":"203.0.113.7"}}"#,
            r#"{"rule":{"id":"x","level":5},"data":{"srcip":"203.0.113.7"}}"#,
            r#"{"rule":{"id":"0","level":5}}"#,
            r#"{"rule":{"id":"99999999999","level":5}}"#,
            r#"{"rule":{"id":"5710","level":-5}}"#,
            r#"{"rule":{"id":"5710","level":256}}"#,
            r#"{"rule":{"id":"5710","level":5,"groups":"sshd"}}"#,
            r#"{"rule":{"id":"5710","level":5},"data":{"srcip":"203.0.113.7","srcip":"8.8.8.8"}}"#,
            r#"{"rule":{"id":"5710","level":5},"data":{"srcip":"203.0.113.7"}} x"#,
            r#"{"rule":{"id":"5710","level":5},"data":{"srcip":"203.0.113.7"}"#,
        ] {
            assert_eq!(alert(line), None, "{line}");
        }
        assert_eq!(
            Alert::parse(b"{\"rule\":{\"id\":\"5710\",\"level\":5},\"x\":\"\xff\"", &Now::default()),
            None
        );
    }

    #[test]
    fn depth_and_length_do_no_harm() {
        for (open, close) in [("[", "]"), ("{\"srcip\":", "}")] {
            for depth in [100, 1000, 5000] {
                let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                for line in [with_data(&deep), with_data(&format!("{{\"srcip\":{deep}}}"))] {
                    assert!(alert(&line).is_none_or(|alert| alert.source.is_none()));
                }
            }
            assert_eq!(alert(&open.repeat(30_000)), None);
        }
        let groups = format!("[{}\"{}\",7]", "\"g\",".repeat(10_000), "x".repeat(10_000));
        let description = "d\\u001b".repeat(5_000);
        let line = format!(
            r#"{{"rule":{{"id":"1","level":5,"groups":{groups},"description":"{description}","frequency":99999999}}}}"#
        );
        let alert = alert(&line).unwrap();
        assert_eq!((alert.groups.len(), alert.description.len(), alert.attempts), (64, 200, 9999));
        assert!(!alert.description.contains('\u{1b}'));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_input_panics(line in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Alert::parse(&line, &Now::default()), None);
        }

        /// Bytes of an alert that are changed, left out or doubled make it none, or leave an alert.
        #[test]
        fn no_damage_panics(at in 0..LINE.len(), length in 0..20usize, bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut line = LINE.as_bytes().to_vec();
            let end = (at + length).min(line.len());
            line.splice(at..end, bytes);
            if let Some(alert) = Alert::parse(&line, &Now::default()) {
                prop_assert!(alert.rule > 0 && alert.attempts > 0);
            }
        }

        /// Whatever a client had written into the log, the source is the one that Wazuh's decoder found.
        #[test]
        fn no_text_changes_the_source(user in any::<String>(), log in any::<String>()) {
            let line = serde_json::json!({
                "rule": {"id": "5710", "level": 5, "description": &log, "groups": [&user]},
                "full_log": &log,
                "data": {"srcuser": &user, "srcip": "203.0.113.7"},
                "location": format!("{user}\",\"srcip\":\"8.8.8.8"),
            })
            .to_string();
            let alert = alert(&line).unwrap();
            prop_assert_eq!(alert.source, Some("203.0.113.7".parse().unwrap()));
            prop_assert_eq!(alert.user.as_deref(), Some(&*user));
        }
    }
}
