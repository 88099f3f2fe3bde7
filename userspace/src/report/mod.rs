//! Reports for people on what is on record.
//!
//! [`gather`] reads the record and sums it up in a [`Report`] of bounded size; `text`, `markdown` and `html` each make a
//! document of that, and serde makes the one in JSON. [`csv`] alone has every incident, a line at a time.

mod acts;
pub mod csv;
mod document;
mod escape;
mod frequent;
mod gather;
mod html;
mod latencies;
mod markdown;
mod requirements;
mod summary;
mod tally;
#[cfg(test)]
mod tests;
mod text;
mod times;
mod watch;
mod words;

use crate::period;

pub use gather::{Asked, each_incident, gather};
pub use html::render as html;
pub use markdown::render as markdown;
pub use period::{Period, PeriodError};
pub use summary::Report;
pub use text::render as text;
