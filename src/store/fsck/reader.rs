//! Blocks of a slice through a window that is read in large pieces.

use super::{Cause, Read};
use crate::base::BLOCK;
use crate::store::format::Addr;

/// Blocks read at once (1 MiB).
const WINDOW: u32 = 256;

/// Reads one slice.
pub struct Reader<'a> {
    read: Read<'a>,
    base: u64,
    first: Addr,
    blocks: u32,
    window: Vec<u8>,
    single: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// The slice that starts at byte `base` of the medium.
    pub fn new(read: Read<'a>, base: u64) -> Reader<'a> {
        let window = vec![0; WINDOW as usize * BLOCK];
        Reader { read, base, first: Addr::NONE, blocks: 0, window, single: vec![0; BLOCK] }
    }

    /// One block, read by itself.
    pub fn block(&mut self, addr: Addr) -> Result<&[u8], Cause> {
        (self.read)(self.base + u64::from(addr.0) * BLOCK as u64, &mut self.single)?;
        Ok(&self.single)
    }

    /// One block of a range that is read front to back and ends before `end`.
    pub fn next(&mut self, addr: Addr, end: Addr) -> Result<&[u8], Cause> {
        assert!(addr < end, "a range is read up to its end");
        let inside = addr >= self.first && addr.0 < self.first.0 + self.blocks;
        if !inside {
            let blocks = WINDOW.min(end.0 - addr.0);
            let bytes = &mut self.window[..blocks as usize * BLOCK];
            (self.first, self.blocks) = (addr, blocks);
            if (self.read)(self.base + u64::from(addr.0) * BLOCK as u64, bytes).is_err() {
                // Somewhere in it; block by block only the bad ones fail.
                self.blocks = 0;
                return self.block(addr);
            }
        }
        let at = (addr.0 - self.first.0) as usize * BLOCK;
        Ok(&self.window[at..at + BLOCK])
    }
}
