//! MODE SENSE and MODE SELECT (SPC-4, 6.9 on), START STOP UNIT (SBC-3, 5.25), PREVENT ALLOW MEDIUM REMOVAL (SBC-3, 5.9).

use super::begin::{Begun, check, reply};
use super::finish::SHORT_DATA;
use super::program::{Program, Run};
use super::{Begin, Cx, End, Event, LuEvent, Step};
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::wire::scsi::mode::{self, Bad, Facts, MODE_DATA_MAX, Values};
use crate::wire::scsi::{Cdb, Out, Sense, asc, be16, op};

/// DPOFUA: DPO and FUA may be set.
const DPOFUA: u8 = 0x10;
/// WP: the medium is write protected.
const WP: u8 = 0x80;

fn facts(cx: &Cx<'_>) -> Facts {
    Facts { volatile_cache: cx.unit.info.volatile_cache, threshold_percent: cx.unit.threshold_percent }
}

/// MODE SENSE(6) and (10).
pub(super) fn sense(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let ten = cdb[0] == op::MODE_SENSE_10;
    let allocation = if ten { u32::from(be16(cdb, 7)) } else { u32::from(cdb[4]) };
    let values = match cdb[2] >> 6 {
        0 => Values::Current,
        1 => Values::Changeable,
        2 => Values::Default,
        _ => return Err(Sense::illegal(asc::SAVING_NOT_SUPPORTED).into()),
    };
    let (code, subpage) = (cdb[2] & 0x3f, cdb[3]);
    let (dbd, long) = (cdb[1] & 0x08 != 0, ten && cdb[1] & 0x10 != 0);
    let (facts, modes) = (facts(cx), cx.state.modes());
    let protected = cx.unit.info.read_only || modes.write_protect;
    let device = DPOFUA | if protected { WP } else { 0 };
    let (blocks, size) = (cx.unit.info.blocks, cx.unit.info.block_size);
    let mut room = [0; MODE_DATA_MAX];
    let mut out = Out::new(&mut room);
    let descriptor = match (dbd, long) {
        (true, _) => 0,
        (false, false) => 8u8,
        (false, true) => 16,
    };
    if ten {
        out.put(&[0, 0, 0, device, u8::from(long), 0, 0, descriptor]);
    } else {
        out.put(&[0, 0, device, descriptor]);
    }
    match descriptor {
        8 => {
            out.u32(u32::try_from(blocks).unwrap_or(u32::MAX));
            out.u32(size);
        }
        16 => {
            out.u64(blocks);
            out.u32(0);
            out.u32(size);
        }
        _ => {}
    }
    if !mode::put_pages(&mut out, code, subpage, values, modes, facts) {
        return Err(Sense::cdb_field(2).into());
    }
    let len = out.len();
    if ten {
        out.patch_len16(0);
    } else {
        out.patch(0, &[u8::try_from(len - 1).unwrap_or(u8::MAX)]);
    }
    reply(cx.pool, allocation, len, |o| o.put(&room[..len]))
}

/// MODE SELECT(6) and (10).
pub(super) fn select(_: &Cx<'_>, cdb: &Cdb) -> Begun {
    // PF: the pages have the standard's format. SP: nothing is saved.
    if cdb[1] & 0x10 == 0 || cdb[1] & 0x01 != 0 {
        return Err(Sense::cdb_field(1).into());
    }
    let ten = cdb[0] == op::MODE_SELECT_10;
    let len = if ten { u32::from(be16(cdb, 7)) } else { u32::from(cdb[4]) };
    if len == 0 {
        return Ok(Begin::End(End::GOOD));
    }
    Ok(Begin::Program(Program::new(Select { ten, want: len }), len))
}

/// A MODE SELECT under way.
#[derive(Debug)]
pub(super) struct Select {
    ten: bool,
    want: u32,
}

impl Run for Select {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        let now = cx.state.modes();
        let read = match data.as_deref() {
            Some(list) if list.len() == self.want as usize => mode::select(list, self.ten, now, facts(cx)),
            _ => Err(Bad::Length),
        };
        cx.pool.put_all(data);
        match read {
            Ok(modes) if modes == now => Step::End(End::GOOD),
            Ok(modes) => Step::Lu(LuEvent::Modes(modes)),
            Err(Bad::Length) => Step::End(check(cx, Sense::illegal(asc::PARAMETER_LIST_LENGTH))),
            Err(Bad::Field(at)) => Step::End(check(cx, Sense::parameter_field(at))),
        }
    }

    fn resume(&mut self, _: Event, _: &mut Cx<'_>) -> Step {
        Step::End(End::GOOD)
    }

    fn cancel(self, _: &mut Pool) {}
}

/// START STOP UNIT: only START counts; a fixed medium is neither loaded nor ejected, and there are no power conditions.
pub(super) fn start_stop(cx: &Cx<'_>, cdb: &Cdb) -> Begun {
    let (power, load, start) = (cdb[4] >> 4, cdb[4] & 2 != 0, cdb[4] & 1 != 0);
    if load && power == 0 {
        return Err(Sense::cdb_field(4).into());
    }
    if power != 0 || start == cx.state.serves() {
        return Ok(Begin::End(End::GOOD));
    }
    Ok(Begin::Program(Program::new(StartStop { start, flushed: false }), 0))
}

/// A START STOP UNIT under way: what is cached reaches the medium before it stops.
#[derive(Debug)]
pub(super) struct StartStop {
    start: bool,
    flushed: bool,
}

impl Run for StartStop {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        cx.pool.put_all(data);
        if self.start {
            return Step::Lu(LuEvent::Started(true));
        }
        super::program::access(cx, Kind::Flush, 0, 0)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        match event {
            Event::Io { status, detail, buf } if !self.flushed => {
                self.flushed = true;
                if status.is_ok() {
                    return Step::Lu(LuEvent::Started(false));
                }
                Step::End(super::finish::failed_at(cx, Kind::Flush, status, detail, buf))
            }
            _ => Step::End(End::GOOD),
        }
    }

    fn cancel(self, _: &mut Pool) {}
}

/// PREVENT ALLOW MEDIUM REMOVAL: a fixed medium stays where it is, asked or not.
pub(super) fn prevent_allow(cdb: &Cdb) -> Begun {
    if cdb[4] & 0x02 != 0 {
        return Err(SHORT_DATA.into());
    }
    Ok(Begin::End(End::GOOD))
}
