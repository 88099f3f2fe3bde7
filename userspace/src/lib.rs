//! The controller of xdpban and its command line, as a library for the binary and the tests.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod doctor;
mod error;
pub mod gate;
pub mod host;
mod human;
pub mod import;
pub mod lockout;
mod logging;
pub mod period;
pub mod report;
pub mod run;
pub mod source;
pub mod store;
pub mod stream;
pub mod wazuh;
