//! `cargo xtask bench gate`: how fast packets of blocked sources are dropped, beside the fastest that can be and what people
//! use now, and what those pay who are not blocked. One pair of interfaces, one generator, contestants in turns.

mod clean;
mod document;
mod frame;
mod lab;
mod load;
mod netfilter;
mod plot;
mod program;
mod report;
mod sys;
mod xdpban;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use self::clean::Family;
use self::lab::{Lab, Sources};
pub(super) use self::load::load;
use self::netfilter::Filter;
use self::report::{Measured, Report};
use self::xdpban::{Content, Instance};
use crate::root::is_root;
use crate::step::{say, step};
use crate::{apt, build, process};

/// How many addresses send where sources are random and a table holds fewer.
const MILLION: u32 = 1_000_000;

/// A table as large as that of a million blocks, in one value of which a packet is counted.
const COUNT: &str = "XDP_DROP and count in 64 MiB";
const COUNT_BITS: u32 = 21;
const COUNT_BYTES: u32 = 32;

/// What is measured with xdpban in it.
const CONTENTS: [(&str, Content); 7] = [
    ("xdpban, nothing blocked", Content::Blocks(0)),
    ("xdpban, 1 k blocks", Content::Blocks(1_000)),
    ("xdpban, 100 k blocks", Content::Blocks(100_000)),
    ("xdpban, 1 M blocks", Content::Blocks(MILLION)),
    ("xdpban, one of 1 k prefixes", Content::Prefixes(1_000)),
    ("xdpban, one of 100 k prefixes", Content::Prefixes(100_000)),
    ("xdpban, throttled", Content::Throttled(1_000)),
];

const FILTERS: [(&str, Filter); 6] = [
    ("nftables, ingress, set", Filter::Ingress),
    ("nftables, prerouting, set", Filter::Prerouting),
    ("iptables raw, ipset", Filter::Ipset),
    ("fail2ban, nftables", Filter::Fail2banNft),
    ("fail2ban's default, 1 banned", Filter::Fail2ban(1)),
    ("fail2ban's default, 100 banned", Filter::Fail2ban(netfilter::RULES)),
];

/// Parts of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Dropping, XDP alone: the limit and xdpban
    Drop,
    /// Dropping by netfilter
    Netfilter,
    /// Two senders on two CPUs
    Senders,
    /// What clean traffic pays
    Clean,
    /// TCP throughput
    Tcp,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// Shorter: three rounds of a third of a second
    #[arg(long)]
    quick: bool,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the figures and the plot into docs/
    #[arg(long)]
    write_docs: bool,
    /// The binary to measure [default: the release build of this tree]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

impl Options {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// How long one flood lasts, in seconds.
    fn seconds(&self) -> f64 {
        if self.quick { 0.3 } else { 1.0 }
    }
}

pub(crate) fn gate(options: &Options) -> Result<()> {
    ensure!(is_root(), "the bench makes network namespaces and loads BPF programs: run it as root");
    programs(options)?;
    let binary = match &options.binary {
        Some(binary) => std::path::absolute(binary).context("find the binary")?,
        None => build::build()?,
    };
    let report = measure(options, &binary)?;
    report.print()?;
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", report.json()))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if options.write_docs { document::write(&report) } else { Ok(()) }
}

/// Sees that what is needed is there.
fn programs(options: &Options) -> Result<()> {
    let mut needed = vec![("ip", "iproute2"), ("ethtool", "ethtool")];
    if options.has(Part::Netfilter) {
        needed.extend([("nft", "nftables"), ("ipset", "ipset"), ("iptables", "iptables")]);
    }
    needed.retain(|(program, _)| process::find(program).is_none());
    if needed.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = needed.iter().map(|(_, package)| *package).collect();
    ensure!(apt::present(), "the bench needs {}", packages.join(", "));
    apt::install(&packages).context("the bench needs them")
}

fn measure(options: &Options, binary: &Path) -> Result<Report> {
    let lab = Lab::new().context("make the lab")?;
    let mut report = Report::new(options.quick);
    let instances = step("filling xdpban's tables", || instances(options, &lab, binary))?;
    let bench = Bench {
        lab: &lab,
        drop: sys::load(&program::always(program::DROP)).context("load a program")?,
        count: count()?,
        pass: sys::load(&program::always(program::PASS)).context("load a program")?,
        instances,
        interface: nix::net::if_::if_nametoindex(lab::IN).context("find the interface")?,
        seconds: options.seconds(),
    };
    step(&format!("{} rounds, contestants in turns", options.rounds()), || {
        for _ in 0..options.rounds() {
            bench.round(options, &mut report)?;
        }
        Ok(())
    })?;
    Ok(report)
}

fn count() -> Result<OwnedFd> {
    let table = sys::array(COUNT_BYTES, 1 << COUNT_BITS).context("create a table")?;
    sys::load(&program::drop_and_count(&table, COUNT_BITS)).context("load a program")
}

type Named = (&'static str, Content, Instance);

fn instances(options: &Options, lab: &Lab, binary: &Path) -> Result<Vec<Named>> {
    let mut instances = Vec::new();
    for (number, (name, content)) in CONTENTS.into_iter().enumerate() {
        let wanted = match content {
            Content::Blocks(MILLION) => true,
            Content::Blocks(_) => options.has(Part::Drop) || options.has(Part::Clean),
            Content::Prefixes(_) | Content::Throttled(_) => options.has(Part::Drop),
        };
        let with_xdpban =
            [Part::Drop, Part::Clean, Part::Tcp, Part::Senders].iter().any(|part| options.has(*part));
        if !wanted || !with_xdpban {
            continue;
        }
        match xdpban::start(lab, binary, number, content) {
            Ok(instance) => instances.push((name, content, instance)),
            Err(error) if matches!(content, Content::Throttled(_)) => {
                say(format_args!("left out: {name}: {error:#}"));
            }
            Err(error) => return Err(error.context(name)),
        }
    }
    Ok(instances)
}

struct Bench<'a> {
    lab: &'a Lab,
    drop: OwnedFd,
    count: OwnedFd,
    pass: OwnedFd,
    instances: Vec<Named>,
    interface: u32,
    /// How long one flood lasts.
    seconds: f64,
}

/// Who is to have dropped the frames.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Xdp,
    /// XDP, all but a few.
    Throttle,
    Netfilter,
    Nobody,
}

impl Bench<'_> {
    fn round(&self, options: &Options, report: &mut Report) -> Result<()> {
        report.next_round();
        if options.has(Part::Drop) || options.has(Part::Netfilter) {
            self.limit(report)?;
        }
        if options.has(Part::Drop) {
            self.xdpban(report)?;
        }
        if options.has(Part::Netfilter) {
            self.netfilter(report)?;
        }
        if options.has(Part::Senders) {
            self.senders(report)?;
        }
        if options.has(Part::Clean) {
            self.clean(report, if options.quick { 2_000_000 } else { 10_000_000 })?;
        }
        if options.has(Part::Tcp) {
            self.tcp(report, Duration::from_secs_f64(self.seconds * 2.0))?;
        }
        Ok(())
    }

    fn limit(&self, report: &mut Report) -> Result<()> {
        let _attached = self.attach(&self.drop)?;
        for sources in [Sources::One(7), Sources::Random(MILLION)] {
            let rate = self.flood(&[sources], By::Xdp)?;
            report.add(Measured::limit(kind(sources), 1), rate);
        }
        Ok(())
    }

    fn xdpban(&self, report: &mut Report) -> Result<()> {
        let attached = self.attach(&self.count)?;
        for sources in [Sources::One(7), Sources::Random(MILLION)] {
            report.add(Measured::drop(COUNT, kind(sources), 1), self.flood(&[sources], By::Xdp)?);
        }
        drop(attached);
        for (name, content, instance) in &self.instances {
            let _attached = self.attach(&instance.program)?;
            let (by, among) = match *content {
                Content::Blocks(0) => (By::Nobody, MILLION),
                Content::Blocks(count) => (By::Xdp, count),
                Content::Prefixes(_) => (By::Xdp, MILLION),
                Content::Throttled(count) => (By::Throttle, count),
            };
            for sources in [Sources::One(7), Sources::Random(among)] {
                let rate = self.flood(&[sources], by).with_context(|| format!("{name}, {sources:?}"))?;
                report.add(Measured::drop(name, kind(sources), 1), rate);
            }
        }
        Ok(())
    }

    fn netfilter(&self, report: &mut Report) -> Result<()> {
        let one = [Sources::One(0)];
        report.add(Measured::drop("nothing blocks", "one", 1), self.flood(&one, By::Nobody)?);
        for (name, filter) in FILTERS {
            let _rules = filter.set_up(self.lab)?;
            let among = match filter {
                Filter::Fail2ban(count) => count,
                _ => netfilter::BLOCKED,
            };
            for sources in [Sources::One(0), Sources::Random(among)] {
                let rate =
                    self.flood(&[sources], By::Netfilter).with_context(|| format!("{name}, {sources:?}"))?;
                report.add(Measured::drop(name, kind(sources), 1), rate);
            }
        }
        Ok(())
    }

    /// What it costs that two CPUs count, in the same entry and in different ones.
    fn senders(&self, report: &mut Report) -> Result<()> {
        if self.lab.cpus() < 2 {
            say("left out: two senders, there is one CPU");
            return Ok(());
        }
        let cases = [
            ("same", [Sources::One(7); 2]),
            ("different", [Sources::One(7), Sources::One(500_000)]),
            ("random", [Sources::Random(MILLION); 2]),
        ];
        let million = self.instances.iter().find(|(_, content, _)| *content == Content::Blocks(MILLION));
        let (name, _, instance) = million.context("no instance with a million blocks")?;
        for (kind, senders) in cases {
            let limit = self.attach(&self.drop)?;
            report.add(Measured::limit(kind, 2), self.flood(&senders, By::Xdp)?);
            drop(limit);
            let _attached = self.attach(&instance.program)?;
            report.add(Measured::drop(name, kind, 2), self.flood(&senders, By::Xdp)?);
        }
        Ok(())
    }

    fn clean(&self, report: &mut Report, repeat: u32) -> Result<()> {
        for family in [Family::V4, Family::V6] {
            let base = clean::nanoseconds(&self.pass, family, repeat)?;
            report.add(Measured::clean("bare XDP_PASS", family.name()), base);
            for (name, content, instance) in &self.instances {
                if let Content::Blocks(_) | Content::Prefixes(_) = content {
                    let took = clean::nanoseconds(&instance.program, family, repeat)?;
                    report.add(Measured::clean(name, family.name()), took);
                }
            }
        }
        Ok(())
    }

    fn tcp(&self, report: &mut Report, duration: Duration) -> Result<()> {
        report.add(Measured::tcp("without XDP"), clean::throughput(self.lab, duration)?);
        let attached = self.attach(&self.pass)?;
        report.add(Measured::tcp("bare XDP_PASS"), clean::throughput(self.lab, duration)?);
        drop(attached);
        for (name, content, instance) in &self.instances {
            if *content == Content::Blocks(MILLION) {
                let _attached = self.attach(&instance.program)?;
                report.add(Measured::tcp(name), clean::throughput(self.lab, duration)?);
            }
        }
        Ok(())
    }

    fn attach(&self, program: &OwnedFd) -> Result<OwnedFd> {
        sys::attach(program, self.interface).context("attach a program")
    }

    /// The rate at which the frames of a flood were dropped; an error where they were not.
    fn flood(&self, senders: &[Sources], by: By) -> Result<f64> {
        // To warm up, and to find out how many frames last long enough.
        let trial = self.lab.flood(senders, 100_000)?.rate;
        let each = trial * self.seconds / senders.len() as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some millions")]
        let flood = self.lab.flood(senders, each.max(50_000.0) as u32)?;
        let arrived = flood.arrived;
        let few = arrived / 100;
        let passed = arrived.saturating_sub(flood.dropped_by_xdp);
        let delivered = flood.delivered;
        match by {
            By::Xdp => ensure!(passed <= few / 10, "of {arrived} frames {passed} were not dropped"),
            By::Throttle => ensure!(passed <= arrived / 2, "of {arrived} frames {passed} were not dropped"),
            By::Netfilter => ensure!(delivered <= few, "of {arrived} frames {delivered} were not dropped"),
            By::Nobody => {
                ensure!(delivered >= few, "of {arrived} frames that nobody blocks only {delivered} came up")
            }
        }
        Ok(flood.rate)
    }
}

fn kind(sources: Sources) -> &'static str {
    match sources {
        Sources::One(_) => "one",
        Sources::Random(_) => "random",
    }
}
