//! The programs that the tests need beside Rust, and the Debian packages that have them.

use anyhow::{Result, bail};

use crate::{apt, process};

const PROGRAMS: &[(&str, &str)] = &[
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("curl", "curl"),
    ("journalctl", "systemd"),
    ("logger", "bsdutils"),
    ("mount", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("sqlite3", "sqlite3"),
    ("rsyslogd", "rsyslog"),
];

/// Sees that every program is there: by apt where that can be, else it names what is missing.
pub(crate) fn ensure() -> Result<()> {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| process::find(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ");
    if !apt::present() {
        bail!("the tests need programs that are not here: {names}");
    }
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    if let Err(error) = apt::install(&packages) {
        bail!("the tests need programs that are not here: {names}; {error:#}");
    }
    // Debian names the units ssh, and pulls in the socket with the service.
    for (package, units) in
        [("openssh-server", &["ssh.service", "ssh.socket"][..]), ("rsyslog", &["rsyslog.service"][..])]
    {
        if packages.contains(&package) {
            apt::disable(units)?;
        }
    }
    Ok(())
}

/// The programs, for a person.
pub(crate) fn names() -> String {
    PROGRAMS.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ")
}
