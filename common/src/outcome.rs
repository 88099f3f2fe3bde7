//! What became of a packet, and how many of each there were.

/// What became of a packet and why: a closed set. The numbers are the places in [`Totals::packets`], and what
/// the program `xdpban_probe` returns.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Passed: its source is not blocked.
    Clean = 0,
    /// Passed: neither IPv4 nor IPv6 (ARP, for one).
    NotIp = 1,
    /// Passed: it ends before its source address does.
    TooShort = 2,
    /// Passed although blocked: neighbour discovery, or a link-local or unspecified source.
    Exempt = 3,
    /// Passed although blocked: the allowlist has its source.
    Allowed = 4,
    /// Dropped: its IPv4 address is blocked.
    Exact4 = 5,
    /// Dropped: its IPv6 address or the /64 that it is in is blocked.
    Exact6 = 6,
    /// Dropped: its IPv4 address lies in a blocked prefix.
    Prefix4 = 7,
    /// Dropped: its IPv6 address lies in a blocked prefix.
    Prefix6 = 8,
    /// Passed although blocked: the block is for other ports, or for new connections alone.
    OutOfScope = 9,
    /// Passed: its source is throttled, and within its rate.
    WithinRate = 10,
    /// Dropped: its source is throttled, and beyond its rate.
    Throttled = 11,
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = Outcome::ALL.len();

    /// Every outcome, in the order of the numbers.
    pub const ALL: [Outcome; 12] = [
        Outcome::Clean,
        Outcome::NotIp,
        Outcome::TooShort,
        Outcome::Exempt,
        Outcome::Allowed,
        Outcome::Exact4,
        Outcome::Exact6,
        Outcome::Prefix4,
        Outcome::Prefix6,
        Outcome::OutOfScope,
        Outcome::WithinRate,
        Outcome::Throttled,
    ];

    /// Whether the packet is dropped.
    #[inline(always)]
    pub const fn drops(self) -> bool {
        matches!(
            self,
            Outcome::Exact4 | Outcome::Exact6 | Outcome::Prefix4 | Outcome::Prefix6 | Outcome::Throttled
        )
    }

    /// The outcome with that number.
    pub fn from_number(number: u32) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| *outcome as u32 == number)
    }

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Clean => "clean",
            Outcome::NotIp => "not_ip",
            Outcome::TooShort => "too_short",
            Outcome::Exempt => "exempt",
            Outcome::Allowed => "allowed",
            Outcome::Exact4 => "exact_v4",
            Outcome::Exact6 => "exact_v6",
            Outcome::Prefix4 => "prefix_v4",
            Outcome::Prefix6 => "prefix_v6",
            Outcome::OutOfScope => "out_of_scope",
            Outcome::WithinRate => "within_rate",
            Outcome::Throttled => "throttled",
        }
    }

    /// What it means, for a person: the end of a sentence "it passes because …" or "it is dropped because …".
    pub const fn meaning(self) -> &'static str {
        match self {
            Outcome::Clean => "nothing blocks it",
            Outcome::NotIp => "it is neither IPv4 nor IPv6",
            Outcome::TooShort => "it is too short to tell its source",
            Outcome::Exempt => "neighbour discovery and link-local sources always pass",
            Outcome::Allowed => "the allowlist has it",
            Outcome::Exact4 => "this address is blocked",
            Outcome::Exact6 => "this address or its /64 is blocked",
            Outcome::Prefix4 | Outcome::Prefix6 => "it lies in a blocked prefix",
            Outcome::OutOfScope => "only other packets of it are blocked",
            Outcome::WithinRate => "it is throttled, and within its rate",
            Outcome::Throttled => "it is throttled, and beyond its rate",
        }
    }
}

/// Counts of packets since the tables were made: one per CPU in the kernel, summed by the controller.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets by [`Outcome`].
    pub packets: [u64; Outcome::COUNT],
    /// Bytes of the packets that were dropped, Ethernet headers included.
    pub dropped_bytes: u64,
}

impl Totals {
    /// Packets with that outcome.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.packets.get(outcome as usize).copied().unwrap_or(0)
    }

    /// Packets that passed.
    pub fn passed(&self) -> u64 {
        self.sum(false)
    }

    /// Packets that were dropped.
    pub fn dropped(&self) -> u64 {
        self.sum(true)
    }

    /// Adds the counts of another CPU.
    pub fn add(&mut self, other: &Totals) {
        for (mine, theirs) in self.packets.iter_mut().zip(other.packets) {
            *mine = mine.wrapping_add(theirs);
        }
        self.dropped_bytes = self.dropped_bytes.wrapping_add(other.dropped_bytes);
    }

    fn sum(&self, drops: bool) -> u64 {
        let wanted = Outcome::ALL.into_iter().filter(|outcome| outcome.drops() == drops);
        wanted.fold(0, |sum, outcome| sum.wrapping_add(self.of(outcome)))
    }
}

const _: () = assert!(size_of::<Totals>() == 104);

#[cfg(feature = "aya")]
#[allow(unsafe_code, reason = "aya::Pod is the promise that the layout above keeps")]
mod pod {
    // SAFETY: integers without padding; any bit pattern is a value.
    unsafe impl aya::Pod for super::Totals {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
            assert_eq!(Outcome::from_number(outcome as u32), Some(outcome));
        }
        assert_eq!(Outcome::from_number(12), None);
    }

    #[test]
    fn totals_tell_dropped_from_passed() {
        let mut totals = Totals { packets: core::array::from_fn(|place| 1 << place), dropped_bytes: 7 };
        assert_eq!((totals.passed(), totals.dropped()), (0b0110_0001_1111, 0b1001_1110_0000));
        totals.add(&Totals { packets: [1; 12], dropped_bytes: 3 });
        assert_eq!(
            (totals.passed(), totals.dropped(), totals.dropped_bytes),
            (0b0110_0001_1111 + 7, 0b1001_1110_0000 + 5, 10)
        );
    }
}
