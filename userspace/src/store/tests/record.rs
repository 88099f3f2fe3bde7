//! The log, its chain, and its end.

use std::sync::atomic::Ordering;

use xdpban_engine::change::Undo;

use super::*;
use crate::store::ran::Step;

/// All records of the store in `directory`.
pub(super) fn records(directory: &Path) -> Vec<Record> {
    let archive = Archive::open(directory).unwrap();
    let mut records = Vec::new();
    let mut take = |record| {
        records.push(record);
        Ok::<_, std::convert::Infallible>(())
    };
    for incident in 1..=10 {
        archive.each_record_of(incident, &mut take).unwrap();
    }
    archive.each_act((Wall(i64::MIN), Wall(i64::MAX)), &mut take).unwrap();
    records.sort_by_key(|record| record.seq);
    records
}

/// A store with a handful of incidents in each outcome, acts, a command and an allowlist.
fn filled() -> (TempDir, Store) {
    let (directory, mut store) = store();
    let started =
        Act::Started { version: "1", pid: 7, interfaces: Vec::new(), sources: Vec::new(), dry_run: false };
    let mut writes = vec![Write::Act { at: wall(0), uid: None, act: started }];
    for number in 1..=9 {
        writes.push(blocked(&block(&format!("203.0.113.{number}"), 100)));
    }
    writes.push(ended(&block("203.0.113.1", 100), End::Expired, 5));
    writes.push(ended(&block("203.0.113.2", 100), End::Lifted, 0));
    let again = Block { offences: 2, users: vec!["root".into()], ..block("203.0.113.3", 600) };
    writes.push(Write::Blocked {
        block: again.into(),
        at: wall(20),
        took: None,
        uid: None,
        from: (0, 0),
        dry_run: false,
    });
    writes.push(counts("203.0.113.4", 77));
    let network = target("192.0.2.0/24");
    let (comment, uid) = (Some("the office".to_owned()), Some(1000));
    writes.push(Write::Allow { network, comment, expires_at: None, uid, at: wall(21) });
    writes.push(Write::Ran(Box::new(ran(Step::Add, Exit::Status(0)))));
    store.write(&writes).unwrap();
    (directory, store)
}

fn ran(step: Step, exit: Exit) -> Ran {
    Ran {
        command: "lock-account".into(),
        why: Some(block("203.0.113.9", 100)),
        step,
        exit,
        stands: false,
        output: "locked\n".into(),
        input: "{\"command\":\"add\"}".into(),
        at: wall(22),
        took: Duration::from_millis(12),
    }
}

fn verify(store: &Store) -> Verified {
    Archive::open(store.path().parent().unwrap()).unwrap().verify(&[]).unwrap()
}

/// What is found after somebody did this to the file.
fn after(sql: &str) -> Vec<(Option<i64>, Option<i64>, String)> {
    let (_directory, store) = filled();
    Connection::open(store.path()).unwrap().execute_batch(sql).unwrap();
    let faults = verify(&store).faults;
    faults.into_iter().map(|fault| (fault.seq, fault.incident, fault.what)).collect()
}

#[test]
fn checking_says_how_far_it_is() {
    let (directory, _store) = filled();
    let archive = Archive::open(directory.path()).unwrap();
    let taken = archive.steps_taken();
    assert_eq!(taken.load(Ordering::Relaxed), 0);
    let verified = archive.verify(&[]).unwrap();
    let steps = verified.records + verified.incidents;
    assert_eq!((archive.steps().unwrap(), taken.load(Ordering::Relaxed)), (steps, steps));
    let empty = tempfile::tempdir().unwrap();
    Store::open(empty.path()).unwrap();
    assert_eq!(Archive::open(empty.path()).unwrap().steps().unwrap(), 0);
}

#[test]
fn what_was_written_is_intact() {
    let (_directory, mut store) = filled();
    let before = store.head();
    let verified = verify(&store);
    assert_eq!((verified.faults.as_slice(), verified.head), (&[][..], before));
    assert_eq!((verified.records, verified.incidents), (16, 10));

    store.write(&[ended(&block("203.0.113.3", 600), End::Evicted, 3), counts("203.0.113.4", 99)]).unwrap();
    store.write(&[Write::Ran(Box::new(ran(Step::Delete(Undo::EXPIRED), Exit::TimedOut)))]).unwrap();
    let removed = Write::Disallow {
        network: target("192.0.2.0/24"),
        reason: "removed".to_owned(),
        uid: Some(0),
        at: wall(30),
    };
    store.write(&[removed]).unwrap();
    let archive = Archive::open(store.path().parent().unwrap()).unwrap();
    assert_eq!(archive.verify(&[before, store.head()]).unwrap().faults, []);
    // A transaction that fails leaves the chain where it was.
    let head = store.head();
    store.connection.pragma_update(None, "query_only", true).unwrap();
    store.write(&[blocked(&block("203.0.113.99", 1))]).unwrap_err();
    store.connection.pragma_update(None, "query_only", false).unwrap();
    assert_eq!(store.head(), head);
    store.write(&[blocked(&block("203.0.113.99", 1))]).unwrap();
    assert_eq!(verify(&store).faults, []);
}

#[test]
fn what_was_altered_since_a_time_is_found_without_what_was_before() {
    let (directory, mut store) = filled();
    for number in 1..=9 {
        let later = Block { created: wall(1000 + number), ..block(&format!("198.51.100.{number}"), 100) };
        store
            .write(&[Write::Blocked {
                block: later.into(),
                at: wall(1000 + number),
                took: None,
                uid: None,
                from: (0, 0),
                dry_run: false,
            }])
            .unwrap();
    }
    let since = |seconds| Archive::open(directory.path()).unwrap().verify_since(wall(seconds)).unwrap();
    let all = since(0);
    assert_eq!((all.after, all.records, all.incidents, &*all.faults), (None, 25, 19, &[][..]));
    let part = since(1003);
    assert_eq!(part.after.map(|after| after.seq), Some(18));
    assert_eq!((part.head, part.records, part.incidents), (store.head(), 7, 7));
    let none = since(5000);
    assert_eq!((none.after, none.records, none.incidents), (Some(store.head()), 0, 0));

    let alter = |sql: &str| Connection::open(store.path()).unwrap().execute_batch(sql).unwrap();
    alter("UPDATE records SET body = replace(body, 'admin', 'nobody') WHERE seq = 5");
    assert_eq!(since(1003).faults, []);
    assert_eq!(since(0).faults[0].seq, Some(5));
    // One that is made to have begun before the time that is asked for is missed there.
    alter("UPDATE incidents SET first_seen = first_seen - 900000000 WHERE id = 13");
    assert_eq!(since(1003).faults[0].incident, Some(13));
    alter("DELETE FROM incidents WHERE id = 15");
    assert_eq!(since(1003).faults[1].incident, Some(15));
    alter("UPDATE records SET at = at + 1 WHERE seq = 20");
    assert_eq!(since(1003).faults[0].seq, Some(20));
}

#[test]
fn what_was_altered_is_found() {
    for column in
        ["at = at + 1", "kind = 'incident.ended'", "incident = 9", "body = replace(body, 'admin', 'nobody')"]
    {
        let faults = after(&format!("UPDATE records SET {column} WHERE seq = 5"));
        assert_eq!(faults[0].0, Some(5), "{column}: {faults:?}");
        assert!(faults[0].2.contains("altered"), "{column}: {faults:?}");
    }
    // With a hash that fits the text, the next one does not fit.
    let (_directory, store) = filled();
    let other = Connection::open(store.path()).unwrap();
    let (at, kind, incident, previous): (i64, String, i64, chain::Hash) = other
        .query_row(
            "SELECT at, kind, incident, (SELECT hash FROM records WHERE seq = 4) FROM records WHERE seq = 5",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .unwrap();
    let forged = chain::Link { seq: 5, at: Wall(at), kind: &kind, incident: Some(incident), body: "{}" };
    other
        .execute("UPDATE records SET body = '{}', hash = ?1 WHERE seq = 5", [forged.hash(&previous)])
        .unwrap();
    assert_eq!(verify(&store).faults[0].seq, Some(6));
}

#[test]
fn an_empty_file_has_no_record() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), "").unwrap();
    let error = Archive::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
}

#[test]
fn what_was_removed_is_found() {
    let faults = after("DELETE FROM records WHERE seq = 5");
    assert_eq!((faults[0].0, &*faults[0].2), (Some(6), "record 5 is missing before it"));
    let faults = after("DELETE FROM records WHERE seq <= 3");
    assert_eq!((faults[0].0, &*faults[0].2), (Some(4), "records 1 to 3 are missing before it"));
    // With the numbers closed up, so that no gap is left.
    let faults = after(
        "DELETE FROM records WHERE seq = 5; UPDATE records SET seq = -(seq - 1) WHERE seq > 5;
         UPDATE records SET seq = -seq WHERE seq < 0",
    );
    assert_eq!(faults[0].0, Some(5), "{faults:?}");
    // The end: only a head that was kept tells.
    let (_directory, store) = filled();
    let kept = store.head();
    let other = Connection::open(store.path()).unwrap();
    other.execute_batch("DELETE FROM records WHERE seq > 13; DELETE FROM allowed").unwrap();
    other.execute_batch("DELETE FROM incidents WHERE id > 9; DELETE FROM tried WHERE incident > 9").unwrap();
    let archive = Archive::open(store.path().parent().unwrap()).unwrap();
    assert_eq!(archive.verify(&[]).unwrap().faults, []);
    let faults = archive.verify(&[kept]).unwrap().faults;
    let cut_off = "it was kept as the head, and the log ends before it: its end was cut off";
    assert_eq!((faults[0].seq, &*faults[0].what), (Some(kept.seq), cut_off));
}

#[test]
fn what_was_reordered_is_found() {
    for (a, b) in [(4, 5), (4, 8), (5, 10)] {
        let faults = after(&format!(
            "UPDATE records SET seq = -1 WHERE seq = {a}; UPDATE records SET seq = {a} WHERE seq = {b};
             UPDATE records SET seq = {b} WHERE seq = -1"
        ));
        let told: Vec<_> = faults.iter().map(|(seq, _, what)| (seq.unwrap(), what.as_str())).collect();
        let expected =
            |at: i64, was: i64| (at, format!("it was written as record {was}: records were reordered"));
        let expected = [expected(a, b), expected(b, a)];
        assert_eq!(told, expected.each_ref().map(|(at, what)| (*at, what.as_str())), "{a} {b}");
    }
}

#[test]
fn what_was_put_in_is_found() {
    let faults = after(
        "INSERT INTO records SELECT seq + 1, at, kind, incident, body, hash FROM records ORDER BY seq DESC LIMIT 1",
    );
    assert_eq!(faults[0].0, Some(17), "{faults:?}");
    let faults = after(
        "INSERT INTO incidents (first_seen, last_seen, target, key, reason, origin, offences, attempts, users,
             evidence, action, outcome)
         VALUES (1, 1, '10.0.0.1', x'040a00000120', 'x', 'rule', 1, 1, '[]', '[]', 'block', 'in_force')",
    );
    assert_eq!((faults[0].1, &*faults[0].2), (Some(11), "no record tells of it: it was put in"));
}

#[test]
fn incidents_are_what_the_records_say() {
    for (change, told) in [
        ("outcome_reason = 'nobody knows' WHERE id = 2", "which have outcome_reason null"),
        ("dropped_packets = 0 WHERE id = 1", "which have dropped_packets 5"),
        ("users = '[]' WHERE id = 3", "which have users [\"root\"]"),
        ("first_seen = first_seen - 1 WHERE id = 4", "which have first_seen"),
        ("key = x'040a00000120' WHERE id = 4", "which have the key of the target"),
        ("target = '10.0.0.1' WHERE id = 4", "which have target \"203.0.113.4\""),
    ] {
        let faults = after(&format!("UPDATE incidents SET {change}"));
        assert!(faults.len() == 1 && faults[0].2.contains(told), "{change}: {faults:?}");
    }
    let faults = after("DELETE FROM incidents WHERE id = 10");
    assert_eq!(faults[0].1, Some(10), "{faults:?}");
    // Whom the index of names does not have, nobody finds.
    let faults = after("DELETE FROM tried WHERE user = 'admin' AND incident IN (4, 9)");
    let lacks = |id| {
        (None, Some(id), "the index of user names lacks it: who asks for admin does not find it".to_owned())
    };
    assert_eq!(faults, [lacks(4), lacks(9)]);
    let faults = after("INSERT INTO tried SELECT 'root', first_seen, id FROM incidents WHERE id = 4");
    let has = "the index of user names has it for root, whom it does not name".to_owned();
    assert_eq!(faults, [(None, Some(4), has)]);
    let faults = after("UPDATE allowed SET network = '0.0.0.0/0'");
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn a_flood_of_faults_is_counted() {
    let (_directory, mut store) = filled();
    let writes = (0..200).map(|number| blocked(&block(&format!("10.0.0.{number}"), 100)));
    store.write(&writes.collect::<Vec<_>>()).unwrap();
    Connection::open(store.path()).unwrap().execute_batch("UPDATE records SET at = at + 1").unwrap();
    let verified = verify(&store);
    assert_eq!((verified.faults.len(), verified.more), (64, 216 - 64));
}

#[test]
fn starts_tell_since_when_nobody_watched() {
    let (directory, mut store) = store();
    let act = |at, act| Write::Act { at: wall(at), uid: None, act };
    let started =
        || Act::Started { version: "1", pid: 7, interfaces: Vec::new(), sources: Vec::new(), dry_run: false };
    store.write(&[act(0, started()), Write::Alive { at: wall(60) }]).unwrap();
    store.write(&[act(100, started()), act(200, Act::Stopped { version: "1" })]).unwrap();
    store.write(&[act(300, started())]).unwrap();
    let gaps: Vec<_> = records(directory.path())
        .iter()
        .filter(|record| record.kind == "controller.started")
        .map(|record| {
            let body: serde_json::Value = serde_json::from_str(&record.body).unwrap();
            (body["after"].as_str().unwrap().to_owned(), body["unwatched_since"].as_i64().map(Wall))
        })
        .collect();
    let gap = |after: &str, since: Option<i64>| (after.to_owned(), since.map(wall));
    assert_eq!(gaps, [gap("first", None), gap("crash", Some(60)), gap("stop", Some(200))]);
}

#[test]
fn who_wrote_a_record_was_not_dead_then() {
    let (directory, mut store) = store();
    let start = |at| {
        let (interfaces, sources) = (Vec::new(), Vec::new());
        let act = Act::Started { version: "1", pid: 7, interfaces, sources, dry_run: false };
        Write::Act { at: wall(at), uid: None, act }
    };
    let record = |at| {
        let block = Block { created: wall(at), ..block(&format!("10.0.0.{at}"), 900) };
        let (block, took, uid) = (block.into(), None, None);
        Write::Blocked { block, at: wall(at), took, uid, from: (0, 0), dry_run: false }
    };
    let alive = || Archive::open(directory.path()).unwrap().alive().unwrap();
    store.write(&[start(0), Write::Alive { at: wall(60) }]).unwrap();
    store.write(&[record(90)]).unwrap();
    store.write(&[record(80)]).unwrap();
    assert_eq!(alive(), Some((wall(90), false)));
    drop(store);

    // The next one records what it finds before it watches, and comes no further at first.
    for at in [120, 130] {
        let mut store = Store::open(directory.path()).unwrap();
        store.write(&[record(at)]).unwrap();
        assert_eq!(alive(), Some((wall(90), false)));
    }
    let mut store = Store::open(directory.path()).unwrap();
    store.write(&[record(140), start(150)]).unwrap();
    let started = records(directory.path()).into_iter().rfind(|record| record.kind == "controller.started");
    let body: serde_json::Value = serde_json::from_str(&started.unwrap().body).unwrap();
    assert_eq!(
        (&body["after"], body["unwatched_since"].as_i64().map(Wall)),
        (&"crash".into(), Some(wall(90)))
    );

    // A stop is the end.
    store.write(&[Write::Act { at: wall(200), uid: None, act: Act::Stopped { version: "1" } }]).unwrap();
    store.write(&[record(210)]).unwrap();
    assert_eq!(alive(), Some((wall(200), true)));
}

#[test]
fn commands_are_incidents_of_their_own() {
    let (_directory, mut store) = filled();
    // Beside the block of the same source.
    assert_eq!(store.in_force(&now()).unwrap().len(), 7);
    let [standing] = &store.commands(&now()).unwrap()[..] else { panic!() };
    assert_eq!((&*standing.command, &standing.why), ("lock-account", &block("203.0.113.9", 100)));
    store.write(&[Write::Ran(Box::new(ran(Step::Delete(Undo::EXPIRED), Exit::Status(0))))]).unwrap();
    assert_eq!(store.commands(&now()).unwrap(), []);
    assert_eq!(store.in_force(&now()).unwrap().len(), 7);

    let forever = Ran {
        why: Some(Block { expires: None, ..block("203.0.113.8", 0) }),
        ..ran(Step::Add, Exit::Status(0))
    };
    let failed = Ran { why: forever.why.clone(), ..ran(Step::Add, Exit::NotRun("no such file".to_owned())) };
    let digest = Ran { why: None, ..forever.clone() };
    store.write(&[forever, failed, digest].map(|ran| Write::Ran(Box::new(ran)))).unwrap();
    let outcomes: Vec<_> = store.incidents(&all(3)).unwrap().iter().map(|i| i.outcome).collect();
    assert_eq!(outcomes, [Outcome::Expired, Outcome::Done, Outcome::Failed]);
    assert_eq!(verify(&store).faults, []);
}

#[test]
fn what_failed_and_stands_all_the_same_is_to_be_undone() {
    let (directory, mut store) = store();
    let killed = Ran { stands: true, ..ran(Step::Add, Exit::Signal(9)) };
    store.write(&[Write::Ran(Box::new(killed))]).unwrap();
    let [standing] = &store.commands(&now()).unwrap()[..] else { panic!() };
    assert_eq!(&*standing.command, "lock-account");
    let ran_at = |kind: &str| records(directory.path()).into_iter().filter(|r| r.kind == kind).count();
    assert_eq!((ran_at("command.ran"), ran_at("incident.ended")), (1, 0));
    let cut_off = Ran { stands: true, ..ran(Step::Delete(Undo::EXPIRED), Exit::CutOff) };
    store.write(&[Write::Ran(Box::new(cut_off))]).unwrap();
    assert_eq!(store.commands(&now()).unwrap().len(), 1);
    let unlocked = ran(Step::Delete(Undo::lifted_by(1000)), Exit::Status(0));
    store.write(&[Write::Ran(Box::new(unlocked))]).unwrap();
    assert_eq!(store.commands(&now()).unwrap(), []);
    let [incident] = &store.incidents(&all(1)).unwrap()[..] else { panic!() };
    assert_eq!((incident.outcome, incident.outcome_uid), (Outcome::Lifted, Some(1000)));
    assert_eq!(incident.outcome_reason.as_deref(), Some("by uid 1000"));
    assert_eq!(verify(&store).faults, []);
}

#[test]
fn the_allowlist_is_kept() {
    let (directory, mut store) = filled();
    let [office] = &store.allowed().unwrap()[..] else { panic!() };
    assert_eq!(
        (office.network, office.comment.as_deref(), office.uid),
        (target("192.0.2.0/24"), Some("the office"), Some(1000))
    );
    let network = target("192.0.2.0/24");
    store
        .write(&[Write::Disallow { network, reason: "removed".to_owned(), uid: Some(0), at: wall(30) }])
        .unwrap();
    assert_eq!(store.allowed().unwrap(), []);
    let kinds: Vec<_> = records(directory.path())
        .into_iter()
        .map(|record| record.kind)
        .filter(|kind| kind.starts_with("allow"))
        .collect();
    assert_eq!(kinds, ["allow.added", "allow.removed"]);
}

/// Prunes until nothing is left to prune.
fn prune_all(store: &mut Store, keep: &Keep, now: Wall) -> u64 {
    let mut records = 0;
    loop {
        let pruned = store.prune(keep, now).unwrap();
        records += pruned.records;
        if !pruned.more {
            return records;
        }
    }
}

/// Records something at this time.
fn happened(store: &mut Store, at: i64) {
    let act = Act::ConfigRefused { faults: 1, first: "a test".to_owned() };
    store.write(&[Write::Act { at: wall(at), uid: None, act }]).unwrap();
}

#[test]
fn a_clock_that_leaps_takes_nothing_off_before_its_time() {
    const DAY: i64 = 86_400;
    let keep = Keep { time: Some(Duration::from_secs(365 * 86_400)), size: None };
    let (_directory, mut store) = store();
    for day in 0..=400 {
        happened(&mut store, day * DAY);
    }
    let kept = |store: &mut Store, day: i64| {
        let mut unconfirmed = None;
        loop {
            let pruned = store.prune(&keep, wall(day * DAY)).unwrap();
            unconfirmed = pruned.unconfirmed.or(unconfirmed);
            if !pruned.more {
                return (verify(store).pruned_through, unconfirmed);
            }
        }
    };
    assert_eq!(kept(&mut store, 390), (18, None), "a week before the present is a year and 18 days");
    // Back by a day, ahead by a day, and by ten years: what is on record ends at day 401, with that it was pruned.
    assert_eq!(kept(&mut store, 389), (18, None));
    assert_eq!(kept(&mut store, 401), (29, None));
    assert_eq!(kept(&mut store, 4000), (36, Some(wall(401 * DAY))));
    // What is recorded while it is ahead is not believed before a week has passed by it, nor once it is right again.
    happened(&mut store, 4000 * DAY);
    assert_eq!(kept(&mut store, 4001), (36, Some(wall(401 * DAY))));
    happened(&mut store, 402 * DAY);
    assert_eq!(kept(&mut store, 409), (37, None));
    // A host that was off for long has it taken off a week later.
    assert_eq!(kept(&mut store, 4008).1, None);
    assert_eq!(verify(&store).faults, []);
}

#[test]
fn what_is_too_old_is_taken_off_and_the_rest_is_intact() {
    let (_directory, mut store) = store();
    let keep = Keep { time: Some(Duration::from_secs(1000)), size: None };
    let mut writes = Vec::new();
    for number in 0..=2000_i32 {
        let target = Target::exact(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number.unsigned_abs()).into());
        let at = wall(i64::from(number));
        let block = Block { target, created: at, ..block("10.0.0.0", 1) };
        writes.push(Write::Blocked {
            block: block.clone().into(),
            at,
            took: None,
            uid: None,
            from: (0, 0),
            dry_run: false,
        });
        // One of a hundred stays.
        if number % 100 != 0 || number == 2000 {
            let (end, reason) = (End::Lifted, None);
            writes.push(Write::Ended {
                block: block.into(),
                end,
                at,
                packets: 0,
                bytes: 0,
                reason,
                uid: None,
            });
        }
    }
    store.write(&writes).unwrap();
    let before = store.head();
    assert_eq!(prune_all(&mut store, &keep, wall(500)), 0);
    assert_eq!(store.head(), before);
    let pruned = prune_all(&mut store, &keep, wall(2100));
    assert_eq!(pruned, 1000 + 990);
    let verified = verify(&store);
    assert_eq!((verified.faults.as_slice(), verified.pruned_through), (&[][..], 1990));
    assert_eq!(verified.incidents, 1001 + 10);
    assert_eq!(store.in_force(&now()).unwrap().len(), 20, "what is in force stays");
    assert_eq!(
        store.incidents(&IncidentQuery { user: Some("admin".to_owned()), ..all(9999) }).unwrap().len(),
        1011
    );

    // Incidents that ended go with their last record.
    happened(&mut store, 8900);
    assert_eq!(store.prune(&keep, wall(9000)).unwrap().records, 500);
    prune_all(&mut store, &keep, wall(9000));
    let verified = verify(&store);
    assert_eq!((verified.incidents, verified.faults.len()), (20, 0), "{verified:?}");

    // A marker does not cover what somebody else takes off.
    Connection::open(store.path())
        .unwrap()
        .execute_batch("DELETE FROM records WHERE seq IN (SELECT min(seq) FROM records)")
        .unwrap();
    let what = format!("record {} is missing before it", verified.pruned_through + 1);
    assert_eq!(verify(&store).faults[0].what, what);
}

#[test]
fn the_store_grows_no_larger_than_asked_for() {
    let (_directory, mut store) = store();
    let evidence: Vec<Arc<str>> = vec!["x".repeat(500).into(); 5];
    let write = |store: &mut Store, from: u32| {
        let writes = (from..from + 1000).flat_map(|number| {
            let target = Target::exact(std::net::Ipv4Addr::from_bits(number).into());
            let block = Block { target, evidence: evidence.clone(), ..block("10.0.0.0", 1) };
            [blocked(&block), ended(&block, End::Expired, 1)]
        });
        store.write(&writes.collect::<Vec<_>>()).unwrap();
    };
    write(&mut store, 0);
    let keep = Keep { time: None, size: Some(4_000_000) };
    assert!(prune_all(&mut store, &keep, wall(100)) > 0);
    let size = |store: &Store| store.path().metadata().unwrap().len();
    write(&mut store, 1000);
    prune_all(&mut store, &keep, wall(100));
    let first = size(&store);
    for round in 2..4 {
        write(&mut store, round * 1000);
        prune_all(&mut store, &keep, wall(100));
    }
    assert!(size(&store) <= first + (1 << 20), "{} after {first}", size(&store));
    assert_eq!(verify(&store).faults, []);

    // Blocks in force are not given up for it.
    let (_directory, mut store) = self::store();
    let writes = (0..2000).map(|number| {
        let target = Target::exact(std::net::Ipv4Addr::from_bits(number).into());
        blocked(&Block { target, expires: None, ..block("10.0.0.0", 1) })
    });
    store.write(&writes.collect::<Vec<_>>()).unwrap();
    let keep = Keep { time: None, size: Some(1) };
    assert!(!store.prune(&keep, wall(100)).unwrap().more, "there is nothing to be won");
    assert_eq!(store.in_force(&now()).unwrap().len(), 2000);
    assert_eq!(verify(&store).faults, []);
}

#[test]
fn incidents_are_found_by_what_is_known_of_them() {
    let (_directory, mut store) = filled();
    let late = Block { created: wall(500), ..block("2001:db8:1:2::/64", 900) };
    store
        .write(&[Write::Blocked {
            block: late.into(),
            at: wall(501),
            took: None,
            uid: Some(0),
            from: (0, 0),
            dry_run: false,
        }])
        .unwrap();
    let found = |query: IncidentQuery| -> Vec<i64> {
        store.incidents(&query).unwrap().iter().map(|incident| incident.id).collect()
    };
    let any = IncidentQuery::default;
    assert_eq!(found(any()), (1..=11).collect::<Vec<_>>());
    assert_eq!(found(all(2)), [10, 11]);
    assert_eq!(found(IncidentQuery { since: Some(wall(1)), ..any() }), [11]);
    assert_eq!(found(IncidentQuery { until: Some(wall(1)), limit: Some(1), ..any() }), [10]);
    assert_eq!(found(IncidentQuery { rule: Some(RuleId(5710)), since: Some(wall(1)), ..any() }), [11]);
    assert_eq!(found(IncidentQuery { rule: Some(RuleId(1)), ..any() }), [0; 0]);
    assert_eq!(found(IncidentQuery { user: Some("root".to_owned()), ..any() }), [3]);
    assert_eq!(found(IncidentQuery { user: Some("admin".to_owned()), ..all(3) }), [9, 10, 11]);
    assert_eq!(found(IncidentQuery { outcome: Some(Outcome::Lifted), ..any() }), [2]);
    assert_eq!(
        found(IncidentQuery { target: Some(target("203.0.113.0/29")), ..any() }),
        [1, 2, 3, 4, 5, 6, 7]
    );
    assert_eq!(found(IncidentQuery { target: Some(target("2001:db8::/32")), ..any() }), [11]);
    assert_eq!(
        found(IncidentQuery { target: Some(target("0.0.0.0/0")), ..any() }),
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(found(IncidentQuery { changed_after: Some(16), ..any() }), [11]);
    assert_eq!(store.incidents(&all(1)).unwrap()[0].record, 17);
}

#[test]
fn what_is_in_force_rests_while_the_gate_is_off_the_host() {
    let (directory, mut store) = filled();
    let of = |store: &Store, target: &str| {
        let incidents = store.incidents(&all(20)).unwrap();
        let incident = incidents.into_iter().find(|i| i.target.to_string() == target && i.command.is_none());
        incident.map(|incident| (incident.outcome, incident.outcome_reason)).unwrap()
    };
    let off = Some("rests while the gate is off this host".to_owned());
    let act = |act| Write::Act { at: wall(40), uid: None, act };
    for taken_off in [Act::Detached { interfaces: Vec::new() }, Act::TrialEnded {}] {
        assert!(!store.is_off_host().unwrap());
        store.write(&[act(taken_off)]).unwrap();
        assert!(store.is_off_host().unwrap());
        assert_eq!(of(&store, "203.0.113.4"), (Outcome::InForce, off.clone()));
        assert_eq!(of(&store, "203.0.113.1"), (Outcome::Expired, None));
        let block = block("203.0.113.4", 100).into();
        let (sources, interfaces) = (Vec::new(), Vec::new());
        let started = Act::Started { version: "1", pid: 7, interfaces, sources, dry_run: false };
        store.write(&[Write::Resumed { block, at: wall(50), from: (0, 0) }, act(started)]).unwrap();
        assert_eq!(of(&store, "203.0.113.4"), (Outcome::InForce, None));
        // What was restored says so; of what was not, another start does.
        assert_eq!(of(&store, "203.0.113.5"), (Outcome::InForce, off.clone()));
    }
    drop(store);
    assert_eq!(Archive::open(directory.path()).unwrap().verify(&[]).unwrap().faults, []);
}
