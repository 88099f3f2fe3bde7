//! What befalls the packets of a target: which of them, and whether all of those.

use std::cmp::Ordering;
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

/// How strict a measure is, whatever its ports and rates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strictness {
    /// Packets beyond a rate are dropped.
    Throttle,
    /// All packets of a scope are dropped.
    Part,
    /// Every packet is dropped.
    Everything,
}

impl Strictness {
    /// Each of them, the strictest first.
    pub const ALL: [Strictness; 3] = [Strictness::Everything, Strictness::Part, Strictness::Throttle];
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

impl Measure {
    /// What holds where this stands for a target and `wanted` is to hold for it, too: the stricter one. Two of the same
    /// strictness are joined: the packets of both are meant, at the lower rate.
    pub fn and(self, wanted: Measure) -> Measure {
        match self.strictness().cmp(&wanted.strictness()) {
            Ordering::Less => wanted,
            Ordering::Greater => self,
            Ordering::Equal => {
                let action = match (self.action, wanted.action) {
                    (Action::Throttle(a), Action::Throttle(b)) => Action::Throttle(Rate {
                        per_second: a.per_second.min(b.per_second),
                        burst: a.burst.min(b.burst),
                    }),
                    (action, _) => action,
                };
                Measure { action, scope: self.scope.and(wanted.scope) }
            }
        }
    }

    /// Whether this is stricter than `other`, whatever the ports and rates of the two are.
    pub fn is_stricter_than(&self, other: &Measure) -> bool {
        self.strictness() > other.strictness()
    }

    /// Whether it does all that `wanted` would.
    pub fn includes(&self, wanted: &Measure) -> bool {
        self.and(*wanted) == *self
    }

    /// Whether no packet passes.
    pub fn stops_everything(&self) -> bool {
        *self == Measure::default()
    }

    /// How strict it is.
    pub fn strictness(&self) -> Strictness {
        match self.action {
            Action::Block if self.scope.is_everything() => Strictness::Everything,
            Action::Block => Strictness::Part,
            Action::Throttle(_) => Strictness::Throttle,
        }
    }
}

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

    /// The least scope that has all packets of both.
    fn and(self, other: Scope) -> Scope {
        let both: Vec<u16> = self.ports.iter().chain(other.ports.iter()).collect();
        let ports = match (self.ports.is_empty(), other.ports.is_empty()) {
            // More than can be named are all.
            (false, false) => Ports::new(&both).unwrap_or_default(),
            _ => Ports::default(),
        };
        Scope { ports, new_only: self.new_only && other.new_only }
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
            write!(f, " to {rate}")?;
        }
        if self.scope.is_everything() { Ok(()) } else { write!(f, ", {} only", self.scope) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s (burst {})", self.per_second, self.burst)
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

    #[test]
    fn a_target_has_the_strictest_of_its_measures() {
        let rate = |per_second, burst| {
            let number = |n| NonZeroU32::new(n).unwrap();
            Action::Throttle(Rate { per_second: number(per_second), burst: number(burst) })
        };
        let scope = |ports: &[u16], new_only| Scope { ports: Ports::new(ports).unwrap(), new_only };
        let of = |action, ports: &[u16], new_only| Measure { action, scope: scope(ports, new_only) };
        let everything = Measure::default();
        let (some, throttle) = (of(Action::Block, &[22], false), of(rate(20, 40), &[], false));
        for (weaker, stricter) in [(some, everything), (throttle, everything), (throttle, some)] {
            assert!(stricter.is_stricter_than(&weaker) && !weaker.is_stricter_than(&stricter));
            assert_eq!((weaker.and(stricter), stricter.and(weaker)), (stricter, stricter));
        }
        assert_eq!(some.and(of(Action::Block, &[443], true)), of(Action::Block, &[22, 443], false));
        assert_eq!(some.and(of(Action::Block, &[], true)), everything);
        let many = of(Action::Block, &[1, 2, 3, 4, 5, 6, 7, 8], true);
        assert_eq!(many.and(of(Action::Block, &[9], true)), of(Action::Block, &[], true));
        assert_eq!(
            of(rate(20, 10), &[22], true).and(of(rate(5, 40), &[80], true)),
            of(rate(5, 10), &[22, 80], true)
        );
        for measure in [everything, some, throttle, many] {
            assert_eq!(measure.and(measure), measure);
        }
    }
}
