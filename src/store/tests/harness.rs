//! Drives a slice turn by turn and checks every read against what each sector may hold.

use super::disk::Disk;
use crate::base::{BLOCK, CHUNK, CoreId, ShardId, SliceId, Status, Time, VolumeId};
use crate::device::{DeviceError, Done, Queue};
use crate::mem::{Class, Pool};
use crate::store::{Ended, Io, Limits, Name, Outcome, Phase, Slice, SliceConfig, Stamp, StoreError, VolumeMeta, fsck};
use std::collections::BTreeMap;

pub const SECTOR: u64 = 512;

/// A write's number; the content of its sectors. 0 is "zeroes".
type Generation = u64;

/// What a sector may hold: all writes from the last one known to be in effect, in order of submission.
#[derive(Clone, Debug)]
struct Sector {
    /// (order, generation); the first one is in effect for sure.
    versions: Vec<(u64, Generation)>,
    /// Order of the last zeroing.
    zeroed: u64,
}

enum Pending {
    Write { volume: u32, first: u64, sectors: u64, order: u64 },
    Read { volume: u32, first: u64, sectors: u64, floor: Vec<u64> },
    Other,
}

pub struct Harness {
    pub cfg: SliceConfig,
    pub disk: Disk,
    pub pool: Pool,
    pub slice: Slice,
    pub now: Time,
    model: BTreeMap<(u32, u64), Sector>,
    pending: BTreeMap<u64, Pending>,
    pub ended: BTreeMap<u64, Status>,
    next_tag: u64,
    order: u64,
    dones: Vec<Done>,
    drained: Vec<Ended>,
    /// Reads may end with a media error.
    pub media_errors_ok: bool,
    pub media_errors: u64,
}

pub fn meta(id: u32, bytes: u64) -> VolumeMeta {
    VolumeMeta {
        id: VolumeId(id),
        uuid: [id as u8; 16],
        name: Name::new(&format!("volume-{id}")).unwrap(),
        bytes,
        lba_bytes: 512,
        thin: true,
        read_only: false,
        created: 7,
    }
}

pub fn config(segments: u64, limits: Limits) -> SliceConfig {
    SliceConfig {
        store: [42; 16],
        name: Name::new("store").unwrap(),
        slice: SliceId(0),
        slices: 1,
        offset: 8192,
        len: (128 << 10) + segments * u64::from(limits.segment_bytes),
        token_tag: 0x1234,
        limits,
    }
}

pub fn pool() -> Pool {
    let classes = [
        Class { size: 4096, count: 256 },
        Class { size: 32 << 10, count: 64 },
        Class { size: 1 << 20, count: 12 },
        Class { size: 2 << 20, count: 4 },
    ];
    Pool::standalone(CoreId(0), &classes).unwrap()
}

fn fill(volume: u32, sector: u64, generation: Generation, out: &mut [u8]) {
    if generation == 0 {
        out.fill(0);
        return;
    }
    let words = [generation, u64::from(volume) << 48 | sector];
    for (n, chunk) in out.chunks_exact_mut(8).enumerate() {
        let word = if n < 2 { words[n] } else { words[0].wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ words[1] ^ n as u64 };
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

impl Harness {
    pub fn new(segments: u64, limits: Limits, volatile: bool, memory: bool, seed: u64) -> Harness {
        Harness::with(config(segments, limits), volatile, memory, seed)
    }

    pub fn with(cfg: SliceConfig, volatile: bool, memory: bool, seed: u64) -> Harness {
        let disk = Disk::new((cfg.offset + cfg.len) as usize, volatile, memory, seed);
        let slice = Slice::format(cfg.clone());
        let mut h = Harness {
            cfg,
            disk,
            pool: pool(),
            slice,
            now: Time(1),
            model: BTreeMap::new(),
            pending: BTreeMap::new(),
            ended: BTreeMap::new(),
            next_tag: 1,
            order: 0,
            dones: Vec::new(),
            drained: Vec::new(),
            media_errors_ok: false,
            media_errors: 0,
        };
        h.until_ready();
        h
    }

    pub fn turn(&mut self) {
        self.now = self.now.after_ns(10_000);
        self.disk.poll(self.now, &mut self.dones);
        for done in self.dones.drain(..) {
            assert_eq!(done.token >> 48, 0x1234);
            self.slice.done(self.now, done, &mut self.disk, &mut self.pool);
        }
        self.slice.step(self.now, &mut self.disk, &mut self.pool);
        self.disk.kick();
        self.drain();
    }

    fn drain(&mut self) {
        let mut drained = std::mem::take(&mut self.drained);
        self.slice.drain(&mut drained);
        for ended in drained.drain(..) {
            self.end(ended);
        }
        self.drained = drained;
    }

    pub fn until_ready(&mut self) {
        let phase = self.until_started();
        assert_eq!(phase, Phase::Ready);
    }

    pub fn until_started(&mut self) -> Phase {
        for _ in 0..200_000 {
            self.turn();
            if !matches!(self.slice.phase(), Phase::Starting { .. }) {
                return self.slice.phase();
            }
        }
        panic!("the slice never starts: {:?}", self.slice.phase());
    }

    pub fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }

    fn io(volume: u32, first: u64, sectors: u64, order: u64, tag: u64) -> Io {
        let shard = ShardId(((first * SECTOR / CHUNK) % 256) as u16);
        let stamp = Stamp { shard, epoch: 1, lsn: order };
        Io { volume: VolumeId(volume), offset: first * SECTOR, len: (sectors * SECTOR) as u32, stamp, tag }
    }

    /// Starts a write of sectors; false when the slice asked to try later.
    pub fn write(&mut self, volume: u32, first: u64, sectors: u64) -> Option<u64> {
        let generation = self.order + 1;
        let mut data = vec![0; (sectors * SECTOR) as usize];
        for (n, out) in data.chunks_mut(SECTOR as usize).enumerate() {
            fill(volume, first + n as u64, generation, out);
        }
        self.change(volume, first, sectors, generation, |h, io| h.slice.write(io, &data, &mut h.disk, &mut h.pool))
    }

    /// Starts to zero sectors.
    pub fn zero(&mut self, volume: u32, first: u64, sectors: u64) -> Option<u64> {
        self.change(volume, first, sectors, 0, |h, io| h.slice.zero(io, &mut h.disk, &mut h.pool))
    }

    fn change(
        &mut self,
        volume: u32,
        first: u64,
        sectors: u64,
        generation: Generation,
        submit: impl FnOnce(&mut Harness, Io) -> Outcome,
    ) -> Option<u64> {
        self.order += 1;
        let (order, tag) = (self.order, self.tag());
        let outcome = submit(self, Self::io(volume, first, sectors, order, tag));
        match outcome {
            Outcome::Later(_) => return None,
            Outcome::Done(e) if !e.status.is_ok() => {
                self.ended.insert(tag, e.status);
                return Some(tag);
            }
            Outcome::Done(_) => panic!("a change is durable later"),
            Outcome::Pending => {}
        }
        for sector in first..first + sectors {
            let s = self.sector(volume, sector);
            s.versions.push((order, generation));
            s.zeroed = if generation == 0 { order } else { s.zeroed };
        }
        self.pending.insert(tag, Pending::Write { volume, first, sectors, order });
        Some(tag)
    }

    fn sector(&mut self, volume: u32, sector: u64) -> &mut Sector {
        self.model.entry((volume, sector)).or_insert_with(|| Sector { versions: vec![(0, 0)], zeroed: 0 })
    }

    /// Starts a read.
    pub fn read(&mut self, volume: u32, first: u64, sectors: u64) -> Option<u64> {
        let floor = (first..first + sectors).map(|s| self.sector(volume, s).versions[0].0).collect();
        let tag = self.tag();
        let buf = self.pool.get((sectors * SECTOR) as usize)?;
        self.pending.insert(tag, Pending::Read { volume, first, sectors, floor });
        match self.slice.read(Self::io(volume, first, sectors, 0, tag), buf, &mut self.disk, &mut self.pool) {
            Outcome::Pending => {}
            Outcome::Done(ended) => self.end(ended),
            Outcome::Later(buf) => {
                self.pending.remove(&tag);
                self.pool.put(buf.unwrap());
                return None;
            }
        }
        Some(tag)
    }

    fn end(&mut self, ended: Ended) {
        self.ended.insert(ended.tag, ended.status);
        match self.pending.remove(&ended.tag).expect("an end has a beginning") {
            Pending::Write { volume, first, sectors, order } => {
                assert!(ended.buf.is_none());
                if ended.status.is_ok() {
                    for s in first..first + sectors {
                        self.settle(volume, s, order);
                    }
                }
            }
            Pending::Read { volume, first, sectors, floor } => {
                let buf = ended.buf.expect("a read brings its buffer");
                assert_eq!(buf.len() as u64, sectors * SECTOR);
                if ended.status.is_ok() {
                    for (n, data) in buf.chunks(SECTOR as usize).enumerate() {
                        self.check(volume, first + n as u64, floor[n], data);
                    }
                } else {
                    assert!(self.media_errors_ok && ended.status == Status::MediaError, "{:?}", ended.status);
                    self.media_errors += 1;
                }
                self.pool.put(buf);
            }
            Pending::Other => {}
        }
    }

    /// Everything before this version is over.
    fn settle(&mut self, volume: u32, sector: u64, order: u64) {
        let versions = &mut self.sector(volume, sector).versions;
        while versions.len() > 1 && versions[1].0 <= order {
            versions.remove(0);
        }
    }

    /// What was read is one of the versions from `floor` on; having been seen, it never goes back.
    fn check(&mut self, volume: u32, sector: u64, floor: u64, data: &[u8]) {
        let mut expected = [0; SECTOR as usize];
        let versions = self.sector(volume, sector).versions.clone();
        for (order, generation) in versions.iter().rev().filter(|(order, _)| *order >= floor) {
            fill(volume, sector, *generation, &mut expected);
            if expected == data {
                if *generation != 0 {
                    self.settle(volume, sector, *order);
                }
                return;
            }
        }
        // The version that was in effect when the read began may have been replaced while it was under way.
        let generation = u64::from_le_bytes(data[..8].try_into().unwrap());
        fill(volume, sector, generation, &mut expected);
        let order = if generation == 0 { self.sector(volume, sector).zeroed } else { generation };
        assert!(
            expected == data && order >= floor && order < versions[0].0,
            "volume {volume} sector {sector}: holds generation {generation}, may hold {versions:?}, floor {floor}"
        );
    }

    pub fn other(&mut self, outcome: Outcome, tag: u64) -> u64 {
        match outcome {
            Outcome::Pending => {
                self.pending.insert(tag, Pending::Other);
            }
            Outcome::Done(e) => {
                self.ended.insert(tag, e.status);
            }
            Outcome::Later(_) => panic!("not now"),
        }
        tag
    }

    /// Submits with retries and waits for the end.
    pub fn wait(&mut self, tag: u64) -> Status {
        for _ in 0..100_000 {
            if let Some(status) = self.ended.get(&tag) {
                return *status;
            }
            self.turn();
        }
        panic!("request {tag} never ends; {:?} {:?}", self.slice.phase(), self.slice.usage());
    }

    pub fn retry(&mut self, mut f: impl FnMut(&mut Harness) -> Option<u64>) -> u64 {
        for _ in 0..100_000 {
            if let Some(tag) = f(self) {
                return tag;
            }
            self.turn();
        }
        panic!("refused for ever: {:?}", self.slice.usage());
    }

    pub fn write_wait(&mut self, volume: u32, first: u64, sectors: u64) -> Status {
        let tag = self.retry(|h| h.write(volume, first, sectors));
        self.wait(tag)
    }
    pub fn read_wait(&mut self, volume: u32, first: u64, sectors: u64) -> Status {
        let tag = self.retry(|h| h.read(volume, first, sectors));
        self.wait(tag)
    }
    pub fn zero_wait(&mut self, volume: u32, first: u64, sectors: u64) -> Status {
        let tag = self.retry(|h| h.zero(volume, first, sectors));
        self.wait(tag)
    }

    /// Waits until nothing is under way.
    pub fn quiesce(&mut self) {
        for _ in 0..100_000 {
            if self.pending.is_empty() {
                return;
            }
            self.turn();
        }
        panic!("never quiet: {:?}", self.slice.usage());
    }

    pub fn set_volume(&mut self, m: VolumeMeta) -> Status {
        let before = self.slice.volumes().find(|v| v.id == m.id).map(|v| v.bytes);
        for _ in 0..10_000 {
            let tag = self.tag();
            match self.slice.set_volume(m, tag, &mut self.disk, &mut self.pool) {
                Outcome::Later(_) => self.turn(),
                outcome => {
                    self.other(outcome, tag);
                    let status = self.wait(tag);
                    if status.is_ok() && before.is_some_and(|b| b > m.bytes) {
                        self.forget(m.id.0, m.bytes / SECTOR);
                    }
                    return status;
                }
            }
        }
        panic!("a volume can not be set");
    }

    fn forget(&mut self, volume: u32, from: u64) {
        let order = self.order;
        for (_, s) in self.model.range_mut((volume, from)..=(volume, u64::MAX)) {
            s.versions = vec![(order, 0)];
            s.zeroed = order;
        }
    }

    pub fn delete_volume(&mut self, id: u32) -> Status {
        for _ in 0..10_000 {
            let tag = self.tag();
            match self.slice.delete_volume(VolumeId(id), tag, &mut self.disk, &mut self.pool) {
                Outcome::Later(_) => self.turn(),
                outcome => {
                    self.other(outcome, tag);
                    self.model.retain(|(v, _), _| *v != id);
                    return self.wait(tag);
                }
            }
        }
        panic!("a volume can not be deleted");
    }

    pub fn checkpoint(&mut self) -> Status {
        let tag = self.tag();
        let outcome = self.slice.checkpoint(tag);
        self.other(outcome, tag);
        self.wait(tag)
    }

    /// The power goes; the slice is opened again. What was under way may or may not have happened.
    pub fn crash(&mut self) {
        assert_eq!(self.crash_phase(), Phase::Ready);
    }

    /// The power goes; how opening the slice ends.
    pub fn crash_phase(&mut self) -> Phase {
        let image = self.disk.crash_image();
        self.stop_slice();
        self.disk.restart(image);
        self.pending.clear();
        self.slice = Slice::open(self.cfg.clone());
        self.until_started()
    }

    /// Takes the slice out of use, as if its process had gone, and gets all buffers back.
    fn stop_slice(&mut self) {
        self.disk.held = false;
        let gone = StoreError::Device { op: "read", offset: 0, error: DeviceError::Dead };
        self.slice.die(gone, &mut self.pool);
        while !self.slice.is_quiet() {
            self.slice.step(self.now, &mut self.disk, &mut self.pool);
            self.disk.poll(self.now, &mut self.dones);
            for done in self.dones.drain(..) {
                self.slice.done(self.now, done, &mut self.disk, &mut self.pool);
            }
        }
        self.slice.close(&mut self.pool);
        self.slice.drain(&mut self.drained);
        for ended in self.drained.drain(..) {
            if let Some(buf) = ended.buf {
                self.pool.put(buf);
            }
        }
        for s in self.pool.stats() {
            assert_eq!(s.free, s.total, "buffers of {} bytes are missing", s.size);
        }
    }

    /// What the offline checker says of the medium as it is.
    pub fn fsck(&self) -> fsck::Report {
        let mut read = |at: u64, into: &mut [u8]| {
            self.disk.peek(at, into);
            Ok(())
        };
        let base = self.cfg.offset;
        fsck::check_one(base, base + self.cfg.len, &mut read).unwrap()
    }

    /// The checker finds nothing wrong and sees what the slice sees.
    pub fn assert_sound(&self) {
        let report = self.fsck();
        assert!(report.is_clean(), "{report:?}");
        let seen = report.slices[0];
        assert_eq!(seen.mapped, self.slice.usage().mapped);
        assert_eq!(seen.volumes as usize, self.slice.volumes().count());
    }

    /// Reads everything the model knows and checks it.
    pub fn verify(&mut self) {
        self.quiesce();
        let keys: Vec<(u32, u64)> = self.model.keys().copied().collect();
        let mut n = 0;
        while n < keys.len() {
            let (volume, first) = keys[n];
            let mut run = 1;
            let limit = CHUNK / SECTOR;
            while n + run < keys.len()
                && keys[n + run] == (volume, first + run as u64)
                && (first + run as u64) / limit == first / limit
            {
                run += 1;
            }
            let bytes = self.slice.volumes().find(|v| v.id.0 == volume).map_or(0, |v| v.bytes);
            let inside = run.min((bytes / SECTOR).saturating_sub(first) as usize);
            if inside > 0 {
                let status = self.read_wait(volume, first, inside as u64);
                assert!(status.is_ok() || self.media_errors_ok, "{status:?}");
            }
            n += run;
        }
    }

    /// After a crash: what is read now is what is; later reads may not differ.
    pub fn pin(&mut self) {
        self.verify();
        self.verify();
    }

    /// The content of a block, unchecked.
    pub fn read_raw(&mut self, volume: u32, block: u64) -> Vec<u8> {
        let tag = self.tag();
        let buf = self.pool.get(BLOCK).unwrap();
        let io = Self::io(volume, block * Self::BLOCK_SECTORS, Self::BLOCK_SECTORS, 0, tag);
        let Outcome::Done(ended) = self.slice.read(io, buf, &mut self.disk, &mut self.pool) else {
            panic!("only on a device of memory")
        };
        let buf = ended.buf.unwrap();
        let bytes = buf.to_vec();
        self.pool.put(buf);
        bytes
    }

    pub fn blocks(&self, volume: u32) -> u64 {
        self.slice.mapped_blocks(VolumeId(volume)).unwrap()
    }

    /// Every buffer has come home.
    pub fn close(mut self) {
        self.quiesce();
        self.stop_slice();
    }

    pub const BLOCK_SECTORS: u64 = BLOCK as u64 / SECTOR;
}
