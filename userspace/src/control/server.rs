//! The controller's end of the control socket.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::list::Answer;
use super::{Call, MAX_BODY, Place, Reply, Request, SOCKET, list, query, wire};
use crate::clock;
use crate::config::duration;

/// Connections that are served at once; a further one waits until another ends.
const MAX_CONNECTIONS: usize = 64;

/// For how long a connection may last, so that an idle one does not hold its place.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another controller answers on it.
    #[error("another controller is running: {} answers. Stop that one first, or set another [paths] runtime", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket stands in its place.
    #[error("{} is not a socket; move it away, or set another [paths] runtime", .0.display())]
    NotASocket(PathBuf),
    /// A call failed.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// The control socket, open. Dropping it takes it off the file system.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Opens the socket in the directory `runtime`, which is made if it is missing. A socket that a controller left
    /// behind when it was killed is replaced; one that a controller answers on is not.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn open(runtime: &Path) -> Result<Server, ServerError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| ServerError::Io { what, path, source }
        };
        std::fs::create_dir_all(runtime).map_err(io("make the directory", runtime))?;
        let path = runtime.join(SOCKET);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) => {
                match std::os::unix::net::UnixStream::connect(&path) {
                    Ok(_) => return Err(ServerError::InUse(path)),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        std::fs::remove_file(&path).map_err(io("remove the stale socket", &path))?;
                    }
                    Err(error) => return Err(io("connect to", &path)(error)),
                }
            }
            Ok(_) => return Err(ServerError::NotASocket(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("look at", &path)(error)),
        }
        let listener = UnixListener::bind(&path).map_err(io("bind the socket", &path))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o660))
            .map_err(io("set the permissions of", &path))?;
        Ok(Server { listener, path })
    }

    /// Serves peers until it is dropped. Requests go to `calls`; when that queue is full a peer waits.
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let calls = calls.clone();
                    connections.spawn(async move {
                        connection(stream, calls).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    log::warn!("accept on {}: {error}", self.path.display());
                    // Out of file descriptors, most likely: wait for some to come free.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("remove {}: {error}", self.path.display());
        }
    }
}

async fn connection(stream: UnixStream, calls: mpsc::Sender<Call>) {
    let uid = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(error) => {
            log::warn!("a peer on the control socket has no credentials: {error}");
            return;
        }
    };
    let service = service_fn(|request| {
        let calls = calls.clone();
        async move { Ok::<_, Infallible>(respond(request, uid, calls).await) }
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_LIMIT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("control connection of uid {uid}: {error}"),
        Err(_) => log::debug!("control connection of uid {uid}: closed after {CONNECTION_LIMIT:?}"),
    }
}

async fn respond(request: hyper::Request<Incoming>, uid: u32, calls: mpsc::Sender<Call>) -> Response<Answer> {
    if *request.method() != Method::GET && !may_change(uid) {
        return Refusal::Forbidden(uid).response();
    }
    let request = match read(request).await {
        Ok(request) => request,
        Err(refusal) => return refusal.response(),
    };
    if let Request::List(_) = request {
        return match list::begin(calls, uid).await {
            Ok(list) => typed(StatusCode::OK, "application/json", list),
            Err(_) => Refusal::Stopping.response(),
        };
    }
    let (reply, answer) = oneshot::channel();
    if calls.send(Call { request, uid, reply }).await.is_err() {
        return Refusal::Stopping.response();
    }
    match answer.await {
        Ok(reply) => reply_response(&reply),
        Err(_) => Refusal::Stopping.response(),
    }
}

fn may_change(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// Why a request is turned away before it reaches the daemon.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no such route; see `GET /v1/status`")]
    NoRoute,
    #[error("this route takes {0}")]
    Method(&'static str),
    #[error("`{0}` is not an IPv4 or IPv6 address")]
    Address(String),
    #[error("the request's parameters: {0}")]
    Parameters(String),
    #[error("the request's body: {0}")]
    Body(String),
    #[error("the request's body is larger than {MAX_BODY} bytes; send it in parts")]
    TooLarge,
    #[error("uid {0} may read, but only root may change what is blocked")]
    Forbidden(u32),
    #[error("the controller is stopping")]
    Stopping,
}

impl Refusal {
    fn response(&self) -> Response<Answer> {
        let status = match self {
            Refusal::NoRoute => StatusCode::NOT_FOUND,
            Refusal::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Address(_) | Refusal::Parameters(_) | Refusal::Body(_) => StatusCode::BAD_REQUEST,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = json(status, &wire::Error { error: self.to_string() });
        if let Refusal::Method(allowed) = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}

async fn read(request: hyper::Request<Incoming>) -> Result<Request, Refusal> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    match (path, &parts.method) {
        ("/v1/status", &Method::GET) => Ok(Request::Status),
        ("/v1/blocks", &Method::GET) => Ok(Request::List(Place::FIRST)),
        ("/v1/blocks", &Method::POST) => read_block(body).await,
        ("/v1/blocks", &Method::DELETE) => read_body(body).await.map(Request::Unblock),
        ("/v1/blocks", _) => Err(Refusal::Method("GET, POST, DELETE")),
        ("/v1/active-responses", &Method::POST) => read_active_response(body).await,
        ("/v1/active-responses", _) => Err(Refusal::Method("POST")),
        ("/v1/allow", &Method::GET) => Ok(Request::Allowed),
        ("/v1/allow", &Method::POST) => read_allow(body).await,
        ("/v1/allow", &Method::DELETE) => read_body(body).await.map(Request::Disallow),
        ("/v1/allow", _) => Err(Refusal::Method("GET, POST, DELETE")),
        ("/v1/confirm", &Method::POST) => Ok(Request::Confirm),
        ("/v1/confirm", _) => Err(Refusal::Method("POST")),
        ("/v1/unlock", &Method::POST) => read_body(body).await.map(Request::Unlock),
        ("/v1/unlock", _) => Err(Refusal::Method("POST")),
        ("/v1/record/head", &Method::GET) => Ok(Request::Head),
        ("/v1/incidents", &Method::GET) => {
            let parameters = query::parameters(parts.uri.query().unwrap_or_default())
                .ok_or_else(|| Refusal::Parameters("they are written name=value&…".to_owned()))?;
            let query = wire::IncidentsQuery::from_parameters(&parameters, &clock::now());
            query.map(Request::Incidents).map_err(Refusal::Parameters)
        }
        ("/metrics", &Method::GET) => Ok(Request::Metrics),
        ("/v1/status" | "/v1/incidents" | "/v1/record/head" | "/metrics", _) => Err(Refusal::Method("GET")),
        _ => {
            let (request, address): (fn(IpAddr) -> Request, &str) =
                if let Some(address) = path.strip_prefix("/v1/addresses/") {
                    (Request::Show, address)
                } else if let Some(address) = path.strip_prefix("/v1/allow/") {
                    (Request::AllowCheck, address)
                } else {
                    return Err(Refusal::NoRoute);
                };
            if parts.method != Method::GET {
                return Err(Refusal::Method("GET"));
            }
            address
                .parse::<IpAddr>()
                .map(|address| request(address.to_canonical()))
                .map_err(|_| Refusal::Address(address.chars().take(64).collect()))
        }
    }
}

async fn read_block(body: Incoming) -> Result<Request, Refusal> {
    let request: wire::BlockRequest = read_body(body).await?;
    check_timeout(request.timeout_s)?;
    Ok(Request::Block(request))
}

async fn read_active_response(body: Incoming) -> Result<Request, Refusal> {
    let request: wire::ActiveResponse = read_body(body).await?;
    check_timeout(Some(request.timeout_s))?;
    Ok(Request::ActiveResponse(request))
}

async fn read_allow(body: Incoming) -> Result<Request, Refusal> {
    let request: wire::AllowRequest = read_body(body).await?;
    check_timeout(request.timeout_s)?;
    Ok(Request::Allow(request))
}

fn check_timeout(seconds: Option<u64>) -> Result<(), Refusal> {
    let checked = seconds.map(duration::seconds).transpose();
    checked.map(drop).map_err(|error| Refusal::Body(format!("timeout_s: {error}")))
}

async fn read_body<T: DeserializeOwned>(body: Incoming) -> Result<T, Refusal> {
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { Refusal::TooLarge } else { Refusal::Body(error.to_string()) }
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| Refusal::Body(error.to_string()))
}

fn reply_response(reply: &Reply) -> Response<Answer> {
    match reply {
        Reply::Metrics(text) => typed(StatusCode::OK, "text/plain; version=0.0.4", whole(text.clone())),
        Reply::Error(error) => json(StatusCode::INTERNAL_SERVER_ERROR, error),
        reply => json(StatusCode::OK, reply),
    }
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response<Answer> {
    match serde_json::to_vec(body) {
        Ok(body) => typed(status, "application/json", whole(body)),
        Err(error) => {
            log::error!("write an answer as JSON: {error}");
            typed(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", whole(Bytes::new()))
        }
    }
}

fn whole(body: impl Into<Bytes>) -> Answer {
    Answer::Whole(body.into().into())
}

fn typed(status: StatusCode, content_type: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
