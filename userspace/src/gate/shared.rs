//! Memory that the kernel's program and the controller share: the values of a mappable array.
#![allow(unsafe_code, reason = "memory that others write to is reached through raw pointers alone")]

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// An array of `T` that others read and write, too: nothing here makes a reference to a `T`.
#[derive(Debug)]
pub(super) struct Shared<T> {
    start: NonNull<T>,
    len: usize,
    value: PhantomData<T>,
}

// SAFETY: the memory belongs to the process, not to a thread.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    /// The values of the mappable array `map`, which has `len` of the size of `T`.
    pub(super) fn of_map(map: impl AsFd, len: usize) -> io::Result<Shared<T>> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Shared::map(len, |size| {
            // SAFETY: a new mapping, of which nobody knows yet.
            unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, map, 0) }
        })
    }

    /// The same, to look at only.
    pub(super) fn of_map_to_read(map: impl AsFd, len: usize) -> io::Result<Shared<T>> {
        Shared::map(len, |size| {
            // SAFETY: a new mapping, of which nobody knows yet.
            unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map, 0) }
        })
    }

    /// Memory of this process alone, of zeros.
    #[cfg(test)]
    pub(super) fn anonymous(len: usize) -> io::Result<Shared<T>> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Shared::map(len, |size| {
            // SAFETY: as above.
            unsafe { nix::sys::mman::mmap_anonymous(None, size, access, MapFlags::MAP_PRIVATE) }
        })
    }

    fn map(
        len: usize,
        map: impl FnOnce(NonZeroUsize) -> nix::Result<NonNull<std::ffi::c_void>>,
    ) -> io::Result<Shared<T>> {
        let size = len.checked_mul(size_of::<T>()).and_then(NonZeroUsize::new);
        let size = size.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Shared { start: map(size)?.cast(), len, value: PhantomData })
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value at `index`, as it stands at present; what others write meanwhile may be half there.
    pub(super) fn read(&self, index: usize) -> T
    where
        T: Copy,
    {
        // SAFETY: within the mapping; each `T` in use is integers, for which any bits are a value.
        unsafe { self.at(index).read_volatile() }
    }

    /// Replaces the value at `index`. Others may see half of it.
    pub(super) fn write(&mut self, index: usize, value: T)
    where
        T: Copy,
    {
        // SAFETY: within the mapping, which was made to be written where anything is.
        unsafe { self.at(index).write_volatile(value) }
    }

    /// The integer of 32 bits at `offset` in the value at `index`.
    pub(super) fn u32(&self, index: usize, offset: usize) -> &AtomicU32 {
        // SAFETY: within the mapping and aligned; everybody reads and writes it as a whole.
        unsafe { AtomicU32::from_ptr(self.field(index, offset)) }
    }

    /// The integer of 64 bits at `offset` in the value at `index`.
    pub(super) fn u64(&self, index: usize, offset: usize) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.field(index, offset)) }
    }

    /// Where the value at `index` is.
    ///
    /// # Panics
    /// Where there is none.
    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "beyond the shared memory");
        // SAFETY: within the mapping, as was just seen.
        unsafe { self.start.add(index).as_ptr() }
    }

    /// Where a field of type `F` is.
    ///
    /// # Panics
    /// Where the value has none there.
    fn field<F>(&self, index: usize, offset: usize) -> *mut F {
        assert!(offset + size_of::<F>() <= size_of::<T>(), "beyond the value");
        // SAFETY: within the value, as was just seen.
        let field = unsafe { self.at(index).byte_add(offset) }.cast::<F>();
        assert!(field.is_aligned(), "no field begins there");
        field
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: made by `map` with this size, and nobody has a pointer any longer.
        let unmapped = unsafe { munmap(self.start.cast(), self.len * size_of::<T>()) };
        if let Err(error) = unmapped {
            log::error!("unmap a table of the gate: {error}");
        }
    }
}
