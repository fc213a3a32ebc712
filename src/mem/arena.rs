//! One large mapping that lives as long as the process: on hugepages where the system has them, on transparent huge
//! pages otherwise. It is never unmapped, so a buffer cut from it can not dangle, whatever a device still does with it.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the kernel gave for an arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Pages of the hugetlb pool (2 MiB).
    Huge,
    /// Ordinary memory advised to use transparent huge pages.
    Transparent,
}

/// A mapping for the life of the process, handed out front to back.
pub struct Arena {
    base: NonNull<u8>,
    len: usize,
    used: AtomicUsize,
    backing: Backing,
}

// SAFETY: the arena hands out disjoint ranges, each exactly once, through an atomic cursor.
unsafe impl Send for Arena {}
// SAFETY: as above; `take` is the only way in and is atomic.
unsafe impl Sync for Arena {}

const HUGE_PAGE: usize = 2 << 20;

impl Arena {
    /// Maps `len` bytes (rounded up to 2 MiB) of zeroed memory.
    ///
    /// # Errors
    /// The `mmap` error when not even ordinary memory could be had.
    pub fn new(len: usize) -> io::Result<Arena> {
        let len = len.next_multiple_of(HUGE_PAGE);
        if let Ok(base) = map(len, libc::MAP_HUGETLB | libc::MAP_POPULATE) {
            return Ok(Arena { base, len, used: AtomicUsize::new(0), backing: Backing::Huge });
        }
        // One page more than asked, so that the start can be moved to a 2 MiB border: without it the kernel
        // can not use a huge page at either end.
        let raw = map(len + HUGE_PAGE, 0)?;
        let skip = raw.as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: `skip` < HUGE_PAGE, inside the mapping made one line above.
        let base = unsafe { raw.add(skip) };
        // SAFETY: the range lies inside the mapping; MADV_HUGEPAGE changes no content, and failing is harmless.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(Arena { base, len, used: AtomicUsize::new(0), backing: Backing::Transparent })
    }

    /// The next `len` bytes (rounded up to 4 KiB), or `None` when the arena is used up. Each byte is handed out once.
    pub fn take(&self, len: usize) -> Option<NonNull<[u8]>> {
        let len = len.next_multiple_of(4096);
        let at = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |u| u.checked_add(len).filter(|end| *end <= self.len))
            .ok()?;
        // SAFETY: at + len <= self.len, inside the mapping.
        let start = unsafe { self.base.add(at) };
        Some(NonNull::slice_from_raw_parts(start, len))
    }

    /// What the memory is made of.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Start and length of the whole mapping, for registering it with io_uring or an IOMMU.
    pub fn range(&self) -> (NonNull<u8>, usize) {
        (self.base, self.len)
    }
}

fn map(len: usize, extra: libc::c_int) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | extra;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let p = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if p == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(p.cast()).expect("mmap never returns page 0"))
}
