//! The command line's end of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

pub use super::list::Blocked;
use super::{SOCKET, query, wire};

/// For how long an answer, or more of it, is waited for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why the controller gave no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "the controller is not running: nothing answers on {}. Start it with `xdpban run` or `systemctl start xdpban`",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket may not be opened.
    #[error("connect to {}: permission denied. Run this as root", .0.display())]
    Denied(PathBuf),
    /// It cannot be reached for another reason.
    #[error("talk to the controller on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came back is no HTTP.
    #[error("talk to the controller on {}", path.display())]
    Http {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// No answer came in time.
    #[error("the controller on {} gave no answer in {} s", path.display(), timeout.as_secs())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// For how long it was waited for.
        timeout: Duration,
    },
    /// It is about to end, and did not do what was asked.
    #[error("the controller is stopping")]
    Stopping,
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// The answer is not of the form that this version knows.
    #[error("the controller's answer is not understood; is it of another version?")]
    Answer(#[source] serde_json::Error),
}

/// The way to the controller.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// The controller whose socket stands in the directory `runtime`.
    pub fn new(runtime: &Path) -> Client {
        Client { socket: runtime.join(SOCKET), timeout: TIMEOUT }
    }

    /// The controller behind `socket`, which is given up after `timeout`.
    pub fn of_socket(socket: PathBuf, timeout: Duration) -> Client {
        Client { socket, timeout }
    }

    /// Whether somebody listens, without asking anything.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn reach(&self) -> Result<(), ClientError> {
        std::os::unix::net::UnixStream::connect(&self.socket)
            .map(drop)
            .map_err(|source| self.unreachable(source))
    }

    /// How the controller stands.
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub fn status(&self) -> Result<wire::Status, ClientError> {
        self.call(Method::GET, "/v1/status", None::<&()>)
    }

    /// What is blocked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn list(&self) -> Result<Blocked, ClientError> {
        let (sender, pieces) = std::sync::mpsc::channel();
        let client = Client { socket: self.socket.clone(), timeout: self.timeout };
        // What comes is taken at once, also where whoever reads the list does so slowly: the controller waits for nobody.
        let reader = std::thread::spawn(move || {
            // When nobody wants any more of it, the process is about to end.
            client
                .ask(Method::GET, "/v1/blocks", Bytes::new(), |piece| sender.send(piece).unwrap_or_default())
        });
        Blocked::new(pieces, reader).begin()
    }

    /// Whether `address` would pass, and why.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn show(&self, address: std::net::IpAddr) -> Result<wire::Show, ClientError> {
        self.call(Method::GET, &format!("/v1/addresses/{address}"), None::<&()>)
    }

    /// What is on record.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn incidents(&self, query: &wire::IncidentsQuery) -> Result<Vec<wire::Incident>, ClientError> {
        let parameters = query.parameters();
        let parameters: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", query::escaped(value))).collect();
        self.call(Method::GET, &format!("/v1/incidents?{}", parameters.join("&")), None::<&()>)
    }

    /// The latest record.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn head(&self) -> Result<wire::Head, ClientError> {
        self.call(Method::GET, "/v1/record/head", None::<&()>)
    }

    /// Blocks targets.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn block(&self, request: &wire::BlockRequest) -> Result<wire::Done, ClientError> {
        self.call(Method::POST, "/v1/blocks", Some(request))
    }

    /// Has an account unlocked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn unlock(&self, request: &wire::UnlockRequest) -> Result<wire::Done, ClientError> {
        self.call(Method::POST, "/v1/unlock", Some(request))
    }

    /// Lifts blocks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn unblock(&self, request: &wire::UnblockRequest) -> Result<wire::Done, ClientError> {
        self.call(Method::DELETE, "/v1/blocks", Some(request))
    }

    /// Does what Wazuh's Active Response asks for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn active_response(&self, request: &wire::ActiveResponse) -> Result<wire::Responded, ClientError> {
        self.call(Method::POST, "/v1/active-responses", Some(request))
    }

    /// What is never blocked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn allowed(&self) -> Result<Vec<wire::Allowed>, ClientError> {
        self.call(Method::GET, "/v1/allow", None::<&()>)
    }

    /// What protects `address`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn allow_check(&self, address: std::net::IpAddr) -> Result<wire::AllowCheck, ClientError> {
        self.call(Method::GET, &format!("/v1/allow/{address}"), None::<&()>)
    }

    /// Allows networks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn allow(&self, request: &wire::AllowRequest) -> Result<wire::Done, ClientError> {
        self.call(Method::POST, "/v1/allow", Some(request))
    }

    /// Allows networks no longer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn disallow(&self, request: &wire::DisallowRequest) -> Result<wire::Done, ClientError> {
        self.call(Method::DELETE, "/v1/allow", Some(request))
    }

    /// Has a controller that runs on trial go on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn confirm(&self) -> Result<wire::Done, ClientError> {
        self.call(Method::POST, "/v1/confirm", None::<&()>)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = match body {
            None => Bytes::new(),
            Some(body) => {
                serde_json::to_vec(body).map_err(|error| ClientError::Refused(error.to_string()))?.into()
            }
        };
        let mut answer = Vec::new();
        self.ask(method, path, body, |piece| answer.extend_from_slice(&piece))?;
        serde_json::from_slice(&answer).map_err(ClientError::Answer)
    }

    /// Hands the answer to `take`, piece by piece.
    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        take: impl FnMut(Bytes),
    ) -> Result<(), ClientError> {
        let io = |source| ClientError::Io { path: self.socket.clone(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
        runtime.block_on(self.exchange(method, path, body, take))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        mut take: impl FnMut(Bytes),
    ) -> Result<(), ClientError> {
        let http = |source| ClientError::Http { path: self.socket.clone(), source };
        let stream = self.within(UnixStream::connect(&self.socket)).await?;
        let stream = stream.map_err(|source| self.unreachable(source))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let mut request = hyper::Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|_| ClientError::Refused(format!("no such path: {path}")))?;
        request.headers_mut().insert(HOST, HeaderValue::from_static("xdpban"));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));

        let exchange = async {
            let response = self.within(sender.send_request(request)).await?.map_err(http)?;
            let status = response.status();
            let mut body = response.into_body();
            let mut refusal = Vec::new();
            while let Some(frame) = self.within(body.frame()).await? {
                match frame.map_err(http)?.into_data() {
                    Ok(piece) if status.is_success() => take(piece),
                    Ok(piece) => refusal.extend_from_slice(&piece),
                    // Trailers, which say nothing here.
                    Err(_) => {}
                }
            }
            if status.is_success() {
                return Ok(());
            }
            // Nothing else is answered so.
            if status == StatusCode::SERVICE_UNAVAILABLE {
                return Err(ClientError::Stopping);
            }
            Err(match serde_json::from_slice::<wire::Error>(&refusal) {
                Ok(wire::Error { error }) => ClientError::Refused(error),
                Err(_) => ClientError::Refused(format!("the controller answered {status}")),
            })
        };
        // The connection is driven here, beside the exchange, and ends with it.
        tokio::select! {
            done = exchange => done,
            Err(source) = connection => Err(http(source)),
        }
    }

    /// Gives up what takes longer than an answer may.
    async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, ClientError> {
        let timed_out = |_| ClientError::Timeout { path: self.socket.clone(), timeout: self.timeout };
        tokio::time::timeout(self.timeout, work).await.map_err(timed_out)
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let path = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
            io::ErrorKind::PermissionDenied => ClientError::Denied(path),
            _ => ClientError::Io { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::super::server::Server;
    use super::*;

    #[test]
    fn a_controller_that_stops_is_told_from_one_that_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(async { Server::open(directory.path()) }).unwrap();
        let (calls, taken) = mpsc::channel(1);
        drop(taken);
        let (end, ended) = oneshot::channel::<()>();
        let serving = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = server.serve(calls) => {}
                    _ = ended => {}
                }
            });
        });
        let client = Client::new(directory.path());
        assert!(matches!(client.head(), Err(ClientError::Stopping)));
        let none = client.ask(Method::GET, "/v1/nothing", Bytes::new(), drop);
        assert!(matches!(none, Err(ClientError::Refused(_))), "{none:?}");
        drop(end);
        serving.join().unwrap();
    }
}
