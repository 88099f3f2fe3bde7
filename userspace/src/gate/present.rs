//! Which tables hold anything, as the program is told in the map TABLES.

use xdpban_common::{Table, Tables, map};

use super::error::GateError;
use super::maps::{Others, writing};

/// How many entries each table holds, and what the program was told about it.
#[derive(Debug, Default)]
pub(super) struct Present {
    counts: [usize; Table::ALL.len()],
    told: Tables,
}

impl Present {
    /// Whether the table holds nothing.
    pub(super) fn is_empty(&self, table: Table) -> bool {
        self.counts.get(table as usize) == Some(&0)
    }

    pub(super) fn set(&mut self, table: Table, count: usize) {
        if let Some(place) = self.counts.get_mut(table as usize) {
            *place = count;
        }
    }

    pub(super) fn add(&mut self, table: Table, count: usize) {
        if let Some(place) = self.counts.get_mut(table as usize) {
            *place += count;
        }
    }

    pub(super) fn subtract(&mut self, table: Table, count: usize) {
        if let Some(place) = self.counts.get_mut(table as usize) {
            *place = place.saturating_sub(count);
        }
    }

    /// Tells the program where that has changed.
    pub(super) fn tell(&mut self, others: &Others) -> Result<(), GateError> {
        if self.tables() == self.told { Ok(()) } else { self.tell_anew(others) }
    }

    /// Tells the program, whatever it was told before.
    pub(super) fn tell_anew(&mut self, others: &Others) -> Result<(), GateError> {
        let tables = self.tables();
        others.tables.update(&0, &tables).map_err(writing(map::TABLES))?;
        self.told = tables;
        Ok(())
    }

    fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        for (table, count) in Table::ALL.into_iter().zip(self.counts) {
            tables.set(table, count > 0);
        }
        tables
    }
}
