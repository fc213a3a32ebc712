//! How much buffer memory a core gets and what for: the one place where it is summed. Everything is mapped and
//! committed at start-up; a node that does not have it does not start.

use super::numa;
use super::{Arena, Class, Commit, Mapping, Pool, Span};
use crate::base::limits::IO_BYTES_MAX;
use crate::base::{BLOCK, CoreId};
use std::fmt;
use std::io;

/// The buffers of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizing {
    classes: Vec<Class>,
}

/// What is wrong with a sizing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SizingError {
    /// No class, or more than a buffer can name.
    #[error("there must be 1 to {CLASSES_MAX} sizes of buffers")]
    Classes,
    /// A size that is not whole pages, or is too large.
    #[error("buffers of {0} bytes: sizes are multiples of 4096, at most {SIZE_MAX}")]
    Size(usize),
    /// Two classes of one size, or not ascending.
    #[error("buffers of {0} bytes: sizes must ascend")]
    Order(usize),
    /// No buffer of this size.
    #[error("buffers of {0} bytes: at least one is needed")]
    Empty(usize),
    /// The largest host I/O finds no buffer.
    #[error("the largest buffers hold {0} bytes, fewer than the largest host I/O of {IO_BYTES_MAX}")]
    Largest(usize),
    /// The sum does not fit the address space.
    #[error("all buffers together are too large")]
    Sum,
}

/// Kinds of buffers in a pool at most.
pub const CLASSES_MAX: usize = 16;
/// Bytes per buffer at most.
pub const SIZE_MAX: usize = 64 << 20;

impl Default for Sizing {
    /// 108 MiB per core: enough for the default queue limits of the target and two stores.
    fn default() -> Sizing {
        let classes = vec![
            // Host reads and writes of a block, parts of blocks, identify pages, log pages: 16 MiB.
            Class { size: 4 << 10, count: 4096 },
            // Host I/O of a few blocks, probes, scrub and replay windows: 16 MiB.
            Class { size: 32 << 10, count: 512 },
            // Sequential host I/O, 256 of the usual 128 KiB: 32 MiB.
            Class { size: 128 << 10, count: 256 },
            // Log batches of stores: 11 per slice at their default of 8 under way, for two slices: 12 MiB.
            Class { size: 512 << 10, count: 24 },
            // The largest host I/O (MDTS), and the block at each end that an I/O in 512-byte units cuts in two: 32 MiB.
            Class { size: IO_BYTES_MAX + 2 * BLOCK, count: 32 },
        ];
        Sizing::new(classes).expect("the defaults are right")
    }
}

impl Sizing {
    /// Proves the classes: ascending sizes in whole pages, none empty, the largest host I/O fits.
    pub fn new(classes: Vec<Class>) -> Result<Sizing, SizingError> {
        if classes.is_empty() || classes.len() > CLASSES_MAX {
            return Err(SizingError::Classes);
        }
        let (mut below, mut sum) = (0, 0usize);
        for class in &classes {
            if class.size == 0 || !class.size.is_multiple_of(4096) || class.size > SIZE_MAX {
                return Err(SizingError::Size(class.size));
            }
            if class.size <= below {
                return Err(SizingError::Order(class.size));
            }
            if class.count == 0 {
                return Err(SizingError::Empty(class.size));
            }
            below = class.size;
            sum = class.size.checked_mul(class.count).and_then(|b| sum.checked_add(b)).ok_or(SizingError::Sum)?;
        }
        if below < IO_BYTES_MAX {
            return Err(SizingError::Largest(below));
        }
        Ok(Sizing { classes })
    }

    /// The classes, smallest first.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Bytes of buffers per core.
    pub fn bytes_per_core(&self) -> usize {
        self.classes.iter().map(|c| c.size * c.count).sum()
    }

    /// Maps the memory of `core`, near the CPU it is pinned to, and cuts it into its pool. The span is for registering
    /// with the devices of every core.
    ///
    /// # Errors
    /// The system's error when it does not have that much memory.
    pub fn provide(&self, core: CoreId, cpu: usize) -> io::Result<(Pool, Span)> {
        let arena = Arena::near(self.bytes_per_core(), cpu)?;
        let pool = Pool::new(core, &arena, &self.classes).expect("the arena was made for these classes");
        Ok((pool, arena.span()))
    }
}

impl fmt::Display for Sizing {
    /// One line per class and their sum, for the log at start-up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for class in &self.classes {
            writeln!(
                f,
                "{:>6} x {:>5} KiB = {:>6} KiB",
                class.count,
                class.size >> 10,
                (class.size * class.count) >> 10
            )?;
        }
        write!(f, "together {} KiB per core", self.bytes_per_core() >> 10)
    }
}

impl Arena {
    /// As [`Arena::new`], on the memory node of `cpu` where there are several and it has room.
    pub fn near(len: usize, cpu: usize) -> io::Result<Arena> {
        let node = numa::node_of(cpu);
        let place = |base, len| {
            // A policy that can not be set costs speed, not correctness.
            node.map_or(Ok(()), |n| numa::prefer(base, len, n).or(Ok(())))
        };
        Ok(Arena::over(Mapping::with(len, Commit::Now, place)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_add_up_and_serve_the_largest_io() {
        let sizing = Sizing::default();
        assert_eq!(sizing.bytes_per_core(), ((16 + 16 + 32 + 12 + 32) << 20) + 32 * 2 * BLOCK);
        assert!(sizing.to_string().ends_with("together 110848 KiB per core"), "{sizing}");
        let (mut pool, span) = sizing.provide(CoreId(3), 0).unwrap();
        let buf = pool.get(IO_BYTES_MAX + 4096).unwrap();
        assert!(span.contains(buf.as_ptr(), buf.capacity()) && buf.home() == CoreId(3));
        pool.put(buf);
    }

    #[test]
    fn mistakes_are_named() {
        let with = |sizes: &[(usize, usize)]| {
            Sizing::new(sizes.iter().map(|(size, count)| Class { size: *size, count: *count }).collect()).err()
        };
        let big = (IO_BYTES_MAX, 1);
        assert_eq!(with(&[]), Some(SizingError::Classes));
        assert_eq!(with(&[(5000, 1), big]), Some(SizingError::Size(5000)));
        assert_eq!(with(&[(0, 1), big]), Some(SizingError::Size(0)));
        assert_eq!(with(&[(8192, 1), (4096, 1), big]), Some(SizingError::Order(4096)));
        assert_eq!(with(&[(4096, 0), big]), Some(SizingError::Empty(4096)));
        assert_eq!(with(&[(4096, 1)]), Some(SizingError::Largest(4096)));
        assert_eq!(with(&[(IO_BYTES_MAX, usize::MAX)]), Some(SizingError::Sum));
        assert_eq!(with(&[(4096, 1), big]), None);
    }
}
