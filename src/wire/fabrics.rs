//! NVMe over Fabrics: Connect, Property Get and Set, Disconnect (base specification 2.x, "Fabrics Command Set").

use crate::wire::layout;
use crate::wire::nvme::{Sgl, Sqe, get_str, put_str};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Opcode of every fabrics command; FCTYPE tells them apart.
pub const OPCODE: u8 = 0x7f;

/// Fabrics command types (FCTYPE, byte 4 of the SQE).
pub mod fctype {
    /// Property Set.
    pub const PROPERTY_SET: u8 = 0x00;
    /// Connect.
    pub const CONNECT: u8 = 0x01;
    /// Property Get.
    pub const PROPERTY_GET: u8 = 0x04;
    /// Authentication Send.
    pub const AUTH_SEND: u8 = 0x05;
    /// Authentication Receive.
    pub const AUTH_RECV: u8 = 0x06;
    /// Disconnect.
    pub const DISCONNECT: u8 = 0x08;
}

/// FCTYPE of a fabrics command.
pub fn fctype_of(sqe: &Sqe) -> u8 {
    sqe.nsid.get() as u8
}

/// Longest NQN, bytes, without the terminating zero.
pub const NQN_MAX: usize = 223;

/// NQN of every discovery subsystem.
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// True for a well-formed NQN: `nqn.yyyy-mm.` + reversed domain, or the UUID form; at most [`NQN_MAX`] bytes.
pub fn nqn_valid(nqn: &str) -> bool {
    let b = nqn.as_bytes();
    let digits = |r: core::ops::Range<usize>| b.get(r).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    b.len() <= NQN_MAX
        && nqn.starts_with("nqn.")
        && digits(4..8)
        && b.get(8) == Some(&b'-')
        && digits(9..11)
        && b.get(11) == Some(&b'.')
        && b.len() > 12
        && b.iter().all(|c| *c > 0x20 && *c != 0x7f)
}

/// CNTLID in Connect that asks for any controller (dynamic model).
pub const CNTLID_DYNAMIC: u16 = 0xffff;

/// CATTR bit 2: SQ flow control is disabled by this host, so SQHD may be ignored and SUCCESS be used (DISSQFC).
pub const CATTR_DISABLE_SQFC: u8 = 1 << 2;

/// Parameters of a Connect command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connect {
    /// RECFMT; 0.
    pub format: u16,
    /// QID: 0 makes an admin queue and with it a controller.
    pub qid: u16,
    /// SQSIZE: entries, 0's based; at least 1.
    pub sqsize: u16,
    /// CATTR.
    pub cattr: u8,
    /// KATO, milliseconds; admin queue only, 0 switches keep alive off.
    pub kato: u32,
}

impl Connect {
    /// From a command whose FCTYPE is Connect.
    pub fn of(sqe: &Sqe) -> Connect {
        let (d10, d11) = (sqe.cdw10.get(), sqe.cdw11.get());
        Connect {
            format: d10 as u16,
            qid: (d10 >> 16) as u16,
            sqsize: d11 as u16,
            cattr: (d11 >> 16) as u8,
            kato: sqe.cdw12.get(),
        }
    }
    /// As a command that carries [`ConnectData`] in its capsule.
    pub fn sqe(self, cid: u16) -> Sqe {
        let sgl = Sgl::in_capsule(size_of::<ConnectData>() as u32);
        let mut sqe = Sqe::new(OPCODE, cid, u32::from(fctype::CONNECT), sgl);
        sqe.cdw10 = U32::new(u32::from(self.format) | u32::from(self.qid) << 16);
        sqe.cdw11 = U32::new(u32::from(self.sqsize) | u32::from(self.cattr) << 16);
        sqe.cdw12 = U32::new(self.kato);
        sqe
    }
}

/// Data of a Connect command: 1024 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    /// HOSTID.
    pub hostid: [u8; 16],
    /// CNTLID, or [`CNTLID_DYNAMIC`].
    pub cntlid: U16,
    /// Reserved, zero.
    pub reserved18: [u8; 238],
    /// SUBNQN, zero-terminated.
    pub subnqn: [u8; 256],
    /// HOSTNQN, zero-terminated.
    pub hostnqn: [u8; 256],
    /// Reserved, zero.
    pub reserved768: [u8; 256],
}
layout!(ConnectData, 1024, cntlid @ 16, subnqn @ 256, hostnqn @ 512);

impl ConnectData {
    /// For a Connect; NQNs longer than the field are cut.
    pub fn new(hostid: [u8; 16], cntlid: u16, subnqn: &str, hostnqn: &str) -> ConnectData {
        let mut data = ConnectData {
            hostid,
            cntlid: U16::new(cntlid),
            reserved18: [0; 238],
            subnqn: [0; 256],
            hostnqn: [0; 256],
            reserved768: [0; 256],
        };
        put_str(&mut data.subnqn[..NQN_MAX], subnqn);
        put_str(&mut data.hostnqn[..NQN_MAX], hostnqn);
        data
    }
    /// SUBNQN, when it is a zero-terminated UTF-8 string of legal length.
    pub fn subnqn(&self) -> Option<&str> {
        nqn_field(&self.subnqn)
    }
    /// HOSTNQN, likewise. Some hosts (`spdk_nvme_perf`) leave it empty: whether that is a host is for the access
    /// rights to say.
    pub fn hostnqn(&self) -> Option<&str> {
        nqn_field(&self.hostnqn)
    }
}

fn nqn_field(field: &[u8; 256]) -> Option<&str> {
    get_str(field).filter(|s| s.len() <= NQN_MAX)
}

/// Byte offsets of Connect parameters, for IPO in a completion with Invalid Parameters.
pub mod connect_at {
    /// RECFMT in the SQE.
    pub const RECFMT: u16 = 40;
    /// QID in the SQE.
    pub const QID: u16 = 42;
    /// SQSIZE in the SQE.
    pub const SQSIZE: u16 = 44;
    /// HOSTID in the data.
    pub const HOSTID: u16 = 0;
    /// CNTLID in the data.
    pub const CNTLID: u16 = 16;
    /// SUBNQN in the data.
    pub const SUBNQN: u16 = 256;
    /// HOSTNQN in the data.
    pub const HOSTNQN: u16 = 512;
}

/// Result of a Connect that succeeded (dwords 0 and 1 of the completion): the controller, no authentication asked.
pub fn connect_result(cntlid: u16) -> u64 {
    u64::from(cntlid)
}

/// CNTLID of a Connect's result.
pub fn result_cntlid(result: u64) -> u16 {
    result as u16
}

/// AUTHREQ of a Connect's result: bit 1 in-band authentication required, bit 2 secure channel required.
pub fn result_authreq(result: u64) -> u16 {
    (result >> 16) as u16
}

/// Result of a Connect refused with Invalid Parameters: IPO, and IATTR bit 0 when the offset is into the data.
pub fn invalid_result(offset: u16, in_data: bool) -> u64 {
    u64::from(offset) | u64::from(in_data) << 16
}

/// A Property Get (`value` is `None`) or Property Set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Property {
    /// 8-byte property; else 4 bytes. `None` for a reserved size.
    pub wide: Option<bool>,
    /// OFST ([`property`]).
    pub offset: u32,
    /// VALUE of a Property Set.
    pub value: Option<u64>,
}

impl Property {
    /// From a command whose FCTYPE is Property Get or Set.
    pub fn of(sqe: &Sqe) -> Property {
        let wide = match sqe.cdw10.get() & 7 {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        let set = fctype_of(sqe) == fctype::PROPERTY_SET;
        let value = u64::from(sqe.cdw12.get()) | u64::from(sqe.cdw13.get()) << 32;
        Property { wide, offset: sqe.cdw11.get(), value: set.then_some(value) }
    }
    /// Property Get.
    pub fn get(cid: u16, offset: u32, wide: bool) -> Sqe {
        let mut sqe = Sqe::new(OPCODE, cid, u32::from(fctype::PROPERTY_GET), Sgl::NONE);
        sqe.cdw10 = U32::new(u32::from(wide));
        sqe.cdw11 = U32::new(offset);
        sqe
    }
    /// Property Set.
    pub fn set(cid: u16, offset: u32, wide: bool, value: u64) -> Sqe {
        let mut sqe = Property::get(cid, offset, wide);
        sqe.nsid = U32::new(u32::from(fctype::PROPERTY_SET));
        sqe.cdw12 = U32::new(value as u32);
        sqe.cdw13 = U32::new((value >> 32) as u32);
        sqe
    }
}

/// Disconnect of the I/O queue it is sent on.
pub fn disconnect(cid: u16) -> Sqe {
    Sqe::new(OPCODE, cid, u32::from(fctype::DISCONNECT), Sgl::NONE)
}

/// Controller properties (base specification, "Controller Properties"): offsets and fields.
pub mod property {
    /// CAP, 8 bytes.
    pub const CAP: u32 = 0x00;
    /// VS, 4 bytes.
    pub const VS: u32 = 0x08;
    /// CC, 4 bytes.
    pub const CC: u32 = 0x14;
    /// CSTS, 4 bytes.
    pub const CSTS: u32 = 0x1c;
    /// NSSR, 4 bytes.
    pub const NSSR: u32 = 0x20;
    /// CRTO, 4 bytes.
    pub const CRTO: u32 = 0x68;

    /// CC.EN.
    pub const CC_EN: u32 = 1;
    /// CC.SHN, bits 15:14: 0 none, 1 normal, 2 abrupt.
    pub fn cc_shn(cc: u32) -> u32 {
        cc >> 14 & 3
    }
    /// CC.CSS, bits 6:4.
    pub fn cc_css(cc: u32) -> u32 {
        cc >> 4 & 7
    }
    /// CC.MPS, bits 10:7: page size 2^(12 + n).
    pub fn cc_mps(cc: u32) -> u32 {
        cc >> 7 & 15
    }
    /// CC.AMS, bits 13:11.
    pub fn cc_ams(cc: u32) -> u32 {
        cc >> 11 & 7
    }
    /// A CC that enables the NVM command set with 64-byte SQEs and 16-byte CQEs.
    pub const CC_ENABLE_NVM: u32 = CC_EN | 6 << 16 | 4 << 20;
    /// CC.SHN = normal shutdown, to be or'ed in.
    pub const CC_SHN_NORMAL: u32 = 1 << 14;

    /// CSTS.RDY.
    pub const CSTS_RDY: u32 = 1;
    /// CSTS.CFS: controller fatal status.
    pub const CSTS_CFS: u32 = 1 << 1;
    /// CSTS.SHST bits 3:2: shutdown complete.
    pub const CSTS_SHST_COMPLETE: u32 = 2 << 2;
    /// CSTS.SHST of a CSTS value: 0 normal, 1 occurring, 2 complete.
    pub fn csts_shst(csts: u32) -> u32 {
        csts >> 2 & 3
    }

    /// CAP with MQES `entries` (0's based), contiguous queues, timeout `to` in 500 ms units, NVM command set,
    /// 4 KiB memory pages only.
    pub fn cap(entries: u16, to: u8) -> u64 {
        u64::from(entries) | 1 << 16 | u64::from(to) << 24 | 1 << 37
    }
    /// CAP.MQES, 0's based.
    pub fn cap_mqes(cap: u64) -> u16 {
        cap as u16
    }
    /// CAP.TO, 500 ms units.
    pub fn cap_timeout(cap: u64) -> u8 {
        (cap >> 24) as u8
    }
}
