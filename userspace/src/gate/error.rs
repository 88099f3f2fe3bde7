//! What can go wrong at the gate, and what to do about it.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::programs::ProgramError;

use super::measures::MEASURES;
use crate::host::HostError;

/// An operation on the gate that failed.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The directory of pins is not on a bpffs.
    #[error(
        "{path} is not on a bpffs, where programs and tables outlive the controller; mount one with \
         `mount -t bpf bpf /sys/fs/bpf`, or name a directory on one as paths.pins"
    )]
    NoBpffs {
        /// The directory of pins, or the nearest directory above it that exists.
        path: PathBuf,
    },
    /// The process may not do what it must.
    #[error("the gate needs {missing}; run as root, or grant the capabilities in the service's unit")]
    Privileges {
        /// The capabilities that are missing.
        missing: String,
    },
    /// The kernel is too old.
    #[error("this kernel is {found}; xdpban needs 5.10 or later")]
    Kernel {
        /// The kernel's version.
        found: String,
    },
    /// A file or directory of the pins could not be used.
    #[error("cannot {operation} {path}")]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The object could not be loaded: the maps could not be made.
    #[error("cannot create the kernel's tables (if memory is short, lower limits.blocks)")]
    Load {
        /// Why it failed.
        #[source]
        source: Box<EbpfError>,
    },
    /// The object lacks a program or a map, or has one of another kind: the build is broken.
    #[error("the BPF program of this build has no usable `{name}`; build anew with `cargo xtask build`")]
    Object {
        /// What is missing.
        name: &'static str,
    },
    /// The kernel refused a program.
    #[error("the kernel refused to load the program {program}")]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program could not be run on a packet.
    #[error("cannot run the program {program} on a packet")]
    Run {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The program does not do what it should on this kernel, and was not attached.
    #[error(
        "the program failed its self-test on this kernel and was not attached: {fixture}; please report this"
    )]
    SelfTest {
        /// What it did wrong.
        fixture: String,
    },
    /// A table could not be read or written.
    #[error("cannot {operation} the kernel's table {table}")]
    Table {
        /// What was tried.
        operation: &'static str,
        /// On which map.
        table: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// There is no such interface.
    #[error("there is no interface {interface} (there are: {present})")]
    NoInterface {
        /// Its name.
        interface: String,
        /// Those that there are.
        present: String,
    },
    /// What the kernel knows of the interfaces could not be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The program would see nothing there, or something other than Ethernet frames.
    #[error("{interface} {why}; guard {instead} instead")]
    Unfit {
        /// The interface.
        interface: String,
        /// Why, as the end of a sentence.
        why: &'static str,
        /// Which one to guard.
        instead: String,
    },
    /// Another XDP program is there.
    #[error(
        "another XDP program{program} is attached to {interface}; take it off (`ip link set dev {interface} xdp off`, \
         or stop what attached it), or set mode = \"tc\""
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// Its id and name where they can be known, with a space before.
        program: String,
    },
    /// The program could not be attached.
    #[error("cannot attach to {interface} in {mode} mode: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode.
        mode: AttachedMode,
        /// Why, in words, with the remedy where one is known.
        reason: String,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log of traced packets could not be opened.
    #[error("cannot read the log of traced packets")]
    Trace {
        /// Why it failed.
        #[source]
        source: aya_log::Error,
    },
}

/// Why a block was not put into the tables.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The table of its target has no room.
    #[error("the kernel's table is full")]
    Full,
    /// It does not drop everything, and as many blocks have a measure of their own as can.
    #[error("{} throttles and blocks of some packets are in force, and the kernel's table has room for no more", MEASURES - 1)]
    NoMeasure,
    /// The kernel did not take the prefix.
    #[error("the kernel's table of prefixes did not take it")]
    Prefix(#[source] io::Error),
}

/// How the gate is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// XDP in the driver.
    Native,
    /// XDP after the kernel built the packet's buffer.
    Generic,
    /// TC ingress.
    Tc,
}

impl AttachedMode {
    /// The name in JSON and for people.
    pub fn name(self) -> &'static str {
        match self {
            AttachedMode::Native => "native",
            AttachedMode::Generic => "generic",
            AttachedMode::Tc => "tc",
        }
    }
}

impl std::fmt::Display for AttachedMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The number of the system error at the root of `error`, where there is one.
pub(super) fn system_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        cause = error.source();
    }
    None
}
