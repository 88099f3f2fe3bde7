//! The guarded host's view of the file system: its own `/dev/log`, `/run`, `/var/log`, `/var/lib`, accounts, name server and bpffs, on
//! top of the real machine's.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::client;
use crate::namespace::Namespace;
use crate::network::NAME_SERVER;
use crate::syslog::Syslog;

/// Makes the mount namespace of the host; `dir` is the lab's directory, seen from inside and outside under the same name.
/// Returns the socket that stands at `/dev/log`, too.
pub(crate) fn new(network: &Namespace, dir: &Path) -> Result<(Namespace, UnixDatagram)> {
    for name in ["dev", "log", "lib", "etc"] {
        create_dir(&dir.join(name))?;
    }
    Namespace::mounts(network, || arrange(dir)).context("set up the lab's file system")
}

fn arrange(dir: &Path) -> Result<UnixDatagram> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount::<str, str, str, str>(None, "/", None, private, None).context("make the mounts private")?;

    // The interfaces that stand below /sys are those of the namespace it was mounted in.
    fresh("sysfs", Path::new("/sys"))?;
    fresh("bpf", Path::new("/sys/fs/bpf"))?;
    fresh("tmpfs", Path::new("/run"))?;
    // Debian's sshd empties itself into this directory, which systemd or its init script would have made.
    create_dir(Path::new("/run/sshd"))?;
    bind(&dir.join("log"), Path::new("/var/log"))?;
    bind(&dir.join("lib"), Path::new("/var/lib"))?;
    accounts(&dir.join("etc"))?;
    resolver(&dir.join("etc"))?;
    if Path::new("/etc/xdpban").exists() {
        // The machine's own configuration is none of the lab's.
        fresh("tmpfs", Path::new("/etc/xdpban"))?;
    }
    devices(&dir.join("dev"))
}

/// The accounts of the machine, and those that the lab's clients log in to.
fn accounts(dir: &Path) -> Result<()> {
    for (name, further, mode) in [("passwd", client::passwd(), 0o644), ("shadow", client::shadow(), 0o600)] {
        let real = Path::new("/etc").join(name);
        let text = fs::read_to_string(&real).with_context(|| format!("read {}", real.display()))?;
        let ours = dir.join(name);
        fs::write(&ours, format!("{}\n{further}", text.trim_end()))
            .and_then(|()| fs::set_permissions(&ours, Permissions::from_mode(mode)))
            .with_context(|| format!("write {}", ours.display()))?;
        bind(&ours, &real)?;
    }
    Ok(())
}

/// A name server in the lab's network, in the place of the machine's.
fn resolver(dir: &Path) -> Result<()> {
    let ours = dir.join("resolv.conf");
    fs::write(&ours, format!("nameserver {NAME_SERVER}\n"))
        .with_context(|| format!("write {}", ours.display()))?;
    let real = Path::new("/etc/resolv.conf");
    // systemd-resolved's stands below /run, which is the lab's own and empty.
    if let Ok(link) = fs::read_link(real)
        && !real.exists()
    {
        let place = Path::new("/etc").join(link);
        let parent = place.parent().unwrap_or(Path::new("/run"));
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        File::create(&place).with_context(|| format!("create {}", place.display()))?;
    }
    bind(&ours, real)
}

/// A `/dev` with what sshd and its sessions use, and a socket at `/dev/log`.
fn devices(dev: &Path) -> Result<UnixDatagram> {
    fresh("tmpfs", dev)?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let place = dev.join(name);
        File::create(&place).with_context(|| format!("create {}", place.display()))?;
        bind(&Path::new("/dev").join(name), &place)?;
    }
    create_dir(&dev.join("pts"))?;
    bind(Path::new("/dev/pts"), &dev.join("pts"))?;
    for (name, target) in [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd")] {
        symlink(target, dev.join(name)).with_context(|| format!("link {name} in {}", dev.display()))?;
    }
    let socket = Syslog::bind(&dev.join("log"))?;
    let with_all_below = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount::<Path, str, str, str>(Some(dev), "/dev", None, with_all_below, None).context("mount /dev")?;
    Ok(socket)
}

fn fresh(kind: &str, place: &Path) -> Result<()> {
    mount::<str, Path, str, str>(Some(kind), place, Some(kind), MsFlags::empty(), None)
        .with_context(|| format!("mount a {kind} at {}", place.display()))
}

fn bind(what: &Path, place: &Path) -> Result<()> {
    mount::<Path, Path, str, str>(Some(what), place, None, MsFlags::MS_BIND, None)
        .with_context(|| format!("mount {} at {}", what.display(), place.display()))
}

fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .with_context(|| format!("create {}", path.display()))
}
