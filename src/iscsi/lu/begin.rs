//! From a CDB to what becomes of it. Reads and writes take the short way; every other command is looked up, checked in
//! the order that SAM-5 and SPC-4 give to conditions, and handed to its function.

use super::commands::{Command, Found, Needs, find};
use super::long::{TRANSFER_BYTES_MAX, long};
use super::partial::partial;
use super::state::Obstacle;
use super::{Access as PortAccess, Begin, Cx, End, Io, Unit};
use super::{atomic, copy, inquiry, lba_status, mode, opcodes, ports, report, reserve, same, sanitize, unmap, verify};
use crate::base::limits::IO_BYTES_MAX;
use crate::mem::Pool;
use crate::volume::Kind;
use crate::volume::reserve::Access;
use crate::wire::scsi::{Cdb, Direction, Key, Out, Rw, Sense, Sks, asc, be16, be32, be64, op, rw};

/// Why a command does not go on.
#[derive(Clone, Copy)]
pub(super) enum Stop {
    /// CHECK CONDITION with this.
    Sense(Sense),
    /// RESERVATION CONFLICT.
    Conflict,
    /// Buffers are short.
    Later,
}

impl From<Sense> for Stop {
    fn from(sense: Sense) -> Stop {
        Stop::Sense(sense)
    }
}

/// What a command's function returns.
pub(super) type Begun = Result<Begin, Stop>;

/// Decides what becomes of a command.
#[inline]
pub fn begin(cx: &mut Cx<'_>, cdb: &Cdb) -> Begin {
    if let Some(rw) = rw(cdb)
        && cx.attentions.is_empty()
        && cx.state.serves()
        && cx.reservations.is_free()
        && cx.unit.device.access(cx.nexus.group).serves()
        && rw.control == 0
    {
        return match transfer(cx, rw).and_then(|io| sized(cx, io)) {
            Ok(begin) => begin,
            Err(stop) => stopped(cx, stop),
        };
    }
    slow(cx, cdb)
}

/// A transfer as one request, in pieces, or as much of it as comes.
#[inline]
pub(super) fn sized(cx: &Cx<'_>, io: Io) -> Begun {
    let offered = cx.data_out.unwrap_or(io.bytes);
    if offered < io.bytes && io.kind == Kind::Write && !offered.is_multiple_of(cx.unit.info.block_size) {
        partial(cx, io, offered)
    } else if io.bytes > IO_BYTES_MAX as u32 {
        long(cx, io.kind, io.lba, io.blocks, io.fua)
    } else if io.blocks > 0 {
        Ok(Begin::Io(io))
    } else {
        Ok(Begin::End(End::GOOD))
    }
}

#[cold]
fn stopped(cx: &Cx<'_>, stop: Stop) -> Begin {
    match stop {
        Stop::Sense(sense) => Begin::End(End::check(Sense { descriptor: cx.state.descriptor_sense(), ..sense })),
        Stop::Conflict => Begin::End(End::CONFLICT),
        Stop::Later => Begin::Later,
    }
}

/// READ and WRITE (SBC-3, 5.15 and 5.33 on).
#[inline]
fn transfer(cx: &Cx<'_>, rw: Rw) -> Result<Io, Stop> {
    let bytes = range(cx, rw.flags, rw.lba, rw.blocks)?;
    let kind = match rw.direction {
        Direction::Read => Kind::Read,
        Direction::Write => {
            writable(cx)?;
            Kind::Write
        }
    };
    Ok(Io { kind, lba: rw.lba, blocks: rw.blocks, fua: rw.fua(), bytes })
}

/// Checks the range of a command that transfers blocks, and that no protection information is asked for (`flags` is
/// byte 1 of the CDB). Returns its bytes.
#[inline]
pub(super) fn range(cx: &Cx<'_>, flags: u8, lba: u64, blocks: u32) -> Result<u32, Stop> {
    if flags >> 5 != 0 {
        return Err(Sense::cdb_field(1).into());
    }
    in_range(cx.unit, lba, u64::from(blocks))?;
    let bytes = u64::from(blocks) * u64::from(cx.unit.info.block_size);
    if bytes > u64::from(TRANSFER_BYTES_MAX) {
        return Err(Sense::illegal(asc::INVALID_FIELD_IN_CDB).into());
    }
    Ok(bytes as u32)
}

/// Checks that a range is within the unit and its first block exists.
#[inline]
pub(super) fn in_range(unit: &Unit, lba: u64, blocks: u64) -> Result<(), Stop> {
    if lba < unit.info.blocks && blocks <= unit.info.blocks - lba {
        Ok(())
    } else {
        Err(Sense::illegal(asc::LBA_OUT_OF_RANGE).into())
    }
}

/// Checks that the medium may be written.
#[inline]
pub(super) fn writable(cx: &Cx<'_>) -> Result<(), Stop> {
    if cx.unit.info.read_only {
        return Err(Sense::new(Key::DataProtect, asc::WRITE_PROTECTED).into());
    }
    if cx.state.write_protected() {
        return Err(Sense::new(Key::DataProtect, asc::SOFTWARE_WRITE_PROTECTED).into());
    }
    Ok(())
}

#[inline(never)]
fn slow(cx: &mut Cx<'_>, cdb: &Cdb) -> Begin {
    let begun = checked(cx, cdb).and_then(|()| dispatch(cx, cdb));
    match begun {
        Ok(Begin::Program(mut program, want)) => {
            program.bind(cx.unit.volume());
            Begin::Program(program, want)
        }
        Ok(begin) => begin,
        Err(stop) => stopped(cx, stop),
    }
}

/// What may keep a command from its function.
fn checked(cx: &mut Cx<'_>, cdb: &Cdb) -> Result<(), Stop> {
    let found = find(cdb[0], cdb[1] & 0x1f);
    if let Found::Command(Command { needs: Needs::Nothing, .. }) = found {
        return naca(cdb, found);
    }
    if let Some(attention) = cx.attentions.take() {
        return Err(Sense::new(Key::UnitAttention, attention.asc()).into());
    }
    naca(cdb, found)?;
    let Found::Command(command) = found else {
        return Err(match found {
            Found::NoAction => Sense::cdb_field(1),
            _ => Sense::illegal(asc::INVALID_OPCODE),
        }
        .into());
    };
    let access = match command.op {
        // START, and a release of the medium, harm nobody (SPC-4, table 31).
        op::START_STOP_UNIT if cdb[4] & 1 != 0 => Access::Inspect,
        _ => command.access,
    };
    if !cx.reservations.permits(cx.nexus.who, access) {
        return Err(Stop::Conflict);
    }
    ready(cx, command)
}

/// NACA: there is no auto contingent allegiance here (NORMACA is 0).
fn naca(cdb: &Cdb, found: Found) -> Result<(), Stop> {
    let Found::Command(command) = found else { return Ok(()) };
    let last = command.usage.len() - 1;
    if cdb[last] & 0x04 != 0 { Err(Sense::cdb_field(last as u16).into()) } else { Ok(()) }
}

/// What keeps the unit from being ready, as sense data.
pub(super) fn not_ready(cx: &Cx<'_>) -> Option<Sense> {
    let sense = |asc| Some(Sense::new(Key::NotReady, asc));
    match cx.state.obstacle() {
        Some(Obstacle::Sanitizing(part)) => {
            return Some(Sense { sks: Sks::Progress(part), ..Sense::new(Key::NotReady, asc::SANITIZE_IN_PROGRESS) });
        }
        Some(Obstacle::SanitizeFailed(_)) => return Some(Sense::new(Key::MediumError, asc::SANITIZE_FAILED)),
        Some(Obstacle::Stopped) => return sense(asc::INITIALIZING_REQUIRED),
        None => {}
    }
    match cx.unit.device.access(cx.nexus.group) {
        PortAccess::ActiveOptimized | PortAccess::ActiveNonOptimized => None,
        PortAccess::Standby => sense(asc::ALUA_STANDBY),
        PortAccess::Unavailable => sense(asc::ALUA_UNAVAILABLE),
        PortAccess::Transitioning => sense(asc::ALUA_TRANSITION),
    }
}

fn ready(cx: &Cx<'_>, command: &Command) -> Result<(), Stop> {
    let passes = match command.needs {
        Needs::Nothing | Needs::Unit => true,
        Needs::Start => cx.state.obstacle() == Some(Obstacle::Stopped),
        // A failed SANITIZE may be tried again, or left.
        Needs::Medium => command.op == op::SANITIZE && matches!(cx.state.obstacle(), Some(Obstacle::SanitizeFailed(_))),
    };
    match not_ready(cx) {
        Some(sense) if !passes => Err(sense.into()),
        _ => Ok(()),
    }
}

fn dispatch(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let flags = cdb[1];
    let ten = (u64::from(be32(cdb, 2)), u32::from(be16(cdb, 7)));
    let twelve = (u64::from(be32(cdb, 2)), be32(cdb, 6));
    let sixteen = (be64(cdb, 2), be32(cdb, 10));
    match cdb[0] {
        op::TEST_UNIT_READY => Ok(Begin::End(End::GOOD)),
        op::INQUIRY => inquiry::inquiry(cx, cdb),
        op::REQUEST_SENSE => report::request_sense(cx, cdb),
        op::READ_CAPACITY_10 => report::read_capacity_10(cx, cdb),
        op::SERVICE_ACTION_IN_16 if flags & 0x1f == op::sa::GET_LBA_STATUS => lba_status::get_lba_status(cx, cdb),
        op::SERVICE_ACTION_IN_16 => report::read_capacity_16(cx, cdb),
        op::REPORT_LUNS => report::report_luns(cx.units, cdb, cx.pool),
        op::LOG_SENSE => report::log_sense(cx, cdb),
        op::SYNC_CACHE_10 => synchronize(cx, ten),
        op::SYNC_CACHE_16 => synchronize(cx, sixteen),
        op::PRE_FETCH_10 => prefetch(cx, ten),
        op::PRE_FETCH_16 => prefetch(cx, sixteen),
        op::VERIFY_10 => verify::verify(cx, flags, ten),
        op::VERIFY_12 => verify::verify(cx, flags, twelve),
        op::VERIFY_16 => verify::verify(cx, flags, sixteen),
        op::WRITE_VERIFY_10 => verify::write_and_verify(cx, flags, ten),
        op::WRITE_VERIFY_12 => verify::write_and_verify(cx, flags, twelve),
        op::WRITE_VERIFY_16 => verify::write_and_verify(cx, flags, sixteen),
        op::WRITE_SAME_10 => same::write_same(cx, flags & !1, ten, false),
        op::WRITE_SAME_16 => same::write_same(cx, flags, sixteen, true),
        op::UNMAP => unmap::unmap(cx, cdb),
        op::COMPARE_AND_WRITE => atomic::compare_and_write(cx, cdb),
        op::ORWRITE_16 => atomic::or_write(cx, flags, sixteen),
        op::WRITE_ATOMIC_16 => atomic::write_atomic(cx, cdb),
        op::MODE_SENSE_6 | op::MODE_SENSE_10 => mode::sense(cx, cdb),
        op::MODE_SELECT_6 | op::MODE_SELECT_10 => mode::select(cx, cdb),
        op::START_STOP_UNIT => mode::start_stop(cx, cdb),
        op::PREVENT_ALLOW => mode::prevent_allow(cdb),
        op::PERSISTENT_RESERVE_IN => reserve::report(cx, cdb),
        op::PERSISTENT_RESERVE_OUT => reserve::change(cx, cdb),
        op::RESERVE_6 | op::RELEASE_6 | op::RESERVE_10 | op::RELEASE_10 => reserve::legacy(cdb),
        op::MAINTENANCE_IN => match flags & 0x1f {
            op::sa::REPORT_TARGET_PORT_GROUPS => ports::report_groups(cx, cdb),
            op::sa::REPORT_SUPPORTED_OPCODES => opcodes::report_opcodes(cx, cdb),
            _ => opcodes::report_functions(cx, cdb),
        },
        op::THIRD_PARTY_COPY_OUT => copy::extended_copy(cx, cdb),
        op::THIRD_PARTY_COPY_IN => copy::report(cx, cdb),
        op::SANITIZE => sanitize::sanitize(cx, cdb),
        op::READ_DEFECT_10 | op::READ_DEFECT_12 => report::read_defects(cx, cdb),
        _ => match rw(cdb) {
            Some(rw) => transfer(cx, rw).and_then(|io| sized(cx, io)),
            None => Err(Sense::illegal(asc::INVALID_OPCODE).into()),
        },
    }
}

/// A command to a LUN that does not exist (SPC-4, 4.6.4 and SAM-5, 5.11).
pub fn absent(units: &[Unit], cdb: &Cdb, pool: &mut Pool) -> Begin {
    let begun = match cdb[0] {
        op::INQUIRY => inquiry::absent(cdb, pool),
        op::REPORT_LUNS => report::report_luns(units, cdb, pool),
        op::REQUEST_SENSE => report::sense_data(Sense::illegal(asc::LUN_NOT_SUPPORTED), cdb, pool),
        _ => Err(Sense::illegal(asc::LUN_NOT_SUPPORTED).into()),
    };
    match begun {
        Ok(begin) => begin,
        Err(Stop::Sense(sense)) => Begin::End(End::check(sense)),
        Err(Stop::Conflict) => Begin::End(End::CONFLICT),
        Err(Stop::Later) => Begin::Later,
    }
}

/// SYNCHRONIZE CACHE (SBC-3, 5.21): the whole of it, whatever the range.
fn synchronize(cx: &Cx<'_>, (lba, blocks): (u64, u32)) -> Begun {
    in_range(cx.unit, lba, u64::from(blocks))?;
    Ok(Begin::Io(Io { kind: Kind::Flush, lba: 0, blocks: 0, fua: false, bytes: 0 }))
}

/// PRE-FETCH (SBC-3, 5.8): GOOD says that the blocks may not all be in a cache, and none are: there is none.
fn prefetch(cx: &Cx<'_>, (lba, blocks): (u64, u32)) -> Begun {
    in_range(cx.unit, lba, u64::from(blocks))?;
    Ok(Begin::End(End::GOOD))
}

/// Data for the initiator: what `write` emits, cut to `allocation` bytes. `room` is more than it can emit.
pub(super) fn reply(pool: &mut Pool, allocation: u32, room: usize, write: impl FnOnce(&mut Out<'_>)) -> Begun {
    let room = room.min(allocation as usize);
    if room == 0 {
        return Ok(Begin::End(End::GOOD));
    }
    let Some(mut buf) = pool.get(room) else { return Err(Stop::Later) };
    let kept = {
        let mut out = Out::new(&mut buf);
        write(&mut out);
        out.kept()
    };
    buf.set_len(kept);
    Ok(Begin::End(End::data(buf)))
}

/// The end of a program with sense data of its own.
pub(super) fn check(cx: &Cx<'_>, sense: Sense) -> End {
    End::check(Sense { descriptor: cx.state.descriptor_sense(), ..sense })
}
