//! The figures of a run: medians over its rounds, and ratios that are taken within each round.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::step::say;

/// The bare XDP_DROP.
pub(super) const LIMIT: &str = "bare XDP_DROP";

/// The bare XDP_PASS, and the clean way without any program.
const PASS: &str = "bare XDP_PASS";
const WITHOUT: &str = "without XDP";

/// What a figure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Packets dropped a second.
    Drop,
    /// Nanoseconds a packet that passes.
    Clean,
    /// Bytes a second of a TCP connection.
    Tcp,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) group: Group,
    pub(super) name: &'static str,
    /// Whose packets: of one source or of random ones; or the family.
    pub(super) kind: &'static str,
    pub(super) senders: usize,
}

impl Measured {
    pub(super) fn limit(kind: &'static str, senders: usize) -> Measured {
        Measured::drop(LIMIT, kind, senders)
    }

    pub(super) fn drop(name: &'static str, kind: &'static str, senders: usize) -> Measured {
        Measured { group: Group::Drop, name, kind, senders }
    }

    pub(super) fn clean(name: &'static str, kind: &'static str) -> Measured {
        Measured { group: Group::Clean, name, kind, senders: 0 }
    }

    pub(super) fn tcp(name: &'static str) -> Measured {
        Measured { group: Group::Tcp, name, kind: "", senders: 1 }
    }

    /// What it is compared with.
    fn base(self) -> Measured {
        let name = match self.group {
            Group::Drop => LIMIT,
            Group::Clean => PASS,
            Group::Tcp => WITHOUT,
        };
        Measured { name, ..self }
    }
}

pub(super) struct Report {
    quick: bool,
    rounds: usize,
    /// In the order of their first measurement; a value for each round.
    figures: Vec<(Measured, Vec<f64>)>,
}

/// A target of the project and what was reached.
struct Target {
    what: &'static str,
    wanted: f64,
    /// Whether less is better.
    at_most: bool,
    got: f64,
}

impl Target {
    fn met(&self) -> bool {
        if self.at_most { self.got <= self.wanted } else { self.got >= self.wanted }
    }

    fn bound(&self) -> &'static str {
        if self.at_most { "at most" } else { "at least" }
    }
}

impl Report {
    pub(super) fn new(quick: bool) -> Report {
        Report { quick, rounds: 0, figures: Vec::new() }
    }

    pub(super) fn next_round(&mut self) {
        self.rounds += 1;
        say(format_args!("round {}", self.rounds));
    }

    pub(super) fn add(&mut self, what: Measured, value: f64) {
        match self.figures.iter_mut().find(|(known, _)| *known == what) {
            Some((_, values)) => values.push(value),
            None => self.figures.push((what, vec![value])),
        }
    }

    fn values(&self, what: Measured) -> &[f64] {
        self.figures.iter().find(|(known, _)| *known == what).map_or(&[], |(_, values)| values)
    }

    /// The median of the rounds; none if it was not measured.
    pub(super) fn figure(&self, what: Measured) -> Option<f64> {
        median(self.values(what).to_vec())
    }

    /// The median of the ratios of each round.
    pub(super) fn ratio(&self, what: Measured, base: Measured) -> Option<f64> {
        let pairs = self.values(what).iter().zip(self.values(base));
        median(pairs.map(|(value, base)| value / base).collect())
    }

    /// The median of the differences of each round.
    fn difference(&self, what: Measured, base: Measured) -> Option<f64> {
        let pairs = self.values(what).iter().zip(self.values(base));
        median(pairs.map(|(value, base)| value - base).collect())
    }

    /// The names of a group, each once, in their order.
    pub(super) fn names(&self, group: Group, senders: usize) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (what, _) in &self.figures {
            if what.group == group && (what.senders == senders) && !names.contains(&what.name) {
                names.push(what.name);
            }
        }
        names
    }

    fn targets(&self) -> Vec<Target> {
        let drop = |name, kind| Measured::drop(name, kind, 1);
        let million = "xdpban, 1 M blocks";
        let limit = |kind| self.ratio(drop(million, kind), drop(LIMIT, kind));
        let over = |name| self.ratio(drop(million, "one"), drop(name, "one"));
        let clean = |family| self.difference(Measured::clean(million, family), Measured::clean(PASS, family));
        let least =
            |what, wanted, got: Option<f64>| got.map(|got| Target { what, wanted, at_most: false, got });
        let most =
            |what, wanted, got: Option<f64>| got.map(|got| Target { what, wanted, at_most: true, got });
        [
            least("one source among 1 M blocks, of the limit", 0.85, limit("one")),
            least("random sources among 1 M blocks, of the limit", 0.6, limit("random")),
            least("times nftables ingress", 3.0, over("nftables, ingress, set")),
            least("times fail2ban's default", 4.0, over("fail2ban's default, 1 banned")),
            most("ns for a clean IPv4 packet with 1 M blocks", 15.0, clean("IPv4")),
            most("ns for a clean IPv6 packet with 1 M blocks", 15.0, clean("IPv6")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Prints the tables for people.
    pub(super) fn print(&self) -> Result<()> {
        use std::io::Write as _;
        let text = self.text()?;
        std::io::stdout().write_all(text.as_bytes()).context("write to standard output")
    }

    /// The tables, which are Markdown, too.
    pub(super) fn text(&self) -> Result<String> {
        let mut text = format!("{}; median of {} rounds\n", machine()?, self.rounds);
        if self.quick {
            text += "(with --quick: too short for figures that are to be quoted)\n";
        }
        let (alone, together) = ("dropped, million packets a second", "two senders on two CPUs, together");
        self.rates(&mut text, 1, alone, &[("one source", "one"), ("random", "random")])?;
        let kinds = [("same source", "same"), ("two sources", "different"), ("random", "random")];
        self.rates(&mut text, 2, together, &kinds)?;
        self.clean(&mut text)?;
        self.tcp(&mut text)?;
        let targets = self.targets();
        if !targets.is_empty() {
            writeln!(text, "\n| {:<46} | {:>13} | {:>7} | {:>7} |", "target", "", "reached", "")?;
            writeln!(text, "|:{:-<46}-|-{:->13}:|-{:->7}:|-{:->7}:|", "", "", "", "")?;
        }
        for target in targets {
            let (wanted, met) = (
                format!("{} {}", target.bound(), target.wanted),
                if target.met() { "met" } else { "NOT met" },
            );
            writeln!(text, "| {:<46} | {wanted:>13} | {:>7.2} | {met:>7} |", target.what, target.got)?;
        }
        Ok(text)
    }

    /// The rates of so many senders, each with its ratio to the limit.
    fn rates(
        &self,
        text: &mut String,
        senders: usize,
        title: &str,
        kinds: &[(&str, &'static str)],
    ) -> Result<()> {
        let names = self.names(Group::Drop, senders);
        if names.is_empty() {
            return Ok(());
        }
        let heads: Vec<_> = kinds.iter().flat_map(|(head, _)| [*head, "of the limit"]).collect();
        head(text, title, &heads)?;
        for name in names {
            let mut cells = Vec::new();
            for (_, kind) in kinds {
                let what = Measured::drop(name, kind, senders);
                cells.push(self.figure(what).map_or(String::new(), |rate| format!("{:.2}", rate / 1e6)));
                cells
                    .push(self.ratio(what, what.base()).map_or(String::new(), |ratio| format!("{ratio:.2}")));
            }
            row(text, name, &cells)?;
        }
        Ok(())
    }

    fn clean(&self, text: &mut String) -> Result<()> {
        let names = self.names(Group::Clean, 0);
        if names.is_empty() {
            return Ok(());
        }
        head(text, "clean packets, ns each", &["IPv4", "over XDP_PASS", "IPv6", "over XDP_PASS"])?;
        for name in names {
            let mut cells = Vec::new();
            for family in ["IPv4", "IPv6"] {
                let what = Measured::clean(name, family);
                cells.push(self.figure(what).map_or(String::new(), |took| format!("{took:.1}")));
                cells.push(
                    self.difference(what, what.base()).map_or(String::new(), |over| format!("{over:.1}")),
                );
            }
            row(text, name, &cells)?;
        }
        Ok(())
    }

    fn tcp(&self, text: &mut String) -> Result<()> {
        let names = self.names(Group::Tcp, 1);
        if names.is_empty() {
            return Ok(());
        }
        head(text, "one TCP connection, Gbit/s", &["", "of XDP_PASS"])?;
        let pass = Measured::tcp(PASS);
        for name in names {
            let what = Measured::tcp(name);
            let figure = self.figure(what).map_or(String::new(), |rate| format!("{:.2}", rate * 8.0 / 1e9));
            let ratio = self.ratio(what, pass).map_or(String::new(), |ratio| format!("{ratio:.2}"));
            row(text, name, &[figure, ratio])?;
        }
        Ok(())
    }

    /// Everything, in packets and bytes a second and nanoseconds, round by round.
    pub(super) fn json(&self) -> Value {
        let figure = |(what, values): &(Measured, Vec<f64>)| {
            json!({
                "group": match what.group {
                    Group::Drop => "drop_packets_per_s",
                    Group::Clean => "clean_ns",
                    Group::Tcp => "tcp_bytes_per_s",
                },
                "name": what.name,
                "kind": what.kind,
                "senders": what.senders,
                "rounds": values,
                "median": self.figure(*what),
                "ratio": self.ratio(*what, what.base()),
            })
        };
        let target = |target: &Target| {
            json!({ "what": target.what, "bound": target.bound(), "wanted": target.wanted,
                    "got": target.got, "met": target.met() })
        };
        json!({
            "quick": self.quick,
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
            "targets": self.targets().iter().map(target).collect::<Vec<_>>(),
        })
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn head(text: &mut String, title: &str, heads: &[&str]) -> Result<()> {
    write!(text, "\n| {title:<34} |")?;
    heads.iter().try_for_each(|head| write!(text, " {head:>13} |"))?;
    write!(text, "\n|:{:-<34}-|", "")?;
    heads.iter().try_for_each(|_| write!(text, "-{:->13}:|", ""))?;
    Ok(writeln!(text)?)
}

fn row(text: &mut String, name: &str, cells: &[String]) -> Result<()> {
    write!(text, "| {name:<34} |")?;
    cells.iter().try_for_each(|cell| write!(text, " {cell:>13} |"))?;
    Ok(writeln!(text)?)
}

/// What it was measured on.
fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unnamed processor", |(_, name)| name);
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    Ok(format!("{cpus} CPUs of {model}, Linux {}", release.trim()))
}
