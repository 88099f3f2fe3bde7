//! The log of traced packets, filled by the program and written out through `log`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::error::GateError;

/// Messages of the program about packets. Its descriptor becomes readable when there are some.
pub struct PacketLog(EbpfLogger<&'static dyn log::Log>);

impl PacketLog {
    pub(super) fn open(programs: &mut Ebpf) -> Result<PacketLog, GateError> {
        EbpfLogger::init(programs).map(PacketLog).map_err(|source| GateError::Trace { source })
    }

    /// Writes what there is to the process's logger, at level info.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsFd for PacketLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PacketLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
