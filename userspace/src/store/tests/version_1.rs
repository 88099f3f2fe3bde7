//! Taking over what version 1 left.

use super::record::records;
use super::*;

/// A store as version 1 of its schema left it, with an incident of each kind.
fn version_1(directory: &Path) {
    let other = Connection::open(directory.join(FILE)).unwrap();
    other.pragma_update(None, "journal_mode", "WAL").unwrap();
    other.execute_batch(schema::VERSION_1).unwrap();
    other.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    other.pragma_update(None, "user_version", 1).unwrap();
    other
        .execute_batch(
            r#"INSERT INTO incidents (id, first_seen, last_seen, responded_at, target, rule_id, rule_level,
                   rule_description, reason, origin, offences, attempts, users, evidence, action, timeout_us,
                   expires_at, line_to_block_us, dropped_packets, dropped_bytes, read_packets, read_bytes,
                   outcome, outcome_at, outcome_reason)
               VALUES
                   (3, 1795420000000000, 1795420001000000, 1795420000000700, '203.0.113.7', 5710, 5,
                    'unknown user', 'unknown user', 'rule', 2, 3, '["admin","a\"\\b"]',
                    '["Invalid user admin from 203.0.113.7"]', 'block', 100000000, 1795420100000000, 700,
                    12, 720, 5, 300, 'in_force', NULL, NULL),
                   (4, 1795420002000000, 1795420002000000, 1795420002000000, '2001:db8::/64', NULL, NULL,
                    NULL, 'by hand', 'operator', 1, 0, '[]', '[]', 'block', NULL, NULL, NULL,
                    0, 0, 0, 0, 'lifted', 1795420003000000, 'by hand');
               INSERT INTO offenders VALUES ('203.0.113.7', 2, 1795420100000000);
               INSERT INTO positions VALUES ('journal', NULL, NULL, NULL, NULL, 's=1');
               INSERT INTO logins (address, port, pid, at, public_key) VALUES ('192.0.2.1', 1, 2, 3, 1);"#,
        )
        .unwrap();
}

#[test]
fn a_store_of_version_1_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    version_1(directory.path());
    let error = Archive::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Older { found: 1, .. }), "{error}");

    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.migrated(), Some(Migrated { from: 1, to: schema::KNOWN }));
    let incidents = store.incidents(&all(10)).unwrap();
    let outcomes: Vec<_> = incidents.iter().map(|incident| (incident.id, incident.outcome)).collect();
    assert_eq!(outcomes, [(3, Outcome::InForce), (4, Outcome::Lifted)]);
    assert_eq!(incidents[0].users, ["admin".into(), Arc::from("a\"\\b")]);
    assert_eq!((incidents[0].dropped_packets, incidents[0].target), (12, target("203.0.113.7")));
    assert_eq!(store.in_force(&now()).unwrap().len(), 1);
    assert_eq!((store.offenders(wall(0)).unwrap().len(), store.logins().unwrap().len()), (1, 1));
    assert_eq!(store.positions().unwrap().len(), 1);
    let by_user = IncidentQuery { user: Some("admin".to_owned()), ..all(10) };
    assert_eq!(store.incidents(&by_user).unwrap().len(), 1);

    // Its counts go on where they stood, and ids where they ended.
    store.write(&[counts("203.0.113.7", 6), blocked(&block("203.0.113.8", 100))]).unwrap();
    let incidents = store.incidents(&all(10)).unwrap();
    assert_eq!((incidents[0].dropped_packets, incidents[1].id), (13, 5));
    drop(store);
    assert_eq!(Store::open(directory.path()).unwrap().migrated(), None);
    let records = records(directory.path());
    let kinds: Vec<_> = records.iter().map(|record| (record.seq, &*record.kind, record.incident)).collect();
    assert_eq!(
        kinds,
        [
            (1, "incident.migrated", Some(3)),
            (2, "incident.migrated", Some(4)),
            (3, "incident.opened", Some(5))
        ]
    );
}
