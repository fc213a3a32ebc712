//! Where one PDU begins and ends in a stream, and whether it is legal at all. Called by both sides for every PDU
//! received; what a PDU means for the connection's state is the caller's business.

use super::pdu::{self, DDGSTF, HDGSTF, Header, Kind};
use super::{DIGEST_LEN, Digests};
use crate::base::crc::crc32c;
use zerocopy::FromBytes;

/// Fatal Error Status of a termination request (figures of 3.6.2.4 and 3.6.2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Fes {
    /// A header field has an illegal value; FEI is its byte offset.
    InvalidHeaderField = 0x01,
    /// The PDU may not come in this state.
    SequenceError = 0x02,
    /// The header digest did not match; FEI is the digest received.
    HeaderDigest = 0x03,
    /// Data outside the range of the command or R2T.
    OutOfRange = 0x04,
    /// More data (to the controller) or R2Ts (to the host) than agreed.
    LimitExceeded = 0x05,
    /// A parameter of the handshake or a field is not supported; FEI is its byte offset.
    UnsupportedParameter = 0x06,
}

impl Fes {
    /// The status with this number.
    pub fn of(number: u16) -> Option<Fes> {
        use Fes::{HeaderDigest, InvalidHeaderField, LimitExceeded, OutOfRange, SequenceError, UnsupportedParameter};
        [InvalidHeaderField, SequenceError, HeaderDigest, OutOfRange, LimitExceeded, UnsupportedParameter]
            .into_iter()
            .find(|f| *f as u16 == number)
    }
}

/// Why a connection must end, in the words of a termination request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// FES.
    pub fes: Fes,
    /// FEI.
    pub fei: u32,
}

impl Fault {
    /// The header field at byte `offset` is illegal.
    pub const fn field(offset: u32) -> Fault {
        Fault { fes: Fes::InvalidHeaderField, fei: offset }
    }
    /// A fault without further information.
    pub const fn plain(fes: Fes) -> Fault {
        Fault { fes, fei: 0 }
    }
}

/// Who is receiving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A controller: legal are the PDUs that hosts send.
    Controller,
    /// A host: legal are the PDUs that controllers send.
    Host,
}

/// What one side of a connection accepts. Before the handshake is over: no digests, alignment 4.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    side: Side,
    digests: Digests,
    align: u32,
    capsule_max: u32,
    data_max: u32,
    /// The first 8 bytes of a CapsuleCmd without data under these rules: the hot case is one comparison.
    bare_command: u64,
}

/// One PDU whose header is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// PDU type; its header struct can be read from the first [`Kind::header_len`] bytes.
    pub kind: Kind,
    /// FLAGS.
    pub flags: u8,
    /// Offset of the data; equal to `end` when there is none.
    pub data_at: u32,
    /// Bytes of data, digest excluded.
    pub data_len: u32,
    /// A data digest follows the data.
    pub data_digest: bool,
    /// Length of the whole PDU (PLEN).
    pub end: u32,
}

impl Receiver {
    /// Rules before the handshake.
    pub fn new(side: Side) -> Receiver {
        Receiver::agreed(side, Digests::default(), 0, 0, 0)
    }

    /// Rules after the handshake. `pda`: what this side asked for (CPDA or HPDA, dwords, 0's based). `capsule_max`:
    /// largest in-capsule data in bytes (controller). `data_max`: largest data part of one H2CData (MAXH2CDATA,
    /// controller) or C2HData (host).
    pub fn agreed(side: Side, digests: Digests, pda: u8, capsule_max: u32, data_max: u32) -> Receiver {
        let flags = if digests.header { u64::from(HDGSTF) } else { 0 };
        let plen = 72 + digests.header_len() as u64;
        let bare_command = Kind::CapsuleCmd as u64 | flags << 8 | 72 << 16 | plen << 32;
        Receiver { side, digests, align: (u32::from(pda) + 1) * 4, capsule_max, data_max, bare_command }
    }

    /// Digests in force.
    pub fn digests(&self) -> Digests {
        self.digests
    }

    /// The first PDU of `bytes`. `Ok(None)`: more bytes are needed (never more than [`super::HEAD_MAX`] in all). The
    /// header digest, if any, has been verified when a frame is returned; data may be still to come.
    ///
    /// # Errors
    /// What to put into the termination request; the stream can not be followed any further.
    #[inline]
    pub fn frame(&self, bytes: &[u8]) -> Result<Option<Frame>, Fault> {
        // A read, flush or other command without data and digest: nothing else to check.
        if let Some(first) = bytes.first_chunk::<72>() {
            let ch =
                u64::from_le_bytes([first[0], first[1], first[2], first[3], first[4], first[5], first[6], first[7]]);
            if ch == self.bare_command && self.side == Side::Controller && !self.digests.header {
                return Ok(Some(Frame {
                    kind: Kind::CapsuleCmd,
                    flags: 0,
                    data_at: 72,
                    data_len: 0,
                    data_digest: false,
                    end: 72,
                }));
            }
        }
        self.frame_general(bytes)
    }

    fn frame_general(&self, bytes: &[u8]) -> Result<Option<Frame>, Fault> {
        let Ok((ch, _)) = Header::ref_from_prefix(bytes) else {
            // The type is the first byte: an alien stream is refused as soon as it shows.
            return match bytes.first() {
                Some(kind) if self.kind(*kind).is_none() => Err(Fault::field(0)),
                _ => Ok(None),
            };
        };
        let kind = self.kind(ch.kind).ok_or(Fault::field(0))?;
        let frame = self.check_common(kind, *ch)?;
        let digest = if kind.digested() { self.digests.header_len() } else { 0 };
        let head = kind.header_len() + digest;
        let Some(header) = bytes.get(..head) else { return Ok(None) };
        if digest != 0 {
            let (covered, received) = header.split_at(kind.header_len());
            if !digest_ok(covered, received) {
                let received = received.first_chunk::<4>().map_or(0, |d| u32::from_le_bytes(*d));
                return Err(Fault { fes: Fes::HeaderDigest, fei: received });
            }
        }
        Self::check_data(kind, header, &frame)?;
        Ok(Some(frame))
    }

    fn kind(&self, number: u8) -> Option<Kind> {
        Kind::of(number).filter(|k| k.from_host() == (self.side == Side::Controller))
    }

    /// The common header against the type and what was agreed.
    fn check_common(&self, kind: Kind, ch: Header) -> Result<Frame, Fault> {
        let plen = ch.plen.get();
        if usize::from(ch.hlen) != kind.header_len() {
            return Err(Fault::field(2));
        }
        if kind.digested() && (ch.flags & HDGSTF != 0) != self.digests.header {
            return Err(Fault::field(1));
        }
        let head = u32::from(ch.hlen) + if kind.digested() { self.digests.header_len() as u32 } else { 0 };
        let none = Frame { kind, flags: ch.flags, data_at: plen, data_len: 0, data_digest: false, end: plen };
        match kind {
            Kind::IcReq | Kind::IcResp | Kind::CapsuleResp | Kind::R2t => {
                if plen == head {
                    Ok(none)
                } else {
                    Err(Fault::field(4))
                }
            }
            Kind::H2cTermReq | Kind::C2hTermReq => {
                let data = plen.checked_sub(head).ok_or(Fault::field(4))?;
                if data as usize > pdu::TermReq::DATA_MAX {
                    return Err(Fault::field(4));
                }
                Ok(Frame { data_at: head, data_len: data, ..none })
            }
            Kind::CapsuleCmd if plen == head => Ok(none),
            Kind::CapsuleCmd => self.place(ch, head, self.capsule_max, none),
            Kind::H2cData | Kind::C2hData => self.place(ch, head, self.data_max, none),
        }
    }

    /// Where the data of a PDU that has some lies.
    fn place(&self, ch: Header, head: u32, max: u32, none: Frame) -> Result<Frame, Fault> {
        let (plen, pdo) = (ch.plen.get(), u32::from(ch.pdo));
        if plen < head {
            return Err(Fault::field(4));
        }
        if (ch.flags & DDGSTF != 0) != self.digests.data {
            return Err(Fault::field(1));
        }
        if pdo < head || !pdo.is_multiple_of(self.align) {
            return Err(Fault::field(3));
        }
        let tail = self.digests.data_len() as u32;
        let data = plen.checked_sub(pdo).and_then(|d| d.checked_sub(tail)).filter(|d| *d != 0);
        let data_len = data.ok_or(Fault::field(4))?;
        if data_len > max {
            return Err(Fault::plain(Fes::LimitExceeded));
        }
        Ok(Frame { data_at: pdo, data_len, data_digest: self.digests.data, ..none })
    }

    /// DATAL against PLEN, and flags that only some PDUs may carry.
    fn check_data(kind: Kind, header: &[u8], frame: &Frame) -> Result<(), Fault> {
        if !matches!(kind, Kind::H2cData | Kind::C2hData) {
            return Ok(());
        }
        let Ok((data, _)) = pdu::Data::ref_from_prefix(header) else { return Err(Fault::field(2)) };
        if data.datal.get() != frame.data_len {
            return Err(Fault::field(16));
        }
        if data.datao.get().checked_add(frame.data_len).is_none() {
            return Err(Fault::plain(Fes::OutOfRange));
        }
        // SUCCESS says that no response follows, so more data can not follow either.
        if kind == Kind::C2hData && frame.flags & (pdu::SUCCESS | pdu::LAST_PDU) == pdu::SUCCESS {
            return Err(Fault::field(1));
        }
        Ok(())
    }
}

impl Frame {
    /// Bytes before the data (or the whole PDU when there is none).
    pub fn head_len(&self) -> usize {
        self.data_at as usize
    }
    /// Bytes of data and its digest.
    pub fn tail_len(&self) -> usize {
        (self.end - self.data_at) as usize
    }
    /// Bytes of the data digest: 0 or [`DIGEST_LEN`].
    pub fn digest_len(&self) -> usize {
        if self.data_digest { DIGEST_LEN } else { 0 }
    }
}

/// True when `received` is the CRC32C of `covered`, little-endian.
pub fn digest_ok(covered: &[u8], received: &[u8]) -> bool {
    received == crc32c(covered).to_le_bytes()
}
