//! The gate in the kernel: every test here needs root and has namespaces of its own, so that nothing of it is seen
//! outside and nothing stays behind, even if it is killed.

mod attaching;
mod fixtures;
mod frame;
mod pinning;
mod programs;
mod property;
mod random;
mod rates;
mod reference;
mod tables;
mod verdicts;
mod verifier;

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use aya::util::KernelVersion;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use xdpban_engine::measure::Measure;
use xdpban_engine::time::Mono;

use super::*;
use crate::clock;

/// Whether the kernel hands programs packets in several buffers.
fn has_frags() -> bool {
    KernelVersion::current().unwrap() >= KernelVersion::new(5, 18, 0)
}

/// The programs of XDP that judge the packets of an interface and that this kernel can have.
fn xdp_entries() -> &'static [&'static str] {
    if has_frags() { &[program::XDP, program::XDP_FRAGS] } else { &[program::XDP] }
}

/// A network namespace, and a mount namespace with a bpffs in it.
struct Lab {
    directory: tempfile::TempDir,
}

/// Runs a test in a lab of its own, on a thread whose namespaces end with it.
fn in_lab<T: Send + 'static>(test: impl FnOnce(&Lab) -> T + Send + 'static) -> T {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test loads BPF programs and makes network namespaces, for which it needs root: run it with sudo"
    );
    let lab = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("namespaces");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("a private mount namespace");
        let directory = tempfile::tempdir().expect("a temporary directory");
        mount(Some("bpf"), directory.path(), Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpffs");
        test(&Lab { directory })
    });
    lab.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs a test with the one gate that all such tests share, since the verifier takes a while for each (minutes, where the
/// kernel is emulated). Nothing is blocked or allowed in it.
fn with_gate(test: impl FnOnce(&mut Gate)) {
    static GATE: Mutex<Option<Gate>> = Mutex::new(None);
    let mut shared = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    // A test that fails leaves none.
    let mut gate = shared.take().unwrap_or_else(|| in_lab(Lab::open));
    clear(&mut gate);
    test(&mut gate);
    *shared = Some(gate);
}

/// Takes out whatever is blocked or allowed, and has the gate enforce.
fn clear(gate: &mut Gate) {
    let targets: Vec<_> = gate.entries().map(|(target, _)| target).collect();
    gate.remove(&targets);
    gate.set_allow(&[]).unwrap();
    gate.set_dry_run(false);
}

impl Drop for Lab {
    /// Lets the directory be removed also when a test has failed.
    fn drop(&mut self) {
        umount2(self.bpffs(), MntFlags::MNT_DETACH).expect("unmounting");
    }
}

impl Lab {
    fn bpffs(&self) -> &Path {
        self.directory.path()
    }

    fn pins(&self) -> PathBuf {
        self.bpffs().join("xdpban")
    }

    fn options(&self) -> Options {
        Options { pins: self.pins(), blocks: 1024, prefixes: 64, dry_run: false, trace_packets: false }
    }

    fn open(&self) -> Gate {
        Gate::open(&self.options()).unwrap()
    }

    /// A pair of virtual interfaces, both up.
    fn veth(&self, one: &str, other: &str) {
        run("ip", &["link", "add", one, "type", "veth", "peer", "name", other]);
        run("ip", &["link", "set", one, "up"]);
        run("ip", &["link", "set", other, "up"]);
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn in_an_hour() -> Option<Mono> {
    Some(clock::now().mono.after(Duration::from_secs(3600)))
}

/// Puts entries in that drop everything, for all of which there must be room.
fn insert(gate: &mut Gate, entries: &[(Target, Option<Mono>)]) {
    assert_eq!(left_out(gate, &insertions(entries)), [0usize; 0]);
}

/// Puts blocks in, and returns the places of those for which there is no room.
fn left_out(gate: &mut Gate, insertions: &[Insertion]) -> Vec<usize> {
    let place = |(place, why)| match why {
        NotTaken::Full => place,
        other => panic!("{other:?}"),
    };
    gate.insert(insertions).into_iter().map(place).collect()
}

fn insertions(entries: &[(Target, Option<Mono>)]) -> Vec<Insertion> {
    let insertion = |&(target, expires)| Insertion { target, expires, measure: Measure::default() };
    entries.iter().map(insertion).collect()
}

/// Blocks each target for an hour.
fn block(gate: &mut Gate, targets: &[&str]) {
    let entries: Vec<_> = targets.iter().map(|text| (target(text), in_an_hour())).collect();
    insert(gate, &entries);
}

/// Every entry, in the order of the targets.
fn entries(gate: &Gate) -> Vec<(Target, Entry)> {
    let mut entries: Vec<_> = gate.entries().collect();
    entries.sort_by_key(|(target, _)| *target);
    entries
}
