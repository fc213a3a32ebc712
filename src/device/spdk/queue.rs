//! One core's queue: operations in slots, each sent as one command after another until it is done. Nothing is sent in
//! `submit`; `kick` enters the driver once for all that waits, and looks for completions on the way, because that is
//! what makes the driver ring the doorbell or write the socket.

use super::SpdkMedium;
use super::controller::Link;
use super::ffi_pair::{Command, Completed, Kind, Pair, Refused};
use super::status::{Verdict, verdict};
use crate::base::Time;
use crate::device::{Caps, DeviceError, Done, Op, OpKind, Queue, check};
use crate::mem::Buf;
use std::collections::VecDeque;
use std::sync::Arc;

/// Blocks of one Write Zeroes command at most: its count has 16 bits and starts at 0.
const ZERO_BLOCKS_MAX: u32 = 1 << 16;
/// Times an operation is sent again.
const TRIES_MAX: u8 = 30;
/// Wait before sending again what the device was not ready for.
const BACKOFF_MS: u64 = 100;

/// One operation under way.
#[derive(Debug)]
struct Slot {
    buf: Option<Buf>,
    token: u64,
    offset: u64,
    len: u64,
    /// Bytes done.
    moved: u64,
    /// Bytes of the command under way.
    piece: u64,
    /// For a flush: the writes that it makes durable.
    covers: u64,
    at: u32,
    kind: OpKind,
    /// Zeroes are written from a buffer.
    by_hand: bool,
    tries: u8,
}

/// One core's queue to a namespace.
pub struct SpdkQueue {
    // Declared before the medium: the pair is gone before its controller.
    link: Arc<Link>,
    medium: Arc<SpdkMedium>,
    caps: Caps,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Slots whose next command was not sent yet.
    pending: VecDeque<u16>,
    /// Commands that the driver has.
    sent: usize,
    completed: Vec<Completed>,
    /// Operations that ended without the device.
    ready: Vec<Done>,
    /// Nothing is sent before.
    not_before: Time,
    now: Time,
    /// Blocks of the next Write Zeroes commands at most.
    zero_blocks: u32,
    /// The device refused Write Zeroes of every size.
    zero_by_hand: bool,
    /// Bytes of a zeroing by hand at most.
    zero_bytes: u32,
    /// Completed writes, and how many of them a flush made durable.
    written: u64,
    flushed: u64,
}

impl std::fmt::Debug for SpdkQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpdkQueue")
            .field("medium", &self.medium)
            .field("inflight", &self.inflight())
            .finish_non_exhaustive()
    }
}

impl SpdkQueue {
    pub(super) fn new(medium: Arc<SpdkMedium>, link: Arc<Link>, caps: Caps, zero_bytes: u32) -> SpdkQueue {
        let depth = caps.depth as usize;
        let vacant = || Slot {
            buf: None,
            token: 0,
            offset: 0,
            len: 0,
            moved: 0,
            piece: 0,
            covers: 0,
            at: 0,
            kind: OpKind::Flush,
            by_hand: false,
            tries: 0,
        };
        SpdkQueue {
            link,
            medium,
            slots: std::iter::repeat_with(vacant).take(depth).collect(),
            free: (0..depth as u16).rev().collect(),
            pending: VecDeque::with_capacity(depth),
            sent: 0,
            completed: Vec::with_capacity(depth),
            ready: Vec::with_capacity(depth),
            not_before: Time(0),
            now: Time(0),
            zero_blocks: ZERO_BLOCKS_MAX,
            zero_by_hand: !caps.write_zeroes,
            zero_bytes,
            written: 0,
            flushed: 0,
            caps,
        }
    }

    /// The next command of a slot.
    fn command(&mut self, index: u16) -> Command {
        let block = u64::from(self.caps.block_size);
        let slot = &mut self.slots[usize::from(index)];
        let left = slot.len - slot.moved;
        let (kind, most) = match slot.kind {
            OpKind::Read => (Kind::Read, left),
            OpKind::Write => (Kind::Write, left),
            OpKind::Flush => (Kind::Flush, 0),
            OpKind::WriteZeroes if slot.by_hand => (Kind::ZeroByHand, u64::from(self.zero_bytes)),
            OpKind::WriteZeroes => (Kind::Zero, u64::from(self.zero_blocks) * block),
            OpKind::Discard => (Kind::Discard, u64::from(u32::MAX) * block),
        };
        slot.piece = left.min(most);
        let blocks = (slot.piece / block) as u32;
        Command {
            kind,
            tag: index,
            lba: (slot.offset + slot.moved) / block,
            blocks,
            at: slot.at as usize,
            len: slot.piece as usize,
        }
    }

    /// Gives what waits to the driver. False when the pair failed.
    fn hand_over(&mut self, pair: &mut Pair) -> bool {
        while let Some(index) = self.pending.front().copied() {
            let command = self.command(index);
            if command.kind == Kind::Flush {
                self.slots[usize::from(index)].covers = self.written;
            }
            match pair.submit(&command, &mut self.slots[usize::from(index)].buf) {
                Ok(()) => self.sent += 1,
                Err(Refused::Full) => return true,
                Err(Refused::Failed) => return false,
                Err(Refused::Bad(errno)) => self.fail(index, DeviceError::Os(errno)),
            }
            self.pending.pop_front();
        }
        true
    }

    /// Enters the driver: gives it what waits, takes what is done.
    fn turn(&mut self) {
        let link = Arc::clone(&self.link);
        let Some(mut pair) = link.enter() else { return };
        // Completions not looked at yet may be of writes.
        let unflushed = self.written > self.flushed || !self.completed.is_empty();
        if self.link.take_lost() && self.caps.volatile_cache && unflushed {
            self.medium.kill();
        }
        let idle = self.now < self.not_before || self.medium.is_dead();
        let well = (idle || self.hand_over(&mut pair)) && pair.poll(&mut self.completed);
        drop(pair);
        if !well {
            self.medium.controller.recover(&link);
        }
    }

    fn end(&mut self, index: u16, result: Result<(), DeviceError>, done: &mut Vec<Done>) {
        let slot = &mut self.slots[usize::from(index)];
        done.push(Done { token: slot.token, kind: slot.kind, result, buf: slot.buf.take() });
        self.free.push(index);
    }

    /// Ends an operation that waits, from where there is no list at hand.
    fn fail(&mut self, index: u16, error: DeviceError) {
        let mut ready = std::mem::take(&mut self.ready);
        self.end(index, Err(error), &mut ready);
        self.ready = ready;
    }

    fn complete(&mut self, completed: Completed, done: &mut Vec<Done>) {
        let index = completed.tag;
        self.sent -= 1;
        let slot = &mut self.slots[usize::from(index)];
        slot.buf = completed.buf;
        let verdict = match completed.status.map(verdict) {
            None => Verdict::Failed(DeviceError::Dead),
            Some(Verdict::Again) if slot.tries == TRIES_MAX => Verdict::Failed(DeviceError::Os(libc::EIO)),
            Some(verdict) => verdict,
        };
        if slot.kind == OpKind::Flush && !matches!(verdict, Verdict::Done | Verdict::Again) {
            self.medium.kill();
        }
        if self.medium.is_dead() {
            return self.end(index, Err(DeviceError::Dead), done);
        }
        let slot = &mut self.slots[usize::from(index)];
        match verdict {
            Verdict::Done => {
                slot.moved += slot.piece;
                if slot.moved < slot.len {
                    return self.pending.push_back(index);
                }
                if slot.kind == OpKind::Flush {
                    self.flushed = self.flushed.max(slot.covers);
                } else if slot.kind.changes() {
                    self.written += 1;
                }
                self.end(index, Ok(()), done);
            }
            Verdict::Again => {
                slot.tries += 1;
                // The first try after a break goes at once; a device that is not ready gets time.
                if slot.tries > 1 {
                    self.not_before = self.now.after_ms(BACKOFF_MS);
                }
                self.pending.push_back(index);
            }
            Verdict::Refused if slot.kind == OpKind::WriteZeroes && !slot.by_hand => {
                // Too long for this device, or not taken at all.
                let least = self.zero_bytes / self.caps.block_size;
                if slot.piece > u64::from(self.zero_bytes) {
                    self.zero_blocks = least;
                } else {
                    slot.by_hand = true;
                    self.zero_by_hand = true;
                }
                self.pending.push_back(index);
            }
            Verdict::Failed(error) => self.end(index, Err(error), done),
            Verdict::Refused => self.end(index, Err(DeviceError::Unsupported), done),
        }
    }
}

impl Queue for SpdkQueue {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    #[inline]
    fn submit(&mut self, op: Op) -> Result<(), Op> {
        check(&op, &self.caps);
        if self.inflight() >= self.caps.depth as usize {
            return Err(op);
        }
        let refused = if self.medium.is_dead() {
            Some(DeviceError::Dead)
        } else if (op.kind == OpKind::Discard && !self.caps.discard) || (self.caps.read_only && op.kind.changes()) {
            Some(DeviceError::Unsupported)
        } else {
            None
        };
        if let Some(error) = refused {
            self.ready.push(Done { token: op.token, kind: op.kind, result: Err(error), buf: op.buf });
            return Ok(());
        }
        let index = self.free.pop().expect("fewer under way than slots");
        self.slots[usize::from(index)] = Slot {
            buf: op.buf,
            token: op.token,
            offset: op.offset,
            len: op.len,
            moved: 0,
            piece: 0,
            covers: 0,
            at: op.at,
            kind: op.kind,
            by_hand: op.kind == OpKind::WriteZeroes && self.zero_by_hand,
            tries: 0,
        };
        self.pending.push_back(index);
        Ok(())
    }

    #[inline]
    fn kick(&mut self) {
        if !self.pending.is_empty() {
            self.turn();
        }
    }

    #[inline]
    fn poll(&mut self, now: Time, done: &mut Vec<Done>) -> usize {
        let start = done.len();
        self.now = now;
        self.caps.size = self.medium.size().max(self.caps.size);
        // What `kick` found on its way is told first.
        if self.sent != 0 && self.completed.is_empty() {
            self.turn();
        }
        let mut completed = std::mem::take(&mut self.completed);
        for entry in completed.drain(..) {
            self.complete(entry, done);
        }
        self.completed = completed;
        if self.medium.is_dead() {
            while let Some(index) = self.pending.pop_front() {
                self.end(index, Err(DeviceError::Dead), done);
            }
        }
        done.append(&mut self.ready);
        done.len() - start
    }

    fn inflight(&self) -> usize {
        self.slots.len() - self.free.len() + self.ready.len()
    }

    fn wake_at(&self) -> Option<Time> {
        // The driver says nothing unless it is asked: no sleep while anything is under way.
        (self.inflight() != 0).then_some(Time(0))
    }
}
