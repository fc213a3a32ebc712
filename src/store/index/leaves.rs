//! The slab of leaves: 512 entries each, packed as tightly as the slice's size allows. A place and a full CRC32C take 56
//! bits in a slice of up to 64 GiB, 60 bits up to 1 TiB, 64 bits above; nothing of either is given up. On the medium
//! an entry always has 64 bits ([`Entry::pack`]).
//!
//! What stays true: a leaf handed out holds [`Entry::NONE`] everywhere; the slab is reserved at once and never moves,
//! and becomes real memory leaf by leaf.

use crate::base::CHUNK_BLOCKS;
use crate::mem::advise_huge;
use crate::store::format::Addr;
use crate::store::format::page::Entry;

/// Entries per leaf.
pub(super) const LEAF: usize = CHUNK_BLOCKS as usize;
/// An entry is read and written as a word at its first byte, which for the last one reaches past its leaf.
const PAD: usize = 8;
/// Bits of an entry: any entry then lies within the eight bytes from its first one on.
const WIDTHS: [u32; 3] = [56, 60, 64];
/// Bits of a CRC32C.
const CRC_BITS: u32 = 32;

/// How an entry lies in a word.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Bits of an entry.
    width: u32,
    /// All bits of a place; itself it means [`Addr::LOST`].
    places: u32,
}

impl Shape {
    /// The tightest one for a slice of `blocks` blocks.
    fn of(blocks: u64) -> Shape {
        let fits = |width: &u32| blocks < 1 << (width - CRC_BITS);
        let width = WIDTHS.into_iter().find(fits).expect("a slice has fewer than 2^32 blocks");
        Shape { width, places: u32::MAX >> (2 * CRC_BITS - width) }
    }
    #[inline]
    fn place_bits(self) -> u32 {
        self.width - CRC_BITS
    }
    /// First byte of an entry in its leaf, and the bit where it starts in there.
    #[inline]
    fn at(self, n: usize) -> (usize, u32) {
        let bit = n * self.width as usize;
        (bit / 8, (bit % 8) as u32)
    }
    #[inline]
    fn unpack(self, word: u64) -> Entry {
        let addr = word as u32 & self.places;
        let addr = if addr == self.places { Addr::LOST } else { Addr(addr) };
        Entry { addr, crc: (word >> self.place_bits()) as u32 }
    }
    #[inline]
    fn pack(self, entry: Entry) -> u64 {
        assert!(entry.addr.0 < self.places || entry.addr == Addr::LOST, "a place lies in the slice");
        u64::from(entry.addr.0 & self.places) | u64::from(entry.crc) << self.place_bits()
    }
    /// Bytes of a leaf.
    fn bytes(self) -> usize {
        LEAF * self.width as usize / 8
    }
}

/// A leaf, to look at.
#[derive(Clone, Copy)]
pub(in crate::store) struct Leaf<'a> {
    bytes: &'a [u8],
    shape: Shape,
}

impl Leaf<'_> {
    /// Its entry `n`, below 512.
    #[inline]
    pub fn entry(&self, n: usize) -> Entry {
        let (byte, bit) = self.shape.at(n);
        self.shape.unpack(word(self.bytes, byte) >> bit)
    }
    /// All entries in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..LEAF).map(|n| self.entry(n))
    }
}

/// The slab.
pub(super) struct Leaves {
    bytes: Vec<u8>,
    shape: Shape,
    made: u32,
    max: u32,
    free: Vec<u32>,
}

impl Leaves {
    /// Room for `max` leaves of a slice of `blocks` blocks.
    pub fn new(max: usize, blocks: u64) -> Leaves {
        let shape = Shape::of(blocks);
        let mut bytes = Vec::with_capacity(max * shape.bytes() + PAD);
        // Every access is to a random leaf: with small pages each would cost a walk of the page table as well.
        advise_huge(&bytes);
        bytes.resize(PAD, 0);
        Leaves { bytes, shape, made: 0, max: max as u32, free: Vec::with_capacity(max) }
    }

    /// Leaves handed out.
    pub fn count(&self) -> usize {
        self.made as usize - self.free.len()
    }
    /// Real memory taken, bytes.
    pub fn bytes(&self) -> usize {
        self.made as usize * self.shape.bytes()
    }

    /// An empty leaf; `None` when there is no more.
    pub fn take(&mut self) -> Option<u32> {
        let size = self.shape.bytes();
        if let Some(n) = self.free.pop() {
            self.bytes[n as usize * size..][..size].fill(0);
            return Some(n);
        }
        if self.made == self.max {
            return None;
        }
        self.bytes.resize(self.bytes.len() + size, 0);
        self.made += 1;
        Some(self.made - 1)
    }

    /// Takes a leaf back.
    pub fn give(&mut self, n: u32) {
        self.free.push(n);
    }

    /// A leaf; `None` for a number that was never handed out.
    #[inline]
    pub fn get(&self, n: u32) -> Option<Leaf<'_>> {
        if n >= self.made {
            return None;
        }
        let size = self.shape.bytes();
        Some(Leaf { bytes: &self.bytes[n as usize * size..][..size + PAD], shape: self.shape })
    }

    /// Changes entry `at` of a leaf and returns what it was.
    #[inline]
    pub fn set(&mut self, n: u32, at: usize, entry: Entry) -> Entry {
        let (byte, bit) = self.shape.at(at);
        let byte = n as usize * self.shape.bytes() + byte;
        let whole = word(&self.bytes, byte);
        let mask = (u64::MAX >> (u64::BITS - self.shape.width)) << bit;
        let new = whole & !mask | self.shape.pack(entry) << bit;
        self.bytes[byte..byte + 8].copy_from_slice(&new.to_le_bytes());
        self.shape.unpack(whole >> bit)
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn the_width_follows_the_size_of_the_slice() {
        let width = |blocks| Shape::of(blocks).width;
        assert_eq!((width(0), width((1 << 24) - 1), width(1 << 24)), (56, 56, 60));
        assert_eq!((width((1 << 28) - 1), width(1 << 28), width((1 << 32) - 1)), (60, 64, 64));
    }

    #[test]
    fn entries_of_every_width_keep_all_their_bits_and_leave_their_neighbours_alone() {
        for blocks in [1u64 << 20, 1 << 26, 1 << 31] {
            let mut leaves = Leaves::new(3, blocks);
            for n in 0..3 {
                assert_eq!(leaves.take(), Some(n));
            }
            assert_eq!((leaves.take(), leaves.count()), (None, 3));
            let mut model = vec![[Entry::NONE; LEAF]; 3];
            let mut rng = Rng::new(blocks);
            let top = leaves.shape.places - 1;
            for _ in 0..20_000 {
                let (n, at) = (rng.below(3) as usize, rng.below(LEAF as u64) as usize);
                let entry = match rng.below(8) {
                    0 => Entry::NONE,
                    1 => Entry::LOST,
                    2 => Entry { addr: Addr(top), crc: u32::MAX },
                    _ => Entry { addr: Addr(1 + rng.below(u64::from(top)) as u32), crc: rng.next_u64() as u32 },
                };
                assert_eq!(leaves.set(n as u32, at, entry), std::mem::replace(&mut model[n][at], entry));
            }
            for (n, model) in model.iter().enumerate() {
                assert!(leaves.get(n as u32).unwrap().entries().eq(model.iter().copied()));
            }
            leaves.give(1);
            assert_eq!((leaves.take(), leaves.count()), (Some(1), 3));
            assert!(leaves.get(1).unwrap().entries().all(|e| e == Entry::NONE));
            assert!(leaves.get(3).is_none());
        }
    }

    #[test]
    #[should_panic(expected = "a place lies in the slice")]
    fn a_place_outside_the_slice_is_refused() {
        let mut leaves = Leaves::new(1, 100);
        leaves.take();
        leaves.set(0, 0, Entry { addr: Addr(1 << 24), crc: 0 });
    }
}
