//! What people use now: rules of netfilter that drop the same addresses.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::lab::{self, FIRST, Lab};
use crate::process;

/// Addresses in each set.
pub(super) const BLOCKED: u32 = 100_000;

/// Addresses in fail2ban's chain, a rule each.
pub(super) const RULES: u32 = 100;

/// A way to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// A set of nftables in the netdev family: the first hook there is.
    Ingress,
    /// A set of nftables before routing.
    Prerouting,
    /// iptables before connection tracking, with an ipset.
    Ipset,
    /// fail2ban's `nftables-multiport`: a set and a `reject` in the input hook.
    Fail2banNft,
    /// fail2ban's default in Debian, `iptables-multiport`: a chain with a rule for each of so many addresses, the newest first.
    Fail2ban(u32),
}

/// Rules in force; taken away when dropped.
pub(super) struct Rules;

impl Drop for Rules {
    fn drop(&mut self) {
        if let Err(error) = clear() {
            crate::step::say(format_args!("rules of the bench could not be taken away: {error:#}"));
        }
    }
}

fn clear() -> Result<()> {
    process::output(Command::new("nft").args(["flush", "ruleset"]))?;
    // iptables may be the one that nft does not see.
    for table in ["raw", "filter"] {
        process::output(Command::new("iptables").args(["-t", table, "-F"]))?;
        process::output(Command::new("iptables").args(["-t", table, "-X"]))?;
    }
    process::output(Command::new("nft").args(["flush", "ruleset"]))?;
    process::output(Command::new("ipset").arg("destroy")).map(drop)
}

impl Filter {
    /// Puts its rules in force, with what the bench's sources need.
    pub(super) fn set_up(self, lab: &Lab) -> Result<Rules> {
        let rules = Rules;
        match self {
            Filter::Ingress => {
                nft(lab, "netdev", &format!("hook ingress device {} priority -500", lab::IN), "drop")?
            }
            Filter::Prerouting => nft(lab, "inet", "hook prerouting priority raw", "drop")?,
            Filter::Fail2banNft => nft(lab, "inet", "hook input priority -1", "reject")?,
            Filter::Ipset => ipset(lab)?,
            Filter::Fail2ban(count) => fail2ban(lab, count)?,
        }
        Ok(rules)
    }
}

fn addresses(count: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..count).map(|number| Ipv4Addr::from(u32::from(FIRST) + number))
}

fn nft(lab: &Lab, family: &str, hook: &str, verdict: &str) -> Result<()> {
    let of = if verdict == "reject" { "tcp dport { 22 } " } else { "" };
    let elements = addresses(BLOCKED).map(|address| address.to_string()).collect::<Vec<_>>().join(",");
    let script = format!(
        "table {family} bench {{\n set blocked {{ type ipv4_addr; elements = {{ {elements} }}; }}\n \
         chain blocked {{ type filter {hook}; {of}ip saddr @blocked {verdict}; }}\n}}\n"
    );
    feed(lab, Command::new("nft").args(["-f", "-"]), &script)
}

fn ipset(lab: &Lab) -> Result<()> {
    let mut script = format!("create blocked hash:ip maxelem {}\n", 2 * BLOCKED);
    for address in addresses(BLOCKED) {
        writeln!(script, "add blocked {address}")?;
    }
    feed(lab, Command::new("ipset").arg("restore"), &script)?;
    let rule = ["-t", "raw", "-A", "PREROUTING", "-m", "set", "--match-set", "blocked", "src", "-j", "DROP"];
    process::output(Command::new("iptables").args(rule)).map(drop)
}

/// action.d/iptables.conf: `actionstart` once, and `actionban` for each address.
fn fail2ban(lab: &Lab, count: u32) -> Result<()> {
    let mut script = "*filter\n:f2b-sshd - [0:0]\n-A f2b-sshd -j RETURN\n\
                      -I INPUT -p tcp -m multiport --dports 22 -j f2b-sshd\n"
        .to_owned();
    for address in addresses(count) {
        writeln!(script, "-I f2b-sshd 1 -s {address} -j REJECT --reject-with icmp-port-unreachable")?;
    }
    script += "COMMIT\n";
    feed(lab, Command::new("iptables-restore").arg("--noflush"), &script)
}

fn feed(lab: &Lab, command: &mut Command, script: &str) -> Result<()> {
    let path = lab.directory().join("script");
    fs::write(&path, script).context("write a script")?;
    let input = fs::File::open(&path).context("open a script")?;
    process::run(command.stdin(input).stdout(Stdio::null()))
}
