//! The lab in which xdpban is tested and shown: network namespaces, a real sshd, real clients, real packets.
//!
//! Everything stands in namespaces that have no name and are held by file descriptors alone. When the lab is dropped, and
//! also when its process is killed, the kernel takes back interfaces, mounts, pins and programs by itself.

mod client;
mod controller;
mod execd;
mod host;
mod lab;
mod log_file;
mod namespace;
mod network;
mod process;
mod sshd;
mod syslog;
mod traffic;
mod web_server;

pub use client::{Attempt, Login, Outcome, PASSWORD, Session, USERS};
pub use controller::{CliOutput, Controller};
pub use execd::{Ended, Execd, Started};
pub use lab::Lab;
pub use log_file::{LogFile, invalid_user_line, sshd_line};
pub use network::{GATEWAY_V4, GATEWAY_V6, NAME_SERVER, Side};
pub use traffic::Stream;
pub use web_server::{Answers, Request, WebServer};
