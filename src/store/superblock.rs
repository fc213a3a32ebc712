//! Writing a superblock: both copies of the slot that is not the newest, then a flush where the device has a volatile
//! cache. Recovery (new incarnation) and checkpoints (new root) share it.

use super::error::StoreError;
use super::format::Superblock;
use super::format::superblock::SLOTS;
use super::planted::Planted;
use super::request::Phase;
use super::slice::Slice;
use super::token::Purpose;
use crate::base::BLOCK;
use crate::device::{DeviceError, Done, Queue};
use crate::mem::Pool;

/// How far the superblock write under way is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Writing {
    /// None is.
    Nothing,
    /// Copies still at the device.
    Copies(u8),
    /// The flush is at the device.
    Flush,
    /// It is durable; whoever asked for it goes on.
    Durable,
}

impl Slice {
    /// Starts to write `sb`; false when no buffers are free. The slice's `superblock` is the new one from here on.
    pub(super) fn write_superblock<Q: Queue>(&mut self, sb: Superblock, all: bool, q: &mut Q, pool: &mut Pool) -> bool {
        assert!(matches!(self.super_writing, Writing::Nothing), "one superblock at a time");
        let number = if self.rules.breaks(Planted::SameSuperblockSlot) { 1 } else { sb.sequence };
        let mut blocks = [u32::MAX; 4];
        let this = SLOTS[(number % 2) as usize];
        let other = SLOTS[((number + 1) % 2) as usize];
        blocks[..2].copy_from_slice(&this);
        if all {
            blocks[2..].copy_from_slice(&other);
        }
        let count = if all { 4 } else { 2 };
        let mut bufs = [const { None }; 4];
        for slot in &mut bufs[..count] {
            *slot = pool.get(BLOCK);
        }
        if bufs[..count].iter().any(Option::is_none) {
            bufs.into_iter().flatten().for_each(|buf| pool.put(buf));
            return false;
        }
        let mut left = 0;
        for (block, buf) in blocks.into_iter().zip(bufs) {
            let Some(mut buf) = buf else { continue };
            sb.encode(&mut buf);
            if q.write_now(self.port.byte(block), &buf) == Some(Ok(())) {
                pool.put(buf);
            } else {
                left += 1;
                self.port.write(block, BLOCK, buf, Purpose::Super(block as usize), q);
            }
        }
        self.superblock = Some(sb);
        self.super_writing = Writing::Copies(left);
        if left == 0 {
            self.copies_written(q);
        }
        true
    }

    fn copies_written<Q: Queue>(&mut self, q: &mut Q) {
        if q.caps().volatile_cache {
            self.super_writing = Writing::Flush;
            self.port.flush(Purpose::SuperFlush, q);
        } else {
            self.super_writing = Writing::Durable;
        }
    }

    pub(super) fn superblock_written<Q: Queue>(&mut self, block: usize, done: Done, q: &mut Q, pool: &mut Pool) {
        if let Some(buf) = done.buf {
            pool.put(buf);
        }
        if let Err(error) = done.result {
            self.superblock_failed("superblock write", block as u32, error, pool);
            return;
        }
        let Writing::Copies(left) = self.super_writing else { return };
        self.super_writing = Writing::Copies(left - 1);
        if left == 1 {
            self.copies_written(q);
        }
    }

    pub(super) fn superblock_flushed(&mut self, done: &Done, pool: &mut Pool) {
        match done.result {
            Err(error) => self.superblock_failed("flush", 0, error, pool),
            Ok(()) if self.super_writing == Writing::Flush => self.super_writing = Writing::Durable,
            Ok(()) => {}
        }
    }

    fn superblock_failed(&mut self, op: &'static str, block: u32, error: DeviceError, pool: &mut Pool) {
        let offset = self.port.byte(block);
        if matches!(self.phase, Phase::Ready | Phase::Starting { .. }) {
            self.die(StoreError::Device { op, offset, error }, pool);
        }
    }
}
