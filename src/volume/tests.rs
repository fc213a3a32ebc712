//! The front against a model of the media that answers at once, later, or not yet, on one core and on three.

use super::*;
use crate::base::rng::Rng;
use crate::base::{CHUNK, CoreId, Status, Time, VolumeId};
use crate::mem::{Class, Pool};
use crate::repl::{DeviceId, Ended, Home, Outcome, Part, Shards, Step, StoreId};
use std::sync::Arc;

/// Bytes in a vector; how it answers is drawn from a seed.
struct Model {
    bytes: Vec<u8>,
    rng: Rng,
    slow: Vec<(Part, Option<crate::mem::Buf>)>,
    ended: Vec<Ended>,
    later: u64,
    held: Vec<(u64, Vec<u8>)>,
}

impl Model {
    fn new(bytes: usize, seed: u64) -> Model {
        Model { bytes: vec![0; bytes], rng: Rng::new(seed), slow: vec![], ended: vec![], later: 20, held: vec![] }
    }

    fn run(&mut self, part: &Part, payload: &[u8], buf: Option<crate::mem::Buf>) -> Ended {
        let range = part.offset as usize..part.offset as usize + part.len as usize;
        let mut status = Status::Ok;
        let mut detail = Detail::NONE;
        let mut out = None;
        match part.kind {
            Kind::Read => {
                let mut buf = buf.expect("destination");
                buf.copy_from_slice(&self.bytes[range]);
                out = Some(buf);
            }
            Kind::Write => self.bytes[range].copy_from_slice(payload),
            Kind::CompareWrite if part.step == Step::Hold && self.rng.chance(20) => status = Status::Busy,
            Kind::CompareWrite if matches!(part.step, Step::Write | Step::Release) => {
                let at = self.held.iter().position(|(offset, _)| *offset == part.offset).expect("held before");
                let (_, new) = self.held.remove(at);
                if part.step == Step::Write {
                    self.bytes[range].copy_from_slice(&new);
                }
            }
            Kind::Compare | Kind::CompareWrite if self.bytes[range.clone()] != payload[..part.len as usize] => {
                status = Status::CompareMismatch;
                let at = self.bytes[range].iter().zip(payload).position(|(a, b)| a != b).unwrap();
                detail = Detail::differing(at as u32);
            }
            Kind::CompareWrite => {
                let new = payload[part.len as usize..].to_vec();
                match part.step {
                    Step::Hold => self.held.push((part.offset, new)),
                    _ => self.bytes[range].copy_from_slice(&new),
                }
            }
            Kind::BlockStatus => {
                let mapped = |b: &[u8]| b.iter().any(|b| *b != 0);
                let first = mapped(&self.bytes[range.clone()][..512]);
                let same = self.bytes[range].chunks(512).take_while(|b| mapped(b) == first).count();
                detail = Detail::of_run(Run { mapped: first, len: same as u32 * 512 });
            }
            Kind::WriteZeroes | Kind::Deallocate => self.bytes[range].fill(0),
            Kind::Compare | Kind::Flush => {}
        }
        Ended { tag: part.tag, status, detail, buf: out }
    }
}

impl Shards for Model {
    fn submit(&mut self, part: &Part, payload: Payload<'_>, pool: &mut Pool) -> Outcome {
        let chance = self.later;
        if self.rng.chance(chance) {
            return Outcome::Later(payload.into_buf());
        }
        if part.kind == Kind::Read {
            let Some(mut buf) = payload.into_buf().or_else(|| pool.get(part.len as usize)) else {
                return Outcome::Later(None);
            };
            buf.set_len(part.len as usize);
            if self.rng.chance(50) {
                self.slow.push((*part, Some(buf)));
                return Outcome::Pending;
            }
            return Outcome::Done(self.run(part, &[], Some(buf)));
        }
        let ended = self.run(part, payload.bytes(), None);
        payload.into_buf().into_iter().for_each(|b| pool.put(b));
        if self.rng.chance(50) {
            self.ended.push(ended);
            return Outcome::Pending;
        }
        Outcome::Done(ended)
    }

    fn step(&mut self, _: Time, _: &mut Pool) -> bool {
        for (part, buf) in std::mem::take(&mut self.slow) {
            let ended = self.run(&part, &[], buf);
            self.ended.push(ended);
        }
        false
    }

    fn drain(&mut self, out: &mut Vec<Ended>) {
        out.append(&mut self.ended);
    }
}

const VOLUME: VolumeId = VolumeId(3);
const BYTES: u64 = 8 * CHUNK;

struct Node {
    fronts: Vec<Front<Model>>,
    pools: Vec<Pool>,
    turn: u64,
}

impl Node {
    fn new(cores: u16, home: Home, seed: u64) -> Node {
        let info = Info {
            id: VOLUME,
            block_size: 512,
            blocks: BYTES / 512,
            uuid: [7; 16],
            thin: true,
            read_only: false,
            volatile_cache: false,
            atomic_blocks: 1,
        };
        let table = Arc::new(Table::new([Entry { info, home, reservations: Arc::default() }]));
        let classes = [Class { size: 4096, count: 8 }, Class { size: 1 << 20, count: 6 }];
        let mut node = Node { fronts: vec![], pools: vec![], turn: 0 };
        for core in 0..cores {
            let model = Model::new(BYTES as usize, seed + u64::from(core));
            let config = FrontConfig { requests: 8, remote_parts: 2 };
            let mut front = Front::new(CoreId(core), cores, config, model);
            front.configure(table.clone());
            node.fronts.push(front);
            node.pools.push(Pool::standalone(CoreId(core), &classes).unwrap());
        }
        node
    }

    fn turn(&mut self) {
        self.turn += 1;
        let mut mail = vec![];
        for (core, front) in self.fronts.iter_mut().enumerate() {
            front.step(Time(self.turn), &mut self.pools[core]);
            front.post(|to, m| {
                mail.push((core, to, m));
                Ok(())
            });
        }
        for (from, to, m) in mail {
            self.fronts[to.index()].receive(CoreId(from as u16), m, &mut self.pools[to.index()]);
        }
    }

    /// Runs one request to its end.
    fn run(&mut self, core: usize, request: Request, data: &[u8], owned: bool) -> (Status, Option<Vec<u8>>) {
        let (status, _, bytes) = self.run_all(core, request, data, owned);
        (status, bytes)
    }

    fn run_all(
        &mut self,
        core: usize,
        request: Request,
        data: &[u8],
        owned: bool,
    ) -> (Status, Detail, Option<Vec<u8>>) {
        loop {
            let pool = &mut self.pools[core];
            let payload = if data.is_empty() {
                Payload::None
            } else if owned && let Some(mut b) = pool.get(data.len()) {
                b.copy_from_slice(data);
                Payload::Owned(b)
            } else {
                Payload::Borrowed(data)
            };
            let mut done = vec![];
            match self.fronts[core].submit(request, payload, pool) {
                Submit::Done(c) => done.push(c),
                Submit::Later(buf) => {
                    pool.put_all(buf);
                    self.turn();
                    continue;
                }
                Submit::Pending => {
                    while done.is_empty() {
                        self.turn();
                        self.fronts[core].drain(&mut done);
                    }
                }
            }
            let c = done.pop().unwrap();
            assert_eq!(c.tag, request.tag);
            let bytes = c.buf.map(|b| {
                let v = b.to_vec();
                self.pools[core].put(b);
                v
            });
            return (c.status, c.detail, bytes);
        }
    }
}

fn request(kind: Kind, lba: u64, blocks: u32) -> Request {
    Request { volume: VOLUME, kind, lba, blocks, fua: false, tag: lba ^ 0x5555 }
}

#[test]
fn any_request_from_any_core_acts_like_one_flat_disk() {
    let homes = [Home::Raw(DeviceId(0)), Home::Log { store: StoreId(0), slices: 4 }];
    for (seed, (cores, home)) in [(1, homes[0]), (3, homes[0]), (1, homes[1]), (3, homes[1])].into_iter().enumerate() {
        let mut node = Node::new(cores, home, seed as u64);
        let mut flat = vec![0u8; BYTES as usize];
        let mut rng = Rng::new(seed as u64);
        for _ in 0..600 {
            let core = rng.below(u64::from(cores)) as usize;
            let long = rng.chance(10);
            let blocks = 1 + rng.below(if long { 2 * CHUNK / 512 } else { 2048 });
            let near = CHUNK / 512 * (1 + rng.below(6)) - rng.below(blocks.min(512));
            let lba = near.min(BYTES / 512 - blocks);
            let range = (lba * 512) as usize..((lba + blocks) * 512) as usize;
            let kind = match rng.below(7) {
                _ if long => Kind::Deallocate,
                5 if blocks <= 128 => Kind::CompareWrite,
                6 => Kind::BlockStatus,
                0 | 1 => Kind::Read,
                2 => Kind::Write,
                3 => Kind::Compare,
                _ => Kind::WriteZeroes,
            };
            let mut data = vec![];
            let (mut want, mut differs) = (Status::Ok, None);
            match kind {
                Kind::Write => {
                    data.resize(range.len(), 0);
                    rng.fill(&mut data);
                    flat[range.clone()].copy_from_slice(&data);
                }
                Kind::Compare => {
                    data.extend_from_slice(&flat[range.clone()]);
                    if rng.chance(50) {
                        differs = Some(rng.below(data.len() as u64) as u32);
                        want = Status::CompareMismatch;
                    }
                }
                Kind::CompareWrite => {
                    data.resize(2 * range.len(), 0);
                    rng.fill(&mut data);
                    data[..range.len()].copy_from_slice(&flat[range.clone()]);
                    if rng.chance(40) {
                        differs = Some(rng.below(range.len() as u64) as u32);
                        want = Status::CompareMismatch;
                    } else {
                        flat[range.clone()].copy_from_slice(&data[range.len()..]);
                    }
                }
                Kind::WriteZeroes | Kind::Deallocate => flat[range.clone()].fill(0),
                _ => {}
            }
            if let Some(at) = differs {
                data[at as usize] ^= 1;
            }
            let (status, detail, bytes) = node.run_all(core, request(kind, lba, blocks as u32), &data, rng.chance(50));
            assert_eq!(status, want, "{kind:?} at {lba}+{blocks}");
            if let Some(at) = differs {
                assert_eq!(detail.differs_at(), at, "{kind:?} at {lba}+{blocks}");
            }
            if kind == Kind::BlockStatus {
                let mapped = |b: &[u8]| b.iter().any(|b| *b != 0);
                let run = detail.run();
                assert!(run.len > 0 && run.len as usize <= range.len(), "{run:?}");
                let all =
                    flat[range.start..range.start + run.len as usize].chunks(512).all(|b| mapped(b) == run.mapped);
                assert!(all, "{run:?} at {lba}");
            }
            if kind == Kind::Read {
                assert!(bytes.unwrap() == flat[range], "read at {lba}+{blocks}");
            }
        }
        for pool in &node.pools {
            assert!(pool.stats().all(|s| s.free == s.total), "a buffer leaked");
        }
        assert!(node.fronts.iter().all(Front::is_idle));
    }
}

#[test]
fn ranges_rights_and_unknown_volumes_are_refused() {
    let mut node = Node::new(1, Home::Raw(DeviceId(0)), 1);
    let end = BYTES / 512;
    assert_eq!(node.run(0, request(Kind::Read, end, 1), &[], false).0, Status::OutOfRange);
    assert_eq!(node.run(0, request(Kind::Read, u64::MAX, 2), &[], false).0, Status::OutOfRange);
    assert_eq!(node.run(0, request(Kind::Write, end - 1, 2), &[0; 1024], true).0, Status::OutOfRange);
    let other = Request { volume: VolumeId(9), ..request(Kind::Read, 0, 1) };
    assert_eq!(node.run(0, other, &[], false).0, Status::Gone);
    assert_eq!(node.run(0, request(Kind::Flush, 0, 0), &[], false).0, Status::Ok);
    assert!(node.pools[0].stats().all(|s| s.free == s.total));
}

#[test]
fn a_full_mailbox_keeps_messages_in_order() {
    let mut front = Front::new(CoreId(0), 2, FrontConfig::default(), Model::new(0, 1));
    for tag in 0..4 {
        front.outbox.push((CoreId(1), Message::Reply { tag, status: Status::Ok, detail: Detail::NONE, buf: None }));
    }
    let mut got = vec![];
    for room in [1, 2, 9] {
        let mut room = room;
        front.post(|_, m| {
            if room == 0 {
                return Err(m);
            }
            room -= 1;
            if let Message::Reply { tag, .. } = m {
                got.push(tag);
            }
            Ok(())
        });
    }
    assert_eq!(got, [0, 1, 2, 3]);
}
