//! The offline checker: reads a whole store and says what is damaged. `pollux fsck` and the crash simulation call it.
//!
//! Each slice is opened by the store's own recovery over a [`Reader`], so that "what the log holds" has one definition:
//! newest superblock, checkpoint, replay, holes and torn tails. Recovery's closing superblock write ends in the reader;
//! nothing is ever written to the medium. Then every segment in use is walked, and every block that the index maps is
//! verified against its checksum and against the batch header that must describe it ([`scan`]).

mod finding;
mod scan;

pub use finding::{FINDINGS_MAX, Finding, NoStore, Report, SliceReport, Subject, What};

use super::config::{Limits, Probed, SliceConfig, probe};
use super::error::StoreError;
use super::format::superblock::SLOTS;
use super::format::{Addr, FormatError, HEAD_BYTES, Superblock};
use super::request::Phase;
use super::slice::Slice;
use crate::base::{BLOCK, CoreId, SliceId, Time};
use crate::device::{Caps, DeviceError, Done, Op, Queue};
use crate::mem::{Class, Pool};

/// Bytes that recovery reads at once at most.
const WINDOW_BYTES: usize = 256 << 10;
/// Buffers of recovery: one per read under way.
const CLASSES: [Class; 2] = [Class { size: 64 << 10, count: 48 }, Class { size: WINDOW_BYTES, count: 48 }];

/// Checks every slice of the store at the head of a device of `size` bytes. `read(offset, into)` reads whole 4 KiB blocks;
/// `progress(done, total)` hears how far the check is, in bytes.
///
/// # Errors
/// [`NoStore`] when there is nothing that could be checked. Damage is no error: it is in the report.
pub fn check(
    size: u64,
    read: &mut dyn FnMut(u64, &mut [u8]) -> Result<(), DeviceError>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, NoStore> {
    let mut pool = Pool::standalone(CoreId(0), &CLASSES).map_err(|_| NoStore::Memory)?;
    check_with(&mut pool, size, read, progress)
}

/// [`check`] with the caller's buffers, for who checks often: the pool needs 33 free buffers of 256 KiB or more.
///
/// # Errors
/// As [`check`].
pub fn check_with(
    pool: &mut Pool,
    size: u64,
    read: &mut dyn FnMut(u64, &mut [u8]) -> Result<(), DeviceError>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, NoStore> {
    let mut reader = Reader::new(size, read);
    let (head, error) = reader.head(0);
    let probed = match (probe(&head), error) {
        (Ok(probed), _) => probed,
        (Err(_), Some(error)) => return Err(NoStore::Read(error)),
        (Err(cause), None) => return Err(NoStore::Superblock(cause)),
    };
    let slices = probed.slices;
    let mut report = Report { probed, slices: Vec::new(), findings: Vec::new(), unlisted: 0 };
    let total = u64::from(slices) * report.probed.slice_len;
    for number in 0..slices {
        let done = u64::from(number) * report.probed.slice_len;
        progress(done, total);
        check_slice(number, &mut reader, pool, &mut report, &mut |n| progress(done + n, total));
    }
    progress(total, total);
    Ok(report)
}

fn check_slice(
    number: u16,
    reader: &mut Reader<'_>,
    pool: &mut Pool,
    report: &mut Report,
    progress: &mut dyn FnMut(u64),
) {
    let cfg = config(&report.probed, number);
    check_superblocks(&cfg, reader, report);
    let mut counts = SliceReport { slice: number, ..SliceReport::default() };
    let mut slice = Slice::open(cfg);
    while matches!(slice.phase(), Phase::Starting { .. }) && slice.step(Time(0), reader, pool) {}
    match slice.phase() {
        Phase::Ready => scan::scan(&slice, reader, report, &mut counts, progress),
        Phase::Failed(error) | Phase::Dead(error) => {
            report.add(number, place_of(&error), What::Start(error));
        }
        Phase::Starting { .. } => unreachable!("reads end at once, so recovery never waits"),
    }
    slice.close(pool);
    report.slices.push(counts);
}

fn config(probed: &Probed, number: u16) -> SliceConfig {
    let limits = Limits {
        segment_bytes: probed.segment_bytes,
        batch_bytes: WINDOW_BYTES as u32,
        batches: 1,
        reads: 1,
        partials: 1,
        volumes: u16::MAX,
        mark_idle_ns: 0,
        ..Limits::default()
    };
    SliceConfig {
        store: probed.store,
        name: probed.name,
        slice: SliceId(number),
        slices: probed.slices,
        offset: u64::from(number) * probed.slice_len,
        len: probed.slice_len,
        token_tag: 0,
        limits,
    }
}

/// All four copies are written at format and two by each later write, so each must be valid.
fn check_superblocks(cfg: &SliceConfig, reader: &mut Reader<'_>, report: &mut Report) {
    if cfg.offset + cfg.len > reader.caps.size {
        return;
    }
    let (head, _) = reader.head(cfg.offset);
    for copy in SLOTS.into_iter().flatten() {
        let bytes = &head[copy as usize * BLOCK..][..BLOCK];
        let cause = match Superblock::decode(bytes) {
            Ok(sb) if sb.id.store == cfg.store && sb.id.slice == cfg.slice.0 => continue,
            Ok(_) => FormatError::Stranger,
            Err(cause) => cause,
        };
        report.add(cfg.slice.0, Addr(copy), What::Superblock(cause));
    }
}

fn place_of(error: &StoreError) -> Addr {
    match error {
        StoreError::Damaged { addr, .. } | StoreError::Hole { addr, .. } => *addr,
        _ => Addr::NONE,
    }
}

/// The medium as recovery sees it: memory-speed reads through the caller's function; writes are taken and forgotten.
struct Reader<'a> {
    caps: Caps,
    read: &'a mut dyn FnMut(u64, &mut [u8]) -> Result<(), DeviceError>,
}

impl<'a> Reader<'a> {
    fn new(size: u64, read: &'a mut dyn FnMut(u64, &mut [u8]) -> Result<(), DeviceError>) -> Reader<'a> {
        let caps = Caps {
            size,
            block_size: 512,
            io_bytes_max: 2 << 20,
            depth: 1,
            volatile_cache: false,
            atomic_bytes: 512,
            write_zeroes: false,
            discard: false,
            read_only: false,
        };
        Reader { caps, read }
    }

    /// Reads blocks, one by one where they can not be read at once; `bad(i)` hears of each that can not, which is zeroed.
    fn blocks(&mut self, offset: u64, into: &mut [u8], mut bad: impl FnMut(usize, DeviceError)) {
        const PIECE: usize = 1 << 20;
        for (n, piece) in into.chunks_mut(PIECE).enumerate() {
            let at = n * PIECE;
            if (self.read)(offset + at as u64, piece).is_ok() {
                continue;
            }
            for (i, block) in piece.chunks_mut(BLOCK).enumerate() {
                if let Err(error) = (self.read)(offset + (at + i * BLOCK) as u64, block) {
                    block.fill(0);
                    bad(at / BLOCK + i, error);
                }
            }
        }
    }

    /// The superblocks of the slice at `offset`, zeroes past the end of the device, and the last read error.
    fn head(&mut self, offset: u64) -> (Vec<u8>, Option<DeviceError>) {
        let mut head = vec![0; HEAD_BYTES];
        let there = (self.caps.size.saturating_sub(offset) as usize / BLOCK * BLOCK).min(HEAD_BYTES);
        let mut error = None;
        self.blocks(offset, &mut head[..there], |_, e| error = Some(e));
        (head, error)
    }
}

impl Queue for Reader<'_> {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn submit(&mut self, op: Op) -> Result<(), Op> {
        unreachable!("everything ends at once, nothing is submitted: {op:?}")
    }
    fn kick(&mut self) {}
    fn poll(&mut self, _: Time, _: &mut Vec<Done>) -> usize {
        0
    }
    fn inflight(&self) -> usize {
        0
    }
    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        Some((self.read)(offset, into))
    }
    fn write_now(&mut self, _: u64, _: &[u8]) -> Option<Result<(), DeviceError>> {
        Some(Ok(()))
    }
}
