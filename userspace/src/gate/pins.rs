//! What stands in the directory of pins, and how it is named.
//!
//! ```text
//! PINS/v2/BLOCK4 …          the maps, in a directory named after the version of their layout
//! PINS/links/native-eth0    a link of XDP in the driver (or generic-, or tc-)
//! PINS/links/clsact-eth0    on kernels without TCX: the program behind the classifier on that interface
//! ```
//!
//! A bpffs takes no dot in a name and an interface takes no colon, so that `eth0.100` is written `eth0:100`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::{AttachedMode, GateError};
use super::sys;

/// The version of the layout of the maps: a change to any layout of `xdpban-common` takes the next number.
const LAYOUT: &str = "v2";

/// What holds the gate to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// A bpf_link.
    Link(AttachedMode),
    /// A classifier of the clsact qdisc, which has no link.
    Clsact,
}

impl Hold {
    const ALL: [Hold; 4] = [
        Hold::Link(AttachedMode::Native),
        Hold::Link(AttachedMode::Generic),
        Hold::Link(AttachedMode::Tc),
        Hold::Clsact,
    ];

    pub(super) fn mode(self) -> AttachedMode {
        match self {
            Hold::Link(mode) => mode,
            Hold::Clsact => AttachedMode::Tc,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Hold::Link(mode) => mode.name(),
            Hold::Clsact => "clsact",
        }
    }
}

/// A pin that holds the gate to an interface.
#[derive(Clone, Debug)]
pub(super) struct Pin {
    pub(super) path: PathBuf,
    pub(super) hold: Hold,
    /// The interface's name when the pin was made.
    pub(super) interface: String,
}

/// The directory of pins.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

impl Pins {
    pub(super) fn new(root: &Path) -> Pins {
        Pins { root: root.to_owned() }
    }

    /// Makes the directories, which nobody but root may look into.
    pub(super) fn create(&self) -> Result<(), GateError> {
        self.check_mounted()?;
        for path in [self.maps(), self.links()] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| GateError::Pin { operation: "create the directory", path, source })?;
        }
        Ok(())
    }

    /// Checks that the directory is on a bpffs, or would be.
    pub(super) fn check_mounted(&self) -> Result<(), GateError> {
        let nearest = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let status = statfs(nearest).map_err(|error| GateError::Pin {
            operation: "look at the file system of",
            path: nearest.to_owned(),
            source: error.into(),
        })?;
        if status.filesystem_type() != BPF_FS_MAGIC {
            return Err(GateError::NoBpffs { path: nearest.to_owned() });
        }
        Ok(())
    }

    /// The directory of the maps in today's layout.
    pub(super) fn maps(&self) -> PathBuf {
        self.layout(LAYOUT)
    }

    /// The directory of the maps in some layout.
    pub(super) fn layout(&self, layout: &str) -> PathBuf {
        self.root.join(layout)
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Where the hold on an interface is pinned.
    pub(super) fn hold(&self, hold: Hold, interface: &str) -> PathBuf {
        self.links().join(format!("{}-{}", hold.name(), interface.replace('.', ":")))
    }

    /// The holds that are pinned, in the order of their interfaces.
    pub(super) fn holds(&self) -> Result<Vec<Pin>, GateError> {
        let mut pins = Vec::new();
        for path in list(&self.links())? {
            let Some((kind, interface)) = path.file_name().and_then(|name| name.to_str()?.split_once('-'))
            else {
                continue;
            };
            let Some(hold) = Hold::ALL.into_iter().find(|hold| hold.name() == kind) else { continue };
            pins.push(Pin { interface: interface.replace(':', "."), hold, path });
        }
        pins.sort_by(|one, other| one.interface.cmp(&other.interface));
        Ok(pins)
    }

    /// The directories of maps, of this layout and of others.
    pub(super) fn layouts(&self) -> Result<Vec<PathBuf>, GateError> {
        let is_layout = |name: &str| {
            name.strip_prefix('v')
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut paths = list(&self.root)?;
        paths.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_layout));
        Ok(paths)
    }

    /// Removes what is left of the directories once they are empty.
    pub(super) fn remove_directories(&self) -> Result<(), GateError> {
        let mut paths = self.layouts()?;
        paths.push(self.links());
        paths.push(self.root.clone());
        for path in paths {
            match fs::remove_dir(&path) {
                // Someone else's file is in it, or it is the root of the mount.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EBUSY)) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(GateError::Pin { operation: "remove the directory", path, source });
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Opens a pin; none where it is not there.
pub(super) fn open(path: &Path) -> Result<Option<OwnedFd>, GateError> {
    match sys::open_pin(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(GateError::Pin { operation: "open", path: path.to_owned(), source }),
    }
}

/// Removes a pin; one that is gone is no error.
pub(super) fn unpin(path: &Path) -> Result<(), GateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(GateError::Pin { operation: "remove", path: path.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

/// What is in a directory; nothing where it does not exist.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>, GateError> {
    let failed = |source| GateError::Pin { operation: "list", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}
