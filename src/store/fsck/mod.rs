//! The offline checker: reads a medium with nothing but the pure format code and says what is wrong with it. It writes
//! nothing, shares no code with recovery beyond the decoders, and so is a second opinion on what recovery does.
//!
//! Per slice: superblock copies, the checkpoint's pages, the log after it (by the rules of recovery: a torn tail is no
//! damage, a hole before it is), and then every segment from its start, so that each mapped block is read, fits its
//! checksum, and is described by exactly one batch as what the index says it is.

mod map;
mod reader;
mod replay;
mod segments;

use super::config::{PROBE_BYTES, Probed, StoreName, layout, probe};
use super::error::Damage;
use super::format::superblock::SLOTS;
use super::format::{Addr, FormatError, HEAD_BYTES, LogId, Superblock};
use crate::base::BLOCK;
use crate::base::limits::SLICES_MAX;
use crate::device::DeviceError;
use map::Map;
use reader::Reader;
use std::fmt;

/// Findings that a report lists; more are only counted.
pub const FINDINGS_MAX: usize = 1000;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// No copy of the superblock is valid, so nothing of the slice can be found.
    Superblock,
    /// A structure of the log.
    Structure(Damage),
    /// Batches from `batch` on are missing although they were durable through `durable`.
    Hole {
        /// The first missing batch.
        batch: u64,
        /// The last one known to have been durable.
        durable: u64,
    },
    /// A block of a volume can not be read as what was written.
    Payload {
        /// The volume's id.
        volume: u32,
        /// The 4 KiB block of the volume.
        block: u64,
    },
    /// A block that is mapped, but no batch describes what it is.
    Undescribed {
        /// The volume's id.
        volume: u32,
        /// The 4 KiB block of the volume.
        block: u64,
    },
    /// A block whose content was found lost before; it reads as a media error until it is written again.
    Lost {
        /// The volume's id.
        volume: u32,
        /// The 4 KiB block of the volume.
        block: u64,
    },
}

/// Why it is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Cause {
    /// The bytes are not what they should be.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// The device can not read them.
    #[error("{0}")]
    Device(#[from] DeviceError),
    /// It contradicts another structure.
    #[error("contradicts what else is on the medium")]
    Contradiction,
}

/// One thing that is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The slice.
    pub slice: u16,
    /// Where, in 4 KiB blocks from the start of the slice.
    pub addr: Addr,
    /// What.
    pub what: What,
    /// Why.
    pub cause: Cause,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slice {}, block {}: ", self.slice, self.addr.0)?;
        match self.what {
            What::Superblock => write!(f, "no valid superblock")?,
            What::Structure(damage) => write!(f, "damaged {damage}")?,
            What::Hole { batch, durable } => {
                write!(f, "batches {batch} to {durable} are missing although they were durable")?;
            }
            What::Payload { volume, block } => write!(f, "volume {volume} block {block} is damaged")?,
            What::Undescribed { volume, block } => write!(f, "volume {volume} block {block} is described by no batch")?,
            What::Lost { volume, block } => write!(f, "volume {volume} block {block} is lost")?,
        }
        write!(f, ": {}", self.cause)
    }
}

/// What was found in one slice.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct SliceReport {
    /// Valid copies of the superblock, of four; after a crash or right after formatting fewer are no damage.
    pub superblocks: u32,
    /// Number of the newest checkpoint.
    pub checkpoint: u64,
    /// Batches in the log after the checkpoint.
    pub replayed: u64,
    /// Batches at the end of the log that a crash tore; nothing in them was acknowledged.
    pub torn: u64,
    /// Volumes.
    pub volumes: u64,
    /// Mapped blocks of 4 KiB, all read and verified unless a finding says otherwise.
    pub mapped: u64,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The store's UUID.
    pub store: [u8; 16],
    /// Its name.
    pub name: StoreName,
    /// Its slices.
    pub slices: Vec<SliceReport>,
    /// What is wrong, at most [`FINDINGS_MAX`] of it.
    pub findings: Vec<Finding>,
    /// How much is wrong in all.
    pub findings_total: u64,
}

impl Report {
    /// True when nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    fn add(&mut self, finding: Finding) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Why a check could not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoStore {
    /// There is no store on the medium, or its superblocks are all gone.
    #[error("no log store here: {0}")]
    Format(FormatError),
    /// The head of the medium can not be read.
    #[error("the head of the device can not be read: {0}")]
    Device(DeviceError),
}

/// Checks all slices of the store on a medium of `size` bytes.
///
/// `read` fills a buffer from a byte offset. `progress` is told the bytes checked and their total, often.
///
/// # Errors
/// [`NoStore`] when no superblock of any slice can be found.
pub fn check(
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), DeviceError>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, NoStore> {
    let probed = find(size, &mut read)?;
    let slices = vec![SliceReport::default(); usize::from(probed.slices)];
    let mut report = Report { store: probed.store, name: probed.name, slices, findings: Vec::new(), findings_total: 0 };
    let total = probed.slice_len * u64::from(probed.slices);
    for slice in 0..probed.slices {
        let before = probed.slice_len * u64::from(slice);
        let mut tell = |bytes: u64| progress(before + bytes, total);
        let id = LogId { store: probed.store, slice };
        report.slices[usize::from(slice)] = check_slice(id, &probed, before, &mut read, &mut tell, &mut report);
        tell(probed.slice_len);
    }
    Ok(report)
}

/// Checks the one slice that lies at `base` of a medium of `size` bytes, wherever its store would place it.
#[cfg(test)]
pub fn check_one(base: u64, size: u64, read: Read<'_>) -> Result<Report, NoStore> {
    let probed = look(base, size, read, &mut vec![0; PROBE_BYTES])?;
    let mut report =
        Report { store: probed.store, name: probed.name, slices: Vec::new(), findings: Vec::new(), findings_total: 0 };
    let id = LogId { store: probed.store, slice: probed.slice.0 };
    let slice = check_slice(id, &probed, base, read, &mut |_| {}, &mut report);
    report.slices.push(slice);
    Ok(report)
}

type Read<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<(), DeviceError>;

/// Says whose medium it is, from the first slice or, when nothing of that is left, from any other.
fn find(size: u64, read: Read<'_>) -> Result<Probed, NoStore> {
    let mut head = vec![0; PROBE_BYTES];
    let why = match look(0, size, read, &mut head) {
        Ok(probed) => return Ok(probed),
        Err(why) => why,
    };
    let counts = (1..).map(|n| 1u16 << n).take_while(|n| usize::from(*n) <= SLICES_MAX);
    for (offset, _) in counts.filter_map(|n| layout(size, n).ok()).flatten().filter(|(offset, _)| *offset > 0) {
        if let Ok(probed) = look(offset, size, read, &mut head)
            && u64::from(probed.slice.0) * probed.slice_len == offset
        {
            return Ok(probed);
        }
    }
    Err(why)
}

fn look(offset: u64, size: u64, read: Read<'_>, head: &mut [u8]) -> Result<Probed, NoStore> {
    let len = (size.saturating_sub(offset) as usize).min(head.len()) / BLOCK * BLOCK;
    let mut unreadable = None;
    for (n, block) in head[..len].chunks_exact_mut(BLOCK).enumerate() {
        if let Err(error) = read(offset + (n * BLOCK) as u64, block) {
            block.fill(0);
            unreadable = Some(error);
        }
    }
    let probed = probe(&head[..len]).map_err(|why| unreadable.map_or(NoStore::Format(why), NoStore::Device))?;
    let end = probed.slice_len.checked_mul(u64::from(probed.slices));
    if end.is_none_or(|end| end > size) {
        return Err(NoStore::Format(FormatError::Field));
    }
    Ok(probed)
}

/// What the parts of a slice's check share.
struct Check<'a> {
    id: LogId,
    sb: Superblock,
    reader: Reader<'a>,
    map: Map,
    report: &'a mut Report,
}

impl Check<'_> {
    fn find(&mut self, addr: Addr, what: What, cause: Cause) {
        self.report.add(Finding { slice: self.id.slice, addr, what, cause });
    }
}

fn check_slice<'a>(
    id: LogId,
    probed: &Probed,
    base: u64,
    read: Read<'a>,
    tell: &mut dyn FnMut(u64),
    report: &'a mut Report,
) -> SliceReport {
    let mut summary = SliceReport::default();
    let mut reader = Reader::new(read, base);
    let (sb, valid) = match superblock(&id, probed, base, &mut reader) {
        Ok(found) => found,
        Err(cause) => {
            report.add(Finding { slice: id.slice, addr: Addr(0), what: What::Superblock, cause });
            return summary;
        }
    };
    (summary.superblocks, summary.checkpoint) = (valid, sb.checkpoint);
    let mut check = Check { id, sb, reader, map: Map::new(), report };
    check.load_checkpoint();
    (summary.replayed, summary.torn) = check.replay();
    summary.volumes = check.map.volumes() as u64;
    summary.mapped = check.verify_segments(tell);
    summary
}

/// The newest superblock of a slice, and how many copies of any are valid.
fn superblock(id: &LogId, probed: &Probed, base: u64, reader: &mut Reader<'_>) -> Result<(Superblock, u32), Cause> {
    let mut newest: Option<Superblock> = None;
    let mut why = Cause::Format(FormatError::Magic);
    let mut valid = 0;
    for n in SLOTS.iter().flatten() {
        let found = reader.block(Addr(*n)).and_then(|block| Ok(Superblock::decode(block)?));
        match found {
            Ok(sb) if sb.id != *id || sb.offset != base || sb.len != probed.slice_len || sb.slices != probed.slices => {
                why = Cause::Format(FormatError::Stranger);
            }
            Ok(sb) => {
                valid += 1;
                if newest.as_ref().is_none_or(|best| best.sequence < sb.sequence) {
                    newest = Some(sb);
                }
            }
            Err(error) => why = error,
        }
    }
    newest.map(|sb| (sb, valid)).ok_or(why)
}

const _: () = assert!(PROBE_BYTES == HEAD_BYTES);

#[cfg(test)]
mod tests;
