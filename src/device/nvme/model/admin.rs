//! The model's admin commands.

use super::{Completion, Model, Submission};
use crate::wire::nvme::admin::{Abort, Feature, GetLogPage, Identify};
use crate::wire::nvme::feature::{Event, fid, queue_counts, queue_counts_dword};
use crate::wire::nvme::identify::{self, cns};
use crate::wire::nvme::log::{ErrorEntry, Smart, lid};
use crate::wire::nvme::{Sqe, StatusCode, admin_op, put_ascii, sc};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromZeros, IntoBytes};

/// Invalid Queue Size; Completion Queue Invalid.
const QUEUE_SIZE: StatusCode = StatusCode::new(1, 2);
const NO_COMPLETION_QUEUE: StatusCode = StatusCode::new(1, 0);
/// Asynchronous Event Requests it takes.
const EVENTS: usize = 4;

impl Model {
    pub(super) fn admin_command(&mut self, sqe: &Sqe) {
        let cid = sqe.cid.get();
        assert_eq!(sqe.psdt(), 0, "admin commands use PRPs");
        let answer = match sqe.opcode {
            admin_op::IDENTIFY => self.identify(sqe).map(|()| 0),
            admin_op::SET_FEATURES => self.set_features(sqe),
            admin_op::CREATE_IO_CQ => self.create_cq(sqe).map(|()| 0),
            admin_op::CREATE_IO_SQ => self.create_sq(sqe).map(|()| 0),
            admin_op::DELETE_IO_SQ => self.delete_sq(sqe.cdw10.get() as u16).map(|()| 0),
            admin_op::DELETE_IO_CQ => self.delete_cq(sqe.cdw10.get() as u16).map(|()| 0),
            admin_op::ABORT => Ok(self.abort(Abort::of(sqe))),
            admin_op::GET_LOG_PAGE => self.log_page(sqe).map(|()| 0),
            admin_op::ASYNC_EVENT if self.waiting_events.len() >= EVENTS => Err(sc::AER_LIMIT),
            admin_op::ASYNC_EVENT => {
                assert!(!self.waiting_events.contains(&cid), "an identifier used twice");
                self.waiting_events.push_back(cid);
                return;
            }
            0x7c if self.traits.shadow => {
                self.shadow = Some((sqe.sgl.address.get(), second(sqe)));
                Ok(0)
            }
            _ => Err(sc::INVALID_OPCODE),
        };
        match answer {
            Ok(result) => self.post(0, cid, 0, result),
            Err(status) => self.post(0, cid, status.field(true), 0),
        }
    }

    /// Tells the host of an event; `false` when no request waits.
    pub fn event(&mut self, event: Event) -> bool {
        let Some(cid) = self.waiting_events.pop_front() else { return false };
        self.post(0, cid, 0, event.dword());
        true
    }

    fn give(&self, sqe: &Sqe, data: &[u8]) -> Result<(), StatusCode> {
        let (first, second) = (sqe.sgl.address.get(), second(sqe));
        let head = data.len().min(4096 - (first % 4096) as usize);
        let fits = self.dma.device_writes(first, &data[..head])
            && (head == data.len() || self.dma.device_writes(second, &data[head..]));
        if fits { Ok(()) } else { Err(sc::DATA_TRANSFER_ERROR) }
    }

    fn identify(&mut self, sqe: &Sqe) -> Result<(), StatusCode> {
        let asked = Identify::of(sqe);
        let t = &self.traits;
        match asked.cns {
            cns::CONTROLLER => {
                let mut id = identify::Controller::new_zeroed();
                put_ascii(&mut id.serial, t.serial);
                put_ascii(&mut id.model, "Software");
                put_ascii(&mut id.firmware, "1");
                id.mdts = t.mdts;
                id.aerl = EVENTS as u8 - 1;
                id.oacs = U16::new(u16::from(t.shadow) << 8);
                id.oncs = U16::new(u16::from(t.discard) << 2 | u16::from(t.write_zeroes) << 3);
                id.sgls = U32::new(u32::from(t.sgl));
                id.vwc = u8::from(t.volatile_cache);
                id.nn = U32::new(t.namespaces);
                id.oaes = U32::new(1 << 8);
                self.give(sqe, id.as_bytes())
            }
            cns::NAMESPACE if (1..=t.namespaces).contains(&asked.nsid) => {
                let mut id = identify::Namespace::new_zeroed();
                (id.nsze, id.ncap) = (U64::new(t.blocks), U64::new(t.blocks));
                id.lbaf[0].data_shift = t.block_shift;
                id.lbaf[0].metadata = U16::new(t.metadata);
                id.dlfeat = t.dlfeat;
                self.give(sqe, id.as_bytes())
            }
            cns::NAMESPACE => Err(sc::INVALID_NAMESPACE),
            cns::ACTIVE_LIST => {
                let mut list = identify::NamespaceList::new_zeroed();
                (1..=t.namespaces).for_each(|n| list.nsids[n as usize - 1] = U32::new(n));
                self.give(sqe, list.as_bytes())
            }
            cns::CONTROLLER_CSI if t.version >> 16 >= 2 => {
                self.give(sqe, identify::NvmController::new_zeroed().as_bytes())
            }
            _ => Err(sc::INVALID_FIELD),
        }
    }

    fn set_features(&mut self, sqe: &Sqe) -> Result<u32, StatusCode> {
        let feature = Feature::of(sqe);
        match feature.fid {
            // 5.27.1.5: only before queues are made.
            fid::QUEUES if self.sqs.len() > 1 => Err(sc::SEQUENCE_ERROR),
            fid::QUEUES => {
                let (submission, completion) = queue_counts(feature.value);
                assert_eq!(submission, completion, "pairs");
                self.granted = submission.min(u32::from(self.traits.queues)) as u16;
                Ok(queue_counts_dword(u32::from(self.traits.queues), u32::from(self.traits.queues)))
            }
            fid::EVENT_CONFIG => Ok(0),
            _ => Err(sc::INVALID_FIELD),
        }
    }

    fn size(&self, sqe: &Sqe) -> Result<(u16, u16), StatusCode> {
        let dword = sqe.cdw10.get();
        let (qid, size) = (dword as u16, (dword >> 16) + 1);
        if qid == 0 || qid > self.granted {
            return Err(sc::INVALID_QUEUE_ID);
        }
        if size < 2 || size > self.traits.entries_max {
            return Err(QUEUE_SIZE);
        }
        // PC, and on a page.
        if sqe.cdw11.get() & 1 == 0 || !sqe.sgl.address.get().is_multiple_of(4096) {
            return Err(sc::INVALID_FIELD);
        }
        Ok((qid, size as u16))
    }

    fn create_cq(&mut self, sqe: &Sqe) -> Result<(), StatusCode> {
        let (qid, size) = self.size(sqe)?;
        if self.cqs.contains_key(&qid) {
            return Err(sc::INVALID_QUEUE_ID);
        }
        let cq = Completion { base: sqe.sgl.address.get(), size, tail: 0, head: 0, phase: 1 };
        self.cqs.insert(qid, cq);
        Ok(())
    }

    fn create_sq(&mut self, sqe: &Sqe) -> Result<(), StatusCode> {
        let (qid, size) = self.size(sqe)?;
        let cqid = (sqe.cdw11.get() >> 16) as u16;
        if self.sqs.contains_key(&qid) {
            return Err(sc::INVALID_QUEUE_ID);
        }
        if !self.cqs.contains_key(&cqid) {
            return Err(NO_COMPLETION_QUEUE);
        }
        self.sqs.insert(qid, Submission { base: sqe.sgl.address.get(), size, head: 0, tail: 0, cqid });
        Ok(())
    }

    /// 5.7: commands of the queue may end as aborted, or not at all.
    fn delete_sq(&mut self, qid: u16) -> Result<(), StatusCode> {
        if qid == 0 || self.sqs.remove(&qid).is_none() {
            return Err(sc::INVALID_QUEUE_ID);
        }
        self.swallowed.retain(|(sqid, _)| *sqid != qid);
        self.ended.retain(|(sqid, ..)| *sqid != qid);
        Ok(())
    }

    fn delete_cq(&mut self, qid: u16) -> Result<(), StatusCode> {
        // 5.6: after the submission queues that use it.
        assert!(self.sqs.values().all(|sq| qid == 0 || sq.cqid != qid), "deleted before its submission queue");
        if qid == 0 || self.cqs.remove(&qid).is_none() { Err(sc::INVALID_QUEUE_ID) } else { Ok(()) }
    }

    fn abort(&mut self, abort: Abort) -> u32 {
        self.seen.aborts += 1;
        let found = self.swallowed.iter().position(|s| *s == (abort.sqid, abort.cid));
        match found.filter(|_| self.faults.abortable) {
            Some(index) => {
                self.swallowed.remove(index);
                self.post(abort.sqid, abort.cid, sc::ABORT_REQUESTED.field(false), 0);
                0
            }
            None => 1,
        }
    }

    fn log_page(&mut self, sqe: &Sqe) -> Result<(), StatusCode> {
        let asked = GetLogPage::of(sqe);
        let mut page = vec![0; 4096];
        let count = |opcode| U128::new(u128::from(self.seen.commands.get(&opcode).copied().unwrap_or(0)));
        match asked.lid {
            lid::SMART => {
                let mut smart = Smart::new_zeroed();
                smart.temperature = U16::new(300);
                (smart.reads, smart.writes) = (count(2), count(1));
                page[..512].copy_from_slice(smart.as_bytes());
            }
            lid::ERROR => {
                let mut entry = ErrorEntry::new_zeroed();
                entry.count = U64::new(1);
                page[..64].copy_from_slice(entry.as_bytes());
            }
            lid::CHANGED_NAMESPACES => {}
            _ => return Err(sc::INVALID_LOG_PAGE),
        }
        self.give(sqe, &page[..(asked.len as usize).min(4096)])
    }
}

/// PRP entry 2.
pub(super) fn second(sqe: &Sqe) -> u64 {
    u64::from_le_bytes(sqe.sgl.as_bytes()[8..].try_into().expect("eight bytes"))
}
