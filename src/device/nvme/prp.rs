//! How a command says where its data is (NVM Express Base Specification 2.0, 4.1.1 "Physical Region Page Entry and
//! List", 4.1.2 "Scatter Gather List"): two PRP entries, a PRP list where the data touches more than two pages, or one
//! SGL data block where the controller takes those.

use super::dma::{Block, PAGE, Window};
use crate::wire::nvme::{Sgl, Sqe};
use zerocopy::IntoBytes;

/// Most bytes one command moves, whatever the controller would take: a PRP list then never needs a second page, and
/// half of it is enough.
pub const TRANSFER_MAX: u32 = 1 << 20;

/// The data pointer of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pointer {
    /// No data.
    None,
    /// PRP entries 1 and 2.
    Prp(u64, u64),
    /// One SGL data block: address and bytes.
    Sgl(u64, u32),
}

impl Pointer {
    /// DPTR as it stands in dwords 6 to 9 of a command, and PSDT.
    #[inline]
    pub fn words(self) -> (u8, u64, u64) {
        match self {
            Pointer::None => (0, 0, 0),
            Pointer::Prp(first, second) => (0, first, second),
            // An SGL data block: type 0h, sub type 0h, in the top byte.
            Pointer::Sgl(address, len) => (Sqe::PSDT_SGL, address, u64::from(len)),
        }
    }

    /// Puts it into a command.
    pub fn put(self, sqe: &mut Sqe) {
        let (psdt, first, second) = self.words();
        sqe.flags = sqe.flags & 0x3f | psdt;
        sqe.sgl = Sgl::NONE;
        sqe.sgl.as_mut_bytes()[..8].copy_from_slice(&first.to_le_bytes());
        sqe.sgl.as_mut_bytes()[8..].copy_from_slice(&second.to_le_bytes());
    }
}

/// The room for one command's PRP list inside a block of lists.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// The block.
    pub block: &'a Block,
    /// First byte of the list in it; a multiple of the list's size, so that no list crosses a page.
    pub at: usize,
}

impl List<'_> {
    /// Bytes of a list for transfers of up to `bytes` (a multiple of a page): an entry for each page after the first,
    /// and a first page that may be cut short.
    pub fn bytes_for(bytes: u32) -> usize {
        let entries = (bytes as usize / PAGE).next_power_of_two();
        // A Dataset Management range needs 16 bytes there.
        (entries * 8).max(16)
    }
    /// The controller's address of it.
    #[inline]
    pub fn iova(&self) -> u64 {
        self.block.iova() + self.at as u64
    }
    #[inline]
    fn put(&self, index: usize, entry: u64) {
        self.block.write64(self.at + index * 8, entry);
    }
}

/// The pointer to `len` bytes (1 to [`TRANSFER_MAX`]) at `at` in `window`. `sgl`: the controller takes SGLs, which are
/// used where PRPs would need a list.
#[inline]
pub fn pointer(window: &Window, at: usize, len: usize, sgl: bool, list: List<'_>) -> Pointer {
    let head = PAGE - at % PAGE;
    let first = window.iova(at);
    if len <= head {
        return Pointer::Prp(first, 0);
    }
    if len <= head + PAGE {
        return Pointer::Prp(first, window.iova(at + head));
    }
    if sgl && window.contiguous(at, len) {
        return Pointer::Sgl(first, len as u32);
    }
    for (index, page) in (head..len).step_by(PAGE).enumerate() {
        list.put(index, window.iova(at + page));
    }
    Pointer::Prp(first, list.iova())
}

/// A pointer to `len` bytes that all are the one page of zeroes at `zeroes`.
pub fn zeroes(zeroes: u64, len: usize, list: List<'_>) -> Pointer {
    let pages = len.div_ceil(PAGE);
    match pages {
        1 => Pointer::Prp(zeroes, 0),
        2 => Pointer::Prp(zeroes, zeroes),
        _ => {
            (0..pages - 1).for_each(|index| list.put(index, zeroes));
            Pointer::Prp(zeroes, list.iova())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::nvme::dma::Dma;
    use crate::mem::Arena;
    use std::sync::Arc;

    /// What the specification says a controller does with a pointer: the address of every byte.
    fn walk(dma: &Arc<Dma>, pointer: Pointer, len: usize) -> Vec<u64> {
        let Pointer::Prp(first, second) = pointer else { panic!("not PRP") };
        let mut bytes: Vec<u64> = (first..=(first | 4095)).take(len).collect();
        let rest = len - bytes.len();
        if rest == 0 {
            assert_eq!(second, 0, "reserved when there is no second page");
        } else if rest <= 4096 {
            assert!(second.is_multiple_of(4096), "offset of PRP 2 is 0");
            bytes.extend(second..second + rest as u64);
        } else {
            let mut at = second;
            while bytes.len() < len {
                let mut entry = [0; 8];
                assert!(at.is_multiple_of(8) && dma.device_reads(at, &mut entry));
                let entry = u64::from_le_bytes(entry);
                assert!(entry.is_multiple_of(4096), "offsets of list entries are 0");
                assert!(at / 4096 == second / 4096, "the list ends with its page");
                let left = (len - bytes.len()).min(4096) as u64;
                bytes.extend(entry..entry + left);
                at += 8;
            }
        }
        bytes
    }

    #[test]
    fn every_offset_and_length_names_every_byte_once_and_in_order() {
        let dma = Dma::software();
        let arena = Arena::new(4 << 20).unwrap();
        let windows = dma.windows(&[arena.span()]).unwrap();
        let window = windows.get(0);
        let start = arena.span().start().as_ptr() as usize;
        let base = window.iova(start);
        for transfer in [4096, 16384, 128 << 10, 512 << 10, TRANSFER_MAX] {
            let size = List::bytes_for(transfer);
            let block = dma.block(64 * size).unwrap();
            let blocks = transfer as usize / 512;
            let mut lens: Vec<usize> = (1..=24).chain([blocks / 2, blocks - 1, blocks]).collect();
            lens.retain(|n| *n <= blocks);
            for offset in (0..4096).step_by(512).chain([4096, 12800]) {
                for (i, len) in lens.iter().map(|n| n * 512).enumerate() {
                    let list = List { block: &block, at: (i % 64) * size };
                    let pointer = pointer(window, start + offset, len, false, list);
                    let want = base + offset as u64..base + (offset + len) as u64;
                    assert!(walk(&dma, pointer, len).into_iter().eq(want), "{offset} {len}");
                    let next = list.at + size;
                    // Nothing after the list was touched (each round starts with zeroes only once: check the last).
                    assert!(next >= block.len() || i + 1 < lens.len() || block.read64(next) == 0 || offset > 0);
                }
            }
        }
    }

    #[test]
    fn scattered_pages_come_in_their_order() {
        // Two hugepages that lie the other way round.
        let dma = Dma::software();
        let (a, b) = (dma.block(2 << 20).unwrap(), dma.block(2 << 20).unwrap());
        let window = Window::of_pages(8 << 20, &[b.iova(), a.iova()]);
        let list_block = dma.block(4096).unwrap();
        let list = List { block: &list_block, at: 0 };
        let (at, len) = ((10 << 20) - 8192 - 512, 65536);
        let got = walk(&dma, pointer(&window, at, len, true, list), len);
        let want = (at..at + len).map(|byte| {
            let offset = byte - (8 << 20);
            if offset < 2 << 20 { b.iova() + offset as u64 } else { a.iova() + (offset - (2 << 20)) as u64 }
        });
        assert!(got.into_iter().eq(want));
    }

    #[test]
    fn long_transfers_are_one_sgl_where_the_controller_takes_it() {
        let dma = Dma::software();
        let arena = Arena::new(2 << 20).unwrap();
        let windows = dma.windows(&[arena.span()]).unwrap();
        let (window, start) = (windows.get(0), arena.span().start().as_ptr() as usize);
        let block = dma.block(4096).unwrap();
        let list = List { block: &block, at: 0 };
        assert_eq!(pointer(window, start + 512, 8192 + 512, true, list), Pointer::Sgl(window.iova(start) + 512, 8704));
        assert!(matches!(pointer(window, start, 8192, true, list), Pointer::Prp(..)));
        let mut sqe = Sqe::rw(1, 2, 3, 4, 5, Sgl::NONE);
        Pointer::Sgl(0x1122_3344_5566_7788, 0x9900).put(&mut sqe);
        assert_eq!(sqe.psdt(), 1);
        assert_eq!((sqe.sgl.address.get(), sqe.sgl.length.get(), sqe.sgl.kind), (0x1122_3344_5566_7788, 0x9900, 0));
        Pointer::Prp(4096, 8192).put(&mut sqe);
        assert_eq!(
            (sqe.psdt(), &sqe.as_bytes()[24..40]),
            (0, [4096u64.to_le_bytes(), 8192u64.to_le_bytes()].concat().as_slice())
        );
    }

    #[test]
    fn zeroes_are_one_page_again_and_again() {
        let dma = Dma::software();
        let block = dma.block(4096).unwrap();
        let list = List { block: &block, at: 2048 };
        for len in (512..200_000).step_by(512) {
            let got = walk(&dma, zeroes(1 << 30, len, list), len);
            assert!(got.into_iter().eq((0..len as u64).map(|i| (1 << 30) + i % 4096)), "{len}");
        }
    }
}
