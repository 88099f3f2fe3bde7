//! What befalls the packets of a target: which of them, and whether all of those.

use std::fmt;
use std::num::NonZeroU32;

/// What befalls the packets of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Measure {
    /// What is done.
    pub action: Action,
    /// To which of its packets.
    pub scope: Scope,
}

/// What is done to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// All are dropped.
    #[default]
    Block,
    /// Those beyond a rate are dropped.
    Throttle(Rate),
}

/// How many packets pass: a bucket of tokens, of which each packet takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_second: NonZeroU32,
    /// Tokens in a full bucket: packets that pass at once after a rest.
    pub burst: NonZeroU32,
}

/// Which packets of a target are meant: those to any of some ports, those that open a TCP connection, or both of
/// these; by default all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Destination ports, of TCP and UDP; none: all, and packets without ports, too.
    pub ports: Ports,
    /// Whether only TCP packets that open a connection are meant, so that answers to this host's own connections pass.
    pub new_only: bool,
}

/// Some ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ports([u16; Ports::MAX]);

impl Action {
    /// The name in the configuration, in JSON and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Action::Block => "block",
            Action::Throttle(_) => "throttle",
        }
    }
}

impl Scope {
    /// Whether all packets are meant.
    pub fn is_everything(&self) -> bool {
        *self == Scope::default()
    }
}

impl Ports {
    /// The most ports that one measure can name.
    pub const MAX: usize = 8;

    /// The ports of `ports`, in order and once each; none where one is 0 or there are too many.
    pub fn new(ports: &[u16]) -> Option<Ports> {
        let mut sorted = ports.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() > Ports::MAX || sorted.contains(&0) {
            return None;
        }
        let mut ports = Ports::default();
        ports.0.iter_mut().zip(sorted).for_each(|(place, port)| *place = port);
        Some(ports)
    }

    /// The ports, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.into_iter().filter(|port| *port != 0)
    }

    /// Whether there are none, which means all.
    pub fn is_empty(&self) -> bool {
        *self == Ports::default()
    }
}

/// For people, such as "block", or "throttle to 20/s (burst 40), new connections to port 22 only".
impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.name())?;
        if let Action::Throttle(rate) = self.action {
            write!(f, " to {}/s (burst {})", rate.per_second, rate.burst)?;
        }
        if self.scope.is_everything() { Ok(()) } else { write!(f, ", {} only", self.scope) }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.new_only { "new connections" } else { "packets" })?;
        let ports: Vec<String> = self.ports.iter().map(|port| port.to_string()).collect();
        match ports.len() {
            0 => Ok(()),
            1 => write!(f, " to port {}", ports.join(", ")),
            _ => write!(f, " to ports {}", ports.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_a_small_set() {
        let ports = Ports::new(&[443, 22, 22]).unwrap();
        assert_eq!(ports.iter().collect::<Vec<_>>(), [22, 443]);
        assert_eq!(Ports::new(&[22, 443]), Some(ports));
        assert!(Ports::new(&[]).unwrap().is_empty());
        assert_eq!(Ports::new(&[0]), None);
        assert_eq!(Ports::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), None);
    }

    #[test]
    fn a_measure_says_what_it_does() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let rate = Rate { per_second: number(20), burst: number(40) };
        let scope = Scope { ports: Ports::new(&[22]).unwrap(), new_only: true };
        assert_eq!(Measure::default().to_string(), "block");
        let measure = Measure { action: Action::Throttle(rate), scope };
        assert_eq!(measure.to_string(), "throttle to 20/s (burst 40), new connections to port 22 only");
        let ports = Scope { ports: Ports::new(&[25, 465]).unwrap(), new_only: false };
        assert_eq!(
            Measure { scope: ports, ..Measure::default() }.to_string(),
            "block, packets to ports 25, 465 only"
        );
    }
}
