//! A disk for tests: completes operations in any order, loses what was not flushed, tears writes, fails on demand.

use crate::base::Time;
use crate::base::rng::Rng;
use crate::device::{Caps, DeviceError, Done, Op, OpKind, Queue};

const SECTOR: usize = 512;

/// What goes wrong with the next operations.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// Flushes fail.
    pub flush: bool,
    /// Writes past the superblocks fail with this.
    pub write: Option<DeviceError>,
    /// Reads fail with this.
    pub read: Option<DeviceError>,
}

pub struct Disk {
    caps: Caps,
    memory: bool,
    durable: Vec<u8>,
    pub cache: Vec<u8>,
    /// Written but not flushed: submission number, offset, bytes.
    unflushed: Vec<(u64, u64, Vec<u8>)>,
    pending: Vec<(u64, Op)>,
    submitted: u64,
    pub rng: Rng,
    pub faults: Faults,
    pub writes: u64,
    pub flushes: u64,
    pub reads: u64,
    /// Nothing completes while set.
    pub held: bool,
}

impl Disk {
    pub fn new(size: usize, volatile: bool, memory: bool, seed: u64) -> Disk {
        let caps = Caps {
            size: size as u64,
            block_size: 512,
            io_bytes_max: 1 << 20,
            depth: 24,
            volatile_cache: volatile,
            atomic_bytes: 512,
            write_zeroes: false,
            discard: false,
            read_only: false,
        };
        Disk {
            caps,
            memory,
            durable: vec![0; size],
            cache: vec![0; size],
            unflushed: Vec::new(),
            pending: Vec::new(),
            submitted: 0,
            rng: Rng::new(seed),
            faults: Faults::default(),
            writes: 0,
            flushes: 0,
            reads: 0,
            held: false,
        }
    }

    /// What the medium holds if the power goes now: what is durable stays; of the rest each write is kept, dropped or
    /// torn, in any order.
    pub fn crash_image(&mut self) -> Vec<u8> {
        let mut image = self.durable.clone();
        let mut maybe: Vec<(u64, Vec<u8>)> = self.unflushed.iter().map(|(_, at, b)| (*at, b.clone())).collect();
        for (_, op) in &self.pending {
            if let (OpKind::Write, Some(buf)) = (op.kind, &op.buf) {
                let at = op.at as usize;
                maybe.push((op.offset, buf[at..at + op.len as usize].to_vec()));
            }
        }
        while !maybe.is_empty() {
            let (at, bytes) = maybe.swap_remove(self.rng.below(maybe.len() as u64) as usize);
            let fate = self.rng.below(3);
            for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                if fate == 0 || (fate == 1 && self.rng.chance(60)) {
                    let at = at as usize + n * SECTOR;
                    image[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        image
    }

    /// Reads the medium as the offline checker would.
    pub fn peek(&self, at: u64, into: &mut [u8]) {
        into.copy_from_slice(&self.cache[at as usize..at as usize + into.len()]);
    }

    /// The power is back.
    pub fn restart(&mut self, image: Vec<u8>) {
        assert!(self.pending.is_empty(), "nothing is under way when the power comes back");
        self.cache.copy_from_slice(&image);
        self.durable = image;
        self.unflushed.clear();
        self.faults = Faults::default();
    }

    /// Changes a byte on the medium behind everybody's back.
    pub fn flip(&mut self, at: usize, mask: u8) {
        self.cache[at] ^= mask;
        self.durable[at] ^= mask;
    }

    fn apply_write(&mut self, offset: u64, bytes: &[u8]) {
        let at = offset as usize;
        self.cache[at..at + bytes.len()].copy_from_slice(bytes);
        if self.caps.volatile_cache {
            self.submitted += 1;
            self.unflushed.push((self.submitted, offset, bytes.to_vec()));
        } else {
            self.durable[at..at + bytes.len()].copy_from_slice(bytes);
        }
        self.writes += 1;
    }

    fn complete(&mut self, stamp: u64, op: &mut Op) -> Result<(), DeviceError> {
        let (offset, len, at) = (op.offset as usize, op.len as usize, op.at as usize);
        match op.kind {
            OpKind::Read => {
                self.reads += 1;
                if let Some(error) = self.faults.read {
                    return Err(error);
                }
                let buf = op.buf.as_mut().unwrap();
                buf[at..at + len].copy_from_slice(&self.cache[offset..offset + len]);
            }
            OpKind::Write => {
                if let Some(error) = self.faults.write.filter(|_| offset >= 128 << 10) {
                    return Err(error);
                }
                let bytes = op.buf.as_ref().unwrap()[at..at + len].to_vec();
                self.apply_write(op.offset, &bytes);
            }
            OpKind::Flush => {
                self.flushes += 1;
                if self.faults.flush {
                    return Err(DeviceError::Dead);
                }
                // Covers what had completed when it was submitted, not more.
                let (covered, kept) = self.unflushed.drain(..).partition(|(n, ..)| *n <= stamp);
                self.unflushed = kept;
                let covered: Vec<(u64, u64, Vec<u8>)> = covered;
                for (_, at, bytes) in covered {
                    self.durable[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
                }
            }
            OpKind::WriteZeroes | OpKind::Discard => return Err(DeviceError::Unsupported),
        }
        Ok(())
    }
}

impl Queue for Disk {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn submit(&mut self, op: Op) -> Result<(), Op> {
        assert!(op.offset + op.len <= self.caps.size, "out of the device");
        if self.pending.len() == self.caps.depth as usize {
            return Err(op);
        }
        self.pending.push((self.submitted, op));
        Ok(())
    }
    fn kick(&mut self) {}
    fn poll(&mut self, _: Time, done: &mut Vec<Done>) -> usize {
        let before = done.len();
        let mut n = if self.held { 0 } else { self.rng.below(self.pending.len() as u64 + 1) };
        while n > 0 {
            let (stamp, mut op) = self.pending.swap_remove(self.rng.below(self.pending.len() as u64) as usize);
            let result = self.complete(stamp, &mut op);
            done.push(Done { token: op.token, kind: op.kind, result, buf: op.buf });
            n -= 1;
        }
        done.len() - before
    }
    fn inflight(&self) -> usize {
        self.pending.len()
    }
    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        if !self.memory {
            return None;
        }
        self.reads += 1;
        if let Some(error) = self.faults.read {
            return Some(Err(error));
        }
        into.copy_from_slice(&self.cache[offset as usize..offset as usize + into.len()]);
        Some(Ok(()))
    }
    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), DeviceError>> {
        if !self.memory {
            return None;
        }
        if let Some(error) = self.faults.write.filter(|_| offset >= 128 << 10) {
            return Some(Err(error));
        }
        self.apply_write(offset, from);
        Some(Ok(()))
    }
}
