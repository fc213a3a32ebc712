//! The host of a simulated machine: makes requests, knows which are under way, and holds the oracle to every answer.

mod range;
mod verify;
mod volumes;

use super::failure::Failure;
use super::node::Node;
use super::oracle::{OpId, Tick};
use super::swarm::Swarm;
use super::{Oracle, Pattern, SECTOR, Shape, Trace, Trust};
use crate::base::crc::crc32c;
use crate::base::rng::Rng;
use crate::base::{CHUNK, ShardId, Status, VolumeId};
use crate::store::{Ended, Io, Outcome, Slice, Stamp};
use range::Range;
use std::collections::BTreeMap;

/// What may go wrong in the eyes of the host, because something under the store does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tolerance {
    /// Reads may end with a media error.
    pub media: bool,
    /// Slices may die, or fail to open.
    pub death: bool,
    /// How exact the data of reads must be.
    pub trust: Trust,
}

impl Tolerance {
    /// Nothing may go wrong.
    pub const NONE: Tolerance = Tolerance { media: false, death: false, trust: Trust::Exact };
}

/// Answers by kind.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Answers {
    /// Reads checked against the oracle.
    pub reads: u64,
    /// Blocks found as promised after a recovery.
    pub recovered: u64,
    /// Changes acknowledged.
    pub acked: u64,
    /// Writes refused because the pool was full.
    pub full: u64,
    /// Reads that ended with a media error, where that is allowed.
    pub media_errors: u64,
    /// Requests the slice put off.
    pub later: u64,
}

impl Answers {
    /// Adds the counts of another.
    pub fn add(&mut self, o: Answers) {
        self.reads += o.reads;
        self.recovered += o.recovered;
        self.acked += o.acked;
        self.full += o.full;
        self.media_errors += o.media_errors;
        self.later += o.later;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Payload {
    /// The write's own pattern.
    Pattern,
    /// Zero bytes, sent as data.
    Zeroes,
    /// None: write-zeroes or unmap.
    None,
}

#[derive(Clone, Copy, Debug)]
enum Check {
    /// A read while requests go on.
    Live(Tick),
    /// A read of what recovery made of a block.
    Recovery,
}

#[derive(Clone, Copy, Debug)]
enum Open {
    Read { volume: VolumeId, sector: u64, check: Check },
    Write { volume: VolumeId, op: OpId },
    Volume { volume: VolumeId, op: OpId, shape: Option<Shape> },
    Plain,
}

/// A volume as the host knows it.
#[derive(Clone, Copy, Debug)]
struct Volume {
    id: VolumeId,
    shape: Shape,
    /// Reads and writes under way.
    busy: u32,
    /// A request about the volume itself is under way.
    changing: bool,
}

/// The host.
pub struct Host {
    swarm: Swarm,
    rng: Rng,
    pattern: Pattern,
    oracle: Oracle,
    volumes: Vec<Volume>,
    open: BTreeMap<u64, Open>,
    tag: u64,
    next_volume: u32,
    lsn: u64,
    tolerance: Tolerance,
    answers: Answers,
    trace: Trace,
    scratch: Vec<u8>,
    later_streak: u32,
}

impl Host {
    /// A host of a freshly formatted store.
    pub fn new(swarm: &Swarm) -> Host {
        let pattern = Pattern::new(swarm.seed);
        Host {
            swarm: swarm.clone(),
            rng: Rng::new(swarm.seed ^ 0x4057),
            pattern,
            oracle: Oracle::new(pattern),
            volumes: Vec::new(),
            open: BTreeMap::new(),
            tag: 0,
            next_volume: 1,
            lsn: 0,
            tolerance: Tolerance::NONE,
            answers: Answers::default(),
            trace: Trace::new(),
            scratch: Vec::new(),
            later_streak: 0,
        }
    }

    /// The host as it was when `cut` events had happened to the medium, with a random sequence of its own.
    pub fn fork(&self, cut: u64, seed: u64) -> Host {
        let mut fork = Host { oracle: self.oracle.at(cut), rng: Rng::new(seed), ..Host::new(&self.swarm) };
        (fork.tag, fork.next_volume, fork.lsn) = (self.tag, self.next_volume, self.lsn);
        fork.tolerance = self.tolerance;
        fork
    }

    /// Everything asked and answered, as one hash.
    pub fn trace(&self) -> u64 {
        self.trace.hash()
    }

    /// Counters.
    pub fn answers(&self) -> Answers {
        self.answers
    }

    /// Requests under way.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Requests put off in a row.
    pub fn later_streak(&self) -> u32 {
        self.later_streak
    }

    /// From now on this much may go wrong.
    pub fn tolerate(&mut self, tolerance: Tolerance) {
        self.tolerance = tolerance;
    }

    /// What may go wrong now.
    pub fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    /// The power went: nothing is under way any more, and a new disk counts its events from 0.
    pub fn lost_power(&mut self) {
        self.open.clear();
        self.volumes.clear();
        self.oracle.restart();
        self.trace.add(0xdead);
    }

    fn slice_of(&self, volume: VolumeId) -> usize {
        volume.0 as usize % usize::from(self.swarm.slices)
    }

    fn next_tag(&mut self) -> u64 {
        self.tag += 1;
        self.tag
    }

    /// Makes one request, drawn from the mix.
    pub fn request(&mut self, node: &mut Node) -> Result<(), Failure> {
        let mix = self.swarm.mix;
        let mut dice = self.rng.below(u64::from(mix.total())) as u32;
        let mut is = |part: u32| {
            let hit = dice < part;
            dice = if hit { u32::MAX } else { dice - part };
            hit
        };
        if self.volumes.is_empty() || is(mix.volume) {
            return self.change_volume(node);
        }
        let at = self.rng.below(self.volumes.len() as u64) as usize;
        if self.volumes[at].changing {
            return Ok(());
        }
        let kind = match () {
            () if is(mix.read) => return self.read(node, at),
            () if is(mix.flush) => return self.plain(node, at, Slice::flush),
            () if is(mix.checkpoint) => return self.plain(node, at, Slice::checkpoint),
            () if is(mix.zero) => Payload::None,
            () if is(mix.blank) => Payload::Zeroes,
            () => Payload::Pattern,
        };
        self.write(node, at, kind)
    }

    fn read(&mut self, node: &mut Node, at: usize) -> Result<(), Failure> {
        let Volume { id, shape, .. } = self.volumes[at];
        let Some(range) = Range::draw(&self.swarm, shape, self.swarm.sectors_max, &mut self.rng) else { return Ok(()) };
        let since = self.oracle.reader(node.disk.events());
        self.begin_read(node, id, range, Check::Live(since))
    }

    fn begin_read(&mut self, node: &mut Node, volume: VolumeId, range: Range, check: Check) -> Result<(), Failure> {
        let Some(buf) = node.pool.get(range.len as usize) else { return Ok(()) };
        let tag = self.next_tag();
        let io = Io {
            volume,
            offset: range.offset,
            len: range.len as u32,
            stamp: Stamp { shard: ShardId(0), epoch: 0, lsn: 0 },
            tag,
        };
        self.open.insert(tag, Open::Read { volume, sector: range.sector(), check });
        self.busy(volume, 1);
        let outcome = node.slices[self.slice_of(volume)].read(io, buf, &mut node.disk, &mut node.pool);
        self.outcome(node, tag, outcome)
    }

    fn write(&mut self, node: &mut Node, at: usize, payload: Payload) -> Result<(), Failure> {
        let Volume { id, shape, .. } = self.volumes[at];
        // Zeroes come in large pieces too: as much as a chunk has.
        let large = payload == Payload::None && self.rng.chance(20);
        let most = if large { CHUNK / SECTOR as u64 } else { self.swarm.sectors_max };
        let Some(range) = Range::draw(&self.swarm, shape, most, &mut self.rng) else { return Ok(()) };
        let (first, blocks) = range.blocks(shape);
        let stamp = self.stamp(range.offset);
        let tag = self.next_tag();
        let io = Io { volume: id, offset: range.offset, len: range.len as u32, stamp, tag };
        let events = node.disk.events();
        let op = match payload {
            Payload::Pattern => self.oracle.write(events, id, first, blocks),
            Payload::Zeroes | Payload::None => self.oracle.zero(events, id, first, blocks),
        };
        self.open.insert(tag, Open::Write { volume: id, op });
        self.busy(id, 1);
        let slice = &mut node.slices[self.slice_of(id)];
        let outcome = if payload == Payload::None {
            slice.zero(io, &mut node.disk, &mut node.pool)
        } else {
            self.scratch.clear();
            self.scratch.resize(range.len as usize, 0);
            if payload == Payload::Pattern {
                self.pattern.fill(id.0, range.sector(), op, &mut self.scratch);
            }
            slice.write(io, &self.scratch, &mut node.disk, &mut node.pool)
        };
        self.outcome(node, tag, outcome)
    }

    fn plain(&mut self, node: &mut Node, at: usize, ask: impl Fn(&mut Slice, u64) -> Outcome) -> Result<(), Failure> {
        let slice = self.slice_of(self.volumes[at].id);
        let tag = self.next_tag();
        self.open.insert(tag, Open::Plain);
        let outcome = ask(&mut node.slices[slice], tag);
        self.outcome(node, tag, outcome)
    }

    /// Asks every slice for a checkpoint, as an orderly stop does.
    pub fn checkpoint_all(&mut self, node: &mut Node) -> Result<(), Failure> {
        for slice in 0..node.slices.len() {
            let tag = self.next_tag();
            self.open.insert(tag, Open::Plain);
            let outcome = node.slices[slice].checkpoint(tag);
            self.outcome(node, tag, outcome)?;
        }
        Ok(())
    }

    fn stamp(&mut self, offset: u64) -> Stamp {
        self.lsn += 1;
        Stamp { shard: ShardId((offset / CHUNK % 256) as u16), epoch: 1, lsn: self.lsn }
    }

    fn busy(&mut self, volume: VolumeId, by: i32) {
        if let Some(v) = self.volumes.iter_mut().find(|v| v.id == volume) {
            v.busy = v.busy.checked_add_signed(by).expect("what ends has begun");
        }
    }

    fn outcome(&mut self, node: &mut Node, tag: u64, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Outcome::Pending => {
                self.later_streak = 0;
                Ok(())
            }
            Outcome::Done(ended) => {
                self.later_streak = 0;
                self.ended(node, ended)
            }
            Outcome::Later(buf) => {
                buf.into_iter().for_each(|b| node.pool.put(b));
                self.later_streak += 1;
                self.answers.later += 1;
                self.put_off(node.disk.events(), tag)
            }
        }
    }

    /// Nothing of the request was started: whatever it asked for must never happen.
    fn put_off(&mut self, events: u64, tag: u64) -> Result<(), Failure> {
        match self.open.remove(&tag).ok_or(Failure::Stranger(tag))? {
            Open::Read { volume, .. } => self.busy(volume, -1),
            Open::Write { volume, op } => {
                self.busy(volume, -1);
                self.oracle.refuse(events, op);
            }
            Open::Volume { volume, op, .. } => {
                self.oracle.refuse(events, op);
                self.volume_unchanged(volume);
            }
            Open::Plain => {}
        }
        Ok(())
    }

    /// Takes an answer.
    pub fn ended(&mut self, node: &mut Node, ended: Ended) -> Result<(), Failure> {
        let Ended { tag, status, buf } = ended;
        let open = self.open.remove(&tag).ok_or(Failure::Stranger(tag))?;
        self.trace.all(&[tag, status as u64, node.now.0]);
        let verdict = match open {
            Open::Read { volume, sector, check } => {
                self.busy(volume, -1);
                let data: &[u8] = buf.as_deref().unwrap_or(&[]);
                self.trace.add(u64::from(crc32c(data)));
                self.ended_read(node, volume, sector, check, status, data)
            }
            Open::Write { volume, op } => {
                self.busy(volume, -1);
                self.ended_write(node, op, status)
            }
            Open::Volume { volume, op, shape } => self.ended_volume(node, volume, op, shape, status),
            Open::Plain => self.allowed("flush or checkpoint", status),
        };
        buf.into_iter().for_each(|b| node.pool.put(b));
        verdict
    }

    fn ended_read(
        &mut self,
        node: &Node,
        volume: VolumeId,
        sector: u64,
        check: Check,
        status: Status,
        data: &[u8],
    ) -> Result<(), Failure> {
        if status == Status::MediaError && self.tolerance.media {
            self.answers.media_errors += 1;
            return Ok(());
        }
        self.allowed("read", status)?;
        if !status.is_ok() {
            return Ok(());
        }
        let events = node.disk.events();
        match check {
            Check::Live(since) => {
                self.answers.reads += 1;
                self.oracle.read(events, volume, sector, data, since, self.tolerance.trust)?;
            }
            Check::Recovery => {
                self.answers.recovered += data.len() as u64 / SECTOR as u64;
                self.oracle.recovered(events, volume, sector, data, self.tolerance.trust)?;
            }
        }
        Ok(())
    }

    fn ended_write(&mut self, node: &Node, op: OpId, status: Status) -> Result<(), Failure> {
        if status == Status::CapacityExceeded {
            // Part of a large write may have found room, so what it asked for stays possible.
            self.answers.full += 1;
            return Ok(());
        }
        if status == Status::MediaError && self.tolerance.media {
            // The rest of a partly written block could not be read.
            return Ok(());
        }
        self.allowed("write", status)?;
        if status.is_ok() {
            self.answers.acked += 1;
            self.oracle.ack(node.disk.events(), op);
        }
        Ok(())
    }

    fn allowed(&self, request: &'static str, status: Status) -> Result<(), Failure> {
        match status {
            Status::Ok => Ok(()),
            Status::Gone if self.tolerance.death => Ok(()),
            status => Err(Failure::Status { request, status }),
        }
    }
}
