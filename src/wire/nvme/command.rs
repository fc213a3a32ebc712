//! Submission and completion queue entries, the SGL descriptor, opcodes and DSM ranges.

use super::StatusCode;
use crate::wire::layout;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// SGL descriptor (base specification, "SGL Descriptor"), the kinds fabrics use: data block and transport data block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Sgl {
    /// Address, or offset within the capsule's data.
    pub address: U64,
    /// Bytes.
    pub length: U32,
    /// Reserved, zero.
    pub reserved: [u8; 3],
    /// Descriptor type in bits 7:4, sub type in bits 3:0.
    pub kind: u8,
}
layout!(Sgl, 16, address @ 0, length @ 8, kind @ 15);

impl Sgl {
    /// Data block whose address is an offset into in-capsule data: type 0h, sub type 1h.
    pub const IN_CAPSULE: u8 = 0x01;
    /// Transport data block: type 5h, sub type Ah. The transport moves the data by its own PDUs.
    pub const TRANSPORT: u8 = 0x5a;

    /// No data.
    pub const NONE: Sgl = Sgl { address: U64::ZERO, length: U32::ZERO, reserved: [0; 3], kind: 0 };

    /// `len` bytes at the start of the capsule's data.
    pub const fn in_capsule(len: u32) -> Sgl {
        Sgl { address: U64::ZERO, length: U32::new(len), reserved: [0; 3], kind: Sgl::IN_CAPSULE }
    }
    /// `len` bytes moved by data PDUs.
    pub const fn transport(len: u32) -> Sgl {
        Sgl { address: U64::ZERO, length: U32::new(len), reserved: [0; 3], kind: Sgl::TRANSPORT }
    }
}

/// Submission Queue Entry: 64 bytes (base specification, "Common Command Format").
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Sqe {
    /// OPC.
    pub opcode: u8,
    /// FUSE in bits 1:0, PSDT in bits 7:6.
    pub flags: u8,
    /// CID.
    pub cid: U16,
    /// NSID; for fabrics commands the first byte is FCTYPE.
    pub nsid: U32,
    /// Command Dword 2.
    pub cdw2: U32,
    /// Command Dword 3.
    pub cdw3: U32,
    /// MPTR.
    pub mptr: U64,
    /// DPTR as one SGL descriptor.
    pub sgl: Sgl,
    /// Command Dword 10.
    pub cdw10: U32,
    /// Command Dword 11.
    pub cdw11: U32,
    /// Command Dword 12.
    pub cdw12: U32,
    /// Command Dword 13.
    pub cdw13: U32,
    /// Command Dword 14.
    pub cdw14: U32,
    /// Command Dword 15.
    pub cdw15: U32,
}
layout!(Sqe, 64, opcode @ 0, flags @ 1, cid @ 2, nsid @ 4, mptr @ 16, sgl @ 24, cdw10 @ 40, cdw11 @ 44, cdw12 @ 48,
    cdw13 @ 52, cdw14 @ 56, cdw15 @ 60);

impl Sqe {
    /// PSDT value that fabrics require: SGL, metadata pointer is a buffer.
    pub const PSDT_SGL: u8 = 0x40;

    /// A command with SGL transfer, everything else zero.
    pub fn new(opcode: u8, cid: u16, nsid: u32, sgl: Sgl) -> Sqe {
        let mut sqe = Sqe::new_zeroed();
        sqe.opcode = opcode;
        sqe.flags = Sqe::PSDT_SGL;
        sqe.cid = U16::new(cid);
        sqe.nsid = U32::new(nsid);
        sqe.sgl = sgl;
        sqe
    }
    /// Read, Write, Compare or Write Zeroes of `blocks` (1 to 65536) logical blocks from `lba` on.
    pub fn rw(opcode: u8, cid: u16, nsid: u32, lba: u64, blocks: u32, sgl: Sgl) -> Sqe {
        let mut sqe = Sqe::new(opcode, cid, nsid, sgl);
        sqe.set_slba(lba);
        sqe.cdw12 = U32::new(blocks.wrapping_sub(1) & 0xffff);
        sqe
    }
    /// SLBA: first logical block of an I/O command.
    #[inline]
    pub fn slba(&self) -> u64 {
        u64::from(self.cdw10.get()) | u64::from(self.cdw11.get()) << 32
    }
    /// Sets SLBA.
    pub fn set_slba(&mut self, lba: u64) {
        self.cdw10 = U32::new(lba as u32);
        self.cdw11 = U32::new((lba >> 32) as u32);
    }
    /// NLB of an I/O command, made 1's based: 1 to 65536.
    #[inline]
    pub fn blocks(&self) -> u32 {
        (self.cdw12.get() & 0xffff) + 1
    }
    /// FUSE: 0 normal, 1 first, 2 second of a fused pair.
    pub fn fuse(&self) -> u8 {
        self.flags & 3
    }
    /// PSDT: 0 PRP, 1 and 2 SGL.
    pub fn psdt(&self) -> u8 {
        self.flags >> 6
    }
}

/// Completion Queue Entry: 16 bytes (base specification, "Common Completion Queue Entry"), without phase tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Cqe {
    /// Dwords 0 and 1: the command's result.
    pub result: U64,
    /// SQHD.
    pub sqhd: U16,
    /// SQID; reserved for fabrics.
    pub sqid: U16,
    /// CID.
    pub cid: U16,
    /// Status word ([`StatusCode::field`]).
    pub status: U16,
}
layout!(Cqe, 16, result @ 0, sqhd @ 8, sqid @ 10, cid @ 12, status @ 14);

impl Cqe {
    /// A completion; `status` is a status word ([`StatusCode::field`]).
    #[inline]
    pub const fn new(cid: u16, sqhd: u16, status: u16, result: u64) -> Cqe {
        Cqe {
            result: U64::new(result),
            sqhd: U16::new(sqhd),
            sqid: U16::ZERO,
            cid: U16::new(cid),
            status: U16::new(status),
        }
    }
    /// How the command ended.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_field(self.status.get())
    }
    /// DNR: a retry would fail again.
    pub fn dnr(&self) -> bool {
        self.status.get() & 0x8000 != 0
    }
}

/// One range of a Dataset Management command: 16 bytes (NVM command set, "Range Definition").
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DsmRange {
    /// Context attributes; hints only.
    pub attributes: U32,
    /// Length in logical blocks, 1's based.
    pub blocks: U32,
    /// First logical block.
    pub lba: U64,
}
layout!(DsmRange, 16, attributes @ 0, blocks @ 4, lba @ 8);

impl DsmRange {
    /// Most ranges one command may carry (NR is a 0's based byte).
    pub const MAX: usize = 256;
}

/// Admin command opcodes.
pub mod admin_op {
    /// Delete I/O Submission Queue (not for fabrics).
    pub const DELETE_IO_SQ: u8 = 0x00;
    /// Create I/O Submission Queue (not for fabrics).
    pub const CREATE_IO_SQ: u8 = 0x01;
    /// Get Log Page.
    pub const GET_LOG_PAGE: u8 = 0x02;
    /// Delete I/O Completion Queue (not for fabrics).
    pub const DELETE_IO_CQ: u8 = 0x04;
    /// Create I/O Completion Queue (not for fabrics).
    pub const CREATE_IO_CQ: u8 = 0x05;
    /// Identify.
    pub const IDENTIFY: u8 = 0x06;
    /// Abort.
    pub const ABORT: u8 = 0x08;
    /// Set Features.
    pub const SET_FEATURES: u8 = 0x09;
    /// Get Features.
    pub const GET_FEATURES: u8 = 0x0a;
    /// Asynchronous Event Request.
    pub const ASYNC_EVENT: u8 = 0x0c;
    /// Keep Alive.
    pub const KEEP_ALIVE: u8 = 0x18;
}

/// I/O command opcodes of the NVM command set.
pub mod io_op {
    /// Flush.
    pub const FLUSH: u8 = 0x00;
    /// Write.
    pub const WRITE: u8 = 0x01;
    /// Read.
    pub const READ: u8 = 0x02;
    /// Write Uncorrectable.
    pub const WRITE_UNCORRECTABLE: u8 = 0x04;
    /// Compare.
    pub const COMPARE: u8 = 0x05;
    /// Write Zeroes.
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset Management.
    pub const DSM: u8 = 0x09;
    /// Verify.
    pub const VERIFY: u8 = 0x0c;
    /// Reservation Register.
    pub const RESERVATION_REGISTER: u8 = 0x0d;
    /// Reservation Report.
    pub const RESERVATION_REPORT: u8 = 0x0e;
    /// Reservation Acquire.
    pub const RESERVATION_ACQUIRE: u8 = 0x11;
    /// Reservation Release.
    pub const RESERVATION_RELEASE: u8 = 0x15;
    /// Copy.
    pub const COPY: u8 = 0x19;
}
