//! Packages of Debian and Ubuntu: installed when we are root, named in one command when not.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::root::is_root;
use crate::step::{say, step};
use crate::{process, toolchain};

/// Whether the host has apt.
pub(crate) fn present() -> bool {
    process::find("apt-get").is_some()
}

/// The command with which an operator installs `packages`.
pub(crate) fn command(packages: &[&str]) -> String {
    let install = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if is_root() {
        format!("apt-get update && {install}")
    } else {
        format!("sudo apt-get update && sudo {install}")
    }
}

/// Installs `packages`, starting none of the services in them.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if !is_root() {
        bail!("run: {}", command(packages));
    }
    step(&format!("installing {}", packages.join(" ")), || {
        let _quiet = ServicesStay::new()?;
        let arguments = ["install", "--yes", "--no-install-recommends"];
        if process::run(apt_get().args(arguments).args(packages)).is_err() {
            // Lists that are missing or out of date are the common cause.
            update()?;
            process::run(apt_get().args(arguments).args(packages))?;
        }
        Ok(())
    })
}

/// Fetches the package lists.
pub(crate) fn update() -> Result<()> {
    process::run(apt_get().args(["update", "--quiet"]))
}

/// The version of Rust that `package` would bring.
pub(crate) fn rust_version(package: &str) -> Option<toolchain::Release> {
    let policy =
        process::output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C")).ok()?;
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    candidate.parse().ok()
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=120"]);
    // An upgraded dependency must not ask which of two configuration files to keep.
    command.args(["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]);
    command
}

/// While it lives, packages do not start their services: a host that is to run the tests did not ask for an open sshd.
/// Debian's maintainer scripts ask `/usr/sbin/policy-rc.d`, where it exists, and take 101 for no (invoke-rc.d(8)).
struct ServicesStay {
    ours: bool,
}

impl ServicesStay {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn new() -> Result<ServicesStay> {
        let mut file: File = match OpenOptions::new().write(true).create_new(true).open(Self::POLICY) {
            Ok(file) => file,
            // The administrator's own policy holds.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Ok(ServicesStay { ours: false });
            }
            Err(error) => return Err(error).with_context(|| format!("create {}", Self::POLICY)),
        };
        let guard = ServicesStay { ours: true };
        file.write_all(b"#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(Self::POLICY, Permissions::from_mode(0o755)))
            .with_context(|| format!("write {}", Self::POLICY))?;
        Ok(guard)
    }
}

impl Drop for ServicesStay {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(Self::POLICY)
        {
            say(format_args!("remove {} by hand, it keeps services from starting: {error}", Self::POLICY));
        }
    }
}

/// Keeps a service that we installed for its program alone from starting with the host.
pub(crate) fn disable(units: &[&str]) -> Result<()> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    say(format_args!("{}: installed for the tests, so it is not to start by itself", units.join(", ")));
    process::run(Command::new("systemctl").arg("disable").args(units))
}
