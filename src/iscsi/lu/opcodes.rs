//! REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4, 6.35 and 6.36).

use super::atomic::atomic_max;
use super::begin::{Begun, reply};
use super::commands::{COMMANDS, Command, Found, find, with_code};
use super::sanitize::overwrites;
use super::{Cx, Unit};
use crate::wire::scsi::{Cdb, Out, Sense, be16, be32, op};

/// Bytes of a command's timeouts descriptor.
const TIMEOUTS: usize = 12;

/// True when the unit has the command: a WRITE ATOMIC needs a volume that promises something, an overwriting SANITIZE one
/// whose blocks are written in place.
fn supported(unit: &Unit, command: &Command) -> bool {
    match (command.op, command.action) {
        (op::WRITE_ATOMIC_16, _) => atomic_max(unit) != 0,
        (op::SANITIZE, Some(op::sa::OVERWRITE)) => overwrites(unit),
        _ => true,
    }
}

fn put_timeouts(out: &mut Out<'_>, command: &Command) {
    out.u16(TIMEOUTS as u16 - 2);
    out.u16(0);
    // No nominal time.
    out.u32(0);
    out.u32(command.seconds);
}

/// REPORT SUPPORTED OPERATION CODES.
pub(super) fn report_opcodes(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let (timeouts, how, code, action) = (cdb[2] & 0x80 != 0, cdb[2] & 7, cdb[3], be16(cdb, 4));
    let allocation = be32(cdb, 6);
    let unit = cx.unit;
    let has_actions = with_code(code).any(|c| c.action.is_some());
    let known = with_code(code).next().is_some_and(|c| supported(unit, c));
    match how {
        0 => return report_all(cx, allocation, timeouts),
        // An operation code with service actions, asked for without one; and the other way round.
        1 if has_actions => return Err(Sense::cdb_field(3).into()),
        2 if known && !has_actions => return Err(Sense::cdb_field(3).into()),
        1..=3 => {}
        _ => return Err(Sense::cdb_field(2).into()),
    }
    let action = u8::try_from(action).unwrap_or(u8::MAX);
    let command = match find(code, action) {
        Found::Command(c) if how == 3 && c.action.is_none() && action != 0 => None,
        Found::Command(c) if supported(unit, c) => Some(c),
        _ => None,
    };
    reply(cx.pool, allocation, 4 + 16 + TIMEOUTS, |out| match command {
        // Not supported.
        None => out.put(&[0, 1, 0, 0]),
        Some(c) => {
            // CTDP; supported as the standard says.
            out.put(&[0, u8::from(timeouts) << 7 | 3]);
            out.u16(c.usage.len() as u16);
            out.put(c.usage);
            if let Some(action) = c.action {
                // The service action itself, where a mask is for the rest.
                let mask = c.usage[1] & !0x1f;
                out.patch(5, &[mask | action]);
            }
            if timeouts {
                put_timeouts(out, c);
            }
        }
    })
}

fn report_all(cx: &mut Cx<'_>, allocation: u32, timeouts: bool) -> Begun {
    let unit = cx.unit;
    reply(cx.pool, allocation, 4 + COMMANDS.len() * (8 + TIMEOUTS), |out| {
        out.u32(0);
        for c in COMMANDS.iter().filter(|c| supported(unit, c)) {
            out.put(&[c.op, 0]);
            out.u16(u16::from(c.action.unwrap_or(0)));
            // CTDP, SERVACTV.
            out.put(&[0, u8::from(timeouts) << 1 | u8::from(c.action.is_some())]);
            out.u16(c.usage.len() as u16);
            if timeouts {
                put_timeouts(out, c);
            }
        }
        out.patch_len32(0);
    })
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
pub(super) fn report_functions(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let (extended, allocation) = (cdb[2] & 0x80 != 0, be32(cdb, 6));
    if allocation < 4 {
        return Err(Sense::cdb_field(6).into());
    }
    reply(cx.pool, allocation, 16, |out| {
        // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET.
        out.u8(0x80 | 0x40 | 0x10 | 0x08 | 0x02);
        out.put(&[0, 0, if extended { 12 } else { 0 }]);
        if extended {
            out.zeroes(12);
        }
    })
}
