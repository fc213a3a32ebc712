//! NVMe/TCP transport PDUs (NVM Express NVMe/TCP Transport Specification 1.x, section 3.6).
//!
//! [`Receiver::frame`] takes the next bytes of a stream and says where the first PDU's header and data are, or why the
//! connection must end; [`pdu`] has the header of each type, to read in place and to emit. The caller moves the data:
//! a PDU may be larger than any buffer, so only its header has to be contiguous.

mod frame;
pub mod pdu;

#[cfg(test)]
mod tests;

pub use frame::{Fault, Fes, Frame, Receiver, Side, digest_ok};
pub use pdu::Kind;

/// Bytes of a header or data digest (CRC32C, little-endian).
pub const DIGEST_LEN: usize = 4;

/// Largest PDU header plus header digest and padding that can precede data: PDO is one byte.
pub const HEAD_MAX: usize = 255;

/// Largest alignment that HPDA and CPDA can ask for, bytes (31 + 1 dwords).
pub const ALIGN_MAX: usize = 128;

/// Which digests both sides agreed on (DGST field of `ICReq` and `ICResp`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Digests {
    /// HDGST: every PDU but the handshake and termination ones carries a CRC32C of its header.
    pub header: bool,
    /// DDGST: every data part carries a CRC32C behind it.
    pub data: bool,
}

impl Digests {
    /// From the DGST byte; reserved bits are ignored.
    pub fn from_bits(bits: u8) -> Digests {
        Digests { header: bits & 1 != 0, data: bits & 2 != 0 }
    }
    /// As the DGST byte.
    pub fn bits(self) -> u8 {
        u8::from(self.header) | u8::from(self.data) << 1
    }
    /// Those that both sides want.
    #[must_use]
    pub fn both(self, other: Digests) -> Digests {
        Digests { header: self.header && other.header, data: self.data && other.data }
    }
    /// Bytes a header digest takes on the wire.
    pub fn header_len(self) -> usize {
        if self.header { DIGEST_LEN } else { 0 }
    }
    /// Bytes a data digest takes on the wire.
    pub fn data_len(self) -> usize {
        if self.data { DIGEST_LEN } else { 0 }
    }
}
