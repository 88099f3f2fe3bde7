//! The figures and the plot in docs/.

use std::fs;

use anyhow::{Context, Result};

use super::plot;
use super::report::Report;
use crate::workspace;

/// What stands between these lines is the bench's.
const BEGIN: &str = "<!-- written by `cargo xtask bench gate --write-docs` -->\n";
const END: &str = "<!-- end of what it wrote -->\n";

/// Puts the figures into docs/performance.md, and the plot beside it.
pub(super) fn write(report: &Report) -> Result<()> {
    let docs = workspace::root().join("docs");
    let path = docs.join("performance.md");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let missing = || format!("{} has no place for the figures: {BEGIN}", path.display());
    let (before, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    let text = format!("{before}{BEGIN}\n{}\n{END}{after}", report.text()?);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    let plot_path = docs.join("performance.svg");
    fs::write(&plot_path, plot::svg(report)?).with_context(|| format!("write {}", plot_path.display()))
}
