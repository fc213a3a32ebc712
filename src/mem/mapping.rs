//! One anonymous mapping, unmapped when dropped: on hugepages where the pool has enough, on ordinary memory advised to
//! use transparent huge pages otherwise. [`super::Arena`] keeps one for the life of the process; a RAM device shares
//! one between the cores that serve it. The mapping's bytes are zero at first and are reached only through raw
//! pointers: whoever holds it decides who may touch which bytes.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::OnceLock;

/// What the kernel gave for a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Pages of the hugetlb pool (2 MiB).
    Huge,
    /// Ordinary memory advised to use transparent huge pages.
    Transparent,
}

/// When the memory behind a mapping is taken from the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commit {
    /// All of it before the call returns: nothing faults later, and memory that is not there is an error now.
    Now,
    /// Page by page at first touch.
    OnTouch,
}

/// Bytes per hugepage.
pub const HUGE_PAGE: usize = 2 << 20;

/// An owned mapping of zeroed memory.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    backing: Backing,
}

// SAFETY: the mapping is memory only; it holds no thread's state, and giving it away gives the address away.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference only the address and the length can be had; every access through the address is
// `unsafe` and argues for itself.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, rounded up to 2 MiB, starting on a 2 MiB border.
    ///
    /// # Errors
    /// The error of `mmap` or `madvise` when not even ordinary memory could be had; `ENOMEM` for a `len` of 0.
    pub fn new(len: usize, commit: Commit) -> io::Result<Mapping> {
        Mapping::with(len, commit, |_, _| Ok(()))
    }

    /// As [`Mapping::new`], with `place` called between mapping and committing; it may set a memory policy.
    pub(super) fn with(
        len: usize,
        commit: Commit,
        place: impl Fn(NonNull<u8>, usize) -> io::Result<()>,
    ) -> io::Result<Mapping> {
        let bytes = len.checked_next_multiple_of(HUGE_PAGE).filter(|l| *l != 0);
        let len = bytes.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // A hugetlb mapping reserves its pages when it is made, so a later touch can not fail; but a page may sit on
        // another node than asked, or be gone when the pool shrinks meanwhile: then ordinary memory serves.
        if let Ok(mapping) = Mapping::huge(len) {
            place(mapping.base, len)?;
            if commit == Commit::OnTouch || mapping.commit().is_ok() {
                return Ok(mapping);
            }
        }
        let mapping = Mapping::ordinary(len)?;
        place(mapping.base, len)?;
        if commit == Commit::Now {
            mapping.commit()?;
        }
        Ok(mapping)
    }

    fn huge(len: usize) -> io::Result<Mapping> {
        Ok(Mapping { base: map(len, libc::MAP_HUGETLB)?, len, backing: Backing::Huge })
    }

    fn ordinary(len: usize) -> io::Result<Mapping> {
        // One hugepage more than asked, so that the start can be moved to a 2 MiB border: without it the kernel can
        // not use a huge page at either end. What hangs over is given back.
        let whole = len.checked_add(HUGE_PAGE).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let raw = map(whole, 0)?;
        let skip = raw.as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: `skip` < HUGE_PAGE, so base..base + len lies inside the mapping made above.
        let base = unsafe { raw.add(skip) };
        // SAFETY: both ranges lie inside the mapping made above and outside base..base + len; nobody knows them.
        unsafe {
            unmap(raw, skip);
            unmap(base.add(len), HUGE_PAGE - skip);
        }
        // SAFETY: the range is the mapping; MADV_HUGEPAGE changes no content, and failing is harmless.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(Mapping { base, len, backing: Backing::Transparent })
    }

    /// Touches every page now, so that no fault happens on the data path.
    fn commit(&self) -> io::Result<()> {
        // SAFETY: the range is the mapping; MADV_POPULATE_WRITE faults pages in and changes no content.
        if unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_POPULATE_WRITE) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            // Kernels before 5.14 do not know the advice; the pages then come at first touch.
            e if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            e => Err(e),
        }
    }

    /// Its first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }
    /// Its bytes; a multiple of [`HUGE_PAGE`].
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }
    /// What the memory is made of.
    pub fn backing(&self) -> Backing {
        self.backing
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and its owner is gone.
        unsafe { unmap(self.base, self.len) };
    }
}

/// Asks for transparent huge pages behind the whole 2 MiB pieces of a large vector's memory, used or not: for tables
/// that are accessed at random. The memory still comes at first touch, 2 MiB at a time.
pub fn advise_huge<T>(table: &Vec<T>) {
    let base = table.as_ptr() as usize;
    let (start, end) =
        (base.next_multiple_of(HUGE_PAGE), (base + table.capacity() * size_of::<T>()) / HUGE_PAGE * HUGE_PAGE);
    if start < end {
        // SAFETY: the range lies inside the vector's own memory; MADV_HUGEPAGE changes no content, and failing is
        // harmless.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

/// 1 MiB of zeroes, 2 MiB-aligned and never written: the source of zeroes for devices that have to write them. All of it
/// is the kernel's one zero page.
///
/// # Panics
/// When not even that much address space is left.
pub fn zeroes() -> &'static [u8] {
    static ZEROES: OnceLock<&'static [u8]> = OnceLock::new();
    ZEROES.get_or_init(|| {
        let mapping = ManuallyDrop::new(Mapping::ordinary(HUGE_PAGE).expect("2 MiB of address space"));
        // SAFETY: the mapping is never dropped, is initialised by the kernel, and nobody else knows its address.
        unsafe { std::slice::from_raw_parts(mapping.base.as_ptr(), 1 << 20) }
    })
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

/// Unmaps `len` bytes.
///
/// # Safety
/// The range is mapped and nobody uses it.
unsafe fn unmap(base: NonNull<u8>, len: usize) {
    if len != 0 {
        // SAFETY: the caller's promise.
        let r = unsafe { libc::munmap(base.as_ptr().cast(), len) };
        assert_eq!(r, 0, "munmap of an own mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_aligned_writable_and_given_back() {
        for commit in [Commit::Now, Commit::OnTouch] {
            let m = Mapping::new(3 << 20, commit).unwrap();
            assert_eq!((m.len(), m.base().as_ptr() as usize % HUGE_PAGE), (4 << 20, 0));
            // SAFETY: the mapping is ours alone.
            let bytes = unsafe { std::slice::from_raw_parts_mut(m.base().as_ptr(), m.len()) };
            assert!(bytes.iter().all(|b| *b == 0));
            bytes.fill(7);
        }
    }

    #[test]
    fn advice_leaves_content_alone() {
        let mut table = Vec::with_capacity(3 * HUGE_PAGE);
        table.resize(HUGE_PAGE, 5u8);
        advise_huge(&table);
        table.resize(3 * HUGE_PAGE, 7);
        assert!(table[..HUGE_PAGE].iter().all(|b| *b == 5) && table[HUGE_PAGE..].iter().all(|b| *b == 7));
        advise_huge(&Vec::<u64>::new());
    }

    #[test]
    fn zeroes_are_zero() {
        assert!(zeroes().len() == 1 << 20 && zeroes().iter().all(|b| *b == 0));
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(Mapping::new(0, Commit::OnTouch).is_err());
        assert!(Mapping::new(usize::MAX, Commit::OnTouch).is_err());
        assert!(Mapping::new(1 << 60, Commit::OnTouch).is_err());
    }
}
