//! The self-test: before anything is attached, the program runs on packets in an instance of its own, whose tables
//! hold nothing but what the test puts there. It must pass what it should pass, and drop what it should drop.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::programs::Xdp;
use aya::{Ebpf, TestRun, TestRunOptions};
use xdpban_common::program;
use xdpban_engine::measure::Measure;
use xdpban_engine::target::Target;
use xdpban_engine::time::Mono;

use super::error::GateError;
use super::tables::{Insertion, Tables};
use super::{load, packet};
use crate::error::chain;

/// What XDP programs return, from the kernel's `enum xdp_action`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Addresses for documentation (RFC 5737, RFC 3849): no host has them.
const BLOCKED4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const BLOCKED6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
const EXPIRED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const BYSTANDER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const BYSTANDER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1);

/// Shorter than this a packet cannot be for the kernel to run a program on it.
const ETHERNET_HEADER: usize = 14;

/// Runs the fixtures on an instance that was loaded for this alone.
pub(super) fn run(instance: &mut Ebpf, tables: &mut Tables) -> Result<(), GateError> {
    let sources = [BLOCKED4.into(), BLOCKED6.into(), EXPIRED.into(), BYSTANDER4.into(), BYSTANDER6.into()];
    for source in sources {
        expect(instance, &packet::from(source), XDP_PASS, format_args!("{source} while nothing is blocked"))?;
    }
    block(tables)?;
    for source in [IpAddr::from(BLOCKED4), BLOCKED6.into()] {
        let packet = packet::from(source);
        expect(instance, &packet, XDP_DROP, format_args!("{source}, which is blocked"))?;
        let cut = packet.get(..packet.len() - 1).unwrap_or_default();
        expect(instance, cut, XDP_PASS, format_args!("a packet that ends in its IP header"))?;
        let cut = packet.get(..ETHERNET_HEADER).unwrap_or_default();
        expect(instance, cut, XDP_PASS, format_args!("a packet that ends before its IP header"))?;
    }
    for source in [IpAddr::from(EXPIRED), BYSTANDER4.into(), BYSTANDER6.into()] {
        expect(instance, &packet::from(source), XDP_PASS, format_args!("{source} while others are blocked"))?;
    }
    expect(instance, &packet::arp(), XDP_PASS, format_args!("ARP"))
}

fn expect(
    instance: &mut Ebpf,
    packet: &[u8],
    expected: u32,
    what: fmt::Arguments<'_>,
) -> Result<(), GateError> {
    let program: &mut Xdp = load::xdp(instance, program::XDP)?;
    let verdict = test_run(program, program::XDP, packet)?;
    if verdict == expected {
        return Ok(());
    }
    Err(GateError::SelfTest { fixture: format!("{what} got the verdict {verdict} instead of {expected}") })
}

/// Runs `program` on `packet` and returns what it returns.
pub(super) fn test_run(program: &Xdp, name: &'static str, packet: &[u8]) -> Result<u32, GateError> {
    let options = TestRunOptions { data_in: Some(packet), ..TestRunOptions::default() };
    let result = program
        .test_run(options)
        .map_err(|source| GateError::Run { program: name, source: Box::new(source) })?;
    Ok(result.return_value)
}

/// Fills the tables of the instance.
fn block(tables: &mut Tables) -> Result<(), GateError> {
    let block = |address: IpAddr, expires| Insertion {
        target: Target::exact(address),
        expires,
        measure: Measure::default(),
    };
    let insertions =
        [block(BLOCKED4.into(), None), block(BLOCKED6.into(), None), block(EXPIRED.into(), Some(Mono(1)))];
    match tables.insert(&insertions).first() {
        None => Ok(()),
        Some((_, why)) => Err(GateError::SelfTest {
            fixture: format!("an empty table did not take a block: {}", chain(why)),
        }),
    }
}
