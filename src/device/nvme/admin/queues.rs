//! I/O queue pairs: how many, their memory, and creating them in the controller.

use super::{Admin, Home, World};
use crate::device::nvme::NvmeError;
use crate::device::nvme::dma::PAGE;
use crate::device::nvme::error::ControllerError;
use crate::device::nvme::gate::Seat;
use crate::device::nvme::prp::List;
use crate::device::nvme::ring::{CQE, Ring, SQE, Shadow};
use crate::device::nvme::shared::Pair;
use crate::wire::nvme::admin::Feature;
use crate::wire::nvme::feature::{fid, queue_counts, queue_counts_dword};
use crate::wire::nvme::{Sgl, Sqe, admin_op};
use std::sync::Arc;
use zerocopy::little_endian::{U32, U64};

/// Doorbell Buffer Config.
const DOORBELL_BUFFER_CONFIG: u8 = 0x7c;

impl Admin {
    /// Asks for `pairs` queues of each kind; how many pairs there may be.
    pub(super) fn ask_queues(&mut self, pairs: u16, world: &mut dyn World) -> Result<u16, ControllerError> {
        let wanted = u32::from(pairs.max(1));
        let set = Feature::set(0, fid::QUEUES, 0, queue_counts_dword(wanted, wanted));
        let (submission, completion) =
            queue_counts(self.command(set, false, "Set Features (Number of Queues)", world)?);
        let granted = submission.min(completion).min(wanted);
        // As many as have doorbells inside the BAR.
        let stride = self.cap.doorbell_stride();
        let bells = (self.bar.len() - crate::device::nvme::regs::DOORBELLS) / (2 * stride);
        Ok(granted.min(bells as u32 - 1) as u16)
    }

    /// Gives the controller shadow doorbells, if it wants them.
    pub(super) fn set_shadow(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        if !self.facts().shadow {
            return Ok(());
        }
        if self.shadow.is_none() {
            // Doorbells of all queues there can be on the page; with wider strides there is no point in them.
            let (Ok(bells), Ok(events)) = (self.dma.block(PAGE), self.dma.block(PAGE)) else { return Ok(()) };
            self.shadow = Some(Shadow { bells: Arc::new(bells), events: Arc::new(events) });
        }
        let shadow = self.shadow.clone().expect("just made sure of");
        shadow.bells.zero(PAGE);
        shadow.events.zero(PAGE);
        let mut sqe = Sqe::new(DOORBELL_BUFFER_CONFIG, 0, 0, Sgl::NONE);
        crate::device::nvme::prp::Pointer::Prp(shadow.bells.iova(), shadow.events.iova()).put(&mut sqe);
        match self.command(sqe, false, "Doorbell Buffer Config", world) {
            Ok(_) => Ok(()),
            // Refused the first time: real doorbells serve. Refused later, the rings count on them.
            Err(ControllerError::Command { .. }) if self.homes.is_empty() => {
                self.shadow = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Memory for `count` pairs of up to `entries` entries; nothing of it is known to the controller yet.
    pub(super) fn make_pairs(&mut self, count: u16, entries: u16) -> Result<Vec<Pair>, NvmeError> {
        let stride = self.cap.doorbell_stride();
        let fits = PAGE / stride / 2;
        self.entries = u32::from(entries).min(self.cap.entries_max()).max(2) as u16;
        let list_bytes = List::bytes_for(self.facts().transfer_max);
        let mut made = Vec::with_capacity(usize::from(count));
        for qid in 1..=count {
            let sq = Arc::new(self.dma.block(usize::from(self.entries) * SQE)?);
            let cq = Arc::new(self.dma.block(usize::from(self.entries) * CQE)?);
            let lists = self.dma.block(usize::from(self.entries) * list_bytes)?;
            let shadow = self.shadow.clone().filter(|_| usize::from(qid) < fits);
            let ring = Ring::new(&self.bar, stride, qid, self.entries, Arc::clone(&sq), Arc::clone(&cq));
            let seat = Arc::new(Seat::default());
            self.homes.push(Home { qid, sq, cq, seat: Arc::clone(&seat) });
            made.push(Pair { qid, ring: ring.with_shadow(shadow), lists, list_bytes, seat, life: 0 });
        }
        Ok(made)
    }

    /// Creates all pairs in the controller. Nobody uses them.
    pub(super) fn create_pairs(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        for index in 0..self.homes.len() {
            self.create(index, world)?;
        }
        Ok(())
    }

    fn create(&mut self, index: usize, world: &mut dyn World) -> Result<(), ControllerError> {
        let entries = self.entries;
        let home = &self.homes[index];
        home.sq.zero(usize::from(entries) * SQE);
        home.cq.zero(usize::from(entries) * CQE);
        let (qid, sq, cq) = (u32::from(home.qid), home.sq.iova(), home.cq.iova());
        let create = |opcode, iova, dword11| {
            let mut sqe = Sqe::new(opcode, 0, 0, Sgl { address: U64::new(iova), ..Sgl::NONE });
            // PSDT 0: one PRP entry, the queue's memory.
            sqe.flags = 0;
            sqe.cdw10 = U32::new(qid | u32::from(entries - 1) << 16);
            sqe.cdw11 = U32::new(dword11);
            sqe
        };
        // PC: contiguous. No interrupts: completions are found by polling.
        self.command(create(admin_op::CREATE_IO_CQ, cq, 1), false, "Create I/O Completion Queue", world)?;
        self.command(create(admin_op::CREATE_IO_SQ, sq, 1 | qid << 16), false, "Create I/O Submission Queue", world)?;
        Ok(())
    }

    /// Takes pairs whose users left with commands under way from the controller, and makes them new.
    pub(super) fn recycle(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        for mut pair in self.shared.take_abandoned() {
            let index = usize::from(pair.qid) - 1;
            for (opcode, what) in [
                (admin_op::DELETE_IO_SQ, "Delete I/O Submission Queue"),
                (admin_op::DELETE_IO_CQ, "Delete I/O Completion Queue"),
            ] {
                let mut sqe = Sqe::new(opcode, 0, 0, Sgl::NONE);
                sqe.cdw10 = U32::new(u32::from(pair.qid));
                self.command(sqe, false, what, world)?;
            }
            self.shadow_reset(pair.qid);
            self.create(index, world)?;
            pair.ring.restart();
            self.shared.put_pair(pair);
        }
        Ok(())
    }

    /// The shadow doorbells of a queue start at 0 again.
    fn shadow_reset(&self, qid: u16) {
        let stride = self.cap.doorbell_stride();
        let at = 2 * usize::from(qid) * stride;
        if let Some(shadow) = self.shadow.as_ref().filter(|_| at + 2 * stride <= PAGE) {
            for at in [at, at + stride] {
                shadow.bells.write32(at, 0);
                shadow.events.write32(at, 0);
            }
        }
    }
}
