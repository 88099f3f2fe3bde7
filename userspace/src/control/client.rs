//! The command line's end of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{SOCKET, query, wire};

/// For how long an answer is waited for.
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
    pub fn list(&self) -> Result<Vec<wire::Entry>, ClientError> {
        self.call(Method::GET, "/v1/blocks", None::<&()>)
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
        let io = |source| ClientError::Io { path: self.socket.clone(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
        let answer = runtime.block_on(async {
            tokio::time::timeout(self.timeout, self.exchange(method, path, body))
                .await
                .map_err(|_| ClientError::Timeout { path: self.socket.clone(), timeout: self.timeout })?
        })?;
        serde_json::from_slice(&answer).map_err(ClientError::Answer)
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let http = |source| ClientError::Http { path: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| self.unreachable(source))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let mut request = hyper::Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|_| ClientError::Refused(format!("no such path: {path}")))?;
        request.headers_mut().insert(HOST, HeaderValue::from_static("xdpban"));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));

        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        // The connection is driven here, beside the exchange, and ends with it.
        let (status, answer) = tokio::select! {
            done = exchange => done.map_err(http)?,
            Err(source) = connection => return Err(http(source)),
        };
        if status.is_success() {
            return Ok(answer);
        }
        Err(match serde_json::from_slice::<wire::Error>(&answer) {
            Ok(wire::Error { error }) => ClientError::Refused(error),
            Err(_) => ClientError::Refused(format!("the controller answered {status}")),
        })
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
