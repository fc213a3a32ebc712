//! Creating, changing and deleting volumes: records of the log like any write.

use super::format::batch::{Described, Kind, Stamp};
use super::format::{Stream, VolumeMeta};
use super::index::Slot;
use super::request::Outcome;
use super::slice::Slice;
use crate::base::{Status, VolumeId};
use crate::device::Queue;
use crate::mem::Pool;
use zerocopy::IntoBytes;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Its record is in the batch in this slot.
    Logged(usize),
    /// It is durable, and blocks past the new end are being dropped.
    Trimming(Slot),
}

#[derive(Clone, Copy, Debug)]
struct VolumeOp {
    volume: VolumeId,
    tag: u64,
    stage: Stage,
}

/// Volume operations that have not ended.
pub(super) struct VolumeOps {
    ops: Vec<VolumeOp>,
}

impl VolumeOps {
    pub fn new() -> VolumeOps {
        VolumeOps { ops: Vec::new() }
    }
    /// True when one is under way for this volume.
    pub fn busy(&self, volume: VolumeId) -> bool {
        self.ops.iter().any(|op| op.volume == volume)
    }
    /// True when none is under way.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
    pub fn abandon(&mut self, tags: &mut Vec<u64>) {
        tags.extend(self.ops.drain(..).map(|op| op.tag));
    }
}

impl Slice {
    /// Creates a volume or changes its metadata; a smaller size drops the blocks past it. Ends with `Ok` when that is
    /// durable and done. One operation per volume at a time; a further one gets `Later`.
    ///
    /// # Errors
    /// `Unsupported` when the metadata is not valid, `Busy` when there are [`super::Limits::volumes`] already, `Gone`.
    pub fn set_volume<Q: Queue>(&mut self, meta: VolumeMeta, tag: u64, q: &mut Q, pool: &mut Pool) -> Outcome {
        if let Some(refused) = self.refusal(tag) {
            return refused;
        }
        if meta.check().is_err() {
            return Outcome::ended(tag, Status::Unsupported);
        }
        if self.volume_ops.busy(meta.id) {
            return Outcome::Later(None);
        }
        let new = self.index.slot(meta.id).is_none();
        if new && !self.index.volume_room() {
            // A doomed volume's slot comes back with the next checkpoint.
            let doomed = self.index.volume_count() < usize::from(self.cfg.limits.volumes);
            self.checkpoint.hasten |= doomed;
            return if doomed { Outcome::Later(None) } else { Outcome::ended(tag, Status::Busy) };
        }
        if new && !self.volume_ops.is_empty() {
            // Each new volume must find its slot when its record is applied.
            return Outcome::Later(None);
        }
        self.log_volume(Kind::VolumeSet, meta.id, tag, meta.encode().as_bytes(), q, pool)
    }

    /// Deletes a volume. Ends with `Ok` when that is durable; its space comes back bit by bit.
    ///
    /// # Errors
    /// `Gone` when there is no such volume.
    pub fn delete_volume<Q: Queue>(&mut self, id: VolumeId, tag: u64, q: &mut Q, pool: &mut Pool) -> Outcome {
        if let Some(refused) = self.refusal(tag) {
            return refused;
        }
        if self.volume_ops.busy(id) {
            return Outcome::Later(None);
        }
        if self.index.slot(id).is_none() {
            return Outcome::ended(tag, Status::Gone);
        }
        self.log_volume(Kind::VolumeDelete, id, tag, &[], q, pool)
    }

    fn log_volume<Q: Queue>(
        &mut self,
        kind: Kind,
        volume: VolumeId,
        tag: u64,
        tail: &[u8],
        q: &mut Q,
        pool: &mut Pool,
    ) -> Outcome {
        let reserve = self.reserve_for_release();
        let Some(mut batch) = self.log.open(Stream::Hot, reserve, &mut self.segments, pool) else {
            return Outcome::Later(None);
        };
        if self.log.room(batch, kind) == 0 {
            if !self.log.may_seal(Stream::Hot) {
                return Outcome::Later(None);
            }
            self.seal(Stream::Hot, q);
            match self.log.open(Stream::Hot, reserve, &mut self.segments, pool) {
                Some(fresh) => batch = fresh,
                None => return Outcome::Later(None),
            }
        }
        let what = Described { volume, first: 0, count: 0, stamp: Stamp::NONE };
        let (space, ..) = self.log.push(batch, kind, what);
        space.copy_from_slice(tail);
        self.volume_ops.ops.push(VolumeOp { volume, tag, stage: Stage::Logged(batch) });
        Outcome::Pending
    }

    /// The batch in `slot` was applied: operations logged in it end, or go on with trimming.
    pub(super) fn end_volume_ops(&mut self, slot: usize) {
        if self.volume_ops.is_empty() {
            return;
        }
        let (ops, trims, index, ended) = (&mut self.volume_ops.ops, &self.trims, &self.index, &mut self.ended);
        ops.retain_mut(|op| {
            if op.stage != Stage::Logged(slot) {
                return true;
            }
            if let Some(volume) = index.slot(op.volume)
                && trims.iter().any(|t| t.slot == volume)
            {
                op.stage = Stage::Trimming(volume);
                return true;
            }
            ended.push(super::request::Ended { tag: op.tag, status: Status::Ok, buf: None });
            false
        });
    }

    /// All blocks past the end of a volume were dropped.
    pub(super) fn end_trimmed(&mut self, slot: Slot) {
        let ended = &mut self.ended;
        self.volume_ops.ops.retain(|op| {
            let over = op.stage == Stage::Trimming(slot);
            if over {
                ended.push(super::request::Ended { tag: op.tag, status: Status::Ok, buf: None });
            }
            !over
        });
    }
}
