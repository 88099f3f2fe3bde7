//! The measures of entries that do something else than drop everything: one [`Special`] each, by number.

use std::num::NonZeroU32;

use xdpban_common::Special;
use xdpban_engine::measure::{Action, Measure, Ports, Rate, Scope};

use super::shared::Shared;

const SECOND_NS: u64 = 1_000_000_000;

/// How many measures there are with that of number 0, so that one entry less can have a measure of its own.
pub(super) const MEASURES: u32 = 65_536;

/// The owner of the map SPECIAL.
pub(super) struct Measures {
    memory: Shared<Special>,
    /// Numbers that are nobody's, the next one last.
    free: Vec<u32>,
}

impl Measures {
    /// `in_use` are the numbers that entries name already.
    pub(super) fn new(memory: Shared<Special>, mut in_use: Vec<u32>) -> Measures {
        in_use.sort_unstable();
        let len = u32::try_from(memory.len()).unwrap_or(u32::MAX);
        let free = (1..len).rev().filter(|number| in_use.binary_search(number).is_err()).collect();
        Measures { memory, free }
    }

    /// A number for `measure`; 0 for the one that drops everything, none where all numbers are in use.
    pub(super) fn add(&mut self, measure: &Measure) -> Option<u32> {
        if *measure == Measure::default() {
            return Some(0);
        }
        let number = self.free.pop()?;
        // No entry names this number, so the program does not look there yet.
        self.memory.write(number as usize, special_of(measure));
        Some(number)
    }

    /// Gives back a number that no entry names any longer; one that there is not, in tables that someone else wrote to, is
    /// nobody's.
    pub(super) fn remove(&mut self, number: u32) {
        if (1..self.memory.len()).contains(&(number as usize)) {
            self.free.push(number);
        }
    }

    /// The measure with this number; none where there is none, in tables that someone else wrote to.
    pub(super) fn get(&self, number: u32) -> Option<Measure> {
        measure_at(&self.memory, number)
    }

    /// When the bucket of the measure with this number will be full again.
    #[cfg(test)]
    pub(super) fn bucket(&self, number: u32) -> &std::sync::atomic::AtomicU64 {
        self.memory.u64(number as usize, std::mem::offset_of!(Special, full_ns))
    }
}

/// The measure with this number in a map SPECIAL.
pub(super) fn measure_at(memory: &Shared<Special>, number: u32) -> Option<Measure> {
    if number == 0 {
        return Some(Measure::default());
    }
    let place = usize::try_from(number).ok().filter(|place| *place < memory.len())?;
    measure_of(&memory.read(place))
}

fn special_of(measure: &Measure) -> Special {
    let mut special = Special { new_only: measure.scope.new_only.into(), ..Special::default() };
    special.ports.iter_mut().zip(measure.scope.ports.iter()).for_each(|(place, port)| *place = port);
    if let Action::Throttle(Rate { per_second, burst }) = measure.action {
        special.token_ns = (SECOND_NS / u64::from(per_second.get())).max(1);
        special.burst_ns = special.token_ns * u64::from(burst.get() - 1);
        special.rate = [per_second.get(), burst.get()];
    }
    special
}

fn measure_of(special: &Special) -> Option<Measure> {
    let [per_second, burst] = special.rate;
    let action = match NonZeroU32::new(per_second) {
        None => Action::Block,
        Some(per_second) => Action::Throttle(Rate { per_second, burst: NonZeroU32::new(burst)? }),
    };
    let ports: Vec<u16> = special.ports.into_iter().filter(|port| *port != 0).collect();
    let scope = Scope { ports: Ports::new(&ports)?, new_only: special.new_only != 0 };
    Some(Measure { action, scope })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_comes_back_as_it_went_in() {
        let mut measures = Measures::new(Shared::anonymous(4).unwrap(), vec![2]);
        let number = |n| NonZeroU32::new(n).unwrap();
        let throttle = Action::Throttle(Rate { per_second: number(123_457), burst: number(7) });
        let scope = Scope { ports: Ports::new(&[22, 2222]).unwrap(), new_only: true };
        let all = [
            Measure::default(),
            Measure { action: throttle, scope: Scope::default() },
            Measure { action: Action::Block, scope },
        ];
        let numbers: Vec<_> = all.iter().map(|measure| measures.add(measure).unwrap()).collect();
        assert_eq!(numbers, [0, 1, 3]);
        assert_eq!(measures.add(&all[1]), None, "all are in use");
        for (number, measure) in numbers.iter().zip(&all) {
            assert_eq!(measures.get(*number), Some(*measure));
        }
        assert_eq!(measures.get(4), None);
        measures.remove(4);
        assert_eq!(measures.add(&all[1]), None, "there is no such number");
        measures.remove(3);
        assert_eq!(measures.add(&all[2]), Some(3));
    }
}
