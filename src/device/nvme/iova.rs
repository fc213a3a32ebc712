//! Addresses for a device behind an IOMMU: which ranges it can use, and the next free piece of them. Nothing is given
//! back: what is mapped stays mapped for the life of the container.

/// Nothing is handed out below: a null pointer in a command must fault, and legacy holes are there.
const FLOOR: u64 = 1 << 20;
/// The range where the kernel names none: 39 bits, what the smallest IOMMUs translate.
const ANY: (u64, u64) = (FLOOR, (1 << 39) - 1);
/// Borders of large pieces, so that the IOMMU can use its large pages: 2 MiB.
const LARGE: u64 = 2 << 20;

/// Free device addresses.
#[derive(Debug)]
pub struct Iovas {
    /// Inclusive, ascending, disjoint; what is used has been cut off the front.
    free: Vec<(u64, u64)>,
}

impl Iovas {
    /// From the inclusive `ranges` the IOMMU translates, in any order; none given means that the kernel does not say.
    pub fn new(ranges: &[(u64, u64)]) -> Iovas {
        let mut free: Vec<(u64, u64)> = if ranges.is_empty() { vec![ANY] } else { ranges.to_vec() };
        for range in &mut free {
            range.0 = range.0.max(FLOOR);
        }
        free.retain(|r| r.0 <= r.1);
        free.sort_unstable();
        Iovas { free }
    }

    /// `len` bytes (a multiple of 4096, not 0) that start on a 2 MiB border when they are that long, on a 4 KiB border
    /// otherwise. Low addresses go first: some devices reach no others.
    pub fn take(&mut self, len: u64) -> Option<u64> {
        assert!(len != 0 && len.is_multiple_of(4096), "device memory is whole pages");
        let border = if len >= LARGE { LARGE } else { 4096 };
        for range in &mut self.free {
            let Some(start) = range.0.checked_next_multiple_of(border) else { continue };
            let Some(last) = start.checked_add(len - 1).filter(|last| *last <= range.1) else { continue };
            // The last address of all can not be stepped over.
            range.0 = last.saturating_add(1);
            if last == u64::MAX {
                range.1 = 0;
            }
            return Some(start);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_disjoint_and_keep_to_the_ranges() {
        // What Intel's IOMMU tells: a hole where interrupts are, 39 bits.
        let ranges = [(0xfef0_0000, (1 << 39) - 1), (0, 0xfedf_ffff)];
        let mut iovas = Iovas::new(&ranges);
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for i in 0..3000u64 {
            let len = [4096, 8192, 2 << 20, 6 << 20][i as usize % 4];
            let at = iovas.take(len).unwrap();
            assert!(at >= FLOOR && at.is_multiple_of(if len >= LARGE { LARGE } else { 4096 }));
            assert!(ranges.iter().any(|r| at >= r.0 && at + len - 1 <= r.1), "{at:#x}+{len:#x}");
            assert!(taken.iter().all(|t| at + len <= t.0 || t.0 + t.1 <= at));
            taken.push((at, len));
        }
        assert!(taken.iter().any(|t| t.0 > 0xfee0_0000) && taken[0].0 < 0x1000_0000);
    }

    #[test]
    fn full_is_a_value() {
        let mut iovas = Iovas::new(&[(0, FLOOR + 8191)]);
        assert_eq!((iovas.take(8192), iovas.take(4096)), (Some(FLOOR), None));
        let mut top = Iovas::new(&[(u64::MAX - 8191, u64::MAX)]);
        assert_eq!((top.take(8192), top.take(4096)), (Some(u64::MAX - 8191), None));
        assert_eq!(Iovas::new(&[(0, 4095)]).take(4096), None);
        assert!(Iovas::new(&[]).take(1 << 38).is_some());
    }
}
