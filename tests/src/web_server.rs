//! An HTTP server on the guarded host, as the far end of a webhook.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::network::Side;

/// How a [`WebServer`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// With this status.
    With(u16),
    /// With the first status the first time, and with the second from then on.
    First(u16, u16),
    /// Not at all: connections are taken, and nothing comes back.
    Never,
}

/// A server on a port of its own. Its thread ends with the test's process.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    requests: Receiver<Request>,
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The first line and the header, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl WebServer {
    /// Starts one on the host of `lab`.
    pub fn start(lab: &Lab, answers: Answers) -> Result<WebServer> {
        let listen = || TcpListener::bind((Side::Host.v4(), 0)).context("listen for requests");
        let listener = lab.within(Side::Host, listen)?;
        let address = listener.local_addr().context("look at the listener")?;
        let (sender, requests) = channel();
        thread::spawn(move || serve(&listener, answers, &sender));
        Ok(WebServer { address, requests })
    }

    /// A URL of it.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next request, which is waited for five seconds at most.
    pub fn request(&self) -> Result<Request> {
        self.requests.recv_timeout(Duration::from_secs(5)).context("no request came in 5 s")
    }
}

fn serve(listener: &TcpListener, answers: Answers, requests: &Sender<Request>) {
    // Connections that are not answered stay open.
    let mut open = Vec::new();
    let mut status = match answers {
        Answers::With(status) | Answers::First(status, _) => status,
        Answers::Never => 0,
    };
    for mut stream in listener.incoming().flatten() {
        // The test has what it wants when it does not take them any longer; a broken request is told by its absence.
        let Ok(request) = read(&stream) else { continue };
        if requests.send(request).is_err() {
            return;
        }
        if answers != Answers::Never {
            let answer =
                format!("HTTP/1.1 {status} as asked\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            // The client fails where it does not come through, which the test sees.
            stream.write_all(answer.as_bytes()).ok();
        }
        if let Answers::First(_, then) = answers {
            status = then;
        }
        open.push(stream);
    }
}

fn read(stream: &TcpStream) -> Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).context("read the header")? == 0 {
            bail!("the request ended within its header");
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("no length")?.trim().parse().context("the length")?;
    let mut body = vec![0; length.min(1 << 20)];
    reader.read_exact(&mut body).context("read the body")?;
    Ok(Request { head, body: String::from_utf8(body).context("the body")? })
}
