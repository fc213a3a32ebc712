//! Memory as a medium. The cores that serve it share one mapping; each queue copies at once in `submit` (or in
//! `read_now` / `write_now`) and reports at the next `poll`. Long Write Zeroes are cut into steps, so that no turn
//! stalls. Everything is lost at exit, so there is nothing to flush and no cache to be volatile.
//!
//! The `unsafe` of this file is raw copies between the mapping and buffers. What stays true: the volume layer gives
//! every chunk, and the store every slice, to one core, so no two queues touch the same bytes at once. A caller that
//! broke this would see the bytes of both accesses mixed, as two commands in flight to the same LBA of a disk do.

use super::{Caps, DeviceError, Done, Op, OpKind, OpenError, Queue, RamSpec, check, check_now};
use crate::base::Time;
use crate::base::ring::Ring;
use crate::mem::{Backing, Commit, Mapping};
use std::ptr::NonNull;
use std::sync::Arc;

/// Most bytes of Write Zeroes done per poll and queue: about 100 us of memory bandwidth.
const ZERO_STEP: u64 = 1 << 20;
/// Largest single transfer.
const IO_BYTES_MAX: u32 = 4 << 20;

/// The memory that all queues to one RAM device share; it is given back when the last of them is dropped.
#[derive(Debug)]
pub struct RamMedium {
    memory: Mapping,
    size: u64,
    block_size: u32,
}

impl RamMedium {
    /// Takes the memory.
    ///
    /// # Errors
    /// [`OpenError::Memory`] when the system does not have it.
    pub fn open(spec: &RamSpec) -> Result<RamMedium, OpenError> {
        let failed = |source| OpenError::Memory { bytes: spec.size, source };
        let len = usize::try_from(spec.size).map_err(|_| failed(std::io::Error::from_raw_os_error(libc::ENOMEM)))?;
        let commit = if spec.lazy { Commit::OnTouch } else { Commit::Now };
        let memory = Mapping::new(len, commit).map_err(failed)?;
        Ok(RamMedium { memory, size: spec.size, block_size: spec.block.unwrap_or(super::BLOCK_DEFAULT) })
    }

    /// What the memory is made of.
    pub fn backing(&self) -> Backing {
        self.memory.backing()
    }

    pub(super) fn caps(&self, depth: u32) -> Caps {
        Caps {
            size: self.size,
            block_size: self.block_size,
            io_bytes_max: IO_BYTES_MAX,
            depth,
            volatile_cache: false,
            atomic_bytes: self.block_size,
            write_zeroes: true,
            discard: true,
            read_only: false,
        }
    }

    /// Where the `len` bytes at `offset` are.
    fn at(&self, offset: u64, len: u64) -> NonNull<u8> {
        assert!(offset <= self.size && len <= self.size - offset, "inside the medium");
        // SAFETY: offset <= size <= the mapping's length.
        unsafe { self.memory.base().add(offset as usize) }
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        let from = self.at(offset, into.len() as u64);
        // SAFETY: `from` has `into.len()` bytes of the mapping, which lives as long as `self`, is initialised (zeroes
        // at first), and never overlaps a Rust slice (nobody makes slices of it). No other core writes these bytes
        // now: see the head of this file.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
    }

    fn write(&self, offset: u64, from: &[u8]) {
        let into = self.at(offset, from.len() as u64);
        // SAFETY: as in `read`, the other way round; no other core touches these bytes now.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_ptr(), from.len()) };
    }

    fn zero(&self, offset: u64, len: u64) {
        let into = self.at(offset, len);
        // SAFETY: as in `write`.
        unsafe { std::ptr::write_bytes(into.as_ptr(), 0, len as usize) };
    }
}

/// One core's queue to a RAM device.
#[derive(Debug)]
pub struct RamQueue {
    medium: Arc<RamMedium>,
    caps: Caps,
    done: Vec<Done>,
    /// Write Zeroes longer than one step, oldest first; `offset` and `len` of an entry are what is left of it.
    zeroing: Ring<Op>,
}

impl RamQueue {
    /// A queue of at most `depth` operations.
    pub fn new(medium: Arc<RamMedium>, depth: u32) -> RamQueue {
        let caps = medium.caps(depth);
        let depth = depth as usize;
        RamQueue { medium, caps, done: Vec::with_capacity(depth), zeroing: Ring::new(depth) }
    }

    /// Does one step of the oldest Write Zeroes.
    fn step(&mut self) {
        let Some(op) = self.zeroing.front_mut() else { return };
        let len = op.len.min(ZERO_STEP);
        self.medium.zero(op.offset, len);
        op.offset += len;
        op.len -= len;
        if op.len == 0
            && let Some(op) = self.zeroing.pop()
        {
            self.done.push(Done { token: op.token, kind: op.kind, result: Ok(()), buf: op.buf });
        }
    }
}

impl Queue for RamQueue {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    #[inline]
    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        check(&op, &self.caps);
        if self.inflight() >= self.caps.depth as usize {
            return Err(op);
        }
        let (at, end) = (op.at as usize, op.at as usize + op.len as usize);
        match (op.kind, &mut op.buf) {
            (OpKind::Read, Some(buf)) => self.medium.read(op.offset, &mut buf[at..end]),
            (OpKind::Write, Some(buf)) => self.medium.write(op.offset, &buf[at..end]),
            (OpKind::WriteZeroes, _) if op.len > ZERO_STEP => {
                assert!(self.zeroing.push(op).is_ok(), "the depth bounds it");
                return Ok(());
            }
            (OpKind::WriteZeroes, _) => self.medium.zero(op.offset, op.len),
            // A discarded range may read as anything, also as what was there.
            (OpKind::Flush | OpKind::Discard, _) => {}
            (OpKind::Read | OpKind::Write, None) => unreachable!("check() saw the buffer"),
        }
        self.done.push(Done { token: op.token, kind: op.kind, result: Ok(()), buf: op.buf });
        Ok(())
    }

    fn kick(&mut self) {}

    #[inline]
    fn poll(&mut self, _now: Time, done: &mut Vec<Done>) -> usize {
        self.step();
        let n = self.done.len();
        done.append(&mut self.done);
        n
    }

    fn inflight(&self) -> usize {
        self.done.len() + self.zeroing.len()
    }

    #[inline]
    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        check_now(offset, into.len(), &self.caps);
        self.medium.read(offset, into);
        Some(Ok(()))
    }

    #[inline]
    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), DeviceError>> {
        check_now(offset, from.len(), &self.caps);
        self.medium.write(offset, from);
        Some(Ok(()))
    }

    fn wake_at(&self) -> Option<Time> {
        (self.inflight() != 0).then_some(Time(0))
    }
}

#[cfg(test)]
mod tests;
