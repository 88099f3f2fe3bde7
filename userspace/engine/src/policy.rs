//! What the engine decides by: rules, responses, bounds and the allowlist.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::decode::Decoders;
use crate::glob::Glob;
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
    /// What to do about which matches. Of the responses that fit a match the first is taken. Where the rule of a match has
    /// none, that of the rule below it counts.
    pub responses: Vec<Response>,
    /// Commands that are run because of matches: all that fit one, whatever else is done about it.
    pub commands: Vec<CommandResponse>,
    /// Networks that are never blocked.
    pub allow: Vec<Target>,
    /// Whether sources of live or recent logins are protected from rules.
    pub protect_logins: bool,
    /// The length of the prefix that is blocked for an IPv6 source: 64 for its /64, 1 to 128.
    pub ipv6_prefix: u8,
    /// How long after its latest block has ended an offender is forgotten that an operator blocked.
    pub forget_after: Duration,
    /// Bounds.
    pub limits: Limits,
}

/// Which matches lead to a block, and for how long.
///
/// A response fits matches of the rules that it names by id. It also fits those of rules in one of its groups and of at
/// least its level: where both are set, both must hold; where neither is, the ids alone decide. Matches of level 0 are
/// never answered. This is how Wazuh reads `rules_id`, `rules_group` and `level`. Networks and users narrow that
/// further: where they are set, they must hold, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The rules, by id.
    pub rules: Vec<RuleId>,
    /// The groups; empty: any group will do.
    pub groups: Vec<Glob>,
    /// The least level; none: any level will do.
    pub level: Option<u8>,
    /// The networks of which the source must lie in one; empty: any source will do.
    pub networks: Vec<Target>,
    /// The names of which the user that was tried must have one; empty: any will do, also none.
    pub users: Vec<Glob>,
    /// What befalls the packets of the source.
    pub measure: Measure,
    /// For how long to block at first; none: until unblocked.
    pub timeout: Option<Duration>,
    /// For how long the second time, the third, and so on (none: until unblocked); the last holds from there on. Empty:
    /// `timeout` each time.
    pub repeat_offenders: Vec<Option<Duration>>,
    /// How long after its latest block has ended an offender is forgotten.
    pub forget_after: Duration,
    /// When a whole prefix is blocked; none: never.
    pub aggregate: Option<Aggregate>,
    /// On which hosts that is done.
    pub location: Location,
}

/// On which hosts a response is carried out. Wazuh knows others, too: its manager, one of its agents, all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Location {
    /// On the host that the controller runs on.
    #[default]
    Local,
}

/// When rules block a whole prefix: so many targets in it are blocked by rules, or were and are not forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// The length of the prefix of IPv4 addresses; none: these are not taken together.
    pub v4: Option<u8>,
    /// The length of the prefix of IPv6 addresses; none: these are not taken together.
    pub v6: Option<u8>,
    /// How many targets.
    pub hosts: u32,
}

impl Aggregate {
    /// The prefix that would be blocked with `target`; none where that is no larger.
    pub fn prefix_of(&self, target: &Target) -> Option<Target> {
        let length = if target.address().is_ipv4() { self.v4 } else { self.v6 }?;
        (length < target.prefix_len()).then(|| Target::prefix(target.address(), length))
    }
}

/// An offender is forgotten this long after its latest block has ended, unless a response says otherwise.
pub const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What a response has where nothing is said: it fits nothing, and blocks until unblocked.
impl Default for Response {
    fn default() -> Response {
        Response {
            rules: Vec::new(),
            groups: Vec::new(),
            level: None,
            networks: Vec::new(),
            users: Vec::new(),
            measure: Measure::default(),
            timeout: None,
            repeat_offenders: Vec::new(),
            forget_after: FORGET_AFTER,
            aggregate: None,
            location: Location::Local,
        }
    }
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
                timeout: Some(Duration::from_secs(100)),
                ..Response::default()
            },
            Response {
                rules: [5712, 5719, 5720, 5758, 5763].map(RuleId).to_vec(),
                groups: vec!["exploit_attempt".into()],
                timeout: Some(Duration::from_secs(10 * MINUTE)),
                repeat_offenders: [HOUR, 24 * HOUR].map(|time| Some(Duration::from_secs(time))).to_vec(),
                ..Response::default()
            },
        ]
    }

    /// Blocks for `timeout`, and fits no match: for those that were decided on elsewhere.
    pub(crate) fn block_for(timeout: Duration) -> Response {
        Response { timeout: Some(timeout), ..Response::default() }
    }

    /// Whether matches of `rule` are answered by this response.
    pub fn fits(&self, rule: &Rule) -> bool {
        self.fits_match(rule.id, rule.level, &rule.groups)
    }

    /// Whether a match of a rule with this id, level and groups is answered by this response.
    pub fn fits_match(&self, id: RuleId, level: u8, groups: &[String]) -> bool {
        let named = self.rules.contains(&id);
        let in_group = |glob: &Glob| groups.iter().any(|group| glob.matches(group.as_bytes()));
        let grouped = self.groups.is_empty() || self.groups.iter().any(in_group);
        let severe = self.level.is_none_or(|least| level >= least);
        let selects = !self.groups.is_empty() || self.level.is_some();
        level > 0 && (named || (selects && grouped && severe))
    }

    /// Whether it is for this source and for the user name that was tried.
    pub fn concerns(&self, source: IpAddr, user: Option<&[u8]>) -> bool {
        let lies_in = self.networks.is_empty() || self.networks.iter().any(|net| net.contains(source));
        let named = |user| self.users.iter().any(|glob| glob.matches(user));
        lies_in && (self.users.is_empty() || user.is_some_and(named))
    }

    /// For how long to block a target for the `offence`th time, counted from one; none: until unblocked.
    pub fn timeout_for(&self, offence: u32) -> Option<Duration> {
        let repeated = usize::try_from(offence).unwrap_or(usize::MAX).checked_sub(2);
        match (repeated, self.repeat_offenders.last()) {
            (Some(repeated), Some(last)) => *self.repeat_offenders.get(repeated).unwrap_or(last),
            _ => self.timeout,
        }
    }
}

/// Which matches a command is run for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandResponse {
    /// Which matches, and after how long the command is run again to undo what it did (`timeout`; none: never).
    pub when: Response,
    /// The command's name.
    pub command: Arc<str>,
    /// Whether it is run for the user who was tried, and not for the source.
    pub per_user: bool,
    /// Whether it is not run for sources that are never blocked.
    pub guarded: bool,
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
            groups: groups.iter().copied().map(Glob::from).collect(),
            level,
            timeout: Some(Duration::from_secs(100)),
            ..Response::default()
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
    fn groups_can_be_patterns() {
        let fits = |glob| response(&[], &[glob], None).fits(&rule(5758, 8, "authentication_failures"));
        assert!(fits("authentication_*") && fits("*") && !fits("authentication") && !fits("auth*x"));
    }

    #[test]
    fn networks_and_users_narrow() {
        let narrow = Response {
            networks: vec!["203.0.113.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            users: vec!["root".into(), "adm*".into()],
            ..response(&[5710], &[], None)
        };
        let concerns = |source: &str, user: Option<&str>| {
            narrow.concerns(source.parse().unwrap(), user.map(str::as_bytes))
        };
        assert!(concerns("203.0.113.9", Some("root")) && concerns("2001:db8::1", Some("admin")));
        assert!(!concerns("203.0.114.9", Some("root")), "another network");
        assert!(!concerns("203.0.113.9", Some("bob")) && !concerns("203.0.113.9", None), "another user");
        assert!(response(&[5710], &[], None).concerns("192.0.2.1".parse().unwrap(), None));
    }

    #[test]
    fn level_zero_is_never_answered() {
        assert!(!response(&[5721], &["sshd"], Some(0)).fits(&rule(5721, 0, "sshd")));
    }

    #[test]
    fn repeat_offenders_wait_longer_each_time() {
        let steps = [60, 3600].map(|seconds| Some(Duration::from_secs(seconds)));
        let growing = Response { repeat_offenders: steps.to_vec(), ..response(&[1], &[], None) };
        let timeouts: Vec<u64> =
            (1..5).filter_map(|offence| growing.timeout_for(offence)).map(|t| t.as_secs()).collect();
        assert_eq!(timeouts, [100, 60, 3600, 3600]);
        let forever = Response { repeat_offenders: vec![steps[0], None], ..growing };
        assert_eq!(
            [1, 2, 3, 9].map(|n| forever.timeout_for(n).map(|t| t.as_secs())),
            [Some(100), Some(60), None, None]
        );
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
