//! Reading everything back after a recovery.

use super::{Check, Host, Node, Range};
use crate::base::{BLOCK, CHUNK, VolumeId};
use crate::sim::failure::Failure;
use crate::sim::{SECTOR, Shape};
use std::collections::VecDeque;

/// Largest read of a verification, bytes.
const PIECE: u64 = 64 << 10;

/// The reads that a verification still has to make.
pub struct Survey(VecDeque<(VolumeId, Range)>);

impl Survey {
    /// True when all were made (some may still be under way).
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

impl Host {
    /// Checks the volumes that recovery found, and plans reads over every block that was ever written and, now and
    /// then, one that was not.
    pub fn survey(&mut self, node: &Node) -> Result<Survey, Failure> {
        self.find_volumes(node)?;
        let mut reads = VecDeque::new();
        for at in 0..self.volumes.len() {
            let (id, shape) = (self.volumes[at].id, self.volumes[at].shape);
            self.survey_volume(id, shape, &mut reads);
        }
        Ok(Survey(reads))
    }

    fn survey_volume(&mut self, id: VolumeId, shape: Shape, reads: &mut VecDeque<(VolumeId, Range)>) {
        let lba = u64::from(shape.lba);
        let mut next: Option<Range> = None;
        for block in self.oracle.touched(id) {
            let offset = block * lba;
            if offset + lba > shape.bytes {
                break;
            }
            match &mut next {
                Some(r) if r.offset + r.len == offset && r.len < PIECE && !offset.is_multiple_of(CHUNK) => r.len += lba,
                _ => reads.extend(next.replace(Range { offset, len: lba }).map(|r| (id, r))),
            }
        }
        reads.extend(next.map(|r| (id, r)));
        let blocks = shape.bytes / BLOCK as u64;
        if blocks > 0 {
            let offset = self.rng.below(blocks) * BLOCK as u64;
            reads.push_back((id, Range { offset, len: BLOCK as u64 }));
        }
    }

    /// Starts reads of the survey while there is room for them.
    pub fn survey_step(&mut self, node: &mut Node, survey: &mut Survey) -> Result<(), Failure> {
        while let Some((id, range)) = survey.0.front().copied() {
            let (put_off, tag) = (self.answers.later, self.tag);
            self.begin_read(node, id, range, Check::Recovery)?;
            if self.answers.later > put_off || self.tag == tag {
                return Ok(());
            }
            survey.0.pop_front();
        }
        Ok(())
    }
}

const _: () = assert!(PIECE.is_multiple_of(BLOCK as u64) && CHUNK.is_multiple_of(PIECE) && SECTOR == 512);
