//! Attaching to interfaces. What holds the program there is pinned, so that it outlives the controller; a later
//! controller updates it in place, and no packet finds the gate open in between.

use std::mem;
use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::util::KernelVersion;
use nix::net::if_::if_nametoindex;
use xdpban_common::program;

use super::error::{AttachedMode, GateError, system_error};
use super::pins::{self, Hold, Pin};
use super::refusal::{fallback_warning, occupant, refused, words};
use super::{Gate, load, sys};
use crate::config::Mode;
use crate::host::{self, Fitness, Link};

/// The kernel that has TCX, whose attachments are links that can be pinned.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// The place of the classifier among those of the clsact qdisc, where TCX is missing: before others, at a number that
/// nobody else is likely to use.
const CLSACT_PRIORITY: u16 = 77;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 77);

/// An interface that the gate is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface's name.
    pub interface: String,
    /// How.
    pub mode: AttachedMode,
    /// What the administrator should know of it.
    pub warning: Option<String>,
}

/// What holds the gate to an interface, of this controller or of an earlier one.
#[derive(Clone, Debug)]
pub struct Held {
    /// The interface's name when the hold was made.
    pub interface: String,
    /// The interface's number; none where it is gone. That of one which was moved to another namespace is its number there.
    pub index: Option<u32>,
    /// How.
    pub mode: AttachedMode,
    pin: Pin,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Gate {
    /// Attaches to an interface, or updates what an earlier controller left there. Returns when the hold is pinned.
    ///
    /// [`Mode::Auto`] is native XDP; where the driver or another XDP program refuses it, TC ingress with a warning that
    /// says why.
    ///
    /// # Errors
    ///
    /// [`GateError::NoInterface`], [`GateError::Unfit`], [`GateError::Occupied`], [`GateError::Attach`], or what went wrong
    /// with a pin. An earlier hold in another mode stays where it was, except that native and generic XDP exclude each other.
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attached, GateError> {
        let links = host::links()?;
        let link = find(interface, &links)?;
        let fitness = host::fitness(link, &links);
        if let Fitness::Unfit { why, instead } = fitness {
            let interface = link.name.clone();
            let instead =
                if instead.is_empty() { "another interface".to_owned() } else { instead.join(" or ") };
            return Err(GateError::Unfit { interface, why, instead });
        }
        self.pins.create()?;
        let (mode, warning) = match mode {
            Mode::Native => (self.attach_xdp(link, AttachedMode::Native)?, None),
            Mode::Generic => (self.attach_xdp(link, AttachedMode::Generic)?, None),
            Mode::Tc => (self.attach_tc(link)?, None),
            Mode::Auto => match self.attach_xdp(link, AttachedMode::Native) {
                Ok(mode) => (mode, None),
                Err(refusal @ (GateError::Attach { .. } | GateError::Occupied { .. })) => {
                    let warning = fallback_warning(link, &fitness, &refusal);
                    (self.attach_tc(link)?, Some(warning))
                }
                Err(error) => return Err(error),
            },
        };
        self.release_from(link, |hold| hold.mode() != mode)?;
        Ok(Attached { interface: link.name.clone(), mode, warning })
    }

    /// What holds the gate to interfaces.
    ///
    /// # Errors
    ///
    /// Where the pins cannot be read.
    pub fn held(&self) -> Result<Vec<Held>, GateError> {
        let held = |pin: Pin| {
            Ok(Held {
                interface: pin.interface.clone(),
                index: interface_of(&pin)?,
                mode: pin.hold.mode(),
                pin,
            })
        };
        self.pins.holds()?.into_iter().map(held).collect()
    }

    /// Takes the gate off an interface: one that is no longer to be guarded, or that is gone.
    ///
    /// # Errors
    ///
    /// Where the hold cannot be released.
    pub fn release(&mut self, held: &Held) -> Result<(), GateError> {
        release(&held.pin)
    }

    fn attach_xdp(&mut self, link: &Link, mode: AttachedMode) -> Result<AttachedMode, GateError> {
        // The kernel takes a native and a generic program for one that stands in the other's way.
        self.release_from(
            link,
            |hold| matches!(hold, Hold::Link(other) if other != mode && other != AttachedMode::Tc),
        )?;
        let hold = Hold::Link(mode);
        let path = self.pins.hold(hold, &link.name);
        let held = self.find(link.index, hold, &path)?;
        let xdp_mode = if mode == AttachedMode::Generic { XdpMode::Skb } else { XdpMode::Driver };
        let attach = |program: &mut Xdp| match held {
            true => update_xdp(program, &path),
            false => attach_xdp(program, link.index, xdp_mode, &path),
        };
        let program = load::xdp(&mut self.programs, program::XDP)?;
        let Err(refusal) = attach(program) else { return Ok(mode) };
        if let Some(libc::EBUSY | libc::EEXIST) = system_error(refusal.as_ref()) {
            let program = occupant(link.xdp_program);
            return Err(GateError::Occupied { interface: link.name.clone(), program });
        }
        let said = words(program, link.index, mode);
        // A driver may refuse a program only because it cannot take packets in several buffers. A kernel before 5.18
        // does not load the one that can.
        if let Ok(program) = load::xdp(&mut self.programs, program::XDP_FRAGS)
            && attach(program).is_ok()
        {
            return Ok(mode);
        }
        Err(refused(link, mode, said.as_deref(), refusal))
    }

    fn attach_tc(&mut self, link: &Link) -> Result<AttachedMode, GateError> {
        let has_tcx = KernelVersion::current().is_ok_and(|version| version >= TCX_SINCE);
        if has_tcx { self.attach_tcx(link) } else { self.attach_clsact(link) }
    }

    fn attach_tcx(&mut self, link: &Link) -> Result<AttachedMode, GateError> {
        let hold = Hold::Link(AttachedMode::Tc);
        let path = self.pins.hold(hold, &link.name);
        let held = self.find(link.index, hold, &path)?;
        let program = load::classifier(&mut self.programs)?;
        let result = if held { update_tcx(program, &path) } else { attach_tcx(program, &link.name, &path) };
        result.map_err(|refusal| refused(link, AttachedMode::Tc, None, refusal))?;
        Ok(AttachedMode::Tc)
    }

    /// For kernels without TCX. The classifier stays when the controller goes; the pin of its program says that it is there.
    pub(super) fn attach_clsact(&mut self, link: &Link) -> Result<AttachedMode, GateError> {
        let path = self.pins.hold(Hold::Clsact, &link.name);
        let program = load::classifier(&mut self.programs)?;
        let failed = |refusal| refused(link, AttachedMode::Tc, None, refusal);
        attach_clsact(program, &link.name).map_err(failed)?;
        pins::unpin(&path)?;
        program.pin(&path).map_err(|error| failed(error.into()))?;
        Ok(AttachedMode::Tc)
    }

    /// Whether a link of ours is on the interface. It is then pinned at `path`, wherever it was before: an interface may
    /// have been renamed since. A link whose interface is gone is forgotten.
    fn find(&self, index: u32, hold: Hold, path: &Path) -> Result<bool, GateError> {
        let mut pins = self.pins.holds()?;
        pins.retain(|pin| pin.hold == hold);
        // The one that is called so comes first: another may be on an interface that went to another namespace, and
        // has the same number there.
        pins.sort_by_key(|pin| pin.path != path);
        for pin in pins {
            match interface_of(&pin)? {
                None => pins::unpin(&pin.path)?,
                Some(other) if other != index => {}
                Some(_) => {
                    std::fs::rename(&pin.path, path).map_err(|source| GateError::Pin {
                        operation: "rename",
                        path: pin.path.clone(),
                        source,
                    })?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Releases the holds on an interface for which `unwanted` says so.
    fn release_from(&self, link: &Link, unwanted: impl Fn(Hold) -> bool) -> Result<(), GateError> {
        for pin in self.pins.holds()?.iter().filter(|pin| unwanted(pin.hold)) {
            if interface_of(pin)? == Some(link.index) {
                release(pin)?;
            }
        }
        Ok(())
    }
}

/// The number of the interface that `pin` holds the gate to; none where that is gone.
pub(super) fn interface_of(pin: &Pin) -> Result<Option<u32>, GateError> {
    match pin.hold {
        // That there is none of that name is the answer.
        Hold::Clsact => Ok(if_nametoindex(pin.interface.as_str()).ok()),
        Hold::Link(_) => link_interface(pin),
    }
}

/// Takes the gate off the interface that `pin` holds it to, and removes the pin.
pub(super) fn release(pin: &Pin) -> Result<(), GateError> {
    let failed =
        |source| GateError::Pin { operation: "release the hold pinned at", path: pin.path.clone(), source };
    match pin.hold {
        Hold::Link(_) => {
            if let Some(link) = pins::open(&pin.path)? {
                sys::detach_link(link.as_fd()).map_err(failed)?;
            }
        }
        Hold::Clsact => {
            if if_nametoindex(pin.interface.as_str()).is_ok() {
                detach_clsact(&pin.interface).map_err(std::io::Error::other).map_err(failed)?;
            }
        }
    }
    pins::unpin(&pin.path)
}

fn link_interface(pin: &Pin) -> Result<Option<u32>, GateError> {
    let Some(link) = pins::open(&pin.path)? else { return Ok(None) };
    sys::link_interface(link.as_fd()).map_err(|source| GateError::Pin {
        operation: "read the link",
        path: pin.path.clone(),
        source,
    })
}

fn attach_xdp(program: &mut Xdp, index: u32, mode: XdpMode, path: &Path) -> Result<(), Cause> {
    let id = program.attach_to_if_index(index, mode)?;
    // Without a bpf_link (which aya does without where the kernel says EINVAL) nothing could be pinned: the link is
    // dropped here, and the program is off the interface again.
    let link = FdLink::try_from(program.take_link(id)?)?;
    link.pin(path)?;
    Ok(())
}

fn update_xdp(program: &mut Xdp, path: &Path) -> Result<(), Cause> {
    let link = FdLink::from(PinnedLink::from_pin(path)?);
    let id = program.attach_to_link(link.try_into()?)?;
    drop(program.take_link(id)?);
    Ok(())
}

fn attach_tcx(program: &mut SchedClassifier, interface: &str, path: &Path) -> Result<(), Cause> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, TcAttachType::Ingress, options)?;
    let link = FdLink::try_from(program.take_link(id)?)?;
    link.pin(path)?;
    Ok(())
}

fn update_tcx(program: &mut SchedClassifier, path: &Path) -> Result<(), Cause> {
    let link = FdLink::from(PinnedLink::from_pin(path)?);
    let id = program.attach_to_link(link.try_into()?)?;
    drop(program.take_link(id)?);
    Ok(())
}

fn attach_clsact(program: &mut SchedClassifier, interface: &str) -> Result<(), Cause> {
    match qdisc_add_clsact(interface) {
        Err(error) if system_error(&error) == Some(libc::EEXIST) => {}
        result => result?,
    }
    let options = NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, classid: None };
    let attached =
        program.attach_with_options(interface, TcAttachType::Ingress, TcAttachOptions::Netlink(options));
    let id = match attached {
        Err(error) if system_error(&error) == Some(libc::EEXIST) => {
            program.attach_to_link(clsact_link(interface)?)?
        }
        attached => attached?,
    };
    // Dropping the link would take the classifier off.
    mem::forget(program.take_link(id)?);
    Ok(())
}

fn clsact_link(interface: &str) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, CLSACT_PRIORITY, CLSACT_HANDLE, None)
}

fn detach_clsact(interface: &str) -> Result<(), Cause> {
    use aya::programs::links::Link;
    match clsact_link(interface)?.detach() {
        // The classifier, or the whole qdisc, was taken off by someone else.
        Err(ProgramError::NetlinkError(error))
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) =>
        {
            Ok(())
        }
        result => Ok(result?),
    }
}

fn find<'l>(interface: &str, links: &'l [Link]) -> Result<&'l Link, GateError> {
    links.iter().find(|link| link.is_called(interface)).ok_or_else(|| {
        let present: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        GateError::NoInterface { interface: interface.to_owned(), present: present.join(", ") }
    })
}
