//! The core of xdpban, pure: a line becomes an event, a match, a decision and a change to the blocklist.
//!
//! Nothing here reads a file, a socket or a clock: bytes and [`time::Now`] come in, [`change::Change`]s go out.

mod attempts;
mod blocklist;
pub mod change;
mod crowds;
pub mod decode;
mod enforce;
mod engine;
pub mod event;
pub mod glob;
mod header;
mod lru;
pub mod measure;
mod moment;
mod offenders;
pub mod policy;
mod protect;
pub mod record;
pub mod rules;
mod runs;
mod sources;
pub mod target;
pub mod time;
mod unexplained;
mod windows;

pub use enforce::{Applied, BlockRequest, Decision, LiftAll, ResponseCounts, Standing};
pub use engine::{Counts, Engine, ForeignMatch, ForeignRequest, Lasts, Outcome};
pub use offenders::Offender;
pub use protect::{HostAddresses, Login};
pub use unexplained::Unexplained;
