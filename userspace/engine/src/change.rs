//! What the engine decided and the daemon carries out: changes to the gate and to the record.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::measure::Measure;
use crate::rules::RuleRef;
use crate::target::Target;
use crate::time::{Mono, Now, Wall};

/// Who or what asked for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A rule of ours matched.
    Rule,
    /// A rule of Wazuh matched, as its alerts tell.
    Wazuh,
    /// An operator, through the control socket.
    Operator,
    /// It was found in the gate, and no record tells who asked for it.
    Adopted,
}

impl Origin {
    /// The name in JSON and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Rule => "rule",
            Origin::Wazuh => "wazuh",
            Origin::Operator => "operator",
            Origin::Adopted => "adopted",
        }
    }

    /// Whether a match of a rule led to it, here or elsewhere: an offence of its target.
    pub fn is_by_rule(self) -> bool {
        matches!(self, Origin::Rule | Origin::Wazuh)
    }

    /// The origin with that name.
    pub fn from_name(name: &str) -> Option<Origin> {
        [Origin::Rule, Origin::Wazuh, Origin::Operator, Origin::Adopted]
            .into_iter()
            .find(|origin| origin.name() == name)
    }
}

/// When a block ends, on both clocks: the kernel compares the first, the record and people read the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// On the monotonic clock.
    pub mono: Mono,
    /// In civil time.
    pub wall: Wall,
}

impl Expiry {
    /// The end of what begins at `now` and lasts for `timeout`.
    pub fn after(timeout: Duration, now: &Now) -> Expiry {
        Expiry { mono: now.mono.after(timeout), wall: now.wall.after(timeout) }
    }
}

/// A target that is blocked, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What is blocked.
    pub target: Target,
    /// When the present block began.
    pub created: Wall,
    /// When it ends; none until it is lifted.
    pub expires: Option<Expiry>,
    /// What befalls its packets.
    pub measure: Measure,
    /// The rule that led to it; none where an operator asked for it.
    pub rule: Option<RuleRef>,
    /// Why, in words.
    pub reason: Arc<str>,
    /// Who or what asked for it.
    pub origin: Origin,
    /// How many times the target has been blocked, this one included; not counted are those before it was forgotten.
    pub offences: u32,
    /// The attempts that the match counted.
    pub attempts: u32,
    /// The user names that were tried, the first few.
    pub users: Vec<Arc<str>>,
    /// The log lines that led to it, the latest few, cut to a bounded length and made valid UTF-8.
    pub evidence: Vec<Arc<str>>,
}

/// Why a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    Expired,
    /// An operator lifted it, as a mistake.
    Lifted,
    /// It was lifted, and was no mistake: who asked for it did not want it any longer, an operator asked for a weaker one in its
    /// place, or it had gone from the gate.
    Withdrawn,
    /// The table was full, and of all its entries this one would have expired first.
    Evicted,
    /// The target became protected: the allowlist or the host's addresses changed.
    Protected,
    /// The kernel did not take the entry.
    Failed,
}

impl End {
    /// The name in words.
    pub fn name(self) -> &'static str {
        match self {
            End::Expired => "expired",
            End::Lifted | End::Withdrawn => "lifted",
            End::Evicted => "evicted",
            End::Protected => "protected",
            End::Failed => "failed",
        }
    }

    /// Whether the offence that led to a block that ends so does not count: the block was a mistake, or never came into force.
    pub fn forgives(self) -> bool {
        matches!(self, End::Lifted | End::Protected | End::Failed)
    }
}

/// Why a target must not be blocked: it is something that is protected, or contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// What was to be blocked.
    pub target: Target,
    /// What is protected.
    pub protected: Target,
    /// Why it is.
    pub by: Protector,
}

/// What protects an address or a network from being blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protector {
    /// Loopback, link-local, multicast and the like; in words.
    Special(&'static str),
    /// It is an address of this host.
    Own,
    /// It is a default gateway of this host.
    Gateway,
    /// It is a name server that this host uses.
    NameServer,
    /// The configuration's allowlist has it.
    Allowed,
    /// The operators' allowlist has it.
    AllowedByHand,
    /// An ssh session from it is open. Protects from rules, not from operators.
    Session,
    /// It logged in by public key not long ago. Protects from rules, not from operators.
    RecentLogin,
}

impl fmt::Display for Protector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protector::Special(what) => what,
            Protector::Own => "an address of this host",
            Protector::Gateway => "this host's default gateway",
            Protector::NameServer => "a name server of this host",
            Protector::Allowed => "on the allowlist",
            Protector::AllowedByHand => "on the allowlist (xdpban allow)",
            Protector::Session => "the source of a logged-in ssh session (protect_logins)",
            Protector::RecentLogin => {
                "the source of a login by public key within the last hour (protect_logins)"
            }
        })
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Protection { target, protected, by } = self;
        let never = match by {
            Protector::Session | Protector::RecentLogin => "is not blocked by rules",
            _ => "is never blocked",
        };
        if protected == target {
            write!(f, "{target} {never}: it is {by}")
        } else if protected.covers(target) {
            write!(f, "{target} {never}: it lies in {protected}, which is {by}")
        } else {
            write!(f, "{target} {never}: it contains {protected}, which is {by}")
        }
    }
}

/// Why a block was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target is protected.
    #[error("{0}")]
    Protected(Protection),
    /// There is no room, and none to be made: permanent blocks fill the table.
    #[error(
        "{target} is not blocked: the table holds {capacity} permanent blocks and is full; unblock some, or raise {limit}"
    )]
    Full {
        /// What was to be blocked.
        target: Target,
        /// The capacity of the table.
        capacity: u32,
        /// The key of the configuration that sets it.
        limit: &'static str,
    },
}

/// A block that a rule asked for and that was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The block as it would have been.
    pub block: Block,
    /// What prevented it.
    pub because: Refusal,
}

/// A run of a command that answers a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRun {
    /// The command, by its name in the configuration.
    pub command: Arc<str>,
    /// Whether it is run for the user who was tried, whatever the source; otherwise for the source.
    pub per_user: bool,
    /// The user name that the attempt tried. Hostile: a client chose it.
    pub user: Option<Arc<str>>,
    /// Whose attempt it was.
    pub source: IpAddr,
    /// What led to it, as a block of the source would have been. It expires when the command is to be undone.
    pub why: Block,
    /// Why it is to be undone; none where it is to be done.
    pub undo: Option<Undo>,
}

/// Why what a command did is to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undo {
    /// Its end.
    pub end: End,
    /// The user id of the operator who asked for it.
    pub uid: Option<u32>,
}

impl Undo {
    /// Its time is over.
    pub const EXPIRED: Undo = Undo { end: End::Expired, uid: None };

    /// An operator has it undone.
    pub fn lifted_by(uid: u32) -> Undo {
        Undo { end: End::Lifted, uid: Some(uid) }
    }
}

impl CommandRun {
    /// The name on record: that of the command, and of the user where it is run for one.
    pub fn on_record(&self) -> Arc<str> {
        match (&self.user, self.per_user) {
            (Some(user), true) => format!("{} {user}", self.command).into(),
            _ => Arc::clone(&self.command),
        }
    }
}

/// Where a block stands that is not to be in the gate any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the gate, from which its entry is to be taken.
    Gate,
    /// In the gate no longer: another block of the target has taken over its entry, with the counts.
    TakenOver,
    /// Nowhere: it rested, or was to rest from the first.
    Nowhere,
}

/// A decision to carry out, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Put the entry into the gate, or move its expiry, and record it. The daemon answers with
    /// [`crate::Engine::applied`].
    Block(Arc<Block>),
    /// Record that a block rests while a stricter one stands, and have the gate hold it no longer.
    Rest {
        /// The block.
        block: Arc<Block>,
        /// Where it stands.
        place: Place,
        /// The target of the stricter one: its own, or a network that it lies in.
        beneath: Target,
    },
    /// Put the entry of a block that rested into the gate again, and record that. Answered as [`Change::Block`] is.
    Resume(Arc<Block>),
    /// Record the end, and have the gate hold the block no longer.
    Unblock {
        /// The block as it stood.
        block: Arc<Block>,
        /// Where it stands.
        place: Place,
        /// Why it ended.
        end: End,
        /// More than `end` says, in words: what the kernel answered, what protects the target, what it gave way to.
        detail: Option<Arc<str>>,
    },
    /// Record that nothing was done, and why.
    Refused(Box<Refused>),
    /// Run a command, and record what came of it. The daemon answers with [`crate::Engine::ran`].
    Run(Box<CommandRun>),
}
