//! iSCSI PDUs and text (RFC 7143), for both sides of a connection.
//!
//! [`Receiver::frame`] takes the next bytes of a stream and says where the first PDU's header and data are, or why the
//! connection must end; [`pdu`] has the basic header segment of each opcode, to read in place and to emit; [`text`]
//! walks and writes `key=value` pairs and [`value`] reads what stands behind the `=`; [`Key`] names the keys. The
//! caller moves the data: a PDU may be larger than any buffer, so only its header has to be contiguous.

pub mod ahs;
mod code;
mod frame;
mod key;
pub mod pdu;
pub mod text;
pub mod value;

#[cfg(test)]
mod tests;

pub use code::{
    AsyncEvent, LoginStatus, LogoutAnswer, LogoutReason, Opcode, RejectReason, SnackType, Stage, TaskAnswer,
    TaskFunction,
};
pub use frame::{Fault, Frame, Receiver};
pub use key::Key;

/// Bytes of a basic header segment (11.2.1).
pub const BHS_LEN: usize = 48;

/// Bytes of a header or data digest (CRC32C, little-endian on the wire as in RFC 3720 appendix B.4).
pub const DIGEST_LEN: usize = 4;

/// Every segment is padded with zeros to whole words of this many bytes.
pub const PAD: usize = 4;

/// Most bytes of additional header segments that `TotalAHSLength` can say (255 words).
pub const AHS_LIMIT: usize = 255 * PAD;

/// Most bytes that can precede the data of a PDU: BHS, AHS and header digest.
pub const HEAD_LIMIT: usize = BHS_LEN + AHS_LIMIT + DIGEST_LEN;

/// Largest data segment that `DataSegmentLength` can say, bytes.
pub const DATA_LIMIT: u32 = (1 << 24) - 1;

/// `MaxRecvDataSegmentLength` of both sides until they declare another (13.12), bytes.
pub const LOGIN_DATA_MAX: u32 = 8192;

/// The reserved value of initiator and target task tags: no task, no answer wanted, or unsolicited (11.2.1.8).
pub const NO_TAG: u32 = 0xffff_ffff;

/// Bytes from `len` to the next word border: 0 to 3.
#[inline]
pub const fn padding(len: u32) -> u32 {
    len.wrapping_neg() & (PAD as u32 - 1)
}

/// Which digests both sides agreed on for full feature phase; login PDUs never carry any (6.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Digests {
    /// `HeaderDigest=CRC32C`: a CRC32C of BHS and AHS follows them.
    pub header: bool,
    /// `DataDigest=CRC32C`: a CRC32C of the data and its padding follows them, when there is data.
    pub data: bool,
}

impl Digests {
    /// Neither.
    pub const NONE: Digests = Digests { header: false, data: false };

    /// Bytes a header digest takes on the wire.
    #[inline]
    pub const fn header_len(self) -> usize {
        if self.header { DIGEST_LEN } else { 0 }
    }
    /// Bytes a data digest takes on the wire when there is data.
    #[inline]
    pub const fn data_len(self) -> usize {
        if self.data { DIGEST_LEN } else { 0 }
    }
}

/// True when sequence number `a` comes before `b` (RFC 1982 arithmetic over 32 bits, as 4.2.2.1 asks for).
#[inline]
pub const fn sn_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// A logical unit number as the 8 bytes of a header (SAM-5 clause 4.7).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Default,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
    zerocopy::Unaligned,
)]
#[repr(transparent)]
pub struct Lun(pub [u8; 8]);

impl Lun {
    /// Largest number that the flat space addressing method can say.
    pub const MAX: u16 = 0x3fff;

    /// Logical unit `number` (at most [`Lun::MAX`]): peripheral device addressing below 256, flat space above.
    #[inline]
    pub const fn of(number: u16) -> Lun {
        let [high, low] = number.to_be_bytes();
        let method = if number < 256 { 0 } else { 0x40 };
        Lun([method | (high & 0x3f), low, 0, 0, 0, 0, 0, 0])
    }

    /// The number of a single-level LUN of either method; `None` for every other form, which names no unit here.
    #[inline]
    pub fn number(self) -> Option<u16> {
        let [first, second, rest @ ..] = self.0;
        if rest != [0; 6] {
            return None;
        }
        match first >> 6 {
            0 if first == 0 => Some(u16::from(second)),
            1 => Some(u16::from_be_bytes([first & 0x3f, second])),
            _ => None,
        }
    }
}
