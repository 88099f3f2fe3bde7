//! The programs against the [`reference`](super::reference), on random packets and tables. `PROPTEST_CASES` says for how
//! many tables, and `PROPTEST_RNG_SEED` which.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering::Relaxed;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use xdpban_engine::measure::Action;

use super::programs::{Judge, probe};
use super::random::{Frame, Round, round};
use super::reference::{Block, Reference};
use super::*;

/// How often the tables of one case are changed, with [`random::FRAMES`](super::random::FRAMES) after each change.
const ROUNDS: usize = 2;

/// How long to look for a smaller case than one that failed, in milliseconds.
const SHRINK_MS: u32 = 30_000;

/// How long the one token of each bucket takes to come back.
const TOKEN_NS: u64 = 1_000_000_000;

/// The longest tick of a kernel, and as much again.
const TICK_NS: u64 = 20_000_000;

#[test]
fn the_programs_do_what_is_specified() {
    with_gate(|gate| {
        let config = Config { failure_persistence: None, max_shrink_time: SHRINK_MS, ..Config::default() };
        let seed = match config.rng_seed {
            RngSeed::Fixed(seed) => seed,
            RngSeed::Random => RandomState::new().hash_one(0),
        };
        let config = Config { rng_seed: RngSeed::Fixed(seed), ..config };
        let mut runner = TestRunner::new(config);
        let gate = RefCell::new(gate);
        let (tables, frames) = (Cell::new(0), Cell::new(0));
        let failed = runner.run(&vec(round(), ROUNDS), |rounds| {
            tables.set(tables.get() + 1);
            frames.set(frames.get() + rounds.iter().map(|round| round.frames.len()).sum::<usize>());
            check(&mut gate.borrow_mut(), &rounds)
        });
        match failed {
            Ok(()) => {
                println!("{} frames with {} tables, PROPTEST_RNG_SEED={seed}", frames.get(), tables.get())
            }
            Err(TestError::Fail(why, rounds)) => {
                panic!("{why}\nPROPTEST_RNG_SEED={seed}; at least:\n{rounds:?}")
            }
            Err(TestError::Abort(why)) => panic!("{why}"),
        }
    });
}

/// Carries the rounds out and compares what becomes of each frame, and what was counted in each round.
fn check(gate: &mut Gate, rounds: &[Round]) -> Result<(), TestCaseError> {
    clear(gate);
    let mut reference = Reference::default();
    for round in rounds {
        lift(gate, &mut reference, round)?;
        block(gate, &mut reference, round)?;
        gate.set_allow(&round.allowed).unwrap();
        gate.set_dry_run(round.dry_run);
        reference.allowed = round.allowed.clone();
        reference.dry_run = round.dry_run;

        reference.totals = gate.totals().unwrap();
        let start = clock::now().mono;
        for frame in &round.frames {
            judge(gate, &mut reference, frame)?;
        }
        prop_assert_eq!(gate.totals().unwrap(), reference.totals, "totals");
        for (target, block) in &reference.blocks {
            let entry = gate.entry(target).unwrap();
            prop_assert_eq!(
                (entry.packets, entry.bytes),
                (block.packets, block.bytes),
                "counts of {}",
                target
            );
            check_bucket(gate, target, block, start)?;
        }
        prop_assert_eq!(gate.entries().count(), reference.blocks.len());
    }
    Ok(())
}

fn lift(gate: &mut Gate, reference: &mut Reference, round: &Round) -> Result<(), TestCaseError> {
    for place in &round.lifted {
        let targets: Vec<Target> = reference.blocks.keys().copied().collect();
        if targets.is_empty() {
            break;
        }
        let target = place.get(&targets);
        let last = gate.remove(&[*target])[0].map(|entry| (entry.packets, entry.bytes));
        let block = reference.blocks.remove(target).map(|block| (block.packets, block.bytes));
        prop_assert_eq!(last, block, "final counts of {}", target);
    }
    Ok(())
}

fn block(gate: &mut Gate, reference: &mut Reference, round: &Round) -> Result<(), TestCaseError> {
    let insertions: Vec<_> = round.blocked.iter().map(|blocked| blocked.insertion()).collect();
    prop_assert!(gate.insert(&insertions).is_empty());
    for blocked in &round.blocked {
        let (packets, bytes) =
            reference.blocks.get(&blocked.target).map_or((0, 0), |block| (block.packets, block.bytes));
        let block = Block {
            is_expired: blocked.is_expired(),
            measure: blocked.measure,
            is_spent: blocked.is_spent,
            packets,
            bytes,
            tokens: 0,
        };
        reference.blocks.insert(blocked.target, block);
    }
    for (target, block) in &mut reference.blocks {
        block.tokens = 0;
        if let Some(full_ns) = gate.tables.bucket(target) {
            full_ns.store(if block.is_spent { NEVER } else { 0 }, Relaxed);
        }
    }
    Ok(())
}

fn judge(gate: &mut Gate, reference: &mut Reference, frame: &Frame) -> Result<(), TestCaseError> {
    let Frame(bytes) = frame;
    let expected = reference.judge(bytes);
    let told = probe(gate, bytes);
    prop_assert_eq!(told, expected.outcome, "the probe on {:?}: {:?}", frame, expected);
    for program in Judge::all() {
        match program.drops(gate, bytes) {
            Ok(drops) => {
                prop_assert_eq!(drops, expected.is_dropped, "{:?} on {:?}: {:?}", program, frame, expected);
                reference.count(&expected, bytes);
            }
            // The kernel builds no socket buffer of a packet without a whole IP header.
            Err(_) if program == Judge::Tc && expected.outcome == Outcome::TooShort => {}
            Err(error) => return Err(TestCaseError::fail(format!("{program:?} on {frame:?}: {error}"))),
        }
    }
    Ok(())
}

/// That so many tokens were taken out of a bucket, which was full at the start or is never to be.
fn check_bucket(gate: &Gate, target: &Target, block: &Block, start: Mono) -> Result<(), TestCaseError> {
    let Some(full_ns) = gate.tables.bucket(target) else {
        prop_assert!(!matches!(block.measure.action, Action::Throttle(_)), "{} has no bucket", target);
        return Ok(());
    };
    let full_ns = full_ns.load(Relaxed);
    if block.is_spent || block.tokens == 0 {
        prop_assert_eq!(full_ns, if block.is_spent { NEVER } else { 0 }, "the bucket of {}", target);
        return Ok(());
    }
    // Full again so many tokens after one of the frames came, by a clock that may be a tick behind.
    let since = full_ns.saturating_sub(block.tokens * TOKEN_NS);
    let meanwhile = start.0 - TICK_NS..=clock::now().mono.0;
    prop_assert!(
        meanwhile.contains(&since),
        "{}: {} tokens, {:?}, {}",
        target,
        block.tokens,
        meanwhile,
        since
    );
    Ok(())
}
