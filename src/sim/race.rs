//! Hosts that race: random writes, zeroings, reads and compare-writes from several cores to the blocks on both sides of a
//! chunk border, on raw memory and on log slices, at memory speed and with delayed media. Every write has a value of its
//! own, so what each block went through can be told from what reads and compare-writes saw.

use crate::base::limits::ATOMIC_BYTES;
use crate::base::rng::Rng;
use crate::base::{CHUNK, CoreId, SliceId, Status, Time, VolumeId};
use crate::device::delay::{DelayHandle, DelayQueue, Latency};
use crate::device::{OpKind, RamMedium, RamQueue, RamSpec};
use crate::mem::{Class, Pool};
use crate::repl::{DeviceId, Home, Local, LocalConfig, StoreId};
use crate::store::{Limits, Name, Slice, SliceConfig, VolumeMeta};
use crate::volume::{
    Completion, Detail, Entry, Front, FrontConfig, Info, Kind, Payload, Request, Submit, Table, Volumes,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const VOLUME: VolumeId = VolumeId(1);
const STORE: StoreId = StoreId(0);
const DEVICE: DeviceId = DeviceId(0);
/// Blocks that are raced for, half of them on each side of the border.
const BLOCKS: u64 = 24;
/// Most blocks of one request.
const LONGEST: u64 = 5;
/// Requests under way at once.
const DEPTH: usize = 10;
/// A turn of all cores.
const TURN_NS: u64 = 1000;

/// One arrangement.
#[derive(Clone, Copy, Debug)]
struct Setup {
    seed: u64,
    cores: u16,
    log: bool,
    block_size: u32,
    delayed: bool,
    /// Hardly enough buffers for what is asked at once.
    scarce: bool,
    /// Compare-writes as a careless host would do them: a compare, then a write.
    in_two: bool,
}

/// A value that was written to a block.
#[derive(Clone, Copy, Debug)]
struct Written {
    value: u64,
    started: u64,
    ended: Option<u64>,
    /// What a successful compare-write found there: the value right before.
    after: Option<u64>,
}

#[derive(Clone, Debug)]
struct Open {
    kind: Kind,
    first: u64,
    blocks: u64,
    started: u64,
    value: u64,
    expected: Vec<u64>,
    core: usize,
    /// The compare of a compare-write in two.
    to_write: bool,
}

struct Race {
    setup: Setup,
    fronts: Vec<Front<Local<DelayQueue<RamQueue>>>>,
    pools: Vec<Pool>,
    now: Time,
    rng: Rng,
    clock: u64,
    tag: u64,
    open: BTreeMap<u64, Open>,
    history: Vec<Vec<Written>>,
    matched: u64,
    differed: u64,
}

fn latency(delayed: bool) -> DelayHandle {
    let mut latency = Latency::default();
    if delayed {
        for (kind, ns) in [(OpKind::Read, 3000), (OpKind::Write, 5000), (OpKind::WriteZeroes, 4000)] {
            latency.of_mut(kind).usual = ns;
            latency.of_mut(kind).p99 = 9 * ns;
        }
    }
    DelayHandle::new(&latency)
}

impl Race {
    fn new(setup: Setup) -> Race {
        let Setup { seed, cores, log, block_size, .. } = setup;
        let slices = cores.next_power_of_two();
        let slice_bytes = 16u64 << 20;
        let spec = RamSpec { size: slice_bytes * u64::from(slices), block: Some(512), lazy: true };
        let medium = Arc::new(RamMedium::open(&spec).unwrap());
        let home = if log { Home::Log { store: STORE, slices } } else { Home::Raw(DEVICE) };
        let info = Info {
            id: VOLUME,
            block_size,
            blocks: 2 * CHUNK / u64::from(block_size),
            uuid: [7; 16],
            thin: true,
            read_only: false,
            volatile_cache: false,
            atomic_blocks: 1,
        };
        let table = Arc::new(Table::new([Entry { info, home, reservations: Arc::default() }]));
        let (small, large) = if setup.scarce { (7, 6) } else { (256, 48) };
        let classes = [Class { size: 4096, count: small }, Class { size: 256 << 10, count: large }];
        let mut race = Race {
            setup,
            fronts: vec![],
            pools: vec![],
            now: Time(1),
            rng: Rng::new(seed),
            clock: 0,
            tag: 0,
            open: BTreeMap::new(),
            history: (0..BLOCKS).map(|_| vec![Written { value: 0, started: 0, ended: Some(0), after: None }]).collect(),
            matched: 0,
            differed: 0,
        };
        for core in 0..cores {
            let mut local = Local::new(LocalConfig { raw_parts: 64, compares: 8, holds: 4 });
            let queue = RamQueue::new(Arc::clone(&medium), 64);
            local.add_device(DEVICE, DelayQueue::new(queue, latency(setup.delayed), seed + u64::from(core)));
            for n in (0..slices).filter(|n| log && n % cores == core) {
                let config = SliceConfig {
                    store: [1; 16],
                    name: Name::new("s").unwrap(),
                    slice: SliceId(n),
                    slices,
                    offset: slice_bytes * u64::from(n),
                    len: slice_bytes,
                    token_tag: local.next_token_tag(),
                    limits: Limits::tiny(),
                };
                local.add_slice(STORE, SliceId(n), DEVICE, Slice::format(config));
            }
            let config = FrontConfig { requests: 16, remote_parts: 3 };
            let mut front = Front::new(CoreId(core), cores, config, local);
            front.configure(Arc::clone(&table));
            race.fronts.push(front);
            race.pools.push(Pool::standalone(CoreId(core), &classes).unwrap());
        }
        (0..2000).for_each(|_| race.turn());
        let meta = VolumeMeta {
            id: VOLUME,
            uuid: [7; 16],
            name: Name::new("v").unwrap(),
            bytes: 2 * CHUNK,
            lba_bytes: block_size,
            thin: true,
            read_only: false,
            created: 0,
        };
        for (front, pool) in race.fronts.iter_mut().zip(&mut race.pools) {
            front.local().administer(STORE, None, 5, pool, |s, q, pool, tag| s.set_volume(meta, tag, q, pool));
        }
        (0..2000).for_each(|_| race.turn());
        for front in &mut race.fronts {
            assert!(front.local().drain_admin().all(|(.., status)| status.is_ok()));
        }
        race
    }

    fn first_lba(&self) -> u64 {
        CHUNK / u64::from(self.setup.block_size) - BLOCKS / 2
    }

    fn turn(&mut self) {
        self.now = self.now.after_ns(TURN_NS);
        let mut mail = vec![];
        for (core, front) in self.fronts.iter_mut().enumerate() {
            front.step(self.now, &mut self.pools[core]);
            front.post(|to, m| {
                mail.push((core, to, m));
                Ok(())
            });
        }
        for (from, to, m) in mail {
            self.fronts[to.index()].receive(CoreId(from as u16), m, &mut self.pools[to.index()]);
        }
    }

    fn fill(&self, values: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
        for value in values {
            for _ in 0..self.setup.block_size / 8 {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    /// Submits a request; false when it was put off.
    fn start(&mut self, mut op: Open) -> bool {
        let mut data = vec![];
        let new = vec![op.value; op.blocks as usize];
        match op.kind {
            Kind::Write => self.fill(new.into_iter(), &mut data),
            Kind::Compare => self.fill(op.expected.iter().copied(), &mut data),
            Kind::CompareWrite => self.fill(op.expected.iter().copied().chain(new), &mut data),
            _ => {}
        }
        self.tag += 1;
        self.clock += 1;
        op.started = self.clock;
        let (tag, core, lba) = (self.tag, op.core, self.first_lba() + op.first);
        let request = Request { volume: VOLUME, kind: op.kind, lba, blocks: op.blocks as u32, fua: false, tag };
        let payload = if data.is_empty() { Payload::None } else { Payload::Borrowed(&data) };
        let outcome = self.fronts[core].submit(request, payload, &mut self.pools[core]);
        if let Submit::Later(buf) = outcome {
            assert!(buf.is_none(), "nothing was given");
            return false;
        }
        if op.kind.changes() {
            for block in op.first..op.first + op.blocks {
                let after = (op.kind == Kind::CompareWrite).then(|| op.expected[(block - op.first) as usize]);
                let written = Written { value: op.value, started: op.started, ended: None, after };
                self.history[block as usize].push(written);
            }
        }
        self.open.insert(tag, op);
        if let Submit::Done(c) = outcome {
            self.ended(core, c);
        }
        true
    }

    fn ended(&mut self, core: usize, c: Completion) {
        let op = self.open.remove(&c.tag).expect("a request of ours");
        self.clock += 1;
        let bytes = c.buf.map(|buf| {
            let bytes = buf.to_vec();
            self.pools[core].put(buf);
            bytes
        });
        match (op.kind, c.status) {
            (Kind::Read, Status::Ok) => {
                let bytes = bytes.expect("a read brings data");
                for (n, block) in bytes.chunks(self.setup.block_size as usize).enumerate() {
                    let word = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap());
                    assert!((0..block.len()).step_by(8).all(|at| word(at) == word(0)), "a torn block");
                    self.seen(op.first as usize + n, word(0), op.started, 0);
                }
            }
            (Kind::Compare, Status::Ok) if op.to_write => {
                // What a careless host does next; it is judged as the compare-write that it stands for.
                let write = Open { kind: Kind::Write, ..op.clone() };
                while !self.start(write.clone()) {
                    self.turn();
                    self.drain();
                }
                for (n, block) in (op.first..op.first + op.blocks).enumerate() {
                    let history = &mut self.history[block as usize];
                    let mine = history.iter_mut().find(|w| w.value == op.value).expect("just started");
                    mine.after = Some(op.expected[n]);
                }
                self.compared_equal(&op);
            }
            (Kind::CompareWrite, Status::Ok) => {
                self.compared_equal(&op);
                self.written(&op);
            }
            (Kind::CompareWrite, Status::CompareMismatch) => {
                self.differed += 1;
                assert!(u64::from(c.detail.differs_at()) < op.blocks * u64::from(self.setup.block_size));
                for block in op.first..op.first + op.blocks {
                    self.history[block as usize].retain(|w| w.value != op.value);
                }
            }
            (Kind::Compare, Status::CompareMismatch) => self.differed += 1,
            (Kind::Write | Kind::WriteZeroes | Kind::Deallocate, Status::Ok) => self.written(&op),
            (kind, status) => panic!("{kind:?} ended with {status:?}"),
        }
    }

    fn written(&mut self, op: &Open) {
        for block in op.first..op.first + op.blocks {
            let history = &mut self.history[block as usize];
            let mine = history.iter_mut().find(|w| w.value == op.value && w.started == op.started);
            mine.expect("it was noted when it began").ended = Some(self.clock);
        }
    }

    fn compared_equal(&mut self, op: &Open) {
        self.matched += 1;
        for (n, block) in (op.first..op.first + op.blocks).enumerate() {
            let expected = op.expected[n];
            self.seen(block as usize, expected, op.started, op.value);
            let also = self.history[block as usize].iter().filter(|w| w.after == Some(expected) && w.ended.is_some());
            assert!(
                expected == 0 || also.clone().all(|w| w.value == op.value),
                "block {block}: two compare-writes found {expected}: {also:?}"
            );
        }
    }

    /// A request that started at `started` saw `value` in a block: nothing that came after it may have ended before.
    fn seen(&self, block: usize, value: u64, started: u64, own: u64) {
        if value == 0 {
            return;
        }
        let history = &self.history[block];
        let seen = history.iter().find(|w| w.value == value).expect("a value that was written");
        let buried = |w: &&Written| {
            w.value != own && seen.ended.is_some_and(|e| e < w.started) && w.ended.is_some_and(|e| e < started)
        };
        let over = history.iter().find(buried);
        assert!(over.is_none(), "block {block}: {value} was seen after {over:?}");
    }

    fn drain(&mut self) {
        for core in 0..self.fronts.len() {
            let mut done = vec![];
            self.fronts[core].drain(&mut done);
            for c in done {
                self.ended(core, c);
            }
        }
    }

    fn draw(&mut self) -> Open {
        let blocks = 1 + self.rng.below(LONGEST);
        let first = self.rng.below(BLOCKS - blocks + 1);
        let core = self.rng.below(self.fronts.len() as u64) as usize;
        // Mostly what was written last, as far as anybody knows; now and then what is long gone.
        let stale = self.rng.chance(15);
        let guess = |h: &Vec<Written>| {
            let ended = h.iter().filter(|w| w.ended.is_some());
            let one = if stale { ended.min_by_key(|w| w.ended) } else { ended.max_by_key(|w| w.ended) };
            one.expect("something was there at first").value
        };
        let expected = self.history[first as usize..(first + blocks) as usize].iter().map(guess).collect();
        self.tag += 1;
        let op = Open { kind: Kind::Read, first, blocks, started: 0, value: self.tag, expected, core, to_write: false };
        let kind = match self.rng.below(10) {
            0..=4 => Kind::CompareWrite,
            5 | 6 => Kind::Write,
            7 => [Kind::WriteZeroes, Kind::Deallocate][self.rng.below(2) as usize],
            _ => Kind::Read,
        };
        let zeroes = matches!(kind, Kind::WriteZeroes | Kind::Deallocate);
        let in_two = kind == Kind::CompareWrite && self.setup.in_two;
        let kind = if in_two { Kind::Compare } else { kind };
        Open { kind, value: if zeroes { 0 } else { op.value }, to_write: in_two, ..op }
    }

    fn settle(&mut self) {
        for turn in 0.. {
            self.drain();
            if self.open.is_empty() {
                break;
            }
            assert!(turn < 100_000, "stuck: {:?}", self.open);
            self.turn();
        }
    }

    /// Some requests at once, then what is left is held against all of them.
    fn round(&mut self) {
        let mut left = 60;
        while left > 0 {
            if self.open.len() < DEPTH && self.rng.chance(70) {
                let op = self.draw();
                left -= u32::from(self.start(op));
            } else {
                self.turn();
                self.drain();
            }
        }
        self.settle();
        for block in 0..BLOCKS {
            let value = self.value(block);
            self.seen(block as usize, value, self.clock, 0);
            let history = &self.history[block as usize];
            let last = *history.iter().find(|w| w.value == value).expect("a value that was written");
            if let Some(before) = last.after.filter(|before| *before != 0) {
                let before = *history.iter().find(|w| w.value == before).expect("a value that was written");
                let between = history.iter().find(|w| w.value != value && before.ended.is_some_and(|e| e < w.started));
                assert!(between.is_none(), "block {block}: {between:?} is lost between {before:?} and {last:?}");
            }
            self.history[block as usize] = vec![Written { started: 0, ended: Some(0), after: None, ..last }];
        }
    }

    /// What a block holds while nothing is under way.
    fn value(&mut self, block: u64) -> u64 {
        let (core, lba) = (self.rng.below(self.fronts.len() as u64) as usize, self.first_lba() + block);
        let (status, _, bytes) = self.alone(core, Kind::Read, lba, 1, &[]);
        assert_eq!(status, Status::Ok);
        u64::from_le_bytes(bytes[..8].try_into().unwrap())
    }

    fn alone(&mut self, core: usize, kind: Kind, lba: u64, blocks: u32, data: &[u8]) -> (Status, Detail, Vec<u8>) {
        let request = Request { volume: VOLUME, kind, lba, blocks, fua: false, tag: 0 };
        let mut done = vec![];
        loop {
            let payload = if data.is_empty() { Payload::None } else { Payload::Borrowed(data) };
            match self.fronts[core].submit(request, payload, &mut self.pools[core]) {
                Submit::Done(c) => done.push(c),
                Submit::Pending => {}
                Submit::Later(_) => {
                    self.turn();
                    continue;
                }
            }
            while done.is_empty() {
                self.turn();
                self.fronts[core].drain(&mut done);
            }
            let c = done.remove(0);
            let bytes = c.buf.as_deref().map(<[u8]>::to_vec).unwrap_or_default();
            self.pools[core].put_all(c.buf);
            return (c.status, c.detail, bytes);
        }
    }

    /// With nothing else under way a compare-write over the border does exactly what it says, from every core.
    fn over_the_border(&mut self) {
        let (size, lba) = (self.setup.block_size as usize, self.first_lba());
        let blocks = BLOCKS as u32;
        for core in 0..self.fronts.len() {
            let (_, _, old) = self.alone(core, Kind::Read, lba, blocks, &[]);
            let mut data = old.clone();
            data.extend(old.iter().map(|b| !b));
            let wrong = self.rng.below(old.len() as u64) as usize;
            data[wrong] ^= 1;
            let (status, detail, _) = self.alone(core, Kind::CompareWrite, lba, blocks, &data);
            assert_eq!((status, detail.differs_at()), (Status::CompareMismatch, wrong as u32));
            assert_eq!(self.alone(core, Kind::Read, lba, blocks, &[]).2, old);
            data[wrong] ^= 1;
            assert_eq!(self.alone(core, Kind::CompareWrite, lba, blocks, &data).0, Status::Ok);
            assert_eq!(self.alone(core, Kind::Read, lba, blocks, &[]).2, data[BLOCKS as usize * size..]);
            self.alone(core, Kind::Write, lba, blocks, &old);
        }
    }

    /// Runs of mapped blocks are where data is.
    fn runs(&mut self) {
        let per_chunk = CHUNK / u64::from(self.setup.block_size);
        assert_eq!(self.alone(0, Kind::WriteZeroes, 0, 2 * per_chunk as u32, &[]).0, Status::Ok);
        let block = 4096 / u64::from(self.setup.block_size);
        let data = vec![1; 8192];
        let at = per_chunk + 4 * block;
        assert_eq!(self.alone(0, Kind::Write, at, 2 * block as u32, &data).0, Status::Ok);
        let mut runs = vec![];
        let mut lba = 0;
        while lba < 2 * per_chunk {
            let core = self.rng.below(self.fronts.len() as u64) as usize;
            let (status, detail, _) = self.alone(core, Kind::BlockStatus, lba, (2 * per_chunk - lba) as u32, &[]);
            assert_eq!(status, Status::Ok);
            let len = u64::from(detail.run().len) / u64::from(self.setup.block_size);
            assert!(len > 0 && lba + len <= 2 * per_chunk);
            match runs.last_mut() {
                Some((mapped, sum)) if *mapped == detail.run().mapped => *sum += len,
                _ => runs.push((detail.run().mapped, len)),
            }
            lba += len;
        }
        assert_eq!(runs, [(false, at), (true, 2 * block), (false, per_chunk - 6 * block)]);
    }

    /// Blocks written one by one lie apart on the medium; then aligned units are written as one, again and again, while
    /// others read them: every read of a unit shows one value. Returns how many reads there were.
    fn units(&mut self) -> u32 {
        let per_unit = ATOMIC_BYTES as u64 / u64::from(self.setup.block_size);
        let step = 4096 / u64::from(self.setup.block_size).min(4096);
        let mut reads = 0;
        for _ in 0..30 {
            let unit = self.rng.below(4) * per_unit;
            let mut order: Vec<u64> = (0..per_unit / step).collect();
            for at in (1..order.len()).rev() {
                order.swap(at, self.rng.below(at as u64 + 1) as usize);
            }
            self.tag += 1;
            let one = vec![self.tag.to_le_bytes(); step as usize * self.setup.block_size as usize / 8].concat();
            for at in order {
                assert_eq!(self.alone(0, Kind::Write, unit + at * step, step as u32, &one).0, Status::Ok);
            }
            let mut under_way = BTreeMap::new();
            let mut left = 12;
            while left > 0 || !under_way.is_empty() {
                if left > 0 && under_way.len() < 6 {
                    let core = self.rng.below(self.fronts.len() as u64) as usize;
                    let writes = self.rng.chance(40);
                    self.tag += 1;
                    let data = vec![self.tag.to_le_bytes(); ATOMIC_BYTES / 8].concat();
                    let kind = if writes { Kind::Write } else { Kind::Read };
                    let blocks = per_unit as u32;
                    let request = Request { volume: VOLUME, kind, lba: unit, blocks, fua: false, tag: self.tag };
                    let payload = if writes { Payload::Borrowed(&data) } else { Payload::None };
                    match self.fronts[core].submit(request, payload, &mut self.pools[core]) {
                        Submit::Done(c) => reads += self.whole(core, c),
                        Submit::Pending => drop(under_way.insert(self.tag, core)),
                        Submit::Later(_) => {}
                    }
                    left -= 1;
                }
                self.turn();
                for core in 0..self.fronts.len() {
                    let mut done = vec![];
                    self.fronts[core].drain(&mut done);
                    for c in done {
                        assert_eq!(under_way.remove(&c.tag), Some(core));
                        reads += self.whole(core, c);
                    }
                }
            }
        }
        reads
    }

    /// All words of what was read are one value; 1 when it was a read.
    fn whole(&mut self, core: usize, c: Completion) -> u32 {
        assert_eq!(c.status, Status::Ok);
        let Some(buf) = c.buf else { return 0 };
        let torn = buf.chunks(8).find(|word| *word != &buf[..8]).is_some();
        assert!(!torn, "a read shows half of a write: {:?}", self.setup);
        self.pools[core].put(buf);
        1
    }

    fn end(&self) {
        assert!(self.fronts.iter().all(|f| f.is_idle() && f.media().is_idle()));
        if !self.setup.log {
            assert!(self.pools.iter().all(|p| p.stats().all(|s| s.free == s.total)), "a buffer leaked");
        }
    }
}

/// Every arrangement of media.
fn setups(seed: u64, in_two: bool) -> Vec<Setup> {
    let mut setups = vec![];
    for cores in [1, 2, 3] {
        for (log, block_size) in [(false, 512), (true, 512), (true, 4096)] {
            for delayed in [false, true] {
                let scarce = !log && seed.is_multiple_of(2);
                setups.push(Setup { seed, cores, log, block_size, delayed, scarce, in_two });
            }
        }
    }
    setups
}

#[test]
fn a_compare_write_is_one_step_against_everything_else() {
    for seed in 1..4 {
        for setup in setups(seed, false) {
            let mut race = Race::new(setup);
            for _ in 0..12 {
                race.round();
            }
            assert!(race.matched > 60 && race.differed > 0, "{setup:?}: {} and {}", race.matched, race.differed);
            race.over_the_border();
            race.runs();
            race.end();
        }
    }
}

#[test]
fn an_aligned_unit_is_read_as_it_was_written() {
    for seed in 1..4 {
        for setup in setups(seed, false) {
            let mut race = Race::new(setup);
            let reads = race.units();
            assert!(reads > 100, "{setup:?}: {reads} reads");
            race.end();
        }
    }
}

#[test]
fn a_compare_followed_by_a_write_is_caught() {
    for setup in setups(7, true).into_iter().filter(|s| s.delayed) {
        let race = std::panic::AssertUnwindSafe(move || {
            let mut race = Race::new(setup);
            (0..40).for_each(|_| race.round());
        });
        let caught = std::panic::catch_unwind(race).expect_err("what is not atomic shows");
        let what = caught.downcast_ref::<String>().expect("the oracle's words");
        assert!(what.contains("two compare-writes") || what.contains("is lost between"), "{setup:?}: {what}");
    }
}
