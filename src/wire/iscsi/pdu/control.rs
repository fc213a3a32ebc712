//! Headers beside commands and logins: task management, SNACK, Reject, Asynchronous Message, NOP (11.5, 11.6, 11.9,
//! 11.16 to 11.19).

use super::{FINAL, Lengths, Numbers};
use crate::wire::iscsi::{AsyncEvent, Lun, NO_TAG, Opcode, RejectReason, SnackType, TaskAnswer, TaskFunction};
use crate::wire::layout;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Task Management Function Request (11.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TaskRequest {
    /// Opcode and the I bit.
    pub opcode: u8,
    /// 0x80 and the function ([`TaskFunction`]).
    pub function: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Zero lengths.
    pub lengths: Lengths,
    /// Logical unit, for the functions that address one.
    pub lun: Lun,
    /// Initiator Task Tag of the request.
    pub itt: U32,
    /// Referenced Task Tag, or [`NO_TAG`].
    pub ref_itt: U32,
    /// `CmdSN`.
    pub cmd_sn: U32,
    /// `ExpStatSN`.
    pub exp_stat_sn: U32,
    /// `RefCmdSN`: `CmdSN` of the task to be aborted.
    pub ref_cmd_sn: U32,
    /// `ExpDataSN`, for TASK REASSIGN.
    pub exp_data_sn: U32,
    /// Reserved, zero.
    pub reserved2: [u8; 8],
}
layout!(TaskRequest, 48, function @ 1, lun @ 8, itt @ 16, ref_itt @ 20, cmd_sn @ 24, exp_stat_sn @ 28, ref_cmd_sn @ 32,
    exp_data_sn @ 36);

impl TaskRequest {
    /// An immediate request for `function`; `ref_itt` and `ref_cmd_sn` name the task for ABORT TASK.
    pub fn new(function: TaskFunction, lun: Lun, itt: u32, ref_itt: u32, ref_cmd_sn: u32) -> TaskRequest {
        TaskRequest {
            opcode: Opcode::TaskRequest as u8 | Opcode::IMMEDIATE,
            function: FINAL | function as u8,
            reserved: [0; 2],
            lengths: Lengths::data(0),
            lun,
            itt: U32::new(itt),
            ref_itt: U32::new(ref_itt),
            cmd_sn: U32::ZERO,
            exp_stat_sn: U32::ZERO,
            ref_cmd_sn: U32::new(ref_cmd_sn),
            exp_data_sn: U32::ZERO,
            reserved2: [0; 8],
        }
    }
    /// The function.
    pub fn function(&self) -> Option<TaskFunction> {
        TaskFunction::of(self.function & 0x7f)
    }
}

/// Task Management Function Response (11.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TaskResponse {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`].
    pub flags: u8,
    /// Response ([`TaskAnswer`]).
    pub response: u8,
    /// Reserved, zero.
    pub reserved: u8,
    /// Zero lengths.
    pub lengths: Lengths,
    /// Reserved, zero.
    pub reserved2: [u8; 8],
    /// Initiator Task Tag of the request.
    pub itt: U32,
    /// Reserved, zero.
    pub reserved3: U32,
    /// Sequence numbers.
    pub numbers: Numbers,
    /// Reserved, zero.
    pub reserved4: [u8; 12],
}
layout!(TaskResponse, 48, response @ 2, itt @ 16, numbers @ 24);

impl TaskResponse {
    /// Answers the request `itt`.
    pub fn new(itt: u32, answer: TaskAnswer, numbers: Numbers) -> TaskResponse {
        TaskResponse {
            opcode: Opcode::TaskResponse as u8,
            flags: FINAL,
            response: answer as u8,
            reserved: 0,
            lengths: Lengths::data(0),
            reserved2: [0; 8],
            itt: U32::new(itt),
            reserved3: U32::ZERO,
            numbers,
            reserved4: [0; 12],
        }
    }
}

/// SNACK Request (11.16).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Snack {
    /// Opcode.
    pub opcode: u8,
    /// 0x80 and the type ([`SnackType`]).
    pub kind: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Zero lengths.
    pub lengths: Lengths,
    /// Logical unit, with a data acknowledgement.
    pub lun: Lun,
    /// Initiator Task Tag, or [`NO_TAG`].
    pub itt: U32,
    /// Target Transfer Tag or SNACK tag, or [`NO_TAG`].
    pub ttt: U32,
    /// Reserved, zero.
    pub reserved2: U32,
    /// `ExpStatSN`.
    pub exp_stat_sn: U32,
    /// Reserved, zero.
    pub reserved3: [u8; 8],
    /// `BegRun`: first number missed.
    pub beg_run: U32,
    /// `RunLength`: how many; 0 = all.
    pub run_length: U32,
}
layout!(Snack, 48, kind @ 1, lun @ 8, itt @ 16, ttt @ 20, exp_stat_sn @ 28, beg_run @ 40, run_length @ 44);

impl Snack {
    /// Asks for, or acknowledges, a run of numbers.
    pub fn new(kind: SnackType, itt: u32, ttt: u32, beg_run: u32, run_length: u32) -> Snack {
        Snack {
            opcode: Opcode::Snack as u8,
            kind: FINAL | kind as u8,
            reserved: [0; 2],
            lengths: Lengths::data(0),
            lun: Lun([0; 8]),
            itt: U32::new(itt),
            ttt: U32::new(ttt),
            reserved2: U32::ZERO,
            exp_stat_sn: U32::ZERO,
            reserved3: [0; 8],
            beg_run: U32::new(beg_run),
            run_length: U32::new(run_length),
        }
    }
    /// The type.
    pub fn kind(&self) -> Option<SnackType> {
        SnackType::of(self.kind & 0x0f)
    }
}

/// Reject (11.17); the header of the rejected PDU follows as data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Reject {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`].
    pub flags: u8,
    /// Reason ([`RejectReason`]).
    pub reason: u8,
    /// Reserved, zero.
    pub reserved: u8,
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// Reserved, zero.
    pub reserved2: [u8; 8],
    /// [`NO_TAG`].
    pub itt: U32,
    /// Reserved, zero.
    pub reserved3: U32,
    /// Sequence numbers.
    pub numbers: Numbers,
    /// `DataSN` or `R2TSN`, with a rejected data acknowledgement or SNACK.
    pub data_sn: U32,
    /// Reserved, zero.
    pub reserved4: [u8; 8],
}
layout!(Reject, 48, reason @ 2, lengths @ 4, itt @ 16, numbers @ 24, data_sn @ 36);

impl Reject {
    /// Rejects a PDU whose header, `data` bytes of it, follows.
    pub fn new(reason: RejectReason, numbers: Numbers, data: u32) -> Reject {
        Reject {
            opcode: Opcode::Reject as u8,
            flags: FINAL,
            reason: reason as u8,
            reserved: 0,
            lengths: Lengths::data(data),
            reserved2: [0; 8],
            itt: U32::new(NO_TAG),
            reserved3: U32::ZERO,
            numbers,
            data_sn: U32::ZERO,
            reserved4: [0; 8],
        }
    }
}

/// Asynchronous Message (11.9); sense data may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AsyncMessage {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`].
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// Logical unit, for SCSI events and terminated tasks.
    pub lun: Lun,
    /// [`NO_TAG`].
    pub itt: U32,
    /// Reserved, zero.
    pub reserved2: U32,
    /// Sequence numbers.
    pub numbers: Numbers,
    /// `AsyncEvent` ([`AsyncEvent`]).
    pub event: u8,
    /// `AsyncVCode`, for vendor events.
    pub vcode: u8,
    /// Parameter1: see [`AsyncEvent`].
    pub parameter1: U16,
    /// Parameter2, seconds.
    pub parameter2: U16,
    /// Parameter3, seconds.
    pub parameter3: U16,
    /// Reserved, zero.
    pub reserved3: U32,
}
layout!(AsyncMessage, 48, lun @ 8, itt @ 16, numbers @ 24, event @ 36, vcode @ 37, parameter1 @ 38, parameter2 @ 40,
    parameter3 @ 42);

impl AsyncMessage {
    /// Tells `event` with its three parameters and `data` bytes of sense and event data.
    pub fn new(event: AsyncEvent, lun: Lun, parameters: [u16; 3], numbers: Numbers, data: u32) -> AsyncMessage {
        AsyncMessage {
            opcode: Opcode::AsyncMessage as u8,
            flags: FINAL,
            reserved: [0; 2],
            lengths: Lengths::data(data),
            lun,
            itt: U32::new(NO_TAG),
            reserved2: U32::ZERO,
            numbers,
            event: event as u8,
            vcode: 0,
            parameter1: U16::new(parameters[0]),
            parameter2: U16::new(parameters[1]),
            parameter3: U16::new(parameters[2]),
            reserved3: U32::ZERO,
        }
    }
}

/// NOP-Out (11.18); ping data may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NopOut {
    /// Opcode and the I bit.
    pub opcode: u8,
    /// [`FINAL`].
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// LUN of the NOP-In that is answered, else any.
    pub lun: Lun,
    /// Initiator Task Tag of a ping, or [`NO_TAG`] when no answer is wanted.
    pub itt: U32,
    /// Target Transfer Tag of the NOP-In that is answered, or [`NO_TAG`].
    pub ttt: U32,
    /// `CmdSN`.
    pub cmd_sn: U32,
    /// `ExpStatSN`.
    pub exp_stat_sn: U32,
    /// Reserved, zero.
    pub reserved2: [u8; 16],
}
layout!(NopOut, 48, lun @ 8, itt @ 16, ttt @ 20, cmd_sn @ 24, exp_stat_sn @ 28);

impl NopOut {
    /// A ping `itt` with `data` bytes, or (with [`NO_TAG`]) the answer to the target's ping `ttt`, for immediate
    /// delivery.
    pub fn new(lun: Lun, itt: u32, ttt: u32, data: u32) -> NopOut {
        NopOut {
            opcode: Opcode::NopOut as u8 | Opcode::IMMEDIATE,
            flags: FINAL,
            reserved: [0; 2],
            lengths: Lengths::data(data),
            lun,
            itt: U32::new(itt),
            ttt: U32::new(ttt),
            cmd_sn: U32::ZERO,
            exp_stat_sn: U32::ZERO,
            reserved2: [0; 16],
        }
    }
}

/// NOP-In (11.19); ping data may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NopIn {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`].
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// LUN, to be echoed with the tag.
    pub lun: Lun,
    /// Initiator Task Tag of the ping that is answered, or [`NO_TAG`].
    pub itt: U32,
    /// Target Transfer Tag of a ping, or [`NO_TAG`] when no answer is wanted.
    pub ttt: U32,
    /// Sequence numbers; a `StatSN` is taken only when `itt` is not [`NO_TAG`].
    pub numbers: Numbers,
    /// Reserved, zero.
    pub reserved2: [u8; 12],
}
layout!(NopIn, 48, lun @ 8, itt @ 16, ttt @ 20, numbers @ 24);

impl NopIn {
    /// Answers the ping `itt` with `data` bytes, or pings the initiator with `ttt`.
    pub fn new(lun: Lun, itt: u32, ttt: u32, numbers: Numbers, data: u32) -> NopIn {
        NopIn {
            opcode: Opcode::NopIn as u8,
            flags: FINAL,
            reserved: [0; 2],
            lengths: Lengths::data(data),
            lun,
            itt: U32::new(itt),
            ttt: U32::new(ttt),
            numbers,
            reserved2: [0; 12],
        }
    }
}
