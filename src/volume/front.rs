//! From a request to the owners of its chunks and back. One `Front` per core. A request that lies in one chunk of this
//! core costs a table look-up and a call; everything else (another core's chunk, two chunks, a long range of zeroes)
//! takes a job slot. What the media below cannot take at once is parked here and tried again every turn, in order.

mod crossing;

use self::crossing::{CROSSING_PARTS, CROSSINGS, Crossing};
use super::message::Message;
use super::stats::Stats;
use super::table::{Entry, Table};
use super::{Completion, Info, Kind, Payload, Request, Reservations, Submit, Volumes};
use crate::base::limits::IO_BYTES_MAX;
use crate::base::ring::Ring;
use crate::base::{CHUNK, CoreId, Status, Time, VolumeId};
use crate::mem::{Buf, Pool};
use crate::repl::{Detail, Ended, Home, Outcome, Part, Shards, Step, place};
use slab::Slab;
use std::sync::Arc;

/// Capacities of a [`Front`].
#[derive(Clone, Copy, Debug)]
pub struct FrontConfig {
    /// Host requests under way on this core at once.
    pub requests: usize,
    /// Parts this core may have under way on each other core.
    pub remote_parts: usize,
}

impl Default for FrontConfig {
    fn default() -> FrontConfig {
        FrontConfig { requests: 8192, remote_parts: 1024 }
    }
}

/// Long ranges of zeroes under way at once, parts of one in flight, and parts it may start per turn: a host that
/// discards a whole disk must not hold the core.
const SWEEPS: usize = 64;
const SWEEP_INFLIGHT: u32 = 16;
const SWEEP_PER_TURN: u32 = 4;

/// Who waits for a job.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// A target on this core: the whole request.
    Host { tag: u64 },
    /// Half of a request that crosses a chunk border.
    Half { join: usize, second: bool },
    /// A piece of a long range.
    Sweep { sweep: usize },
    /// A step of a compare-write that crosses a chunk border.
    Crossing { key: usize, second: bool },
    /// Another core.
    Remote { core: CoreId, tag: u64 },
}

#[derive(Debug)]
struct Job {
    origin: Origin,
    kind: Kind,
    volume: VolumeId,
    bytes: u32,
    started: Time,
    /// Where the part was sent, when not to this core.
    sent_to: Option<CoreId>,
    /// A payload that must outlive the part: a remote core's buffer.
    luggage: Option<Buf>,
}

/// A part that found no room below.
struct Parked {
    job: usize,
    part: Part,
    buf: Option<Buf>,
}

/// Two halves of one request.
struct Join {
    request: Request,
    started: Time,
    bytes: u32,
    first: u32,
    left: u8,
    status: Status,
    detail: Detail,
    /// A Read's whole buffer.
    buf: Option<Buf>,
}

/// A long Write Zeroes or Deallocate walking over its chunks.
struct Sweep {
    request: Request,
    home: Home,
    started: Time,
    bytes: u64,
    next: u64,
    end: u64,
    inflight: u32,
    status: Status,
}

/// The volume layer of one core.
pub struct Front<S: Shards> {
    core: CoreId,
    cores: u16,
    config: FrontConfig,
    now: Time,
    table: Arc<Table>,
    local: S,
    jobs: Slab<Job>,
    joins: Slab<Join>,
    sweeps: Slab<Sweep>,
    crossings: Slab<Crossing>,
    parked: Ring<Parked>,
    /// Parts on each core, by us.
    abroad: Vec<usize>,
    pub(super) outbox: Vec<(CoreId, Message)>,
    ended: Vec<Ended>,
    done: Vec<Completion>,
    stats: Vec<Stats>,
}

impl<S: Shards> Front<S> {
    /// The front of `core` on a node of `cores` cores.
    pub fn new(core: CoreId, cores: u16, config: FrontConfig, local: S) -> Front<S> {
        let foreign = usize::from(cores) * config.remote_parts;
        // Every request of ours, split in two, plus everything the other cores may send.
        let crossings = (1 + usize::from(cores)) * CROSSINGS * CROSSING_PARTS;
        let jobs = 2 * config.requests + foreign + SWEEPS * SWEEP_INFLIGHT as usize + crossings;
        Front {
            core,
            cores,
            config,
            now: Time::default(),
            table: Arc::default(),
            local,
            jobs: Slab::with_capacity(jobs),
            joins: Slab::with_capacity(config.requests),
            sweeps: Slab::with_capacity(SWEEPS),
            crossings: Slab::with_capacity(CROSSINGS),
            parked: Ring::new(jobs),
            abroad: vec![0; usize::from(cores)],
            outbox: Vec::with_capacity(1024),
            ended: Vec::with_capacity(1024),
            done: Vec::with_capacity(1024),
            stats: Vec::new(),
        }
    }

    /// A new picture of all volumes. Requests under way finish on the old one.
    pub fn configure(&mut self, table: Arc<Table>) {
        self.stats.resize(table.ids().max(self.stats.len()), Stats::default());
        self.table = table;
    }

    /// The media of this core.
    pub fn local(&mut self) -> &mut S {
        &mut self.local
    }

    /// The media of this core, to look at.
    pub fn media(&self) -> &S {
        &self.local
    }

    /// Totals of a volume on this core.
    pub fn stats(&self, volume: VolumeId) -> Stats {
        self.stats.get(volume.0 as usize).copied().unwrap_or_default()
    }

    /// Forgets the totals of a volume.
    pub fn reset_stats(&mut self, volume: VolumeId) {
        if let Some(s) = self.stats.get_mut(volume.0 as usize) {
            *s = Stats::default();
        }
    }

    /// True while any request of this volume is under way here: it must not be detached yet.
    pub fn is_busy(&self, volume: VolumeId) -> bool {
        self.jobs.iter().any(|(_, j)| j.volume == volume)
            || self.joins.iter().any(|(_, j)| j.request.volume == volume)
            || self.sweeps.iter().any(|(_, s)| s.request.volume == volume)
            || self.crossings.iter().any(|(_, c)| c.request.volume == volume)
    }

    /// Requests of a volume under way, as hosts of this core count them.
    pub fn depth(&self, volume: VolumeId) -> usize {
        let jobs = self.jobs.iter().filter(|(_, j)| j.volume == volume && matches!(j.origin, Origin::Host { .. }));
        let joins = self.joins.iter().filter(|(_, j)| j.request.volume == volume);
        let sweeps = self.sweeps.iter().filter(|(_, s)| s.request.volume == volume);
        let crossings = self.crossings.iter().filter(|(_, c)| c.request.volume == volume);
        jobs.count() + joins.count() + sweeps.count() + crossings.count()
    }

    /// True when nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
            && self.joins.is_empty()
            && self.sweeps.is_empty()
            && self.crossings.is_empty()
            && self.outbox.is_empty()
    }

    fn entry(&self, volume: VolumeId) -> Option<&Entry> {
        self.table.get(volume)
    }

    fn submit_checked(&mut self, request: Request, payload: Payload<'_>, pool: &mut Pool) -> Submit {
        let Some(entry) = self.entry(request.volume) else { return refuse(request, Status::Gone, payload, pool) };
        let info = &entry.info;
        let home = entry.home;
        let end = request.lba.checked_add(u64::from(request.blocks));
        if end.is_none_or(|end| end > info.blocks) {
            return refuse(request, Status::OutOfRange, payload, pool);
        }
        if info.read_only && request.kind.changes() {
            return refuse(request, Status::ReadOnly, payload, pool);
        }
        let size = u64::from(info.block_size);
        let (offset, mut bytes) = (request.lba * size, u64::from(request.blocks) * size);
        if request.kind == Kind::BlockStatus {
            // The owner of the first chunk answers for it alone; who asks goes on from there.
            bytes = bytes.min(CHUNK - offset % CHUNK);
        }
        if bytes == 0 && request.kind != Kind::Flush {
            return refuse(request, Status::Ok, payload, pool);
        }
        let whole = matches!(home, Home::Raw(_)) && self.cores == 1;
        let one_chunk = bytes == 0 || offset / CHUNK == (offset + bytes - 1) / CHUNK;
        if bytes > CHUNK || (bytes > IO_BYTES_MAX as u64 && !one_chunk) {
            assert!(
                matches!(request.kind, Kind::WriteZeroes | Kind::Deallocate),
                "a target keeps transfers under IO_BYTES_MAX"
            );
            return self.start_sweep(request, home, offset, bytes);
        }
        if one_chunk || (whole && !matches!(request.kind, Kind::WriteZeroes | Kind::Deallocate)) {
            let part = Self::part(&request, home, offset, bytes as u32);
            return self.start_whole(request, part, payload, pool);
        }
        if request.kind == Kind::CompareWrite {
            return self.start_crossing(request, home, offset, bytes as u32, payload, pool);
        }
        self.start_halves(request, home, offset, bytes as u32, payload, pool)
    }

    fn part(request: &Request, home: Home, offset: u64, len: u32) -> Part {
        let shard = place::shard(request.volume, offset / CHUNK);
        Part {
            volume: request.volume,
            home,
            shard,
            kind: request.kind,
            offset,
            len,
            step: Step::Whole,
            fua: request.fua,
            tag: 0,
        }
    }

    /// Who owns a part. A Flush stays here: a device's cache is the same from every core, and a log has none.
    fn owner(&self, part: &Part) -> CoreId {
        match part.home {
            _ if self.cores == 1 || part.kind == Kind::Flush => self.core,
            Home::Raw(_) => place::core(part.shard.0, self.cores),
            Home::Log { slices, .. } => place::core(place::slice(part.shard, slices).0, self.cores),
        }
    }

    /// A request in one part: the fast path takes no slot when the media answer at once.
    fn start_whole(&mut self, request: Request, mut part: Part, payload: Payload<'_>, pool: &mut Pool) -> Submit {
        if self.jobs.len() >= self.config.requests {
            return Submit::Later(payload.into_buf());
        }
        let owner = self.owner(&part);
        let job = Job {
            origin: Origin::Host { tag: request.tag },
            kind: request.kind,
            volume: request.volume,
            bytes: part.len,
            started: self.now,
            sent_to: None,
            luggage: None,
        };
        if owner != self.core {
            return self.send_whole(job, owner, part, payload, pool);
        }
        part.tag = self.jobs.vacant_key() as u64;
        match self.local.submit(&part, payload, pool) {
            Outcome::Done(e) => {
                self.count(request.volume, request.kind, u64::from(part.len), self.now, e.status);
                Submit::Done(Completion { tag: request.tag, status: e.status, detail: e.detail, buf: e.buf })
            }
            Outcome::Pending => {
                let key = self.jobs.insert(job);
                debug_assert_eq!(key as u64, part.tag);
                Submit::Pending
            }
            Outcome::Later(buf) => Submit::Later(buf),
        }
    }

    fn send_whole(
        &mut self,
        mut job: Job,
        owner: CoreId,
        mut part: Part,
        payload: Payload<'_>,
        pool: &mut Pool,
    ) -> Submit {
        if self.abroad[owner.index()] == self.config.remote_parts {
            return Submit::Later(payload.into_buf());
        }
        let buf = match payload {
            Payload::Owned(buf) => Some(buf),
            Payload::Borrowed(bytes) => match copied(bytes, pool) {
                Some(buf) => Some(buf),
                None => return Submit::Later(None),
            },
            Payload::None if part.kind == Kind::Read => match pool.get(part.len as usize) {
                Some(buf) => Some(buf),
                None => return Submit::Later(None),
            },
            Payload::None => None,
        };
        job.sent_to = Some(owner);
        part.tag = self.jobs.insert(job) as u64;
        self.send(owner, part, buf);
        Submit::Pending
    }

    fn send(&mut self, owner: CoreId, part: Part, buf: Option<Buf>) {
        self.abroad[owner.index()] += 1;
        self.outbox.push((owner, Message::Request { part, buf }));
    }

    /// A transfer over a chunk border: both halves' buffers are taken first, so that neither half can be stuck.
    fn start_halves(
        &mut self,
        request: Request,
        home: Home,
        offset: u64,
        bytes: u32,
        payload: Payload<'_>,
        pool: &mut Pool,
    ) -> Submit {
        if self.jobs.len() + 2 > self.config.requests || self.joins.len() == self.config.requests {
            return Submit::Later(payload.into_buf());
        }
        let first = (CHUNK - offset % CHUNK) as u32;
        let reads = request.kind == Kind::Read;
        let Some(buffers) = half_buffers(reads, first, bytes, &payload, pool) else {
            return Submit::Later(payload.into_buf());
        };
        pool.put_all(payload.into_buf());
        let [whole, a, b] = buffers;
        let join = self.joins.insert(Join {
            request,
            started: self.now,
            bytes,
            first,
            left: 2,
            status: Status::Ok,
            detail: Detail::NONE,
            buf: whole,
        });
        let halves = [(false, offset, first, a), (true, offset + u64::from(first), bytes - first, b)];
        for (second, offset, len, buf) in halves {
            let part = Self::part(&request, home, offset, len);
            self.start_part(Origin::Half { join, second }, part, buf, pool);
        }
        Submit::Pending
    }

    fn start_sweep(&mut self, request: Request, home: Home, offset: u64, bytes: u64) -> Submit {
        if self.sweeps.len() == SWEEPS {
            return Submit::Later(None);
        }
        self.sweeps.insert(Sweep {
            request,
            home,
            started: self.now,
            bytes,
            next: offset,
            end: offset + bytes,
            inflight: 0,
            status: Status::Ok,
        });
        Submit::Pending
    }

    /// Starts a part that has a job slot for sure, here or abroad; parks it when there is no room.
    fn start_part(&mut self, origin: Origin, mut part: Part, buf: Option<Buf>, pool: &mut Pool) {
        let job = self.jobs.insert(Job {
            origin,
            kind: part.kind,
            volume: part.volume,
            bytes: part.len,
            started: self.now,
            sent_to: None,
            luggage: None,
        });
        part.tag = job as u64;
        self.try_part(Parked { job, part, buf }, pool);
    }

    fn try_part(&mut self, Parked { job, part, buf }: Parked, pool: &mut Pool) {
        let owner = match self.jobs[job].origin {
            Origin::Remote { .. } => self.core,
            _ => self.owner(&part),
        };
        if owner != self.core {
            if part.step != Step::Whole {
                self.outbox.push((owner, Message::Request { part, buf }));
            } else if self.abroad[owner.index()] == self.config.remote_parts {
                self.park(Parked { job, part, buf });
            } else {
                self.jobs[job].sent_to = Some(owner);
                self.send(owner, part, buf);
            }
            return;
        }
        // Another core's buffer may be filled by a read but never freed here: a write borrows it and keeps it in the
        // job until the reply takes it home.
        let foreign = part.kind != Kind::Read && buf.as_ref().is_some_and(|b| b.home() != self.core);
        let outcome = match (&buf, foreign) {
            (Some(b), true) => {
                let outcome = self.local.submit(&part, Payload::Borrowed(b), pool);
                if matches!(outcome, Outcome::Later(_)) {
                    return self.park(Parked { job, part, buf });
                }
                self.jobs[job].luggage = buf;
                outcome
            }
            _ => self.local.submit(&part, buf.map_or(Payload::None, Payload::Owned), pool),
        };
        match outcome {
            Outcome::Done(e) => self.finish(e, pool),
            Outcome::Pending => {}
            Outcome::Later(buf) => self.park(Parked { job, part, buf }),
        }
    }

    fn park(&mut self, parked: Parked) {
        assert!(self.parked.push(parked).is_ok(), "the parking has a place for every job");
    }

    /// A message from another core's front.
    pub fn receive(&mut self, from: CoreId, message: Message, pool: &mut Pool) {
        match message {
            Message::Request { part, buf } => {
                self.start_part(Origin::Remote { core: from, tag: part.tag }, part, buf, pool);
            }
            Message::Reply { tag, status, detail, buf } => {
                let job = &self.jobs[tag as usize];
                self.abroad[from.index()] -= usize::from(job.sent_to.is_some());
                let reads = job.kind == Kind::Read;
                let buf = if reads {
                    buf
                } else {
                    pool.put_all(buf);
                    None
                };
                self.finish(Ended { tag, status, detail, buf }, pool);
            }
        }
    }

    /// A part ended: tells whoever waits for it.
    fn finish(&mut self, ended: Ended, pool: &mut Pool) {
        let job = self.jobs.remove(ended.tag as usize);
        match job.origin {
            Origin::Host { tag } => {
                self.count(job.volume, job.kind, u64::from(job.bytes), job.started, ended.status);
                self.done.push(Completion { tag, status: ended.status, detail: ended.detail, buf: ended.buf });
            }
            Origin::Remote { core, tag } => {
                let buf = ended.buf.or(job.luggage);
                self.outbox.push((core, Message::Reply { tag, status: ended.status, detail: ended.detail, buf }));
            }
            Origin::Half { join, second } => self.finish_half(join, second, ended, pool),
            Origin::Crossing { key, second } => self.finish_crossing(key, second, &ended, pool),
            Origin::Sweep { sweep } => {
                let s = &mut self.sweeps[sweep];
                s.inflight -= 1;
                s.status = s.status.and(ended.status);
            }
        }
    }

    fn finish_half(&mut self, key: usize, second: bool, ended: Ended, pool: &mut Pool) {
        let join = &mut self.joins[key];
        if ended.status == Status::CompareMismatch {
            let at = ended.detail.differs_at() + if second { join.first } else { 0 };
            let before = (join.status == Status::CompareMismatch).then(|| join.detail.differs_at());
            join.detail = Detail::differing(before.map_or(at, |b| b.min(at)));
        }
        join.status = join.status.and(ended.status);
        join.left -= 1;
        if let (Some(whole), Some(half)) = (&mut join.buf, ended.buf) {
            let at = if second { join.first as usize } else { 0 };
            whole[at..at + half.len()].copy_from_slice(&half);
            pool.put(half);
        }
        if join.left == 0 {
            let join = self.joins.remove(key);
            let Request { volume, kind, tag, .. } = join.request;
            self.count(volume, kind, u64::from(join.bytes), join.started, join.status);
            self.done.push(Completion { tag, status: join.status, detail: join.detail, buf: join.buf });
        }
    }

    fn count(&mut self, volume: VolumeId, kind: Kind, bytes: u64, started: Time, status: Status) {
        if let Some(stats) = self.stats.get_mut(volume.0 as usize) {
            stats.count(kind, bytes, self.now.since(started), status.is_ok());
        }
    }

    /// One turn: parked parts, long ranges, the media. Returns true when anything happened.
    pub fn step(&mut self, now: Time, pool: &mut Pool) -> bool {
        self.now = now;
        for _ in 0..self.parked.len() {
            let Some(parked) = self.parked.pop() else { break };
            self.try_part(parked, pool);
        }
        let mut worked = self.step_sweeps(pool);
        if !self.crossings.is_empty() {
            self.step_crossings(pool);
        }
        worked |= self.local.step(now, pool);
        let mut ended = std::mem::take(&mut self.ended);
        self.local.drain(&mut ended);
        for e in ended.drain(..) {
            worked = true;
            self.finish(e, pool);
        }
        self.ended = ended;
        worked
    }

    fn step_sweeps(&mut self, pool: &mut Pool) -> bool {
        if self.sweeps.is_empty() {
            return false;
        }
        for key in 0..self.sweeps.capacity() {
            for _ in 0..SWEEP_PER_TURN {
                let Some(s) = self.sweeps.get_mut(key) else { break };
                let stop = s.next == s.end || !s.status.is_ok();
                if stop || s.inflight == SWEEP_INFLIGHT {
                    break;
                }
                let len = (CHUNK - s.next % CHUNK).min(s.end - s.next);
                let (request, home, offset) = (s.request, s.home, s.next);
                s.next += len;
                s.inflight += 1;
                let part = Self::part(&request, home, offset, len as u32);
                self.start_part(Origin::Sweep { sweep: key }, part, None, pool);
            }
            let over = |s: &Sweep| s.inflight == 0 && (s.next == s.end || !s.status.is_ok());
            if self.sweeps.get(key).is_some_and(over) {
                let s = self.sweeps.remove(key);
                self.count(s.request.volume, s.request.kind, s.bytes, s.started, s.status);
                self.done.push(Completion::plain(s.request.tag, s.status, None));
            }
        }
        true
    }

    /// Moves completed requests into `out`.
    pub fn drain(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.done);
    }

    /// Hands out messages for other cores until `send` gives one back (its mailbox is full); that one and those after
    /// it stay for the next turn.
    pub fn post(&mut self, mut send: impl FnMut(CoreId, Message) -> Result<(), Message>) -> bool {
        let posted = !self.outbox.is_empty();
        let mut rest = Vec::new();
        for (to, message) in self.outbox.drain(..) {
            if rest.is_empty() {
                if let Err(message) = send(to, message) {
                    rest.push((to, message));
                }
            } else {
                rest.push((to, message));
            }
        }
        self.outbox.append(&mut rest);
        posted
    }

    /// True when the next turn has work that no outside event announces.
    pub fn is_restless(&self) -> bool {
        !self.parked.is_empty()
            || !self.sweeps.is_empty()
            || !self.crossings.is_empty()
            || !self.outbox.is_empty()
            || !self.done.is_empty()
    }
}

impl<S: Shards> Volumes for Front<S> {
    fn info(&self, volume: VolumeId) -> Option<&Info> {
        self.entry(volume).map(|e| &e.info)
    }

    fn reservations(&self, volume: VolumeId) -> &Reservations {
        self.entry(volume).map_or(Reservations::none(), |e| &e.reservations)
    }

    fn submit(&mut self, request: Request, payload: Payload<'_>, pool: &mut Pool) -> Submit {
        self.submit_checked(request, payload, pool)
    }
}

fn refuse(request: Request, status: Status, payload: Payload<'_>, pool: &mut Pool) -> Submit {
    pool.put_all(payload.into_buf());
    Submit::Done(Completion::plain(request.tag, status, None))
}

fn copied(bytes: &[u8], pool: &mut Pool) -> Option<Buf> {
    let mut buf = pool.get(bytes.len())?;
    buf.copy_from_slice(bytes);
    Some(buf)
}

/// [whole, first, second]: the buffers a split request needs, all or none.
fn half_buffers(
    reads: bool,
    first: u32,
    bytes: u32,
    payload: &Payload<'_>,
    pool: &mut Pool,
) -> Option<[Option<Buf>; 3]> {
    let data = payload.bytes();
    if data.is_empty() && !reads {
        return Some([None, None, None]);
    }
    let (first, bytes) = (first as usize, bytes as usize);
    let wanted = [if reads { bytes } else { 0 }, first, bytes - first];
    let mut got = [None, None, None];
    for (slot, len) in got.iter_mut().zip(wanted) {
        if len == 0 {
            continue;
        }
        *slot = pool.get(len);
        if slot.is_none() {
            pool.put_all(got.into_iter().flatten());
            return None;
        }
    }
    if !reads {
        got[1].as_mut().expect("taken above").copy_from_slice(&data[..first]);
        got[2].as_mut().expect("taken above").copy_from_slice(&data[first..]);
    }
    Some(got)
}
