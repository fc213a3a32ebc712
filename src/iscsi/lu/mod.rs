//! The device server of a logical unit: what every SCSI command does, sans-I/O. The task layer above brings the CDB and,
//! when a command takes any, its data; what comes back is a plain block request, an end, or a [`Program`] that asks for
//! one step at a time.
//!
//! [`begin`] decides. A READ or WRITE becomes an [`Io`] at the cost of a few compares and without touching the pool. What
//! needs data from the initiator or several requests becomes a [`Program`]; everything else ends at once. A program owns
//! at most a fixed number of pool buffers whatever the command covers, works in pieces, and may be given up between any
//! two steps ([`Program::cancel`]); nothing is in flight then but what the caller itself has not brought back.
//!
//! What stays true: the status of a failed block request becomes sense data in one function ([`sense`]); a command that
//! ends with [`Begin::Later`] or [`Step::Later`] has changed nothing.

mod atomic;
mod attention;
mod begin;
mod commands;
mod copy;
mod finish;
mod inquiry;
mod lba_status;
mod long;
mod mode;
mod opcodes;
mod partial;
mod ports;
mod program;
mod report;
mod reserve;
mod same;
mod sanitize;
mod state;
#[cfg(test)]
mod tests;
mod unit;
mod unmap;
mod verify;

pub use attention::{Attention, Attentions};
pub use begin::{absent, begin};
pub use finish::{finish, sense};
pub use program::{Event, Program, Step};
pub use state::{LuEvent, State};
pub use unit::{Access, Device, Group, Nexus, Unit};

use crate::base::VolumeId;
use crate::mem::{Buf, Pool};
use crate::volume::{Kind, Reservations};
use crate::wire::scsi::{Sense, status};

/// What a command needs to see.
pub struct Cx<'a> {
    /// The logical unit addressed.
    pub unit: &'a Unit,
    /// All units of the target that the initiator may use, by ascending LUN.
    pub units: &'a [Unit],
    /// Who asks.
    pub nexus: Nexus<'a>,
    /// Bytes that the initiator announced to send (Expected Data Transfer Length of a command with W); `None` when it
    /// announced none, and in the later steps of a program.
    pub data_out: Option<u32>,
    /// Who may use the unit's volume.
    pub reservations: &'a Reservations,
    /// Who may use another volume: the other end of a copy.
    pub elsewhere: &'a dyn Fn(VolumeId) -> &'a Reservations,
    /// The unit's state on this core.
    pub state: &'a mut State,
    /// What the nexus has not been told yet about this unit.
    pub attentions: &'a mut Attentions,
    /// The core's buffers.
    pub pool: &'a mut Pool,
}

/// A plain request for the volume behind the unit. Its end goes through [`finish`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Io {
    /// Read (data to the initiator), Write or Compare (data from it), or a kind without data.
    pub kind: Kind,
    /// First block.
    pub lba: u64,
    /// Blocks; within the unit. The caller may shorten a transfer that the initiator has no room or data for.
    pub blocks: u32,
    /// FUA.
    pub fua: bool,
    /// Bytes that the CDB says are transferred, for the residual count; 0 for kinds without data.
    pub bytes: u32,
}

/// What becomes of a command.
#[derive(Debug)]
pub enum Begin {
    /// A plain block request.
    Io(Io),
    /// A program that takes this many bytes from the initiator: [`Program::start`]. It may be given fewer, when the
    /// initiator announced fewer; of more than one request takes it is given the first so many, and asks for the others
    /// ([`Step::Take`]).
    Program(Program, u32),
    /// It has ended.
    End(End),
    /// Buffers are short: call again next turn.
    Later,
}

/// The end of a command.
#[derive(Debug)]
pub struct End {
    /// Status (`wire::scsi::status`).
    pub status: u8,
    /// With CHECK CONDITION.
    pub sense: Option<Sense>,
    /// Data for the initiator, as long as CDB and data say; the caller's to return.
    pub data: Option<Buf>,
}

impl End {
    /// GOOD, no data.
    pub const GOOD: End = End { status: status::GOOD, sense: None, data: None };
    /// RESERVATION CONFLICT.
    pub const CONFLICT: End = End { status: status::RESERVATION_CONFLICT, sense: None, data: None };
    /// BUSY.
    pub const BUSY: End = End { status: status::BUSY, sense: None, data: None };

    /// GOOD with data.
    pub fn data(buf: Buf) -> End {
        End { data: Some(buf), ..End::GOOD }
    }

    /// CHECK CONDITION.
    pub fn check(sense: Sense) -> End {
        End { status: status::CHECK_CONDITION, sense: Some(sense), data: None }
    }
}
