//! The few commands of bpf(2) that the bench needs. The structures are the first members of the kernel's `union bpf_attr`
//! (include/uapi/linux/bpf.h); what is left out is zero to the kernel.
#![allow(unsafe_code, reason = "bpf(2) has no wrapper in the standard library")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const LINK_CREATE: libc::c_long = 28;

const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// Calls bpf(2). `T` is one of the structures of this file: integers without padding.
fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is initialised and of the given size, and what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn address<T>(value: *const T) -> u64 {
    value.addr() as u64
}

/// Instructions of BPF, as the kernel takes them.
pub(super) type Code = Vec<u64>;

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Loads an XDP program.
pub(super) fn load(code: &Code) -> io::Result<OwnedFd> {
    let mut log = vec![0u8; 1 << 16];
    let mut attr = Load {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: u32::try_from(code.len()).map_err(io::Error::other)?,
        insns: address(code.as_ptr()),
        license: address(c"GPL".as_ptr()),
        log_level: 1,
        log_size: 1 << 16,
        log_buf: address(log.as_mut_ptr()),
        expected_attach_type: ATTACH_XDP,
        ..Load::default()
    };
    attr.prog_name[..5].copy_from_slice(b"bench");
    match bpf(PROG_LOAD, &mut attr) {
        Ok(fd) => Ok(owned(fd)),
        Err(error) => {
            let said = String::from_utf8_lossy(&log);
            Err(io::Error::new(error.kind(), format!("{error}\n{}", said.trim_end_matches('\0'))))
        }
    }
}

/// Creates an array of zeros.
pub(super) fn array(value_size: u32, max_entries: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }
    bpf(MAP_CREATE, &mut Create { map_type: MAP_TYPE_ARRAY, key_size: 4, value_size, max_entries }).map(owned)
}

/// Opens a loaded program by its id.
pub(super) fn program(id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct ById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    bpf(PROG_GET_FD_BY_ID, &mut ById { id, next_id: 0, open_flags: 0 }).map(owned)
}

/// Attaches an XDP program to an interface, natively; it stays as long as the link is open.
pub(super) fn attach(program: &OwnedFd, interface: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Link {
        prog_fd: i32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr = Link {
        prog_fd: program.as_raw_fd(),
        target_ifindex: interface,
        attach_type: ATTACH_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: i32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

impl TestRun {
    fn of(program: &OwnedFd, frame: &[u8], repeat: u32) -> io::Result<TestRun> {
        Ok(TestRun {
            prog_fd: program.as_raw_fd(),
            data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
            data_in: address(frame.as_ptr()),
            repeat,
            ..TestRun::default()
        })
    }
}

/// Runs `program` on `count` copies of `frame`, each of which goes where the program sends it (kernel 5.18), and returns how long
/// that took.
pub(super) fn send(program: &OwnedFd, frame: &[u8], count: u32) -> io::Result<Duration> {
    let mut attr = TestRun::of(program, frame, count)?;
    attr.flags = TEST_XDP_LIVE_FRAMES;
    undisturbed(|| {
        let start = Instant::now();
        bpf(PROG_TEST_RUN, &mut attr).map(|_| start.elapsed())
    })?
}

/// Runs `program` on `frame` `repeat` times and returns its verdict and how long one run took by the kernel's own count, in
/// whole nanoseconds. The time of the call would not do: it has the kernel make way for a program that is attached nowhere,
/// which takes it some milliseconds.
pub(super) fn test_run(program: &OwnedFd, frame: &[u8], repeat: u32) -> io::Result<(u32, f64)> {
    let mut attr = TestRun::of(program, frame, repeat)?;
    undisturbed(|| bpf(PROG_TEST_RUN, &mut attr))??;
    Ok((attr.retval, f64::from(attr.duration)))
}

/// Has no ordinary process take the CPU from this thread while `work` runs.
pub(super) fn undisturbed<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    schedule(libc::SCHED_FIFO, 1)?;
    let result = work();
    schedule(libc::SCHED_OTHER, 0)?;
    Ok(result)
}

fn schedule(policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the structure outlives the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
