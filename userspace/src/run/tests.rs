//! Runs of commands: when they are tried again, and what becomes of many at once.

use std::cell::RefCell;
use std::fs;
use std::net::Ipv4Addr;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use xdpban_engine::change::{Block, Origin, Undo};
use xdpban_engine::measure::Measure;
use xdpban_engine::target::Target;

use super::*;
use crate::config::{Config, LOCK_ACCOUNT};

/// A notification of that kind as it is where nothing else is said.
fn notification(kind: &str) -> Command {
    let text = format!("[[response]]\nrules = [5710]\naction = \"notify\"\n{kind}\n");
    Config::parse(&text, Path::new("config.toml"), &[]).unwrap().commands.remove(0)
}

/// When each try of a command begins that takes so long and succeeds the `succeeds`th time, in seconds, and what came of the
/// last.
async fn tries(command: &Command, succeeds: usize, took: Duration) -> (Vec<u64>, Exit) {
    let (begin, tries) = (Instant::now(), RefCell::new(Vec::new()));
    let attempt = || async {
        tries.borrow_mut().push(begin.elapsed().as_secs());
        sleep(took).await;
        let status = i32::from(tries.borrow().len() != succeeds);
        Ended { exit: Exit::Status(status), output: String::new(), took }
    };
    let cut = watch::Sender::new(false);
    let exit = tried(&command.retry, &Cut(cut.subscribe()), attempt).await.exit;
    (tries.into_inner(), exit)
}

#[tokio::test(start_paused = true)]
async fn a_notification_that_fails_is_tried_again_after_10_and_60_seconds() {
    const NEVER: usize = 0;
    for kind in ["webhook = \"https://example.org/\"", "mail = \"root\""] {
        let command = notification(kind);
        let at_once = |succeeds| tries(&command, succeeds, Duration::ZERO);
        assert_eq!(at_once(NEVER).await, (vec![0, 10, 70], Exit::Status(1)), "{kind}");
        assert_eq!(at_once(1).await, (vec![0], Exit::Status(0)), "{kind}");
        assert_eq!(at_once(2).await, (vec![0, 10], Exit::Status(0)), "{kind}");
        assert_eq!(at_once(3).await, (vec![0, 10, 70], Exit::Status(0)), "{kind}");
        // The wait begins when a try has ended.
        let hanging = tries(&command, NEVER, command.time_limit).await;
        assert_eq!(hanging, (vec![0, 30, 110], Exit::Status(1)), "{kind}");
    }
}

/// Commands that run scripts of sh(1), each by its name.
fn scripts(scripts: &[(&str, &str)]) -> Vec<Command> {
    let own = |(name, text): &(&str, &str)| Command {
        name: (*name).into(),
        what: What::Own(["/bin/sh", "-c", text].map(str::to_owned).to_vec()),
        user: "root".to_owned(),
        time_limit: Duration::from_secs(60),
        at_most: 4,
        retry: Vec::new(),
        digest: None,
    };
    scripts.iter().map(own).collect()
}

/// The run of a command for the source with this number, which is to be undone after an hour.
fn run(command: &str, source: u32, undo: Option<Undo>) -> CommandRun {
    let (source, now) = (Ipv4Addr::from_bits(source).into(), clock::now());
    CommandRun {
        command: command.into(),
        per_user: false,
        user: None,
        source,
        why: Block {
            target: Target::exact(source),
            created: now.wall,
            expires: Some(now.expiry(now.mono.after(Duration::from_secs(3600)))),
            measure: Measure::default(),
            rule: None,
            reason: "a test".into(),
            origin: Origin::Rule,
            offences: 1,
            attempts: 1,
            users: Vec::new(),
            evidence: Vec::new(),
        },
        undo,
    }
}

/// A directory for what scripts write, in which they find it as `$0`.
fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn whatever_falls_due_at_once_is_undone_and_what_answers_matches_is_bounded() {
    const DUE: u32 = 300;
    let directory = directory();
    let file = directory.path().join("ran");
    let note = format!("echo $XDPBAN_COMMAND $XDPBAN_SRCIP >> {}", file.display());
    let commands = scripts(&[("note", &note), ("slow", "sleep 60")]);
    let (mut runner, mut outcomes) = Runner::start(&commands, directory.path()).unwrap();
    for source in 0..DUE {
        runner.submit(&run("note", source, Some(Undo::EXPIRED)), None).unwrap();
    }
    for _ in 0..DUE {
        let outcome = outcomes.recv().await.unwrap();
        assert_eq!(outcome.ran.exit, Exit::Status(0));
    }
    let mut ran: Vec<String> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    let mut expected: Vec<String> =
        (0..DUE).map(|source| format!("delete {}", Ipv4Addr::from_bits(source))).collect();
    ran.sort();
    expected.sort();
    assert_eq!(ran, expected);

    let refused: Vec<Box<Ran>> =
        (0..DUE).filter_map(|source| runner.submit(&run("slow", source, None), None).err()).collect();
    // Beside those that wait, at most the four that may be under way and one that is about to be.
    assert!((231..=236).contains(&refused.len()), "{}", refused.len());
    assert_eq!(refused[0].exit, Exit::NotRun("64 of its runs wait already".to_owned()));
    runner.stop();
}

#[tokio::test]
async fn what_still_runs_at_a_stop_is_cut_off_and_what_waits_is_left_undone() {
    let directory = directory();
    let pids = directory.path().join("pids");
    let hang = format!("trap '' TERM; echo $$ >> {}; sleep 60; true", pids.display());
    let commands = scripts(&[("quick", "sleep 0.5"), ("hang", &hang)]);
    let (mut runner, mut outcomes) = Runner::start(&commands, directory.path()).unwrap();
    runner.submit(&run("quick", 1, None), None).unwrap();
    for source in 1..=6 {
        runner.submit(&run("hang", source, None), None).unwrap();
    }
    let under_way = || fs::read_to_string(&pids).unwrap_or_default().lines().count() == 4;
    while !under_way() {
        sleep(Duration::from_millis(10)).await;
    }
    runner.submit(&run("hang", 7, Some(Undo::EXPIRED)), None).unwrap();
    let begin = Instant::now();
    runner.close();
    let mut came = Vec::new();
    while let Some(Outcome { run, ran }) = outcomes.recv().await {
        came.push((run.unwrap().source, ran.command.to_string(), ran.exit, ran.stands));
    }
    runner.stop();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    came.sort_by_key(|(source, command, ..)| (command.clone(), *source));
    let told = |source, command: &str, exit: &Exit, stands| {
        (Ipv4Addr::from_bits(source).into(), command.to_owned(), exit.clone(), stands)
    };
    let not_run = Exit::NotRun("the controller stopped before its turn came".to_owned());
    let hung = (1..=4).map(|source| told(source, "hang", &Exit::CutOff, true));
    let waited = (5..=6).map(|source| told(source, "hang", &not_run, false));
    let quick = told(1, "quick", &Exit::Status(0), false);
    assert_eq!(came, hung.chain(waited).chain([quick]).collect::<Vec<_>>());
    for pid in fs::read_to_string(&pids).unwrap().lines() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}

#[tokio::test]
async fn an_account_is_unlocked_also_where_the_configuration_has_no_lockout_any_longer() {
    let directory = directory();
    let (mut runner, mut outcomes) = Runner::start(&[Command::lock_account()], directory.path()).unwrap();
    runner.replace(&[]);
    let undo = CommandRun {
        per_user: true,
        user: Some("alice".into()),
        ..run(LOCK_ACCOUNT, 1, Some(Undo::EXPIRED))
    };
    runner.submit(&undo, None).unwrap();
    // What ran is this program, which is no xdpban and fails.
    let outcome = outcomes.recv().await.unwrap();
    assert!(matches!(outcome.ran.exit, Exit::Status(_)), "{:?}", outcome.ran);
    runner.stop();
}
