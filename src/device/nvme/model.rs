//! A controller made of software: registers in memory, queues read and written through device addresses, as a
//! specification-minded disk does it, with faults at will. [`Rig`] runs the driver against it on one thread. For tests, and
//! for counting the instructions of the driver without a disk.
//!
//! It believes nothing: a command that breaks a rule of the specification ends with the status the specification gives
//! it, and a queue that overruns is a panic.

mod admin;
mod io;
mod rig;

pub use rig::Rig;

use super::dma::Dma;
use super::regs::{self, Bar};
use crate::base::rng::Rng;
use crate::mem::{Commit, Mapping};
use crate::wire::nvme::{Cqe, Sqe, StatusCode};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// A doorbell nobody has rung since it was looked at; hosts only ever write doorbells.
const QUIET: u32 = u32::MAX;

/// What the controller claims to be.
#[derive(Clone, Debug)]
pub struct Traits {
    /// Serial number.
    pub serial: &'static str,
    /// VS.
    pub version: u32,
    /// Entries of an I/O queue at most.
    pub entries_max: u32,
    /// I/O queues of each kind at most.
    pub queues: u16,
    /// CAP.DSTRD.
    pub stride_shift: u8,
    /// MDTS.
    pub mdts: u8,
    /// SGLs.
    pub sgl: bool,
    /// Shadow doorbells.
    pub shadow: bool,
    /// Write Zeroes.
    pub write_zeroes: bool,
    /// Dataset Management.
    pub discard: bool,
    /// A volatile cache.
    pub volatile_cache: bool,
    /// DLFEAT.
    pub dlfeat: u8,
    /// Metadata bytes per block.
    pub metadata: u16,
    /// 2^n bytes per block.
    pub block_shift: u8,
    /// Blocks of each namespace.
    pub blocks: u64,
    /// Namespaces, numbered from 1.
    pub namespaces: u32,
    /// Data is moved; otherwise only commands are counted.
    pub data: bool,
}

impl Default for Traits {
    fn default() -> Traits {
        Traits {
            serial: "MODEL1",
            version: 1 << 16 | 4 << 8,
            entries_max: 64,
            queues: 4,
            stride_shift: 0,
            mdts: 5,
            sgl: false,
            shadow: false,
            write_zeroes: true,
            discard: true,
            volatile_cache: true,
            dlfeat: 0b1001,
            metadata: 0,
            block_shift: 12,
            blocks: 4096,
            namespaces: 1,
            data: true,
        }
    }
}

/// What it does wrong.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    /// So many of the next I/O commands are taken and never completed.
    pub swallow: u32,
    /// An Abort ends a swallowed command.
    pub abortable: bool,
    /// The next I/O commands of these opcodes end with these statuses, and Do Not Retry.
    pub fail: VecDeque<(u8, StatusCode, bool)>,
    /// It never becomes ready.
    pub deaf: bool,
    /// It never stops.
    pub restless: bool,
    /// Every register reads as ones, and nothing is done.
    pub removed: bool,
    /// CSTS.CFS, until it is reset.
    pub fatal: bool,
    /// Completes a command nobody sent.
    pub ghost: bool,
    /// I/O commands end in an order of its own, seeded by this.
    pub scramble: Option<u64>,
    /// No I/O command ends while this is set.
    pub hold: bool,
}

/// What it was asked and did.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Seen {
    /// I/O commands completed, by opcode.
    pub commands: BTreeMap<u8, u64>,
    /// I/O commands that came with an SGL.
    pub sgls: u64,
    /// Write Zeroes with DEAC.
    pub deallocating: u64,
    /// Aborts.
    pub aborts: u64,
    /// Times it was enabled.
    pub enabled: u64,
    /// Real doorbells that were rung.
    pub bells: u64,
    /// Shutdown notifications.
    pub shutdowns: u64,
}

#[derive(Debug)]
struct Submission {
    base: u64,
    size: u16,
    head: u16,
    tail: u16,
    cqid: u16,
}

#[derive(Debug)]
struct Completion {
    base: u64,
    size: u16,
    tail: u16,
    head: u16,
    phase: u16,
}

/// A controller.
#[derive(Debug)]
pub struct Model {
    /// What it claims.
    pub traits: Traits,
    /// What it does wrong.
    pub faults: Faults,
    /// What it saw.
    pub seen: Seen,
    /// The content of each namespace.
    pub disks: Vec<Vec<u8>>,
    bar: Bar,
    memory: Arc<Mapping>,
    dma: Arc<Dma>,
    enabled: bool,
    sqs: BTreeMap<u16, Submission>,
    cqs: BTreeMap<u16, Completion>,
    shadow: Option<(u64, u64)>,
    granted: u16,
    /// Asynchronous Event Requests.
    waiting_events: VecDeque<u16>,
    swallowed: Vec<(u16, u16)>,
    /// Ended, not posted: (submission queue, command, status word).
    ended: Vec<(u16, u16, u16)>,
    rng: Rng,
}

impl Model {
    /// A controller that was just powered on.
    pub fn new(traits: Traits) -> Model {
        let memory = Arc::new(Mapping::new(64 << 10, Commit::OnTouch).expect("memory for registers"));
        let bar = Bar::of_memory(Arc::clone(&memory));
        let size = if traits.data { traits.blocks << traits.block_shift } else { 0 };
        let disks = (0..traits.namespaces).map(|_| vec![0; size as usize]).collect();
        // CQR, TO 1 s, NVM command set.
        let cap =
            u64::from(traits.entries_max - 1) | 1 << 16 | 2 << 24 | u64::from(traits.stride_shift) << 32 | 1 << 37;
        bar.write64(regs::CAP, cap);
        bar.write32(regs::VS, traits.version);
        let mut model = Model {
            traits,
            faults: Faults::default(),
            seen: Seen::default(),
            disks,
            bar,
            memory,
            dma: Dma::software(),
            enabled: false,
            sqs: BTreeMap::new(),
            cqs: BTreeMap::new(),
            shadow: None,
            granted: 0,
            waiting_events: VecDeque::new(),
            swallowed: Vec::new(),
            ended: Vec::new(),
            rng: Rng::new(1),
        };
        model.quiet();
        model
    }

    /// Its registers, for the driver.
    pub(super) fn bar(&self) -> Arc<Bar> {
        Arc::new(Bar::of_memory(Arc::clone(&self.memory)))
    }

    /// Its way to memory, for the driver.
    pub(super) fn dma(&self) -> Arc<Dma> {
        Arc::clone(&self.dma)
    }

    fn bell(&self, qid: u16, completion: bool) -> usize {
        (2 * usize::from(qid) + usize::from(completion)) * (4 << self.traits.stride_shift)
    }

    fn quiet(&mut self) {
        for qid in 0..=self.traits.queues {
            self.bar.write32(regs::DOORBELLS + self.bell(qid, false), QUIET);
            self.bar.write32(regs::DOORBELLS + self.bell(qid, true), QUIET);
        }
    }

    /// Does all there is to do now.
    pub fn step(&mut self) {
        if self.faults.removed {
            (0..0x40).step_by(4).for_each(|at| self.bar.write32(at, u32::MAX));
            return;
        }
        self.configure();
        if !self.enabled {
            return;
        }
        for qid in self.sqs.keys().copied().collect::<Vec<u16>>() {
            self.serve(qid);
        }
        if std::mem::take(&mut self.faults.ghost) {
            let sqid = self.sqs.keys().copied().max().expect("the admin queue at least");
            self.post(sqid, 0xfff0, 0, 0);
        }
        self.end_commands();
    }

    /// CC and CSTS.
    fn configure(&mut self) {
        let cc = self.bar.read32(regs::CC);
        let enable = cc & regs::CC_EN != 0;
        if enable && !self.enabled && !self.faults.deaf {
            self.seen.enabled += 1;
            self.enabled = true;
            let (aqa, asq, acq) = (self.bar.read32(regs::AQA), self.bar.read64(regs::ASQ), self.bar.read64(regs::ACQ));
            assert_eq!(cc, regs::CC_ENABLED, "the settings of this driver");
            self.sqs.insert(0, Submission { base: asq, size: (aqa & 0xfff) as u16 + 1, head: 0, tail: 0, cqid: 0 });
            let size = (aqa >> 16 & 0xfff) as u16 + 1;
            self.cqs.insert(0, Completion { base: acq, size, tail: 0, head: 0, phase: 1 });
        } else if !enable && self.enabled && !self.faults.restless {
            self.enabled = false;
            self.faults.fatal = false;
            self.sqs.clear();
            self.cqs.clear();
            self.shadow = None;
            self.waiting_events.clear();
            self.swallowed.clear();
            self.ended.clear();
            self.quiet();
        }
        let shut = cc & regs::CC_SHN != 0;
        if shut && self.bar.status().0 & 8 == 0 {
            self.seen.shutdowns += 1;
        }
        let status = u32::from(self.enabled) | u32::from(self.faults.fatal) << 1 | u32::from(shut) << 3;
        self.bar.write32(regs::CSTS, status);
    }

    /// Takes the commands of a submission queue.
    fn serve(&mut self, qid: u16) {
        let at = self.bell(qid, false);
        let rung = self.bar.read32(regs::DOORBELLS + at);
        if rung == QUIET {
            return;
        }
        self.bar.write32(regs::DOORBELLS + at, QUIET);
        self.seen.bells += 1;
        let shadowed = self.shadow.filter(|_| qid != 0);
        loop {
            let tail = match shadowed {
                None => rung,
                Some((bells, _)) => self.word(bells + at as u64),
            };
            let Some(sq) = self.sqs.get_mut(&qid) else { return };
            assert!(tail < u32::from(sq.size), "a tail inside the queue");
            sq.tail = tail as u16;
            if sq.head == sq.tail {
                return;
            }
            while let Some(sqe) = self.fetch(qid) {
                if qid == 0 { self.admin_command(&sqe) } else { self.io_command(qid, &sqe) }
            }
            let Some((_, events)) = shadowed else { return };
            // It looks once more after saying that it will sleep.
            assert!(self.dma.device_writes(events + at as u64, &tail.to_le_bytes()));
        }
    }

    fn word(&self, iova: u64) -> u32 {
        let mut bytes = [0; 4];
        assert!(self.dma.device_reads(iova, &mut bytes), "memory it was given");
        u32::from_le_bytes(bytes)
    }

    fn fetch(&mut self, qid: u16) -> Option<Sqe> {
        // Deleted by the command before, or the controller was disabled.
        let sq = self.sqs.get_mut(&qid)?;
        if sq.head == sq.tail {
            return None;
        }
        let mut bytes = [0; 64];
        assert!(self.dma.device_reads(sq.base + u64::from(sq.head) * 64, &mut bytes), "a queue in memory it was given");
        sq.head = (sq.head + 1) % sq.size;
        Some(Sqe::read_from_bytes(&bytes).expect("64 bytes"))
    }

    /// Posts what ended, unless it is held back.
    fn end_commands(&mut self) {
        if self.faults.hold {
            return;
        }
        while !self.ended.is_empty() {
            let index =
                if self.faults.scramble.is_some() { self.rng.below(self.ended.len() as u64) as usize } else { 0 };
            let (sqid, cid, status) = self.ended.remove(index);
            self.post(sqid, cid, status, 0);
        }
    }

    /// Posts a completion.
    fn post(&mut self, sqid: u16, cid: u16, status: u16, result: u32) {
        let sq = &self.sqs[&sqid];
        let (cqid, sq_head) = (sq.cqid, sq.head);
        let bell = self.bell(cqid, true);
        let rung = self.bar.read32(regs::DOORBELLS + bell);
        let told = match self.shadow.filter(|_| cqid != 0) {
            Some((bells, _)) => self.word(bells + bell as u64),
            None => rung,
        };
        let cq = self.cqs.get_mut(&cqid).expect("a submission queue has its completion queue");
        if told != QUIET {
            assert!(told < u32::from(cq.size), "a head inside the queue");
            cq.head = told as u16;
        }
        assert!((cq.tail + 1) % cq.size != cq.head, "the completion queue overran");
        let mut cqe = Cqe::new(cid, sq_head, status & !1 | cq.phase, u64::from(result));
        cqe.sqid.set(sqid);
        let at = cq.base + u64::from(cq.tail) * 16;
        cq.tail += 1;
        if cq.tail == cq.size {
            cq.tail = 0;
            cq.phase ^= 1;
        }
        assert!(self.dma.device_writes(at, cqe.as_bytes()), "a queue in memory it was given");
    }

    /// Makes the next choices of a scrambled order follow from `seed`.
    pub fn scramble(&mut self, seed: u64) {
        self.faults.scramble = Some(seed);
        self.rng = Rng::new(seed);
    }
}
