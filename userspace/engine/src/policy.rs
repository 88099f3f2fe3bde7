//! What the engine decides by: rules, responses, bounds and the allowlist.

use std::time::Duration;

use crate::decode::Decoders;
use crate::measure::Measure;
use crate::rules::{Rule, RuleId, RuleSet};
use crate::target::Target;

/// What the engine decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The user's own decoders.
    pub decoders: Decoders,
    /// The rules, checked against each other.
    pub rules: RuleSet,
    /// What to do about which matches. Of the responses that fit a match the first is taken.
    pub responses: Vec<Response>,
    /// Networks that are never blocked.
    pub allow: Vec<Target>,
    /// Whether sources of live or recent logins are protected from rules.
    pub protect_logins: bool,
    /// The length of the prefix that is blocked for an IPv6 source: 64 for its /64, 1 to 128.
    pub ipv6_prefix: u8,
    /// Bounds.
    pub limits: Limits,
}

/// Which matches lead to a block, and for how long.
///
/// A response fits matches of the rules that it names by id. It also fits those of rules in one of its groups and of at
/// least its level: where both are set, both must hold; where neither is, the ids alone decide. Matches of level 0 are
/// never answered. This is how Wazuh reads `rules_id`, `rules_group` and `level`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The rules, by id.
    pub rules: Vec<RuleId>,
    /// The groups; empty: any group will do.
    pub groups: Vec<String>,
    /// The least level; none: any level will do.
    pub level: Option<u8>,
    /// What befalls the packets of the source.
    pub measure: Measure,
    /// For how long to block at first; none: until unblocked.
    pub timeout: Option<Duration>,
    /// For how long the second time, the third, and so on; the last holds from there on. Empty: `timeout` each time.
    pub repeat_offenders: Vec<Duration>,
}

impl Response {
    /// What is done where the configuration names no response: a login as a user that does not exist (5710) is answered
    /// with 100 seconds. Series of failed logins and exploits are answered with 10 minutes, an hour the second time, and
    /// a day from the third. Nothing answers attacks that are spread over many sources (205701, 205702): a slip of the very
    /// user who is attacked looks the same.
    pub fn defaults() -> Vec<Response> {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        vec![
            Response {
                rules: vec![RuleId(5710)],
                groups: Vec::new(),
                level: None,
                measure: Measure::default(),
                timeout: Some(Duration::from_secs(100)),
                repeat_offenders: Vec::new(),
            },
            Response {
                rules: [5712, 5719, 5720, 5758, 5763].map(RuleId).to_vec(),
                groups: vec!["exploit_attempt".to_owned()],
                level: None,
                measure: Measure::default(),
                timeout: Some(Duration::from_secs(10 * MINUTE)),
                repeat_offenders: vec![Duration::from_secs(HOUR), Duration::from_secs(24 * HOUR)],
            },
        ]
    }

    /// Whether matches of `rule` are answered by this response.
    pub fn fits(&self, rule: &Rule) -> bool {
        self.fits_match(rule.id, rule.level, &rule.groups)
    }

    /// Whether a match of a rule with this id, level and groups is answered by this response.
    pub fn fits_match(&self, id: RuleId, level: u8, groups: &[String]) -> bool {
        let named = self.rules.contains(&id);
        let grouped = self.groups.is_empty() || self.groups.iter().any(|group| groups.contains(group));
        let severe = self.level.is_none_or(|least| level >= least);
        let selects = !self.groups.is_empty() || self.level.is_some();
        level > 0 && (named || (selects && grouped && severe))
    }

    /// For how long to block a target for the `offence`th time, counted from one; none: until unblocked.
    pub fn timeout_for(&self, offence: u32) -> Option<Duration> {
        let repeated = usize::try_from(offence).unwrap_or(usize::MAX).checked_sub(2);
        match (repeated, self.repeat_offenders.last()) {
            (Some(repeated), Some(last)) => Some(*self.repeat_offenders.get(repeated).unwrap_or(last)),
            _ => self.timeout,
        }
    }
}

/// Bounds on what is kept, whatever the logs say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Blocks of single IPv4 addresses, and of IPv6 addresses and /64s: the capacity of each exact table.
    pub blocks: u32,
    /// Blocks of other prefixes: the capacity of each table of prefixes.
    pub prefixes: u32,
    /// Sources whose attempts are tracked at once; beyond, the one that was quiet for longest is forgotten.
    pub sources: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Condition, EventMatch};

    fn response(rules: &[u32], groups: &[&str], level: Option<u8>) -> Response {
        Response {
            rules: rules.iter().copied().map(RuleId).collect(),
            groups: groups.iter().copied().map(String::from).collect(),
            level,
            measure: Measure::default(),
            timeout: Some(Duration::from_secs(100)),
            repeat_offenders: Vec::new(),
        }
    }

    fn rule(id: u32, level: u8, group: &str) -> Rule {
        Rule {
            id: RuleId(id),
            level,
            groups: vec!["sshd".to_owned(), group.to_owned()],
            description: String::new(),
            when: Condition::Event(EventMatch::default()),
        }
    }

    #[test]
    fn ids_are_an_alternative_to_group_and_level_together() {
        let both = response(&[5710], &["recon"], Some(8));
        assert!(both.fits(&rule(5710, 5, "invalid_login")));
        assert!(both.fits(&rule(5701, 8, "recon")));
        assert!(!both.fits(&rule(5706, 6, "recon")));
        assert!(!both.fits(&rule(5758, 8, "authentication_failed")));
        assert!(response(&[], &["recon"], None).fits(&rule(5706, 6, "recon")));
        assert!(response(&[], &[], Some(6)).fits(&rule(5706, 6, "recon")));
        assert!(!response(&[], &[], None).fits(&rule(5706, 6, "recon")));
    }

    #[test]
    fn level_zero_is_never_answered() {
        assert!(!response(&[5721], &["sshd"], Some(0)).fits(&rule(5721, 0, "sshd")));
    }

    #[test]
    fn repeat_offenders_wait_longer_each_time() {
        let steps = [60, 3600].map(Duration::from_secs);
        let growing = Response { repeat_offenders: steps.to_vec(), ..response(&[1], &[], None) };
        let timeouts: Vec<u64> =
            (1..5).filter_map(|offence| growing.timeout_for(offence)).map(|t| t.as_secs()).collect();
        assert_eq!(timeouts, [100, 60, 3600, 3600]);
        assert_eq!(response(&[1], &[], None).timeout_for(9), Some(Duration::from_secs(100)));
    }

    #[test]
    fn the_defaults_answer_what_they_say() {
        let timeout = |id| {
            let rule = rule(id, 5, if id == 5714 { "exploit_attempt" } else { "syslog" });
            Response::defaults().iter().find(|response| response.fits(&rule)).and_then(|r| r.timeout)
        };
        assert_eq!(timeout(5710), Some(Duration::from_secs(100)));
        for id in [5712, 5714, 5719, 5720, 5758, 5763] {
            assert_eq!(timeout(id), Some(Duration::from_secs(600)), "{id}");
        }
        assert_eq!([5760, 205_701, 205_702].map(timeout), [None; 3]);
    }
}
