//! All blocks are lifted, some at a time, and others come meanwhile.

use super::rest::{of, told};
use super::*;
use crate::measure::Strictness;

/// A lab with room for so many blocks.
fn lab(blocks: u32) -> Lab {
    Lab::new(Policy { limits: Limits { blocks, ..policy().limits }, ..policy() })
}

fn address(number: u32) -> String {
    std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string()
}

#[test]
fn what_comes_meanwhile_stays() {
    const COUNT: u32 = 3000;
    let mut lab = lab(2 * COUNT);
    for number in 0..COUNT {
        lab.operator(&address(number), (number % 2 == 0).then_some(HOUR)).unwrap();
    }
    lab.changes();
    let mut all = lab.engine.lift_all();
    let (mut freed, mut parts) = (0, 0);
    let mut stay = Vec::new();
    while let Some(some) = lab.engine.lift_some(&mut all, lab.now) {
        let changes = lab.changes();
        assert!(changes.len() <= 1024 && ends(&changes).len() == some, "{} at once", changes.len());
        freed += some;
        parts += 1;
        // Another one, one that was to go yet or has gone, and the end of one that was to go yet.
        for number in [COUNT + parts, parts] {
            lab.operator(&address(number), None).unwrap();
            stay.push(target(&address(number)));
        }
        lab.engine.unblock(&target(&address(20 + parts)), End::Lifted, lab.now);
        lab.changes();
    }
    assert!(parts > 3, "{parts}");
    let mut left: Vec<Target> = lab.engine.blocks().map(|block| block.target).collect();
    left.sort();
    stay.sort();
    assert_eq!(left, stay);
    let [v4, ..] = lab.engine.block_counts();
    assert_eq!(v4 as usize, stay.len());
    // Those are all but the ones that were made anew, or lifted in another way, before it was their turn.
    assert!((COUNT as usize - 2 * parts as usize..=COUNT as usize).contains(&freed), "{freed}");
    assert_eq!(lab.engine.lift_some(&mut all, lab.now), None);
}

#[test]
fn what_rests_goes_first_and_a_target_counts_once() {
    let mut lab = lab(100);
    let request = |text: &str, strictness| BlockRequest {
        target: target(text),
        timeout: None,
        measure: of(strictness),
        reason: "by hand".into(),
    };
    for (text, strictness) in [
        (A, Strictness::Throttle),
        (A, Strictness::Everything),
        (B, Strictness::Part),
        ("203.0.113.0/24", Strictness::Everything),
    ] {
        lab.engine.block(request(text, strictness), lab.now).unwrap();
    }
    lab.changes();
    let mut all = lab.engine.lift_all();
    let (mut freed, mut changes) = (0, Vec::new());
    while let Some(some) = lab.engine.lift_some(&mut all, lab.now) {
        freed += some;
        changes.extend(lab.changes().iter().map(told));
    }
    assert_eq!(freed, 3);
    assert_eq!(
        changes,
        [
            "203.0.113.8: block lifted (Nowhere)",
            "203.0.113.7: throttle lifted (Nowhere)",
            "203.0.113.7: block lifted (Gate)",
            "203.0.113.0/24: block lifted (Gate)",
        ]
    );
}
