//! The header of every PDU type: `repr(C)` views that are also the emitted form (section 3.6.2 of the transport
//! specification). Constructors fill in the fixed fields; [`Data::pad_to`] and friends place the data part.

use super::{DIGEST_LEN, Digests, Fault};
use crate::base::crc::crc32c;
use crate::wire::layout;
use crate::wire::nvme::{Cqe, Sqe};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// PDU types (figure "PDU types", PDU-Type field).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Initialize Connection Request, host to controller.
    IcReq = 0x00,
    /// Initialize Connection Response, controller to host.
    IcResp = 0x01,
    /// Host to Controller Terminate Connection Request.
    H2cTermReq = 0x02,
    /// Controller to Host Terminate Connection Request.
    C2hTermReq = 0x03,
    /// Command Capsule, host to controller.
    CapsuleCmd = 0x04,
    /// Response Capsule, controller to host.
    CapsuleResp = 0x05,
    /// Host to Controller Data Transfer.
    H2cData = 0x06,
    /// Controller to Host Data Transfer.
    C2hData = 0x07,
    /// Ready to Transfer, controller to host.
    R2t = 0x09,
}

impl Kind {
    /// Every type.
    pub const ALL: [Kind; 9] = [
        Kind::IcReq,
        Kind::IcResp,
        Kind::H2cTermReq,
        Kind::C2hTermReq,
        Kind::CapsuleCmd,
        Kind::CapsuleResp,
        Kind::H2cData,
        Kind::C2hData,
        Kind::R2t,
    ];

    /// The type with this number.
    pub fn of(number: u8) -> Option<Kind> {
        Some(match number {
            0x00 => Kind::IcReq,
            0x01 => Kind::IcResp,
            0x02 => Kind::H2cTermReq,
            0x03 => Kind::C2hTermReq,
            0x04 => Kind::CapsuleCmd,
            0x05 => Kind::CapsuleResp,
            0x06 => Kind::H2cData,
            0x07 => Kind::C2hData,
            0x09 => Kind::R2t,
            _ => return None,
        })
    }
    /// HLEN that this type must carry.
    pub const fn header_len(self) -> usize {
        match self {
            Kind::IcReq | Kind::IcResp => 128,
            Kind::CapsuleCmd => 72,
            Kind::H2cTermReq | Kind::C2hTermReq | Kind::CapsuleResp | Kind::H2cData | Kind::C2hData | Kind::R2t => 24,
        }
    }
    /// True for the types a host sends.
    pub const fn from_host(self) -> bool {
        matches!(self, Kind::IcReq | Kind::H2cTermReq | Kind::CapsuleCmd | Kind::H2cData)
    }
    /// True for the types that header digests cover once agreed.
    pub const fn digested(self) -> bool {
        matches!(self, Kind::CapsuleCmd | Kind::CapsuleResp | Kind::H2cData | Kind::C2hData | Kind::R2t)
    }
}

/// FLAGS: the header is followed by a digest.
pub const HDGSTF: u8 = 1 << 0;
/// FLAGS: the data is followed by a digest.
pub const DDGSTF: u8 = 1 << 1;
/// FLAGS of H2CData and C2HData: last PDU of this R2T or command.
pub const LAST_PDU: u8 = 1 << 2;
/// FLAGS of C2HData: the command succeeded and no CapsuleResp follows; only with `LAST_PDU`.
pub const SUCCESS: u8 = 1 << 3;

/// Common Header (CH) of every PDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// PDU-Type.
    pub kind: u8,
    /// FLAGS.
    pub flags: u8,
    /// HLEN: bytes of the header, without digest.
    pub hlen: u8,
    /// PDO: byte offset of the data from the start of the PDU.
    pub pdo: u8,
    /// PLEN: bytes of the whole PDU, digests and padding included.
    pub plen: U32,
}
layout!(Header, 8, kind @ 0, flags @ 1, hlen @ 2, pdo @ 3, plen @ 4);

impl Header {
    /// A header of `kind` without data and digests.
    pub const fn bare(kind: Kind) -> Header {
        let len = kind.header_len();
        Header { kind: kind as u8, flags: 0, hlen: len as u8, pdo: 0, plen: U32::new(len as u32) }
    }
}

/// Initialize Connection Request (3.6.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcReq {
    /// Common header.
    pub ch: Header,
    /// PFV: PDU format version; 0 is the only one.
    pub pfv: U16,
    /// HPDA: alignment the host asks for in C2HData, dwords, 0's based, at most 31.
    pub hpda: u8,
    /// DGST: digests the host wants ([`Digests`]).
    pub dgst: u8,
    /// MAXR2T: R2Ts the host takes at once per command, 0's based.
    pub maxr2t: U32,
    /// Reserved, zero.
    pub reserved: [u8; 112],
}
layout!(IcReq, 128, pfv @ 8, hpda @ 10, dgst @ 11, maxr2t @ 12);

impl IcReq {
    /// A request with format version 0. `hpda` and `maxr2t` are 0's based, as on the wire.
    pub fn new(hpda: u8, digests: Digests, maxr2t: u32) -> IcReq {
        IcReq {
            ch: Header::bare(Kind::IcReq),
            pfv: U16::ZERO,
            hpda,
            dgst: digests.bits(),
            maxr2t: U32::new(maxr2t),
            reserved: [0; 112],
        }
    }
}

/// Initialize Connection Response (3.6.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcResp {
    /// Common header.
    pub ch: Header,
    /// PFV: PDU format version; 0.
    pub pfv: U16,
    /// CPDA: alignment the controller asks for in data from the host, dwords, 0's based, at most 31.
    pub cpda: u8,
    /// DGST: digests that both sides want ([`Digests`]).
    pub dgst: u8,
    /// MAXH2CDATA: largest data part of an H2CData PDU, bytes; a multiple of 4, at least 4096.
    pub maxh2cdata: U32,
    /// Reserved, zero.
    pub reserved: [u8; 112],
}
layout!(IcResp, 128, pfv @ 8, cpda @ 10, dgst @ 11, maxh2cdata @ 12);

impl IcResp {
    /// A response with format version 0.
    pub fn new(cpda: u8, digests: Digests, maxh2cdata: u32) -> IcResp {
        IcResp {
            ch: Header::bare(Kind::IcResp),
            pfv: U16::ZERO,
            cpda,
            dgst: digests.bits(),
            maxh2cdata: U32::new(maxh2cdata),
            reserved: [0; 112],
        }
    }
}

/// Terminate Connection Request of either direction (3.6.2.4, 3.6.2.5); followed by up to [`TermReq::DATA_MAX`] bytes
/// of the PDU header at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TermReq {
    /// Common header.
    pub ch: Header,
    /// FES: fatal error status ([`super::Fes`]).
    pub fes: U16,
    /// FEI: byte offset of the bad field, or the bad digest; zero otherwise.
    pub fei: U32,
    /// Reserved, zero.
    pub reserved: [u8; 10],
}
layout!(TermReq, 24, fes @ 8, fei @ 10);

impl TermReq {
    /// Most bytes of the offending PDU's header that follow.
    pub const DATA_MAX: usize = 128;

    /// The header of a termination request that answers `fault` and is followed by `data_len` bytes of the offending
    /// header (clamped to [`TermReq::DATA_MAX`]). `kind` is [`Kind::H2cTermReq`] or [`Kind::C2hTermReq`].
    pub fn new(kind: Kind, fault: Fault, data_len: usize) -> TermReq {
        let data_len = data_len.min(TermReq::DATA_MAX);
        let mut ch = Header::bare(kind);
        ch.plen = U32::new((size_of::<TermReq>() + data_len) as u32);
        TermReq { ch, fes: U16::new(fault.fes as u16), fei: U32::new(fault.fei), reserved: [0; 10] }
    }
}

/// Command Capsule (3.6.2.6): the header; in-capsule data may follow at PDO.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleCmd {
    /// Common header.
    pub ch: Header,
    /// The submission queue entry.
    pub sqe: Sqe,
}
layout!(CapsuleCmd, 72, sqe @ 8);

impl CapsuleCmd {
    /// A capsule without data.
    pub fn new(sqe: Sqe, digests: Digests) -> CapsuleCmd {
        let mut ch = Header::bare(Kind::CapsuleCmd);
        close_bare(&mut ch, digests);
        CapsuleCmd { ch, sqe }
    }
    /// A capsule that carries `len` (> 0) bytes at an offset aligned to `align` bytes (from CPDA).
    pub fn with_data(sqe: Sqe, len: u32, align: u32, digests: Digests) -> CapsuleCmd {
        let mut ch = Header::bare(Kind::CapsuleCmd);
        place_data(&mut ch, len, align, digests);
        CapsuleCmd { ch, sqe }
    }
}

/// Response Capsule (3.6.2.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleResp {
    /// Common header.
    pub ch: Header,
    /// The completion queue entry.
    pub cqe: Cqe,
}
layout!(CapsuleResp, 24, cqe @ 8);

impl CapsuleResp {
    /// A response.
    #[inline]
    pub fn new(cqe: Cqe, digests: Digests) -> CapsuleResp {
        let mut ch = Header::bare(Kind::CapsuleResp);
        close_bare(&mut ch, digests);
        CapsuleResp { ch, cqe }
    }
}

/// H2CData and C2HData (3.6.2.8, 3.6.2.9); data follows at PDO. `ttag` is reserved in C2HData.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Data {
    /// Common header.
    pub ch: Header,
    /// CCCID: the command this data belongs to.
    pub cccid: U16,
    /// TTAG of the R2T that asked for the data (H2CData).
    pub ttag: U16,
    /// DATAO: byte offset of this data within the command's buffer.
    pub datao: U32,
    /// DATAL: bytes of data in this PDU.
    pub datal: U32,
    /// Reserved, zero.
    pub reserved: U32,
}
layout!(Data, 24, cccid @ 8, ttag @ 10, datao @ 12, datal @ 16, reserved @ 20);

impl Data {
    /// C2HData of `len` (> 0) bytes at `offset` of command `cid`, aligned to `align` bytes (from HPDA). `flags`: any of
    /// [`LAST_PDU`] and [`SUCCESS`].
    #[inline]
    pub fn c2h(cid: u16, offset: u32, len: u32, flags: u8, align: u32, digests: Digests) -> Data {
        let mut ch = Header::bare(Kind::C2hData);
        ch.flags = flags;
        place_data(&mut ch, len, align, digests);
        Data {
            ch,
            cccid: U16::new(cid),
            ttag: U16::ZERO,
            datao: U32::new(offset),
            datal: U32::new(len),
            reserved: U32::ZERO,
        }
    }
    /// H2CData of `len` (> 0) bytes at `offset`, for the R2T named `ttag`, aligned to `align` bytes (from CPDA).
    pub fn h2c(cid: u16, ttag: u16, offset: u32, len: u32, last: bool, align: u32, digests: Digests) -> Data {
        let mut ch = Header::bare(Kind::H2cData);
        ch.flags = if last { LAST_PDU } else { 0 };
        place_data(&mut ch, len, align, digests);
        Data {
            ch,
            cccid: U16::new(cid),
            ttag: U16::new(ttag),
            datao: U32::new(offset),
            datal: U32::new(len),
            reserved: U32::ZERO,
        }
    }
}

/// Ready to Transfer (3.6.2.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct R2t {
    /// Common header.
    pub ch: Header,
    /// CCCID: the command whose data is asked for.
    pub cccid: U16,
    /// TTAG: the controller's name for this transfer, to be echoed in H2CData.
    pub ttag: U16,
    /// R2TO: byte offset within the command's buffer.
    pub r2to: U32,
    /// R2TL: bytes asked for.
    pub r2tl: U32,
    /// Reserved, zero.
    pub reserved: U32,
}
layout!(R2t, 24, cccid @ 8, ttag @ 10, r2to @ 12, r2tl @ 16, reserved @ 20);

impl R2t {
    /// Asks for `len` bytes at `offset` of command `cid`'s buffer.
    pub fn new(cid: u16, ttag: u16, offset: u32, len: u32, digests: Digests) -> R2t {
        let mut ch = Header::bare(Kind::R2t);
        close_bare(&mut ch, digests);
        R2t {
            ch,
            cccid: U16::new(cid),
            ttag: U16::new(ttag),
            r2to: U32::new(offset),
            r2tl: U32::new(len),
            reserved: U32::ZERO,
        }
    }
}

/// Flags and PLEN of a PDU without data.
#[inline]
fn close_bare(ch: &mut Header, digests: Digests) {
    if digests.header {
        ch.flags |= HDGSTF;
        ch.plen = U32::new(u32::from(ch.hlen) + DIGEST_LEN as u32);
    }
}

/// Flags, PDO and PLEN of a PDU with `len` bytes of data aligned to `align` bytes. Lengths that do not fit 32 bits
/// saturate; such a PDU is longer than any side accepts.
#[inline]
fn place_data(ch: &mut Header, len: u32, align: u32, digests: Digests) {
    let mut at = u32::from(ch.hlen);
    if digests.header {
        ch.flags |= HDGSTF;
        at += DIGEST_LEN as u32;
    }
    // Headers and digests are whole dwords; only a host that asks for more pays for the division.
    if align > 4 {
        at = at.next_multiple_of(align.min(super::ALIGN_MAX as u32));
    }
    ch.pdo = at as u8;
    let mut plen = at.saturating_add(len);
    if digests.data {
        ch.flags |= DDGSTF;
        plen = plen.saturating_add(DIGEST_LEN as u32);
    }
    ch.plen = U32::new(plen);
}

/// A PDU header as it goes on the wire: header, its digest and the padding before the data.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; super::HEAD_MAX + 1],
    len: u8,
}

impl Head {
    /// Wire form of `pdu` (any header struct of this module): appends the digest when the header's flags say that there
    /// is one, and zero padding up to PDO when data follows.
    pub fn of<T: IntoBytes + Immutable>(pdu: &T) -> Head {
        let mut bytes = [0; super::HEAD_MAX + 1];
        let src = pdu.as_bytes();
        let hlen = src.len().min(128);
        bytes[..hlen].copy_from_slice(&src[..hlen]);
        let mut len = hlen;
        if bytes[1] & HDGSTF != 0 {
            let digest = crc32c(&bytes[..hlen]).to_le_bytes();
            bytes[hlen..hlen + DIGEST_LEN].copy_from_slice(&digest);
            len += DIGEST_LEN;
        }
        Head { bytes, len: len.max(usize::from(bytes[3])) as u8 }
    }
    /// The bytes to send before the data.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}
