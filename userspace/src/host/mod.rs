//! What the host says about itself: its addresses, its default gateways and its name servers, none of which may ever be
//! blocked, and the interfaces that its default routes go through.
//!
//! All of it is read from the network namespace of the calling thread.

mod device;
mod fitness;
mod links;
pub(crate) mod netlink;
mod resolver;
mod routes;
mod select;
mod watcher;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::SockaddrStorage;
use xdpban_engine::HostAddresses;

pub use self::device::{XdpFeatures, driver, offloads, xdp_features};
pub use self::fitness::{Fitness, fitness};
pub use self::links::{Link, links};
pub use self::select::{Selected, select};
pub use self::watcher::Watcher;

use self::netlink::NetlinkError;

/// Why the host's addresses are not known.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The system did not list the addresses of the interfaces.
    #[error("cannot list this host's addresses")]
    Interfaces {
        /// What it said.
        #[source]
        source: Errno,
    },
    /// The kernel did not describe the interfaces.
    #[error("cannot list this host's interfaces")]
    Links {
        /// What it said.
        #[source]
        source: NetlinkError,
    },
    /// A file that tells of routes or name servers could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel does not tell of changes.
    #[error("cannot watch for changes of interfaces, addresses and routes (netlink)")]
    Watch {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The host's name; none where the kernel has none that is text.
pub fn name() -> Option<String> {
    // uname(2) fails for a bad pointer alone.
    nix::sys::utsname::uname().ok()?.nodename().to_str().map(str::to_owned)
}

/// The addresses that the host depends on at present.
///
/// # Errors
/// A part of them cannot be read. None is left out silently, since it would then not be protected.
pub fn addresses() -> Result<HostAddresses, HostError> {
    let gateways = routes::read()?.into_iter().filter_map(|route| route.gateway);
    Ok(HostAddresses {
        own: sorted(own()?),
        gateways: sorted(gateways),
        name_servers: sorted(resolver::name_servers()?),
    })
}

/// The interfaces with a default route, IPv4 or IPv6, by name and each once.
///
/// # Errors
/// The routes cannot be read.
pub fn default_route_interfaces() -> Result<Vec<String>, HostError> {
    let mut names: Vec<String> = routes::read()?
        .into_iter()
        .filter(|route| route.prefix_len == 0)
        .map(|route| route.interface)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn own() -> Result<Vec<IpAddr>, HostError> {
    let interfaces = nix::ifaddrs::getifaddrs().map_err(|source| HostError::Interfaces { source })?;
    Ok(interfaces.filter_map(|interface| interface.address).filter_map(|address| ip(&address)).collect())
}

/// The address in a socket address; none where it is of another family, such as that of a network card.
fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

fn sorted(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = addresses.into_iter().collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// The text of a file; none where there is no such file. Bytes that are not UTF-8 become replacement characters.
fn text(path: &str) -> Result<Option<String>, HostError> {
    match fs::read(Path::new(path)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HostError::Read { path: path.into(), source }),
    }
}
