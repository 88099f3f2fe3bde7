//! Questions for incidents.

use super::*;

#[test]
fn an_address_is_found_in_every_prefix_that_contains_it() {
    let (_directory, mut store) = store();
    let targets = ["203.0.113.7", "203.0.113.0/24", "0.0.0.0/0", "203.0.113.8", "2001:db8::/64", "::/0"];
    for text in targets {
        store.write(&[blocked(&block(text, 100))]).unwrap();
    }
    let found = |text, limit| -> Vec<String> {
        let query = IncidentQuery { target: Some(target(text)), ..all(limit) };
        store.incidents(&query).unwrap().iter().map(|incident| incident.target.to_string()).collect()
    };
    assert_eq!(found("203.0.113.7", 10), ["203.0.113.7", "203.0.113.0/24", "0.0.0.0/0"]);
    assert_eq!(found("203.0.113.7", 2), ["203.0.113.0/24", "0.0.0.0/0"], "the newest, oldest first");
    assert_eq!(found("2001:db8::9", 10), ["2001:db8::/64", "::/0"]);
    assert_eq!(found("2001:db8::/64", 10), ["2001:db8::/64", "::/0"]);
    assert_eq!(found("198.51.100.1", 10), ["0.0.0.0/0"]);
}

#[test]
fn no_question_goes_through_rows_that_are_not_asked_for() {
    let (_directory, store) = store();
    let all = all(5);
    let queries = [
        all.clone(),
        IncidentQuery { target: Some(target("203.0.113.7")), ..all.clone() },
        IncidentQuery { target: Some(target("203.0.113.0/24")), ..all.clone() },
        IncidentQuery { since: Some(wall(0)), until: Some(wall(1)), ..all.clone() },
        IncidentQuery { rule: Some(RuleId(5710)), ..all.clone() },
        IncidentQuery { user: Some("admin".to_owned()), ..all.clone() },
        IncidentQuery { outcome: Some(Outcome::Failed), since: Some(wall(0)), ..all.clone() },
        IncidentQuery { changed_after: Some(7), ..all },
    ];
    let sqls = queries.map(|query| query.sql(&store.connection).unwrap().0);
    let others = [
        "SELECT * FROM incidents WHERE outcome = 'in_force' AND command IS NULL ORDER BY first_seen, id",
        "SELECT id FROM incidents WHERE target = 'x' AND ifnull(command, '') = '' AND outcome = 'in_force'",
        "SELECT * FROM offenders WHERE until >= 1 AND offences > 0 ORDER BY until",
    ];
    for sql in sqls.iter().map(String::as_str).chain(others) {
        let mut statement = store.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let values = vec![rusqlite::types::Null; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(values), |row| row.get("detail"))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let scans = plan
            .iter()
            .filter(|step| step.starts_with("SCAN") && !step.contains("COVERING INDEX incidents_by_time"));
        assert_eq!(scans.count(), 0, "{sql}: {plan:?}");
    }
}

/// A store with incidents that differ in each thing that can be asked for, some of them common and some rare.
fn varied() -> (TempDir, Store) {
    let (directory, mut store) = store();
    for number in 0..300_i64 {
        let common = number % 3;
        let begun = Block {
            created: wall(number / 2),
            rule: Some(RuleRef {
                id: RuleId(if number % 90 == 7 { 5719 } else { 5710 }),
                level: 5,
                description: "a rule".into(),
            }),
            users: vec!["root".into(), format!("user{common}").into()],
            ..block(&format!("203.0.{common}.{}", number % 250), 100)
        };
        let begun = if number % 40 == 0 { Block { target: target("2001:db8::/64"), ..begun } } else { begun };
        let end = match number % 60 {
            11 => End::Failed,
            17 => End::Lifted,
            _ => End::Expired,
        };
        store.write(&[blocked(&begun), ended(&begun, end, 0)]).unwrap();
    }
    (directory, store)
}

#[test]
fn each_combination_of_conditions_finds_those_that_meet_all_of_them() {
    let (_directory, store) = varied();
    let everything = store.incidents(&all(1000)).unwrap();
    assert_eq!(everything.len(), 300);
    let after = everything[200].record;
    let mut compared = 0;
    for pick in 0..3 * 3 * 3 * 3 * 4 * 2 * 2 {
        let mut rest = pick;
        let mut of = |many: usize| {
            let choice = rest % many;
            rest /= many;
            choice
        };
        let query = IncidentQuery {
            since: [None, Some(wall(20)), Some(wall(148))][of(3)],
            rule: [None, Some(RuleId(5710)), Some(RuleId(5719))][of(3)],
            outcome: [None, Some(Outcome::Expired), Some(Outcome::Failed)][of(3)],
            user: [None, Some("root"), Some("user1")][of(3)].map(str::to_owned),
            target: [None, Some("203.0.0.0/16"), Some("203.0.1.7"), Some("2001:db8::5")][of(4)].map(target),
            until: [None, Some(wall(140))][of(2)],
            changed_after: [None, Some(after)][of(2)],
            ..IncidentQuery::default()
        };
        let meets = |incident: &&Incident| {
            query.since.is_none_or(|since| incident.first_seen >= since)
                && query.until.is_none_or(|until| incident.first_seen < until)
                && query.rule.is_none_or(|rule| incident.rule.as_ref().is_some_and(|of| of.id == rule))
                && query.outcome.is_none_or(|outcome| incident.outcome == outcome)
                && query.user.as_ref().is_none_or(|user| incident.users.iter().any(|of| **of == **user))
                && query.changed_after.is_none_or(|seq| incident.record > seq)
                && query.target.is_none_or(|target| target.overlaps(&incident.target))
        };
        let expected: Vec<i64> = everything.iter().filter(meets).map(|incident| incident.id).collect();
        let ids = |limit| -> Vec<i64> {
            let query = IncidentQuery { limit, ..query.clone() };
            store.incidents(&query).unwrap().iter().map(|incident| incident.id).collect()
        };
        assert_eq!(ids(None), expected, "{query:?}");
        assert_eq!(ids(Some(1000)), expected, "{query:?}");
        assert_eq!(ids(Some(7)), expected[expected.len().saturating_sub(7)..], "{query:?}");
        compared += expected.len();
    }
    assert!(compared > 10_000, "most of them were empty: {compared}");
}

#[test]
fn a_store_of_version_2_is_taken_over() {
    let (directory, store) = varied();
    store
        .connection
        .execute_batch(
            "DROP INDEX incidents_by_time; CREATE INDEX incidents_by_time ON incidents (first_seen, id);
             DROP INDEX incidents_in_dry_run;
             ALTER TABLE incidents DROP COLUMN dry_run;
             PRAGMA user_version = 2",
        )
        .unwrap();
    drop(store);
    let error = Archive::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Older { found: 2, .. }), "{error}");
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.migrated(), Some(Migrated { from: 2, to: schema::KNOWN }));
    assert_eq!(store.incidents(&all(1000)).unwrap().len(), 300);
}
