//! Tests of the store on real files.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use xdpban_engine::change::{End, Expiry, Origin, Protection, Protector, Refusal, Refused};
use xdpban_engine::measure::{Action, Measure, Ports, Rate, Scope, Strictness};
use xdpban_engine::rules::{RuleId, RuleRef};
use xdpban_engine::time::Mono;

use super::*;

/// A moment in 2026, in microseconds.
const START: i64 = 1_795_420_000_000_000;

fn wall(seconds: i64) -> Wall {
    Wall(START + seconds * 1_000_000)
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn now() -> Now {
    Now { mono: Mono(5_000_000_000), wall: wall(0), utc_offset: 0 }
}

/// A block of `text` from the start on, for `seconds`.
fn block(text: &str, seconds: i64) -> Block {
    let wall = wall(seconds);
    Block {
        target: target(text),
        created: self::wall(0),
        expires: Some(Expiry { mono: now().mono_at(wall), wall }),
        measure: Measure::default(),
        rule: Some(RuleRef { id: RuleId(5710), level: 5, description: "unknown user".into() }),
        reason: "unknown user".into(),
        origin: Origin::Rule,
        offences: 1,
        attempts: 3,
        users: vec!["admin".into(), "\"; DROP TABLE incidents; --\0\u{1f980}".into()],
        evidence: vec!["Invalid user admin from 203.0.113.7".into()],
    }
}

fn blocked(block: &Block) -> Write {
    Write::Blocked {
        block: block.clone().into(),
        at: wall(0),
        took: Some(Duration::from_micros(700)),
        uid: None,
        from: (0, 0),
        dry_run: false,
    }
}

fn ended(block: &Block, end: End, packets: u64) -> Write {
    let (block, bytes) = (block.clone().into(), packets * 60);
    Write::Ended { block, end, at: wall(50), packets, bytes, reason: None, uid: None }
}

fn counts(text: &str, packets: u64) -> Write {
    Write::Counts {
        target: target(text),
        strictness: Strictness::Everything,
        packets,
        bytes: packets.saturating_mul(60),
        at: wall(20),
    }
}

fn position(offset: u64) -> Write {
    let position = Position::File { device: u64::MAX, inode: 7, offset, head: u64::MAX - 1 };
    Write::Position { key: "file:/var/log/auth.log".to_owned(), position }
}

fn all(limit: u32) -> IncidentQuery {
    IncidentQuery { limit: Some(limit), ..IncidentQuery::default() }
}

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

#[test]
fn a_block_comes_back_as_it_was() {
    let (directory, mut store) = store();
    let permanent =
        Block { expires: None, rule: None, origin: Origin::Operator, ..block("2001:db8::/64", 0) };
    let timed = block("203.0.113.7", 100);
    store.write(&[blocked(&timed), blocked(&permanent), position(12)]).unwrap();
    drop(store);

    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.in_force(&now()).unwrap(), [timed.clone().into(), permanent.into()]);
    let rebooted = Now { mono: Mono(1), wall: wall(40), utc_offset: 0 };
    let expires = store.in_force(&rebooted).unwrap()[0].expires.unwrap();
    assert_eq!(expires, Expiry { mono: Mono(60_000_000_001), wall: wall(100) });
    let set_back = Now { wall: wall(-86_400), ..rebooted };
    let expires = store.in_force(&set_back).unwrap()[0].expires.unwrap();
    assert_eq!(
        expires,
        Expiry { mono: Mono(100_000_000_001), wall: wall(100) },
        "no longer than it ever was"
    );
    let Write::Position { key, position } = position(12) else { unreachable!() };
    assert_eq!(store.positions().unwrap(), HashMap::from([(key, position)]));
}

#[test]
fn a_block_that_comes_again_is_the_same_incident_until_it_ends() {
    let (_directory, mut store) = store();
    let first = block("203.0.113.7", 100);
    let again = Block { offences: 2, attempts: 9, ..block("203.0.113.7", 600) };
    store.write(&[blocked(&first)]).unwrap();
    store
        .write(&[Write::Blocked {
            block: again.clone().into(),
            at: wall(20),
            took: None,
            uid: None,
            from: (0, 0),
            dry_run: false,
        }])
        .unwrap();
    let [incident] = &store.incidents(&all(10)).unwrap()[..] else { panic!() };
    assert_eq!((incident.first_seen, incident.last_seen), (wall(0), wall(20)));
    assert_eq!((incident.responded_at, incident.timeout), (Some(wall(0)), Some(Duration::from_secs(580))));
    assert_eq!((incident.offences, incident.attempts), (2, 9));
    assert_eq!(incident.line_to_block, Some(Duration::from_micros(700)));
    assert_eq!((incident.outcome, incident.outcome_at), (Outcome::InForce, None));

    store.write(&[ended(&again, End::Lifted, 5)]).unwrap();
    store.write(&[blocked(&first)]).unwrap();
    let outcomes: Vec<_> = store.incidents(&all(10)).unwrap().iter().map(|i| (i.id, i.outcome)).collect();
    assert_eq!(outcomes, [(1, Outcome::Lifted), (2, Outcome::InForce)]);
}

#[test]
fn who_asks_for_a_block_that_stands_has_an_incident_of_their_own() {
    let (directory, mut store) = store();
    let by_rule = block("203.0.113.7", 600);
    let by_hand =
        Block { rule: None, origin: Origin::Operator, reason: "scans".into(), ..block("203.0.113.7", 100) };
    let by_wazuh = Block { origin: Origin::Wazuh, ..by_rule.clone() };
    let asked = |block: &Block, created, at, uid, packets| Write::Blocked {
        block: Block { created: wall(created), ..block.clone() }.into(),
        at: wall(at),
        took: None,
        uid,
        from: (packets, packets * 60),
        dry_run: false,
    };
    let writes = [
        asked(&by_hand, 0, 0, Some(1000), 0),
        asked(&by_rule, 9, 10, None, 5),
        // What the same ones say again is no other incident.
        asked(&by_rule, 9, 15, None, 7),
        asked(&by_hand, 19, 20, Some(1000), 9),
        asked(&by_hand, 19, 25, Some(1000), 10),
        asked(&by_hand, 19, 30, Some(1001), 11),
        asked(&by_wazuh, 39, 40, None, 13),
        ended(&by_wazuh, End::Withdrawn, 20),
    ];
    store.write(&writes).unwrap();
    let incidents = store.incidents(&all(10)).unwrap();
    let told: Vec<_> = incidents
        .iter()
        .map(|i| (i.origin, i.uid, i.first_seen, i.outcome, i.outcome_at, i.outcome_uid, i.dropped_packets))
        .collect();
    use Origin::{Operator, Rule, Wazuh};
    let (lifted, at) = (Outcome::Lifted, |seconds| Some(wall(seconds)));
    assert_eq!(
        told,
        [
            (Operator, Some(1000), wall(0), lifted, at(10), None, 5),
            (Rule, None, wall(9), lifted, at(20), Some(1000), 4),
            (Operator, Some(1000), wall(19), lifted, at(30), Some(1001), 2),
            (Operator, Some(1001), wall(30), lifted, at(40), None, 2),
            (Wazuh, None, wall(39), lifted, at(50), None, 7),
        ]
    );
    let why: Vec<_> = incidents.iter().map(|i| i.outcome_reason.as_deref()).collect();
    let goes_on = |who: &str| Some(format!("{who} asked for it anew; that is an incident of its own"));
    let expected = ["rule 5710", "uid 1000", "uid 1001", "rule 5710"].map(goes_on);
    assert_eq!(why[..4], expected.each_ref().map(Option::as_deref));
    assert_eq!((&*incidents[0].reason, incidents[1].timeout), ("scans", Some(Duration::from_secs(585))));
    assert_eq!(Archive::open(directory.path()).unwrap().verify(&[]).unwrap().faults, []);
}

#[test]
fn a_weaker_block_rests_with_an_incident_and_counts_of_its_own() {
    let (directory, mut store) = store();
    let rate = std::num::NonZeroU32::new(20).unwrap();
    let throttle = Action::Throttle(Rate { per_second: rate, burst: rate });
    let ports = Scope { ports: Ports::new(&[22]).unwrap(), new_only: false };
    let of = |measure, expires| Block { measure, ..block("203.0.113.7", expires) };
    let throttle = of(Measure { action: throttle, ..Measure::default() }, 600);
    let part = of(Measure { scope: ports, ..Measure::default() }, 500);
    let everything = of(Measure::default(), 40);
    let beneath = everything.target;
    let rests = |block: &Block, at, packets| {
        let (block, at) = (block.clone(), wall(at));
        Write::Rests { block: block.into(), at, beneath, packets, bytes: packets * 60 }
    };
    let resumed = |block: &Block, at, packets| Write::Resumed {
        block: block.clone().into(),
        at: wall(at),
        from: (packets, packets * 60),
    };
    let after = |block: &Block, packets| Write::Blocked {
        block: block.clone().into(),
        at: wall(10),
        took: None,
        uid: None,
        from: (packets, packets * 60),
        dry_run: false,
    };
    store.write(&[blocked(&throttle), after(&part, 0), rests(&throttle, 5, 7)]).unwrap();
    store.write(&[after(&everything, 10), rests(&part, 10, 10), counts("203.0.113.7", 30)]).unwrap();
    let mut kept = store.in_force(&now()).unwrap();
    kept.sort_by_key(|block| block.measure.strictness());
    assert_eq!(kept, [throttle.clone(), part.clone(), everything.clone()].map(Arc::new));
    let [first, second, third] = &store.incidents(&all(10)).unwrap()[..] else { panic!() };
    let rest = Some("rests while 203.0.113.7 has a stricter block");
    assert_eq!((first.outcome_reason.as_deref(), first.dropped_packets), (rest, 7));
    assert_eq!((second.outcome_reason.as_deref(), second.dropped_packets), (rest, 10));
    assert_eq!((third.outcome_reason.as_deref(), third.dropped_packets), (None, 20));
    assert!([first, second, third].iter().all(|incident| incident.outcome == Outcome::InForce));

    // A start says again what rests and what does not; nothing is recorded anew.
    let head = store.head();
    store.write(&[rests(&throttle, 20, 0), resumed(&everything, 20, 0)]).unwrap();
    assert_eq!(store.head(), head);

    store.write(&[ended(&part, End::Expired, 0), resumed(&throttle, 50, 45)]).unwrap();
    store.write(&[ended(&everything, End::Expired, 45), ended(&throttle, End::Lifted, 48)]).unwrap();
    let counted: Vec<_> =
        store.incidents(&all(10)).unwrap().iter().map(|i| (i.outcome, i.dropped_packets)).collect();
    assert_eq!(counted, [(Outcome::Lifted, 10), (Outcome::Expired, 10), (Outcome::Expired, 35)]);
    let verified = Archive::open(directory.path()).unwrap().verify(&[]).unwrap();
    assert_eq!(verified.faults, []);
}

#[test]
fn a_store_of_version_2_is_taken_over_and_holds_weaker_blocks_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    store.write(&[blocked(&block("203.0.113.7", 100))]).unwrap();
    drop(store);
    // What version 2 had in the place of today's index.
    let older = Connection::open(directory.path().join(FILE)).unwrap();
    older
        .execute_batch(
            "DROP INDEX incidents_in_force;
             CREATE UNIQUE INDEX incidents_in_force ON incidents (target, ifnull(command, ''))
                 WHERE outcome = 'in_force';
             DROP INDEX incidents_in_dry_run;
             ALTER TABLE incidents DROP COLUMN dry_run;
             PRAGMA user_version = 2;",
        )
        .unwrap();
    drop(older);

    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.migrated(), Some(Migrated { from: 2, to: schema::KNOWN }));
    let ports = Scope { ports: Ports::new(&[22]).unwrap(), new_only: false };
    let weaker =
        Block { measure: Measure { scope: ports, ..Measure::default() }, ..block("203.0.113.7", 200) };
    store.write(&[blocked(&weaker)]).unwrap();
    assert_eq!(store.in_force(&now()).unwrap(), [block("203.0.113.7", 100), weaker].map(Arc::new));
}

#[test]
fn a_trial_without_an_end_is_known_by_the_next_start() {
    let (_directory, mut store) = store();
    let act = |act| Write::Act { at: wall(0), uid: None, act };
    assert!(!store.on_trial().unwrap());
    for end in [Act::TrialConfirmed {}, Act::TrialEnded {}, Act::TrialCutShort {}] {
        store.write(&[act(Act::TrialBegan { for_s: 60 })]).unwrap();
        assert!(store.on_trial().unwrap());
        store.write(&[act(end)]).unwrap();
        assert!(!store.on_trial().unwrap());
    }
}

#[test]
fn the_last_settings_are_the_last_also_by_a_clock_that_was_set_back() {
    let (_directory, mut store) = store();
    for (at, setting) in [(0, "first"), (86_400, "then"), (60, "last")] {
        let settings = vec![setting.to_owned()];
        let (file, digest, changes) = (None, String::new(), Vec::new());
        let act = Act::Config { start: true, file, digest, changes, settings };
        store.write(&[Write::Act { at: wall(at), uid: None, act }]).unwrap();
    }
    assert_eq!(store.last_settings().unwrap(), Some(vec!["last".to_owned()]));
}

#[test]
fn nothing_expires_before_it_began() {
    let (_directory, mut store) = store();
    for (set_to, until) in [(-86_400, -86_400), (90_000, 30)] {
        let block = block("203.0.113.7", 30);
        let at = wall(set_to);
        let (end, reason) = (End::Expired, None);
        let ended =
            Write::Ended { block: block.clone().into(), end, at, packets: 0, bytes: 0, reason, uid: None };
        store.write(&[blocked(&block), ended]).unwrap();
        assert_eq!(store.incidents(&all(1)).unwrap()[0].outcome_at, Some(wall(30)));
        // Offenders are forgotten by the clock as it is.
        assert_eq!(store.offenders(wall(-90_000)).unwrap()[0].until, wall(until));
    }
}

#[test]
fn every_end_is_an_outcome_with_its_reason() {
    let (_directory, mut store) = store();
    let ends = [End::Expired, End::Lifted, End::Evicted, End::Protected, End::Failed, End::Withdrawn];
    for (index, end) in ends.into_iter().enumerate() {
        let block = block(&format!("203.0.113.{index}"), 30);
        store.write(&[blocked(&block), ended(&block, end, 2)]).unwrap();
    }
    let never = block("203.0.113.9", 30);
    let failed = Write::Ended {
        block: never.clone().into(),
        end: End::Failed,
        at: wall(1),
        packets: 0,
        bytes: 0,
        reason: Some("the kernel's table is full".to_owned()),
        uid: None,
    };
    store.write(&[failed]).unwrap();

    let incidents = store.incidents(&all(10)).unwrap();
    let outcomes: Vec<_> = incidents.iter().map(|incident| incident.outcome).collect();
    use Outcome::{Expired, Failed, Lifted};
    assert_eq!(outcomes, [Expired, Lifted, Lifted, Lifted, Failed, Lifted, Failed]);
    assert_eq!(incidents[0].outcome_at, Some(wall(30)), "when it was due, not when somebody looked");
    assert_eq!(incidents[1].outcome_at, Some(wall(50)));
    assert!(incidents[2].outcome_reason.as_ref().unwrap().starts_with("evicted"));
    assert!(incidents[3].outcome_reason.as_ref().unwrap().starts_with("protected"));
    assert_eq!(incidents[6].outcome_reason.as_deref(), Some("the kernel's table is full"));
    assert_eq!(incidents[6].responded_at, None, "the kernel never had it");
    assert_eq!(store.in_force(&now()).unwrap(), []);
}

#[test]
fn what_was_refused_is_on_record() {
    let (_directory, mut store) = store();
    let target = target("203.0.113.7");
    let because = Refusal::Protected(Protection { target, protected: target, by: Protector::Allowed });
    let refused = Refused { block: block("203.0.113.7", 100), because: because.clone() };
    store.write(&[Write::Refused { refused: refused.into(), at: wall(3) }]).unwrap();
    let [incident] = &store.incidents(&all(10)).unwrap()[..] else { panic!() };
    assert_eq!(incident.outcome, Outcome::Refused);
    assert_eq!(incident.outcome_reason, Some(because.to_string()));
    assert_eq!((incident.responded_at, incident.outcome_at), (None, Some(wall(3))));
    assert_eq!(store.in_force(&now()).unwrap(), []);
    assert_eq!(store.offenders(wall(-100)).unwrap(), []);
}

#[test]
fn counts_survive_that_the_gate_begins_anew() {
    let (_directory, mut store) = store();
    let block = block("203.0.113.7", 100);
    store.write(&[blocked(&block), counts("203.0.113.7", 100), counts("203.0.113.7", 250)]).unwrap();
    // The reboot.
    store.write(&[counts("203.0.113.7", 40), ended(&block, End::Expired, 60)]).unwrap();
    // Of nobody's block.
    store.write(&[counts("203.0.113.7", 1000), counts("203.0.113.8", 1000)]).unwrap();
    let [incident] = &store.incidents(&all(10)).unwrap()[..] else { panic!() };
    assert_eq!((incident.dropped_packets, incident.dropped_bytes), (310, 310 * 60));
    store.write(&[blocked(&block), counts("203.0.113.7", u64::MAX), counts("203.0.113.7", 5)]).unwrap();
    assert_eq!(store.incidents(&all(1)).unwrap()[0].dropped_packets, i64::MAX.cast_unsigned());
}

#[test]
fn offenders_are_remembered_by_when_their_block_ends() {
    let (_directory, mut store) = store();
    let (a, b) = (Block { offences: 3, ..block("203.0.113.7", 100) }, block("203.0.113.8", 900));
    let by_hand = Block { origin: Origin::Operator, ..block("203.0.113.9", 900) };
    let failed = block("203.0.113.10", 900);
    store.write(&[blocked(&a), blocked(&b), blocked(&by_hand), blocked(&failed)]).unwrap();
    store.write(&[ended(&b, End::Withdrawn, 0), ended(&failed, End::Failed, 0)]).unwrap();
    let offender = |text, offences, until| Offender { target: target(text), offences, until: wall(until) };
    let expected = [offender("203.0.113.8", 1, 50), offender("203.0.113.7", 3, 100)];
    assert_eq!(store.offenders(wall(0)).unwrap(), expected);
    assert_eq!(store.offenders(wall(51)).unwrap(), expected[1..]);
}

#[test]
fn an_offence_whose_block_was_a_mistake_is_taken_back() {
    for end in [End::Lifted, End::Protected] {
        let (_directory, mut store) = store();
        let (a, b) = (Block { offences: 3, ..block("203.0.113.7", 100) }, block("203.0.113.8", 900));
        let by_hand = Block { origin: Origin::Operator, ..b.clone() };
        store.write(&[blocked(&a), ended(&a, end, 0), blocked(&b)]).unwrap();
        let offences = |store: &Store| {
            let offenders = store.offenders(wall(-100)).unwrap();
            offenders.iter().map(|offender| (offender.target, offender.offences)).collect::<Vec<_>>()
        };
        store.write(&[ended(&by_hand, end, 0)]).unwrap();
        assert_eq!(offences(&store), [(a.target, 2), (b.target, 1)], "an operator's block is no offence");
        store.write(&[blocked(&b), ended(&b, end, 0)]).unwrap();
        assert_eq!(offences(&store), [(a.target, 2)]);
    }
}

#[test]
fn the_latest_logins_are_kept() {
    let (_directory, mut store) = store();
    let login = |port: u16| Login {
        address: "2001:db8::7".parse().unwrap(),
        port: Some(port),
        pid: Some(u32::MAX),
        at: wall(port.into()),
        public_key: true,
    };
    let ports = 0..u16::try_from(MAX_LOGINS).unwrap() + 10;
    let writes: Vec<_> = ports.map(login).map(Write::Login).collect();
    store.write(&writes).unwrap();
    let logins = store.logins().unwrap();
    assert_eq!(logins.len(), MAX_LOGINS as usize);
    assert_eq!(logins[0], login(10));
}

#[test]
fn it_is_the_owners_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    let mut store = Store::open(&directory).unwrap();
    store.write(&[position(1)]).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in directory.read_dir().unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[test]
fn one_controller_at_a_time() {
    let (directory, store) = store();
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    let other = Connection::open(store.path()).unwrap();
    let incidents: u32 = other.query_row("SELECT count(*) FROM incidents", [], |row| row.get(0)).unwrap();
    assert_eq!(incidents, 0, "others can read it meanwhile");
    drop(store);
    Store::open(directory.path()).unwrap();
}

#[test]
fn what_is_no_store_of_ours_is_left_alone() {
    let opened = |prepare: &dyn Fn(&Path)| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        prepare(&path);
        let before = fs::read(&path).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), before, "{error}");
        error
    };
    let error = opened(&|path| fs::write(path, "a text that somebody put here\n".repeat(100)).unwrap());
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
    let error = opened(&|path| Connection::open(path).unwrap().execute_batch("CREATE TABLE t (c)").unwrap());
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    let error = opened(&|path| {
        drop(Store::open(path.parent().unwrap()).unwrap());
        Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    });
    assert!(matches!(error, StoreError::Newer { found: 99, known: schema::KNOWN, .. }), "{error}");

    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join(FILE)).unwrap();
    assert!(matches!(Store::open(directory.path()).unwrap_err(), StoreError::File { .. }));
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Store::open(&file).unwrap_err(), StoreError::Directory { .. }));
}

#[test]
fn damage_is_said() {
    let (directory, mut store) = store();
    let writes: Vec<_> = (0..200).map(|index| blocked(&block(&format!("10.0.0.{index}"), 100))).collect();
    store.write(&writes).unwrap();
    drop(store);
    let path = directory.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    // All but the first page, with the schema, which says whose the file is.
    bytes[4096..4096 * pages].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let error = Store::open(directory.path()).and_then(|store| store.incidents(&all(10))).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    let (_directory, mut store) = self::store();
    store.write(&[blocked(&block("203.0.113.7", 100))]).unwrap();
    store.connection.execute("UPDATE incidents SET key = x'00'", []).unwrap();
    let error = store.in_force(&now()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// Runs `test` with a file system of its own of `size`, which goes with the thread.
fn with_tmpfs(size: &'static str, test: impl FnOnce(&Path) + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it mounts in a namespace of its own");
    std::thread::spawn(move || {
        let directory = tempfile::tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("test"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some(size)).unwrap();
        test(directory.path());
        // Another test may be starting a process, which has the files open until it is another program.
        nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn a_full_disk_loses_nothing_that_is_written_again() {
    with_tmpfs("size=512k", |directory| {
        let mut store = Store::open(directory).unwrap();
        store.write(&[blocked(&block("203.0.113.7", 100)), position(1)]).unwrap();
        let ballast = directory.join("ballast");
        let full = fs::write(&ballast, vec![0; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

        let evidence: Vec<Arc<str>> = vec!["x".repeat(4000).into(); 20];
        let writes = [blocked(&Block { evidence, ..block("203.0.113.8", 100) }), position(2)];
        for _ in 0..2 {
            let error = store.write(&writes).unwrap_err();
            assert!(matches!(error, StoreError::Full { .. }), "{error}");
        }
        let offset = |store: &Store| match store.positions().unwrap().values().next().unwrap() {
            Position::File { offset, .. } => *offset,
            Position::Journal { .. } => panic!(),
        };
        assert_eq!((store.in_force(&now()).unwrap().len(), offset(&store)), (1, 1), "none of them is there");

        fs::remove_file(&ballast).unwrap();
        store.write(&writes).unwrap();
        assert_eq!((store.in_force(&now()).unwrap().len(), offset(&store)), (2, 2));
    });
}

#[test]
fn on_a_read_only_file_system_it_is_read_and_written_later() {
    with_tmpfs("size=4m", |directory| {
        let first = block("192.0.2.1", 1000);
        let mut store = Store::open(directory).unwrap();
        store.write(&[blocked(&first)]).unwrap();
        let head = store.head();
        drop(store);
        let remount = |flags| {
            mount(Some("test"), directory, Some("tmpfs"), MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
        };
        remount(MsFlags::MS_RDONLY);
        let mut store = Store::open(directory).unwrap();
        assert_eq!((store.in_force(&now()).unwrap().len(), store.head()), (1, head));
        let writes = [blocked(&block("192.0.2.2", 1000))];
        let error = store.write(&writes).unwrap_err();
        assert!(error.is_read_only(), "{error}");
        assert!(store.prune(&Keep::default(), now().wall).is_err());
        remount(MsFlags::empty());
        store.write(&writes).unwrap();
        assert_eq!(store.in_force(&now()).unwrap().len(), 2);
    });
}

/// The variable that makes a process of this test write until it is killed.
const VICTIM: &str = "XDPBAN_TEST_VICTIM";

#[test]
fn a_killed_writer_leaves_whole_transactions() {
    if let Ok(directory) = std::env::var(VICTIM) {
        let mut store = Store::open(Path::new(&directory)).unwrap();
        for number in 0_u32.. {
            let target = Target::exact(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into());
            let block = Block { target, ..block("10.0.0.0", 1000) };
            store.write(&[blocked(&block), position(number.into())]).unwrap();
            println!("\nwrote {number}");
        }
    }
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::a_killed_writer_leaves_whole_transactions", "--nocapture"])
            .env(VICTIM, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
        let wrote = |line: &String| line.starts_with("wrote ");
        assert!(said.by_ref().filter(wrote).nth(300).is_some());
        victim.kill().unwrap();
        victim.wait().unwrap();
        let last = said.filter(wrote).last().map_or(300, |line| line["wrote ".len()..].parse().unwrap());

        let store = Store::open(directory.path()).unwrap();
        let kept = store.in_force(&now()).unwrap().len() as u64;
        assert!(kept > last, "{last} was confirmed, and {kept} are there");
        let Write::Position { key, position } = position(kept - 1) else { unreachable!() };
        assert_eq!(store.positions().unwrap(), HashMap::from([(key, position)]));
    }
}

/// A writer and what it says of its health.
fn writer(directory: &Path) -> (Writer, mpsc::Receiver<Health>) {
    let (sender, health) = mpsc::channel();
    let store = Store::open(directory).unwrap();
    (Writer::start(store, Keep::default(), move |news| sender.send(news).unwrap()).unwrap(), health)
}

#[tokio::test]
async fn a_question_sees_what_was_recorded_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, _health) = writer(directory.path());
    let reader = writer.reader();
    for index in 0..50 {
        writer.record([blocked(&block(&format!("203.0.113.{index}"), 100))]);
        let started = Instant::now();
        assert_eq!(reader.incidents(all(100)).await.unwrap().len(), index + 1);
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    writer.record([position(9)]);
    writer.close(Duration::from_secs(60)).await.unwrap();
    assert!(matches!(reader.incidents(all(1)).await, Err(StoreError::Closed)));
    assert_eq!(Store::open(directory.path()).unwrap().positions().unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_written_is_kept_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, health) = writer(directory.path());
    let mut other = Connection::open(directory.path().join(FILE)).unwrap();
    let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    writer.record([blocked(&block("203.0.113.7", 100))]);
    let news = health.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(
        matches!(&news, Health::Failing { message } if message.contains("another program has locked it"))
    );
    let started = Instant::now();
    for number in 0..500 {
        writer.record([position(number), blocked(&block("203.0.113.8", 100))]);
    }
    assert!(started.elapsed() < Duration::from_secs(1), "to record never waits");
    lock.rollback().unwrap();
    assert_eq!(health.recv_timeout(Duration::from_secs(5)).unwrap(), Health::Recovered);
    writer.close(Duration::from_secs(60)).await.unwrap();
    assert_eq!(Store::open(directory.path()).unwrap().incidents(&all(10)).unwrap().len(), 2);
}

#[tokio::test]
async fn close_has_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, _health) = writer(directory.path());
    let mut other = Connection::open(directory.path().join(FILE)).unwrap();
    let _lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    writer.record([position(1)]);
    let started = Instant::now();
    assert_eq!(writer.close(Duration::from_secs(60)).await, Err(Unwritten { count: 1 }));
    assert!(started.elapsed() < Duration::from_secs(10), "who keeps it locked is not waited for");
}

mod query;
mod record;
mod version_1;

#[test]
fn the_record_is_brought_to_what_is_blocked() {
    let (directory, mut store) = store();
    let [known, gone, unknown] = ["203.0.113.1", "203.0.113.2", "203.0.113.3"].map(|text| block(text, 100));
    let ports = Scope { ports: Ports::new(&[22]).unwrap(), new_only: false };
    let resting = Block { measure: Measure { scope: ports, ..Measure::default() }, ..known.clone() };
    store.write(&[blocked(&known), blocked(&gone)]).unwrap();
    let plain = |target| (target, Strictness::Everything);
    let in_force = || {
        let mut parts = Vec::new();
        let archive = Archive::open(directory.path()).unwrap();
        archive
            .each_in_force(1, |targets| {
                parts.push(targets);
                true
            })
            .unwrap();
        let mut targets = parts.concat();
        targets.sort();
        targets
    };
    assert_eq!(in_force(), [known.target, gone.target].map(plain));

    let standing = [(&known, None), (&resting, Some(known.target)), (&unknown, None)];
    let standing = standing.map(|(block, beneath)| (block.clone().into(), beneath)).to_vec();
    let standing = Write::Standing { blocks: standing, at: wall(7), dry_run: false };
    let not_blocked = [gone.target, target("203.0.113.4")].map(plain).to_vec();
    let not_standing = Write::NotStanding { blocks: not_blocked, at: wall(8) };
    for _ in 0..2 {
        store.write(&[standing.clone(), not_standing.clone()]).unwrap();
        let partly = (known.target, Strictness::Part);
        assert_eq!(in_force(), [partly, plain(known.target), plain(unknown.target)]);
        let incidents = store.incidents(&IncidentQuery::default()).unwrap();
        assert_eq!(
            incidents.iter().map(|one| one.target).collect::<Vec<_>>(),
            [known.target, gone.target, known.target, unknown.target]
        );
        assert_eq!((incidents[1].outcome, incidents[1].outcome_at), (Outcome::Lifted, Some(wall(8))));
        let rests = Some("rests while 203.0.113.1 has a stricter block");
        assert_eq!((incidents[2].outcome, incidents[2].outcome_reason.as_deref()), (Outcome::InForce, rests));
        assert_eq!((incidents[3].users.len(), incidents[3].responded_at), (2, Some(wall(7))));
        assert_eq!(incidents[3].outcome_reason, None);
    }
}

#[test]
fn what_is_dropped_and_what_would_be_are_never_one_number() {
    let (directory, mut store) = store();
    let known = |store: &Store| -> Vec<(bool, u64, Outcome)> {
        let incidents = store.incidents(&all(10)).unwrap();
        incidents
            .iter()
            .map(|incident| (incident.dry_run, incident.dropped_packets, incident.outcome))
            .collect()
    };
    let block: Arc<Block> = block("203.0.113.7", 100).into();
    let blocked = Write::Blocked {
        block: Arc::clone(&block),
        at: wall(0),
        took: None,
        uid: Some(7),
        from: (0, 0),
        dry_run: true,
    };
    let switched = |dry_run, packets| {
        let block = Arc::clone(&block);
        Write::Switched { block, at: wall(9), dry_run, packets, bytes: packets * 60 }
    };
    store.write(&[blocked, counts("203.0.113.7", 3)]).unwrap();
    assert_eq!((store.is_switched(true).unwrap(), store.is_switched(false).unwrap()), (false, true));
    store.write(&[switched(true, 4)]).unwrap();
    assert_eq!(known(&store), [(true, 3, Outcome::InForce)], "it is so already");
    store.write(&[switched(false, 5), switched(false, 6), counts("203.0.113.7", 12)]).unwrap();
    assert_eq!(known(&store), [(true, 5, Outcome::Lifted), (false, 7, Outcome::InForce)]);
    assert_eq!((store.is_switched(true).unwrap(), store.is_switched(false).unwrap()), (true, false));
    store.write(&[switched(true, 20)]).unwrap();
    assert_eq!(known(&store)[1..], [(false, 15, Outcome::Lifted), (true, 0, Outcome::InForce)]);
    assert_eq!(store.incidents(&all(10)).unwrap()[2].uid, Some(7));

    // Whoever changes afterwards which it was is found.
    let verify = || Archive::open(directory.path()).unwrap().verify(&[]).unwrap().faults.len();
    assert_eq!(verify(), 0);
    for (id, otherwise) in [(1, 0), (2, 1)] {
        let set = |value| {
            let sql = format!("UPDATE incidents SET dry_run = {value} WHERE id = {id}");
            Connection::open(store.path()).unwrap().execute_batch(&sql).unwrap();
        };
        set(otherwise);
        assert_eq!(verify(), 1, "{id}");
        set(1 - otherwise);
    }
}
