//! The control interface: HTTP with JSON on a Unix socket.
//!
//! | route | what |
//! |---|---|
//! | `GET /v1/status` | [`wire::Status`] |
//! | `GET /v1/blocks` | an array of [`wire::Entry`] |
//! | `GET /v1/addresses/ADDRESS` | [`wire::Show`] |
//! | `POST /v1/blocks` | [`wire::BlockRequest`] in, [`wire::Done`] out |
//! | `DELETE /v1/blocks` | [`wire::UnblockRequest`] in, [`wire::Done`] out |
//! | `GET /metrics` | counts in Prometheus' text format |
//!
//! Whoever can open the socket may read; root and the controller's own user may change.

use std::net::IpAddr;

use serde::Serialize;
use tokio::sync::oneshot;

pub mod client;
pub mod server;
pub mod wire;

/// The socket's name in the runtime directory.
pub const SOCKET: &str = "control.sock";

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 4 << 20;

/// What a peer asks of the daemon.
#[derive(Debug)]
pub enum Request {
    /// How it stands.
    Status,
    /// What is blocked.
    List,
    /// Whether an address would pass.
    Show(IpAddr),
    /// To block.
    Block(wire::BlockRequest),
    /// To lift blocks.
    Unblock(wire::UnblockRequest),
    /// The counts, for Prometheus.
    Metrics,
}

/// What the daemon answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<wire::Status>),
    /// To [`Request::List`].
    List(Vec<wire::Entry>),
    /// To [`Request::Show`].
    Show(Box<wire::Show>),
    /// To [`Request::Block`] and [`Request::Unblock`].
    Done(wire::Done),
    /// To [`Request::Metrics`].
    Metrics(String),
    /// It could not be done.
    Error(wire::Error),
}

/// A request on its way to the daemon.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// The user who asks, as the kernel reports it.
    pub uid: u32,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}
