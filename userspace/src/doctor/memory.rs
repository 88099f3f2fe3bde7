//! Whether the tables fit.

use std::fs;
use std::path::Path;

use super::setup::Setup;
use super::{Check, Memory, State};
use crate::{gate, human};

pub(super) fn examine(setup: &Setup, checks: &mut Vec<Check>) -> Memory {
    let options = setup.gate();
    let tables = gate::table_memory(&options);
    let available = available();
    let memory = Memory { tables: tables.at_start, tables_full: tables.at_most, available };
    let finding = format!(
        "{} for {} blocks of each family, {} when every table is full",
        human::bytes(memory.tables),
        human::count(options.blocks.into()),
        human::bytes(memory.tables_full)
    );
    checks.push(match available {
        _ if setup.running().is_some() => {
            Check::ok("memory", "tables", format!("{finding}; they are in use"))
        }
        None => {
            Check::new("memory", "tables", State::Unknown, format!("{finding}; what is free cannot be seen"))
        }
        Some(free) if free < memory.tables => Check::new(
            "memory",
            "tables",
            State::Obstacle,
            format!("{finding}, and there is {}", human::bytes(free)),
        )
        .remedy(format!("lower [limits] blocks to {}", fitting(&options, free))),
        Some(free) if free < memory.tables_full => Check::new(
            "memory",
            "tables",
            State::Warning,
            format!("{finding}, and there is {}", human::bytes(free)),
        )
        .remedy("lower [limits] blocks or prefixes"),
        Some(free) => Check::ok("memory", "tables", format!("{finding}; there is {}", human::bytes(free))),
    });
    // Before 5.11 the tables count as locked memory; who has CAP_SYS_RESOURCE lifts that limit, and the service has it.
    if gate::kernel_version().is_some_and(|(major, minor, _)| (major, minor) < (5, 11)) {
        checks.push(Check::ok(
            "memory",
            "locked memory",
            "limited before 5.11; the controller lifts the limit when it starts",
        ));
    }
    memory
}

/// The largest power of two of blocks that fits into half of what is free.
fn fitting(options: &gate::Options, free: u64) -> u32 {
    let fits = |blocks| gate::table_memory(&gate::Options { blocks, ..options.clone() }).at_start <= free / 2;
    (0..options.blocks.max(1).ilog2()).rev().map(|power| 1 << power).find(|blocks| fits(*blocks)).unwrap_or(1)
}

/// The least of what the machine has and what the control groups of this process leave; none where neither can be read.
fn available() -> Option<u64> {
    // What cannot be read limits nothing.
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_of(&text));
    machine.into_iter().chain(group()).min()
}

fn available_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// What the control group and those above it leave (version 2).
fn group() -> Option<u64> {
    // Without control groups there is no such limit.
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let number = |path: &Path, file: &str| -> Option<u64> {
        // `max` is no number and no limit.
        fs::read_to_string(path.join(file)).ok()?.trim().parse().ok()
    };
    Path::new("/sys/fs/cgroup")
        .join(group)
        .ancestors()
        .take_while(|path| path.starts_with("/sys/fs/cgroup"))
        .filter_map(|path| Some(number(path, "memory.max")?.saturating_sub(number(path, "memory.current")?)))
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_available() {
        let text = "MemTotal:  2000 kB\nMemFree:  100 kB\nMemAvailable:    1500 kB\n";
        assert_eq!(available_of(text), Some(1_536_000));
        assert_eq!(available_of("MemTotal: 1 kB"), None);
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn names_a_limit_that_fits() {
        let options = gate::Options {
            pins: "/x".into(),
            blocks: 1 << 20,
            prefixes: 64,
            trace_packets: false,
            dry_run: false,
        };
        let free = 64 << 20;
        let blocks = fitting(&options, free);
        let taken = |blocks| gate::table_memory(&gate::Options { blocks, ..options.clone() }).at_start;
        assert!(taken(blocks) <= free / 2 && taken(blocks * 2) > free / 2, "{blocks}");
        assert_eq!(fitting(&options, 0), 1);
    }
}
