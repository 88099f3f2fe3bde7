//! Says what is being done, and how long it took.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Says one thing.
pub(crate) fn say(what: impl fmt::Display) {
    eprintln!("xtask: {what}");
}

/// Does `work`, announced as `what`, and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(format_args!("{what} ..."));
    let start = Instant::now();
    let result = work()?;
    say(format_args!("{what}: {}", Took(start.elapsed())));
    Ok(result)
}

/// A duration as a person reads it: `0.4 s`, `57 s`.
pub(crate) struct Took(pub(crate) Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 10.0 { write!(f, "{seconds:.1} s") } else { write!(f, "{seconds:.0} s") }
    }
}

/// The size of a file as a person reads it: `41.3 KiB`, `3.9 MiB`.
pub(crate) fn size(file: &Path) -> Result<String> {
    let bytes = file.metadata().with_context(|| format!("look at {}", file.display()))?.len();
    let (unit, divisor) = if bytes < 1024 * 1024 { ("KiB", 1024) } else { ("MiB", 1024 * 1024) };
    let tenths = bytes * 10 / divisor;
    Ok(format!("{}.{} {unit}", tenths / 10, tenths % 10))
}
