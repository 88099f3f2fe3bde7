//! Attaching to interfaces. What holds the program there is pinned, so that it outlives the controller; a later
//! controller updates it in place, and no packet finds the gate open in between.

use std::mem;
use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode, loaded_programs};
use aya::util::KernelVersion;
use nix::net::if_::{if_nameindex, if_nametoindex};
use xdpban_common::program;

use super::error::{AttachedMode, GateError, system_error};
use super::pins::{self, Hold, Pin};
use super::{Gate, load, netlink, sys};
use crate::config::Mode;

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

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Gate {
    /// Attaches to an interface, or updates what an earlier controller left there. Returns when the hold is pinned.
    ///
    /// [`Mode::Auto`] is native XDP; where the driver or another XDP program refuses it, TC ingress with a warning that
    /// says why.
    ///
    /// # Errors
    ///
    /// [`GateError::NoInterface`], [`GateError::NotEthernet`], [`GateError::Occupied`], [`GateError::Attach`], or what went wrong with a pin.
    /// An earlier hold in another mode stays where it was, except that native and generic XDP exclude each other.
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attached, GateError> {
        let index = interface_index(interface)?;
        check_ethernet(interface, index)?;
        self.pins.create()?;
        let (mode, warning) = match mode {
            Mode::Native => (self.attach_xdp(interface, index, AttachedMode::Native)?, None),
            Mode::Generic => (self.attach_xdp(interface, index, AttachedMode::Generic)?, None),
            Mode::Tc => (self.attach_tc(interface, index)?, None),
            Mode::Auto => match self.attach_xdp(interface, index, AttachedMode::Native) {
                Ok(mode) => (mode, None),
                Err(refusal @ (GateError::Attach { .. } | GateError::Occupied { .. })) => {
                    let warning = fallback_warning(interface, &refusal);
                    (self.attach_tc(interface, index)?, Some(warning))
                }
                Err(error) => return Err(error),
            },
        };
        self.release(index, interface, |hold| hold.mode() != mode)?;
        Ok(Attached { interface: interface.to_owned(), mode, warning })
    }

    /// Whether the gate still stands on an interface in the way that [`Gate::attach`] said: not so where the interface is gone
    /// or another one has its name, and where someone removed the link.
    ///
    /// # Errors
    ///
    /// Where the pins cannot be read.
    pub fn stands(&self, attached: &Attached) -> Result<bool, GateError> {
        let Ok(index) = interface_index(&attached.interface) else { return Ok(false) };
        for pin in self.pins.holds()?.iter().filter(|pin| pin.hold.mode() == attached.mode) {
            if is_on(pin, index, &attached.interface)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The interfaces that the gate is attached to, by this controller or an earlier one.
    ///
    /// # Errors
    ///
    /// Where the directory of pins cannot be read.
    pub fn attached(&self) -> Result<Vec<Attached>, GateError> {
        let holds = self.pins.holds()?.into_iter();
        Ok(holds
            .map(|pin| Attached { interface: pin.interface, mode: pin.hold.mode(), warning: None })
            .collect())
    }

    /// Takes the gate off an interface: one that is no longer to be guarded.
    ///
    /// # Errors
    ///
    /// Where a hold cannot be released.
    pub fn detach_from(&mut self, interface: &str) -> Result<(), GateError> {
        for pin in self.pins.holds()?.iter().filter(|pin| pin.interface == interface) {
            release(pin)?;
        }
        Ok(())
    }

    fn attach_xdp(
        &mut self,
        interface: &str,
        index: u32,
        mode: AttachedMode,
    ) -> Result<AttachedMode, GateError> {
        // The kernel takes a native and a generic program for one that stands in the other's way.
        self.release(
            index,
            interface,
            |hold| matches!(hold, Hold::Link(other) if other != mode && other != AttachedMode::Tc),
        )?;
        let hold = Hold::Link(mode);
        let path = self.pins.hold(hold, interface);
        let held = self.find(index, hold, &path)?;
        let xdp_mode = if mode == AttachedMode::Generic { XdpMode::Skb } else { XdpMode::Driver };
        let attach = |program: &mut Xdp| match held {
            true => update_xdp(program, &path),
            false => attach_xdp(program, index, xdp_mode, &path),
        };
        let Err(refusal) = attach(load::xdp(&mut self.programs, program::XDP)?) else { return Ok(mode) };
        if let Some(libc::EBUSY | libc::EEXIST) = system_error(refusal.as_ref()) {
            return Err(GateError::Occupied { interface: interface.to_owned(), program: occupant(index) });
        }
        // A driver may refuse a program only because it cannot take packets in several buffers. A kernel before 5.18
        // does not load the one that can.
        if let Ok(program) = load::xdp(&mut self.programs, program::XDP_FRAGS)
            && attach(program).is_ok()
        {
            return Ok(mode);
        }
        Err(refused(interface, mode, refusal))
    }

    fn attach_tc(&mut self, interface: &str, index: u32) -> Result<AttachedMode, GateError> {
        let has_tcx = KernelVersion::current().is_ok_and(|version| version >= TCX_SINCE);
        if has_tcx { self.attach_tcx(interface, index) } else { self.attach_clsact(interface) }
    }

    fn attach_tcx(&mut self, interface: &str, index: u32) -> Result<AttachedMode, GateError> {
        let hold = Hold::Link(AttachedMode::Tc);
        let path = self.pins.hold(hold, interface);
        let held = self.find(index, hold, &path)?;
        let program = load::classifier(&mut self.programs)?;
        let result = if held { update_tcx(program, &path) } else { attach_tcx(program, interface, &path) };
        result.map_err(|refusal| refused(interface, AttachedMode::Tc, refusal))?;
        Ok(AttachedMode::Tc)
    }

    /// For kernels without TCX. The classifier stays when the controller goes; the pin of its program says that it is there.
    pub(super) fn attach_clsact(&mut self, interface: &str) -> Result<AttachedMode, GateError> {
        let path = self.pins.hold(Hold::Clsact, interface);
        let program = load::classifier(&mut self.programs)?;
        attach_clsact(program, interface).map_err(|refusal| refused(interface, AttachedMode::Tc, refusal))?;
        pins::unpin(&path)?;
        program.pin(&path).map_err(|error| refused(interface, AttachedMode::Tc, error.into()))?;
        Ok(AttachedMode::Tc)
    }

    /// Whether a link of ours is on the interface. It is then pinned at `path`, wherever it was before: an interface may
    /// have been renamed since. A link whose interface is gone is forgotten.
    fn find(&self, index: u32, hold: Hold, path: &Path) -> Result<bool, GateError> {
        let mut held = false;
        for pin in self.pins.holds()?.into_iter().filter(|pin| pin.hold == hold) {
            match link_interface(&pin)? {
                None => pins::unpin(&pin.path)?,
                Some(other) if other != index => {}
                Some(_) => {
                    held = true;
                    std::fs::rename(&pin.path, path).map_err(|source| GateError::Pin {
                        operation: "rename",
                        path: pin.path.clone(),
                        source,
                    })?;
                }
            }
        }
        Ok(held)
    }

    /// Releases the holds on an interface for which `unwanted` says so.
    fn release(&self, index: u32, interface: &str, unwanted: impl Fn(Hold) -> bool) -> Result<(), GateError> {
        for pin in self.pins.holds()?.iter().filter(|pin| unwanted(pin.hold)) {
            if is_on(pin, index, interface)? {
                release(pin)?;
            }
        }
        Ok(())
    }
}

/// Whether `pin` holds the gate to an interface.
fn is_on(pin: &Pin, index: u32, interface: &str) -> Result<bool, GateError> {
    Ok(match pin.hold {
        Hold::Clsact => pin.interface == interface,
        Hold::Link(_) => link_interface(pin)? == Some(index),
    })
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

fn interface_index(interface: &str) -> Result<u32, GateError> {
    if_nametoindex(interface).map_err(|_| {
        let present = if_nameindex().map(|all| {
            let names: Vec<_> = all.iter().map(|one| one.name().to_string_lossy().into_owned()).collect();
            names.join(", ")
        });
        GateError::NoInterface {
            interface: interface.to_owned(),
            present: present.unwrap_or_else(|error| format!("unknown: {error}")),
        }
    })
}

/// The program reads Ethernet headers: on an interface without them it would take other bytes for an address.
fn check_ethernet(interface: &str, index: u32) -> Result<(), GateError> {
    let interface = interface.to_owned();
    match netlink::interface(index) {
        Ok(found) if found.is_ethernet => Ok(()),
        Ok(_) => Err(GateError::NotEthernet { interface }),
        Err(source) => Err(GateError::Interface { interface, source }),
    }
}

fn refused(interface: &str, mode: AttachedMode, source: Cause) -> GateError {
    let reason = match (system_error(source.as_ref()), mode) {
        (Some(libc::EOPNOTSUPP), AttachedMode::Native) => "its driver has no XDP".to_owned(),
        (Some(libc::ERANGE), _) => {
            format!("the MTU is too large for XDP (`ip link set dev {interface} mtu 1500`)")
        }
        (Some(libc::ENOSPC | libc::ENOMEM), _) => {
            "the driver is short of queues or memory for XDP".to_owned()
        }
        (Some(libc::EPERM | libc::EACCES), _) => "the kernel does not permit it".to_owned(),
        _ => "the kernel or the driver refused".to_owned(),
    };
    GateError::Attach { interface: interface.to_owned(), mode, reason, source }
}

fn fallback_warning(interface: &str, refusal: &GateError) -> String {
    let why = match refusal {
        GateError::Attach { reason, source, .. } => format!("{reason} ({})", root_cause(source.as_ref())),
        GateError::Occupied { program, .. } => format!("another XDP program{program} is attached"),
        other => other.to_string(),
    };
    format!(
        "{interface} is guarded at TC ingress, not by XDP in its driver: {why}. Each dropped packet costs several \
         times as much, since the kernel has built its buffer by then; what is blocked is the same."
    )
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The XDP program on an interface as words with a space before; nothing where it cannot be known.
fn occupant(index: u32) -> String {
    let Some(id) = netlink::interface(index).ok().and_then(|interface| interface.xdp_program) else {
        return String::new();
    };
    let name = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    match name.as_ref().and_then(|program| program.name_as_str()) {
        Some(name) => format!(" (id {id}, `{name}`)"),
        None => format!(" (id {id})"),
    }
}
