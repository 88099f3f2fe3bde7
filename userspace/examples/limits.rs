//! What a million blocks cost at the least: how long it takes to put so many entries into the gate's tables, and rows into a
//! table of SQLite, and to read those again, in seconds. `cargo xtask bench load` runs it to show beside its figures how far
//! they are from that. It needs root, a bpffs, and a directory to write to.

use std::error::Error;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Instant;

use rusqlite::{Connection, params};
use xdpban::gate::{Gate, Insertion, Options, detach};
use xdpban_engine::measure::Measure;
use xdpban_engine::target::Target;

#[allow(clippy::print_stdout, reason = "what it found is its output")]
fn main() -> Result<(), Box<dyn Error>> {
    let [count, pins, directory] = &std::env::args().skip(1).collect::<Vec<_>>()[..] else {
        return Err("usage: limits COUNT PINS DIRECTORY".into());
    };
    let targets: Vec<Ipv4Addr> =
        (0..count.parse()?).map(|number: u32| Ipv4Addr::from(0x0a00_0000 + number)).collect();
    let table = table(&targets, pins.into())?;
    let [insert, read] = rows(&targets, PathBuf::from(directory).join("limits.db"))?;
    println!("{{\"table\":{table:.3},\"insert\":{insert:.3},\"read\":{read:.3}}}");
    Ok(())
}

fn table(targets: &[Ipv4Addr], pins: PathBuf) -> Result<f64, Box<dyn Error>> {
    let blocks = u32::try_from(targets.len())?;
    let options = Options { pins, blocks, prefixes: 1, dry_run: false, trace_packets: false };
    let mut gate = Gate::open(&options)?;
    let insertion = |address: &Ipv4Addr| Insertion {
        target: Target::exact((*address).into()),
        expires: None,
        measure: Measure::default(),
    };
    let insertions: Vec<Insertion> = targets.iter().map(insertion).collect();
    let start = Instant::now();
    let left_out = gate.insert(&insertions);
    let took = start.elapsed().as_secs_f64();
    detach(&options.pins)?;
    if left_out.is_empty() { Ok(took) } else { Err("the table did not take all".into()) }
}

/// In one transaction, into one table without an index.
fn rows(targets: &[Ipv4Addr], file: PathBuf) -> Result<[f64; 2], Box<dyn Error>> {
    let mut connection = Connection::open(file)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         CREATE TABLE blocks (id INTEGER PRIMARY KEY, target TEXT, at INTEGER, reason TEXT) STRICT",
    )?;
    let start = Instant::now();
    let transaction = connection.transaction()?;
    let mut insert =
        transaction.prepare("INSERT INTO blocks (target, at, reason) VALUES (?1, ?2, 'by hand')")?;
    for target in targets {
        insert.execute(params![target.to_string(), 1_769_904_000_000_000_i64])?;
    }
    drop(insert);
    transaction.commit()?;
    let inserted = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut read = connection.prepare("SELECT target, at, reason FROM blocks ORDER BY id")?;
    let mut rows = read.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += row.get_ref(0)?.as_str()?.len() + row.get_ref(2)?.as_str()?.len();
    }
    if count == 0 { Err("nothing was read".into()) } else { Ok([inserted, start.elapsed().as_secs_f64()]) }
}
