//! What the controller says of itself goes to standard error, where systemd or the operator reads it.

use std::io::Write;

use log::{Level, LevelFilter};

/// Starts logging at level info, or at what `RUST_LOG` asks for. Under systemd each line carries its priority
/// (sd-daemon(3)) instead of its level in words.
pub(crate) fn start() {
    let systemd = goes_to_journal();
    env_logger::Builder::new()
        .filter_level(LevelFilter::Info)
        .parse_default_env()
        .format(move |out, record| {
            let (priority, word) = match record.level() {
                Level::Error => (3, "error: "),
                Level::Warn => (4, "warning: "),
                Level::Info => (6, ""),
                Level::Debug | Level::Trace => (7, "debug: "),
            };
            if systemd {
                writeln!(out, "<{priority}>{}", record.args())
            } else {
                writeln!(out, "xdpban: {word}{}", record.args())
            }
        })
        .init();
}

/// Whether standard error is the journal's, and not merely inherited its environment: systemd.exec(5), `$JOURNAL_STREAM`.
fn goes_to_journal() -> bool {
    let stderr = nix::sys::stat::fstat(std::io::stderr());
    let stream = std::env::var("JOURNAL_STREAM");
    matches!((stderr, stream), (Ok(stat), Ok(stream)) if stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
