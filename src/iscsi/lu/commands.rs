//! Every command there is: which bits of its CDB matter, what it needs of the unit, and what it is to reservations. One
//! table serves the checks before a command and REPORT SUPPORTED OPERATION CODES.

use crate::volume::reserve::Access;
use crate::wire::scsi::op::{self, sa};

/// What a command needs of the unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// Nothing: it is answered whatever the state, and leaves unit attentions alone (INQUIRY and the like).
    Nothing,
    /// Only that it exists: also in standby, stopped, and while it is sanitized.
    Unit,
    /// As above, but not while it is sanitized, and not in standby.
    Start,
    /// A medium that is ready.
    Medium,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    /// Operation code.
    pub op: u8,
    /// Service action, for operation codes that have them.
    pub action: Option<u8>,
    /// CDB usage data (SPC-4, 6.35.3): the operation code, then a mask of the bits that are looked at. Its length is the
    /// CDB's.
    pub usage: &'static [u8],
    /// What it does, for reservations.
    pub access: Access,
    /// What it needs.
    pub needs: Needs,
    /// Seconds after which an initiator may ask what became of it (RECOMMENDED COMMAND TIMEOUT).
    pub seconds: u32,
}

/// Seconds for what takes a while by its nature.
const SHORT: u32 = 30;
const LONG: u32 = 600;
const DAYS: u32 = 7 * 86_400;

const fn one(op: u8, usage: &'static [u8], access: Access, needs: Needs, seconds: u32) -> Command {
    Command { op, action: None, usage, access, needs, seconds }
}

const fn many(action: u8, usage: &'static [u8], access: Access, needs: Needs, seconds: u32) -> Command {
    Command { op: usage[0], action: Some(action), usage, access, needs, seconds }
}

use Access::{Always, Inspect, Read, Write};
use Needs::{Medium, Nothing, Start, Unit};

/// All commands, by operation code and service action.
pub(super) const COMMANDS: &[Command] = &[
    one(op::TEST_UNIT_READY, b"\x00\0\0\0\0\0", Inspect, Medium, SHORT),
    one(op::REQUEST_SENSE, b"\x03\x01\0\0\xff\0", Always, Nothing, SHORT),
    one(op::READ_6, b"\x08\x1f\xff\xff\xff\0", Read, Medium, SHORT),
    one(op::WRITE_6, b"\x0a\x1f\xff\xff\xff\0", Write, Medium, SHORT),
    one(op::INQUIRY, b"\x12\x01\xff\xff\xff\0", Always, Nothing, SHORT),
    one(op::MODE_SELECT_6, b"\x15\x11\0\0\xff\0", Write, Unit, SHORT),
    one(op::RESERVE_6, b"\x16\x11\0\0\0\0", Always, Unit, SHORT),
    one(op::RELEASE_6, b"\x17\x11\0\0\0\0", Always, Unit, SHORT),
    one(op::MODE_SENSE_6, b"\x1a\x08\xff\xff\xff\0", Read, Unit, SHORT),
    one(op::START_STOP_UNIT, b"\x1b\x01\0\x0f\xf7\0", Write, Start, SHORT),
    one(op::PREVENT_ALLOW, b"\x1e\0\0\0\x03\0", Inspect, Medium, SHORT),
    one(op::READ_CAPACITY_10, b"\x25\0\xff\xff\xff\xff\0\0\x01\0", Inspect, Medium, SHORT),
    one(op::READ_10, b"\x28\x18\xff\xff\xff\xff\0\xff\xff\0", Read, Medium, SHORT),
    one(op::WRITE_10, b"\x2a\x18\xff\xff\xff\xff\0\xff\xff\0", Write, Medium, SHORT),
    one(op::WRITE_VERIFY_10, b"\x2e\x16\xff\xff\xff\xff\0\xff\xff\0", Write, Medium, SHORT),
    one(op::VERIFY_10, b"\x2f\x16\xff\xff\xff\xff\0\xff\xff\0", Read, Medium, LONG),
    one(op::PRE_FETCH_10, b"\x34\x02\xff\xff\xff\xff\0\xff\xff\0", Read, Medium, SHORT),
    one(op::SYNC_CACHE_10, b"\x35\x06\xff\xff\xff\xff\0\xff\xff\0", Write, Medium, LONG),
    one(op::READ_DEFECT_10, b"\x37\0\x1f\0\0\0\0\xff\xff\0", Read, Medium, SHORT),
    one(op::WRITE_SAME_10, b"\x41\x18\xff\xff\xff\xff\0\xff\xff\0", Write, Medium, LONG),
    one(op::UNMAP, b"\x42\x01\0\0\0\0\0\xff\xff\0", Write, Medium, LONG),
    many(sa::OVERWRITE, b"\x48\xbf\0\0\0\0\0\xff\xff\0", Write, Medium, DAYS),
    many(sa::BLOCK_ERASE, b"\x48\xbf\0\0\0\0\0\xff\xff\0", Write, Medium, DAYS),
    many(sa::EXIT_FAILURE, b"\x48\xbf\0\0\0\0\0\xff\xff\0", Write, Medium, SHORT),
    one(op::LOG_SENSE, b"\x4d\x01\xff\xff\0\0\0\xff\xff\0", Inspect, Unit, SHORT),
    one(op::MODE_SELECT_10, b"\x55\x11\0\0\0\0\0\xff\xff\0", Write, Unit, SHORT),
    one(op::RESERVE_10, b"\x56\x13\0\0\0\0\0\0\0\0", Always, Unit, SHORT),
    one(op::RELEASE_10, b"\x57\x13\0\0\0\0\0\0\0\0", Always, Unit, SHORT),
    one(op::MODE_SENSE_10, b"\x5a\x18\xff\xff\0\0\0\xff\xff\0", Read, Unit, SHORT),
    many(sa::READ_KEYS, b"\x5e\x1f\0\0\0\0\0\xff\xff\0", Inspect, Unit, SHORT),
    many(sa::READ_RESERVATION, b"\x5e\x1f\0\0\0\0\0\xff\xff\0", Inspect, Unit, SHORT),
    many(sa::REPORT_CAPABILITIES, b"\x5e\x1f\0\0\0\0\0\xff\xff\0", Inspect, Unit, SHORT),
    many(sa::READ_FULL_STATUS, b"\x5e\x1f\0\0\0\0\0\xff\xff\0", Inspect, Unit, SHORT),
    many(sa::REGISTER, b"\x5f\x1f\0\0\0\xff\xff\xff\xff\0", Always, Unit, SHORT),
    many(sa::RESERVE, b"\x5f\x1f\xff\0\0\xff\xff\xff\xff\0", Always, Unit, SHORT),
    many(sa::RELEASE, b"\x5f\x1f\xff\0\0\xff\xff\xff\xff\0", Always, Unit, SHORT),
    many(sa::CLEAR, b"\x5f\x1f\0\0\0\xff\xff\xff\xff\0", Always, Unit, SHORT),
    many(sa::PREEMPT, b"\x5f\x1f\xff\0\0\xff\xff\xff\xff\0", Always, Unit, SHORT),
    many(sa::PREEMPT_AND_ABORT, b"\x5f\x1f\xff\0\0\xff\xff\xff\xff\0", Always, Unit, SHORT),
    many(sa::REGISTER_AND_IGNORE, b"\x5f\x1f\0\0\0\xff\xff\xff\xff\0", Always, Unit, SHORT),
    many(sa::REGISTER_AND_MOVE, b"\x5f\x1f\0\0\0\xff\xff\xff\xff\0", Always, Unit, SHORT),
    many(sa::EXTENDED_COPY_LID1, b"\x83\x1f\0\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0", Write, Medium, LONG),
    many(sa::COPY_STATUS, b"\x84\x1f\xff\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0", Inspect, Unit, SHORT),
    many(sa::COPY_PARAMETERS, b"\x84\x1f\0\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0", Inspect, Unit, SHORT),
    many(sa::COPY_FAILURE_DETAILS, b"\x84\x1f\xff\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0", Inspect, Unit, SHORT),
    one(op::READ_16, b"\x88\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Read, Medium, SHORT),
    one(op::COMPARE_AND_WRITE, b"\x89\x18\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\xff\0\0", Write, Medium, SHORT),
    one(op::WRITE_16, b"\x8a\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Write, Medium, SHORT),
    one(op::ORWRITE_16, b"\x8b\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Write, Medium, SHORT),
    one(op::WRITE_VERIFY_16, b"\x8e\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Write, Medium, SHORT),
    one(op::VERIFY_16, b"\x8f\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Read, Medium, LONG),
    one(op::PRE_FETCH_16, b"\x90\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Read, Medium, SHORT),
    one(op::SYNC_CACHE_16, b"\x91\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Write, Medium, LONG),
    one(op::WRITE_SAME_16, b"\x93\x19\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Write, Medium, LONG),
    one(op::WRITE_ATOMIC_16, b"\x9c\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Write, Medium, SHORT),
    many(sa::READ_CAPACITY_16, b"\x9e\x1f\0\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0", Inspect, Medium, SHORT),
    many(sa::GET_LBA_STATUS, b"\x9e\x1f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Read, Medium, SHORT),
    one(op::REPORT_LUNS, b"\xa0\0\xff\0\0\0\xff\xff\xff\xff\0\0", Always, Nothing, SHORT),
    many(sa::REPORT_TARGET_PORT_GROUPS, b"\xa3\xff\0\0\0\0\xff\xff\xff\xff\0\0", Inspect, Unit, SHORT),
    many(sa::REPORT_SUPPORTED_OPCODES, b"\xa3\x1f\x87\xff\xff\xff\xff\xff\xff\xff\0\0", Inspect, Unit, SHORT),
    many(sa::REPORT_SUPPORTED_TMF, b"\xa3\x1f\x80\0\0\0\xff\xff\xff\xff\0\0", Inspect, Unit, SHORT),
    one(op::READ_12, b"\xa8\x18\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Read, Medium, SHORT),
    one(op::WRITE_12, b"\xaa\x18\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Write, Medium, SHORT),
    one(op::WRITE_VERIFY_12, b"\xae\x16\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Write, Medium, SHORT),
    one(op::VERIFY_12, b"\xaf\x16\xff\xff\xff\xff\xff\xff\xff\xff\0\0", Read, Medium, LONG),
    one(op::READ_DEFECT_12, b"\xb7\x1f\0\0\0\0\xff\xff\xff\xff\0\0", Read, Medium, SHORT),
];

/// Where the entries of an operation code begin in [`COMMANDS`]; `NONE` where there are none.
const INDEX: [u8; 256] = {
    let mut index = [NONE; 256];
    let mut at = COMMANDS.len();
    while at > 0 {
        at -= 1;
        index[COMMANDS[at].op as usize] = at as u8;
    }
    index
};
const NONE: u8 = u8::MAX;
const _: () = assert!(COMMANDS.len() < NONE as usize);

/// What is known of an operation code and service action.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// The command.
    Command(&'static Command),
    /// The operation code has service actions, but not this one.
    NoAction,
    /// There is no such operation code.
    Nothing,
}

/// The command of an operation code, and of a service action where the code has such.
pub(super) fn find(op: u8, action: u8) -> Found {
    let mut entries = with_code(op).peekable();
    match entries.peek() {
        None => return Found::Nothing,
        Some(Command { action: None, .. }) => {}
        Some(_) => match entries.find(|c| c.action == Some(action)) {
            Some(command) => return Found::Command(command),
            None => return Found::NoAction,
        },
    }
    entries.next().map_or(Found::Nothing, Found::Command)
}

/// All entries of an operation code.
pub(super) fn with_code(op: u8) -> impl Iterator<Item = &'static Command> {
    let from = usize::from(INDEX[usize::from(op)]);
    COMMANDS.get(from..).unwrap_or_default().iter().take_while(move |c| c.op == op)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_whole_and_found_by_code_and_action() {
        let keys: Vec<_> = COMMANDS.iter().map(|c| (c.op, c.action)).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|w| w[0] != w[1]), "by code and action, each once");
        for c in COMMANDS {
            assert_eq!(c.usage[0], c.op, "usage data begins with the code: {c:?}");
            let len = match c.op >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                _ => 12,
            };
            assert_eq!(c.usage.len(), len, "{c:?}");
            assert!(matches!(find(c.op, c.action.unwrap_or(9)), Found::Command(f) if f.action == c.action));
            assert!(c.action.is_none_or(|a| a & c.usage[1] & 0x1f == a), "the action's bits are looked at: {c:?}");
        }
        assert!(matches!(find(0x5e, 4), Found::NoAction) && matches!(find(0xff, 0), Found::Nothing));
    }
}
