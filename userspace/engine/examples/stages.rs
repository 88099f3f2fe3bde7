//! How long the first stages of the engine take on a log, in nanoseconds a line: cutting it into lines, with the header
//! read, and with the message decoded. `cargo xtask bench detect` runs it to say where the time goes.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use xdpban_engine::decode;
use xdpban_engine::record::{Format, Record};
use xdpban_engine::time::{Now, Wall};

#[allow(clippy::print_stdout, reason = "what it found is its output")]
fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: stages LOG")?;
    let log = fs::read(path)?;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let now = Now { wall: Wall(i64::try_from(wall)?), ..Now::default() };
    let lines = time(&log, |line| {
        black_box(line);
    });
    let header = time(&log, |line| {
        black_box(Record::parse(line, Format::Syslog, &now));
    });
    let decode = time(&log, |line| {
        black_box(decode::understand(&Record::parse(line, Format::Syslog, &now)));
    });
    println!("{{\"lines\":{lines:.1},\"header\":{header:.1},\"decode\":{decode:.1}}}");
    Ok(())
}

/// Nanoseconds that `work` takes a line, the least of three runs.
fn time(log: &[u8], mut work: impl FnMut(&[u8])) -> f64 {
    let mut run = || {
        let start = Instant::now();
        let (mut lines, mut rest) = (0u32, log);
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            work(line);
            lines += 1;
            rest = after.split_at(1).1;
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(lines.max(1))
    };
    run().min(run()).min(run())
}
