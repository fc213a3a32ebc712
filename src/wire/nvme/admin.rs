//! Parameters of admin commands, read from and written to the command dwords.

use super::{Sgl, Sqe, admin_op};
use zerocopy::little_endian::U32;

/// Identify (opcode 06h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identify {
    /// CNS ([`super::identify::cns`]).
    pub cns: u8,
    /// CNTID.
    pub cntid: u16,
    /// CNS specific identifier.
    pub specific: u16,
    /// CSI: I/O command set; 0 is NVM.
    pub csi: u8,
    /// NSID.
    pub nsid: u32,
}

impl Identify {
    /// From a command.
    pub fn of(sqe: &Sqe) -> Identify {
        let (d10, d11) = (sqe.cdw10.get(), sqe.cdw11.get());
        Identify {
            cns: d10 as u8,
            cntid: (d10 >> 16) as u16,
            specific: d11 as u16,
            csi: (d11 >> 24) as u8,
            nsid: sqe.nsid.get(),
        }
    }
    /// As a command.
    pub fn sqe(self, cid: u16) -> Sqe {
        let mut sqe = Sqe::new(admin_op::IDENTIFY, cid, self.nsid, Sgl::transport(super::IDENTIFY_LEN as u32));
        sqe.cdw10 = U32::new(u32::from(self.cns) | u32::from(self.cntid) << 16);
        sqe.cdw11 = U32::new(u32::from(self.specific) | u32::from(self.csi) << 24);
        sqe
    }
}

/// Get Log Page (opcode 02h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GetLogPage {
    /// LID ([`super::log::lid`]).
    pub lid: u8,
    /// LSP: log specific parameter, 7 bits.
    pub lsp: u8,
    /// RAE: keep the asynchronous event that points at this log.
    pub retain: bool,
    /// Bytes asked for (NUMD made 1's based, times 4): 4 to 2^34.
    pub len: u64,
    /// LPO: first byte; must be a multiple of 4.
    pub offset: u64,
    /// OT: the offset is an index of structures, not bytes.
    pub index_offset: bool,
    /// NSID.
    pub nsid: u32,
}

impl GetLogPage {
    /// From a command.
    pub fn of(sqe: &Sqe) -> GetLogPage {
        let (d10, d11) = (sqe.cdw10.get(), sqe.cdw11.get());
        let numd = u64::from(d10 >> 16) | u64::from(d11 & 0xffff) << 16;
        GetLogPage {
            lid: d10 as u8,
            lsp: (d10 >> 8 & 0x7f) as u8,
            retain: d10 & 1 << 15 != 0,
            len: (numd + 1) * 4,
            offset: u64::from(sqe.cdw12.get()) | u64::from(sqe.cdw13.get()) << 32,
            index_offset: sqe.cdw14.get() & 1 << 23 != 0,
            nsid: sqe.nsid.get(),
        }
    }
    /// As a command; `len` is rounded down to whole dwords and at least one.
    pub fn sqe(self, cid: u16) -> Sqe {
        let numd = (self.len / 4).saturating_sub(1).min(u64::from(u32::MAX));
        let sgl = Sgl::transport(((numd + 1) * 4).min(u64::from(u32::MAX)) as u32);
        let mut sqe = Sqe::new(admin_op::GET_LOG_PAGE, cid, self.nsid, sgl);
        let flags = u32::from(self.lsp & 0x7f) << 8 | u32::from(self.retain) << 15;
        sqe.cdw10 = U32::new(u32::from(self.lid) | flags | (numd as u32 & 0xffff) << 16);
        sqe.cdw11 = U32::new((numd >> 16) as u32);
        sqe.cdw12 = U32::new(self.offset as u32);
        sqe.cdw13 = U32::new((self.offset >> 32) as u32);
        sqe.cdw14 = U32::new(u32::from(self.index_offset) << 23);
        sqe
    }
}

/// What Get Features asks for (SEL).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Select {
    /// Current value.
    Current,
    /// Default value.
    Default,
    /// Saved value.
    Saved,
    /// Supported capabilities.
    Capabilities,
}

/// Get Features and Set Features (opcodes 0Ah, 09h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// FID ([`super::feature::fid`]).
    pub fid: u8,
    /// SEL of Get Features; `None` for a reserved value.
    pub select: Option<Select>,
    /// SV of Set Features: keep the value across resets.
    pub save: bool,
    /// Command Dword 11: the value, or the feature's parameter.
    pub value: u32,
    /// NSID.
    pub nsid: u32,
}

impl Feature {
    /// From a command of either opcode.
    pub fn of(sqe: &Sqe) -> Feature {
        let d10 = sqe.cdw10.get();
        let select = match d10 >> 8 & 7 {
            0 => Some(Select::Current),
            1 => Some(Select::Default),
            2 => Some(Select::Saved),
            3 => Some(Select::Capabilities),
            _ => None,
        };
        Feature { fid: d10 as u8, select, save: d10 & 1 << 31 != 0, value: sqe.cdw11.get(), nsid: sqe.nsid.get() }
    }
    /// Get Features of the current value of `fid`, no data.
    pub fn get(cid: u16, fid: u8, nsid: u32) -> Sqe {
        let mut sqe = Sqe::new(admin_op::GET_FEATURES, cid, nsid, Sgl::NONE);
        sqe.cdw10 = U32::new(u32::from(fid));
        sqe
    }
    /// Set Features of `fid` to `value`, not saved, no data.
    pub fn set(cid: u16, fid: u8, nsid: u32, value: u32) -> Sqe {
        let mut sqe = Sqe::new(admin_op::SET_FEATURES, cid, nsid, Sgl::NONE);
        sqe.cdw10 = U32::new(u32::from(fid));
        sqe.cdw11 = U32::new(value);
        sqe
    }
}

/// Abort (opcode 08h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abort {
    /// SQID of the command to abort.
    pub sqid: u16,
    /// CID of the command to abort.
    pub cid: u16,
}

impl Abort {
    /// From a command.
    pub fn of(sqe: &Sqe) -> Abort {
        let d10 = sqe.cdw10.get();
        Abort { sqid: d10 as u16, cid: (d10 >> 16) as u16 }
    }
    /// As a command with its own identifier `cid`.
    pub fn sqe(self, cid: u16) -> Sqe {
        let mut sqe = Sqe::new(admin_op::ABORT, cid, 0, Sgl::NONE);
        sqe.cdw10 = U32::new(u32::from(self.sqid) | u32::from(self.cid) << 16);
        sqe
    }
}
