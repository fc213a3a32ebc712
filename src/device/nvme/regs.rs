//! The controller's registers (NVM Express Base Specification 2.0, 3.1.3 "Controller Properties"): BAR 0 as memory that
//! is read and written one register at a time, and the fields of each register this driver uses.
//!
//! A function that was pulled out answers every read with all ones; [`Csts::gone`] is how that shows.

use crate::mem::Mapping;
use std::ptr::NonNull;
use std::sync::Arc;

/// CAP: controller capabilities, 64 bits.
pub const CAP: usize = 0x00;
/// VS: version.
pub const VS: usize = 0x08;
/// CC: controller configuration.
pub const CC: usize = 0x14;
/// CSTS: controller status.
pub const CSTS: usize = 0x1c;
/// AQA: admin queue attributes.
pub const AQA: usize = 0x24;
/// ASQ: admin submission queue base address, 64 bits.
pub const ASQ: usize = 0x28;
/// ACQ: admin completion queue base address, 64 bits.
pub const ACQ: usize = 0x30;
/// The first doorbell.
pub const DOORBELLS: usize = 0x1000;

/// CC: enabled, NVM command set, 4 KiB pages, round robin, entries of 64 and 16 bytes.
pub const CC_ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
/// CC.EN.
pub const CC_EN: u32 = 1;
/// CC.SHN = 01b: a normal shutdown.
pub const CC_SHUTDOWN: u32 = 1 << 14;
/// CC.SHN, both bits.
pub const CC_SHN: u32 = 3 << 14;

/// What CAP says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cap(pub u64);

impl Cap {
    /// MQES made 1's based: most entries of an I/O queue, 2 to 65536.
    pub fn entries_max(self) -> u32 {
        (self.0 as u32 & 0xffff) + 1
    }
    /// TO: the longest time in milliseconds that enabling or disabling takes; at least one unit of 500 ms.
    pub fn timeout_ms(self) -> u64 {
        (self.0 >> 24 & 0xff).max(1) * 500
    }
    /// DSTRD: bytes from one doorbell to the next, 4 to 128 KiB.
    pub fn doorbell_stride(self) -> usize {
        4 << (self.0 >> 32 & 0xf)
    }
    /// CSS: the NVM command set is there.
    pub fn has_nvm(self) -> bool {
        self.0 >> 37 & 1 == 1
    }
    /// MPSMIN: the smallest memory page, bytes.
    pub fn page_min(self) -> u64 {
        4096 << (self.0 >> 48 & 0xf)
    }
}

/// What CSTS says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Csts(pub u32);

impl Csts {
    /// Nobody answers: the function was removed, or its link is down.
    pub fn gone(self) -> bool {
        self.0 == u32::MAX
    }
    /// RDY.
    pub fn ready(self) -> bool {
        self.0 & 1 != 0
    }
    /// CFS: only a reset helps.
    pub fn fatal(self) -> bool {
        self.0 & 2 != 0
    }
    /// SHST = 10b: shutdown is complete.
    pub fn shut_down(self) -> bool {
        self.0 >> 2 & 3 == 2
    }
}

/// What keeps the registers mapped.
enum Keep {
    /// A mapping of a device file, unmapped at the end.
    Device,
    /// Memory that plays the registers, shared with whoever plays the controller.
    Memory(#[expect(dead_code, reason = "held, not read")] Arc<Mapping>),
}

/// BAR 0.
pub struct Bar {
    base: NonNull<u8>,
    len: usize,
    keep: Keep,
}

// SAFETY: the registers belong to no thread; each access is one load or store of a whole register, and which thread may
// write which register is settled by who owns the queue or the admin machine.
unsafe impl Send for Bar {}
// SAFETY: as above.
unsafe impl Sync for Bar {}

impl std::fmt::Debug for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bar").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Bar {
    /// Takes over a mapping of a device's registers.
    ///
    /// # Safety
    /// `base..base + len` is a shared mapping of a device file, page-aligned, that nobody else unmaps.
    pub(super) unsafe fn of_device(base: NonNull<u8>, len: usize) -> Bar {
        Bar { base, len, keep: Keep::Device }
    }

    /// Memory in the place of registers, for a controller made of software.
    pub fn of_memory(memory: Arc<Mapping>) -> Bar {
        Bar { base: memory.base(), len: memory.len(), keep: Keep::Memory(memory) }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn at(&self, at: usize) -> *mut u32 {
        assert!(at.is_multiple_of(4) && at < self.len && self.len - at >= 4, "a register inside the BAR");
        // SAFETY: inside the mapping, as just proved.
        unsafe { self.base.as_ptr().add(at).cast() }
    }

    /// A 32-bit register.
    #[inline]
    pub fn read32(&self, at: usize) -> u32 {
        let register = self.at(at);
        // SAFETY: a mapped, aligned register; volatile, so that the load happens, once.
        unsafe { register.read_volatile() }
    }

    /// Writes a 32-bit register.
    #[inline]
    pub fn write32(&self, at: usize, value: u32) {
        let register = self.at(at);
        // SAFETY: a mapped, aligned register; volatile, so that the store happens, once and in order.
        unsafe { register.write_volatile(value) }
    }

    /// A 64-bit register, low half first (3.1.1: two 32-bit accesses are always allowed).
    pub fn read64(&self, at: usize) -> u64 {
        let low = self.read32(at);
        u64::from(low) | u64::from(self.read32(at + 4)) << 32
    }

    /// Writes a 64-bit register, low half first.
    pub fn write64(&self, at: usize, value: u64) {
        self.write32(at, value as u32);
        self.write32(at + 4, (value >> 32) as u32);
    }

    /// CSTS.
    pub fn status(&self) -> Csts {
        Csts(self.read32(CSTS))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if matches!(self.keep, Keep::Device) {
            // SAFETY: the mapping is this one's own (`of_device`), and its owner is gone.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Commit;

    #[test]
    fn fields_come_from_their_bits() {
        // QEMU 7.2: 2048 entries, contiguous, 7.5 s, stride 4, NVM and admin only, 4 KiB to 64 KiB pages.
        let cap = Cap(0x0040_8200_0f01_07ff | 1 << 37);
        assert_eq!((cap.entries_max(), cap.timeout_ms(), cap.doorbell_stride()), (2048, 7500, 4));
        assert!(cap.has_nvm() && cap.page_min() == 4096);
        assert_eq!(Cap(0).timeout_ms(), 500);
        assert_eq!(Cap(3 << 32 | 1 << 48).doorbell_stride(), 32);
        assert_eq!(Cap(1 << 48).page_min(), 8192);
        assert!(Csts(u32::MAX).gone() && Csts(1).ready() && Csts(2).fatal() && Csts(8).shut_down());
        assert!(!Csts(0b1_0111).shut_down() && !Csts(0).ready());
    }

    #[test]
    fn registers_are_separate_and_bounded() {
        let bar = Bar::of_memory(Arc::new(Mapping::new(8192, Commit::OnTouch).unwrap()));
        bar.write64(ASQ, 0x1234_5678_9abc_d000);
        bar.write32(AQA, 7);
        assert_eq!((bar.read64(ASQ), bar.read32(AQA), bar.read64(ACQ)), (0x1234_5678_9abc_d000, 7, 0));
        for at in [bar.len(), bar.len() - 2, 2, usize::MAX - 3] {
            assert!(std::panic::catch_unwind(|| bar.read32(at)).is_err(), "{at}");
        }
    }
}
