//! What a queue does when things go wrong: commands that fail or take too long, a controller that was reset or died.

use super::{Command, NvmeQueue, Patience, RETRIES_MAX, State, TOLD_MAX, Verdict, verdict};
use crate::base::Time;
use crate::device::nvme::ring::Entry;
use crate::device::nvme::shared::AbortOrder;
use crate::device::{DeviceError, Done, OpKind};
use crate::wire::nvme::{StatusCode, sc};

/// Commands under way are looked at this often within their timeout.
const LOOKS: u64 = 8;
/// A controller that passes a condition on (a path, a thermal limit) gets this long before the next try, ns.
const RETRY_NS: u64 = 10_000_000;

impl NvmeQueue {
    /// A command ended with an error.
    #[cold]
    pub(super) fn failed(&mut self, cid: u16, status: StatusCode, dnr: bool, now: Time, done: &mut Vec<Done>) {
        let command = self.commands[usize::from(cid)];
        let slot = &mut self.slots[usize::from(command.slot)];
        let kind = if command.by_hand { OpKind::Write } else { slot.kind };
        let judged = verdict(kind, status, dnr);
        if self.told < TOLD_MAX {
            self.told += 1;
            let (kind, offset, len) = (slot.kind.name(), slot.offset + command.from, command.len);
            tracing::warn!(kind, offset, len, ?status, dnr, ?judged, "NVMe command failed");
        }
        let error = match judged {
            Verdict::Retry if command.tries < RETRIES_MAX => {
                let again = &mut self.commands[usize::from(cid)];
                // An aborted try has taken its whole time.
                let cost = if status == sc::ABORT_REQUESTED { RETRIES_MAX / 2 } else { 1 };
                (again.state, again.tries, again.patience) = (State::Later, command.tries + cost, Patience::Since(now));
                self.later += 1;
                self.look_at = self.look_at.min(now.after_ns(RETRY_NS));
                return;
            }
            Verdict::Retry if slot.kind == OpKind::Flush => {
                self.terms.namespace.kill();
                DeviceError::Dead
            }
            // What was aborted again and again is slow, not broken.
            Verdict::Retry => DeviceError::Os(libc::ETIMEDOUT),
            Verdict::ByHand => return self.write_zeroes_by_hand(cid),
            Verdict::Fail(error) => error,
            Verdict::Dead => {
                self.terms.namespace.kill();
                DeviceError::Dead
            }
        };
        slot.error.get_or_insert(error);
        self.command_ended(cid, command.slot, done);
    }

    /// The controller refuses Write Zeroes: the command's part is written, in pieces of what a transfer may have, and so
    /// are all operations from now on.
    fn write_zeroes_by_hand(&mut self, cid: u16) {
        self.caps.write_zeroes = false;
        let Command { slot: index, from, .. } = self.commands[usize::from(cid)];
        self.commands[usize::from(cid)].state = State::Free;
        self.free_commands.push(cid);
        let slot = &mut self.slots[usize::from(index)];
        slot.pending -= 1;
        // From this part on everything is done again: zeroes twice are zeroes.
        slot.issued = slot.issued.min(from);
        slot.by_hand = true;
        if !slot.waits {
            self.wait(index);
        }
    }

    /// Puts an operation at the end of those that wait.
    pub(super) fn wait(&mut self, index: u16) {
        self.slots[usize::from(index)].waits = true;
        self.waiting.push(index).expect("as many places as operations");
    }

    /// The controller completed what is not under way: nothing it says can be believed.
    #[cold]
    pub(super) fn ghost(&mut self, entry: Entry) {
        if self.told < TOLD_MAX {
            self.told += 1;
            tracing::error!(?entry, "NVMe controller: completed a command that is not under way");
        }
        self.terms.shared.ask_reset();
    }

    /// A buffer that no registered arena holds.
    #[cold]
    pub(super) fn unreachable(&mut self) -> DeviceError {
        if self.told < TOLD_MAX {
            self.told += 1;
            tracing::error!("NVMe: a buffer outside the memory this queue was made with");
        }
        DeviceError::Os(libc::EFAULT)
    }

    /// Looks at all commands under way: which are to be submitted again, and which take too long.
    #[cold]
    pub(super) fn look(&mut self, now: Time, done: &mut Vec<Done>) {
        let timeout = self.terms.timeout_ns;
        self.look_at = now.after_ns((timeout / LOOKS).max(1));
        if !self.inside {
            return;
        }
        for cid in 0..self.commands.len() as u16 {
            let command = &mut self.commands[usize::from(cid)];
            match (command.state, command.patience) {
                (State::Later, Patience::Since(at)) if now < at.after_ns(RETRY_NS) => {
                    self.look_at = self.look_at.min(at.after_ns(RETRY_NS));
                }
                (State::Later, _) => self.resubmit(cid),
                (State::Flying, Patience::Fresh) => command.patience = Patience::Since(now),
                (State::Flying, Patience::Since(at)) if now.since(at) >= timeout => {
                    let order = AbortOrder { qid: self.pair.as_ref().expect("not dropped").qid, cid };
                    // No room: the next look asks again.
                    if self.terms.shared.aborts.push(order).is_ok() {
                        command.patience = Patience::Aborting(now);
                    }
                }
                // An abort that does nothing within half the time: only a reset is left.
                (State::Flying, Patience::Aborting(at)) if now.since(at) >= timeout / 2 => {
                    self.terms.shared.ask_reset();
                }
                (State::Free | State::Flying, _) => {}
            }
        }
        if self.inside {
            self.issue_waiting(done);
            self.pair().ring.tell();
        }
    }

    /// Submits a command once more.
    fn resubmit(&mut self, cid: u16) {
        self.later -= 1;
        let command = &mut self.commands[usize::from(cid)];
        (command.state, command.patience) = (State::Flying, Patience::Fresh);
        self.push(cid);
    }

    /// The controller was reset: what it had is submitted again. Reading, writing and zeroing a range a second time gives
    /// what the first time would have given, since nobody was told yet; so do flushing and discarding.
    #[cold]
    pub(super) fn submit_again(&mut self) {
        self.pair().ring.restart();
        for cid in 0..self.commands.len() as u16 {
            let command = &mut self.commands[usize::from(cid)];
            if command.state == State::Flying {
                command.patience = Patience::Fresh;
                self.push(cid);
            }
        }
        self.pair().ring.tell();
    }

    /// The controller is dead, and cut off from memory: every operation ends.
    #[cold]
    pub(super) fn fail_all(&mut self) {
        if self.free_slots.len() == self.slots.len() {
            return;
        }
        while self.waiting.pop().is_some() {}
        for (cid, command) in self.commands.iter_mut().enumerate() {
            if command.state != State::Free {
                command.state = State::Free;
                self.free_commands.push(cid as u16);
            }
        }
        self.later = 0;
        for index in 0..self.slots.len() as u16 {
            if self.free_slots.contains(&index) {
                continue;
            }
            let slot = &mut self.slots[usize::from(index)];
            let result = Err(DeviceError::Dead);
            self.ready.push(Done { token: slot.token, kind: slot.kind, result, buf: slot.buf.take() });
        }
        self.free_slots.clear();
        self.free_slots.extend((0..self.slots.len() as u16).rev());
    }
}
