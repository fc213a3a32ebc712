//! Headers that move SCSI commands: SCSI Command and Response, Data-Out, Data-In, R2T (11.3, 11.4, 11.7, 11.8).

use super::{FINAL, Lengths, Numbers, OVERFLOW, UNDERFLOW};
use crate::wire::iscsi::{Lun, NO_TAG, Opcode};
use crate::wire::layout;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// SCSI Command (11.3); immediate data may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ScsiCommand {
    /// Opcode and the I bit.
    pub opcode: u8,
    /// [`FINAL`] (no unsolicited Data-Out follows), [`super::READ`], [`super::WRITE`] and the task attribute.
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: U32,
    /// Expected Data Transfer Length, bytes (of the write half when bidirectional).
    pub expected: U32,
    /// `CmdSN`.
    pub cmd_sn: U32,
    /// `ExpStatSN`.
    pub exp_stat_sn: U32,
    /// The first 16 bytes of the CDB; shorter ones are padded with zeros.
    pub cdb: [u8; 16],
}
layout!(ScsiCommand, 48, flags @ 1, lengths @ 4, lun @ 8, itt @ 16, expected @ 20, cmd_sn @ 24, exp_stat_sn @ 28, cdb @ 32);

impl ScsiCommand {
    /// A command with `data` bytes of immediate data. `flags`: as the field.
    #[inline]
    pub fn new(flags: u8, lun: Lun, itt: u32, expected: u32, data: u32, cdb: [u8; 16]) -> ScsiCommand {
        ScsiCommand {
            opcode: Opcode::ScsiCommand as u8,
            flags,
            reserved: [0; 2],
            lengths: Lengths::data(data),
            lun,
            itt: U32::new(itt),
            expected: U32::new(expected),
            cmd_sn: U32::ZERO,
            exp_stat_sn: U32::ZERO,
            cdb,
        }
    }
}

/// How far the bytes that a command could have moved differ from the Expected Data Transfer Length (11.4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Residual {
    /// Not at all.
    #[default]
    None,
    /// The command had this many bytes more than were expected.
    Overflow(u32),
    /// The command had this many bytes less than were expected.
    Underflow(u32),
}

impl Residual {
    /// For a command that had `actual` bytes to move where `expected` were.
    #[inline]
    pub const fn between(expected: u32, actual: u64) -> Residual {
        if actual == expected as u64 {
            Residual::None
        } else if actual < expected as u64 {
            Residual::Underflow(expected - actual as u32)
        } else {
            let over = actual - expected as u64;
            Residual::Overflow(if over > u32::MAX as u64 { u32::MAX } else { over as u32 })
        }
    }
    /// The O or U bit of byte 1.
    #[inline]
    pub const fn flags(self) -> u8 {
        match self {
            Residual::None => 0,
            Residual::Overflow(_) => OVERFLOW,
            Residual::Underflow(_) => UNDERFLOW,
        }
    }
    /// The Residual Count, bytes.
    #[inline]
    pub const fn count(self) -> u32 {
        match self {
            Residual::None => 0,
            Residual::Overflow(n) | Residual::Underflow(n) => n,
        }
    }
    /// From the bits and the count of a response; the count means nothing when no bit is set.
    #[inline]
    pub const fn read(flags: u8, count: u32) -> Residual {
        match flags & (OVERFLOW | UNDERFLOW) {
            OVERFLOW => Residual::Overflow(count),
            UNDERFLOW => Residual::Underflow(count),
            _ => Residual::None,
        }
    }
}

/// SCSI Response (11.4); the data is `SenseLength` (2 bytes), sense data and response data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ScsiResponse {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`] and the residual bits.
    pub flags: u8,
    /// Response: [`ScsiResponse::COMPLETED`] or [`ScsiResponse::TARGET_FAILURE`].
    pub response: u8,
    /// SCSI status, valid when completed.
    pub status: u8,
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// Reserved, zero.
    pub reserved: [u8; 8],
    /// Initiator Task Tag.
    pub itt: U32,
    /// SNACK tag or zero.
    pub snack_tag: U32,
    /// Sequence numbers; the status takes a `StatSN`.
    pub numbers: Numbers,
    /// `ExpDataSN`: Data-In and R2T PDUs sent for the command.
    pub exp_data_sn: U32,
    /// Bidirectional Read Residual Count, bytes.
    pub bidi_residual: U32,
    /// Residual Count, bytes.
    pub residual: U32,
}
layout!(ScsiResponse, 48, response @ 2, status @ 3, itt @ 16, snack_tag @ 20, numbers @ 24, exp_data_sn @ 36,
    bidi_residual @ 40, residual @ 44);

impl ScsiResponse {
    /// Response: the command completed at the target.
    pub const COMPLETED: u8 = 0x00;
    /// Response: the target failed.
    pub const TARGET_FAILURE: u8 = 0x01;

    /// A completed command with `data` bytes of sense and response data.
    #[inline]
    pub fn new(
        itt: u32,
        status: u8,
        residual: Residual,
        numbers: Numbers,
        exp_data_sn: u32,
        data: u32,
    ) -> ScsiResponse {
        ScsiResponse {
            opcode: Opcode::ScsiResponse as u8,
            flags: FINAL | residual.flags(),
            response: ScsiResponse::COMPLETED,
            status,
            lengths: Lengths::data(data),
            reserved: [0; 8],
            itt: U32::new(itt),
            snack_tag: U32::ZERO,
            numbers,
            exp_data_sn: U32::new(exp_data_sn),
            bidi_residual: U32::ZERO,
            residual: U32::new(residual.count()),
        }
    }
}

/// SCSI Data-Out (11.7); data follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataOut {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`]: last of the unsolicited burst or of the R2T.
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// Logical unit: the one of the R2T when `ttt` is not [`NO_TAG`].
    pub lun: Lun,
    /// Initiator Task Tag of the command.
    pub itt: U32,
    /// Target Transfer Tag of the R2T, or [`NO_TAG`] for unsolicited data.
    pub ttt: U32,
    /// Reserved, zero.
    pub reserved2: U32,
    /// `ExpStatSN`.
    pub exp_stat_sn: U32,
    /// Reserved, zero.
    pub reserved3: U32,
    /// `DataSN`: counts from 0 within the burst.
    pub data_sn: U32,
    /// Buffer Offset, bytes.
    pub offset: U32,
    /// Reserved, zero.
    pub reserved4: U32,
}
layout!(DataOut, 48, lun @ 8, itt @ 16, ttt @ 20, exp_stat_sn @ 28, data_sn @ 36, offset @ 40);

impl DataOut {
    /// `data` bytes at `offset` of the command `itt`, for the R2T `ttt` ([`NO_TAG`]: unsolicited).
    #[inline]
    pub fn new(lun: Lun, itt: u32, ttt: u32, data_sn: u32, offset: u32, data: u32, last: bool) -> DataOut {
        DataOut {
            opcode: Opcode::DataOut as u8,
            flags: if last { FINAL } else { 0 },
            reserved: [0; 2],
            lengths: Lengths::data(data),
            lun,
            itt: U32::new(itt),
            ttt: U32::new(ttt),
            reserved2: U32::ZERO,
            exp_stat_sn: U32::ZERO,
            reserved3: U32::ZERO,
            data_sn: U32::new(data_sn),
            offset: U32::new(offset),
            reserved4: U32::ZERO,
        }
    }
}

/// SCSI Data-In (11.7); data follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataIn {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`] (end of a burst), [`super::ACKNOWLEDGE`], [`super::STATUS`], residual bits with status only.
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: u8,
    /// SCSI status, with [`super::STATUS`] only.
    pub status: u8,
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// Logical unit, with [`super::ACKNOWLEDGE`] only.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: U32,
    /// Target Transfer Tag, with [`super::ACKNOWLEDGE`] only, else [`NO_TAG`].
    pub ttt: U32,
    /// Sequence numbers; `StatSN` with [`super::STATUS`] only.
    pub numbers: Numbers,
    /// `DataSN`: counts from 0 within the command.
    pub data_sn: U32,
    /// Buffer Offset, bytes.
    pub offset: U32,
    /// Residual Count, bytes, with status.
    pub residual: U32,
}
layout!(DataIn, 48, status @ 3, lun @ 8, itt @ 16, ttt @ 20, numbers @ 24, data_sn @ 36, offset @ 40, residual @ 44);

impl DataIn {
    /// `data` bytes at `offset` of command `itt`. `last`: end of the burst. See [`DataIn::with_status`].
    #[inline]
    pub fn new(itt: u32, data_sn: u32, offset: u32, data: u32, last: bool, numbers: Numbers) -> DataIn {
        DataIn {
            opcode: Opcode::DataIn as u8,
            flags: if last { FINAL } else { 0 },
            reserved: 0,
            status: 0,
            lengths: Lengths::data(data),
            lun: Lun([0; 8]),
            itt: U32::new(itt),
            ttt: U32::new(NO_TAG),
            numbers,
            data_sn: U32::new(data_sn),
            offset: U32::new(offset),
            residual: U32::ZERO,
        }
    }

    /// The same as the last PDU of its command: it carries the status, and no response follows (11.7.3). Only statuses
    /// without sense data can be sent so.
    #[inline]
    #[must_use]
    pub fn with_status(mut self, status: u8, residual: Residual) -> DataIn {
        self.flags |= FINAL | super::STATUS | residual.flags();
        self.status = status;
        self.residual = U32::new(residual.count());
        self
    }
}

/// Ready To Transfer (11.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct R2t {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`].
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Zero lengths.
    pub lengths: Lengths,
    /// Logical unit, to be echoed with the tag.
    pub lun: Lun,
    /// Initiator Task Tag of the command.
    pub itt: U32,
    /// Target Transfer Tag.
    pub ttt: U32,
    /// Sequence numbers; `StatSN` is the next one and is not taken.
    pub numbers: Numbers,
    /// `R2TSN`: counts from 0 within the command.
    pub r2t_sn: U32,
    /// Buffer Offset, bytes.
    pub offset: U32,
    /// Desired Data Transfer Length, bytes (> 0, at most `MaxBurstLength`).
    pub desired: U32,
}
layout!(R2t, 48, lun @ 8, itt @ 16, ttt @ 20, numbers @ 24, r2t_sn @ 36, offset @ 40, desired @ 44);

impl R2t {
    /// Asks for `desired` bytes at `offset` of the command `itt`.
    #[inline]
    pub fn new(lun: Lun, itt: u32, ttt: u32, r2t_sn: u32, offset: u32, desired: u32, numbers: Numbers) -> R2t {
        R2t {
            opcode: Opcode::R2t as u8,
            flags: FINAL,
            reserved: [0; 2],
            lengths: Lengths::data(0),
            lun,
            itt: U32::new(itt),
            ttt: U32::new(ttt),
            numbers,
            r2t_sn: U32::new(r2t_sn),
            offset: U32::new(offset),
            desired: U32::new(desired),
        }
    }
}
