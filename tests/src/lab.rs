//! The lab as tests and the demonstration use it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Attempt, Client, Login, Outcome, Session, USERS};
use crate::controller::{self, CliOutput, Controller};
use crate::log_file::LogFile;
use crate::namespace::Namespace;
use crate::network::{Network, Side};
use crate::sshd::Sshd;
use crate::syslog::Syslog;
use crate::traffic::{self, Stream};
use crate::{host, process};

/// sshd on the host, and who logs in to it.
#[derive(Debug)]
struct Ssh {
    client: Client,
    _server: Sshd,
}

/// A guarded host with a real sshd, an attacker and a bystander. Several can stand side by side; dropping one ends every process in it
/// and takes everything away.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order.
    ssh: Option<Ssh>,
    _syslog: Syslog,
    log: Arc<LogFile>,
    mounts: Namespace,
    network: Network,
    dir: TempDir,
}

impl Lab {
    /// Sets one up, in a few tenths of a second. Needs root, sshd, ssh and iproute2, and says which it lacks.
    pub fn new() -> Result<Lab> {
        Lab::with_sshd("")
    }

    /// As [`Lab::new`], with these further lines of sshd_config(5), which prevail over the lab's.
    pub fn with_sshd(lines: &str) -> Result<Lab> {
        let mut lab = Lab::without_sshd()?;
        let dir = lab.dir.path();
        let client = Client::new(dir)?;
        let server = Sshd::start(lab.network.of(Side::Host), &lab.mounts, dir, &lab.log, lines)?;
        lab.ssh = Some(Ssh { client, _server: server });
        Ok(lab)
    }

    /// As [`Lab::new`], for a machine that has no sshd and no ssh: nobody logs in, and what sshd would say is put into its log.
    pub fn without_sshd() -> Result<Lab> {
        ensure!(geteuid().is_root(), "the lab needs root (network namespaces, BPF): run `cargo xtask test`");
        let dir = tempfile::Builder::new()
            .prefix("xdpban-lab-")
            .tempdir()
            .context("make a directory for the lab")?;
        // Users that log in read files below it.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).context("open the lab's directory")?;
        let rules = dir.path().join("rules.d");
        fs::create_dir(&rules).with_context(|| format!("create {}", rules.display()))?;
        let network = Network::new()?;
        let (mounts, socket) = host::new(network.of(Side::Host), dir.path())?;
        let log = Arc::new(LogFile::create(dir.path().join("log/auth.log"))?);
        let syslog = Syslog::start(socket, Arc::clone(&log))?;
        Ok(Lab { ssh: None, _syslog: syslog, log, mounts, network, dir })
    }

    /// The lab's directory; it has the same name inside the host and outside.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// sshd's log, which the host sees as `/var/log/auth.log`, too.
    pub fn log(&self) -> &LogFile {
        &self.log
    }

    /// Gives a side a further address, unless it has it, within 10.99.0.0/16 or 2001:db8:99::/48.
    pub fn add_address(&self, side: Side, address: IpAddr) -> Result<()> {
        self.network.add_address(side, address)
    }

    /// Runs `work` on a thread in the network of `side`. Sockets that it makes stay there.
    pub fn within<T: Send>(&self, side: Side, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.network.of(side).within(work)
    }

    /// A program, to be started in the place of `side`; on the host it sees the host's files.
    pub fn command(&self, side: Side, program: impl AsRef<Path>) -> Command {
        let mounts = (side == Side::Host).then_some(&self.mounts);
        process::inside(self.network.of(side), mounts, program.as_ref())
    }

    /// Runs a script of sh(1) on the host; returns what it printed. An error unless it succeeds.
    pub fn sh(&self, script: &str) -> Result<String> {
        let mut command = self.command(Side::Host, "/bin/sh");
        let output = process::run(command.args(["-c", script]))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    // Clients.

    /// Logs in from `from`, an address of `side`, as `user`.
    pub fn login(&self, side: Side, from: IpAddr, user: &str, login: &Login<'_>) -> Result<Outcome> {
        self.start_login(side, from, user, login)?.outcome()
    }

    /// As [`Lab::login`], and does not wait for the end.
    pub fn start_login(&self, side: Side, from: IpAddr, user: &str, login: &Login<'_>) -> Result<Attempt> {
        self.client()?.start(self.network.of(side), from, Side::Host.beside(from), user, login)
    }

    /// The attacker tries a wrong password as `user`, once, over IPv4.
    pub fn fail_login(&self, user: &str) -> Result<Outcome> {
        self.login(Side::Attacker, Side::Attacker.v4(), user, &Login::Password("wrong"))
    }

    /// The attacker tries to log in from `from`, which becomes an address of theirs if it is none, as a user that does not exist. Returns
    /// when sshd has logged it; the client is killed then, since a blocked one would wait for long.
    pub fn attack(&self, from: IpAddr) -> Result<()> {
        self.attack_as("admin", from)
    }

    /// As [`Lab::attack`], as the user `user`, whom sshd's log names as `user`.
    pub fn attack_as(&self, user: &str, from: IpAddr) -> Result<()> {
        if ![Side::Attacker.v4(), Side::Attacker.v6()].contains(&from) {
            self.add_address(Side::Attacker, from)?;
        }
        let logged = format!("Invalid user {user} from {from} port ");
        let times = |lab: &Lab| Ok::<_, anyhow::Error>(lab.log.text()?.matches(&logged).count());
        let before = times(self)?;
        let _attempt = self.start_login(Side::Attacker, from, user, &Login::Password("wrong"))?;
        self.eventually(&format!("sshd logs `{logged}`"), Duration::from_secs(5), |lab| {
            Ok(times(lab)? > before)
        })
    }

    /// Whether `side` can log in over IPv4, by its key.
    pub fn login_ok(&self, side: Side) -> Result<bool> {
        self.login_ok_from(side, side.v4())
    }

    /// Whether `side` can log in from `from`, by its key.
    pub fn login_ok_from(&self, side: Side, from: IpAddr) -> Result<bool> {
        Ok(self.login(side, from, USERS[0], &Login::Key)? == Outcome::Accepted)
    }

    /// Opens a session from `from` by key.
    pub fn open_session(&self, side: Side, from: IpAddr) -> Result<Session> {
        self.client()?.session(self.network.of(side), from, Side::Host.beside(from), USERS[0])
    }

    fn client(&self) -> Result<&Client> {
        Ok(&self.ssh.as_ref().context("the lab was set up without sshd")?.client)
    }

    /// Whether a TCP connection from `from` to the host's `port` comes about within a second.
    pub fn tcp_connect(&self, side: Side, from: IpAddr, port: u16) -> Result<bool> {
        let to = (Side::Host.beside(from), port).into();
        self.within(side, || traffic::tcp_connect(from, to))
    }

    // Packets.

    /// A stream of datagrams from `from`, an address of `side`, to the host, one each `interval` (100 µs at least).
    pub fn stream(&self, side: Side, from: IpAddr, interval: Duration) -> Result<Stream> {
        Stream::start((self.network.of(side), from), self.receiver(from), interval)
    }

    /// Packets to the host that the lab itself has dropped so far, for want of a processor: none of them has met the gate's verdict.
    pub fn dropped_by_itself(&self) -> Result<u64> {
        self.network.dropped_by_itself()
    }

    /// Sends `count` datagrams from `from` to the host as fast as can be; returns how many arrived.
    pub fn flood(&self, side: Side, from: IpAddr, count: u64) -> Result<u64> {
        traffic::flood((self.network.of(side), from), self.receiver(from), count)
    }

    fn receiver(&self, from: IpAddr) -> (&Namespace, IpAddr) {
        (self.network.of(Side::Host), Side::Host.beside(from))
    }

    // xdpban.

    /// A configuration with the lab's interface, paths and log. It ends within a `[[source]]`: put top-level keys before it, tables
    /// behind it.
    pub fn config(&self) -> String {
        self.config_with_source("file", self.log.path())
    }

    /// [`Lab::config`], with another source in the place of the lab's log.
    pub fn config_with_source(&self, kind: &str, path: &Path) -> String {
        let dir = self.dir().display();
        format!(
            "interfaces = [\"eth0\"]\n\n\
             [paths]\n\
             state = \"{dir}/state\"\n\
             runtime = \"{dir}/runtime\"\n\
             pins = \"/sys/fs/bpf/xdpban\"\n\
             rules = \"{dir}/rules.d\"\n\n\
             [[source]]\n\
             kind = \"{kind}\"\n\
             path = \"{}\"\n\n",
            path.display()
        )
    }

    /// [`Lab::config`], with a response: logins as a user that does not exist are blocked for `timeout`. It ends within that response.
    pub fn config_with_timeout(&self, timeout: &str) -> String {
        let response = format!("[[response]]\nrules = [5710]\naction = \"block\"\ntimeout = \"{timeout}\"\n");
        self.config() + &response
    }

    /// Where [`Lab::xdpban`] and the controller read their configuration.
    pub fn config_file(&self) -> PathBuf {
        self.dir().join("config.toml")
    }

    /// Writes the configuration file, whole or not at all.
    pub fn write_config(&self, text: &str) -> Result<()> {
        let half = self.config_file().with_extension("new");
        fs::write(&half, text).with_context(|| format!("write {}", half.display()))?;
        fs::rename(&half, self.config_file()).with_context(|| format!("rename {}", half.display()))
    }

    /// Writes the configuration and starts `xdpban run` with it on the host; returns when `xdpban status` succeeds. Call it on the
    /// thread that the lab lives on: the controller is killed when its starter's thread ends.
    pub fn start_controller(&self, config: &str) -> Result<Controller> {
        self.write_config(config)?;
        self.start_controller_with(&["run"])
    }

    /// As [`Lab::start_controller`], with the arguments given and the configuration file as it stands, if one stands there.
    pub fn start_controller_with(&self, args: &[&str]) -> Result<Controller> {
        let mut command = self.xdpban_command()?;
        command.args(args);
        let up = || Ok(self.xdpban(&["status"])?.code() == Some(0));
        Controller::start(command, self.controller_log(), up)
    }

    /// As [`Lab::start_controller`], with another build of the binary: the one that `$XDPBAN_OTHER_BIN` names, else a copy.
    pub fn start_other_build(&self, config: &str) -> Result<Controller> {
        self.write_config(config)?;
        let mut command = self.command(Side::Host, controller::other_binary(self.dir())?);
        command.arg("--config").arg(self.config_file()).arg("run");
        let up = || Ok(self.xdpban(&["status"])?.code() == Some(0));
        Controller::start(command, self.controller_log(), up)
    }

    /// Starts `xdpban run` with the configuration file as it stands, and does not wait until it is up.
    pub fn spawn_controller(&self) -> Result<Controller> {
        let mut command = self.xdpban_command()?;
        command.arg("run");
        Controller::start(command, self.controller_log(), || Ok(true))
    }

    /// Runs `xdpban ARGS` on the host, with the lab's configuration if there is one, and with no input.
    pub fn xdpban<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<CliOutput> {
        CliOutput::of(self.xdpban_command()?, args, Stdio::null(), self.controller_log())
    }

    /// As [`Lab::xdpban`], as the user nobody.
    pub fn xdpban_as_nobody<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<CliOutput> {
        // The binary itself may stand where nobody may look.
        let binary = self.dir().join("xdpban");
        if !binary.exists() {
            fs::copy(controller::binary()?, &binary).context("copy the binary")?;
        }
        let mut command = self.command(Side::Host, process::find("setpriv")?);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(binary);
        command.arg("--config").arg(self.config_file());
        CliOutput::of(command, args, Stdio::null(), self.controller_log())
    }

    /// As [`Lab::xdpban`], with `input` on stdin.
    pub fn xdpban_with_input<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> Result<CliOutput> {
        let file = self.dir().join("input");
        fs::write(&file, input).with_context(|| format!("write {}", file.display()))?;
        let input = File::open(&file).with_context(|| format!("open {}", file.display()))?;
        CliOutput::of(self.xdpban_command()?, args, input.into(), self.controller_log())
    }

    /// What `xdpban list` prints as JSON.
    pub fn list(&self) -> Result<Vec<Value>> {
        match self.xdpban(&["--json", "list"])?.json()? {
            Value::Array(entries) => Ok(entries),
            other => bail!("the list is no array: {other}"),
        }
    }

    /// What is blocked, as `xdpban list` prints it, sorted.
    pub fn targets(&self) -> Result<Vec<String>> {
        let target = |entry: &Value| entry["target"].as_str().map(str::to_owned);
        let mut targets: Vec<String> =
            self.list()?.iter().map(target).collect::<Option<_>>().context("an entry has no target")?;
        targets.sort();
        Ok(targets)
    }

    /// What `xdpban list` says of `target`, an address or a prefix as it prints them.
    pub fn entry(&self, target: &str) -> Result<Option<Value>> {
        Ok(self.list()?.into_iter().find(|entry| entry["target"] == target))
    }

    /// What `xdpban show` says of `address` as JSON.
    pub fn show(&self, address: &str) -> Result<Value> {
        self.xdpban(&["--json", "show", address])?.json()
    }

    /// What `xdpban status` says as JSON.
    pub fn status(&self) -> Result<Value> {
        self.xdpban(&["--json", "status"])?.json()
    }

    /// What the controller says is not well, one thing a line.
    pub fn health(&self) -> Result<String> {
        let status = self.status()?;
        let troubles = status["health"].as_array().context("status has no health")?;
        Ok(troubles.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
    }

    /// Waits, five seconds at most, until `target` is on the list; returns what it says.
    pub fn blocked(&self, target: &str) -> Result<Value> {
        let mut found = None;
        self.eventually(&format!("{target} is blocked"), Duration::from_secs(5), |lab| {
            found = lab.entry(target)?;
            Ok(found.is_some())
        })?;
        found.context("no entry")
    }

    /// Waits, five seconds at most, until the controller has read the log to its end.
    pub fn has_read_the_log(&self) -> Result<()> {
        self.eventually("the log is read to its end", Duration::from_secs(5), |lab| {
            let size = fs::metadata(lab.log.path()).context("look at the log")?.len();
            Ok(lab.status()?["sources"][0]["position"].as_str() == Some(size.to_string().as_str()))
        })
    }

    fn controller_log(&self) -> PathBuf {
        self.dir().join("controller.log")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("runtime/control.sock")
    }

    /// The binary under test.
    pub fn xdpban_binary(&self) -> Result<PathBuf> {
        controller::binary()
    }

    /// `xdpban` with the lab's configuration, as a script on the host would begin a line with it.
    pub fn xdpban_line(&self) -> Result<String> {
        Ok(format!("'{}' --config '{}'", controller::binary()?.display(), self.config_file().display()))
    }

    fn xdpban_command(&self) -> Result<Command> {
        let mut command = self.command(Side::Host, controller::binary()?);
        if self.config_file().exists() {
            command.arg("--config").arg(self.config_file());
        }
        Ok(command)
    }

    /// Waits until `holds` says so. An error that names `what` after `limit`.
    pub fn eventually(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Lab) -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !holds(self)? {
            if start.elapsed() > limit {
                let controller = controller::said(&self.controller_log());
                let log = self.log.text()?;
                bail!("after {limit:?} still not so: {what}\n--- log\n{log}\n--- controller\n{controller}");
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends every process in the lab's networks: the sessions that sshd forked, and whatever a test left.
    fn end_processes(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let mut processes = Vec::new();
            for namespace in self.network.all() {
                processes.append(&mut namespace.processes()?);
            }
            if processes.is_empty() {
                return Ok(());
            }
            for pid in &processes {
                match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => return Err(error).with_context(|| format!("kill process {pid}")),
                }
            }
            ensure!(start.elapsed() < Duration::from_secs(5), "processes {processes:?} do not end");
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Lab {
    #[allow(clippy::print_stderr, reason = "a destructor has no other way to tell")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- controller\n{}", controller::said(&self.controller_log()));
        }
        if let Err(error) = self.end_processes() {
            eprintln!("the lab is not taken down whole: {error:#}");
        }
    }
}
