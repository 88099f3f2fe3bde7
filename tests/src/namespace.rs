//! Namespaces without names: a file descriptor holds each, and the kernel takes it back when nothing uses it any more.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

/// A network or mount namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    /// A new network namespace with its loopback down, and nothing in it.
    pub(crate) fn network() -> Result<Namespace> {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("create a network namespace")?;
            allow_ipv6()?;
            Namespace::of_this_thread("net")
        })
    }

    /// A new mount namespace, as `arrange` leaves it; `arrange` runs in it and in `network`. None of its mounts is seen
    /// outside.
    pub(crate) fn mounts<T: Send>(
        network: &Namespace,
        arrange: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(Namespace, T)> {
        in_thread(|| {
            setns(&network.file, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
            unshare(CloneFlags::CLONE_NEWNS).context("create a mount namespace")?;
            let arranged = arrange()?;
            Ok((Namespace::of_this_thread("mnt")?, arranged))
        })
    }

    /// Runs `work` in this network namespace, on a thread of its own. A socket stays in the namespace it was made in.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
            work()
        })
    }

    /// The path under which other programs find it.
    pub(crate) fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// The processes whose network is this namespace.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let this = self.file.metadata().context("look at a namespace")?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("read /proc")? {
            let entry = entry.context("read /proc")?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process that has ended by now is not there to be found.
            let Ok(its) = fs::metadata(entry.path().join("ns/net")) else { continue };
            if (its.dev(), its.ino()) == (this.dev(), this.ino()) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn of_this_thread(kind: &str) -> Result<Namespace> {
        let path = format!("/proc/thread-self/ns/{kind}");
        let file = File::open(&path).with_context(|| format!("open {path}"))?;
        Ok(Namespace { file })
    }
}

/// A namespace is entered by thread, so the caller's must not be the one.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a thread of the lab panicked"))?
}

/// Where the host turned IPv6 off, a new namespace may have it off, too.
fn allow_ipv6() -> Result<()> {
    for which in ["all", "default"] {
        let switch = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        fs::write(&switch, "0").with_context(|| format!("write {switch}: does the kernel have IPv6?"))?;
    }
    Ok(())
}
