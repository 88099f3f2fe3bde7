//! The control interface: HTTP with JSON on a Unix socket.
//!
//! | route | what |
//! |---|---|
//! | `GET /v1/status` | [`wire::Status`] |
//! | `GET /v1/blocks` | an array of [`wire::Entry`] |
//! | `GET /v1/addresses/ADDRESS` | [`wire::Show`] |
//! | `GET /v1/incidents?since=…&address=…` | an array of [`wire::Incident`], see [`wire::IncidentsQuery`] |
//! | `GET /v1/record/head` | [`wire::Head`] |
//! | `POST /v1/blocks` | [`wire::BlockRequest`] in, [`wire::Done`] out |
//! | `DELETE /v1/blocks` | [`wire::UnblockRequest`] in, [`wire::Done`] out |
//! | `POST /v1/active-responses` | [`wire::ActiveResponse`] in, [`wire::Responded`] out |
//! | `GET /v1/allow` | an array of [`wire::Allowed`] |
//! | `GET /v1/allow/ADDRESS` | [`wire::AllowCheck`] |
//! | `POST /v1/allow` | [`wire::AllowRequest`] in, [`wire::Done`] out |
//! | `DELETE /v1/allow` | [`wire::DisallowRequest`] in, [`wire::Done`] out |
//! | `POST /v1/confirm` | ends a trial; [`wire::Done`] out |
//! | `POST /v1/unlock` | [`wire::UnlockRequest`] in, [`wire::Done`] out |
//! | `GET /metrics` | counts in Prometheus' text format |
//!
//! Whoever can open the socket may read; root and the controller's own user may change.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

pub mod client;
mod list;
mod query;
pub mod server;
pub mod wire;

/// The socket's name in the runtime directory.
pub const SOCKET: &str = "control.sock";

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 4 << 20;

/// For how long an operator waits until what they did is on record.
const RECORD_WAIT: Duration = Duration::from_secs(3);

/// For how long Wazuh does, which answers nothing else meanwhile.
const WAZUH_WAIT: Duration = Duration::from_millis(100);

/// What a peer asks of the daemon.
#[derive(Debug)]
pub enum Request {
    /// How it stands.
    Status,
    /// A part of what is blocked.
    List(Place),
    /// Whether an address would pass.
    Show(IpAddr),
    /// What is on record.
    Incidents(wire::IncidentsQuery),
    /// The latest record.
    Head,
    /// To block.
    Block(wire::BlockRequest),
    /// To lift blocks.
    Unblock(wire::UnblockRequest),
    /// To do what Wazuh's Active Response asks for.
    ActiveResponse(wire::ActiveResponse),
    /// What is never blocked.
    Allowed,
    /// What protects an address.
    AllowCheck(IpAddr),
    /// To allow networks.
    Allow(wire::AllowRequest),
    /// To allow networks no longer.
    Disallow(wire::DisallowRequest),
    /// To go on for good, where the controller runs on trial.
    Confirm,
    /// To unlock an account.
    Unlock(wire::UnlockRequest),
    /// The counts, for Prometheus.
    Metrics,
}

impl Request {
    /// For how long its answer waits until what was done is on record; none where nothing is done, or another part follows.
    pub(crate) fn record_wait(&self) -> Option<Duration> {
        match self {
            Request::Block(wire::BlockRequest { more: true, .. })
            | Request::Unblock(wire::UnblockRequest { more: true, .. })
            | Request::Status
            | Request::List(_)
            | Request::Show(_)
            | Request::Incidents(_)
            | Request::Head
            | Request::Allowed
            | Request::AllowCheck(_)
            | Request::Metrics => None,
            Request::ActiveResponse(_) => Some(WAZUH_WAIT),
            Request::Block(_)
            | Request::Unblock(_)
            | Request::Allow(_)
            | Request::Disallow(_)
            | Request::Confirm
            | Request::Unlock(_) => Some(RECORD_WAIT),
        }
    }
}

/// What the daemon answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<wire::Status>),
    /// To [`Request::List`].
    #[serde(skip)]
    List(ListPart),
    /// To [`Request::Show`].
    Show(Box<wire::Show>),
    /// To [`Request::Allowed`].
    Allowed(Vec<wire::Allowed>),
    /// To [`Request::AllowCheck`].
    AllowCheck(wire::AllowCheck),
    /// To [`Request::Incidents`].
    Incidents(Vec<wire::Incident>),
    /// To [`Request::Head`].
    Head(wire::Head),
    /// To [`Request::Block`], [`Request::Unblock`], [`Request::Allow`], [`Request::Disallow`] and [`Request::Confirm`].
    Done(wire::Done),
    /// To [`Request::ActiveResponse`].
    Responded(wire::Responded),
    /// To [`Request::Metrics`].
    Metrics(String),
    /// It could not be done.
    Error(wire::Error),
}

impl Reply {
    /// Says that what was done is in force, and why it is not yet on record.
    pub(crate) fn not_on_record(&mut self, why: String) {
        match self {
            Reply::Done(done) => done.unrecorded = Some(why),
            Reply::Responded(responded) => {
                responded.message.push_str(&format!("; not yet on record: {why}"));
            }
            // Others do nothing that goes on record, or have worse to tell.
            _ => {}
        }
    }
}

/// Where a part of the list of what is blocked ends. However long that is and whatever comes and goes meanwhile, what stays is
/// in one part, and no part is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub usize);

impl Place {
    /// The end of the first part.
    pub const FIRST: Place = Place(usize::MAX);
}

/// A part of the list of what is blocked, the newest first.
#[derive(Debug)]
pub struct ListPart {
    /// What is blocked.
    pub entries: Vec<wire::Entry>,
    /// The next part; none where this is the last.
    pub next: Option<Place>,
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
