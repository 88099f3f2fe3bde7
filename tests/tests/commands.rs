//! Commands of the user's own that answer matches.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xdpban_tests::{Lab, Side};

const ATTACKER: &str = "10.99.66.66";
const SOON: Duration = Duration::from_secs(5);

/// A script of sh(1) that anybody may run.
fn script(lab: &Lab, name: &str, text: &str) -> Result<PathBuf> {
    let path = lab.dir().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path)
}

/// A directory into which anybody may write.
fn notebook(lab: &Lab) -> Result<PathBuf> {
    let path = lab.dir().join("notes");
    fs::create_dir(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o777))?;
    Ok(path)
}

/// A configuration in which logins as unknown users are blocked, and lead to this command as well.
fn config(lab: &Lab, program: &Path, keys: &str) -> String {
    format!(
        "{}timeout = \"1h\"\n\n[[response]]\nrules = [5710]\naction = \"run\"\ncommand = [\"{}\", \"--flag\"]\n{keys}\n",
        lab.config_with_timeout("1h").replace("timeout = \"1h\"\n", ""),
        program.display()
    )
}

/// What a file says once it says something.
fn written(lab: &Lab, path: &Path) -> Result<String> {
    let full = |_: &Lab| Ok(fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n')));
    lab.eventually(&format!("{} is written", path.display()), SOON, full)?;
    fs::read_to_string(path).context("read what the command wrote")
}

/// The attacker's incidents in which a command ran.
fn runs(lab: &Lab) -> Result<Vec<Value>> {
    let show = lab.show(ATTACKER)?;
    let incidents = show["incidents"].as_array().cloned().unwrap_or_default();
    Ok(incidents.into_iter().filter(|incident| incident["action"] == "run").collect())
}

const NOTE: &str = "d=${0%/*}/notes; cat > $d/$XDPBAN_COMMAND.new; env | sort > $d/env; id -un > $d/user; \
    pwd >> $d/user; echo \"$@\" >> $d/user; ls /proc/self/fd | wc -l >> $d/user; \
    echo done; mv $d/$XDPBAN_COMMAND.new $d/$XDPBAN_COMMAND";

#[test]
fn a_command_is_told_what_happened_and_is_run_again_to_undo_it() -> Result<()> {
    let lab = Lab::new()?;
    let notes = notebook(&lab)?;
    let program = script(&lab, "tell", NOTE)?;
    let _controller = lab.start_controller(&config(&lab, &program, "timeout = \"12s\""))?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    let add: Value = serde_json::from_str(&written(&lab, &notes.join("add"))?)?;
    assert_eq!((&add["version"], &add["command"]), (&json!(1), &json!("add")));
    assert_eq!((&add["srcip"], &add["user"]), (&json!(ATTACKER), &json!("admin")));
    assert_eq!((&add["rule"]["id"], &add["timeout_s"]), (&json!(5710), &json!(12)));
    let evidence = add["evidence"][0].as_str().unwrap_or_default();
    assert!(evidence.contains("Invalid user admin from 10.99.66.66"), "{add}");
    let environment = fs::read_to_string(notes.join("env"))?;
    assert!(
        environment.contains("XDPBAN_SRCIP=10.99.66.66\n") && !environment.contains("HOME="),
        "{environment}"
    );
    // Three descriptors, and the one with which ls reads the directory.
    assert_eq!(fs::read_to_string(notes.join("user"))?, "nobody\n/\n--flag\n4\n");

    lab.eventually("the run is on record", SOON, |lab| Ok(runs(lab)?.len() == 1))?;
    let incident = &runs(&lab)?[0];
    assert_eq!((&incident["outcome"], &incident["rule"]["id"]), (&json!("in_force"), &json!(5710)));
    assert!(!notes.join("delete").exists());
    let limit = Duration::from_secs(20);
    lab.eventually("it is undone", limit, |_| Ok(notes.join("delete").exists()))?;
    let delete: Value = serde_json::from_str(&written(&lab, &notes.join("delete"))?)?;
    assert_eq!((&delete["command"], &delete["incident"]), (&json!("delete"), &add["incident"]));
    lab.eventually("its end is on record", SOON, |lab| Ok(runs(lab)?[0]["outcome"] == "expired"))?;
    assert!(lab.login_ok(Side::Bystander)?);
    let report = lab.xdpban(&["--json", "report"])?.json()?;
    let incidents = report["responses"]["listed"].as_array().context("a report without incidents")?;
    let shown = incidents.iter().find(|shown| shown["id"] == incident["id"]).context("not in the report")?;
    assert!(shown["outcome"] == "expired" && shown["response"].to_string().contains("tell"), "{shown}");
    Ok(())
}

#[test]
fn what_is_to_be_undone_is_undone_after_a_crash() -> Result<()> {
    let lab = Lab::new()?;
    let notes = notebook(&lab)?;
    let program = script(&lab, "tell", NOTE)?;
    let config = config(&lab, &program, "timeout = \"12s\"");
    let controller = lab.start_controller(&config)?;
    lab.attack(Side::Attacker.v4())?;
    lab.eventually("the run is on record", SOON, |lab| Ok(runs(lab)?.len() == 1))?;
    controller.kill9()?;
    let _controller = lab.start_controller(&config)?;
    assert!(!notes.join("delete").exists());
    lab.eventually("it is undone", Duration::from_secs(20), |_| Ok(notes.join("delete").exists()))?;
    let delete: Value = serde_json::from_str(&written(&lab, &notes.join("delete"))?)?;
    assert_eq!((&delete["srcip"], &delete["user"]), (&json!(ATTACKER), &json!("admin")));
    lab.eventually("its end is on record", SOON, |lab| Ok(runs(lab)?[0]["outcome"] == "expired"))?;
    Ok(())
}

/// Notes for which source it ran, and undoes slowly enough for others to wait.
const SLOW: &str =
    "[ $XDPBAN_COMMAND = add ] || sleep 0.05; echo $XDPBAN_SRCIP >> ${0%/*}/notes/$XDPBAN_COMMAND";

#[test]
fn hundreds_that_fall_due_at_once_are_each_undone_once() -> Result<()> {
    let lab = Lab::new()?;
    let notes = notebook(&lab)?;
    let program = script(&lab, "slow", SLOW)?;
    let config = config(&lab, &program, "timeout = \"30s\"");
    let controller = lab.start_controller(&config)?;
    let mut sources: Vec<String> =
        (0..6).flat_map(|net| (1..=50).map(move |host| format!("10.98.{net}.{host}"))).collect();
    let ran = |step: &str| -> Vec<String> {
        let text = fs::read_to_string(notes.join(step)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    // No more at once than may wait.
    for (some, pids) in sources.chunks(50).zip((0..).step_by(100)) {
        let before = ran("add").len();
        for (source, pid) in some.iter().zip(pids + 5000..) {
            lab.log().invalid_user(pid, source)?;
        }
        lab.eventually("they ran", SOON, |_| Ok(ran("add").len() == before + some.len()))?;
    }
    let in_force = |lab: &Lab| -> Result<usize> {
        let incidents =
            lab.xdpban(&["--json", "incidents", "--limit", "1000", "--outcome", "in_force"])?.json()?;
        Ok(incidents.as_array().into_iter().flatten().filter(|incident| incident["action"] == "run").count())
    };
    lab.eventually("all are on record", SOON, |lab| Ok(in_force(lab)? == sources.len()))?;
    controller.kill9()?;
    // The time of all of them is over when the next controller starts.
    let last = fs::metadata(notes.join("add"))?.modified()?;
    std::thread::sleep(Duration::from_secs(31).saturating_sub(last.elapsed()?));
    let _controller = lab.start_controller(&config)?;
    let limit = Duration::from_secs(60);
    lab.eventually("all are undone, which is on record", limit, |lab| Ok(in_force(lab)? == 0))?;
    let mut undone = ran("delete");
    undone.sort();
    sources.sort();
    assert_eq!(undone, sources);
    let report = lab.xdpban(&["--json", "incidents", "--limit", "1000", "--outcome", "failed"])?.json()?;
    assert_eq!(report, json!([]));
    Ok(())
}

/// Notes for which source it ran, and hangs unless it undoes something.
const HANG: &str = "echo $XDPBAN_SRCIP >> ${0%/*}/notes/$XDPBAN_COMMAND; [ $XDPBAN_COMMAND = add ] || exit 0; \
    trap '' TERM; echo $$ >> ${0%/*}/notes/pids; sleep 1000; true";

#[test]
fn what_a_stop_cuts_off_is_undone_and_what_waits_is_on_record() -> Result<()> {
    let lab = Lab::new()?;
    let notes = notebook(&lab)?;
    let program = script(&lab, "hang", HANG)?;
    let config = config(&lab, &program, "timeout = \"20s\"\ntime_limit = \"10m\"\nat_most = 1");
    let controller = lab.start_controller(&config)?;
    for (host, pid) in (1_u8..=3).zip(5000..) {
        lab.log().invalid_user(pid, &format!("10.99.90.{host}"))?;
    }
    lab.eventually("one hangs", SOON, |_| Ok(notes.join("pids").exists()))?;
    lab.has_read_the_log()?;
    let (status, took) = controller.stop()?;
    assert!(status.success() && took < Duration::from_secs(8), "{status} after {took:?}");
    let pid = fs::read_to_string(notes.join("pids"))?;
    let group = format!("ps -o pid= -o pgid= -o stat= -e | awk '$2 == {} && $3 !~ /^Z/'", pid.trim());
    assert_eq!(lab.sh(&group)?, "");

    let _controller = lab.start_controller(&config)?;
    let run = |host: u8| -> Result<Value> {
        let show = lab.show(&format!("10.99.90.{host}"))?;
        let incidents = show["incidents"].as_array().cloned().unwrap_or_default();
        incidents.into_iter().find(|it| it["action"] == "run").context("the run is not on record")
    };
    let cut_off = run(1)?;
    assert_eq!(cut_off["outcome"], "in_force", "{cut_off}");
    assert!(cut_off["outcome_reason"].to_string().contains("as the controller stopped"), "{cut_off}");
    for host in [2, 3] {
        let waited = run(host)?;
        assert_eq!(waited["outcome"], "failed", "{waited}");
        assert!(waited["outcome_reason"].to_string().contains("before its turn came"), "{waited}");
    }
    let limit = Duration::from_secs(30);
    lab.eventually("what was cut off is undone", limit, |_| Ok(run(1)?["outcome"] == "expired"))?;
    assert_eq!(fs::read_to_string(notes.join("delete"))?, "10.99.90.1\n");
    Ok(())
}

#[test]
fn status_tells_of_what_was_not_undone() -> Result<()> {
    let lab = Lab::new()?;
    let program = script(&lab, "tell", "cat >> /dev/null; [ $XDPBAN_COMMAND = add ]")?;
    let _controller = lab.start_controller(&config(&lab, &program, "timeout = \"2s\""))?;
    lab.attack(Side::Attacker.v4())?;
    lab.eventually("it is not undone", Duration::from_secs(20), |lab| {
        let runs = runs(lab)?;
        Ok(runs.first().is_some_and(|run| run["outcome"] == "failed"))
    })?;
    lab.xdpban(&["status"])?
        .success()?
        .stdout_has("1 command failed to be undone since the start and stands")?;
    Ok(())
}

/// Ignores SIGTERM, floods its output, forks, and does not end.
const HOSTILE: &str = "trap '' TERM; echo $$ >> ${0%/*}/notes/pids; \
    (trap '' TERM; sleep 1000) & (trap '' TERM; sleep 1000) & while :; do echo flood; done";

#[test]
fn a_command_that_hangs_and_floods_delays_no_block_and_is_killed() -> Result<()> {
    let lab = Lab::new()?;
    let notes = notebook(&lab)?;
    let program = script(&lab, "hang", HOSTILE)?;
    let keys = "time_limit = \"1s\"\nat_most = 1";
    let _controller = lab.start_controller(&config(&lab, &program, keys))?;
    lab.attack(Side::Attacker.v4())?;
    lab.eventually("it hangs", SOON, |_| Ok(notes.join("pids").exists()))?;
    for (host, pid) in (1_u8..=100).zip(5000..) {
        let source = format!("10.99.90.{host}");
        lab.log().invalid_user(pid, &source)?;
        let start = Instant::now();
        while lab.entry(&source)?.is_none() {
            assert!(start.elapsed() < SOON, "{source} is not blocked");
        }
    }
    let took: Vec<f64> = (1_u8..=100)
        .map(|host| {
            let show = lab.show(&format!("10.99.90.{host}"))?;
            let incidents = show["incidents"].as_array().cloned().unwrap_or_default();
            let took = incidents.iter().find_map(|incident| incident["line_to_block_ms"].as_f64());
            took.with_context(|| format!("no block on record: {show}"))
        })
        .collect::<Result<_>>()?;
    let longest = took.iter().copied().fold(0.0, f64::max);
    println!("from line to block: {longest} ms at most");
    // Whatever waited for a run of the command would have waited for its time limit.
    assert!(longest < 1000.0, "from line to block: {longest} ms");

    lab.eventually("it is killed, which is on record", SOON, |lab| {
        Ok(runs(lab)?.first().is_some_and(|run| run["outcome"] == "failed"))
    })?;
    let reason = runs(&lab)?[0]["outcome_reason"].clone();
    assert_eq!(reason, "the command took too long and was killed");
    let first = fs::read_to_string(notes.join("pids"))?;
    let first = first.lines().next().context("the first process")?.to_owned();
    // Those that are dead but not yet waited for are gone.
    let group = format!("ps -o pid= -o pgid= -o stat= -e | awk '$2 == {first} && $3 !~ /^Z/'");
    lab.eventually("its children are gone with it", SOON, |lab| Ok(lab.sh(&group)?.is_empty()))?;
    // There was room for one and a queue of 64.
    let show = lab.show("10.99.90.100")?;
    assert!(show.to_string().contains("of its runs wait already"), "{show}");
    Ok(())
}
