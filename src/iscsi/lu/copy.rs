//! EXTENDED COPY(LID1) between units of the target (what VAAI and `ddpt` use), and RECEIVE COPY RESULTS. Blocks go from a
//! read into a write in pieces of one buffer; both ends are checked before the first piece moves.

use super::begin::{Begun, Stop, check, reply};
use super::finish::sense;
use super::program::{Program, Run, io};
use super::{Begin, Cx, End, Event, Step, Unit};
use crate::base::VolumeId;
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::volume::reserve::{Access, Nexus};
use crate::wire::scsi::copy::{self, Amount, Bad, CopyStatus, List, Segment};
use crate::wire::scsi::op::sa;
use crate::wire::scsi::{Cdb, Key, Sense, asc, be32};

/// Bytes of one piece; within the largest transfer.
const PIECE_BYTES: u32 = 512 << 10;
const _: () = assert!(PIECE_BYTES as usize <= crate::base::limits::IO_BYTES_MAX);
/// Copies of a unit whose results a core keeps; the oldest goes when there is another.
const RESULTS: usize = 16;
/// TOTAL CONCURRENT COPIES: one per command slot that an initiator may count on.
const CONCURRENT: u8 = 16;

/// What became of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CopyResult {
    pub status: CopyStatus,
    pub segments: u16,
    pub bytes: u64,
    /// Why it failed.
    pub sense: Option<Sense>,
}

/// The results of a unit's copies, until they are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Copies(Vec<(Nexus, u8, CopyResult)>);

impl Copies {
    pub fn keep(&mut self, nexus: &Nexus, id: u8, result: CopyResult) {
        self.drop_one(nexus, id);
        if self.0.len() == RESULTS {
            self.0.remove(0);
        }
        self.0.push((nexus.clone(), id, result));
    }

    pub fn get(&self, nexus: &Nexus, id: u8) -> Option<CopyResult> {
        self.0.iter().find(|(n, i, _)| n == nexus && *i == id).map(|(_, _, result)| *result)
    }

    pub fn drop_one(&mut self, nexus: &Nexus, id: u8) {
        self.0.retain(|(n, i, _)| n != nexus || *i != id);
    }

    pub fn forget(&mut self, nexus: &Nexus) {
        self.0.retain(|(n, _, _)| n != nexus);
    }
}

/// EXTENDED COPY(LID1).
pub(super) fn extended_copy(_: &Cx<'_>, cdb: &Cdb) -> Begun {
    let len = be32(cdb, 10);
    if len == 0 {
        return Ok(Begin::End(End::GOOD));
    }
    if len as usize > copy::LIST_MAX {
        return Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH).into());
    }
    let program = Copy { list: None, segment: 0, run: None, bytes: 0, writing: 0 };
    Ok(Begin::Program(Program::new(program), len))
}

/// RECEIVE COPY STATUS, OPERATING PARAMETERS and FAILURE DETAILS.
pub(super) fn report(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let (id, allocation) = (cdb[2], be32(cdb, 10));
    let who = cx.nexus.who;
    if cdb[1] & 0x1f == sa::COPY_PARAMETERS {
        return reply(cx.pool, allocation, 64, |out| copy::put_parameters(out, CONCURRENT, 9));
    }
    let Some(result) = cx.state.copy_result(who, id) else { return Err(Sense::cdb_field(2).into()) };
    let failed = cdb[1] & 0x1f == sa::COPY_FAILURE_DETAILS;
    if failed && result.sense.is_none() {
        return Err(Sense::cdb_field(2).into());
    }
    let begun = reply(cx.pool, allocation, 128, |out| {
        if !failed {
            return copy::put_status(out, result.status, result.segments, result.bytes);
        }
        let mut bytes = [0; crate::wire::scsi::SENSE_MAX];
        let len = result.sense.map_or(0, |s| s.encode(&mut bytes));
        out.u32(0);
        out.zeroes(52);
        // The status of the EXTENDED COPY, then its sense data.
        out.put(&[crate::wire::scsi::status::CHECK_CONDITION, 0]);
        out.u16(len as u16);
        out.put(&bytes[..len]);
        out.patch_len32(0);
    })?;
    cx.state.drop_copy(who, id);
    Ok(begun)
}

/// A segment with its ends found.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where from and where to, and their blocks' bytes.
    from: (VolumeId, u32),
    to: (VolumeId, u32),
    source_lba: u64,
    destination_lba: u64,
    /// Bytes left.
    left: u64,
}

/// An EXTENDED COPY under way.
#[derive(Debug)]
pub(super) struct Copy {
    list: Option<Buf>,
    /// Segments that are done.
    segment: u16,
    run: Option<Piece>,
    bytes: u64,
    /// Bytes being written.
    writing: u32,
}

/// Why a copy fails.
fn aborted(asc: u16) -> Sense {
    Sense::new(Key::CopyAborted, asc)
}

/// The unit that a target descriptor names.
fn find_unit(units: &[Unit], designation: &[u8]) -> Option<usize> {
    let (kind, len) = (designation[1] & 0x3f, usize::from(designation[3]));
    let name = designation.get(4..4 + len)?;
    units.iter().position(|unit| match kind {
        crate::wire::scsi::designator::kind::NAA => name == unit.naa(),
        crate::wire::scsi::designator::kind::UUID => name.len() == 18 && name[2..] == unit.info.uuid,
        crate::wire::scsi::designator::kind::T10_VENDOR => {
            let (vendor, serial) = (unit.vendor.as_bytes(), unit.serial().as_bytes());
            name.len() == 8 + serial.len()
                && name[8..] == *serial
                && (0..8).all(|at| name[at] == vendor.get(at).copied().unwrap_or(b' '))
        }
        _ => false,
    })
}

/// Proves a segment: both units are there and may be used, and both ranges exist.
fn prove(list: &List<'_>, segment: &Segment, cx: &Cx<'_>) -> Result<Piece, Stop> {
    let end = |number| {
        let designation = list.target(number).ok_or(aborted(asc::UNREACHABLE_COPY_TARGET))?;
        find_unit(cx.units, designation).ok_or(aborted(asc::UNREACHABLE_COPY_TARGET))
    };
    let (from, to) = (end(segment.source)?, end(segment.destination)?);
    let (source, destination) = (&cx.units[from], &cx.units[to]);
    let size = u64::from(source.info.block_size);
    let left = match segment.amount {
        Amount::Blocks(blocks) if segment.by_destination => u64::from(blocks) * u64::from(destination.info.block_size),
        Amount::Blocks(blocks) => u64::from(blocks) * size,
        Amount::Bytes { bytes, source_offset: 0, destination_offset: 0 } => u64::from(bytes),
        Amount::Bytes { .. } => return Err(Sense::illegal(asc::INVALID_FIELD_IN_PARAMETERS).into()),
    };
    if left > u64::from(copy::SEGMENT_BYTES_MAX) {
        return Err(Sense::illegal(asc::INVALID_FIELD_IN_PARAMETERS).into());
    }
    for (unit, lba) in [(source, segment.source_lba), (destination, segment.destination_lba)] {
        let size = u64::from(unit.info.block_size);
        if left % size != 0 {
            return Err(Sense::illegal(asc::INVALID_FIELD_IN_PARAMETERS).into());
        }
        if lba.checked_add(left / size).is_none_or(|end| end > unit.info.blocks) {
            return Err(aborted(asc::NONE).into());
        }
    }
    let reserved = |unit: &Unit, access| {
        let own = unit.volume() == cx.unit.volume();
        let all = if own { cx.reservations } else { (cx.elsewhere)(unit.volume()) };
        !all.permits(cx.nexus.who, access)
    };
    if reserved(source, Access::Read) || reserved(destination, Access::Write) {
        return Err(Stop::Conflict);
    }
    let own = destination.volume() == cx.unit.volume();
    if destination.info.read_only || (own && cx.state.write_protected()) {
        return Err(Sense::new(Key::DataProtect, asc::WRITE_PROTECTED).into());
    }
    let (source_lba, destination_lba) = (segment.source_lba, segment.destination_lba);
    let end = |unit: &Unit| (unit.volume(), unit.info.block_size);
    let (from, to) = (end(source), end(destination));
    Ok(Piece { from, to, source_lba, destination_lba, left })
}

impl Copy {
    /// The command ends: its buffers go back, its result is kept unless the initiator wants none.
    fn end(&mut self, cx: &mut Cx<'_>, stop: Result<(), Stop>) -> Step {
        let failed = match &stop {
            Err(Stop::Sense(sense)) => Some(Sense { descriptor: cx.state.descriptor_sense(), ..*sense }),
            _ => None,
        };
        if let Some(Ok(list)) = self.list.as_deref().map(List::parse)
            && !list.discard
        {
            let status = if stop.is_ok() { CopyStatus::Done } else { CopyStatus::Failed };
            let result = CopyResult { status, segments: self.segment, bytes: self.bytes, sense: failed };
            cx.state.keep_copy(cx.nexus.who, list.id, result);
        }
        cx.pool.put_all(self.list.take());
        Step::End(match stop {
            Ok(()) => End::GOOD,
            Err(Stop::Sense(sense)) => check(cx, sense),
            Err(Stop::Conflict) => End::CONFLICT,
            Err(Stop::Later) => End::BUSY,
        })
    }

    fn next(&mut self, cx: &mut Cx<'_>) -> Step {
        loop {
            if let Some(run) = self.run
                && run.left > 0
            {
                // A unit that is taken away ends the copy.
                let there = |volume| cx.units.iter().any(|u| u.volume() == volume);
                if !there(run.from.0) || !there(run.to.0) {
                    return self.end(cx, Err(aborted(asc::UNREACHABLE_COPY_TARGET).into()));
                }
                let (volume, size) = run.from;
                let blocks = (run.left.min(u64::from(PIECE_BYTES)) / u64::from(size)) as u32;
                let (kind, lba) = (Kind::Read, run.source_lba);
                return Step::Io { volume, kind, lba, blocks, fua: false, payload: None };
            }
            let list = self.list.as_deref().expect("the list is kept until the end");
            let list = List::parse(list).expect("the list was proved");
            if self.run.is_some() {
                self.segment += 1;
            }
            let proved = list.segments().nth(usize::from(self.segment)).map(|s| prove(&list, &s, cx));
            match proved {
                None => return self.end(cx, Ok(())),
                Some(Err(stop)) => return self.end(cx, Err(stop)),
                Some(Ok(piece)) => self.run = Some(piece),
            }
        }
    }
}

impl Run for Copy {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        let parsed = List::parse(data.as_deref().unwrap_or_default());
        let first = match &parsed {
            Ok(list) => list.segments().find_map(|s| prove(list, &s, cx).err()),
            Err(Bad { asc: asc::PARAMETER_LIST_LENGTH, .. }) => Some(Sense::illegal(asc::PARAMETER_LIST_LENGTH).into()),
            Err(bad) => Some(Sense { asc: bad.asc, ..Sense::parameter_field(bad.at) }.into()),
        };
        self.list = data;
        match first {
            Some(stop) => self.end(cx, Err(stop)),
            None => self.next(cx),
        }
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        let (status, detail, buf) = io(event);
        let kind = if self.writing == 0 { Kind::Read } else { Kind::Write };
        if !status.is_ok() {
            cx.pool.put_all(buf);
            return match sense(kind, status, detail) {
                // What the medium said is the reason; the command that failed is the copy.
                Some(sense) if sense.key == Key::DataProtect => self.end(cx, Err(sense.into())),
                Some(sense) => self.end(cx, Err(aborted(sense.asc).into())),
                None => self.end(cx, Err(Stop::Later)),
            };
        }
        let run = self.run.as_mut().expect("a segment is under way");
        let Some(read) = buf else {
            self.bytes += u64::from(self.writing);
            self.writing = 0;
            return self.next(cx);
        };
        let bytes = read.len() as u32;
        self.writing = bytes;
        let (volume, size) = run.to;
        let (blocks, kind, lba) = (bytes / size, Kind::Write, run.destination_lba);
        run.left -= u64::from(bytes);
        run.source_lba += u64::from(bytes / run.from.1);
        run.destination_lba += u64::from(blocks);
        Step::Io { volume, kind, lba, blocks, fua: false, payload: Some(read) }
    }

    fn cancel(self, pool: &mut Pool) {
        pool.put_all(self.list);
    }
}
