//! Compare-writes of one owner. While one is under way its range is held: a write, zeroing or compare-write that touches it
//! is put off, and it begins only when those that were under way before have ended. Owns the held ranges; an ordinary
//! write looks whether there is any, which there hardly ever is.
//!
//! What stays true: held ranges do not overlap, and nothing else changes a byte of one from the read that compares until
//! the write has ended. A hold takes all the buffers it needs before it locks anything.

use super::judge::{first_difference, owned};
use super::{HOLD, Local, find};
use crate::base::limits::COMPARE_WRITE_BYTES_MAX;
use crate::base::{BLOCK, Status};
use crate::device::Queue;
use crate::mem::{Buf, Pool};
use crate::repl::{Detail, Ended, Home, Kind, Outcome, Part, Payload, Step};

/// Where a held range is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Waits for changes that were under way before, or for room for its read.
    Settling,
    /// Its blocks are being read.
    Reading,
    /// Compared equal; waits to be told to write or to let go.
    Equal,
    /// To be written as soon as there is room.
    Ready,
    /// Being written.
    Writing,
}

/// A held range.
pub(super) struct Hold {
    /// What is answered: its tag, and whether the range stays held when it compares equal.
    part: Part,
    stage: Stage,
    /// What to compare with, then what to write.
    payload: Buf,
    /// As long as one of these; away while it is read into or written from.
    data: Option<Buf>,
}

impl<Q: Queue> Local<Q> {
    /// True when a part touches a held range.
    #[cold]
    pub(super) fn is_held(&self, part: &Part) -> bool {
        self.holds.iter().any(|(_, h)| h.part.volume == part.volume && overlap(&h.part, part))
    }

    /// Starts a compare-write, or a step of one.
    pub(super) fn compare_write(&mut self, part: &Part, payload: Payload<'_>, pool: &mut Pool) -> Outcome {
        match part.step {
            Step::Whole | Step::Hold => {}
            Step::Write | Step::Release => return self.end_hold(part, pool),
        }
        let len = part.len as usize;
        assert!(len <= COMPARE_WRITE_BYTES_MAX, "a target keeps compare-writes under the limit it announces");
        assert_eq!(payload.bytes().len(), 2 * len, "both payloads");
        if self.is_held(part) || self.holds.len() == self.holds_max {
            return Outcome::Later(payload.into_buf());
        }
        // Room for the blocks of a log around it, so that the read needs no other buffer.
        let buffers = pool.get(len + 2 * BLOCK).ok_or(None).and_then(|data| match owned(payload, pool) {
            Ok(payload) => Ok((data, payload)),
            Err(back) => {
                pool.put(data);
                Err(back)
            }
        });
        let (data, payload) = match buffers {
            Ok(both) => both,
            // Who already holds another range must not wait here for buffers that may wait for that range.
            Err(back) if part.step == Step::Hold => {
                pool.put_all(back);
                return Outcome::Done(Ended::plain(part.tag, Status::Busy, None));
            }
            Err(back) => return Outcome::Later(back),
        };
        let hold = Hold { part: *part, stage: Stage::Settling, payload, data: Some(data) };
        let slot = self.holds.insert(hold);
        self.advance_hold(slot, pool).map_or(Outcome::Pending, Outcome::Done)
    }

    /// The second step of a range that compared equal.
    fn end_hold(&mut self, part: &Part, pool: &mut Pool) -> Outcome {
        let same = |h: &Hold| h.part.volume == part.volume && h.part.offset == part.offset && h.part.len == part.len;
        let slot = self.holds.iter().find(|(_, h)| same(h)).map(|(slot, _)| slot).expect("what is held stays held");
        let hold = &mut self.holds[slot];
        assert!(hold.stage == Stage::Equal && hold.part.step == Step::Hold, "the first step has ended");
        hold.part = *part;
        if part.step == Step::Release {
            return Outcome::Done(self.let_go(slot, Status::Ok, Detail::NONE, pool));
        }
        hold.stage = Stage::Ready;
        self.advance_hold(slot, pool).map_or(Outcome::Pending, Outcome::Done)
    }

    /// Takes a held range as far as it goes now; its end when that is now.
    fn advance_hold(&mut self, slot: usize, pool: &mut Pool) -> Option<Ended> {
        let Hold { part, stage, .. } = self.holds[slot];
        let tag = HOLD | slot as u64;
        let outcome = match stage {
            Stage::Settling if self.is_changing(&part) => return None,
            Stage::Settling => {
                let mut data = self.holds[slot].data.take().expect("it is here before the read");
                data.set_len(part.len as usize);
                self.holds[slot].stage = Stage::Reading;
                self.read(&Part { kind: Kind::Read, tag, ..part }, data, pool)
            }
            Stage::Ready => {
                let hold = &mut self.holds[slot];
                hold.stage = Stage::Writing;
                let mut data = hold.data.take().expect("it is here before the write");
                data.copy_from_slice(&hold.payload[part.len as usize..]);
                self.write(&Part { kind: Kind::Write, tag, ..part }, Payload::Owned(data), pool)
            }
            Stage::Reading | Stage::Equal | Stage::Writing => return None,
        };
        match outcome {
            Outcome::Pending => None,
            Outcome::Done(e) => self.hold_ended(slot, e, pool),
            Outcome::Later(data) => {
                let hold = &mut self.holds[slot];
                (hold.stage, hold.data) = (stage, data);
                assert!(hold.data.is_some(), "a buffer that was given comes back");
                None
            }
        }
    }

    /// The read or write of a held range has ended.
    pub(super) fn hold_ended(&mut self, slot: usize, ended: Ended, pool: &mut Pool) -> Option<Ended> {
        let hold = &mut self.holds[slot];
        if hold.stage == Stage::Writing || !ended.status.is_ok() {
            pool.put_all(ended.buf);
            return Some(self.let_go(slot, ended.status, Detail::NONE, pool));
        }
        let data = ended.buf.expect("a read ends with its buffer");
        let differs = first_difference(&data, &hold.payload[..hold.part.len as usize]);
        hold.data = Some(data);
        if let Some(at) = differs {
            return Some(self.let_go(slot, Status::CompareMismatch, Detail::differing(at), pool));
        }
        if hold.part.step == Step::Hold {
            hold.stage = Stage::Equal;
            return Some(Ended::plain(hold.part.tag, Status::Ok, None));
        }
        hold.stage = Stage::Ready;
        self.advance_hold(slot, pool)
    }

    fn let_go(&mut self, slot: usize, status: Status, detail: Detail, pool: &mut Pool) -> Ended {
        let hold = self.holds.remove(slot);
        pool.put(hold.payload);
        pool.put_all(hold.data);
        Ended { tag: hold.part.tag, status, detail, buf: None }
    }

    /// Takes every held range a step on; true when one has moved, or waits for something that no device
    /// announces.
    pub(super) fn step_holds(&mut self, pool: &mut Pool) -> bool {
        let mut waits = false;
        for slot in 0..self.holds_max {
            if !self.holds.contains(slot) {
                continue;
            }
            let before = self.holds[slot].stage;
            let ended = self.advance_hold(slot, pool);
            let now = self.holds.get(slot).map_or(before, |h| h.stage);
            waits |= ended.is_some() || now != before || matches!(now, Stage::Settling | Stage::Ready);
            self.ended.extend(ended);
        }
        for device in self.devices.iter_mut().flatten() {
            device.queue.kick();
        }
        waits
    }

    /// True while a write or zeroing of the range is under way that began before it was held.
    fn is_changing(&mut self, part: &Part) -> bool {
        match part.home {
            Home::Raw(device) => self.raw.changes(device, part.offset, part.len),
            Home::Log { store, slices } => find(&mut self.slices, &mut self.devices, store, slices, part)
                .is_some_and(|(slice, _)| slice.is_changing(part.volume, part.offset, part.len)),
        }
    }
}

/// True when two parts touch the same 4 KiB: a log writes blocks of that size, so a neighbour within one would count as a
/// change under way for as long as hosts go on writing it.
fn overlap(a: &Part, b: &Part) -> bool {
    let first = |p: &Part| p.offset / BLOCK as u64;
    let last = |p: &Part| (p.offset + u64::from(p.len) - 1) / BLOCK as u64;
    first(a) <= last(b) && first(b) <= last(a)
}
