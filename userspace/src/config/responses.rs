//! `[[response]]` as it is written: which matches it is for, what is done about them, and for how long.

use std::num::NonZeroU32;
use std::time::Duration;

use toml::de::DeValue;
use xdpban_engine::glob::Glob;
use xdpban_engine::measure::{Action, Measure, Ports, Rate, Scope};
use xdpban_engine::policy::{Aggregate, Location};
use xdpban_engine::rules::RuleId;
use xdpban_engine::target::Target;

use super::commands::{self, Kind, RawCommand, misplaced};
use super::document::Section;
use super::faults::{Faults, Place};
use super::{keys, values};

/// A `[[response]]`, whose rules and groups are yet to be found.
pub(super) struct RawResponse {
    pub(super) rules: Vec<(Place, RuleId)>,
    pub(super) groups: Vec<(Place, Glob)>,
    pub(super) level: Option<u8>,
    pub(super) networks: Vec<Target>,
    pub(super) users: Vec<Glob>,
    pub(super) measure: Measure,
    pub(super) timeout: Option<Duration>,
    pub(super) repeat_offenders: Vec<Option<Duration>>,
    /// None: as long as other offenders.
    pub(super) forget_after: Option<Duration>,
    pub(super) aggregate: Option<Aggregate>,
    pub(super) location: Location,
    pub(super) command: Option<RawCommand>,
    pub(super) kind: Kind,
    pub(super) place: Place,
}

/// Every `[[response]]` of the file; none where it has none, and the defaults hold.
pub(super) fn read(root: &Section<'_>, faults: &mut Faults) -> Option<Vec<RawResponse>> {
    let sections = root.tables("response", &keys::RESPONSE, faults)?;
    Some(sections.iter().map(|section| response(section, faults)).collect())
}

fn response(section: &Section<'_>, faults: &mut Faults) -> RawResponse {
    let kind = kind(section, faults);
    misplaced(section, kind, faults);
    let before = faults.len();
    let rules = section.values("rules", faults, |v| values::whole(v, 1..=u32::MAX).map(RuleId));
    let groups = section.values("groups", faults, glob);
    let level = section.value("level", faults, |v| values::whole(v, 0..=15));
    let counts = kind == Kind::LockAccount;
    if !counts && rules.is_empty() && groups.is_empty() && level.is_none() && faults.len() == before {
        section.missing("this response selects nothing; give it `rules`, `groups` or `level`", faults);
    }
    let networks = section.values("networks", faults, values::target);
    let users = section.values("users", faults, glob);
    let timeout = section.value("timeout", faults, values::duration);
    let repeat_offenders = steps(section, faults);
    if !repeat_offenders.is_empty() && !section.has("timeout") {
        section.missing("`repeat_offenders` needs `timeout`: without it the first block never ends", faults);
    }
    RawResponse {
        rules,
        groups,
        level,
        networks: networks.into_iter().map(|(_, network)| network).collect(),
        users: users.into_iter().map(|(_, user)| user).collect(),
        measure: measure(section, kind, faults),
        timeout,
        repeat_offenders,
        forget_after: section.value("forget_after", faults, values::duration),
        aggregate: aggregate(section, faults),
        location: section.value("location", faults, location).unwrap_or_default(),
        command: commands::command(section, kind, faults),
        kind,
        place: section.place.clone(),
    }
}

/// A name, or a pattern of names.
fn glob(value: &DeValue<'_>) -> Result<Glob, String> {
    values::line(value).map(|name| Glob::from(name.as_str()))
}

/// How long repeat offenders are blocked, in steps; none: until unblocked, after which no step can follow.
fn steps(section: &Section<'_>, faults: &mut Faults) -> Vec<Option<Duration>> {
    let steps = section.values("repeat_offenders", faults, |value| match value.as_str() {
        Some("permanent") => Ok(None),
        _ => values::duration(value).map(Some),
    });
    let before_last = steps.len().saturating_sub(1);
    if let Some((place, _)) = steps.iter().take(before_last).find(|(_, step)| step.is_none()) {
        faults.add(place, "`repeat_offenders`: `permanent` is the last step, since it never ends");
    }
    steps.into_iter().map(|(_, step)| step).collect()
}

fn aggregate(section: &Section<'_>, faults: &mut Faults) -> Option<Aggregate> {
    let section = section.table("aggregate", &keys::AGGREGATE, faults)?;
    let v4 = section.value("v4", faults, |v| values::whole(v, 8..=31));
    let v6 = section.value("v6", faults, |v| values::whole(v, 16..=127));
    if !section.has("v4") && !section.has("v6") {
        section.missing("`aggregate` needs `v4` or `v6`, the length of the prefix to block", faults);
    }
    if !section.has("hosts") {
        section.missing("`aggregate` needs `hosts`, of which so many get the prefix blocked", faults);
    }
    let hosts = section.value("hosts", faults, |v| values::whole(v, 2..=MOST_HOSTS))?;
    Some(Aggregate { v4, v6, hosts })
}

/// The words are Wazuh's.
fn location(value: &DeValue<'_>) -> Result<Location, String> {
    const LOCATIONS: [(&str, Option<Location>); 4] =
        [("local", Some(Location::Local)), ("server", None), ("defined-agent", None), ("all", None)];
    values::choice(value, &LOCATIONS)?.ok_or_else(|| {
        let asked = value.as_str().unwrap_or_default();
        format!(
            "`{asked}` cannot be served: xdpban acts on the host that it runs on alone, which is \"local\"; write the \
             response into the configuration of each host that is to act"
        )
    })
}

/// So many hosts can be asked for before their network is blocked.
const MOST_HOSTS: u32 = 256;

fn kind(section: &Section<'_>, faults: &mut Faults) -> Kind {
    section.value("action", faults, |value| values::choice(value, &Kind::ALL)).unwrap_or_default()
}

/// What befalls the packets.
fn measure(section: &Section<'_>, kind: Kind, faults: &mut Faults) -> Measure {
    let action = match kind {
        Kind::Block => {
            let message = "this goes with `action = \"throttle\"`";
            for key in ["rate", "burst"].into_iter().filter(|key| section.has(key)) {
                faults.add(&section.place_of(key), format!("`{key}`: {message}"));
            }
            Action::Block
        }
        Kind::Run | Kind::LockAccount | Kind::Notify => Action::Block,
        Kind::Throttle => rate(section, faults).map_or(Action::Block, Action::Throttle),
    };
    Measure { action, scope: scope(section, faults) }
}

fn rate(section: &Section<'_>, faults: &mut Faults) -> Option<Rate> {
    if !section.has("rate") {
        section.missing("a response that throttles needs `rate`, such as \"20/s\"", faults);
    }
    let per_second = section.value("rate", faults, |v| parse_rate(values::string(v)?));
    let burst = section.value("burst", faults, |v| values::whole(v, 1..=MAX_RATE).map(NonZeroU32::new));
    let per_second = per_second?;
    Some(Rate { per_second, burst: burst.flatten().unwrap_or(per_second) })
}

/// The highest rate and the largest burst.
const MAX_RATE: u32 = 1_000_000;

/// Reads a rate such as `20/s`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_rate(text: &str) -> Result<NonZeroU32, String> {
    let digits = text.strip_suffix("/s").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok()).and_then(NonZeroU32::new);
    number.filter(|rate| rate.get() <= MAX_RATE).ok_or_else(|| {
        let text = keys::short(text);
        format!("`{text}` is not a rate; write it like \"20/s\", packets in a second, 1 to {MAX_RATE}")
    })
}

fn scope(section: &Section<'_>, faults: &mut Faults) -> Scope {
    let port = |value: &DeValue<'_>| values::whole(value, 1..=u16::MAX);
    let ports: Vec<u16> = section.values("ports", faults, port).into_iter().map(|(_, port)| port).collect();
    let ports = Ports::new(&ports).unwrap_or_else(|| {
        let message = format!("`ports`: at most {} can be named", Ports::MAX);
        faults.add(&section.place_of("ports"), message);
        Ports::default()
    });
    let scopes = [("all", false), ("new", true)];
    let new_only = section.value("scope", faults, |v| values::choice(v, &scopes)).unwrap_or_default();
    Scope { ports, new_only }
}
