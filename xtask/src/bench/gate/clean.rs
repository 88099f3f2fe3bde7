//! What those pay who are not blocked: nanoseconds a packet, and the throughput of a TCP connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::lab::{IN_ADDRESS, Lab};
use super::program::PASS;
use super::{frame, sys};

/// Addresses for documentation (RFC 5737, RFC 3849), which are not blocked here.
const SOURCE4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 1, 0, 0, 0, 1);

/// Parts that a measurement is made in.
const PARTS: u32 = 10;

/// The families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// How long `program` takes for one packet that passes, in nanoseconds, the kernel's loop around it included.
pub(super) fn nanoseconds(program: &OwnedFd, family: Family, repeat: u32) -> Result<f64> {
    let frame = match family {
        Family::V4 => frame::syn(SOURCE4, IN_ADDRESS),
        Family::V6 => frame::syn6(SOURCE6, HOST6),
    };
    // The best of some parts is the one that interrupts disturbed least.
    let mut best = f64::INFINITY;
    for _ in 0..PARTS {
        let (verdict, took) = sys::test_run(program, &frame, repeat / PARTS).context("run a program")?;
        ensure!(verdict == PASS, "a packet that is not blocked got the verdict {verdict}");
        best = best.min(took);
    }
    Ok(best)
}

/// Bytes a second of one TCP connection into the receiving end.
pub(super) fn throughput(lab: &Lab, duration: Duration) -> Result<f64> {
    let listener = TcpListener::bind((IN_ADDRESS, 0)).context("listen")?;
    let port = listener.local_addr().context("ask for the port")?.port();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || receive(&listener));
        lab.at_sender(|| {
            let mut stream = TcpStream::connect((IN_ADDRESS, port)).context("connect")?;
            let block = vec![0u8; 128 * 1024];
            let start = Instant::now();
            while start.elapsed() < duration {
                stream.write_all(&block).context("send")?;
            }
            Ok(())
        })?;
        receiver.join().map_err(|_| anyhow!("the receiver panicked"))?
    })
}

#[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
fn receive(listener: &TcpListener) -> Result<f64> {
    let (mut stream, _) = listener.accept().context("accept a connection")?;
    let start = Instant::now();
    let mut block = vec![0u8; 128 * 1024];
    let mut bytes = 0;
    loop {
        match stream.read(&mut block).context("receive")? {
            0 => return Ok(bytes as f64 / start.elapsed().as_secs_f64()),
            read => bytes += read,
        }
    }
}
