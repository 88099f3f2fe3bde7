//! A log as an sshd on the internet writes it, made up from a fixed seed: the same lines every time.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};

/// 2026-02-01T00:00:00Z. A few million lines end well before March.
const START: u64 = 1_769_904_000;

/// How many addresses attack.
const SOURCES: u64 = 20_000;

/// How many of them are at it at a time, of which each makes so many connections before another takes its place. One of
/// twenty connections comes from others, of which each makes few in a day.
const BUSY: u64 = 50;
const CONNECTIONS: u64 = 60;

const NAMES: [&str; 16] = [
    "admin",
    "test",
    "user",
    "oracle",
    "ubuntu",
    "git",
    "postgres",
    "pi",
    "ftpuser",
    "hadoop",
    "deploy",
    "es",
    "www-data",
    "minecraft",
    "sol",
    "nagios",
];

/// Writes `lines` lines to `path`, about half with each kind of time stamp that rsyslog writes, and dates the file to the last of
/// them: the traditional stamp names no year.
pub(crate) fn write(path: &Path, lines: u64) -> Result<()> {
    let context = || format!("write {}", path.display());
    let file = File::create(path).with_context(context)?;
    let mut log = Log {
        random: Random(20_260_201),
        micros: START * 1_000_000,
        text: String::new(),
        lines: 0,
        connections: 0,
    };
    let mut out = BufWriter::with_capacity(1 << 20, file);
    while log.lines < lines {
        log.text.clear();
        log.connection()?;
        out.write_all(log.text.as_bytes()).with_context(context)?;
    }
    let file = out.into_inner().with_context(context)?;
    file.set_modified(UNIX_EPOCH + Duration::from_micros(log.micros)).with_context(context)
}

/// SplitMix64: small, and good enough to choose by.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn among<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let place = self.below(all.len() as u64);
        all.iter().copied().nth(usize::try_from(place).unwrap_or(0)).unwrap_or_default()
    }
}

struct Log {
    random: Random,
    micros: u64,
    text: String,
    lines: u64,
    connections: u64,
}

impl Log {
    /// The lines of one connection, or of something else that goes to the same log.
    fn connection(&mut self) -> std::fmt::Result {
        let peer = Peer { address: self.source(), port: 1024 + self.random.below(64_000) };
        let (pid, iso) = (1000 + self.random.below(4_000_000), self.random.below(2) == 0);
        let mut said = Said { log: self, pid, iso, program: "sshd" };
        match said.log.random.below(100) {
            0..40 => said.invalid_user(&peer),
            40..62 => said.wrong_password(&peer),
            62..82 => said.probe(&peer),
            82..86 => said.login(&peer),
            _ => said.others(),
        }
    }

    fn source(&mut self) -> String {
        self.connections += 1;
        let n = if self.random.below(20) > 0 {
            (self.connections / CONNECTIONS + self.random.below(BUSY)) % SOURCES
        } else {
            self.random.below(SOURCES)
        };
        // Spread over the space, away from what is never blocked.
        let scattered = Random(n).next();
        let byte = |shift: u32| scattered >> shift & 0xff;
        if n % 50 == 49 {
            format!("2001:db8:{:x}:{:x}::{:x}", scattered & 0xffff, scattered >> 16 & 0xffff, byte(32))
        } else {
            format!("{}.{}.{}.{}", 11 + byte(0) % 100, byte(8), byte(16), byte(24))
        }
    }
}

struct Peer {
    address: String,
    port: u64,
}

/// The lines of one process.
struct Said<'a> {
    log: &'a mut Log,
    pid: u64,
    iso: bool,
    program: &'static str,
}

impl Said<'_> {
    fn line(&mut self, message: std::fmt::Arguments<'_>) -> std::fmt::Result {
        let Said { log, pid, iso, program } = self;
        log.micros += log.random.below(400_000);
        log.lines += 1;
        let (micros, seconds) = (log.micros % 1_000_000, log.micros / 1_000_000 - START);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let day = seconds / 86_400 + 1;
        let text = &mut log.text;
        if *iso {
            write!(text, "2026-02-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00 ")?;
        } else {
            write!(text, "Feb {day:>2} {hour:02}:{minute:02}:{second:02} ")?;
        }
        writeln!(text, "gw1 {program}[{pid}]: {message}")
    }

    fn invalid_user(&mut self, Peer { address, port }: &Peer) -> std::fmt::Result {
        let name = self.log.random.among(&NAMES);
        self.line(format_args!("Invalid user {name} from {address} port {port}"))?;
        self.line(format_args!("pam_unix(sshd:auth): check pass; user unknown"))?;
        self.line(format_args!(
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={address} "
        ))?;
        self.line(format_args!("Failed password for invalid user {name} from {address} port {port} ssh2"))?;
        self.line(format_args!("Received disconnect from {address} port {port}:11: Bye Bye [preauth]"))?;
        self.line(format_args!("Disconnected from invalid user {name} {address} port {port} [preauth]"))
    }

    fn wrong_password(&mut self, Peer { address, port }: &Peer) -> std::fmt::Result {
        let tries = 1 + self.log.random.below(5);
        self.line(format_args!(
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={address}  user=root"
        ))?;
        self.line(format_args!("Failed password for root from {address} port {port} ssh2"))?;
        if tries == 5 {
            self.line(format_args!(
                "message repeated 4 times: [ Failed password for root from {address} port {port} ssh2]"
            ))?;
            self.line(format_args!(
                "error: maximum authentication attempts exceeded for root from {address} port {port} ssh2 [preauth]"
            ))?;
            self.line(format_args!(
                "Disconnecting authenticating user root {address} port {port}: Too many authentication failures [preauth]"
            ))?;
        } else {
            for _ in 1..tries {
                self.line(format_args!("Failed password for root from {address} port {port} ssh2"))?;
            }
            self.line(format_args!(
                "Connection closed by authenticating user root {address} port {port} [preauth]"
            ))?;
        }
        if tries == 1 {
            return Ok(());
        }
        self.line(format_args!(
            "PAM {} more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost={address}  user=root",
            tries - 1
        ))
    }

    fn probe(&mut self, Peer { address, port }: &Peer) -> std::fmt::Result {
        match self.log.random.below(6) {
            0 => {
                self.line(format_args!("error: kex_exchange_identification: Connection closed by remote host"))?;
                self.line(format_args!("Connection closed by {address} port {port}"))
            }
            1 => self.line(format_args!(
                "banner exchange: Connection from {address} port {port}: invalid format"
            )),
            2 => self.line(format_args!(
                "Unable to negotiate with {address} port {port}: no matching key exchange method found. Their offer: diffie-hellman-group14-sha1,diffie-hellman-group1-sha1 [preauth]"
            )),
            3 => self.line(format_args!("Did not receive identification string from {address} port {port}")),
            4 => self.line(format_args!("Connection reset by {address} port {port} [preauth]")),
            _ => {
                self.line(format_args!("Connection from {address} port {port} on 192.0.2.1 port 22 rdomain \"\""))?;
                self.line(format_args!("fatal: Timeout before authentication for {address} port {port}"))
            }
        }
    }

    fn login(&mut self, Peer { port, .. }: &Peer) -> std::fmt::Result {
        let address = format!("198.51.100.{}", self.log.random.below(20));
        self.line(format_args!(
            "Accepted publickey for carol from {address} port {port} ssh2: ED25519 SHA256:0Kq3wV5cVtZpFb0bHcxV2mUj9nTq1s7yGm4dK8rEoXA"
        ))?;
        self.line(format_args!(
            "pam_unix(sshd:session): session opened for user carol(uid=1000) by (uid=0)"
        ))?;
        self.line(format_args!("Received disconnect from {address} port {port}:11: disconnected by user"))?;
        self.line(format_args!("Disconnected from user carol {address} port {port}"))?;
        self.line(format_args!("pam_unix(sshd:session): session closed for user carol"))
    }

    fn others(&mut self) -> std::fmt::Result {
        if self.log.random.below(3) == 0 {
            self.program = "systemd-logind";
            let session = self.log.random.below(100_000);
            return self.line(format_args!("New session {session} of user carol."));
        }
        self.program = "CRON";
        self.line(format_args!("pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)"))?;
        self.line(format_args!("pam_unix(cron:session): session closed for user root"))
    }
}
