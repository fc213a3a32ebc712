//! This core's media: its device queues and the log slices on them, and the (epoch, LSN) of every shard it is primary
//! of. One `Local` per core; nothing in it is shared.

mod hold;
mod judge;

use self::hold::Hold;
use self::judge::Judged;
use super::part::{DeviceId, Ended, Home, Kind, Outcome, Part, Payload, Shards, StoreId};
use super::place;
use super::raw::Raw;
use crate::base::limits::SHARDS;
use crate::base::{SliceId, Status, Time, VolumeId};
use crate::device::{Caps, Done, Queue};
use crate::mem::{Buf, Pool};
use crate::store::{self, Io, Phase, Slice, Stamp, Usage, VolumeMeta};
use slab::Slab;

/// Capacities of one core's [`Local`].
#[derive(Clone, Copy, Debug)]
pub struct LocalConfig {
    /// Raw parts under way at once.
    pub raw_parts: usize,
    /// Compares and looks for zeroes under way at once.
    pub compares: usize,
    /// Compare-writes that hold a range at once.
    pub holds: usize,
}

impl Default for LocalConfig {
    fn default() -> LocalConfig {
        LocalConfig { raw_parts: 8192, compares: 256, holds: 64 }
    }
}

/// Epoch of every shard while the cluster has only ever had this node's configuration of it.
const FIRST_EPOCH: u32 = 1;
/// Bits 63:62 of a tag say whose it is: 0 the volume layer's.
const OWNER: u64 = 3 << 62;
/// The read of a Compare or of a look for zeroes; the rest is its slot.
const JUDGE: u64 = 2 << 62;
/// An operation of a compare-write; the rest is its slot.
const HOLD: u64 = 3 << 62;
/// An administrative one: its end goes to [`Local::drain_admin`].
pub const ADMIN: u64 = 1 << 62;
/// Device tokens carry, in their top 16 bits, 0 for a raw part or 1 + the index of the slice.
const TOKEN_TAG_SHIFT: u32 = 48;

struct Device<Q> {
    id: DeviceId,
    queue: Q,
}

struct LogSlice {
    store: StoreId,
    number: SliceId,
    device: DeviceId,
    slice: Slice,
}

/// The media of one core.
pub struct Local<Q: Queue> {
    devices: Vec<Option<Device<Q>>>,
    slices: Vec<Option<LogSlice>>,
    raw: Raw,
    judged: Slab<Judged>,
    judged_max: usize,
    /// Ranges that compare-writes have locked; empty but for those moments.
    holds: Slab<Hold>,
    holds_max: usize,
    lsn: Vec<u64>,
    dones: Vec<Done>,
    log_ended: Vec<store::Ended>,
    ended: Vec<Ended>,
    admin: Vec<(StoreId, SliceId, u64, Status)>,
}

impl<Q: Queue> Local<Q> {
    /// Nothing attached yet.
    pub fn new(config: LocalConfig) -> Local<Q> {
        Local {
            devices: Vec::new(),
            slices: Vec::new(),
            raw: Raw::new(config.raw_parts),
            judged: Slab::with_capacity(config.compares),
            judged_max: config.compares,
            holds: Slab::with_capacity(config.holds),
            holds_max: config.holds,
            lsn: vec![0; usize::from(SHARDS)],
            dones: Vec::with_capacity(1024),
            log_ended: Vec::with_capacity(1024),
            ended: Vec::with_capacity(1024),
            admin: Vec::new(),
        }
    }

    /// Attaches this core's queue to a device.
    pub fn add_device(&mut self, id: DeviceId, queue: Q) {
        let at = usize::from(id.0);
        if self.devices.len() <= at {
            self.devices.resize_with(at + 1, || None);
        }
        assert!(self.devices[at].is_none(), "device {at} attached twice");
        self.devices[at] = Some(Device { id, queue });
    }

    /// Puts another queue in the place of a device's, whose operations have all ended; gives the new one back while they
    /// have not.
    pub fn replace_device(&mut self, id: DeviceId, queue: Q, pool: &mut Pool) -> Result<(), Q> {
        match self.devices.get_mut(usize::from(id.0)) {
            Some(Some(device)) if device.queue.inflight() == 0 && !self.raw.owes() => {
                device.queue.reclaim(pool);
                device.queue = queue;
                Ok(())
            }
            _ => Err(queue),
        }
    }

    /// Detaches a device, or gives `None` while it is busy or slices still stand on it.
    pub fn remove_device(&mut self, id: DeviceId, pool: &mut Pool) -> Option<Q> {
        let slot = self.devices.get_mut(usize::from(id.0))?;
        let busy = slot.as_ref().is_none_or(|d| d.queue.inflight() != 0) || self.raw.owes();
        if busy || self.slices.iter().flatten().any(|s| s.device == id) {
            return None;
        }
        let mut device = slot.take().expect("checked above");
        device.queue.reclaim(pool);
        Some(device.queue)
    }

    /// The queue of a device, for tools and tests.
    pub fn queue(&self, id: DeviceId) -> Option<&Q> {
        self.devices.get(usize::from(id.0))?.as_ref().map(|d| &d.queue)
    }

    /// What a device can do.
    pub fn caps(&self, id: DeviceId) -> Option<&Caps> {
        self.queue(id).map(Queue::caps)
    }

    /// The number by which the next slice's device tokens are told from others; goes into its `SliceConfig`.
    pub fn next_token_tag(&self) -> u16 {
        let free = self.slices.iter().position(Option::is_none).unwrap_or(self.slices.len());
        free as u16 + 1
    }

    /// Attaches a slice made with [`Local::next_token_tag`].
    pub fn add_slice(&mut self, store: StoreId, number: SliceId, device: DeviceId, slice: Slice) {
        let at = usize::from(self.next_token_tag() - 1);
        if at == self.slices.len() {
            self.slices.push(None);
        }
        self.slices[at] = Some(LogSlice { store, number, device, slice });
    }

    /// Detaches the slices of a store once nothing of theirs is under way; false while something is.
    pub fn remove_store(&mut self, store: StoreId, pool: &mut Pool) -> bool {
        let idle = |devices: &[Option<Device<Q>>], id: DeviceId| {
            devices[usize::from(id.0)].as_ref().is_none_or(|d| d.queue.inflight() == 0)
        };
        let busy = |s: &LogSlice| !s.slice.is_quiet() || !idle(&self.devices, s.device);
        if self.of_store(store).any(busy) {
            return false;
        }
        for slot in &mut self.slices {
            if let Some(mut s) = slot.take_if(|s| s.store == store) {
                s.slice.close(pool);
            }
        }
        true
    }

    /// Blocks a volume has mapped in the slices of this core.
    pub fn mapped(&self, store: StoreId, volume: VolumeId) -> u64 {
        self.of_store(store).filter_map(|s| s.slice.mapped_blocks(volume)).sum()
    }

    /// The slices of a store on this core with the phase each is in.
    pub fn phases(&self, store: StoreId) -> impl Iterator<Item = (SliceId, Phase)> {
        self.of_store(store).map(|s| (s.number, s.slice.phase()))
    }

    /// The slices of a store on this core with how full each is.
    pub fn usages(&self, store: StoreId) -> impl Iterator<Item = (SliceId, Usage)> {
        self.of_store(store).map(|s| (s.number, s.slice.usage()))
    }

    /// How far the slices of a store on this core are with verifying their blocks.
    pub fn scrubs(&self, store: StoreId) -> impl Iterator<Item = store::ScrubProgress> {
        self.of_store(store).map(|s| s.slice.scrub_progress())
    }

    /// The volumes a slice of this core knows.
    pub fn volumes(&self, store: StoreId, number: SliceId) -> impl Iterator<Item = &VolumeMeta> {
        self.of_store(store).filter(move |s| s.number == number).flat_map(|s| s.slice.volumes())
    }

    fn of_store(&self, store: StoreId) -> impl Iterator<Item = &LogSlice> {
        self.slices.iter().flatten().filter(move |s| s.store == store)
    }

    /// Runs `change` on every slice of `store` on this core, or on slice `only`; the results come through
    /// [`Local::drain_admin`] with `tag`, one per slice. Returns how many slices were asked.
    pub fn administer(
        &mut self,
        store: StoreId,
        only: Option<SliceId>,
        tag: u64,
        pool: &mut Pool,
        mut change: impl FnMut(&mut Slice, &mut Q, &mut Pool, u64) -> store::Outcome,
    ) -> usize {
        let mut asked = 0;
        for s in self.slices.iter_mut().flatten() {
            if s.store != store || only.is_some_and(|n| n != s.number) {
                continue;
            }
            asked += 1;
            let device = self.devices[usize::from(s.device.0)].as_mut().expect("a slice stands on a device");
            match change(&mut s.slice, &mut device.queue, pool, ADMIN | tag) {
                store::Outcome::Pending => {}
                store::Outcome::Done(e) => self.admin.push((store, s.number, tag, e.status)),
                store::Outcome::Later(_) => self.admin.push((store, s.number, tag, Status::Busy)),
            }
        }
        asked
    }

    /// Ends of [`Local::administer`]: store, slice, tag, status.
    pub fn drain_admin(&mut self) -> impl Iterator<Item = (StoreId, SliceId, u64, Status)> {
        self.admin.drain(..)
    }

    fn read(&mut self, part: &Part, buf: Buf, pool: &mut Pool) -> Outcome {
        match part.home {
            Home::Raw(device) => match self.devices.get_mut(usize::from(device.0)).and_then(Option::as_mut) {
                Some(d) => self.raw.read(part, buf, &mut d.queue),
                None => Outcome::Done(Ended::plain(part.tag, Status::Gone, Some(buf))),
            },
            Home::Log { store, slices } => match find(&mut self.slices, &mut self.devices, store, slices, part) {
                Some((slice, queue)) => {
                    log(slice.read(io(part, Stamp { shard: part.shard, epoch: FIRST_EPOCH, lsn: 0 }), buf, queue, pool))
                }
                None => Outcome::Done(Ended::plain(part.tag, Status::Gone, Some(buf))),
            },
        }
    }

    fn write(&mut self, part: &Part, payload: Payload<'_>, pool: &mut Pool) -> Outcome {
        match part.home {
            Home::Raw(device) => match self.devices.get_mut(usize::from(device.0)).and_then(Option::as_mut) {
                Some(d) => self.raw.write(part, payload, &mut d.queue, pool),
                None => {
                    pool.put_all(payload.into_buf());
                    gone(part.tag)
                }
            },
            Home::Log { store, slices } => {
                let outcome = match find(&mut self.slices, &mut self.devices, store, slices, part) {
                    Some((slice, queue)) => {
                        let stamp = next_stamp(&mut self.lsn, slice, part);
                        log(slice.write(io(part, stamp), payload.bytes(), queue, pool))
                    }
                    None => gone(part.tag),
                };
                // The log has copied the payload, or has taken nothing of it.
                match (outcome, payload) {
                    (Outcome::Later(_), Payload::Owned(buf)) => Outcome::Later(Some(buf)),
                    (outcome, Payload::Owned(buf)) => {
                        pool.put(buf);
                        outcome
                    }
                    (outcome, _) => outcome,
                }
            }
        }
    }

    fn zero(&mut self, part: &Part, pool: &mut Pool) -> Outcome {
        match part.home {
            Home::Raw(device) => match self.devices.get_mut(usize::from(device.0)).and_then(Option::as_mut) {
                Some(d) => self.raw.zero(part, &mut d.queue),
                None => gone(part.tag),
            },
            Home::Log { store, slices } => match find(&mut self.slices, &mut self.devices, store, slices, part) {
                Some((slice, queue)) => {
                    let stamp = next_stamp(&mut self.lsn, slice, part);
                    log(slice.zero(io(part, stamp), queue, pool))
                }
                None => gone(part.tag),
            },
        }
    }

    fn poll(&mut self, now: Time, pool: &mut Pool) -> bool {
        let mut any = false;
        for at in 0..self.devices.len() {
            let Some(device) = &mut self.devices[at] else { continue };
            if device.queue.inflight() == 0 || device.queue.poll(now, &mut self.dones) == 0 {
                continue;
            }
            any = true;
            debug_assert_eq!(usize::from(device.id.0), at);
            for done in self.dones.drain(..) {
                match (done.token >> TOKEN_TAG_SHIFT) as usize {
                    0 => self.ended.extend(self.raw.done(device.id, done, &mut device.queue, pool)),
                    tag => {
                        let slot = self.slices[tag - 1].as_mut().expect("a slice outlives its operations");
                        slot.slice.done(now, done, &mut device.queue, pool);
                    }
                }
            }
        }
        any
    }

    /// Gathers what the logs ended, turns the reads of Compares into their verdicts, and takes compare-writes a step on.
    fn collect(&mut self, pool: &mut Pool) {
        for s in self.slices.iter_mut().flatten() {
            s.slice.drain(&mut self.log_ended);
            for e in self.log_ended.drain(..) {
                if e.tag & OWNER == ADMIN {
                    self.admin.push((s.store, s.number, e.tag & !ADMIN, e.status));
                } else {
                    self.ended.push(Ended::plain(e.tag, e.status, e.buf));
                }
            }
        }
        if self.judged.is_empty() && self.holds.is_empty() {
            return;
        }
        let mut at = 0;
        while at < self.ended.len() {
            let (owner, slot) = (self.ended[at].tag & OWNER, (self.ended[at].tag & !OWNER) as usize);
            if owner != JUDGE && owner != HOLD {
                at += 1;
                continue;
            }
            let e = self.ended.swap_remove(at);
            let verdict = if owner == JUDGE { Some(self.judge(slot, e, pool)) } else { self.hold_ended(slot, e, pool) };
            self.ended.extend(verdict);
        }
    }

    /// True when nothing is under way, here or below.
    pub fn is_idle(&self) -> bool {
        self.raw.inflight() == 0
            && self.holds.is_empty()
            && self.devices.iter().flatten().all(|d| d.queue.inflight() == 0)
    }

    /// Descriptors to sleep on.
    pub fn wait_fds(&self) -> impl Iterator<Item = i32> {
        self.devices.iter().flatten().filter_map(|d| d.queue.wait_fd())
    }

    /// The earliest time at which a device or log has something to do without an outside event.
    pub fn wake_at(&self) -> Option<Time> {
        if self.raw.owes() {
            return Some(Time(0));
        }
        let devices = self.devices.iter().flatten().filter_map(|d| d.queue.wake_at());
        devices.chain(self.slices.iter().flatten().filter_map(|s| s.slice.wake_at())).min()
    }

    /// True when some operation can only be found by polling: its device has no descriptor and names no time.
    pub fn must_poll(&self) -> bool {
        let blind = |q: &Q| q.inflight() != 0 && q.wait_fd().is_none() && q.wake_at().is_none();
        self.devices.iter().flatten().any(|d| blind(&d.queue))
    }
}

impl<Q: Queue> Local<Q> {
    fn flush(&mut self, part: &Part) -> Outcome {
        let Home::Raw(device) = part.home else {
            // A log acknowledges nothing that is not durable.
            return Outcome::Done(Ended::plain(part.tag, Status::Ok, None));
        };
        match self.devices.get_mut(usize::from(device.0)) {
            Some(Some(d)) => self.raw.flush(part, &mut d.queue),
            _ => gone(part.tag),
        }
    }
}

impl<Q: Queue> Shards for Local<Q> {
    fn submit(&mut self, part: &Part, payload: Payload<'_>, pool: &mut Pool) -> Outcome {
        match part.kind {
            Kind::Read => {
                let given = payload.into_buf();
                let keep = given.is_some();
                let Some(mut buf) = given.or_else(|| pool.get(part.len as usize)) else {
                    return Outcome::Later(None);
                };
                buf.set_len(part.len as usize);
                match self.read(part, buf, pool) {
                    Outcome::Later(Some(buf)) if !keep => {
                        pool.put(buf);
                        Outcome::Later(None)
                    }
                    other => other,
                }
            }
            Kind::Compare => self.compare(part, payload, pool),
            Kind::BlockStatus => self.look(part, pool),
            Kind::CompareWrite => self.compare_write(part, payload, pool),
            Kind::Flush => self.flush(part),
            _ if !self.holds.is_empty() && self.is_held(part) => Outcome::Later(payload.into_buf()),
            Kind::Write => self.write(part, payload, pool),
            Kind::WriteZeroes | Kind::Deallocate => self.zero(part, pool),
        }
    }

    /// Polls the devices, moves the logs, hands everything of this turn to the devices.
    fn step(&mut self, now: Time, pool: &mut Pool) -> bool {
        let mut worked = self.poll(now, pool);
        if self.raw.owes() {
            let devices = &mut self.devices;
            self.raw.catch_up(|id, op| {
                let device = devices[usize::from(id.0)].as_mut().expect("a device stays while a flush is owed");
                device.queue.submit(op)
            });
        }
        for s in self.slices.iter_mut().flatten() {
            let device = self.devices[usize::from(s.device.0)].as_mut().expect("a slice stands on a device");
            worked |= s.slice.step(now, &mut device.queue, pool);
        }
        for device in self.devices.iter_mut().flatten() {
            device.queue.kick();
        }
        // Memory-speed devices have already finished what was just submitted: taking it now saves a turn.
        worked |= self.poll(now, pool);
        self.collect(pool);
        if !self.holds.is_empty() {
            worked |= self.step_holds(pool);
        }
        worked
    }

    fn drain(&mut self, out: &mut Vec<Ended>) {
        out.append(&mut self.ended);
    }
}

/// The slice of a part and the queue it stands on.
fn find<'a, Q: Queue>(
    slices: &'a mut [Option<LogSlice>],
    devices: &'a mut [Option<Device<Q>>],
    store: StoreId,
    count: u16,
    part: &Part,
) -> Option<(&'a mut Slice, &'a mut Q)> {
    let number = place::slice(part.shard, count);
    let slot = slices.iter_mut().flatten().find(|s| s.store == store && s.number == number)?;
    let device = devices.get_mut(usize::from(slot.device.0))?.as_mut()?;
    Some((&mut slot.slice, &mut device.queue))
}

/// The stamp of a shard's next write: behind every write of this process and every one that the slice recovered.
fn next_stamp(lsn: &mut [u64], slice: &Slice, part: &Part) -> Stamp {
    let lsn = &mut lsn[usize::from(part.shard.0)];
    *lsn = slice.last_stamp(part.shard).lsn.max(*lsn) + 1;
    Stamp { shard: part.shard, epoch: FIRST_EPOCH, lsn: *lsn }
}

fn io(part: &Part, stamp: Stamp) -> Io {
    Io { volume: part.volume, offset: part.offset, len: part.len, stamp, tag: part.tag }
}

fn log(outcome: store::Outcome) -> Outcome {
    match outcome {
        store::Outcome::Done(e) => Outcome::Done(Ended::plain(e.tag, e.status, e.buf)),
        store::Outcome::Pending => Outcome::Pending,
        store::Outcome::Later(buf) => Outcome::Later(buf),
    }
}

fn gone(tag: u64) -> Outcome {
    Outcome::Done(Ended::plain(tag, Status::Gone, None))
}

#[cfg(test)]
mod tests;
