//! Response times: percentiles and a histogram from one pass and bounded memory.

use std::time::Duration;

/// Bits of a duration that tell it from its neighbours: percentiles are right to 1 in 128.
const PRECISION: u32 = 7;

/// The cells of the fine histogram: as many for each power of two of microseconds.
const CELLS: usize = (64 - PRECISION as usize + 1) << PRECISION;

/// The upper edges of the bands that people are shown, in microseconds; the last band has none.
const EDGES: [u64; 11] = [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Durations, counted.
#[derive(Debug)]
pub(super) struct Latencies {
    cells: Vec<u64>,
    bands: [u64; EDGES.len() + 1],
    count: u64,
    max: u64,
}

/// How many durations lie between two edges.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Band {
    /// The lower edge, in milliseconds, which belongs to it.
    pub from_ms: f64,
    /// The upper edge, which does not; none: it is open.
    pub to_ms: Option<f64>,
    /// How many.
    pub count: u64,
}

impl Latencies {
    pub(super) fn new() -> Latencies {
        Latencies { cells: vec![0; CELLS], bands: Default::default(), count: 0, max: 0 }
    }

    pub(super) fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.cells[cell(micros)] += 1;
        self.bands[EDGES.partition_point(|edge| *edge <= micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// How many were added.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The longest, in milliseconds; none where there is none.
    pub(super) fn max_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| ms(self.max))
    }

    /// The duration, in milliseconds, that so many of a hundred do not exceed; none where there is none.
    pub(super) fn percentile_ms(&self, percent: u64) -> Option<f64> {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        self.cells.iter().enumerate().find_map(|(cell, count)| {
            seen += u128::from(*count);
            (seen >= rank).then(|| ms(upper(cell).min(self.max)))
        })
    }

    /// The bands from the first that is not empty to the last.
    pub(super) fn bands(&self) -> Vec<Band> {
        let lower = std::iter::once(0).chain(EDGES);
        let upper = EDGES.into_iter().map(Some).chain([None]);
        let all: Vec<Band> = lower
            .zip(upper)
            .zip(self.bands)
            .map(|((from, to), count)| Band { from_ms: ms(from), to_ms: to.map(ms), count })
            .collect();
        let holds = |band: &Band| band.count > 0;
        match (all.iter().position(holds), all.iter().rposition(holds)) {
            (Some(first), Some(last)) => all[first..=last].to_vec(),
            _ => Vec::new(),
        }
    }
}

/// The cell of a duration: its leading bits, and how many others there are.
fn cell(micros: u64) -> usize {
    let bits = u64::BITS - micros.leading_zeros();
    let shift = bits.saturating_sub(PRECISION + 1);
    // Of eight bits at most, so that it fits.
    let leading = usize::try_from(micros >> shift).unwrap_or(usize::MAX);
    ((shift as usize) << PRECISION) + leading
}

/// The longest duration of a cell.
fn upper(cell: usize) -> u64 {
    let block = cell >> PRECISION;
    // The first two blocks are those of single microseconds.
    let shift = block.saturating_sub(1);
    let leading = (cell - (shift << PRECISION)) as u64;
    ((leading + 1) << shift).wrapping_sub(1)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a duration of more than 285 years is not told to the microsecond"
)]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_durations() {
        let mut latencies = Latencies::new();
        assert_eq!((latencies.percentile_ms(50), latencies.max_ms()), (None, None));
        assert_eq!(latencies.bands(), []);
        for micros in 1..=100 {
            latencies.add(Duration::from_micros(micros));
        }
        assert_eq!(latencies.count(), 100);
        assert_eq!([50, 90, 99, 100].map(|p| latencies.percentile_ms(p)), [0.05, 0.09, 0.099, 0.1].map(Some));
        latencies.add(Duration::from_secs(3600));
        assert_eq!(latencies.percentile_ms(100), Some(3_600_000.0));
        let bands: Vec<_> =
            latencies.bands().iter().map(|band| (band.from_ms, band.to_ms, band.count)).collect();
        assert_eq!(bands[..3], [(0.0, Some(0.05), 49), (0.05, Some(0.1), 50), (0.1, Some(0.2), 1)]);
        assert_eq!(bands[bands.len() - 1], (10_000.0, None, 1));
    }

    proptest! {
        #[test]
        fn a_cell_holds_its_duration(micros in prop_oneof![0_u64..5000, any::<u64>()]) {
            let cell = cell(micros);
            prop_assert!(cell < CELLS);
            prop_assert!(micros <= upper(cell));
            prop_assert!(cell == 0 || upper(cell - 1) < micros);
            prop_assert!(upper(cell) - micros <= micros / 128);
        }
    }
}
