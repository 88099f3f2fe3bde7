//! Packets for the gate to judge: datagrams from one side to the host and a count of those that arrived, and connections.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, SendTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use crate::namespace::Namespace;

/// The least time between two datagrams of a stream, so that a test does not starve what it tests.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(100);

/// Room for some seconds of a stream at its fastest, in bytes.
const RECEIVE_BUFFER: usize = 64 << 20;

/// A steady stream of datagrams to the host; it ends when dropped.
#[derive(Debug)]
pub struct Stream {
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    last: Mutex<Option<Instant>>,
    stop: AtomicBool,
}

impl Stream {
    /// Sends from `from`, an address in `sender`, to a port of `to`, an address in `receiver`.
    pub(crate) fn start(
        (sender, from): (&Namespace, IpAddr),
        (receiver, to): (&Namespace, IpAddr),
        interval: Duration,
    ) -> Result<Stream> {
        let (outgoing, incoming) = pair((sender, from), (receiver, to))?;
        let interval = interval.max(SHORTEST_INTERVAL);
        let counts = Arc::new(Counts::default());
        let (sending, receiving) = (Arc::clone(&counts), Arc::clone(&counts));
        let threads = vec![
            thread::spawn(move || send(&outgoing, interval, &sending)),
            thread::spawn(move || receive(&incoming, &receiving)),
        ];
        Ok(Stream { counts, threads })
    }

    /// How many datagrams were sent.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// How many arrived.
    pub fn received(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed)
    }

    /// When the last one arrived.
    pub fn last_received(&self) -> Option<Instant> {
        *self.counts.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it; returns how many were sent, and how many of them arrived.
    pub fn stop(mut self) -> Result<(u64, u64)> {
        self.end()?;
        Ok((self.sent(), self.received()))
    }

    fn end(&mut self) -> Result<()> {
        self.counts.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).try_for_each(|thread| thread.join().map_err(|_| anyhow!("it panicked"))?)
    }
}

impl Drop for Stream {
    #[allow(clippy::print_stderr, reason = "a destructor has no other way to tell")]
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the lab's stream of datagrams: {error:#}");
        }
    }
}

/// Sends `count` datagrams as fast as one socket can; returns how many of them arrived. A full socket buffer loses some, too.
pub(crate) fn flood(sender: (&Namespace, IpAddr), receiver: (&Namespace, IpAddr), count: u64) -> Result<u64> {
    let (outgoing, incoming) = pair(sender, receiver)?;
    let counts = Arc::new(Counts::default());
    let receiving = Arc::clone(&counts);
    let thread = thread::spawn(move || receive(&incoming, &receiving));
    for number in 0..count {
        outgoing.send(&number.to_be_bytes()).context("send a datagram")?;
    }
    counts.stop.store(true, Ordering::Relaxed);
    thread.join().map_err(|_| anyhow!("the receiver panicked"))??;
    Ok(counts.received.load(Ordering::Relaxed))
}

/// Whether a connection from `from` to `to` comes about within a second, in the namespace of the calling thread.
pub(crate) fn tcp_connect(from: IpAddr, to: SocketAddr) -> Result<bool> {
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("make a socket")?;
    // The limit holds for connecting, too (socket(7)).
    setsockopt(&socket, SendTimeout, &TimeVal::new(1, 0)).context("limit the wait for a connection")?;
    let from = SockaddrStorage::from(SocketAddr::new(from, 0));
    bind(socket.as_raw_fd(), &from).with_context(|| format!("bind to {from}"))?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) => Ok(true),
        Err(Errno::EINPROGRESS | Errno::ETIMEDOUT | Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("connect to {to}")),
    }
}

/// A socket to send with, connected to one to receive with.
fn pair(
    (sender, from): (&Namespace, IpAddr),
    (receiver, to): (&Namespace, IpAddr),
) -> Result<(UdpSocket, UdpSocket)> {
    let incoming = receiver.within(|| UdpSocket::bind((to, 0)).with_context(|| format!("bind to {to}")))?;
    incoming.set_read_timeout(Some(Duration::from_millis(100))).context("limit the wait for a datagram")?;
    // A receiver that has to wait for a processor must not pass for a gate that holds packets up.
    setsockopt(&incoming, RcvBufForce, &RECEIVE_BUFFER).context("enlarge the receiver's buffer")?;
    let place = incoming.local_addr().context("the receiver's port")?;
    let outgoing = sender.within(|| {
        let socket = UdpSocket::bind((from, 0)).with_context(|| format!("bind to {from}"))?;
        socket.connect(place).with_context(|| format!("connect to {place}"))?;
        Ok(socket)
    })?;
    Ok((outgoing, incoming))
}

fn send(socket: &UdpSocket, interval: Duration, counts: &Counts) -> Result<()> {
    while !counts.stop.load(Ordering::Relaxed) {
        let number = counts.sent.fetch_add(1, Ordering::Relaxed);
        socket.send(&number.to_be_bytes()).context("send a datagram")?;
        sleep(interval);
    }
    Ok(())
}

/// Counts until nothing has arrived for the socket's time limit after the stop.
fn receive(socket: &UdpSocket, counts: &Counts) -> Result<()> {
    let mut datagram = [0; 8];
    loop {
        match socket.recv(&mut datagram) {
            Ok(_) => {
                counts.received.fetch_add(1, Ordering::Relaxed);
                *counts.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if counts.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            Err(error) => return Err(error).context("receive a datagram"),
        }
    }
}
