//! One pair of interfaces: the bench itself stands in the namespace of the receiving end, which ends with the bench.
//! Nothing of it is seen on the host.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare};
use nix::unistd::Pid;
use serde_json::Value;

use super::frame;
use super::program;
use super::sys;
use crate::process;

/// The receiving end's name; the sending end is `out`, in a namespace of its own.
pub(super) const IN: &str = "in0";
const OUT: &str = "out0";

pub(super) const OUT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const IN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The addresses of the ends; those that are blocked are elsewhere.
pub(super) const OUT_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 1);
pub(super) const IN_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 2);

/// The first of the addresses that attack, and that are blocked.
pub(super) const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

/// Of the frames that were sent, so many must have come in for the rate to count.
const ARRIVED: f64 = 0.98;

/// Who the frames are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// One address: that with this number behind [`FIRST`].
    One(u32),
    /// Each from another one of so many.
    Random(u32),
}

/// What came of a flood.
pub(super) struct Flood {
    /// Frames that the receiver counted, a second.
    pub(super) rate: f64,
    /// Of these, how many XDP dropped, and how many the stack took in and handed on to TCP.
    pub(super) arrived: u64,
    pub(super) dropped_by_xdp: u64,
    pub(super) delivered: u64,
}

pub(super) struct Lab {
    sender: File,
    directory: tempfile::TempDir,
    cpus: Vec<usize>,
}

impl Lab {
    /// Takes the calling thread, and all that it starts, into the receiver's namespace.
    pub(super) fn new() -> Result<Lab> {
        let cpus = allowed_cpus()?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("create namespaces")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make the mounts our own")?;
        let directory =
            tempfile::Builder::new().prefix("xdpban-bench-").tempdir().context("make a directory")?;
        // ethtool and the controller look here for what belongs to the namespace.
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).context("mount /sys")?;
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("mount a bpffs")?;
        let sender = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("create a network namespace")?;
            File::open("/proc/thread-self/ns/net").context("open a namespace")
        })?;
        let lab = Lab { sender, directory, cpus };
        lab.wire()?;
        Ok(lab)
    }

    /// A queue for each CPU, so that senders on two of them do not wait for each other.
    fn wire(&self) -> Result<()> {
        use std::os::fd::AsRawFd;
        let queues = self.cpus.iter().max().map_or(1, |cpu| cpu + 1).to_string();
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), self.sender.as_raw_fd());
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        let (inside, outside) = (mac(IN_MAC), mac(OUT_MAC));
        ip(&format!(
            "link add {IN} address {inside} numrxqueues {queues} numtxqueues {queues} type veth \
             peer name {OUT} address {outside} numrxqueues {queues} numtxqueues {queues} netns {namespace}"
        ))?;
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0").context("allow IPv6")?;
        ip("link set lo up")?;
        ip(&format!("link set {IN} up"))?;
        ip(&format!("address add {IN_ADDRESS}/24 dev {IN}"))?;
        ip(&format!("neighbour replace {OUT_ADDRESS} lladdr {outside} dev {IN} nud permanent"))?;
        ip(&format!("route add default via {OUT_ADDRESS}"))?;
        for which in ["all", "default", IN] {
            let filter = format!("/proc/sys/net/ipv4/conf/{which}/rp_filter");
            fs::write(&filter, "0").with_context(|| format!("write {filter}"))?;
        }
        self.at_sender(|| {
            ip("link set lo up")?;
            ip(&format!("link set {OUT} up"))?;
            ip(&format!("address add {OUT_ADDRESS}/24 dev {OUT}"))?;
            ip(&format!("neighbour replace {IN_ADDRESS} lladdr {inside} dev {OUT} nud permanent"))
        })?;
        // Without it, and without XDP, frames that are redirected into the pair are dropped before they arrive.
        process::run(Command::new("ethtool").args(["-K", IN, "gro", "on"]))
    }

    /// Where files of this run go.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where the controllers' pins go: a bpffs that nobody else sees.
    pub(super) fn pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf")
    }

    /// The CPUs that there are to send from.
    pub(super) fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// Runs `work` at the sending end.
    pub(super) fn at_sender<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            setns(&self.sender, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
            work()
        })
    }

    /// Sends `count` frames from each of the given sources at once, each from a CPU of its own, after a few to warm up.
    pub(super) fn flood(&self, senders: &[Sources], count: u32) -> Result<Flood> {
        let barrier = Barrier::new(senders.len());
        let before = Counters::read();
        let start = std::time::Instant::now();
        let longest = thread::scope(|scope| {
            let threads: Vec<_> = senders
                .iter()
                .zip(&self.cpus)
                .map(|(sources, cpu)| scope.spawn(|| self.send(*sources, *cpu, count, &barrier)))
                .collect();
            let mut longest = 0f64;
            for thread in threads {
                let took = thread.join().map_err(|_| anyhow!("a sender panicked"))??;
                longest = longest.max(took);
            }
            anyhow::Ok(longest)
        })?;
        ensure!(start.elapsed().as_secs_f64() >= longest, "the clock went backwards");
        // What is still in the queues of the pair.
        thread::sleep(std::time::Duration::from_millis(20));
        let (before, after) = (before?, Counters::read()?);
        let sent = u64::from(count) * senders.len() as u64;
        let arrived = after.arrived - before.arrived;
        #[expect(clippy::cast_precision_loss, reason = "some millions")]
        let (sent, came) = (sent as f64, arrived as f64);
        ensure!(
            came >= ARRIVED * sent,
            "of {sent} frames that were sent only {came} came in: no rate can be believed"
        );
        Ok(Flood {
            rate: came.min(sent) / longest,
            arrived,
            dropped_by_xdp: after.dropped_by_xdp - before.dropped_by_xdp,
            delivered: after.delivered - before.delivered,
        })
    }

    /// Sends from `cpu`, and returns for how many seconds.
    fn send(&self, sources: Sources, cpu: usize, count: u32, barrier: &Barrier) -> Result<f64> {
        let prepared = self.prepare(sources, cpu);
        // Also when that has failed: the others wait.
        barrier.wait();
        let (program, frame) = prepared?;
        let took = sys::send(&program, &frame, count).context("send frames (the kernel can from 5.18)")?;
        Ok(took.as_secs_f64())
    }

    fn prepare(&self, sources: Sources, cpu: usize) -> Result<(std::os::fd::OwnedFd, Vec<u8>)> {
        setns(&self.sender, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
        let mut only = CpuSet::new();
        only.set(cpu).context("choose a CPU")?;
        sched_setaffinity(Pid::from_raw(0), &only).context("go to a CPU")?;
        let out = nix::net::if_::if_nametoindex(OUT).context("find the sending interface")?;
        let first = u32::from(FIRST);
        let (code, source) = match sources {
            Sources::One(number) => (program::redirect(out), first + number),
            Sources::Random(count) => {
                (program::redirect_from(out, first, count, &frame::places(IN_ADDRESS)), first)
            }
        };
        let program = sys::load(&code).context("load the generator")?;
        Ok((program, frame::syn(source.into(), IN_ADDRESS)))
    }
}

/// What the receiving end has counted so far.
struct Counters {
    arrived: u64,
    dropped_by_xdp: u64,
    delivered: u64,
}

impl Counters {
    fn read() -> Result<Counters> {
        let statistics = process::output(Command::new("ethtool").args(["-S", IN]))?;
        let total = |ending: &str| {
            let lines = statistics.lines().filter_map(|line| line.trim().split_once(": "));
            let of_queue = |name: &str| name.starts_with("rx_queue_") && name.ends_with(ending);
            lines.filter(|(name, _)| of_queue(name)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
        };
        let snmp = fs::read_to_string("/proc/thread-self/net/snmp").context("read the stack's counters")?;
        let mut ip = snmp.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (names, values) = (ip.next().unwrap_or_default(), ip.next().unwrap_or_default());
        let mut both = names.split_whitespace().zip(values.split_whitespace());
        let delivered =
            both.find(|(name, _)| *name == "InDelivers").and_then(|(_, value)| value.parse().ok());
        Ok(Counters {
            arrived: total("_xdp_packets"),
            dropped_by_xdp: total("_xdp_drops"),
            delivered: delivered.context("the stack does not say how many packets it took in")?,
        })
    }
}

/// Runs ip(8) with the words of `arguments`.
pub(super) fn ip(arguments: &str) -> Result<()> {
    process::output(Command::new("ip").args(arguments.split_whitespace())).map(drop)
}

/// The id of the XDP program on an interface.
pub(super) fn program_on(interface: &str) -> Result<u32> {
    let text = process::output(Command::new("ip").args(["-json", "link", "show", interface]))?;
    let links: Value = serde_json::from_str(&text).context("read the output of ip")?;
    let id = links[0]["xdp"]["prog"]["id"].as_u64().and_then(|id| u32::try_from(id).ok());
    id.with_context(|| format!("no XDP program is on {interface}"))
}

/// A namespace is entered by thread, so the caller's must not be the one.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a thread of the bench panicked"))?
}

/// The CPUs that we may run on.
fn allowed_cpus() -> Result<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(Pid::from_raw(0)).context("ask for the CPUs")?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}
