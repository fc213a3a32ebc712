//! A volume in memory that every core shares, as slow and as short of room as a test wants it.

use crate::base::rng::Rng;
use crate::base::{Status, VolumeId};
use crate::mem::Pool;
use crate::volume::{Completion, Detail, Info, Kind, Payload, Request, Submit, Volumes};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// The volume's id.
pub const VOLUME: VolumeId = VolumeId(9);
/// Bytes of the volume.
pub const SIZE: usize = 4 << 20;

/// The bytes, and every request that took effect.
pub struct Disk {
    pub bytes: Vec<u8>,
    pub log: Vec<Request>,
}

/// How volumes behave; percentages.
#[derive(Clone, Copy, Default)]
pub struct Mood {
    /// Requests that do not end at once.
    pub slow: u64,
    /// Requests for which there is no room.
    pub later: u64,
    /// How every request fails, if it does.
    pub fail: Option<Status>,
    /// Slow requests stay until this is cleared, and all are slow.
    pub stuck: bool,
}

/// One core's volumes.
pub struct Memory {
    pub disk: Rc<RefCell<Disk>>,
    pub mood: Mood,
    pub waiting: VecDeque<(Request, Vec<u8>)>,
    pub rng: Rng,
    pub info: Info,
}

pub fn info(block_size: u32) -> Info {
    Info {
        id: VOLUME,
        block_size,
        blocks: SIZE as u64 / u64::from(block_size),
        uuid: [3; 16],
        thin: true,
        read_only: false,
        volatile_cache: false,
        atomic_blocks: 1,
    }
}

impl Memory {
    pub fn new(disk: &Rc<RefCell<Disk>>, block_size: u32, seed: u64) -> Memory {
        Memory {
            disk: disk.clone(),
            mood: Mood::default(),
            waiting: VecDeque::new(),
            rng: Rng::new(seed),
            info: info(block_size),
        }
    }

    /// Does a request; `None` when a buffer is missing.
    fn run(&mut self, request: Request, data: &[u8], pool: &mut Pool) -> Option<Completion> {
        let mut disk = self.disk.borrow_mut();
        let size = self.info.block_size as usize;
        let (from, len) = (request.lba.saturating_mul(size as u64), request.blocks as usize * size);
        let done = |status, buf| Some(Completion { tag: request.tag, status, detail: Detail::default(), buf });
        if let Some(status) = self.mood.fail {
            return done(status, None);
        }
        if from.checked_add(len as u64).is_none_or(|end| end > disk.bytes.len() as u64) {
            return done(Status::OutOfRange, None);
        }
        let range = from as usize..from as usize + len;
        let (mut status, mut buf) = (Status::Ok, None);
        match request.kind {
            Kind::Read => {
                let mut b = pool.get(len)?;
                b.copy_from_slice(&disk.bytes[range]);
                buf = Some(b);
            }
            Kind::Write => {
                assert_eq!(data.len(), len, "a write brings its blocks");
                disk.bytes[range].copy_from_slice(data);
            }
            Kind::Compare if disk.bytes[range.clone()] != *data => status = Status::CompareMismatch,
            Kind::CompareWrite => {
                let (old, new) = data.split_at(len);
                if disk.bytes[range.clone()] == *old {
                    disk.bytes[range].copy_from_slice(new);
                } else {
                    status = Status::CompareMismatch;
                }
            }
            Kind::WriteZeroes | Kind::Deallocate => disk.bytes[range].fill(0),
            _ => {}
        }
        disk.log.push(request);
        done(status, buf)
    }

    /// Ends what was slow, a few requests a turn, in any order.
    pub fn step(&mut self, pool: &mut Pool, done: &mut Vec<Completion>) {
        if self.mood.stuck {
            return;
        }
        for _ in 0..=self.rng.below(4) {
            let Some(last) = self.waiting.len().checked_sub(1) else { return };
            let pick = self.rng.below(last as u64 + 1) as usize;
            let Some((request, data)) = self.waiting.swap_remove_back(pick) else { return };
            match self.run(request, &data, pool) {
                Some(completion) => done.push(completion),
                None => self.waiting.push_back((request, data)),
            }
        }
    }
}

impl Volumes for Memory {
    fn info(&self, volume: VolumeId) -> Option<&Info> {
        (volume == VOLUME).then_some(&self.info)
    }

    fn submit(&mut self, request: Request, payload: Payload<'_>, pool: &mut Pool) -> Submit {
        if self.rng.chance(self.mood.later) {
            return Submit::Later(payload.into_buf());
        }
        if self.mood.stuck || self.rng.chance(self.mood.slow) {
            self.waiting.push_back((request, payload.bytes().to_vec()));
            pool.put_all(payload.into_buf());
            return Submit::Pending;
        }
        match self.run(request, payload.bytes(), pool) {
            Some(done) => {
                pool.put_all(payload.into_buf());
                Submit::Done(done)
            }
            None => Submit::Later(payload.into_buf()),
        }
    }
}
