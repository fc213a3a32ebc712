//! The basic header segment of every opcode (RFC 7143 section 11): `repr(C)` views that are also the emitted form.
//! [`task`] has what moves SCSI commands, [`login`] what makes, asks about and ends a session, [`control`] the rest.
//!
//! Constructors fill in the fixed fields and leave reserved ones zero; `data` arguments are the bytes of the data
//! segment that follows, padding excluded. A [`Head`] is a header as it goes on the wire, a [`Tail`] what follows the
//! data.

mod control;
mod login;
mod task;

pub use control::{AsyncMessage, NopIn, NopOut, Reject, Snack, TaskRequest, TaskResponse};
pub use login::{LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, TextRequest, TextResponse};
pub use task::{DataIn, DataOut, R2t, Residual, ScsiCommand, ScsiResponse};

use super::{BHS_LEN, DIGEST_LEN, Digests, PAD, padding};
use crate::base::crc::{Crc32c, crc32c};
use crate::wire::layout;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Byte 1: the F bit, last (or only) PDU of a sequence. Always set where a PDU has no other use for the bit.
pub const FINAL: u8 = 0x80;
/// Byte 1 of Login: the T bit, transit to the next stage.
pub const TRANSIT: u8 = 0x80;
/// Byte 1 of Login and Text: the C bit, the text goes on in the next PDU.
pub const CONTINUE: u8 = 0x40;
/// Byte 1 of SCSI Command: data is expected from the target.
pub const READ: u8 = 0x40;
/// Byte 1 of SCSI Command: data is going to the target.
pub const WRITE: u8 = 0x20;
/// Byte 1 of SCSI Command: the bits of the task attribute (0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA).
pub const ATTRIBUTE: u8 = 0x07;
/// The simple task attribute.
pub const SIMPLE: u8 = 1;
/// Byte 1 of Data-In: the A bit, the target asks for a data acknowledgement (`ErrorRecoveryLevel` 1 and up).
pub const ACKNOWLEDGE: u8 = 0x40;
/// Byte 1 of SCSI Response and Data-In: the residual count is what did not fit.
pub const OVERFLOW: u8 = 0x04;
/// Byte 1 of SCSI Response and Data-In: the residual count is what was not used.
pub const UNDERFLOW: u8 = 0x02;
/// Byte 1 of SCSI Response: overflow of the read half of a bidirectional command.
pub const BIDI_OVERFLOW: u8 = 0x10;
/// Byte 1 of SCSI Response: underflow of the read half of a bidirectional command.
pub const BIDI_UNDERFLOW: u8 = 0x08;
/// Byte 1 of Data-In: the S bit, the PDU carries the status of its command and no SCSI Response follows.
pub const STATUS: u8 = 0x01;

/// `TotalAHSLength` and `DataSegmentLength`, bytes 4 to 7 of every header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Lengths(U32);

impl Lengths {
    /// No additional headers, `data` bytes of data (at most [`super::DATA_LIMIT`]).
    #[inline]
    pub const fn data(data: u32) -> Lengths {
        assert!(data <= super::DATA_LIMIT);
        Lengths(U32::new(data))
    }
    /// Bytes of the data segment, padding excluded.
    #[inline]
    pub const fn data_len(self) -> u32 {
        self.0.get() & super::DATA_LIMIT
    }
    /// Bytes of the additional header segments.
    #[inline]
    pub const fn ahs_len(self) -> u32 {
        (self.0.get() >> 24) * 4
    }
}

/// The three sequence numbers of every header that targets send, bytes 24 to 35.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Numbers {
    /// `StatSN` of this status, or the next one where the PDU carries none; reserved in Data-In without status.
    pub stat_sn: U32,
    /// `ExpCmdSN`: the next command the target waits for.
    pub exp_cmd_sn: U32,
    /// `MaxCmdSN`: the last command the target takes; the window is closed when it is `ExpCmdSN` - 1.
    pub max_cmd_sn: U32,
}
layout!(Numbers, 12, stat_sn @ 0, exp_cmd_sn @ 4, max_cmd_sn @ 8);

impl Numbers {
    /// From host integers.
    #[inline]
    pub const fn new(stat_sn: u32, exp_cmd_sn: u32, max_cmd_sn: u32) -> Numbers {
        Numbers { stat_sn: U32::new(stat_sn), exp_cmd_sn: U32::new(exp_cmd_sn), max_cmd_sn: U32::new(max_cmd_sn) }
    }
}

/// A basic header segment of an opcode that is not known yet: what every header has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Bhs {
    /// Opcode and the I bit.
    pub opcode: u8,
    /// Bits of the opcode; the uppermost is F in most.
    pub flags: u8,
    /// Of the opcode.
    pub specific: [u8; 2],
    /// Lengths of what follows.
    pub lengths: Lengths,
    /// LUN, or of the opcode.
    pub lun: super::Lun,
    /// Initiator Task Tag.
    pub itt: U32,
    /// Of the opcode.
    pub rest: [u8; 28],
}
layout!(Bhs, 48, flags @ 1, specific @ 2, lengths @ 4, lun @ 8, itt @ 16, rest @ 20);

/// A header without additional segments as it goes on the wire: BHS and its digest.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; BHS_LEN + DIGEST_LEN],
    len: u8,
}

impl Head {
    /// Wire form of `pdu` (any header struct of this module).
    #[inline]
    pub fn of<T: IntoBytes + Immutable>(pdu: &T, digests: Digests) -> Head {
        const { assert!(size_of::<T>() == BHS_LEN) };
        let mut bytes = [0; BHS_LEN + DIGEST_LEN];
        bytes[..BHS_LEN].copy_from_slice(pdu.as_bytes());
        if !digests.header {
            return Head { bytes, len: BHS_LEN as u8 };
        }
        let digest = crc32c(&bytes[..BHS_LEN]).to_le_bytes();
        bytes[BHS_LEN..].copy_from_slice(&digest);
        Head { bytes, len: (BHS_LEN + DIGEST_LEN) as u8 }
    }
    /// The bytes to send before the data.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What follows the data of a PDU: padding, then the data digest.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    bytes: [u8; PAD - 1 + DIGEST_LEN],
    len: u8,
}

impl Tail {
    /// Behind `data`, one contiguous segment. Empty when there is no data, or nothing to add.
    #[inline]
    pub fn of(data: &[u8], digests: Digests) -> Tail {
        let len = data.len() as u32;
        if !digests.data || len == 0 {
            return Tail { bytes: [0; 7], len: padding(len) as u8 };
        }
        let mut crc = Crc32c::new();
        crc.update(data);
        Tail::digested(crc, len)
    }

    /// Behind data that came in pieces: `crc` has seen all of them, `len` (> 0) is their sum in bytes.
    pub fn digested(mut crc: Crc32c, len: u32) -> Tail {
        let pad = padding(len) as usize;
        crc.update(&[0; PAD - 1][..pad]);
        let mut bytes = [0; PAD - 1 + DIGEST_LEN];
        bytes[pad..pad + DIGEST_LEN].copy_from_slice(&crc.finish().to_le_bytes());
        Tail { bytes, len: (pad + DIGEST_LEN) as u8 }
    }

    /// The bytes to send behind the data.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// True when the bytes behind a frame's data are its data digest: `padded` is data and padding (7.8: a mismatch costs
/// the command, not the connection).
pub fn data_digest_ok(padded: &[u8], received: &[u8]) -> bool {
    super::frame::digest_ok(padded, received)
}
