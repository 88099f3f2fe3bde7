//! One run of a command, as a process apart: its own user, session, environment and time limit.
#![allow(unsafe_code, reason = "what the child does before it becomes the command")]

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, User, getgrouplist, setgid, setgroups, setsid, setuid};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;

use super::cut::Cut;
use super::output::Output;
use crate::store::Exit;

/// Between asking a command to end and killing it, and for how long one is waited for that is about to start.
const GRACE: Duration = Duration::from_secs(2);

/// What is read at once.
const BUFFER: usize = 16 * 1024;

/// What to run.
pub(super) struct Job {
    /// The program by its absolute path, and its arguments.
    pub(super) argv: Vec<OsString>,
    /// The account that it runs as.
    pub(super) user: String,
    /// Its environment, beside `PATH`.
    pub(super) environment: Vec<(String, String)>,
    /// What it reads on stdin.
    pub(super) input: Vec<u8>,
    pub(super) time_limit: Duration,
}

/// What came of it.
pub(super) struct Ended {
    pub(super) exit: Exit,
    pub(super) output: String,
    pub(super) took: Duration,
}

/// Runs a command to its end, which comes soon after its time limit or `cut` at the latest: whatever it leaves running in its
/// process group is killed.
pub(super) async fn run(job: Job, cut: &Cut) -> Ended {
    let start = Instant::now();
    let mut output = Output::default();
    let exit = match attend(job, cut, &mut output).await {
        Ok(exit) => exit,
        Err(error) => Exit::NotRun(error),
    };
    Ended { exit, output: output.text(), took: start.elapsed() }
}

async fn attend(job: Job, cut: &Cut, output: &mut Output) -> Result<Exit, String> {
    let (time_limit, input) = (job.time_limit, job.input.clone());
    let too_late = async {
        cut.comes().await;
        tokio::time::sleep(GRACE).await;
    };
    // Looking up an account may ask a directory on the network, and starting a program may wait for a file system.
    let spawned = tokio::select! {
        spawned = spawn_blocking(move || spawn(&job)) => spawned.map_err(|error| error.to_string())?,
        () = too_late => return Ok(Exit::CutOff),
    };
    let (mut child, pipe) = spawned?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let pipe = pipe::Receiver::from_owned_fd(pipe).map_err(|error| error.to_string())?;
    let stdin = child.stdin.take();

    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it is told.
            stdin.write_all(&input).await.ok();
        }
    };
    let read = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            if pipe.readable().await.is_err() {
                return;
            }
            match pipe.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => output.add(buffer.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let talk = async {
        tokio::join!(feed, read);
        std::future::pending::<Infallible>().await
    };
    tokio::pin!(talk);
    let status = tokio::select! {
        status = child.wait() => Ok(status),
        () = tokio::time::sleep(time_limit) => Err(Exit::TimedOut),
        () = cut.comes() => Err(Exit::CutOff),
        never = &mut talk => match never {},
    };
    let mut gone = true;
    let exit = match status {
        Ok(status) => status.map(exit_of).map_err(|error| error.to_string()),
        Err(ended) => {
            signal(group, Signal::SIGTERM);
            gone = tokio::select! {
                _ = child.wait() => true,
                () = tokio::time::sleep(GRACE) => false,
                never = &mut talk => match never {},
            };
            Ok(ended)
        }
    };
    // Its children that stayed in its group end with it.
    signal(group, Signal::SIGKILL);
    if !gone {
        tokio::select! {
            status = child.wait() => drop(status.map_err(|error| error.to_string())?),
            // One that waits for a broken disk cannot be killed, and must not keep the controller from stopping.
            () = cut.comes() => {}
        }
    }
    // What it wrote last may not have been read.
    tokio::time::timeout(Duration::from_millis(10), &mut talk).await.ok();
    exit
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // There is nobody left in it, as a rule.
        killpg(group, signal).ok();
    }
}

/// Starts the command; returns what it writes, too.
fn spawn(job: &Job) -> Result<(Child, OwnedFd), String> {
    let Some((program, arguments)) = job.argv.split_first() else { return Err("it is empty".to_owned()) };
    let account = Account::of(&job.user)?;
    let pipe = |error: io::Error| format!("a pipe cannot be made: {error}");
    let (reader, writer) = io::pipe().map_err(pipe)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").env_clear().env("PATH", PATH);
    command.envs(job.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(writer.try_clone().map_err(pipe)?).stderr(writer);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. What is called here are bare system calls
    // that allocate nothing; the list of groups was made before.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            umask(Mode::from_bits_truncate(0o077));
            account.take_on()?;
            keep_standard_descriptors()
        });
    }
    let child = command.spawn().map_err(|error| {
        format!("{} as {} cannot be started: {error}", program.to_string_lossy(), job.user)
    })?;
    Ok((child, reader.into()))
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Has everything but stdin, stdout and stderr closed when the command begins.
fn keep_standard_descriptors() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: close_range(2) takes no pointers.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // Before Linux 5.11 there is no such flag; the descriptors that are opened here have the mark anyway.
    match (result, io::Error::last_os_error().raw_os_error()) {
        (-1, Some(libc::EINVAL | libc::ENOSYS)) | (0, _) => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whom a command runs as.
struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Account {
    fn of(name: &str) -> Result<Account, String> {
        let user =
            User::from_name(name).map_err(|error| format!("the user {name} cannot be looked up: {error}"))?;
        let user = user.ok_or_else(|| format!("there is no user {name}"))?;
        let c_name = CString::new(name).map_err(|error| error.to_string())?;
        let groups = getgrouplist(&c_name, user.gid)
            .map_err(|error| format!("the groups of {name} cannot be looked up: {error}"))?;
        Ok(Account { uid: user.uid, gid: user.gid, groups })
    }

    fn take_on(&self) -> io::Result<()> {
        setgroups(&self.groups)?;
        setgid(self.gid)?;
        setuid(self.uid)?;
        Ok(())
    }
}
