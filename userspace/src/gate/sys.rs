//! The commands of bpf(2) that aya does not offer: batches, lookup-and-delete, and what a link is attached to.
#![allow(unsafe_code, reason = "bpf(2) has no wrapper for these commands")]

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Pod;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type};

/// How many entries one batch call hands over: enough to make the calls cheap, few enough to keep the buffers small.
const BATCH: u32 = 16 * 1024;

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is initialised, and whatever it points to lives until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of integers, for which zero is a value.
    unsafe { mem::zeroed() }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(value: *const T) -> u64 {
    value.addr() as u64
}

/// Opens what is pinned at `path`, a map, a link or a program.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = address(path.as_ptr());
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The interface that a link of XDP or TCX is attached to, by its index; none when that interface is gone.
pub(super) fn link_interface(link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = number(link);
    attr.info.info = address(&raw const info);
    attr.info.info_len = u32::try_from(size_of::<bpf_link_info>()).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let info = &mut info;
    let index = if info.type_ == bpf_link_type::BPF_LINK_TYPE_XDP as u32 {
        // SAFETY: the type says that this is the member that the kernel filled in.
        unsafe { info.__bindgen_anon_1.xdp.ifindex }
    } else if info.type_ == bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        // SAFETY: as above.
        unsafe { info.__bindgen_anon_1.tcx.ifindex }
    } else {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    };
    Ok(Some(index).filter(|index| *index != 0))
}

/// Takes a link off its interface at once, whoever else holds it open.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = number(link);
    match bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) {
        // The interface took the attachment with it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        result => result.map(drop),
    }
}

/// A map in the kernel whose keys are `K` and whose values are `V`.
#[derive(Debug)]
pub(super) struct KernelMap<K, V> {
    fd: OwnedFd,
    /// Values in the kernel for each key: one, or one for each possible CPU.
    copies: usize,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> KernelMap<K, V> {
    /// `fd` is a map that has keys of the size of `K` and values of the size of `V`.
    pub(super) fn new(fd: OwnedFd) -> KernelMap<K, V> {
        KernelMap { fd, copies: 1, types: PhantomData }
    }

    /// The same, for a map with a value for each of `cpus` possible CPUs. The size of `V` is a multiple of 8.
    pub(super) fn new_per_cpu(fd: OwnedFd, cpus: usize) -> KernelMap<K, V> {
        KernelMap { fd, copies: cpus, types: PhantomData }
    }

    fn element<T>(&self, key: *const K, value: *const T) -> bpf_attr {
        let mut attr = zeroed();
        attr.__bindgen_anon_2.map_fd = number(self.fd.as_fd());
        attr.__bindgen_anon_2.key = address(key);
        attr.__bindgen_anon_2.__bindgen_anon_1.value = address(value);
        attr
    }

    /// The value of `key`. In a trie: of the longest prefix that contains it and is not longer.
    pub(super) fn look_up(&self, key: &K) -> io::Result<Option<V>> {
        Ok(self.look_up_copies(key)?.and_then(|copies| copies.into_iter().next()))
    }

    /// The values of `key` on every CPU.
    pub(super) fn look_up_copies(&self, key: &K) -> io::Result<Option<Vec<V>>> {
        self.read(bpf_cmd::BPF_MAP_LOOKUP_ELEM, key)
    }

    fn read(&self, command: bpf_cmd, key: &K) -> io::Result<Option<Vec<V>>> {
        let mut values = Vec::<V>::with_capacity(self.copies);
        let mut attr = self.element(key, values.as_mut_ptr());
        if found(bpf(command, &mut attr))?.is_none() {
            return Ok(None);
        }
        // SAFETY: the kernel wrote as many values as there are copies; `V: Pod` takes any bytes.
        unsafe { values.set_len(self.copies) };
        Ok(Some(values))
    }

    /// Sets the value of `key`, new or not.
    pub(super) fn update(&self, key: &K, value: &V) -> io::Result<()> {
        bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut self.element(key, value)).map(drop)
    }

    /// Takes `key` out; false where it was not there.
    pub(super) fn delete(&self, key: &K) -> io::Result<bool> {
        let mut attr = self.element(key, std::ptr::null::<V>());
        Ok(found(bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr))?.is_some())
    }

    /// The key after `key`, in the map's own order; the first for none.
    pub(super) fn next_key(&self, key: Option<&K>) -> io::Result<Option<K>> {
        let mut next = MaybeUninit::<K>::uninit();
        let mut attr = zeroed();
        attr.__bindgen_anon_2.map_fd = number(self.fd.as_fd());
        attr.__bindgen_anon_2.key = key.map_or(0, |key| address(key));
        attr.__bindgen_anon_2.__bindgen_anon_1.next_key = address(next.as_mut_ptr());
        let next_key = found(bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr))?;
        // SAFETY: the call succeeded, so the kernel wrote the key.
        Ok(next_key.map(|_| unsafe { next.assume_init() }))
    }

    /// Every key, by walking the map: for maps that nobody else changes meanwhile, and tries, which know no batches
    /// before 5.13. At most `limit`, so that a map that changes under the walk cannot make it endless.
    pub(super) fn keys(&self, limit: usize) -> io::Result<Vec<K>> {
        let mut keys = Vec::new();
        while keys.len() < limit {
            let Some(next) = self.next_key(keys.last())? else { break };
            keys.push(next);
        }
        Ok(keys)
    }

    /// Every entry of a hash, in batches.
    pub(super) fn for_each(&self, mut visit: impl FnMut(K, V)) -> io::Result<()> {
        let mut keys = Vec::<K>::with_capacity(BATCH as usize);
        let mut values = Vec::<V>::with_capacity(BATCH as usize);
        // Where the kernel stands in the table; of this a hash uses four bytes.
        let mut position = [0u32; 4];
        let mut first = true;
        loop {
            keys.clear();
            values.clear();
            let mut attr = zeroed();
            attr.batch.map_fd = number(self.fd.as_fd());
            attr.batch.in_batch = if first { 0 } else { address(position.as_ptr()) };
            attr.batch.out_batch = address(position.as_mut_ptr());
            attr.batch.keys = address(keys.as_mut_ptr());
            attr.batch.values = address(values.as_mut_ptr());
            attr.batch.count = BATCH;
            // The last batch comes with ENOENT.
            let more = found(bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr))?.is_some();
            // SAFETY: the kernel sets the count, or leaves it as it was set above.
            let count = unsafe { attr.batch.count }.min(BATCH) as usize;
            // SAFETY: the kernel wrote so many keys and values; both are plain data.
            unsafe {
                keys.set_len(count);
                values.set_len(count);
            }
            keys.iter().zip(&values).for_each(|(key, value)| visit(*key, *value));
            if !more {
                return Ok(());
            }
            first = false;
        }
    }
}

/// A missing key is an answer.
fn found(result: io::Result<libc::c_long>) -> io::Result<Option<libc::c_long>> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        result => result.map(Some),
    }
}
