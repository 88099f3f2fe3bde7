//! The real sshd of the guarded host.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::log_file::LogFile;
use crate::namespace::Namespace;
use crate::process::{find, inside, run};

/// sshd, listening on port 22 of every address of the host. It logs through syslog.
#[derive(Debug)]
pub(crate) struct Sshd {
    child: Child,
}

impl Sshd {
    /// Makes keys and a configuration in `dir` and starts sshd with them. Lines of `further` come first, and so
    /// prevail. `log` is where its syslog messages arrive.
    pub(crate) fn start(
        network: &Namespace,
        mounts: &Namespace,
        dir: &Path,
        log: &LogFile,
        further: &str,
    ) -> Result<Sshd> {
        let program = find("sshd")?;
        key(&dir.join("host_key"))?;
        key(&dir.join("client_key"))?;
        fs::copy(dir.join("client_key.pub"), dir.join("authorized_keys"))
            .context("authorise the client's key")?;
        let config = config(&program, network, mounts, dir, further)?;

        let mut command = inside(network, Some(mounts), &program);
        command.arg("-D").arg("-f").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut sshd = Sshd { child: command.spawn().context("start sshd")? };
        sshd.wait_until_it_listens(log)?;
        Ok(sshd)
    }

    /// Its own word for it is awaited, since a connection to find out would be one more thing in the log.
    fn wait_until_it_listens(&mut self, log: &LogFile) -> Result<()> {
        let start = Instant::now();
        while log.text()?.matches("Server listening on ").count() < 2 {
            if let Some(status) = self.child.try_wait().context("look at sshd")? {
                bail!("sshd ended at once: {status}\n{}", log.text()?);
            }
            if start.elapsed() > Duration::from_secs(10) {
                bail!("sshd does not listen after 10 s\n{}", log.text()?);
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Sshd {
    #[allow(clippy::print_stderr, reason = "a destructor has no other way to tell")]
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the lab's sshd could not be ended: {error}");
        }
    }
}

fn key(file: &Path) -> Result<()> {
    let mut keygen = Command::new(find("ssh-keygen")?);
    run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(file)).map(drop)
}

fn config(
    program: &Path,
    network: &Namespace,
    mounts: &Namespace,
    dir: &Path,
    further: &str,
) -> Result<PathBuf> {
    let mut text = format!("{further}\n");
    writeln!(text, "HostKey {}", dir.join("host_key").display())?;
    writeln!(text, "AuthorizedKeysFile {}", dir.join("authorized_keys").display())?;
    text += "ListenAddress 0.0.0.0\n\
             ListenAddress ::\n\
             PidFile none\n\
             StrictModes no\n\
             UsePAM no\n\
             UseDNS no\n\
             PermitRootLogin prohibit-password\n\
             PasswordAuthentication yes\n\
             KbdInteractiveAuthentication no\n\
             PrintMotd no\n\
             PrintLastLog no\n\
             MaxStartups 500\n\
             LoginGraceTime 30\n";
    let file = dir.join("sshd_config");
    // sshd 9.8 and newer would turn sources away by themselves; older ones do not know the word.
    for penalties in ["PerSourcePenalties no\n", ""] {
        fs::write(&file, format!("{text}{penalties}"))
            .with_context(|| format!("write {}", file.display()))?;
        let mut test = inside(network, Some(mounts), program);
        match run(test.arg("-t").arg("-f").arg(&file)) {
            Ok(_) => return Ok(file),
            Err(error) if penalties.is_empty() => return Err(error.context("sshd refuses its configuration")),
            Err(_) => {}
        }
    }
    Ok(file)
}
