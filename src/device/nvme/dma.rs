//! Memory that a controller reads and writes by itself: which of this process's memory it can reach and under which
//! addresses ([`Dma`]), blocks of our own for queues and lists ([`Block`]), and the buffers of the reactors
//! ([`Windows`]).
//!
//! What stays true: memory given to a controller is never unmapped while the controller may reach it. Blocks live as
//! long as their [`Dma`], which everything that knows one of their addresses keeps; the arenas behind the windows live
//! for ever. A block is read and written only by whole volatile words, because the device on the other side keeps no
//! rule of this language; who may touch which word when is settled by the queue protocols (`ring.rs`).

use super::error::NvmeError;
use super::iova::Iovas;
use super::physical::{self, LARGE};
use super::vfio::Container;
use crate::mem::{Commit, Mapping, Span};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a memory page of the controller (CC.MPS = 0).
pub const PAGE: usize = 4096;
/// Largest block; blocks do not cross a border of this size, so they are contiguous even without an IOMMU.
pub const BLOCK_MAX: usize = 2 << 20;

/// How a controller reaches memory.
#[derive(Debug)]
enum Reach {
    /// Through an IOMMU, by addresses we choose.
    Iommu(Arc<Container>),
    /// By physical address, all of the machine's memory.
    Physical,
    /// A controller made of software looks addresses up here.
    Software,
}

/// The memory one controller may reach.
pub struct Dma {
    // Before the memory in `state`: closing the last descriptor is what takes the device's access away.
    reach: Reach,
    state: ManuallyDrop<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    iovas: Iovas,
    spans: Vec<Window>,
    /// Memory of blocks; the last one is being handed out from.
    own: Vec<(Mapping, Window)>,
    used: usize,
}

/// Some memory of this process and the addresses a controller knows it by.
#[derive(Clone, Debug)]
pub struct Window {
    start: usize,
    len: usize,
    /// The address of its first byte.
    iova: u64,
    /// Without an IOMMU: the address of each 2 MiB page. Otherwise the addresses are contiguous.
    pages: Option<Arc<[u64]>>,
}

impl Window {
    /// The controller's address of a byte inside.
    #[inline]
    pub fn iova(&self, at: usize) -> u64 {
        let offset = at - self.start;
        match &self.pages {
            None => self.iova + offset as u64,
            Some(pages) => pages[offset / LARGE] + (offset % LARGE) as u64,
        }
    }
    /// True when `len` bytes at `at` have contiguous addresses.
    #[inline]
    pub fn contiguous(&self, at: usize, len: usize) -> bool {
        self.pages.is_none() || (at - self.start) / LARGE == (at - self.start + len - 1) / LARGE
    }
    /// A window of single pages.
    #[cfg(test)]
    pub(super) fn of_pages(start: usize, pages: &[u64]) -> Window {
        Window { start, len: pages.len() * LARGE, iova: pages[0], pages: Some(Arc::from(pages)) }
    }
    #[inline]
    fn holds(&self, at: usize, len: usize) -> bool {
        let offset = at.wrapping_sub(self.start);
        offset < self.len && len <= self.len - offset
    }
}

/// The windows of the arenas a queue's buffers come from.
#[derive(Clone, Debug)]
pub struct Windows {
    all: Box<[Window]>,
    /// Where the last buffer was: a core mostly uses its own.
    last: usize,
}

impl Windows {
    /// The number of the window that holds `len` bytes at `at`.
    #[inline]
    pub fn find(&mut self, at: usize, len: usize) -> Option<u16> {
        if !self.all.get(self.last).is_some_and(|w| w.holds(at, len)) {
            self.last = self.all.iter().position(|w| w.holds(at, len))?;
        }
        Some(self.last as u16)
    }
    /// The window of that number.
    #[inline]
    pub fn get(&self, number: u16) -> &Window {
        &self.all[usize::from(number)]
    }
}

impl std::fmt::Debug for Dma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dma").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Dma {
    fn new(reach: Reach, ranges: &[(u64, u64)]) -> Arc<Dma> {
        let state = State { iovas: Iovas::new(ranges), spans: Vec::new(), own: Vec::new(), used: 0 };
        Arc::new(Dma { reach, state: ManuallyDrop::new(Mutex::new(state)) })
    }

    /// For a controller in `container`.
    pub fn through(container: Arc<Container>) -> Arc<Dma> {
        let ranges = container.ranges().to_vec();
        let reach = if container.protected() { Reach::Iommu(container) } else { Reach::Physical };
        Dma::new(reach, &ranges)
    }

    /// For a controller made of software.
    pub fn software() -> Arc<Dma> {
        Dma::new(Reach::Software, &[])
    }

    /// Gives the controller access to `len` bytes at `start`, both in whole pages.
    ///
    /// # Safety
    /// The memory outlives `self`, and what the controller writes is read as if anything may be there.
    unsafe fn admit(&self, state: &mut State, start: NonNull<u8>, len: usize) -> Result<Window, NvmeError> {
        let at = start.as_ptr() as usize;
        if matches!(self.reach, Reach::Physical) {
            let pages = physical::addresses(at, len)?;
            return Ok(Window { start: at, len, iova: pages[0], pages: Some(pages) });
        }
        let iova = state.iovas.take(len as u64).ok_or(NvmeError::Addresses(len))?;
        if let Reach::Iommu(container) = &self.reach {
            // SAFETY: the caller's promise; the container lives no longer than `self` needs it.
            unsafe { container.map(start, len, iova) }?;
        }
        Ok(Window { start: at, len, iova, pages: None })
    }

    /// The windows of `spans`; those not mapped yet are mapped.
    pub fn windows(&self, spans: &[Span]) -> Result<Windows, NvmeError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::with_capacity(spans.len());
        for span in spans {
            let start = span.start().as_ptr() as usize;
            let known = state.spans.iter().find(|w| w.holds(start, span.len())).cloned();
            let window = match known {
                Some(window) => window,
                None => {
                    // SAFETY: arenas are never unmapped; a buffer's bytes are plain memory that its owner does not
                    // touch while the controller has it.
                    let window = unsafe { self.admit(&mut state, span.start(), span.len()) }?;
                    state.spans.push(window.clone());
                    window
                }
            };
            all.push(window);
        }
        Ok(Windows { all: all.into(), last: 0 })
    }

    /// A zeroed block of `len` bytes (up to [`BLOCK_MAX`]), aligned to the power of two at or above `len` and at least
    /// to a page.
    pub fn block(self: &Arc<Dma>, len: usize) -> Result<Block, NvmeError> {
        assert!((1..=BLOCK_MAX).contains(&len), "blocks are small");
        let size = len.next_power_of_two().max(PAGE);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = state.used.next_multiple_of(size);
        let fits = state.own.last().is_some_and(|(memory, _)| at + size <= memory.len());
        let at = if fits { at } else { 0 };
        if !fits {
            let memory = Mapping::new(BLOCK_MAX, Commit::Now).map_err(NvmeError::system("memory for queues"))?;
            // SAFETY: the mapping is kept in `state`, which goes after the device's access; blocks are read as
            // volatile words, every pattern of which is a value.
            let window = unsafe { self.admit(&mut state, memory.base(), memory.len()) }?;
            state.own.push((memory, window));
        }
        state.used = at + size;
        let (memory, window) = state.own.last().expect("just made sure of");
        // SAFETY: at + size lies inside the mapping.
        let base = unsafe { memory.base().add(at) };
        let iova = window.iova(base.as_ptr() as usize);
        Ok(Block { base, len: size, iova, _keep: Arc::clone(self) })
    }

    /// Where `len` bytes at a device address are, for a controller made of software.
    fn resolve(&self, iova: u64, len: usize) -> Option<NonNull<u8>> {
        assert!(matches!(self.reach, Reach::Software), "hardware has its own way");
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let windows = state.own.iter().map(|(_, w)| w).chain(&state.spans);
        let window = windows.into_iter().find(|w| {
            let offset = iova.wrapping_sub(w.iova);
            offset < w.len as u64 && len as u64 <= w.len as u64 - offset
        })?;
        NonNull::new((window.start + (iova - window.iova) as usize) as *mut u8)
    }

    /// What a controller made of software reads at a device address; `false` when it may not.
    pub fn device_reads(&self, iova: u64, into: &mut [u8]) -> bool {
        let Some(from) = self.resolve(iova, into.len()) else { return false };
        for (i, byte) in into.iter_mut().enumerate() {
            // SAFETY: the range is a live window; volatile, because the other side has it too.
            *byte = unsafe { from.add(i).read_volatile() };
        }
        true
    }

    /// What a controller made of software writes at a device address; `false` when it may not.
    pub fn device_writes(&self, iova: u64, from: &[u8]) -> bool {
        let Some(into) = self.resolve(iova, from.len()) else { return false };
        for (i, byte) in from.iter().enumerate() {
            // SAFETY: as above.
            unsafe { into.add(i).write_volatile(*byte) };
        }
        true
    }
}

impl Drop for Dma {
    fn drop(&mut self) {
        // The container of a group may be shared with another controller: its mappings then stay, and so must the memory.
        // Without an IOMMU nothing takes the device's access away but its reset, which its owner does.
        if let Reach::Iommu(container) = &mut self.reach
            && Arc::get_mut(container).is_none()
        {
            return;
        }
        self.reach = Reach::Software;
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.state) };
    }
}

/// Memory shared with the controller: queue entries, lists, data of admin commands. Whole words only.
pub struct Block {
    base: NonNull<u8>,
    len: usize,
    iova: u64,
    _keep: Arc<Dma>,
}

// SAFETY: plain memory reached by volatile words; which thread may touch which word follows from who owns the ring or
// list that lies there.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({:#x}+{:#x})", self.iova, self.len)
    }
}

impl Block {
    /// The controller's address of the first byte; aligned to `len()`, contiguous.
    #[inline]
    pub fn iova(&self) -> u64 {
        self.iova
    }
    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn at<T>(&self, at: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(at & (size - 1) == 0 && at < self.len && self.len - at >= size, "a word inside the block");
        // SAFETY: inside the block, as just proved.
        unsafe { self.base.as_ptr().add(at).cast() }
    }

    /// Reads the 32-bit word at byte `at`.
    #[inline]
    pub fn read32(&self, at: usize) -> u32 {
        let word = self.at::<u32>(at);
        // SAFETY: an aligned word of live memory.
        u32::from_le(unsafe { word.read_volatile() })
    }
    /// Writes the 32-bit word at byte `at`.
    #[inline]
    pub fn write32(&self, at: usize, value: u32) {
        let word = self.at::<u32>(at);
        // SAFETY: an aligned word of live memory.
        unsafe { word.write_volatile(value.to_le()) }
    }
    /// Reads the 64-bit word at byte `at`.
    #[inline]
    pub fn read64(&self, at: usize) -> u64 {
        let word = self.at::<u64>(at);
        // SAFETY: an aligned word of live memory.
        u64::from_le(unsafe { word.read_volatile() })
    }
    /// Writes the 64-bit word at byte `at`.
    #[inline]
    pub fn write64(&self, at: usize, value: u64) {
        let word = self.at::<u64>(at);
        // SAFETY: an aligned word of live memory.
        unsafe { word.write_volatile(value.to_le()) }
    }
    /// Writes the entry number `index` of 64 bytes.
    #[inline]
    pub fn write_entry(&self, index: usize, words: &[u64; 8]) {
        let entry = self.at::<[u64; 8]>(index * 64).cast::<u64>();
        for (i, word) in words.iter().enumerate() {
            // SAFETY: eight aligned words of live memory, as `at` proved for all of them.
            unsafe { entry.add(i).write_volatile(word.to_le()) };
        }
    }
    /// Zeroes the first `len` bytes, a multiple of 8.
    pub fn zero(&self, len: usize) {
        (0..len / 8).for_each(|i| self.write64(i * 8, 0));
    }
    /// Copies out its first bytes; a multiple of 8.
    pub fn copy_out(&self, into: &mut [u8]) {
        for (i, word) in into.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.read64(i * 8).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Arena;

    #[test]
    fn blocks_are_zeroed_aligned_disjoint_and_found_by_their_address() {
        let dma = Dma::software();
        let blocks: Vec<Block> = (0..40).map(|i| dma.block([4096, 100, 65536, 300_000][i % 4]).unwrap()).collect();
        for (i, block) in blocks.iter().enumerate() {
            assert!(block.iova().is_multiple_of(block.len() as u64) && block.len() >= 4096);
            assert!((0..block.len() / 8).all(|w| block.read64(w * 8) == 0));
            block.write64(0, i as u64);
            block.write64(block.len() - 8, !(i as u64));
        }
        let mut bytes = [0; 8];
        for (i, block) in blocks.iter().enumerate() {
            assert!(dma.device_reads(block.iova(), &mut bytes) && u64::from_le_bytes(bytes) == i as u64);
            assert!(dma.device_writes(block.iova() + 8, &[7; 4]) && block.read32(8) == 0x0707_0707);
            assert_eq!(block.read64(block.len() - 8), !(i as u64));
            block.zero(16);
            assert_eq!((block.read64(0), block.read64(8)), (0, 0));
        }
        assert!(!dma.device_reads(0, &mut bytes) && !dma.device_writes(1 << 40, &bytes));
        assert!(std::panic::catch_unwind(|| blocks[0].read64(4092)).is_err());
        assert!(std::panic::catch_unwind(|| blocks[0].write_entry(64, &[0; 8])).is_err());
    }

    #[test]
    fn a_span_is_mapped_once_and_found_by_what_lies_in_it() {
        let dma = Dma::software();
        let (a, b) = (Arena::new(2 << 20).unwrap(), Arena::new(4 << 20).unwrap());
        let mut windows = dma.windows(&[a.span(), b.span()]).unwrap();
        let again = dma.windows(&[b.span()]).unwrap();
        let start = b.span().start().as_ptr() as usize;
        let number = windows.find(start + 8192, 4096).unwrap();
        assert_eq!(windows.get(number).iova(start + 8192), again.get(0).iova(start) + 8192);
        assert!(windows.find(a.span().start().as_ptr() as usize, 1).is_some());
        assert!(windows.find(start + (4 << 20) - 1, 2).is_none() && windows.find(64, 1).is_none());
        assert!(again.get(0).contiguous(start, 4 << 20));
    }

    #[test]
    fn pages_without_an_iommu_are_looked_up_one_by_one() {
        let pages = Some(Arc::from([10 << 21, 3 << 21]));
        let window = Window { start: 1 << 30, len: 4 << 20, iova: 10 << 21, pages };
        assert_eq!(window.iova((1 << 30) + LARGE + 5), (3 << 21) + 5);
        assert_eq!(window.iova((1 << 30) + 7), (10 << 21) + 7);
        assert!(window.contiguous((1 << 30) + LARGE - 512, 512));
        assert!(!window.contiguous((1 << 30) + LARGE - 512, 513));
    }
}
