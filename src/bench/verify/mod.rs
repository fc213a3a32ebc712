//! Verify mode: every block written can be recognised, every block read is held to what it may be. One [`Verifier`] per
//! worker over its own blocks; the engine calls it around each request.
//!
//! What stays true: a block never has two writes under way; an intent is in the log before its write leaves; memory is
//! 8 bytes per block of the range plus a fixed amount.

pub mod judge;
pub mod ledger;
pub mod log;
pub mod stamp;

use judge::{Allowed, Damage, Judge, Verdict};
use ledger::Ledger;
use log::{Fact, Log, LogError};
use stamp::{SECTOR, Stamp};
use std::collections::BTreeMap;

/// Damaged blocks described in full; beyond that they are counted only.
pub const DESCRIBED_MAX: usize = 100;

/// What verification found; workers' findings are merged.
#[derive(Clone, Default, Debug)]
pub struct Findings {
    /// Blocks read and found as they must be.
    pub checked: u64,
    /// Blocks read of which nothing was known.
    pub unknown: u64,
    /// Blocks read and found wrong.
    pub damaged: u64,
    /// Damaged blocks by [`judge::DamageKind::name`].
    pub kinds: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub described: Vec<Damage>,
}

impl Findings {
    fn add(&mut self, damage: Damage) {
        self.damaged += 1;
        *self.kinds.entry(damage.kind.name()).or_default() += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(damage);
        }
    }
    /// Adds another worker's findings.
    pub fn merge(&mut self, other: Findings) {
        self.checked += other.checked;
        self.unknown += other.unknown;
        self.damaged += other.damaged;
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        let room = DESCRIBED_MAX - self.described.len();
        self.described.extend(other.described.into_iter().take(room));
    }
}

/// Verification of one worker's blocks.
#[derive(Debug)]
pub struct Verifier {
    judge: Judge,
    block_size: usize,
    ledger: Ledger,
    log: Option<Log>,
    /// Records not yet in the file.
    pending: Vec<u8>,
    /// Number of the next write; run in the top 16 bits, worker striped below.
    operation: u64,
    stride: u64,
    /// What was found so far.
    pub findings: Findings,
}

/// What a [`Verifier`] is made from.
#[derive(Debug)]
pub struct Setup {
    /// Volume and writer.
    pub judge: Judge,
    /// Bytes per logical block.
    pub block_size: u32,
    /// The worker's blocks.
    pub ledger: Ledger,
    /// Where to note what happens.
    pub log: Option<Log>,
    /// Number of this run in the log's life.
    pub run: u32,
    /// This worker's index and how many there are: their operation numbers interleave.
    pub worker: (u16, u16),
}

impl Verifier {
    /// A verifier that starts from what `setup.ledger` knows.
    pub fn new(setup: Setup) -> Verifier {
        Verifier {
            judge: setup.judge,
            block_size: setup.block_size as usize,
            ledger: setup.ledger,
            log: setup.log,
            pending: Vec::with_capacity(64 * 1024),
            operation: u64::from(setup.run & 0xffff) << 48 | u64::from(setup.worker.0),
            stride: u64::from(setup.worker.1),
            findings: Findings::default(),
        }
    }
    /// What is known about this worker's blocks.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
    /// True when `blocks` blocks from `lba` on may be written now.
    pub fn is_free(&self, lba: u64, blocks: u32) -> bool {
        (lba..lba + u64::from(blocks)).all(|block| self.ledger.is_free(block))
    }
    /// Starts a write: fills `data` (exactly the blocks' bytes) and notes the intent.
    pub fn begin_write(&mut self, lba: u64, blocks: u32, data: &mut [u8]) {
        assert_eq!(data.len(), blocks as usize * self.block_size, "payload is exactly the blocks");
        let per_block = self.block_size / SECTOR;
        let sectors = data.len() / SECTOR;
        let operation = self.operation;
        self.operation += self.stride;
        for (at, bytes) in data.chunks_exact_mut(self.block_size).enumerate() {
            let block = lba + at as u64;
            let generation = self.ledger.begin_write(block);
            self.note(Fact::Intent, block, generation);
            for (index, sector) in bytes.chunks_exact_mut(SECTOR).enumerate() {
                let index = at * per_block + index;
                let stamp = Stamp {
                    volume: self.judge.volume,
                    sector: lba * per_block as u64 + index as u64,
                    operation,
                    writer: self.judge.writer,
                    generation,
                    sectors: sectors as u16,
                    index: index as u16,
                };
                stamp.emit(sector);
            }
        }
    }
    /// The write that was begun at `lba` ended; not acknowledged means that nobody knows whether it landed.
    pub fn end_write(&mut self, lba: u64, blocks: u32, acknowledged: bool) {
        for block in lba..lba + u64::from(blocks) {
            self.ledger.end_write(block, acknowledged);
            if acknowledged {
                self.note(Fact::Acknowledged, block, self.ledger.floor(block));
            }
        }
    }
    /// A read starts: what is certain now must still be there when it ends. `floors` gets one entry per block.
    pub fn begin_read(&self, lba: u64, floors: &mut [u32]) {
        for (floor, block) in floors.iter_mut().zip(lba..) {
            *floor = self.ledger.floor(block);
        }
    }
    /// A read returned `data`; judges each block. Returns how many were damaged.
    pub fn end_read(&mut self, lba: u64, floors: &[u32], data: &[u8]) -> u64 {
        assert_eq!(data.len(), floors.len() * self.block_size, "data is exactly the blocks");
        let before = self.findings.damaged;
        for ((bytes, floor), block) in data.chunks_exact(self.block_size).zip(floors).zip(lba..) {
            let acknowledged = *floor != self.ledger.floor(block) || self.ledger.is_acknowledged(block);
            let allowed = Allowed { floor: *floor, ceiling: self.ledger.ceiling(block), acknowledged };
            match self.judge.judge(block, bytes, allowed) {
                Verdict::Holds(generation) => {
                    self.findings.checked += 1;
                    if self.ledger.saw(block, generation) {
                        self.note(Fact::Seen, block, generation);
                    }
                }
                Verdict::Unknown => self.findings.unknown += 1,
                Verdict::Damaged(damage) => self.findings.add(*damage),
            }
        }
        self.findings.damaged - before
    }
    fn note(&mut self, fact: Fact, block: u64, generation: u32) {
        if self.log.is_some() {
            log::append(&mut self.pending, fact, block, generation);
        }
    }
    /// Puts everything noted so far into the log; called before the writes it announces leave.
    ///
    /// # Errors
    /// [`LogError::Io`]: the run must end.
    pub fn write_log(&mut self) -> Result<(), LogError> {
        if let (Some(log), false) = (&self.log, self.pending.is_empty()) {
            log.write(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
