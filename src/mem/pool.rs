//! Per-core pools of fixed-size buffers with last-in first-out free lists, so that the buffer handed out next is the
//! one most likely still in cache. A [`Buf`] is owned: moving it to a device, a socket or another core moves the right
//! to touch its bytes; it comes back through [`Pool::put`] on the core it was taken from.

use super::Arena;
use crate::base::CoreId;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Size and number of one kind of buffer in a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Bytes per buffer; a multiple of 4096.
    pub size: usize,
    /// How many there are.
    pub count: usize,
}

/// An owned, 4 KiB-aligned piece of the arena. Dereferences to its first `len()` bytes.
#[derive(Debug)]
pub struct Buf {
    ptr: NonNull<u8>,
    cap: u32,
    len: u32,
    class: u8,
    home: CoreId,
}

// SAFETY: a Buf is the only handle to its bytes; sending it sends the right to use them.
unsafe impl Send for Buf {}

impl Buf {
    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.cap as usize
    }
    /// Sets how many of its bytes are in use; what they hold is whatever was there.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a Buf never grows");
        self.len = len as u32;
    }
    /// The core whose pool it must return to.
    pub fn home(&self) -> CoreId {
        self.home
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: ptr..ptr+cap is a live part of an arena that is never unmapped, initialised (mmap zeroes), and only
        // this handle refers to it; len <= cap is kept by `set_len`.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len as usize) }
    }
}

/// How full a pool is, per class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// Bytes per buffer of this class.
    pub size: usize,
    /// Buffers in all.
    pub total: usize,
    /// Buffers at home.
    pub free: usize,
    /// Times a request for this class found it, and every larger one, empty.
    pub empty: u64,
}

struct Shelf {
    size: usize,
    total: usize,
    free: Vec<NonNull<u8>>,
    empty: u64,
}

/// The buffers of one core.
pub struct Pool {
    core: CoreId,
    shelves: Vec<Shelf>,
}

// SAFETY: the free lists hold unique pointers into an arena that lives for ever; the pool may move between threads.
unsafe impl Send for Pool {}

impl Pool {
    /// Cuts a pool out of `arena`. Classes must come in ascending size. `None` when the arena is too small.
    pub fn new(core: CoreId, arena: &Arena, classes: &[Class]) -> Option<Pool> {
        assert!(classes.is_sorted_by(|a, b| a.size < b.size), "pool classes must ascend");
        let mut shelves = Vec::with_capacity(classes.len());
        for class in classes {
            assert!(class.size.is_multiple_of(4096), "buffers are whole pages");
            let mut free = Vec::with_capacity(class.count);
            for _ in 0..class.count {
                free.push(arena.take(class.size)?.cast::<u8>());
            }
            shelves.push(Shelf { size: class.size, total: class.count, free, empty: 0 });
        }
        Some(Pool { core, shelves })
    }

    /// A pool with an arena of its own, for tests and tools.
    pub fn standalone(core: CoreId, classes: &[Class]) -> std::io::Result<Pool> {
        let bytes = classes.iter().map(|c| c.size * c.count).sum();
        let arena = Arena::new(bytes)?;
        Ok(Pool::new(core, &arena, classes).expect("the arena was made for these classes"))
    }

    /// A buffer of at least `len` bytes with `len()` set to `len`; `None` when none is free. Its content is whatever
    /// its last user left.
    pub fn get(&mut self, len: usize) -> Option<Buf> {
        let mut fit = None;
        for (class, shelf) in self.shelves.iter_mut().enumerate() {
            if shelf.size < len {
                continue;
            }
            fit.get_or_insert(class);
            if let Some(ptr) = shelf.free.pop() {
                let (cap, class) = (shelf.size as u32, class as u8);
                return Some(Buf { ptr, cap, len: len as u32, class, home: self.core });
            }
        }
        if let Some(class) = fit {
            self.shelves[class].empty += 1;
        }
        None
    }

    /// Takes a buffer back. It must have come from this pool.
    #[expect(clippy::needless_pass_by_value, reason = "who gives a buffer back must not have it any more")]
    pub fn put(&mut self, buf: Buf) {
        assert_eq!(buf.home, self.core, "a buffer returns to the core it came from");
        let shelf = &mut self.shelves[usize::from(buf.class)];
        assert!(shelf.free.len() < shelf.total, "a buffer returned twice");
        shelf.free.push(buf.ptr);
    }

    /// Takes back as many buffers as there are: an optional one, or several.
    pub fn put_all(&mut self, bufs: impl IntoIterator<Item = Buf>) {
        for buf in bufs {
            self.put(buf);
        }
    }

    /// The core this pool belongs to.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Fill of every class, smallest first.
    pub fn stats(&self) -> impl Iterator<Item = PoolStats> {
        self.shelves.iter().map(|s| PoolStats { size: s.size, total: s.total, free: s.free.len(), empty: s.empty })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_disjoint_bounded_and_come_back() {
        let mut pool =
            Pool::standalone(CoreId(0), &[Class { size: 4096, count: 2 }, Class { size: 8192, count: 1 }]).unwrap();
        let mut a = pool.get(100).unwrap();
        let mut b = pool.get(4096).unwrap();
        let c = pool.get(1).expect("falls over to the larger class");
        assert_eq!((a.len(), b.len(), c.capacity()), (100, 4096, 8192));
        assert!(pool.get(1).is_none() && pool.get(9000).is_none());
        a.fill(1);
        b.fill(2);
        assert!(a.iter().all(|x| *x == 1));
        pool.put(b);
        pool.put(a);
        pool.put(c);
        assert!(pool.stats().all(|s| s.free == s.total));
        assert_eq!(pool.stats().next().unwrap().empty, 1);
    }
}
