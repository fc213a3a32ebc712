//! One large mapping that lives as long as the process, handed out front to back: the memory of a core's buffers. It
//! is never unmapped, so a buffer cut from it can not dangle, whatever a device still does with it.

use super::mapping::{Backing, Commit, Mapping};
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A mapping for the life of the process, handed out front to back.
pub struct Arena {
    memory: ManuallyDrop<Mapping>,
    used: AtomicUsize,
}

/// The address range of an arena, for registering it with `io_uring` or an IOMMU. Only an arena can make one, so the
/// range stays mapped for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a span is an address and a length; touching what is there is somebody else's `unsafe`.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// First byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
    /// Bytes; a multiple of 2 MiB.
    #[expect(clippy::len_without_is_empty, reason = "an arena is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }
    /// True when the `len` bytes at `at` lie inside.
    pub fn contains(&self, at: *const u8, len: usize) -> bool {
        let from = (at as usize).wrapping_sub(self.start.as_ptr() as usize);
        from < self.len && len <= self.len - from
    }
}

impl Arena {
    /// Maps `len` bytes (rounded up to 2 MiB) of zeroed memory, all of it committed.
    ///
    /// # Errors
    /// The `mmap` error when not even ordinary memory could be had.
    pub fn new(len: usize) -> io::Result<Arena> {
        Ok(Arena::over(Mapping::new(len, Commit::Now)?))
    }

    pub(super) fn over(memory: Mapping) -> Arena {
        Arena { memory: ManuallyDrop::new(memory), used: AtomicUsize::new(0) }
    }

    /// The next `len` bytes (rounded up to 4 KiB), or `None` when the arena is used up. Each byte is handed out once.
    pub fn take(&self, len: usize) -> Option<NonNull<[u8]>> {
        let len = len.checked_next_multiple_of(4096)?;
        let at = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |u| {
                u.checked_add(len).filter(|end| *end <= self.memory.len())
            })
            .ok()?;
        // SAFETY: at + len <= the mapping's length.
        let start = unsafe { self.memory.base().add(at) };
        Some(NonNull::slice_from_raw_parts(start, len))
    }

    /// What the memory is made of.
    pub fn backing(&self) -> Backing {
        self.memory.backing()
    }

    /// Start and length of the whole mapping.
    pub fn range(&self) -> (NonNull<u8>, usize) {
        (self.memory.base(), self.memory.len())
    }

    /// The whole mapping, for registering it.
    pub fn span(&self) -> Span {
        Span { start: self.memory.base(), len: self.memory.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_each_byte_once_until_used_up() {
        let arena = Arena::new(2 << 20).unwrap();
        let (a, b) = (arena.take(1).unwrap(), arena.take(4097).unwrap());
        assert_eq!((a.len(), b.len()), (4096, 8192));
        assert_eq!(b.cast::<u8>().as_ptr() as usize, a.cast::<u8>().as_ptr() as usize + 4096);
        assert!(arena.take(2 << 20).is_none() && arena.take(usize::MAX).is_none());
        assert!(arena.take((2 << 20) - 12288).is_some() && arena.take(1).is_none());
    }

    #[test]
    fn a_span_knows_what_is_inside() {
        let arena = Arena::new(2 << 20).unwrap();
        let span = arena.span();
        let start = span.start().as_ptr().cast_const();
        assert!(span.contains(start, span.len()));
        assert!(!span.contains(start, span.len() + 1));
        assert!(!span.contains(start.wrapping_add(span.len()), 0));
        assert!(!span.contains(start.wrapping_sub(1), 1));
        assert!(span.contains(start.wrapping_add(span.len() - 1), 1));
    }
}
