//! Headers that make, ask about and end a session: Login, Text, Logout (11.10 to 11.15).

use super::{CONTINUE, FINAL, Lengths, Numbers, TRANSIT};
use crate::wire::iscsi::{LoginStatus, LogoutAnswer, LogoutReason, Lun, Opcode, Stage};
use crate::wire::layout;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Byte 1 of a login PDU: `next` sets the T bit.
fn stages(current: Stage, next: Option<Stage>, more: bool) -> u8 {
    let transit = next.map_or(0, |next| TRANSIT | next as u8);
    transit | if more { CONTINUE } else { 0 } | (current as u8) << 2
}

/// Login Request (11.12); text follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LoginRequest {
    /// Opcode and the I bit, which is always set.
    pub opcode: u8,
    /// [`TRANSIT`], [`CONTINUE`], CSG (bits 3:2) and NSG (bits 1:0).
    pub flags: u8,
    /// Version-max: 0.
    pub version_max: u8,
    /// Version-min: 0.
    pub version_min: u8,
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// ISID: the initiator's part of the session's name.
    pub isid: [u8; 6],
    /// TSIH: zero for a new session.
    pub tsih: U16,
    /// Initiator Task Tag, the same in all requests of a login.
    pub itt: U32,
    /// CID: the connection's name in its session.
    pub cid: U16,
    /// Reserved, zero.
    pub reserved: U16,
    /// `CmdSN`.
    pub cmd_sn: U32,
    /// `ExpStatSN`; means something from the second request on, and when a connection is reinstated.
    pub exp_stat_sn: U32,
    /// Reserved, zero.
    pub reserved2: [u8; 16],
}
layout!(LoginRequest, 48, flags @ 1, version_max @ 2, version_min @ 3, lengths @ 4, isid @ 8, tsih @ 14, itt @ 16,
    cid @ 20, cmd_sn @ 24, exp_stat_sn @ 28);

impl LoginRequest {
    /// A request of stage `current` that wants to go to `next`, with `data` bytes of text.
    pub fn new(isid: [u8; 6], itt: u32, current: Stage, next: Option<Stage>, data: u32) -> LoginRequest {
        LoginRequest {
            opcode: Opcode::LoginRequest as u8 | Opcode::IMMEDIATE,
            flags: stages(current, next, false),
            version_max: 0,
            version_min: 0,
            lengths: Lengths::data(data),
            isid,
            tsih: U16::ZERO,
            itt: U32::new(itt),
            cid: U16::ZERO,
            reserved: U16::ZERO,
            cmd_sn: U32::ZERO,
            exp_stat_sn: U32::ZERO,
            reserved2: [0; 16],
        }
    }
    /// CSG: the stage the request belongs to.
    pub fn current(&self) -> Option<Stage> {
        Stage::of(self.flags >> 2 & 3)
    }
    /// NSG: the stage the initiator wants to go to; means something with the T bit only.
    pub fn next(&self) -> Option<Stage> {
        Stage::of(self.flags & 3)
    }
    /// The T bit.
    pub fn transit(&self) -> bool {
        self.flags & TRANSIT != 0
    }
    /// The C bit.
    pub fn more(&self) -> bool {
        self.flags & CONTINUE != 0
    }
}

/// Login Response (11.13); text follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LoginResponse {
    /// Opcode.
    pub opcode: u8,
    /// [`TRANSIT`], [`CONTINUE`], CSG (bits 3:2) and NSG (bits 1:0).
    pub flags: u8,
    /// Version-max: 0.
    pub version_max: u8,
    /// Version-active: 0.
    pub version_active: u8,
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// ISID of the request.
    pub isid: [u8; 6],
    /// TSIH: the target's name for the session, in the last response of the leading login; else that of the request.
    pub tsih: U16,
    /// Initiator Task Tag.
    pub itt: U32,
    /// Reserved, zero.
    pub reserved: U32,
    /// Sequence numbers.
    pub numbers: Numbers,
    /// Status-Class and Status-Detail ([`LoginStatus`]).
    pub status: U16,
    /// Reserved, zero.
    pub reserved2: [u8; 10],
}
layout!(LoginResponse, 48, flags @ 1, version_max @ 2, version_active @ 3, isid @ 8, tsih @ 14, itt @ 16, numbers @ 24,
    status @ 36);

impl LoginResponse {
    /// Status [`LoginStatus::Success`] in answer to `request`: stage `current`, going to `next` if that is some.
    /// `more`: the text goes on in the next response.
    pub fn new(
        request: &LoginRequest,
        current: Stage,
        next: Option<Stage>,
        more: bool,
        numbers: Numbers,
        data: u32,
    ) -> LoginResponse {
        LoginResponse {
            opcode: Opcode::LoginResponse as u8,
            flags: stages(current, next, more),
            version_max: 0,
            version_active: 0,
            lengths: Lengths::data(data),
            isid: request.isid,
            tsih: request.tsih,
            itt: request.itt,
            reserved: U32::ZERO,
            numbers,
            status: U16::ZERO,
            reserved2: [0; 10],
        }
    }

    /// The login failed, or goes elsewhere: `data` bytes of text (`TargetAddress`) then follow.
    pub fn failed(request: &LoginRequest, status: LoginStatus, numbers: Numbers, data: u32) -> LoginResponse {
        let current = request.current().unwrap_or(Stage::Security);
        let mut response = LoginResponse::new(request, current, None, false, numbers, data);
        response.status = U16::new(status as u16);
        response
    }
    /// Status-Class and -Detail; `None` for a pair that RFC 7143 does not know.
    pub fn status(&self) -> Option<LoginStatus> {
        LoginStatus::of(self.status.get())
    }
    /// CSG.
    pub fn current(&self) -> Option<Stage> {
        Stage::of(self.flags >> 2 & 3)
    }
    /// NSG; means something with the T bit only.
    pub fn next(&self) -> Option<Stage> {
        Stage::of(self.flags & 3)
    }
    /// The T bit.
    pub fn transit(&self) -> bool {
        self.flags & TRANSIT != 0
    }
    /// The C bit.
    pub fn more(&self) -> bool {
        self.flags & CONTINUE != 0
    }
}

/// Text Request (11.10); text follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TextRequest {
    /// Opcode and the I bit.
    pub opcode: u8,
    /// [`FINAL`] and [`CONTINUE`].
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// LUN of the response that gave the tag, else zero.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: U32,
    /// Target Transfer Tag of the response this one goes on from, or [`crate::wire::iscsi::NO_TAG`].
    pub ttt: U32,
    /// `CmdSN`.
    pub cmd_sn: U32,
    /// `ExpStatSN`.
    pub exp_stat_sn: U32,
    /// Reserved, zero.
    pub reserved2: [u8; 16],
}
layout!(TextRequest, 48, flags @ 1, lun @ 8, itt @ 16, ttt @ 20, cmd_sn @ 24, exp_stat_sn @ 28);

impl TextRequest {
    /// A request with `data` bytes of text and the F bit.
    pub fn new(itt: u32, ttt: u32, data: u32) -> TextRequest {
        TextRequest {
            opcode: Opcode::TextRequest as u8,
            flags: FINAL,
            reserved: [0; 2],
            lengths: Lengths::data(data),
            lun: Lun([0; 8]),
            itt: U32::new(itt),
            ttt: U32::new(ttt),
            cmd_sn: U32::ZERO,
            exp_stat_sn: U32::ZERO,
            reserved2: [0; 16],
        }
    }
}

/// Text Response (11.11); text follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TextResponse {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`] and [`CONTINUE`].
    pub flags: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// LUN, zero.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: U32,
    /// Target Transfer Tag: not [`crate::wire::iscsi::NO_TAG`] when the target waits for the next request.
    pub ttt: U32,
    /// Sequence numbers.
    pub numbers: Numbers,
    /// Reserved, zero.
    pub reserved2: [u8; 12],
}
layout!(TextResponse, 48, flags @ 1, lun @ 8, itt @ 16, ttt @ 20, numbers @ 24);

impl TextResponse {
    /// A response with `data` bytes of text. `flags`: [`FINAL`] and [`CONTINUE`].
    pub fn new(itt: u32, ttt: u32, flags: u8, numbers: Numbers, data: u32) -> TextResponse {
        TextResponse {
            opcode: Opcode::TextResponse as u8,
            flags,
            reserved: [0; 2],
            lengths: Lengths::data(data),
            lun: Lun([0; 8]),
            itt: U32::new(itt),
            ttt: U32::new(ttt),
            numbers,
            reserved2: [0; 12],
        }
    }
}

/// Logout Request (11.14).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogoutRequest {
    /// Opcode and the I bit.
    pub opcode: u8,
    /// 0x80 and the reason ([`LogoutReason`]).
    pub reason: u8,
    /// Reserved, zero.
    pub reserved: [u8; 2],
    /// Zero lengths.
    pub lengths: Lengths,
    /// Reserved, zero.
    pub reserved2: [u8; 8],
    /// Initiator Task Tag.
    pub itt: U32,
    /// CID of the connection to close.
    pub cid: U16,
    /// Reserved, zero.
    pub reserved3: U16,
    /// `CmdSN`.
    pub cmd_sn: U32,
    /// `ExpStatSN`.
    pub exp_stat_sn: U32,
    /// Reserved, zero.
    pub reserved4: [u8; 16],
}
layout!(LogoutRequest, 48, reason @ 1, itt @ 16, cid @ 20, cmd_sn @ 24, exp_stat_sn @ 28);

impl LogoutRequest {
    /// Asks to close connection `cid` or its session.
    pub fn new(reason: LogoutReason, itt: u32, cid: u16) -> LogoutRequest {
        LogoutRequest {
            opcode: Opcode::LogoutRequest as u8,
            reason: FINAL | reason as u8,
            reserved: [0; 2],
            lengths: Lengths::data(0),
            reserved2: [0; 8],
            itt: U32::new(itt),
            cid: U16::new(cid),
            reserved3: U16::ZERO,
            cmd_sn: U32::ZERO,
            exp_stat_sn: U32::ZERO,
            reserved4: [0; 16],
        }
    }
    /// The reason.
    pub fn reason(&self) -> Option<LogoutReason> {
        LogoutReason::of(self.reason & 0x7f)
    }
}

/// Logout Response (11.15).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogoutResponse {
    /// Opcode.
    pub opcode: u8,
    /// [`FINAL`].
    pub flags: u8,
    /// Response ([`LogoutAnswer`]).
    pub response: u8,
    /// Reserved, zero.
    pub reserved: u8,
    /// Zero lengths.
    pub lengths: Lengths,
    /// Reserved, zero.
    pub reserved2: [u8; 8],
    /// Initiator Task Tag.
    pub itt: U32,
    /// Reserved, zero.
    pub reserved3: U32,
    /// Sequence numbers.
    pub numbers: Numbers,
    /// Reserved, zero.
    pub reserved4: U32,
    /// `Time2Wait`, seconds before the initiator may come back.
    pub time2wait: U16,
    /// `Time2Retain`, seconds that tasks are kept.
    pub time2retain: U16,
    /// Reserved, zero.
    pub reserved5: U32,
}
layout!(LogoutResponse, 48, response @ 2, itt @ 16, numbers @ 24, time2wait @ 40, time2retain @ 42);

impl LogoutResponse {
    /// Answers the logout `itt`; times in seconds.
    pub fn new(itt: u32, answer: LogoutAnswer, time2wait: u16, time2retain: u16, numbers: Numbers) -> LogoutResponse {
        LogoutResponse {
            opcode: Opcode::LogoutResponse as u8,
            flags: FINAL,
            response: answer as u8,
            reserved: 0,
            lengths: Lengths::data(0),
            reserved2: [0; 8],
            itt: U32::new(itt),
            reserved3: U32::ZERO,
            numbers,
            reserved4: U32::ZERO,
            time2wait: U16::new(time2wait),
            time2retain: U16::new(time2retain),
            reserved5: U32::ZERO,
        }
    }
}
