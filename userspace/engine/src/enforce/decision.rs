//! What is asked of the engine and what it answers, in words of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::change::{Block, Origin, Protection, Refusal};
use crate::measure::Measure;
use crate::moment::Moment;
use crate::policy::Response;
use crate::rules::RuleRef;
use crate::target::Target;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// What to block.
    pub target: Target,
    /// For how long; none: until unblocked.
    pub timeout: Option<Duration>,
    /// What befalls its packets.
    pub measure: Measure,
    /// Why, in words.
    pub reason: Arc<str>,
}

/// What came of a [`Change::Block`] in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The entry is in the table.
    Done,
    /// The table has no room, and would have if another block of it went.
    TableFull,
    /// It was not taken, for a reason that no other block's end would change; in words.
    Failed(Arc<str>),
}

/// What is done about a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To block, from now.
    Block {
        /// What.
        target: Target,
        /// For how long; none: until unblocked.
        timeout: Option<Duration>,
    },
    /// Nothing: the source is blocked already, for at least as long.
    Standing {
        /// The block that it lies in.
        target: Target,
    },
    /// Nothing: the line is so old that its block would be over by now.
    Late {
        /// What would have been blocked.
        target: Target,
    },
    /// Nothing, for this reason.
    Refused {
        /// What would have been blocked.
        target: Target,
        /// Why it is not.
        because: Refusal,
    },
}

/// How an address stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It is blocked.
    Blocked(&'a Block),
    /// It cannot be blocked, at least not by rules.
    Protected(Protection),
    /// Neither.
    Open,
}

/// How many matches led to what, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseCounts {
    /// Blocks that rules made, those that were made longer included.
    pub blocked: u64,
    /// Matches that a protection or a full table kept from a block.
    pub refused: u64,
    /// Matches of lines so old that their blocks would have been over. Many of them on a log that is being written tell
    /// of a wrong clock or time zone there.
    pub late: u64,
    /// Blocks that gave way in a full table of addresses.
    pub evicted: u64,
    /// Blocks that gave way in a full table of other prefixes.
    pub evicted_prefixes: u64,
    /// Blocks that the kernel did not take.
    pub failed: u64,
    /// Commands that were not run, because too many waited to be undone.
    pub crowded: u64,
}

/// A match to respond to.
pub(crate) struct Offence<'a> {
    pub(crate) source: IpAddr,
    /// When the line was written.
    pub(crate) at: Moment,
    /// When its connection began.
    pub(crate) began: Moment,
    pub(crate) attempts: u32,
    /// The rule that matched; none where another system asks for a block without naming one.
    pub(crate) rule: Option<&'a RuleRef>,
    /// Why, in words.
    pub(crate) reason: &'a Arc<str>,
    pub(crate) response: &'a Response,
    pub(crate) origin: Origin,
}

/// The names that a source tried and its latest lines.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) users: Vec<Arc<str>>,
    pub(crate) lines: Vec<Arc<str>>,
}
