//! Blocks of whole prefixes in which too many hosts attack.

use super::respond::{join, suffices};
use super::{Enforcer, refusal_of};
use crate::blocklist::key;
use crate::change::{Block, Expiry, Refusal};
use crate::moment::Moment;
use crate::policy::Response;
use crate::target::Target;
use crate::time::Now;

impl Enforcer {
    /// Blocks the prefix that `host`, which has just been blocked, lies in, where the response says so and enough others in
    /// it have been blocked.
    pub(super) fn aggregate(&mut self, host: &Block, response: &Response, now: &Now) {
        let Some(aggregate) = response.aggregate else { return };
        let Some(target) = aggregate.prefix_of(&host.target) else { return };
        let (at, hosts) = (Moment::now(now), aggregate.hosts as usize);
        let within: Vec<Target> = self.offenders.within(target, hosts, at, response.forget_after).collect();
        if within.len() < hosts {
            return;
        }
        let standing = self.block_of(&target);
        let offences = match standing {
            Some(block) => block.offences,
            None => self.offenders.next(&target, at, response.forget_after),
        };
        let timeout = response.timeout_for(offences);
        let expires = timeout.map(|timeout| Expiry::after(timeout, now));
        if standing.is_some_and(|block| suffices(block, &response.measure, expires)) {
            return;
        }
        let asked = Block {
            target,
            created: now.wall,
            expires,
            measure: response.measure,
            reason: collateral(&target, &within).into(),
            offences,
            ..host.clone()
        };
        let block = join(standing, asked);
        if let Some(protection) = self.protection(&target, now) {
            self.refuse(target, Refusal::Protected(protection), timeout, || block, now);
        } else if let Err(full) = self.blocklist.has_room(&key(&block)) {
            self.refuse(target, refusal_of(target, full), timeout, || block, now);
        } else {
            self.put(block.into(), now.mono);
            self.offenders.record(target, offences, at.after(timeout.unwrap_or_default()));
            self.counts.blocked += 1;
        }
    }
}

/// Why a prefix is blocked: who in it attacked, and who is blocked with them.
fn collateral(prefix: &Target, hosts: &[Target]) -> String {
    const NAMED: usize = 8;
    let mut names: Vec<String> = hosts.iter().take(NAMED).map(Target::to_string).collect();
    if hosts.len() > NAMED {
        names.push("…".to_owned());
    }
    let bits = if prefix.address().is_ipv4() { 32 } else { 128 };
    let addresses = match bits - prefix.prefix_len() {
        small @ ..=32 => (1u64 << small).to_string(),
        large => format!("2^{large}"),
    };
    format!(
        "{} sources within {prefix} attacked: {}; all {addresses} addresses of it are blocked with them",
        hosts.len(),
        names.join(", ")
    )
}
