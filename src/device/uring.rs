//! A file or block device through `io_uring`: one queue per core, owned by it. Operations are written to the ring in
//! `submit`, handed over by one system call in `kick`, and completed in `poll`, where short transfers go on and what
//! the device can not do natively is done by hand.
//!
//! The `unsafe` of this file hands buffer addresses to the kernel. What stays true: the buffer of an operation sits in
//! its slot, untouched, from `submit` until the kernel's last completion for it; and arenas are never unmapped, so
//! even a queue dropped with operations under way leaves the kernel valid memory.

mod errno;
mod ring;

use super::file::{FileMedium, Zeroing};
use super::{Caps, DeviceError, Done, Op, OpKind, OpenError, Queue, check};
use crate::base::Time;
use crate::mem::{Buf, Span, zeroes};
use io_uring::{opcode, squeue, types};
use ring::{Cqe, Ring};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The registered file that transfers and flushes use: this queue's own description.
const FILE: types::Fixed = types::Fixed(0);
/// The registered file that holds the lock. On a block device it alone holds the exclusive claim, and zeroing or
/// discarding through any other description may end with `EBUSY`: the kernel then takes cached pages for somebody
/// else's.
const CLAIM: types::Fixed = types::Fixed(1);
/// Times an operation is tried again when the kernel was out of resources.
const RETRIES_MAX: u8 = 200;
/// Completions taken from a ring at a time.
const REAP: usize = 64;

/// Queues of this process whose buffers could not be registered.
static UNREGISTERED: AtomicU64 = AtomicU64::new(0);

/// Queues of this process that work without registered buffers, because the memlock limit is too small for them.
pub fn unregistered_queues() -> u64 {
    UNREGISTERED.load(Ordering::Relaxed)
}

/// How far a Write Zeroes or Discard is; transfers and flushes are always at `Main`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The operation itself.
    Main,
    /// Zeroes are written piece by piece.
    ByHand,
    /// The zeroed range is made durable, where every write promises to be.
    Sync,
}

/// One operation under way.
#[derive(Debug)]
struct Slot {
    buf: Option<Buf>,
    token: u64,
    offset: u64,
    len: u64,
    /// Bytes done.
    moved: u64,
    at: u32,
    kind: OpKind,
    stage: Stage,
    retries: u8,
}

/// One core's queue to a file or block device.
pub struct UringQueue {
    ring: Ring,
    /// What a polled ring can not do: flush, zero, discard.
    side: Option<Ring>,
    medium: Arc<FileMedium>,
    caps: Caps,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Operations that ended without the kernel.
    ready: Vec<Done>,
    zeroing: Zeroing,
    /// Where completions land before they are looked at one by one.
    cqes: Box<[Cqe; REAP]>,
    _file: File,
}

impl std::fmt::Debug for UringQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringQueue")
            .field("path", &self.medium.path())
            .field("inflight", &self.inflight())
            .finish_non_exhaustive()
    }
}

impl UringQueue {
    /// A queue of at most `depth` operations, with the arenas of `spans` registered where the system lets us.
    pub fn new(medium: Arc<FileMedium>, depth: u32, spans: &[Span]) -> Result<UringQueue, OpenError> {
        let file = medium.reopen()?;
        let polled = medium.may_poll();
        let set_up = || {
            let ring = UringQueue::ring(&medium, &file, depth, spans, polled)?;
            // The side ring moves no buffers.
            let side = if polled { Some(UringQueue::ring(&medium, &file, depth, &[], false)?) } else { None };
            Ok((ring, side))
        };
        let (ring, side) = set_up().map_err(OpenError::Ring)?;
        tracing::debug!(path = %medium.path().display(), tier = ?ring.tier(), polled, buffers = ring.has_spans(), "queue");
        let caps = medium.caps(depth);
        let zeroing = medium.zeroing();
        let vacant = |_| Slot {
            buf: None,
            token: 0,
            offset: 0,
            len: 0,
            moved: 0,
            at: 0,
            kind: OpKind::Flush,
            stage: Stage::Main,
            retries: 0,
        };
        let slots = (0..depth).map(vacant).collect();
        let free = (0..depth as u16).rev().collect();
        let ready = Vec::with_capacity(depth as usize);
        Ok(UringQueue {
            ring,
            side,
            medium,
            caps,
            slots,
            free,
            ready,
            zeroing,
            cqes: Box::new([(0, 0); REAP]),
            _file: file,
        })
    }

    fn ring(medium: &FileMedium, file: &File, depth: u32, spans: &[Span], polled: bool) -> io::Result<Ring> {
        let mut ring = Ring::new(depth, polled)?;
        ring.register_files(&[file, medium.lock()])?;
        if let Err(error) = ring.register_spans(spans)
            && UNREGISTERED.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!(
                %error,
                "the kernel does not let buffers be registered: each transfer costs a little more; raise the memlock \
                 limit (ulimit -l) above the size of the buffers"
            );
        }
        Ok(ring)
    }

    /// Hands the next part of a slot's operation to its ring.
    fn push(&mut self, index: u16) {
        let slot = &mut self.slots[usize::from(index)];
        let left = slot.len - slot.moved;
        let at = slot.offset + slot.moved;
        let transfer = matches!(slot.kind, OpKind::Read | OpKind::Write) || slot.stage == Stage::ByHand;
        let entry = match (slot.stage, slot.kind) {
            (Stage::Main, OpKind::Read | OpKind::Write) => {
                let buf = slot.buf.as_mut().expect("a transfer has a buffer");
                let memory = buf[slot.at as usize..][slot.moved as usize..slot.len as usize].as_mut_ptr();
                let registered = self.ring.registered(memory, left as usize);
                transfer_entry(slot.kind, memory, left as u32, registered, at)
            }
            (Stage::ByHand, _) => {
                let zeroes = zeroes();
                opcode::Write::new(FILE, zeroes.as_ptr(), left.min(zeroes.len() as u64) as u32).offset(at).build()
            }
            (Stage::Main, OpKind::WriteZeroes) => {
                let mode = if self.zeroing == Zeroing::Punch { PUNCH } else { libc::FALLOC_FL_ZERO_RANGE | KEEP };
                opcode::Fallocate::new(CLAIM, left).offset(at).mode(mode).build()
            }
            (Stage::Main, OpKind::Discard) => opcode::Fallocate::new(CLAIM, left).offset(at).mode(PUNCH).build(),
            (Stage::Main, OpKind::Flush) | (Stage::Sync, _) => {
                opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build()
            }
        };
        let entry = entry.user_data(u64::from(index));
        let ring = match &mut self.side {
            Some(side) if !transfer => side,
            _ => &mut self.ring,
        };
        // SAFETY: the memory of a transfer is its slot's buffer, or the zeroes that live for ever; see the head of
        // this file.
        unsafe { ring.push(&entry) };
    }

    fn end(&mut self, index: u16, result: Result<(), DeviceError>, done: &mut Vec<Done>) {
        let slot = &mut self.slots[usize::from(index)];
        // After a failed flush nothing may be acknowledged any more, whatever the kernel says of it.
        let result = if self.medium.is_dead() { Err(DeviceError::Dead) } else { result };
        done.push(Done { token: slot.token, kind: slot.kind, result, buf: slot.buf.take() });
        self.free.push(index);
    }

    /// Completes the first `n` of `cqes`.
    #[inline]
    fn complete_all(&mut self, n: usize, done: &mut Vec<Done>) {
        for i in 0..n {
            let (index, result) = self.cqes[i];
            self.complete(index as u16, result, done);
        }
    }

    /// What the kernel's answer `result` to a slot's submission means.
    fn complete(&mut self, index: u16, result: i32, done: &mut Vec<Done>) {
        let slot = &mut self.slots[usize::from(index)];
        let sync = slot.stage == Stage::Sync || slot.kind == OpKind::Flush;
        if sync {
            if result < 0 {
                self.medium.kill();
            }
            return self.end(index, Ok(()), done);
        }
        if matches!(-result, libc::EAGAIN | libc::EINTR) && slot.retries < RETRIES_MAX {
            slot.retries += 1;
            return self.push(index);
        }
        match (slot.stage, slot.kind) {
            (Stage::ByHand, _) | (_, OpKind::Read | OpKind::Write) => self.moved(index, result, done),
            (_, OpKind::WriteZeroes) if matches!(-result, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {
                self.zeroing = Zeroing::Write;
                slot.stage = Stage::ByHand;
                self.push(index);
            }
            (_, OpKind::WriteZeroes) if result >= 0 => self.zeroed(index, done),
            _ if result >= 0 => self.end(index, Ok(()), done),
            _ => self.fail(index, -result, done),
        }
    }

    /// `result` bytes of a transfer were moved, or it failed.
    fn moved(&mut self, index: u16, result: i32, done: &mut Vec<Done>) {
        let slot = &mut self.slots[usize::from(index)];
        if result < 0 {
            return self.fail(index, -result, done);
        }
        // Direct I/O goes on at a block border only; a part of a block is moved again.
        let moved = result as u64 / u64::from(self.caps.block_size) * u64::from(self.caps.block_size);
        slot.moved += moved;
        if slot.moved == slot.len {
            return match slot.stage {
                Stage::ByHand => self.zeroed(index, done),
                _ => self.end(index, Ok(()), done),
            };
        }
        if moved == 0 {
            // The medium ends here (a truncated file), or moves less than a block each time.
            slot.retries = if result == 0 { RETRIES_MAX } else { slot.retries + 1 };
            if slot.retries >= RETRIES_MAX {
                return self.end(index, Err(DeviceError::Media), done);
            }
        }
        self.push(index);
    }

    /// A range reads as zeroes; where completion promises durability, it is still to be kept.
    fn zeroed(&mut self, index: u16, done: &mut Vec<Done>) {
        let slot = &mut self.slots[usize::from(index)];
        if self.medium.is_dsync() && slot.stage == Stage::Main {
            slot.stage = Stage::Sync;
            return self.push(index);
        }
        self.end(index, Ok(()), done);
    }

    fn fail(&mut self, index: u16, errno: i32, done: &mut Vec<Done>) {
        let error = errno::device_error(errno);
        if error == DeviceError::Dead {
            self.medium.kill();
        }
        self.end(index, Err(error), done);
    }
}

/// `FALLOC_FL_KEEP_SIZE`: the file stays as long as it is.
const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
/// Gives the range's space back; it reads as zeroes then.
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;

#[inline]
fn transfer_entry(kind: OpKind, memory: *mut u8, len: u32, registered: Option<u16>, at: u64) -> squeue::Entry {
    match (kind, registered) {
        (OpKind::Read, Some(i)) => opcode::ReadFixed::new(FILE, memory, len, i).offset(at).build(),
        (OpKind::Read, None) => opcode::Read::new(FILE, memory, len).offset(at).build(),
        (_, Some(i)) => opcode::WriteFixed::new(FILE, memory, len, i).offset(at).build(),
        (_, None) => opcode::Write::new(FILE, memory, len).offset(at).build(),
    }
}

impl Queue for UringQueue {
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
        let by_hand = op.kind == OpKind::WriteZeroes && self.zeroing == Zeroing::Write;
        let index = self.free.pop().expect("fewer under way than slots");
        self.slots[usize::from(index)] = Slot {
            buf: op.buf,
            token: op.token,
            offset: op.offset,
            len: op.len,
            moved: 0,
            at: op.at,
            kind: op.kind,
            stage: if by_hand { Stage::ByHand } else { Stage::Main },
            retries: 0,
        };
        self.push(index);
        Ok(())
    }

    #[inline]
    fn kick(&mut self) {
        self.ring.kick();
        if let Some(side) = &mut self.side {
            side.kick();
        }
    }

    #[inline]
    fn poll(&mut self, _now: Time, done: &mut Vec<Done>) -> usize {
        let start = done.len();
        self.caps.size = self.medium.size();
        done.append(&mut self.ready);
        while self.ring.inflight() != 0 {
            let n = self.ring.reap(&mut self.cqes[..]);
            self.complete_all(n, done);
            if n < REAP {
                break;
            }
        }
        if let Some(side) = &mut self.side {
            let n = side.reap(&mut self.cqes[..]);
            self.complete_all(n, done);
        }
        done.len() - start
    }

    fn inflight(&self) -> usize {
        self.slots.len() - self.free.len() + self.ready.len()
    }

    fn wake_at(&self) -> Option<Time> {
        // A polled device completes only while it is polled: no sleep before it has.
        let polling = self.ring.is_polled() && self.ring.inflight() != 0;
        (polling || !self.ready.is_empty()).then_some(Time(0))
    }

    fn wait_fd(&self) -> Option<i32> {
        self.side.as_ref().unwrap_or(&self.ring).bell()
    }
}

#[cfg(test)]
mod tests;
