//! The lab's network: a guarded host, an attacker and a bystander, each with one interface on the same wire, and a gateway.
//!
//! ```text
//!  host eth0 ─────┐
//!  attacker eth0 ─┼── bridge (the gateway's)
//!  bystander eth0 ┘
//! ```
//!
//! The far end of each veth pair is a port of the bridge, so the guarded interface is an ordinary one: native XDP attaches to it, and
//! frames reach it as they leave the attacker's stack.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;
use crate::process::{Transcript, find, inside, line, run};

/// The gateway's address, the way out of the host's network.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The gateway's address.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);

/// The host's name server; nobody has the address.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 53);

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The guarded server; sshd and the controller run there.
    Host,
    /// Whoever tries passwords.
    Attacker,
    /// Whoever must not be hurt.
    Bystander,
}

impl Side {
    /// Its IPv4 address, in 10.99.0.0/16.
    pub fn v4(self) -> IpAddr {
        match self {
            Side::Host => Ipv4Addr::new(10, 99, 0, 2),
            Side::Attacker => Ipv4Addr::new(10, 99, 66, 66),
            Side::Bystander => Ipv4Addr::new(10, 99, 10, 10),
        }
        .into()
    }

    /// Its IPv6 address, in 2001:db8:99::/48; each stands in a /64 of its own.
    pub fn v6(self) -> IpAddr {
        match self {
            Side::Host => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 2),
            Side::Attacker => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0x66, 0, 0, 0, 0x66),
            Side::Bystander => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0x10, 0, 0, 0, 0x10),
        }
        .into()
    }

    /// Its address of the family of `other`.
    pub fn beside(self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.v4() } else { self.v6() }
    }

    const ALL: [Side; 3] = [Side::Host, Side::Attacker, Side::Bystander];

    fn name(self) -> &'static str {
        match self {
            Side::Host => "host",
            Side::Attacker => "attacker",
            Side::Bystander => "bystander",
        }
    }
}

/// The network, up and addressed.
#[derive(Debug)]
pub(crate) struct Network {
    host: Namespace,
    attacker: Namespace,
    bystander: Namespace,
    gateway: Namespace,
}

impl Network {
    pub(crate) fn new() -> Result<Network> {
        let network = Network {
            host: Namespace::network()?,
            attacker: Namespace::network()?,
            bystander: Namespace::network()?,
            gateway: Namespace::network()?,
        };
        network.wire().context("set up the lab's network")?;
        Ok(network)
    }

    /// The namespace of a side.
    pub(crate) fn of(&self, side: Side) -> &Namespace {
        match side {
            Side::Host => &self.host,
            Side::Attacker => &self.attacker,
            Side::Bystander => &self.bystander,
        }
    }

    /// Every namespace.
    pub(crate) fn all(&self) -> [&Namespace; 4] {
        [&self.host, &self.attacker, &self.bystander, &self.gateway]
    }

    /// Gives `side` a further address; its prefix is that of the lab's network.
    pub(crate) fn add_address(&self, side: Side, address: IpAddr) -> Result<()> {
        ip(self.of(side), &add_address("eth0", address))
    }

    /// Packets to the host that were dropped where no gate stands: on the wire, whose end at the host takes up 256 at a time where
    /// XDP is on it (veth(4)'s ring), and at full sockets of IPv4. A machine that lets the host wait for a processor loses them.
    pub(crate) fn dropped_by_itself(&self) -> Result<u64> {
        let wire = Side::Host.name();
        let mut command = inside(&self.gateway, None, &find("ip")?);
        let output = run(command.args(["-json", "-stats", "link", "show", wire]))?;
        let links: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("read the output of ip")?;
        let dropped = links[0]["stats64"]["tx"]["dropped"].as_u64().context("the wire has no counts")?;
        let counts = self
            .host
            .within(|| fs::read_to_string("/proc/thread-self/net/snmp").context("read UDP's counts"))?;
        let mut udp = counts.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (udp.next().unwrap_or_default(), udp.next().unwrap_or_default());
        let place =
            names.split(' ').position(|name| name == "RcvbufErrors").context("UDP counts no full buffers")?;
        let full: u64 =
            values.split(' ').nth(place).unwrap_or_default().parse().context("read UDP's counts")?;
        Ok(dropped + full)
    }

    fn wire(&self) -> Result<()> {
        // A bridge that learns multicast would hold back neighbour discovery for its first seconds.
        let mut script = "link add br0 type bridge mcast_snooping 0 forward_delay 0\n".to_owned();
        for side in Side::ALL {
            let (port, end) = (side.name(), self.of(side).path());
            writeln!(script, "link add {port} type veth peer name eth0 netns {}", end.display())?;
            writeln!(script, "link set {port} master br0 up")?;
        }
        script += "link set lo up\nlink set br0 up\n";
        script += &add_address("br0", GATEWAY_V4.into());
        script += &add_address("br0", GATEWAY_V6.into());
        ip(&self.gateway, &script)?;

        for side in Side::ALL {
            let mut script = "link set lo up\nlink set eth0 up\n".to_owned();
            script += &add_address("eth0", side.v4());
            script += &add_address("eth0", side.v6());
            writeln!(script, "route add default via {GATEWAY_V4}")?;
            writeln!(script, "route add ::/0 via {GATEWAY_V6}")?;
            ip(self.of(side), &script)?;
        }
        Ok(())
    }
}

/// A line for ip(8). Without `nodad` an IPv6 address could not be used for its first second.
fn add_address(interface: &str, address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("address replace {v4}/16 dev {interface}\n"),
        IpAddr::V6(v6) => format!("address replace {v6}/48 dev {interface} nodad\n"),
    }
}

/// Runs a batch of ip(8) in a namespace.
fn ip(namespace: &Namespace, script: &str) -> Result<()> {
    let mut command = inside(namespace, None, &find("ip")?);
    run_with_input(command.args(["-batch", "-"]), script)
}

fn run_with_input(command: &mut Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start `{}`", line(command)))?;
    child.stdin.take().context("the input of ip")?.write_all(input.as_bytes()).context("write to ip")?;
    let output = child.wait_with_output().context("wait for ip")?;
    if !output.status.success() {
        let command = line(command);
        bail!("{}\n--- input\n{input}", Transcript { command: &command, output: &output });
    }
    Ok(())
}
