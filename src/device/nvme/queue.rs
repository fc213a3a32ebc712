//! One core's queue to a namespace: operations become commands on this core's queue pair, split where they are larger than
//! a command may be; completions become ends of operations. The core's only shared state is read-mostly atomics.
//!
//! What stays true: the buffer of an operation sits in its slot from `submit` until every command on it has ended or
//! the controller can no longer reach memory; at most `entries - 1` commands are under way; nothing is allocated after
//! `new`. A controller that answers what was not asked is reset, never believed.

mod recover;

use super::Controller;
use super::dma::Windows;
use super::facts::Limits;
use super::gate::Way;
use super::prp::{self, List};
use super::ring::Entry;
use super::shared::{Namespace, Pair, Shared};
use super::status::{Verdict, verdict};
use crate::base::Time;
use crate::base::ring::Ring as Fifo;
use crate::device::{Caps, DeviceError, Done, Op, OpKind, Queue, check};
use crate::mem::Buf;
use crate::wire::nvme::{StatusCode, io_op};
use std::sync::Arc;

/// Times a command is submitted again after a condition that passes.
const RETRIES_MAX: u8 = 8;
/// Failed commands that a queue tells the log of; the controller keeps its own.
const TOLD_MAX: u32 = 16;
/// Write Zeroes: DEAC, in dword 12.
const DEALLOCATE: u64 = 1 << 25;
/// Dataset Management: AD, in dword 11.
const ATTRIBUTE_DEALLOCATE: u64 = 1 << 2;

/// An operation.
#[derive(Debug)]
struct Slot {
    buf: Option<Buf>,
    /// Address of its data in this process.
    data: usize,
    token: u64,
    offset: u64,
    len: u64,
    /// Bytes that commands were made for.
    issued: u64,
    /// Commands under way.
    pending: u32,
    /// The window its data is in.
    window: u16,
    kind: OpKind,
    /// It stands in `waiting`.
    waits: bool,
    /// Zeroes are written.
    by_hand: bool,
    error: Option<DeviceError>,
}

/// Where a command is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    /// With the controller.
    Flying,
    /// To be submitted again.
    Later,
}

/// How far waiting for a command has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Patience {
    /// Nobody has looked at it yet.
    Fresh,
    /// Seen first at this time.
    Since(Time),
    /// Asked to be aborted at this time.
    Aborting(Time),
}

/// A command; its number is its identifier.
#[derive(Clone, Copy, Debug)]
struct Command {
    slot: u16,
    state: State,
    /// Zeroes are written by this command.
    by_hand: bool,
    tries: u8,
    patience: Patience,
    /// Which part of the operation, bytes.
    from: u64,
    len: u64,
}

/// What a queue needs to know of its namespace and controller.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The controller's state.
    pub shared: Arc<Shared>,
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// Bytes per command.
    pub limits: Limits,
    /// Use SGLs where they help.
    pub sgl: bool,
    /// Write Zeroes may deallocate.
    pub deallocate: bool,
    /// A command older than this is aborted, ns.
    pub timeout_ns: u64,
    /// Commands under way at most, where the controller names a number.
    pub commands_max: Option<u16>,
}

/// One core's queue to a namespace.
#[derive(Debug)]
pub struct NvmeQueue {
    /// `None` only while it is dropped.
    pair: Option<Pair>,
    terms: Terms,
    windows: Windows,
    caps: Caps,
    slots: Vec<Slot>,
    free_slots: Vec<u16>,
    commands: Vec<Command>,
    free_commands: Vec<u16>,
    /// Operations with commands still to be made, oldest first.
    waiting: Fifo<u16>,
    /// Operations that ended without the controller.
    ready: Vec<Done>,
    /// The seat is taken: the rings may be touched.
    inside: bool,
    /// Commands in state `Later`.
    later: u32,
    /// When the commands under way are looked at next.
    look_at: Time,
    told: u32,
    /// Operations completed, by kind.
    counts: [u64; 5],
    /// Keeps the controller up; none when it is made of software.
    controller: Option<Arc<Controller>>,
}

impl NvmeQueue {
    /// A queue on `pair` of as many operations as `caps` says, with buffers from `windows`.
    pub fn new(pair: Pair, terms: Terms, windows: Windows, caps: Caps) -> NvmeQueue {
        let depth = caps.depth as usize;
        let entries = pair.ring.entries();
        let commands = usize::from(terms.commands_max.unwrap_or(u16::MAX).min(entries - 1));
        let slot = |_| Slot {
            buf: None,
            data: 0,
            token: 0,
            offset: 0,
            len: 0,
            issued: 0,
            pending: 0,
            window: 0,
            kind: OpKind::Flush,
            waits: false,
            by_hand: false,
            error: None,
        };
        let free = Command {
            slot: 0,
            state: State::Free,
            by_hand: false,
            tries: 0,
            patience: Patience::Fresh,
            from: 0,
            len: 0,
        };
        NvmeQueue {
            pair: Some(pair),
            terms,
            windows,
            caps,
            slots: (0..depth).map(slot).collect(),
            free_slots: (0..depth as u16).rev().collect(),
            commands: vec![free; commands],
            free_commands: (0..commands as u16).rev().collect(),
            waiting: Fifo::new(depth),
            ready: Vec::with_capacity(depth),
            inside: false,
            later: 0,
            look_at: Time(0),
            told: 0,
            counts: [0; 5],
            controller: None,
        }
    }

    /// Keeps `controller` from being shut down while this queue is there.
    #[must_use]
    pub(super) fn keeping(mut self, controller: Arc<Controller>) -> NvmeQueue {
        self.controller = Some(controller);
        self
    }

    #[inline]
    fn pair(&mut self) -> &mut Pair {
        self.pair.as_mut().expect("there until it is dropped")
    }

    /// Commands with the controller or to be submitted again.
    #[inline]
    fn under_way(&self) -> usize {
        self.commands.len() - self.free_commands.len()
    }

    /// True when the rings may be touched now.
    #[inline]
    fn enter(&mut self) -> bool {
        let life = self.pair().life;
        if self.inside && self.terms.shared.gate.still(life) {
            return true;
        }
        self.enter_slowly()
    }

    #[cold]
    fn enter_slowly(&mut self) -> bool {
        let pair = self.pair.as_mut().expect("there until it is dropped");
        if self.inside {
            pair.seat.leave();
            self.inside = false;
        }
        match self.terms.shared.gate.enter(&pair.seat) {
            Way::Open(life) => {
                self.inside = true;
                if pair.life != life {
                    pair.life = life;
                    self.submit_again();
                }
                true
            }
            Way::Closed => false,
            Way::Dead => {
                self.fail_all();
                false
            }
        }
    }

    /// Leaves the seat when there is nothing under way, so that a reset need not wait for this core.
    #[inline]
    fn leave_when_idle(&mut self) {
        if self.under_way() == 0 && self.waiting.is_empty() {
            self.pair().seat.leave();
            self.inside = false;
        }
    }

    /// Bytes per command of an operation.
    #[inline]
    fn piece_max(&self, kind: OpKind, by_hand: bool) -> u64 {
        match kind {
            OpKind::WriteZeroes if !by_hand => self.terms.limits.zeroes,
            OpKind::Discard => self.terms.limits.discard,
            _ => self.terms.limits.transfer,
        }
    }

    /// Makes commands for what is left of an operation, as many as there are free; true when none is left to make.
    #[inline]
    fn issue(&mut self, index: u16) -> bool {
        loop {
            let slot = &self.slots[usize::from(index)];
            let (from, left) = (slot.issued, slot.len - slot.issued);
            let len = left.min(self.piece_max(slot.kind, slot.by_hand));
            let Some(cid) = self.free_commands.pop() else { return false };
            let slot = &mut self.slots[usize::from(index)];
            slot.issued += len;
            slot.pending += 1;
            let (by_hand, state, patience) = (slot.by_hand, State::Flying, Patience::Fresh);
            self.commands[usize::from(cid)] = Command { slot: index, state, by_hand, tries: 0, patience, from, len };
            self.push(cid);
            if len == left {
                return true;
            }
        }
    }

    /// Writes a command to the submission queue.
    #[inline]
    fn push(&mut self, cid: u16) {
        let pair = self.pair.as_mut().expect("there until it is dropped");
        let command = self.commands[usize::from(cid)];
        let slot = &self.slots[usize::from(command.slot)];
        let shift = self.terms.namespace.block_shift;
        let lba = (slot.offset + command.from) >> shift;
        // NLB, 0's based; a flush has none.
        let blocks = (command.len >> shift).wrapping_sub(1);
        let list = List { block: &pair.lists, at: usize::from(cid) * pair.list_bytes };
        let (opcode, words) = match slot.kind {
            OpKind::Read | OpKind::Write => {
                let window = self.windows.get(slot.window);
                let at = slot.data + command.from as usize;
                let pointer = prp::pointer(window, at, command.len as usize, self.terms.sgl, list);
                let opcode = if slot.kind == OpKind::Read { io_op::READ } else { io_op::WRITE };
                (opcode, (pointer.words(), lba, blocks))
            }
            OpKind::WriteZeroes if command.by_hand => {
                let pointer = prp::zeroes(self.terms.shared.zeroes.iova(), command.len as usize, list);
                (io_op::WRITE, (pointer.words(), lba, blocks))
            }
            OpKind::WriteZeroes => {
                let deallocate = if self.terms.deallocate { DEALLOCATE } else { 0 };
                (io_op::WRITE_ZEROES, ((0, 0, 0), lba, blocks | deallocate))
            }
            OpKind::Discard => {
                // One range: context attributes, length, first block.
                list.block.write64(list.at, (blocks + 1) << 32);
                list.block.write64(list.at + 8, lba);
                (io_op::DSM, ((0, list.iova(), 0), ATTRIBUTE_DEALLOCATE << 32, 0))
            }
            OpKind::Flush => (io_op::FLUSH, ((0, 0, 0), 0, 0)),
        };
        let ((psdt, first, second), dwords_10_11, dword_12) = words;
        let nsid = u64::from(self.terms.namespace.nsid);
        let head = u64::from(opcode) | u64::from(psdt) << 8 | u64::from(cid) << 16 | nsid << 32;
        pair.ring.push(&[head, 0, 0, first, second, dwords_10_11, dword_12, 0]);
    }

    /// Makes commands for operations that wait.
    #[cold]
    fn issue_waiting(&mut self, done: &mut Vec<Done>) {
        while let Some(index) = self.waiting.front().copied() {
            // After a failure the rest is not worth starting.
            let failed = self.slots[usize::from(index)].error.is_some();
            if !failed && !self.issue(index) {
                return;
            }
            self.waiting.pop();
            let slot = &mut self.slots[usize::from(index)];
            slot.waits = false;
            if slot.pending == 0 {
                self.end(index, done);
            }
        }
    }

    /// A completion queue entry.
    #[inline]
    fn complete(&mut self, entry: Entry, now: Time, done: &mut Vec<Done>) {
        let Some(command) = self.commands.get(usize::from(entry.cid)).filter(|c| c.state == State::Flying) else {
            return self.ghost(entry);
        };
        let index = command.slot;
        let status = StatusCode::from_field(entry.status);
        if !status.is_ok() {
            return self.failed(entry.cid, status, entry.status >> 15 == 1, now, done);
        }
        self.command_ended(entry.cid, index, done);
    }

    #[inline]
    fn command_ended(&mut self, cid: u16, index: u16, done: &mut Vec<Done>) {
        self.commands[usize::from(cid)].state = State::Free;
        self.free_commands.push(cid);
        let slot = &mut self.slots[usize::from(index)];
        slot.pending -= 1;
        if slot.pending == 0 && !slot.waits {
            self.end(index, done);
        }
    }

    /// An operation ended: no command of it is left.
    #[inline]
    fn end(&mut self, index: u16, done: &mut Vec<Done>) {
        let dead = self.terms.namespace.is_dead();
        let slot = &mut self.slots[usize::from(index)];
        let result = match slot.error.take() {
            // After a failed flush nothing may be acknowledged any more.
            _ if dead => Err(DeviceError::Dead),
            Some(error) => Err(error),
            None => Ok(()),
        };
        self.counts[slot.kind as usize] += 1;
        done.push(Done { token: slot.token, kind: slot.kind, result, buf: slot.buf.take() });
        self.free_slots.push(index);
    }

    /// Why an operation can not go to the controller, or that it need not.
    #[inline]
    fn settle(&self, op: &Op, open: bool) -> Option<Result<(), DeviceError>> {
        if self.terms.namespace.is_dead() || (!open && self.terms.shared.gate.is_dead()) {
            return Some(Err(DeviceError::Dead));
        }
        match op.kind {
            OpKind::Discard if !self.caps.discard => Some(Err(DeviceError::Unsupported)),
            kind if self.caps.read_only && kind.changes() => Some(Err(DeviceError::Unsupported)),
            // Without a volatile cache every completed write is durable already.
            OpKind::Flush if !self.caps.volatile_cache => Some(Ok(())),
            _ => None,
        }
    }
}

impl Queue for NvmeQueue {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    #[inline]
    fn submit(&mut self, op: Op) -> Result<(), Op> {
        check(&op, &self.caps);
        if self.inflight() >= self.caps.depth as usize {
            return Err(op);
        }
        let open = self.enter();
        let mut settled = self.settle(&op, open);
        let (mut data, mut window) = (0, 0);
        if let (None, Some(buf)) = (settled, &op.buf) {
            data = buf.as_ptr() as usize + op.at as usize;
            match self.windows.find(data, op.len as usize) {
                Some(number) => window = number,
                None => settled = Some(Err(self.unreachable())),
            }
        }
        if let Some(result) = settled {
            self.ready.push(Done { token: op.token, kind: op.kind, result, buf: op.buf });
            return Ok(());
        }
        let index = self.free_slots.pop().expect("fewer under way than slots");
        self.slots[usize::from(index)] = Slot {
            buf: op.buf,
            data,
            token: op.token,
            offset: op.offset,
            len: op.len,
            issued: 0,
            pending: 0,
            window,
            kind: op.kind,
            waits: false,
            by_hand: op.kind == OpKind::WriteZeroes && !self.caps.write_zeroes,
            error: None,
        };
        // Those that wait go first.
        if !open || !self.waiting.is_empty() || !self.issue(index) {
            self.wait(index);
        }
        Ok(())
    }

    #[inline]
    fn kick(&mut self) {
        if self.inside && self.enter() {
            self.pair().ring.tell();
        }
    }

    #[inline]
    fn poll(&mut self, now: Time, done: &mut Vec<Done>) -> usize {
        let start = done.len();
        self.caps.size = self.terms.namespace.size();
        if self.under_way() != 0 || !self.waiting.is_empty() {
            if self.enter() {
                while let Some(entry) = self.pair().ring.pop() {
                    self.complete(entry, now, done);
                }
                if !self.waiting.is_empty() {
                    self.issue_waiting(done);
                }
                self.pair().ring.tell();
            }
            if now >= self.look_at {
                self.look(now, done);
            }
        }
        if self.inside {
            self.leave_when_idle();
        }
        if !self.ready.is_empty() {
            done.append(&mut self.ready);
        }
        done.len() - start
    }

    #[inline]
    fn inflight(&self) -> usize {
        self.slots.len() - self.free_slots.len() + self.ready.len()
    }

    fn wake_at(&self) -> Option<Time> {
        // Nothing interrupts: what is under way is found by polling only.
        (self.inflight() != 0).then_some(Time(0))
    }
}

impl Drop for NvmeQueue {
    fn drop(&mut self) {
        let Some(pair) = self.pair.take() else { return };
        pair.seat.leave();
        let shared = &self.terms.shared;
        shared.totals.add(&self.counts);
        // Commands under way may still move data: their buffers stay mapped (arenas are for ever), and the controller gives the
        // queue up before it is used again.
        if self.under_way() == 0 { shared.put_pair(pair) } else { shared.abandon_pair(pair) }
    }
}
