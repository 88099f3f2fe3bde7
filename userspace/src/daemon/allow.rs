//! The allowlist as operators keep it, beside that of the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use xdpban_engine::change::{End, Expiry};
use xdpban_engine::target::Target;
use xdpban_engine::time::{Mono, Now, Wall};

use super::carry_out::Cause;
use super::{Daemon, answer};
use crate::clock;
use crate::control::{Reply, wire};
use crate::error::chain;
use crate::human;
use crate::store::{self, Write};

/// The most networks that operators can allow: each is compared with whatever is to be blocked.
const MOST: usize = 4096;

/// Targets of lifted blocks that are named.
const NAMED: usize = 10;

/// The networks that operators allowed.
#[derive(Debug, Default)]
pub(super) struct Allowlist {
    networks: BTreeMap<Target, Allowed>,
}

#[derive(Debug)]
struct Allowed {
    comment: Option<String>,
    added_at: Wall,
    expires: Option<Expiry>,
    uid: Option<u32>,
}

impl Allowlist {
    /// What the store kept. What is over by `now` expires at the first look.
    pub(super) fn new(kept: Vec<store::Allowed>, now: &Now) -> Allowlist {
        let networks =
            kept.into_iter().map(|store::Allowed { network, comment, added_at, expires_at, uid }| {
                let expires = expires_at.map(|at| now.recorded_expiry(added_at, at));
                (network, Allowed { comment, added_at, expires, uid })
            });
        Allowlist { networks: networks.collect() }
    }

    pub(super) fn networks(&self) -> Vec<Target> {
        self.networks.keys().copied().collect()
    }

    /// Says which of them hold half of all addresses or more.
    pub(super) fn allows_most(&self) -> impl Iterator<Item = String> {
        self.networks.keys().filter(|network| network.is_half_of_all()).map(|network| {
            format!("nothing in {network} is ever blocked: an operator allowed it; `xdpban allow remove {network}` ends that")
        })
    }

    /// What puts them on record as they are.
    pub(super) fn writes(&self) -> impl Iterator<Item = Write> {
        self.networks.iter().map(|(network, allowed)| Write::Allow {
            network: *network,
            comment: allowed.comment.clone(),
            expires_at: allowed.expires.map(|expiry| expiry.wall),
            uid: allowed.uid,
            at: allowed.added_at,
        })
    }

    /// When the next one is over.
    pub(super) fn next_due(&self) -> Option<Mono> {
        self.networks.values().filter_map(|allowed| allowed.expires).map(|expiry| expiry.mono).min()
    }

    /// Takes out those that are over.
    fn expire(&mut self, now: Mono) -> Vec<Target> {
        let is_over = |allowed: &Allowed| allowed.expires.is_some_and(|expiry| expiry.mono <= now);
        let over = self.networks.iter().filter(|(_, allowed)| is_over(allowed));
        let over: Vec<Target> = over.map(|(network, _)| *network).collect();
        self.networks.retain(|_, allowed| !is_over(allowed));
        over
    }
}

impl Daemon {
    /// Puts networks on the list; those that are there get the new end and comment.
    pub(super) fn allow(&mut self, request: &wire::AllowRequest, uid: u32) -> Reply {
        let now = clock::now();
        let comment = answer::given(request.comment.as_deref());
        let mut done = wire::Done::default();
        for text in &request.networks {
            let network = match text.parse::<Target>() {
                Ok(network) => network,
                Err(error) => {
                    done.refuse(text, error.to_string());
                    continue;
                }
            };
            if network.is_half_of_all() && !request.all {
                let what = "holds half of all addresses or more, none of which would be blocked any longer";
                done.refuse(
                    text,
                    format!("{network} {what}; if that is meant, give `--all` (`\"all\": true`)"),
                );
                continue;
            }
            let networks = &mut self.allowlist.networks;
            if networks.len() >= MOST && !networks.contains_key(&network) {
                let remedy = "more belong into [allow] networks in the configuration";
                done.refuse(text, format!("{network}: there are {MOST} networks already; {remedy}"));
                continue;
            }
            let expires = request.timeout_s.map(|seconds| Expiry::after(Duration::from_secs(seconds), &now));
            let (comment, added_at) = (comment.clone(), now.wall);
            networks.insert(network, Allowed { comment: comment.clone(), added_at, expires, uid: Some(uid) });
            let expires_at = expires.map(|expiry| expiry.wall);
            self.writes.push(Write::Allow { network, comment, expires_at, uid: Some(uid), at: now.wall });
            log::info!("allowed {network}, by uid {uid}");
            done.done += 1;
        }
        self.allow_changed(done, Cause::Operator { uid, reason: None })
    }

    /// Takes networks off the list.
    pub(super) fn disallow(&mut self, request: &wire::DisallowRequest, uid: u32) -> Reply {
        let at = clock::now().wall;
        let mut done = wire::Done::default();
        for text in &request.networks {
            match text.parse::<Target>() {
                Ok(network) if self.allowlist.networks.remove(&network).is_some() => {
                    let reason = "removed".to_owned();
                    self.writes.push(Write::Disallow { network, reason, uid: Some(uid), at });
                    log::info!("no longer allowed: {network}, removed by uid {uid}");
                    done.done += 1;
                }
                Ok(network) if self.config.policy.allow.contains(&network) => {
                    done.refuse(
                        text,
                        format!("{network} is allowed by the configuration; take it out there"),
                    );
                }
                Ok(network) => done.refuse(text, format!("{network} is not on the allowlist")),
                Err(error) => done.refuse(text, error.to_string()),
            }
        }
        self.allow_changed(done, Cause::Operator { uid, reason: None })
    }

    /// Both lists, that of the configuration first.
    pub(super) fn allowed(&self) -> Vec<wire::Allowed> {
        let now = clock::now();
        let config = self.config.allow.iter().map(|allowed| wire::Allowed {
            network: allowed.network.to_string(),
            origin: "config".to_owned(),
            comment: allowed.comment.clone(),
            ..wire::Allowed::default()
        });
        let by_hand = self.allowlist.networks.iter().map(|(network, allowed)| wire::Allowed {
            network: network.to_string(),
            origin: "operator".to_owned(),
            comment: allowed.comment.clone(),
            added_at: Some(clock::rfc3339(allowed.added_at)),
            uid: allowed.uid,
            expires_at: allowed.expires.map(|expiry| clock::rfc3339(now.wall_of(expiry))),
            expires_in_s: allowed.expires.map(|expiry| wire::seconds_up(expiry.mono.since(now.mono))),
        });
        config.chain(by_hand).collect()
    }

    /// What protects an address.
    pub(super) fn allow_check(&self, address: IpAddr) -> wire::AllowCheck {
        let protections = self.engine.protections(address, clock::now());
        let protections: Vec<wire::Protection> = protections.iter().map(wire::Protection::from).collect();
        wire::AllowCheck { address: address.to_string(), protected: !protections.is_empty(), protections }
    }

    /// Takes off the list what is over.
    pub(super) fn expire_allowed(&mut self) {
        let now = clock::now();
        let over = self.allowlist.expire(now.mono);
        if over.is_empty() {
            return;
        }
        for network in over {
            log::info!("no longer allowed: {network}, its time is over");
            let reason = "expired".to_owned();
            self.writes.push(Write::Disallow { network, reason, uid: None, at: now.wall });
        }
        self.allow_changed(wire::Done::default(), Cause::Other);
    }

    /// Has the engine and the gate go by both lists as they are. Where the gate does not yet, it is done all the same.
    fn allow_changed(&mut self, mut done: wire::Done, cause: Cause<'_>) -> Reply {
        self.engine.set_allowed_by_hand(self.allowlist.networks());
        let before = self.writes.len();
        self.carry_out(cause);
        done.notes.extend(lifted(self.writes.get(before..).unwrap_or_default()));
        if let Err(error) = self.set_allow() {
            log::error!("{error}");
            done.notes.push(format!(
                "the allowlist is changed, but the kernel's copy of it is not yet ({error}); that is tried again every minute"
            ));
        }
        Reply::Done(done)
    }

    /// Has the gate go by both lists. The engine lifts what they cover in any case.
    pub(super) fn set_allow(&mut self) -> Result<(), String> {
        let mut networks = self.config.policy.allow.clone();
        networks.extend(self.allowlist.networks());
        self.gate.set_allow(&networks).map(drop).map_err(|error| chain(&error))
    }
}

/// Says of which targets blocks were lifted since what is allowed overlaps them, the first few by name.
fn lifted(writes: &[Write]) -> Option<String> {
    let targets: BTreeSet<Target> = writes
        .iter()
        .filter_map(|write| match write {
            Write::Ended { block, end: End::Protected, .. } => Some(block.target),
            _ => None,
        })
        .collect();
    let named: Vec<String> = targets.iter().take(NAMED).map(Target::to_string).collect();
    let more = match targets.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {} more", human::count(more as u64)),
    };
    (!named.is_empty())
        .then(|| format!("no longer blocked, for it overlaps what is allowed: {}{more}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_over_at_its_time() {
        let now = Now {
            mono: Mono(0).after(Duration::from_secs(1000)),
            wall: Wall(0).after(Duration::from_secs(9000)),
            utc_offset: 0,
        };
        let kept = |text: &str, expires: Option<u64>| store::Allowed {
            network: text.parse().unwrap(),
            comment: None,
            added_at: Wall(0),
            expires_at: expires.map(|seconds| Wall(0).after(Duration::from_secs(seconds))),
            uid: Some(0),
        };
        let kept =
            vec![kept("192.0.2.1", Some(8000)), kept("192.0.2.2", Some(9010)), kept("192.0.2.3", None)];
        let mut list = Allowlist::new(kept, &now);
        let later = |seconds| now.mono.after(Duration::from_secs(seconds));
        assert!(list.next_due().is_some_and(|due| due <= now.mono), "over while nobody looked");
        assert_eq!(list.expire(now.mono), ["192.0.2.1".parse().unwrap()]);
        assert_eq!(list.next_due(), Some(later(10)));
        assert_eq!(list.expire(later(9)), []);
        assert_eq!(list.expire(later(10)), ["192.0.2.2".parse().unwrap()]);
        assert_eq!((list.next_due(), list.networks().len()), (None, 1));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_none_last_longer() {
        let now = Now { mono: Mono(5), wall: Wall(0), utc_offset: 0 };
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        let kept = store::Allowed {
            network: "192.0.2.1".parse().unwrap(),
            comment: None,
            added_at: now.wall.after(day),
            expires_at: Some(now.wall.after(day + hour)),
            uid: Some(0),
        };
        assert_eq!(Allowlist::new(vec![kept], &now).next_due(), Some(now.mono.after(hour)));
    }
}
