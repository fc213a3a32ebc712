//! What a seed stands for: sizes, limits, paces, the mix of requests and the kinds of faults of one run. Ranges are
//! small on purpose, so that wrap-around, cleaning, checkpoints and a full pool happen within a few hundred requests.

use super::fault::Faults;
use super::{DiskOptions, Pace};
use crate::base::rng::Rng;
use crate::store::Limits;
use crate::store::format::HEAD_BYTES;

/// How often each kind of request is made; relative to their sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mix {
    /// Writes of pattern.
    pub write: u32,
    /// Writes of a payload of zeroes.
    pub blank: u32,
    /// Write-zeroes and unmaps.
    pub zero: u32,
    /// Reads.
    pub read: u32,
    /// Flushes.
    pub flush: u32,
    /// Creating, renaming, resizing and deleting volumes.
    pub volume: u32,
    /// Checkpoints asked for.
    pub checkpoint: u32,
}

impl Mix {
    /// The sum of all.
    pub fn total(&self) -> u32 {
        self.write + self.blank + self.zero + self.read + self.flush + self.volume + self.checkpoint
    }
}

/// Everything drawn from a seed before a run begins.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// The seed.
    pub seed: u64,
    /// Slices on the device, each with volumes of its own.
    pub slices: u16,
    /// Bytes of each slice.
    pub slice_bytes: u64,
    /// Capacities and paces of a slice.
    pub limits: Limits,
    /// The disk, without faults.
    pub disk: DiskOptions,
    /// Requests of a whole run.
    pub requests: u32,
    /// Requests under way at most.
    pub depth: u32,
    /// What is asked.
    pub mix: Mix,
    /// Largest write or read, sectors of 512 bytes.
    pub sectors_max: u64,
    /// Percent of requests that touch whole, aligned 4 KiB blocks only.
    pub aligned: u64,
    /// Percent of requests that go to a tenth of the space.
    pub skew: u64,
    /// Volumes at most.
    pub volumes: u32,
    /// Bytes that requests may reach in all volumes of a slice together, percent of the slice's bytes.
    pub space: u64,
    /// Percent of volumes with 4 KiB logical blocks.
    pub large_lba: u64,
    /// Blocks of each chunk that requests use, 1..=512: a small number spreads few blocks over many chunks.
    pub window: u64,
}

impl Swarm {
    /// The run of `seed`.
    pub fn draw(seed: u64) -> Swarm {
        let mut rng = Rng::new(seed ^ 0x5757_a4a4);
        let r = &mut rng;
        let segment_bytes = 64u32 << 10 << r.below(2);
        let segments = 16 + r.below(24);
        let slices = if r.chance(15) { 2 } else { 1 };
        let bytes = HEAD_BYTES as u64 + segments * u64::from(segment_bytes);
        Swarm {
            seed,
            slices,
            slice_bytes: bytes.next_multiple_of(1 << 20).max(2 << 20),
            limits: limits(segment_bytes, r),
            disk: disk(r),
            requests: [100, 200, 500, 1_000, 1_600][r.below(5) as usize],
            depth: 1 << r.below(6),
            mix: mix(r),
            sectors_max: [8, 16, 64, 256][r.below(4) as usize],
            aligned: [0, 50, 90, 100][r.below(4) as usize],
            skew: [0, 50, 80, 95][r.below(4) as usize],
            volumes: 1 + r.below(4) as u32,
            space: [15, 40, 70, 90, 120][r.below(5) as usize],
            large_lba: [0, 50, 100][r.below(3) as usize],
            window: [512, 512, 64, 8][r.below(4) as usize],
        }
    }

    /// Bytes of the whole device.
    pub fn device_bytes(&self) -> u64 {
        self.slice_bytes * u64::from(self.slices)
    }
}

fn limits(segment_bytes: u32, r: &mut Rng) -> Limits {
    Limits {
        segment_bytes,
        batch_bytes: [8 << 10, 16 << 10, 32 << 10, 64 << 10][r.below(4) as usize],
        batches: 1 + r.below(8) as u16,
        reads: [1, 8, 64][r.below(3) as usize],
        partials: [1, 4, 16][r.below(3) as usize],
        volumes: 16,
        index_bytes: 0,
        fill_percent: [50, 70, 85, 92][r.below(4) as usize],
        checkpoint_bytes: [64 << 10, 128 << 10, 256 << 10, 1 << 20][r.below(4) as usize],
        checkpoint_pages: 1 + r.below(8) as u16,
        scrub_bytes_per_sec: if r.chance(25) { 1 << 30 } else { 0 },
        mark_idle_ns: [0, 500_000, 20_000_000][r.below(3) as usize],
        ..Limits::tiny()
    }
}

fn disk(r: &mut Rng) -> DiskOptions {
    let pace = match r.below(8) {
        0 => Pace::Memory,
        1 => Pace::Queued { min_ns: 0, max_ns: 0, tail: 1 },
        2 | 3 => Pace::Queued { min_ns: 1_000, max_ns: 2_000_000, tail: 10 },
        _ => Pace::Queued { min_ns: 5_000, max_ns: 100_000, tail: 20 },
    };
    DiskOptions {
        block_size: if r.chance(50) { 512 } else { 4096 },
        depth: [4, 16, 64, 256][r.below(4) as usize],
        io_bytes_max: 1 << 20,
        volatile_cache: r.chance(75),
        zeroes: r.chance(50),
        pace,
        faults: Faults::default(),
    }
}

fn mix(r: &mut Rng) -> Mix {
    let mut part = |most: u64| if r.chance(25) { 0 } else { r.below(most) as u32 };
    Mix {
        write: 40 + part(60),
        blank: part(4),
        zero: part(15),
        read: part(40),
        flush: part(6),
        volume: part(4),
        checkpoint: part(2),
    }
}
