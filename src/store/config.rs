//! How a slice is set up: identity, place on the device, and every limit with its default.

use super::error::StoreError;
use super::format::{BATCH_HEADER, FormatError, Geometry, HEAD_BYTES, Name, Superblock};
use crate::base::limits::SLICES_MAX;
use crate::base::{BLOCK, SliceId};

/// A store's name, kept in its superblocks.
pub type StoreName = Name;

/// What a slice is to be or is expected to be.
#[derive(Clone, Debug)]
pub struct SliceConfig {
    /// The store's UUID. Formatting wants a fresh one, so that no block of an older log is ever taken for one of this.
    pub store: [u8; 16],
    /// The store's name (used by format; open takes it from the superblock).
    pub name: StoreName,
    /// Which slice.
    pub slice: SliceId,
    /// How many the store has; a power of two up to [`SLICES_MAX`].
    pub slices: u16,
    /// Start on the device, bytes; a multiple of 4096.
    pub offset: u64,
    /// Length, bytes.
    pub len: u64,
    /// Top 16 bits of the token of every operation that this slice submits.
    pub token_tag: u16,
    /// Capacities and paces.
    pub limits: Limits,
}

/// Capacities and paces of a slice. `Default` is meant for production; tests shrink them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes per segment, a power of two in 64 KiB..=64 MiB. Used by format; open takes it from the superblock.
    pub segment_bytes: u32,
    /// Largest device write, header included, bytes: a multiple of 4 KiB in 8 KiB..=2 MiB. The pool needs buffers of this size:
    /// [`Limits::batches`] + 3 at most at once.
    pub batch_bytes: u32,
    /// Batches under way to the device at most; 1..=64.
    pub batches: u16,
    /// Reads under way at most (each holds the caller's buffer).
    pub reads: u16,
    /// Writes and zeroes of parts of a block, or waiting behind one, under way at most (each holds a pool buffer).
    pub partials: u16,
    /// Volumes at most.
    pub volumes: u16,
    /// Memory for index leaves, bytes; 0 means enough for every block of the slice with a quarter to spare. It is
    /// reserved address space and becomes real memory as leaves come to be; a write that would need more ends with
    /// `CapacityExceeded`.
    pub index_bytes: u64,
    /// Percent of the slice's blocks that live data and index pages may fill; 50..=95. The rest keeps cleaning cheap
    /// and always possible.
    pub fill_percent: u8,
    /// A checkpoint starts when this much log has been written since the last one, bytes; 0 means eight times the
    /// memory of the index, between 64 MiB and 1 GiB, and never more than an eighth of the slice.
    pub checkpoint_bytes: u64,
    /// Checkpoint pages copied per turn at most.
    pub checkpoint_pages: u16,
    /// Background verification, bytes per second; 0 is off until [`super::Slice::scrub`] is called.
    pub scrub_bytes_per_sec: u64,
    /// After this long without a new batch, an empty one is written that says what is durable, so that damage to the last
    /// acknowledged batch can be told from a torn write; ns, 0 is never.
    pub mark_idle_ns: u64,
    /// Which rule to break on purpose.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<super::planted::Planted>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            segment_bytes: 4 << 20,
            batch_bytes: 512 << 10,
            batches: 8,
            reads: 1024,
            partials: 256,
            volumes: 1024,
            index_bytes: 0,
            fill_percent: 92,
            checkpoint_bytes: 0,
            checkpoint_pages: 32,
            scrub_bytes_per_sec: 0,
            mark_idle_ns: 20_000_000,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

impl Limits {
    /// The smallest sensible limits, for tests: 64 KiB segments and batches that a few blocks fill.
    pub fn tiny() -> Limits {
        Limits {
            segment_bytes: 64 << 10,
            batch_bytes: 32 << 10,
            batches: 4,
            reads: 64,
            partials: 16,
            volumes: 16,
            index_bytes: 4 << 20,
            checkpoint_pages: 4,
            ..Limits::default()
        }
    }
}

impl SliceConfig {
    /// Proves the configuration.
    pub(super) fn check(&self) -> Result<Geometry, StoreError> {
        let l = &self.limits;
        let slices_ok = self.slices.is_power_of_two() && usize::from(self.slices) <= SLICES_MAX;
        if !slices_ok || self.slice.0 >= self.slices {
            return Err(StoreError::Config("slice number or count"));
        }
        if !self.offset.is_multiple_of(BLOCK as u64) || self.offset.checked_add(self.len).is_none() {
            return Err(StoreError::Config("offset or length"));
        }
        let batch = l.batch_bytes as usize;
        if !batch.is_multiple_of(BLOCK) || !(2 * BLOCK..=2 << 20).contains(&batch) {
            return Err(StoreError::Config("batch_bytes"));
        }
        if !(1..=64).contains(&l.batches)
            || l.reads == 0
            || l.partials == 0
            || l.volumes == 0
            || l.checkpoint_pages == 0
        {
            return Err(StoreError::Config("a count is zero or too large"));
        }
        if !(50..=95).contains(&l.fill_percent) {
            return Err(StoreError::Config("fill_percent"));
        }
        Geometry::new(self.len, u64::from(l.segment_bytes)).map_err(|_| StoreError::Config("segment_bytes or length"))
    }
    /// Payload blocks that fit a batch.
    pub(super) fn payload_max(&self) -> u32 {
        ((self.limits.batch_bytes as usize - BATCH_HEADER) / BLOCK) as u32
    }
}

/// Cuts a device of `device_size` bytes into `slices` equal parts: (offset, length) in bytes, each a multiple of 1 MiB.
///
/// # Errors
/// [`StoreError::Config`] when `slices` is no power of two up to [`SLICES_MAX`] or a part would be smaller than 2 MiB.
pub fn layout(device_size: u64, slices: u16) -> Result<Vec<(u64, u64)>, StoreError> {
    if !slices.is_power_of_two() || usize::from(slices) > SLICES_MAX {
        return Err(StoreError::Config("slices must be a power of two up to 64"));
    }
    let len = (device_size / u64::from(slices)) & !((1 << 20) - 1);
    if len < 2 << 20 {
        return Err(StoreError::Config("the device is too small for that many slices"));
    }
    Ok((0..u64::from(slices)).map(|n| (n * len, len)).collect())
}

/// Bytes from the start of a device that [`probe`] wants to see.
pub const PROBE_BYTES: usize = HEAD_BYTES;

/// What the head of a device says about the store on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probed {
    /// The store's UUID.
    pub store: [u8; 16],
    /// Its name.
    pub name: StoreName,
    /// Which slice lies at the start of the device (0 on a device formatted with [`layout`]).
    pub slice: SliceId,
    /// How many slices the store has.
    pub slices: u16,
    /// Length of the slice, bytes; all have the same.
    pub slice_len: u64,
    /// Bytes per segment.
    pub segment_bytes: u32,
}

/// Reads who a device belongs to from its first [`PROBE_BYTES`] bytes (fewer are accepted, but the first 4 KiB alone
/// may hold only one of four copies of the superblock, and perhaps the torn one).
///
/// # Errors
/// Why there is no valid superblock.
pub fn probe(head: &[u8]) -> Result<Probed, FormatError> {
    let sb = Superblock::newest(head)?;
    Ok(Probed {
        store: sb.id.store,
        name: sb.name,
        slice: SliceId(sb.id.slice),
        slices: sb.slices,
        slice_len: sb.len,
        segment_bytes: sb.geometry.segment_blocks * BLOCK as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_cuts_equal_parts() {
        assert_eq!(layout(64 << 20, 2), Ok(vec![(0, 32 << 20), (32 << 20, 32 << 20)]));
        assert!(layout(64 << 20, 3).is_err() && layout(4 << 20, 4).is_err() && layout(1 << 40, 128).is_err());
    }

    #[test]
    fn an_empty_device_probes_as_nothing() {
        assert_eq!(probe(&vec![0; PROBE_BYTES]), Err(FormatError::Magic));
        assert_eq!(probe(&[]), Err(FormatError::Short));
    }
}
