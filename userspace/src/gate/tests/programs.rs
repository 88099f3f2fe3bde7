//! The programs, run on frames by the kernel: all of them must agree, and count alike.

use aya::programs::ProgramError;
use aya::{TestRun, TestRunOptions};

use super::*;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;

/// A program that judges what an interface receives, and counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judge {
    Xdp(&'static str),
    Tc,
}

impl Judge {
    /// Those that this kernel can have.
    pub(super) fn all() -> Vec<Judge> {
        xdp_entries().iter().copied().map(Judge::Xdp).chain([Judge::Tc]).collect()
    }

    /// Whether the program drops the frame.
    pub(super) fn drops(self, gate: &mut Gate, frame: &[u8]) -> Result<bool, ProgramError> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let (result, drop, pass) = match self {
            Judge::Xdp(name) => {
                (load::xdp(&mut gate.programs, name).unwrap().test_run(options)?, XDP_DROP, XDP_PASS)
            }
            Judge::Tc => {
                (load::classifier(&mut gate.programs).unwrap().test_run(options)?, TC_ACT_SHOT, TC_ACT_UNSPEC)
            }
        };
        let verdict = result.return_value;
        assert!(verdict == drop || verdict == pass, "{self:?} returned {verdict}");
        Ok(verdict == drop)
    }
}

/// What every program makes of a frame while the gate enforces. They must agree, and count it.
pub(super) fn outcome(gate: &mut Gate, frame: &[u8]) -> Outcome {
    outcome_by(gate, frame, &Judge::all())
}

/// The same, but for the classifier, which the kernel does not run on an IP packet that is cut short.
pub(super) fn xdp_outcome(gate: &mut Gate, frame: &[u8]) -> Outcome {
    let judges: Vec<_> = Judge::all().into_iter().filter(|judge| *judge != Judge::Tc).collect();
    outcome_by(gate, frame, &judges)
}

fn outcome_by(gate: &mut Gate, frame: &[u8], judges: &[Judge]) -> Outcome {
    let mut totals = gate.totals().unwrap();
    let outcome = probe(gate, frame);
    assert_eq!(gate.totals().unwrap(), totals, "the probe counts nothing");
    for judge in judges {
        assert_eq!(judge.drops(gate, frame).unwrap(), outcome.drops(), "{judge:?} {outcome:?}");
        totals.packets[outcome as usize] += 1;
        if outcome.drops() {
            totals.dropped_bytes += frame.len() as u64;
        }
        assert_eq!(gate.totals().unwrap(), totals, "{judge:?} counts");
    }
    outcome
}

/// What the probe says.
pub(super) fn probe(gate: &mut Gate, frame: &[u8]) -> Outcome {
    let program = load::xdp(&mut gate.programs, program::PROBE).unwrap();
    Outcome::from_number(selftest::test_run(program, program::PROBE, frame).unwrap()).unwrap()
}
