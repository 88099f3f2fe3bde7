//! What can be blocked or allowed: an address or a prefix.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 or IPv6 address, or a prefix of either. The bits beyond the prefix are zero, and an IPv4 address that
/// was written as IPv6 (`::ffff:203.0.113.7`) is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    address: IpAddr,
    prefix_len: u8,
}

/// Why a text is not a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither an address nor a prefix.
    #[error("`{0}` is neither an IPv4 or IPv6 address nor a prefix such as 203.0.113.0/24 or 2001:db8::/32")]
    Syntax(String),
    /// The length is beyond that of the address.
    #[error("`{0}`: the prefix length is at most {1}")]
    Length(String, u8),
    /// Bits are set beyond the prefix: a slip of the pen, and which address was meant is anyone's guess.
    #[error("`{0}` has bits set beyond its prefix; write {1} for the network")]
    HostBits(String, Target),
}

/// Fewer pieces than a derived one would hash: it is looked up for every line.
impl Hash for Target {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        match self.address {
            IpAddr::V4(v4) => hasher.write_u64(u64::from(v4.to_bits()) << 8 | u64::from(self.prefix_len)),
            IpAddr::V6(v6) => {
                hasher.write_u128(v6.to_bits());
                hasher.write_u8(self.prefix_len);
            }
        }
    }
}

impl Target {
    /// The prefix of `address` that is `prefix_len` bits long; a length beyond the address means all of it.
    pub fn prefix(address: IpAddr, prefix_len: u8) -> Target {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                // A v4-mapped address carries its 96 leading bits in the length, too.
                let prefix_len = if address.is_ipv6() { prefix_len.saturating_sub(96) } else { prefix_len };
                let prefix_len = prefix_len.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
                Target { address: Ipv4Addr::from_bits(v4.to_bits() & mask).into(), prefix_len }
            }
            IpAddr::V6(v6) => {
                let prefix_len = prefix_len.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
                Target { address: Ipv6Addr::from_bits(v6.to_bits() & mask).into(), prefix_len }
            }
        }
    }

    /// One address, all of its bits.
    pub fn exact(address: IpAddr) -> Target {
        Target::prefix(address, 128)
    }

    /// The first address of the target.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits: 32 or 128 for one address.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether the target is one address.
    pub fn is_exact(&self) -> bool {
        self.prefix_len == if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Whether `address` lies in the target.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.covers(&Target::exact(address))
    }

    /// Whether all of `other` lies in the target.
    pub fn covers(&self, other: &Target) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.prefix_len <= other.prefix_len
            && Target::prefix(other.address, self.prefix_len) == *self
    }

    /// Whether half of the addresses that hosts of its family can have lie in the target, or more: those of IPv6 are 2000::/3.
    pub fn is_half_of_all(&self) -> bool {
        match self.address {
            IpAddr::V4(_) => self.prefix_len <= 1,
            IpAddr::V6(_) => {
                let global = Target::prefix(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0).into(), 3);
                self.prefix_len <= 4 && self.overlaps(&global)
            }
        }
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Target) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_exact() {
            f.pad(&self.address.to_string())
        } else {
            f.pad(&format!("{}/{}", self.address, self.prefix_len))
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let syntax = || TargetError::Syntax(text.chars().take(64).collect());
        let (address, prefix_len) = match text.split_once('/') {
            None => (text, None),
            Some((address, len)) => (address, Some(len)),
        };
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let Some(prefix_len) = prefix_len else { return Ok(Target::exact(address)) };
        if prefix_len.is_empty() || !prefix_len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(syntax());
        }
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len: u8 = prefix_len
            .parse()
            .ok()
            .filter(|len| *len <= max)
            .ok_or_else(|| TargetError::Length(text.chars().take(64).collect(), max))?;
        let target = Target::prefix(address, prefix_len);
        if address.is_ipv6() && target.address.is_ipv4() && prefix_len < 96 {
            return Err(syntax());
        }
        if target.address != address.to_canonical() {
            return Err(TargetError::HostBits(text.to_owned(), target));
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn reads_addresses_and_prefixes() {
        for text in ["203.0.113.7", "203.0.113.0/24", "0.0.0.0/0", "2001:db8::1", "2001:db8:1:2::/64", "::/0"]
        {
            assert_eq!(target(text).to_string(), text);
        }
        assert_eq!(target("203.0.113.7/32").to_string(), "203.0.113.7");
        assert_eq!(target("::ffff:203.0.113.7").to_string(), "203.0.113.7");
        assert_eq!(target("::ffff:203.0.113.0/120").to_string(), "203.0.113.0/24");
    }

    #[test]
    fn refuses_what_is_no_target() {
        for text in
            ["", "host", "1.2.3", "1.2.3.4.5", "1.2.3.4/", "1.2.3.4/x", "1.2.3.4/+8", "::/129/1", " 1.2.3.4"]
        {
            assert!(matches!(text.parse::<Target>(), Err(TargetError::Syntax(_))), "{text}");
        }
        assert_eq!("1.2.3.4/33".parse::<Target>(), Err(TargetError::Length("1.2.3.4/33".into(), 32)));
        assert_eq!(
            "192.0.2.7/24".parse::<Target>(),
            Err(TargetError::HostBits("192.0.2.7/24".into(), target("192.0.2.0/24")))
        );
    }

    #[test]
    fn knows_what_holds_half_of_all_addresses() {
        for text in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "::/2", "2000::/3", "3000::/4"] {
            assert!(target(text).is_half_of_all(), "{text}");
        }
        for text in ["0.0.0.0/2", "10.0.0.0/8", "203.0.113.7", "::/3", "8000::/1", "fc00::/7", "2000::/5"] {
            assert!(!target(text).is_half_of_all(), "{text}");
        }
    }

    #[test]
    fn covers_what_lies_within() {
        let net = target("203.0.113.0/24");
        assert!(net.contains("203.0.113.255".parse().unwrap()));
        assert!(net.contains("::ffff:203.0.113.9".parse().unwrap()));
        assert!(!net.contains("203.0.114.0".parse().unwrap()));
        assert!(target("::/0").contains("2001:db8::1".parse().unwrap()));
        assert!(!target("::/0").contains("203.0.113.7".parse().unwrap()));
        assert!(net.overlaps(&target("203.0.0.0/16")) && !net.covers(&target("203.0.0.0/16")));
    }
}
