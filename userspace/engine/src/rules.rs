//! Rules: what they match, and what they say about it. Ids, levels and groups of the sshd rules are Wazuh's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Event, EventKind};

/// A rule's number, as in Wazuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

/// A rule as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The rule's number.
    pub id: RuleId,
    /// The severity, 0 to 15. A rule of level 0 never leads to a response.
    pub level: u8,
    /// The groups, by which responses can name it.
    pub groups: Vec<String>,
    /// What it found, for a person.
    pub description: String,
    /// What makes it fire.
    pub when: Condition,
}

/// What makes a rule fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// One event.
    Event(EventMatch),
    /// So many attempts that fired other rules, within a window.
    Count(Correlation),
}

/// Which attempts a correlated rule counts, and together with which others.
///
/// Where every attempt of one source counts, the attempt that completes the count fires and counting starts over; sources
/// never share a count, so that one cannot hide another. Otherwise sources do share it: there an attempt fires whenever,
/// with it, there are `count` within the window, so that each source that goes on fires for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlation {
    /// The rules whose matches are counted. An attempt that fires several of them counts once.
    pub base: Vec<RuleId>,
    /// The attempt with this number fires. At least 2.
    pub count: u32,
    /// How far apart the first and the last may be, this length included.
    pub window: Duration,
    /// What the attempts have in common.
    pub same: Same,
    /// In what they differ from each other: of those that are alike in it only the latest counts. None: all count.
    pub distinct: Option<Distinct>,
}

/// What the attempts that are counted together have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Same {
    /// The source, an IPv6 one by its prefix.
    #[default]
    Source,
    /// The user name; attempts without one are not counted.
    User,
    /// The network: an IPv4 /24 or an IPv6 /48.
    Network,
}

/// In what attempts that are counted together differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinct {
    /// The source, an IPv6 one by its prefix.
    Source,
    /// The user name; attempts without one are not counted.
    User,
}

/// The largest count of a rule. For each source and rule fewer attempts than its count are remembered.
pub const MOST_ATTEMPTS: u32 = 10_000;

/// The largest count of a rule whose count several sources share, or that counts what differs.
pub const MOST_SHARED: u32 = 256;

/// Which single events a rule takes. Of several rules that take an event the last in the table wins, so a special case
/// stands below the general one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventMatch {
    /// Any of these kinds; empty takes none.
    pub kinds: Vec<EventKind>,
    /// Only events that this decoder found. It goes with [`EventKind::Custom`].
    pub decoder: Option<String>,
    /// Only where the message does (or does not) say that the user does not exist.
    pub invalid_user: Option<bool>,
    /// Only where the event's detail begins with this.
    pub detail: Option<String>,
}

/// What a match keeps of its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The rule's number.
    pub id: RuleId,
    /// Its severity.
    pub level: u8,
    /// What it found.
    pub description: Arc<str>,
}

/// Rules that have been checked against each other, in the order in which they apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// For each kind of event, by its number, the places of the single rules that take it, the last in the table first.
    takers: Vec<Vec<usize>>,
    /// For each rule, by its place, the places of the correlated rules that count it.
    counters: Vec<Vec<usize>>,
}

/// Why rules do not fit together. `index` is the place of the faulty rule in what was handed in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Two rules have the same id.
    #[error("rule {id} is defined twice", id = .id.0)]
    Duplicate {
        /// The second of the two.
        index: usize,
        /// Their id.
        id: RuleId,
    },
    /// A correlated rule names a base that does not exist.
    #[error("rule {id} counts rule {base}, which does not exist", id = .id.0, base = .base.0)]
    UnknownBase {
        /// The rule.
        index: usize,
        /// Its id.
        id: RuleId,
        /// The base that it names.
        base: RuleId,
    },
    /// A correlated rule counts itself, through whatever others.
    #[error("rule {id} counts itself", id = .id.0)]
    Cycle {
        /// The rule.
        index: usize,
        /// Its id.
        id: RuleId,
    },
    /// A rule that nothing can make fire: no kinds, a count below 2 or too large, an empty window, a base that is never
    /// counted.
    #[error("rule {id} can never fire: {why}", id = .id.0)]
    Dead {
        /// The rule.
        index: usize,
        /// Its id.
        id: RuleId,
        /// What makes it so.
        why: &'static str,
    },
}

impl RuleSet {
    /// Checks `rules` against each other.
    ///
    /// # Errors
    /// Every fault, not the first alone, in the order of the rules.
    pub fn new(rules: Vec<Rule>) -> Result<RuleSet, Vec<RuleError>> {
        let mut places = HashMap::with_capacity(rules.len());
        let mut faults = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            if *places.entry(rule.id).or_insert(index) != index {
                faults.push(RuleError::Duplicate { index, id: rule.id });
            }
        }
        for (index, rule) in rules.iter().enumerate() {
            if let Some(why) = rule.when.dead() {
                faults.push(RuleError::Dead { index, id: rule.id, why });
            }
            if let Condition::Count(correlation) = &rule.when {
                let bases: Vec<&Rule> = correlation
                    .base
                    .iter()
                    .filter_map(|&base| {
                        let known = places.get(&base).and_then(|&place| rules.get(place));
                        if known.is_none() {
                            faults.push(RuleError::UnknownBase { index, id: rule.id, base });
                        }
                        known
                    })
                    .collect();
                if counts_itself(&rules, &places, rule.id) {
                    faults.push(RuleError::Cycle { index, id: rule.id });
                } else if !bases.is_empty() && bases.iter().all(|base| base.when.never_counts()) {
                    let why = "what it counts is never an attempt";
                    faults.push(RuleError::Dead { index, id: rule.id, why });
                }
            }
        }
        if !faults.is_empty() {
            faults.sort_by_key(RuleError::index);
            return Err(faults);
        }

        let mut takers = vec![Vec::new(); EventKind::ALL.len()];
        let mut counters = vec![Vec::new(); rules.len()];
        for (index, rule) in rules.iter().enumerate() {
            match &rule.when {
                Condition::Event(wanted) => {
                    for &kind in &wanted.kinds {
                        if let Some(takers) = takers.get_mut(kind as usize)
                            && takers.first() != Some(&index)
                        {
                            takers.insert(0, index);
                        }
                    }
                }
                Condition::Count(correlation) => {
                    for place in correlation.base.iter().filter_map(|base| places.get(base)) {
                        if let Some(counters) = counters.get_mut(*place)
                            && counters.last() != Some(&index)
                        {
                            counters.push(index);
                        }
                    }
                }
            }
        }
        Ok(RuleSet { rules, takers, counters })
    }

    /// The rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The place of the single rule that takes `event`: of several the last in the table.
    pub(crate) fn single(&self, event: &Event<'_>) -> Option<usize> {
        self.takers.get(event.kind as usize)?.iter().copied().find(|&place| {
            self.rules.get(place).is_some_and(|rule| match &rule.when {
                Condition::Event(wanted) => wanted.takes(event),
                Condition::Count(_) => false,
            })
        })
    }

    /// The single rules that can never fire, since another that stands below takes every event that they could: the
    /// places of both.
    pub fn shadowed(&self) -> Vec<(usize, usize)> {
        let single = |(place, rule): (usize, &'_ Rule)| match &rule.when {
            Condition::Event(wanted) => Some((place, wanted.clone())),
            Condition::Count(_) => None,
        };
        let singles: Vec<(usize, EventMatch)> = self.rules.iter().enumerate().filter_map(single).collect();
        let mut shadowed = Vec::new();
        for (place, wanted) in &singles {
            let below = |kind: &EventKind| {
                let covers =
                    |(_, other): &&(usize, EventMatch)| other.kinds.contains(kind) && other.covers(wanted);
                singles.iter().filter(|(other, _)| other > place).rfind(covers)
            };
            let by: Option<Vec<_>> = wanted.kinds.iter().map(below).collect();
            if let Some((by, _)) = by.iter().flatten().next() {
                shadowed.push((*place, *by));
            }
        }
        shadowed
    }

    /// The correlated rules.
    pub(crate) fn correlated(&self) -> impl Iterator<Item = RuleId> {
        let correlated = |rule: &&Rule| matches!(rule.when, Condition::Count(_));
        self.rules.iter().filter(correlated).map(|rule| rule.id)
    }

    /// The places of the correlated rules that count the rule at `place`.
    pub(crate) fn counters(&self, place: usize) -> &[usize] {
        self.counters.get(place).map_or(&[], Vec::as_slice)
    }
}

impl Condition {
    /// Why nothing can satisfy it, where that is so.
    fn dead(&self) -> Option<&'static str> {
        match self {
            Condition::Event(wanted) if wanted.kinds.is_empty() => Some("it names no events"),
            Condition::Event(_) => None,
            Condition::Count(correlation) => correlation.dead(),
        }
    }

    /// Whether none of its events can count towards a correlated rule.
    fn never_counts(&self) -> bool {
        match self {
            Condition::Event(wanted) => wanted.kinds.iter().all(|kind| match kind {
                // With a user that does not exist it is an attempt.
                EventKind::FailedPublickey => wanted.invalid_user == Some(false),
                kind => kind.accompanies_attempts(),
            }),
            Condition::Count(_) => false,
        }
    }
}

impl Correlation {
    /// Whether the attempts of each source are counted by themselves.
    pub(crate) fn is_by_source(&self) -> bool {
        self.same == Same::Source && self.distinct.is_none()
    }

    fn dead(&self) -> Option<&'static str> {
        match (self.same, self.distinct) {
            (Same::Source, Some(Distinct::Source)) => return Some("one source is never several"),
            (Same::User, Some(Distinct::User)) => return Some("one user is never several"),
            _ => {}
        }
        let most = if self.is_by_source() { MOST_ATTEMPTS } else { MOST_SHARED };
        match self.count {
            _ if self.base.is_empty() => Some("it has no base"),
            0 | 1 => Some("its count is below 2"),
            count if count > most && self.is_by_source() => Some("its count is above 10000"),
            count if count > most => Some("its count is above 256, and it counts several sources or users"),
            _ if self.window.is_zero() => Some("its window is empty"),
            _ => None,
        }
    }
}

impl EventMatch {
    /// Whether the rule takes `event`, whose kind is one of its own.
    fn takes(&self, event: &Event<'_>) -> bool {
        self.decoder.as_ref().is_none_or(|wanted| *wanted == event.decoder)
            && self.invalid_user.is_none_or(|wanted| wanted == event.invalid_user)
            && self.detail.as_ref().is_none_or(|wanted| event.detail.starts_with(wanted.as_bytes()))
    }

    /// Whether it takes each event of a kind that both have and that `other` takes.
    fn covers(&self, other: &EventMatch) -> bool {
        let detail = self.detail.as_deref().unwrap_or_default();
        (self.decoder.is_none() || self.decoder == other.decoder)
            && (self.invalid_user.is_none() || self.invalid_user == other.invalid_user)
            && other.detail.as_deref().unwrap_or_default().starts_with(detail)
    }
}

impl RuleError {
    fn index(&self) -> usize {
        match *self {
            RuleError::Duplicate { index, .. }
            | RuleError::UnknownBase { index, .. }
            | RuleError::Cycle { index, .. }
            | RuleError::Dead { index, .. } => index,
        }
    }
}

/// Whether one of the chains of bases that begin at `id` comes back to it.
fn counts_itself(rules: &[Rule], places: &HashMap<RuleId, usize>, id: RuleId) -> bool {
    let bases = |id: RuleId| match places.get(&id).and_then(|&place| rules.get(place)) {
        Some(Rule { when: Condition::Count(correlation), .. }) => correlation.base.as_slice(),
        _ => &[],
    };
    // The chains may run into each other, or into a cycle of others.
    let mut seen = HashSet::new();
    let mut next = bases(id).to_vec();
    while let Some(base) = next.pop() {
        if base == id {
            return true;
        }
        if seen.insert(base) {
            next.extend(bases(base));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::event::Trace;

    fn single(id: u32, kinds: &[EventKind]) -> Rule {
        let when = Condition::Event(EventMatch { kinds: kinds.to_vec(), ..EventMatch::default() });
        Rule { id: RuleId(id), level: 5, groups: Vec::new(), description: String::new(), when }
    }

    fn count(id: u32, base: u32) -> Rule {
        correlated(id, &[base], 8, Same::Source, None)
    }

    fn correlated(id: u32, base: &[u32], count: u32, same: Same, distinct: Option<Distinct>) -> Rule {
        let base = base.iter().copied().map(RuleId).collect();
        let window = Duration::from_secs(120);
        Rule {
            when: Condition::Count(Correlation { base, count, window, same, distinct }),
            ..single(id, &[])
        }
    }

    fn event(kind: EventKind, invalid_user: bool, detail: &'static [u8]) -> Event<'static> {
        Event {
            kind,
            source: None,
            sourceless: false,
            port: None,
            user: Some(Cow::Borrowed(b"root")),
            invalid_user,
            attack: true,
            trace: Trace::Own,
            repeated: 1,
            detail,
            decoder: "sshd".into(),
        }
    }

    #[test]
    fn every_fault_is_told_in_the_order_of_the_rules() {
        let rules = vec![
            single(1, &[EventKind::FailedNone]),
            single(1, &[EventKind::FailedNone]),
            single(2, &[]),
            count(3, 99),
            count(4, 5),
            count(5, 4),
            correlated(6, &[1, 4], 8, Same::Source, None),
            correlated(7, &[1], 1, Same::Source, None),
        ];
        let faults = RuleSet::new(rules).unwrap_err();
        let expected = [
            RuleError::Duplicate { index: 1, id: RuleId(1) },
            RuleError::Dead { index: 2, id: RuleId(2), why: "it names no events" },
            RuleError::UnknownBase { index: 3, id: RuleId(3), base: RuleId(99) },
            RuleError::Cycle { index: 4, id: RuleId(4) },
            RuleError::Cycle { index: 5, id: RuleId(5) },
            RuleError::Dead { index: 7, id: RuleId(7), why: "its count is below 2" },
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn a_rule_that_counts_itself_is_a_cycle() {
        assert_eq!(RuleSet::new(vec![count(1, 1)]), Err(vec![RuleError::Cycle { index: 0, id: RuleId(1) }]));
    }

    #[test]
    fn the_last_that_takes_an_event_wins() {
        let general = single(1, &[EventKind::NegotiationFailed, EventKind::FailedPassword]);
        let mut cipher = single(2, &[EventKind::NegotiationFailed]);
        let mut invalid = single(3, &[EventKind::FailedPassword]);
        if let Condition::Event(wanted) = &mut cipher.when {
            wanted.detail = Some("cipher".into());
        }
        if let Condition::Event(wanted) = &mut invalid.when {
            wanted.invalid_user = Some(true);
        }
        let rules = RuleSet::new(vec![general, cipher, invalid]).unwrap();
        assert_eq!(rules.single(&event(EventKind::NegotiationFailed, false, b"cipher")), Some(1));
        assert_eq!(rules.single(&event(EventKind::NegotiationFailed, false, b"MAC")), Some(0));
        assert_eq!(rules.single(&event(EventKind::FailedPassword, true, b"")), Some(2));
        assert_eq!(rules.single(&event(EventKind::FailedPassword, false, b"")), Some(0));
        assert_eq!(rules.single(&event(EventKind::Accepted, false, b"")), None);
    }

    #[test]
    fn kinds_stand_at_their_own_number() {
        assert!(EventKind::ALL.iter().enumerate().all(|(place, &kind)| kind as usize == place));
    }
}
