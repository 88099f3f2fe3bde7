//! The demonstration: the main job in a lab, told as a story. Started by `cargo xtask demo`.

#![allow(clippy::print_stdout, reason = "it prints for a person")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use xdpban_tests::{CliOutput, Controller, Lab, Login, Side};

/// For how long the demonstration blocks; by default it would be 100 seconds.
const TIMEOUT: Duration = Duration::from_secs(12);

/// The attacker's datagrams, once blocked.
const DATAGRAMS: u64 = 20_000;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let told = on_interrupt().and_then(|()| tell());
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if INTERRUPTED.load(Ordering::Relaxed) => {
            println!("\nInterrupted; everything was taken down.");
            ExitCode::from(130)
        }
        Err(error) => {
            println!("\nThe demonstration failed, and everything was taken down: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C ends the story at its next step, so that the lab is taken down as at its end.
#[expect(unsafe_code, reason = "nix has no safe way to handle a signal")]
fn on_interrupt() -> Result<()> {
    extern "C" fn note(_: i32) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler does nothing but store an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("handle {signal}"))?;
    }
    Ok(())
}

fn tell() -> Result<()> {
    chapter("A lab: three network namespaces on this machine, and nothing outside them")?;
    let lab = Lab::new()?;
    println!("  host       {}   a real sshd, guarded by xdpban", Side::Host.v4());
    println!("  attacker   {}", Side::Attacker.v4());
    println!("  bystander  {}", Side::Bystander.v4());

    chapter("xdpban starts (blocks last 12 s here; by default 100 s)")?;
    let config = format!(
        "{}[[response]]\nrules = [5710]\naction = \"block\"\ntimeout = \"{}s\"\n",
        lab.config(),
        TIMEOUT.as_secs()
    );
    let controller = lab.start_controller(&config)?;
    show_text(&controller.output()?);

    chapter("The attacker tries to log in as `admin`, who does not exist")?;
    let seen = lab.log().text()?.len();
    let _attempt =
        lab.start_login(Side::Attacker, Side::Attacker.v4(), "admin", &Login::Password("letmein"))?;
    let attacker = Side::Attacker.v4().to_string();
    lab.blocked(&attacker)?;
    let blocked_at = Instant::now();
    println!("  sshd's log says:");
    show_text(lab.log().text()?.get(seen..).unwrap_or_default());

    chapter("xdpban has read that, and put the address into the kernel")?;
    show_text(controller.output()?.lines().last().unwrap_or_default());
    let show = xdpban(&lab, &["--json", "show", &attacker])?.json()?;
    let took =
        show["incidents"][0]["line_to_block_ms"].as_f64().context("how long it took is not on record")?;
    println!("  from reading the line to the entry in the kernel: {took:.2} ms");

    chapter("The attacker's packets die at the driver: a connection, and 20,000 datagrams")?;
    let connected = lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?;
    let arrived = lab.flood(Side::Attacker, Side::Attacker.v4(), DATAGRAMS)?;
    if connected || arrived > 0 {
        bail!("the attacker got through: connected {connected}, {arrived} datagrams");
    }
    println!("  connection to port 22: none    datagrams that arrived: {arrived}");
    command(&lab, &["list"])?;

    chapter("Why? The rule, the log lines behind it, and the record")?;
    command(&lab, &["show", &attacker])?;

    chapter("The bystander logs in meanwhile")?;
    if !lab.login_ok(Side::Bystander)? {
        bail!("the bystander did not get in");
    }
    println!("  ssh from {}: accepted", Side::Bystander.v4());

    chapter("The host itself, its gateway and its name servers cannot be blocked, not even by hand")?;
    command(&lab, &["block", &Side::Host.v4().to_string()])?;

    chapter("The block ends by itself")?;
    let left = TIMEOUT.saturating_sub(blocked_at.elapsed());
    println!("  waiting {} s ...", left.as_secs() + 1);
    lab.eventually("the block ends", left + Duration::from_secs(5), |lab| {
        unless_interrupted()?;
        sleep(Duration::from_millis(100));
        Ok(lab.entry(&attacker)?.is_none())
    })?;
    if !lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)? {
        bail!("the attacker is still kept out");
    }
    println!("  connection from the attacker to port 22: made");
    command(&lab, &["show", &attacker])?;

    end(controller)?;
    chapter("Done; the lab is taken down")?;
    println!("  Next: `cargo xtask build`, and `xdpban run` on a host of yours. The README says more.");
    Ok(())
}

fn end(controller: Controller) -> Result<()> {
    let (status, took) = controller.stop()?;
    if !status.success() {
        bail!("the controller ended with {status} after {took:?}");
    }
    Ok(())
}

/// Begins a part of the story, unless the user has heard enough.
fn chapter(title: &str) -> Result<()> {
    unless_interrupted()?;
    println!("\n== {title}");
    Ok(())
}

fn unless_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { bail!("interrupted") } else { Ok(()) }
}

fn xdpban(lab: &Lab, args: &[&str]) -> Result<CliOutput> {
    unless_interrupted()?;
    lab.xdpban(args)
}

/// Runs a command as a user would, and shows both.
fn command(lab: &Lab, args: &[&str]) -> Result<()> {
    println!("  # xdpban {}", args.join(" "));
    let output = xdpban(lab, args)?;
    show_text(&output.stdout());
    show_text(&output.stderr());
    Ok(())
}

fn show_text(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}
