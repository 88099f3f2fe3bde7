//! A frame in memory, and the one way to read from it.

/// The bytes of a frame that can be read directly, from its Ethernet header on.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// `start` and `end` are the `data` and `data_end` of a program's context.
    #[inline(always)]
    pub(crate) fn new(start: usize, end: usize) -> Frame {
        Frame { start, end }
    }

    /// How many bytes there are.
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        (self.end - self.start) as u64
    }

    /// The `T` at `offset`; none where the frame ends before it does.
    #[inline(always)]
    pub(crate) fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the bytes lie within the packet, which the verifier checks once more; every `T` in use is an
        // integer or an array of bytes.
        Some(unsafe { core::ptr::read_unaligned(at as *const T) })
    }

    /// The 16-bit number in network byte order at `offset`.
    #[inline(always)]
    pub(crate) fn read_u16(&self, offset: usize) -> Option<u16> {
        self.read::<[u8; 2]>(offset).map(u16::from_be_bytes)
    }
}
