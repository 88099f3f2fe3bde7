//! Attempts that several sources have in common: on one user name, or from one network.
//!
//! Bounds: at most [`GROUPS`] groups (beyond, the one that was quiet for longest is forgotten), of each the latest
//! attempts, no more than the rule counts.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::lru::Lru;
use crate::moment::Moment;
use crate::rules::{Correlation, Distinct, RuleId, Same};
use crate::sources::SourceId;

/// Groups kept, of all rules together.
const GROUPS: usize = 16_384;

/// The lengths of the prefixes that a network is: what an attacker can hold, and one holder has as a rule.
const IPV4_NETWORK: u32 = 24;
const IPV6_NETWORK: u8 = 48;

/// An attempt that a correlated rule counts.
pub(crate) struct Attempt<'a> {
    pub(crate) address: IpAddr,
    pub(crate) source: SourceId,
    pub(crate) user: Option<&'a [u8]>,
    pub(crate) at: Moment,
    pub(crate) times: u32,
}

/// The attempts of one group towards one rule: when, and by a name for what must differ. Oldest first; all lie within the
/// rule's window, and each name is there once, with its latest attempt.
#[derive(Debug, Default)]
struct Crowd {
    marks: Vec<(Moment, u64)>,
}

impl Crowd {
    /// Takes note of an attempt; whether there are now `count` within `length`.
    ///
    /// The latest `count` marks are enough: while as many are left in the window the answer is yes, and when one of them
    /// has fallen out of it, so have all that were older.
    fn add(&mut self, at: Moment, name: u64, count: usize, length: Duration) -> bool {
        let newest = self.marks.last().map_or(at, |&(newest, _)| newest.max(at));
        let horizon = newest.before(length);
        let mut latest = at;
        self.marks.retain(|&(mark, known)| {
            if known == name {
                latest = latest.max(mark);
            }
            known != name && mark >= horizon
        });
        if latest >= horizon {
            let place = self.marks.partition_point(|&(mark, _)| mark <= latest);
            self.marks.insert(place, (latest, name));
        }
        let enough = self.marks.len() >= count;
        self.marks.drain(..self.marks.len().saturating_sub(count));
        // An attempt that is told of too late fires nothing.
        enough && at >= horizon
    }
}

/// The groups that are tracked.
#[derive(Debug)]
pub(crate) struct Crowds {
    table: Lru<(RuleId, u64), Crowd>,
    /// Names are keyed hashes, so that nobody outside can make two meet in one.
    hasher: RandomState,
    /// The name of the next attempt that stands for itself.
    next: u64,
}

impl Crowds {
    pub(crate) fn new() -> Crowds {
        Crowds { table: Lru::new(GROUPS), hasher: RandomState::new(), next: 0 }
    }

    /// Counts an attempt towards a correlated rule. It fires with the attempt that makes `count` within the window, and
    /// with each further one for as long as there are so many: firing for one source leaves the others their turn.
    pub(crate) fn count(&mut self, rule: RuleId, correlation: &Correlation, attempt: &Attempt<'_>) -> bool {
        // A line that names no user is no attempt on any.
        let user = attempt.user.filter(|user| !user.is_empty());
        let group = match correlation.same {
            Same::Source => self.hasher.hash_one(attempt.source),
            Same::Network => self.hasher.hash_one(network(attempt.address)),
            Same::User => match user {
                Some(user) => self.hasher.hash_one(user),
                None => return false,
            },
        };
        let name = match correlation.distinct {
            Some(Distinct::Source) => Some(self.hasher.hash_one(attempt.source)),
            Some(Distinct::User) => match user {
                Some(user) => Some(self.hasher.hash_one(user)),
                None => return false,
            },
            None => None,
        };
        let count = usize::try_from(correlation.count).unwrap_or(usize::MAX);
        let crowd = self.table.touch_or_insert_with((rule, group), Crowd::default);
        if let Some(name) = name {
            return crowd.add(attempt.at, name, count, correlation.window);
        }
        let mut fires = false;
        for _ in 0..attempt.times.min(correlation.count) {
            fires |= crowd.add(attempt.at, self.next, count, correlation.window);
            self.next = self.next.wrapping_add(1);
        }
        fires
    }

    /// Drops what was counted for rules for which `keep` does not hold.
    pub(crate) fn retain(&mut self, keep: impl Fn(RuleId) -> bool) {
        self.table.retain(|&(rule, _), _| keep(rule));
    }
}

fn network(address: IpAddr) -> SourceId {
    match address {
        IpAddr::V4(v4) => {
            let network = v4.to_bits() & !(u32::MAX >> IPV4_NETWORK);
            SourceId::of(IpAddr::V4(Ipv4Addr::from_bits(network)), IPV6_NETWORK)
        }
        v6 @ IpAddr::V6(_) => SourceId::of(v6, IPV6_NETWORK),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Mono;

    fn at(seconds: u64) -> Moment {
        Moment::from(Mono(0).after(Duration::from_secs(seconds)))
    }

    fn rule(same: Same, distinct: Option<Distinct>) -> Correlation {
        Correlation { base: Vec::new(), count: 3, window: Duration::from_secs(100), same, distinct }
    }

    /// A source, a user (empty: none named), and the second of the attempt; whether it fired.
    fn run(rule: &Correlation, attempts: &[(&str, &str, u64)]) -> Vec<bool> {
        let mut crowds = Crowds::new();
        let mut fires = |&(address, user, second): &(&str, &str, u64)| {
            let address: IpAddr = address.parse().unwrap();
            let source = SourceId::of(address, 64);
            let user = Some(user.as_bytes());
            crowds.count(RuleId(1), rule, &Attempt { address, source, user, at: at(second), times: 1 })
        };
        attempts.iter().map(&mut fires).collect()
    }

    #[test]
    fn one_user_from_many_sources() {
        let rule = rule(Same::User, Some(Distinct::Source));
        let fired = run(
            &rule,
            &[
                ("192.0.2.1", "root", 0),
                ("192.0.2.1", "root", 1),
                ("192.0.2.2", "root", 2),
                ("192.0.2.3", "admin", 3),
                ("192.0.2.3", "", 3),
                ("2001:db8::1", "root", 4),
                ("192.0.2.1", "root", 5),
                ("192.0.2.9", "root", 6),
                ("192.0.2.4", "admin", 7),
            ],
        );
        let expected = [false, false, false, false, false, true, true, true, false];
        assert_eq!(fired, expected);
    }

    #[test]
    fn addresses_of_one_ipv6_prefix_are_one_source() {
        let rule = rule(Same::User, Some(Distinct::Source));
        let one_host = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(|address| (address, "root", 0));
        assert_eq!(run(&rule, &one_host), [false; 3]);
        let several =
            ["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1"].map(|address| (address, "root", 0));
        assert_eq!(run(&rule, &several), [false, false, true]);
    }

    #[test]
    fn many_hosts_of_one_network() {
        let rule = rule(Same::Network, Some(Distinct::Source));
        let fired = |addresses: [&str; 3]| run(&rule, &addresses.map(|address| (address, "", 0)))[2];
        assert!(fired(["192.0.2.1", "192.0.2.254", "192.0.2.0"]));
        assert!(!fired(["192.0.2.1", "192.0.2.254", "192.0.3.1"]));
        assert!(fired(["2001:db8:1::1", "2001:db8:1:2::1", "2001:db8:1:ffff::1"]));
        assert!(!fired(["2001:db8:1::1", "2001:db8:1:2::1", "2001:db8:2::1"]));
    }

    #[test]
    fn many_users_from_one_source_and_attempts_by_user() {
        let users =
            [("192.0.2.1", "a", 0), ("192.0.2.1", "b", 0), ("192.0.2.1", "b", 0), ("192.0.2.1", "c", 0)];
        let by_user = rule(Same::Source, Some(Distinct::User));
        assert_eq!(run(&by_user, &users), [false, false, false, true]);
        let attempts =
            [("192.0.2.1", "a", 0), ("192.0.2.1", "a", 0), ("192.0.2.2", "a", 0), ("192.0.2.2", "a", 0)];
        assert_eq!(run(&rule(Same::User, None), &attempts), [false, false, true, true]);
    }

    #[test]
    fn the_edge_of_the_window_counts() {
        let rule = rule(Same::User, Some(Distinct::Source));
        let fired =
            |last| run(&rule, &[("192.0.2.1", "a", 1), ("192.0.2.2", "a", 50), ("192.0.2.3", "a", last)])[2];
        assert!(fired(101) && !fired(102));
    }

    #[test]
    fn several_attempts_at_once_count_each() {
        let mut crowds = Crowds::new();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let source = SourceId::of(address, 64);
        let mut fires = |times| {
            let attempt = Attempt { address, source, user: Some(b"a"), at: at(0), times };
            crowds.count(RuleId(1), &rule(Same::User, None), &attempt)
        };
        assert_eq!([2, 1, u32::MAX].map(&mut fires), [false, true, true]);
    }

    #[test]
    fn the_number_of_groups_has_an_end() {
        let mut crowds = Crowds::new();
        for n in (0u32..).take(GROUPS + 100) {
            let address = IpAddr::V4(Ipv4Addr::from_bits(n));
            let source = SourceId::of(address, 64);
            let user = n.to_be_bytes();
            let attempt = Attempt { address, source, user: Some(&user), at: at(0), times: 1 };
            crowds.count(RuleId(1), &rule(Same::User, Some(Distinct::Source)), &attempt);
        }
        assert_eq!(crowds.table.len(), GROUPS);
    }

    proptest! {
        /// Against all attempts, kept for good and looked through each time.
        #[test]
        fn agrees_with_brute_force(
            steps in prop::collection::vec((0..40u64, 0..150u64, 0..8u64), 0..200), count in 2..6usize,
        ) {
            let length = Duration::from_secs(100);
            let mut crowd = Crowd::default();
            let mut all: Vec<(u64, u64)> = Vec::new();
            let mut clock = 1000;
            for (forward, late, name) in steps {
                clock += forward;
                let second = if late % 3 == 0 { clock - late } else { clock };
                all.push((second, name));
                let newest = all.iter().map(|&(second, _)| second).max().unwrap_or(0);
                let mut names: Vec<u64> =
                    all.iter().filter(|&&(second, _)| newest - second <= 100).map(|&(_, name)| name).collect();
                names.sort_unstable();
                names.dedup();
                let expected = names.len() >= count && newest - second <= 100;
                prop_assert_eq!(crowd.add(at(second), name, count, length), expected);
                prop_assert!(crowd.marks.len() <= count);
            }
        }
    }
}
