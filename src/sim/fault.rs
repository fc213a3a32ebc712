//! What may go wrong with an operation, and how often: the seed of a run draws which kinds are on at all.
//!
//! Rates are per million operations of the kind they apply to. A fault that was decided is data; [`super::Disk`]
//! carries it out and records it, so that a replay needs no second draw.

use crate::base::rng::Rng;
use crate::device::OpKind;

/// One thing that goes wrong with one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails with `DeviceError::Media`. A failed write leaves nothing, all or a part of itself on the medium.
    Error,
    /// It is delivered this many nanoseconds later.
    Stall(u64),
    /// Read: one bit of the buffer is inverted. Write: one bit goes to the medium inverted.
    BitFlip(u64),
    /// Read: the bytes of another place come back. Write: the bytes go to another place, the right one keeps its old
    /// content. The number names the place.
    Misdirected(u64),
    /// A write is acknowledged and never happens.
    Phantom,
    /// One 512-byte sector of an acknowledged write keeps its old content.
    StaleSector(u64),
    /// A flush is acknowledged and makes nothing durable.
    LyingFlush,
    /// The device is gone from here on.
    Death,
}

impl Fault {
    /// True for the faults that leave wrong bytes behind an acknowledged write; only redundancy could undo them.
    pub fn corrupts(self) -> bool {
        matches!(
            self,
            Fault::BitFlip(_) | Fault::Misdirected(_) | Fault::Phantom | Fault::StaleSector(_) | Fault::LyingFlush
        )
    }
}

/// How often each fault happens, per million operations.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Read errors.
    pub read_error: u32,
    /// Write errors.
    pub write_error: u32,
    /// Flush errors.
    pub flush_error: u32,
    /// Any operation that takes far longer.
    pub stall: u32,
    /// Bits inverted on the way up.
    pub read_flip: u32,
    /// Bits inverted on the way down.
    pub write_flip: u32,
    /// Reads of the wrong place.
    pub read_misdirected: u32,
    /// Writes to the wrong place.
    pub write_misdirected: u32,
    /// Writes that never happen.
    pub phantom: u32,
    /// Writes that leave a sector out.
    pub stale_sector: u32,
    /// Flushes that do nothing.
    pub lying_flush: u32,
    /// The end of the device.
    pub death: u32,
}

impl Faults {
    /// Decides what goes wrong with the next operation of this kind.
    pub fn draw(&self, kind: OpKind, rng: &mut Rng) -> Option<Fault> {
        if *self == Faults::default() {
            return None;
        }
        let mut dice = rng.below(1_000_000);
        let mut hit = |rate: u32| {
            let hit = dice < u64::from(rate);
            dice = if hit { u64::MAX } else { dice - u64::from(rate) };
            hit
        };
        let fault = match kind {
            _ if hit(self.death) => Fault::Death,
            _ if hit(self.stall) => Fault::Stall(0),
            OpKind::Read if hit(self.read_error) => Fault::Error,
            OpKind::Read if hit(self.read_flip) => Fault::BitFlip(0),
            OpKind::Read if hit(self.read_misdirected) => Fault::Misdirected(0),
            OpKind::Write if hit(self.write_error) => Fault::Error,
            OpKind::Write if hit(self.write_flip) => Fault::BitFlip(0),
            OpKind::Write if hit(self.write_misdirected) => Fault::Misdirected(0),
            OpKind::Write if hit(self.phantom) => Fault::Phantom,
            OpKind::Write if hit(self.stale_sector) => Fault::StaleSector(0),
            OpKind::Flush if hit(self.flush_error) => Fault::Error,
            OpKind::Flush if hit(self.lying_flush) => Fault::LyingFlush,
            _ => return None,
        };
        Some(match fault {
            // 1 ms to 100 s, each decade as likely as the next.
            Fault::Stall(_) => Fault::Stall(1_000_000 * 10u64.pow(rng.below(6) as u32)),
            Fault::BitFlip(_) => Fault::BitFlip(rng.next_u64()),
            Fault::Misdirected(_) => Fault::Misdirected(rng.next_u64()),
            Fault::StaleSector(_) => Fault::StaleSector(rng.next_u64()),
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_kept_and_kinds_do_not_mix() {
        let faults = Faults { read_error: 250_000, read_flip: 250_000, flush_error: 1_000_000, ..Faults::default() };
        let mut rng = Rng::new(3);
        let (mut errors, mut flips) = (0, 0);
        for _ in 0..10_000 {
            match faults.draw(OpKind::Read, &mut rng) {
                Some(Fault::Error) => errors += 1,
                Some(Fault::BitFlip(_)) => flips += 1,
                other => assert_eq!(other, None),
            }
            assert_eq!(faults.draw(OpKind::Write, &mut rng), None);
            assert_eq!(faults.draw(OpKind::Flush, &mut rng), Some(Fault::Error));
        }
        assert!((2300..2700).contains(&errors) && (2300..2700).contains(&flips), "{errors} {flips}");
    }
}
