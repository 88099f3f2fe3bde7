//! The controller of xdpban and its command line, as a library for the binary and the tests.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
mod error;
pub mod gate;
pub mod host;
mod human;
mod logging;
pub mod source;
pub mod store;
