//! Where one PDU begins and ends in a stream. Called by both sides for every PDU received; what a PDU means for the
//! connection's state, and whether its opcode may come from that side, is the caller's business.

use super::{AHS_LIMIT, BHS_LEN, DATA_LIMIT, DIGEST_LEN, Digests, LOGIN_DATA_MAX, Opcode, padding};
use crate::base::crc::crc32c;

/// Why a stream can not be followed any further: the connection must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The header digest did not match (7.8: a header digest error ends the connection).
    HeaderDigest,
    /// `TotalAHSLength` (offset 4 of the header) is more than allowed here; holds the bytes it asked for.
    AhsTooLong(u32),
    /// `DataSegmentLength` (offset 5 of the header) is more than was declared; holds the bytes it asked for.
    DataTooLong(u32),
}

impl Fault {
    /// Byte offset in the basic header segment of the field at fault; `None` when it is the digest.
    pub const fn field(self) -> Option<u8> {
        match self {
            Fault::HeaderDigest => None,
            Fault::AhsTooLong(_) => Some(4),
            Fault::DataTooLong(_) => Some(5),
        }
    }
}

/// What one side of a connection accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receiver {
    digests: Digests,
    /// Largest data segment, bytes: the `MaxRecvDataSegmentLength` this side declared.
    data_max: u32,
    /// Most bytes of additional header segments.
    ahs_max: u32,
}

/// One PDU whose header is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// `None`: an opcode that RFC 7143 does not know (a vendor's or RFC 7144's included).
    pub opcode: Option<Opcode>,
    /// The I bit: for immediate delivery.
    pub immediate: bool,
    /// Bytes of additional header segments, which begin at [`BHS_LEN`].
    pub ahs_len: u32,
    /// Offset of the data segment; equal to `end` when there is none.
    pub data_at: u32,
    /// Bytes of data, padding and digest excluded.
    pub data_len: u32,
    /// A data digest follows the data and its padding.
    pub data_digest: bool,
    /// Length of the whole PDU.
    pub end: u32,
}

impl Receiver {
    /// Rules of a login: no digests, no additional headers, data up to [`LOGIN_DATA_MAX`].
    pub const fn login() -> Receiver {
        Receiver { digests: Digests::NONE, data_max: LOGIN_DATA_MAX, ahs_max: 0 }
    }

    /// Rules of full feature phase. `data_max`: the `MaxRecvDataSegmentLength` this side declared, bytes (at most
    /// [`DATA_LIMIT`]); `ahs_max`: bytes of additional header segments (at most [`AHS_LIMIT`]).
    pub const fn agreed(digests: Digests, data_max: u32, ahs_max: u32) -> Receiver {
        assert!(data_max <= DATA_LIMIT && ahs_max as usize <= AHS_LIMIT);
        Receiver { digests, data_max, ahs_max }
    }

    /// Digests in force.
    #[inline]
    pub const fn digests(&self) -> Digests {
        self.digests
    }

    /// Largest data segment accepted, bytes.
    #[inline]
    pub const fn data_max(&self) -> u32 {
        self.data_max
    }

    /// The first PDU of `bytes`. `Ok(None)`: more bytes are needed (never more than [`super::HEAD_LIMIT`] in all). The
    /// header digest, if any, has been verified when a frame is returned; data may be still to come.
    ///
    /// # Errors
    /// Why the stream can not be followed any further.
    #[inline]
    pub fn frame(&self, bytes: &[u8]) -> Result<Option<Frame>, Fault> {
        let Some(first) = bytes.first_chunk::<8>() else { return Ok(None) };
        let lengths = u32::from_be_bytes([first[4], first[5], first[6], first[7]]);
        let (ahs_len, data_len) = ((lengths >> 24) * 4, lengths & DATA_LIMIT);
        if ahs_len > self.ahs_max {
            return Err(Fault::AhsTooLong(ahs_len));
        }
        // A length that a digest covers is believed only after it; without one it is known to be wrong at once.
        if !self.digests.header && data_len > self.data_max {
            return Err(Fault::DataTooLong(data_len));
        }
        let covered = BHS_LEN + ahs_len as usize;
        let head = covered + self.digests.header_len();
        let Some(header) = bytes.get(..head) else { return Ok(None) };
        if self.digests.header {
            let (covered, received) = header.split_at(covered);
            if !digest_ok(covered, received) {
                return Err(Fault::HeaderDigest);
            }
            if data_len > self.data_max {
                return Err(Fault::DataTooLong(data_len));
            }
        }
        let (tail, data_digest) = match data_len {
            0 => (0, false),
            len => (len + padding(len) + self.digests.data_len() as u32, self.digests.data),
        };
        Ok(Some(Frame {
            opcode: Opcode::of(first[0] & Opcode::MASK),
            immediate: first[0] & Opcode::IMMEDIATE != 0,
            ahs_len,
            data_at: head as u32,
            data_len,
            data_digest,
            end: head as u32 + tail,
        }))
    }
}

impl Frame {
    /// Bytes before the data: BHS, AHS and header digest.
    #[inline]
    pub const fn head_len(&self) -> usize {
        self.data_at as usize
    }
    /// Bytes of data and padding: what a data digest covers.
    #[inline]
    pub const fn padded_len(&self) -> usize {
        self.tail_len() - self.digest_len()
    }
    /// Bytes of the data digest: 0 or [`DIGEST_LEN`].
    #[inline]
    pub const fn digest_len(&self) -> usize {
        if self.data_digest { DIGEST_LEN } else { 0 }
    }
    /// Bytes of data, padding and data digest.
    #[inline]
    pub const fn tail_len(&self) -> usize {
        (self.end - self.data_at) as usize
    }
}

/// True when `received` is the CRC32C of `covered`, as digests are sent.
#[inline]
pub(crate) fn digest_ok(covered: &[u8], received: &[u8]) -> bool {
    received == crc32c(covered).to_le_bytes()
}
