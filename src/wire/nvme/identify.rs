//! Identify data structures (base specification, "Identify command"; NVM command set, "Identify").

use crate::wire::layout;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Controller or Namespace Structure (CNS) values.
pub mod cns {
    /// Identify Namespace, NVM command set.
    pub const NAMESPACE: u8 = 0x00;
    /// Identify Controller.
    pub const CONTROLLER: u8 = 0x01;
    /// Active Namespace ID list.
    pub const ACTIVE_LIST: u8 = 0x02;
    /// Namespace Identification Descriptor list.
    pub const DESCRIPTORS: u8 = 0x03;
    /// I/O command set specific Identify Namespace.
    pub const NAMESPACE_CSI: u8 = 0x05;
    /// I/O command set specific Identify Controller.
    pub const CONTROLLER_CSI: u8 = 0x06;
    /// I/O command set specific Active Namespace ID list.
    pub const ACTIVE_LIST_CSI: u8 = 0x07;
    /// I/O command set independent Identify Namespace.
    pub const NAMESPACE_INDEPENDENT: u8 = 0x08;
    /// Allocated Namespace ID list.
    pub const ALLOCATED_LIST: u8 = 0x10;
    /// Identify Namespace of an allocated namespace.
    pub const ALLOCATED_NAMESPACE: u8 = 0x11;
    /// Controllers attached to a namespace.
    pub const ATTACHED_CONTROLLERS: u8 = 0x12;
    /// Controllers of the subsystem.
    pub const CONTROLLER_LIST: u8 = 0x13;
    /// I/O command sets that can be enabled together.
    pub const COMMAND_SETS: u8 = 0x1c;
}

/// Power State Descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PowerState {
    /// MP: maximum power, centiwatts.
    pub max_power: U16,
    /// Latencies and relative performance; zero.
    pub rest: [u8; 30],
}
layout!(PowerState, 32, max_power @ 0);

/// Identify Controller (CNS 01h).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Controller {
    /// VID: PCI vendor.
    pub vid: U16,
    /// SSVID: PCI subsystem vendor.
    pub ssvid: U16,
    /// SN: serial number, ASCII.
    pub serial: [u8; 20],
    /// MN: model number, ASCII.
    pub model: [u8; 40],
    /// FR: firmware revision, ASCII.
    pub firmware: [u8; 8],
    /// RAB: recommended arbitration burst.
    pub rab: u8,
    /// IEEE OUI, least significant byte first.
    pub ieee: [u8; 3],
    /// CMIC: bit 0 multiple ports, bit 1 multiple controllers, bit 3 ANA.
    pub cmic: u8,
    /// MDTS: largest transfer, 2^n units of CAP.MPSMIN; 0 no limit.
    pub mdts: u8,
    /// CNTLID.
    pub cntlid: U16,
    /// VER.
    pub version: U32,
    /// RTD3R, microseconds.
    pub rtd3r: U32,
    /// RTD3E, microseconds.
    pub rtd3e: U32,
    /// OAES: optional asynchronous events ([`super::feature::event_config`]).
    pub oaes: U32,
    /// CTRATT: bit 0 128-bit host id, bit 6 traffic based keep alive.
    pub ctratt: U32,
    /// RRLS.
    pub rrls: U16,
    /// Reserved.
    pub reserved102: [u8; 9],
    /// CNTRLTYPE: 1 I/O, 2 discovery, 3 administrative.
    pub controller_type: u8,
    /// FGUID.
    pub fguid: [u8; 16],
    /// CRDT1 to CRDT3: command retry delays, 100 ms.
    pub crdt: [U16; 3],
    /// Reserved, and the management fields at its end.
    pub reserved134: [u8; 122],
    /// OACS: optional admin commands.
    pub oacs: U16,
    /// ACL: concurrent Abort commands, 0's based.
    pub acl: u8,
    /// AERL: outstanding Asynchronous Event Requests, 0's based.
    pub aerl: u8,
    /// FRMW: firmware slots; bit 0 slot 1 is read only, bits 3:1 number.
    pub frmw: u8,
    /// LPA: bit 1 commands supported and effects log, bit 2 extended data (offset) in Get Log Page.
    pub lpa: u8,
    /// ELPE: error log entries, 0's based.
    pub elpe: u8,
    /// NPSS: power states, 0's based.
    pub npss: u8,
    /// AVSCC.
    pub avscc: u8,
    /// APSTA.
    pub apsta: u8,
    /// WCTEMP, Kelvin.
    pub wctemp: U16,
    /// CCTEMP, Kelvin.
    pub cctemp: U16,
    /// MTFA, 100 ms.
    pub mtfa: U16,
    /// HMPRE.
    pub hmpre: U32,
    /// HMMIN.
    pub hmmin: U32,
    /// TNVMCAP, bytes.
    pub tnvmcap: U128,
    /// UNVMCAP, bytes.
    pub unvmcap: U128,
    /// RPMBS.
    pub rpmbs: U32,
    /// EDSTT.
    pub edstt: U16,
    /// DSTO.
    pub dsto: u8,
    /// FWUG.
    pub fwug: u8,
    /// KAS: granularity of the keep alive timer, 100 ms; 0 not supported.
    pub kas: U16,
    /// HCTMA.
    pub hctma: U16,
    /// MNTMT, Kelvin.
    pub mntmt: U16,
    /// MXTMT, Kelvin.
    pub mxtmt: U16,
    /// SANICAP.
    pub sanicap: U32,
    /// HMMINDS.
    pub hmminds: U32,
    /// HMMAXD.
    pub hmmaxd: U16,
    /// NSETIDMAX.
    pub nsetidmax: U16,
    /// ENDGIDMAX.
    pub endgidmax: U16,
    /// ANATT, seconds.
    pub anatt: u8,
    /// ANACAP.
    pub anacap: u8,
    /// ANAGRPMAX.
    pub anagrpmax: U32,
    /// NANAGRPID.
    pub nanagrpid: U32,
    /// PELS.
    pub pels: U32,
    /// DOMAIN ID.
    pub domain: U16,
    /// KPIOC and reserved.
    pub reserved358: [u8; 10],
    /// MEGCAP.
    pub megcap: U128,
    /// Reserved (CQT of TP4129 included; 0: not reported).
    pub reserved384: [u8; 128],
    /// SQES: entry size, min in bits 3:0 and max in 7:4, 2^n bytes.
    pub sqes: u8,
    /// CQES: likewise.
    pub cqes: u8,
    /// MAXCMD: outstanding commands per queue.
    pub maxcmd: U16,
    /// NN: highest valid NSID.
    pub nn: U32,
    /// ONCS: bit 0 Compare, bit 2 DSM, bit 3 Write Zeroes, bit 4 Save/Select, bit 5 reservations.
    pub oncs: U16,
    /// FUSES: bit 0 Compare and Write.
    pub fuses: U16,
    /// FNA.
    pub fna: u8,
    /// VWC: bit 0 volatile cache present, bits 2:1 Flush with NSID FFFFFFFFh (10b refused, 11b supported).
    pub vwc: u8,
    /// AWUN: logical blocks written atomically, 0's based.
    pub awun: U16,
    /// AWUPF: likewise across a power failure.
    pub awupf: U16,
    /// ICSVSCC.
    pub icsvscc: u8,
    /// NWPC.
    pub nwpc: u8,
    /// ACWU: fused Compare and Write, 0's based.
    pub acwu: U16,
    /// CDFS.
    pub cdfs: U16,
    /// SGLS: bits 1:0 supported, bit 20 SGL offset, bit 21 transport SGL.
    pub sgls: U32,
    /// MNAN: most namespaces; 0 same as NN.
    pub mnan: U32,
    /// MAXDNA.
    pub maxdna: U128,
    /// MAXCNA.
    pub maxcna: U32,
    /// Reserved.
    pub reserved564: [u8; 204],
    /// SUBNQN.
    pub subnqn: [u8; 256],
    /// Reserved.
    pub reserved1024: [u8; 768],
    /// IOCCSZ: I/O command capsule with its data, 16-byte units.
    pub ioccsz: U32,
    /// IORCSZ: I/O response capsule, 16-byte units.
    pub iorcsz: U32,
    /// ICDOFF: in-capsule data offset, 16-byte units.
    pub icdoff: U16,
    /// FCATT: bit 0 static controller model (0 = dynamic).
    pub fcatt: u8,
    /// MSDBD: SGL data blocks per command.
    pub msdbd: u8,
    /// OFCS: bit 0 Disconnect.
    pub ofcs: U16,
    /// DCTYPE: discovery controller type.
    pub dctype: u8,
    /// Reserved.
    pub reserved1807: [u8; 241],
    /// PSD0 to PSD31.
    pub power_states: [PowerState; 32],
    /// Vendor specific.
    pub vendor: [u8; 1024],
}
layout!(Controller, 4096, serial @ 4, model @ 24, firmware @ 64, rab @ 72, ieee @ 73, cmic @ 76, mdts @ 77,
    cntlid @ 78, version @ 80, rtd3r @ 84, oaes @ 92, ctratt @ 96, rrls @ 100, controller_type @ 111, fguid @ 112,
    crdt @ 128, oacs @ 256, acl @ 258, aerl @ 259, frmw @ 260, lpa @ 261, elpe @ 262, npss @ 263, wctemp @ 266,
    cctemp @ 268, mtfa @ 270, tnvmcap @ 280, unvmcap @ 296, rpmbs @ 312, edstt @ 316, fwug @ 319, kas @ 320,
    sanicap @ 328, anatt @ 342, anacap @ 343, anagrpmax @ 344, nanagrpid @ 348, pels @ 352, domain @ 356,
    megcap @ 368, sqes @ 512, cqes @ 513, maxcmd @ 514, nn @ 516, oncs @ 520, fuses @ 522, fna @ 524, vwc @ 525,
    awun @ 526, awupf @ 528, nwpc @ 531, acwu @ 532, sgls @ 536, mnan @ 540, maxcna @ 560, subnqn @ 768,
    ioccsz @ 1792, iorcsz @ 1796, icdoff @ 1800, fcatt @ 1802, msdbd @ 1803, ofcs @ 1804, dctype @ 1806,
    power_states @ 2048, vendor @ 3072);

/// LBA Format descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LbaFormat {
    /// MS: metadata bytes per block.
    pub metadata: U16,
    /// LBADS: block size, 2^n bytes.
    pub data_shift: u8,
    /// RP: relative performance, bits 1:0.
    pub performance: u8,
}
layout!(LbaFormat, 4, data_shift @ 2);

/// Identify Namespace, NVM command set (CNS 00h).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Namespace {
    /// NSZE: size, logical blocks.
    pub nsze: U64,
    /// NCAP: blocks that can be allocated at once.
    pub ncap: U64,
    /// NUSE: blocks allocated.
    pub nuse: U64,
    /// NSFEAT: bit 0 thin provisioning, bit 1 NAWUN.. are valid, bit 2 deallocated block error, bit 4 preferred sizes.
    pub nsfeat: u8,
    /// NLBAF: LBA formats, 0's based.
    pub nlbaf: u8,
    /// FLBAS: the format in use, bits 3:0.
    pub flbas: u8,
    /// MC.
    pub mc: u8,
    /// DPC.
    pub dpc: u8,
    /// DPS.
    pub dps: u8,
    /// NMIC: bit 0 may be attached to several controllers.
    pub nmic: u8,
    /// RESCAP: reservation capabilities.
    pub rescap: u8,
    /// FPI.
    pub fpi: u8,
    /// DLFEAT: bits 2:0 what deallocated blocks read as (1: zeroes), bit 3 Write Zeroes can deallocate.
    pub dlfeat: u8,
    /// NAWUN: atomic write, blocks, 0's based.
    pub nawun: U16,
    /// NAWUPF: atomic write across power failure, blocks, 0's based.
    pub nawupf: U16,
    /// NACWU: atomic compare and write, blocks, 0's based.
    pub nacwu: U16,
    /// NABSN.
    pub nabsn: U16,
    /// NABO.
    pub nabo: U16,
    /// NABSPF.
    pub nabspf: U16,
    /// NOIOB: optimal I/O boundary, blocks.
    pub noiob: U16,
    /// NVMCAP, bytes.
    pub nvmcap: U128,
    /// NPWG: preferred write granularity, blocks, 0's based.
    pub npwg: U16,
    /// NPWA: preferred write alignment, blocks, 0's based.
    pub npwa: U16,
    /// NPDG: preferred deallocate granularity, blocks, 0's based.
    pub npdg: U16,
    /// NPDA: preferred deallocate alignment, blocks, 0's based.
    pub npda: U16,
    /// NOWS: optimal write size, blocks, 0's based.
    pub nows: U16,
    /// MSSRL, MCL, MSRC (Copy) and reserved.
    pub copy: [u8; 18],
    /// ANAGRPID.
    pub anagrpid: U32,
    /// Reserved.
    pub reserved96: [u8; 3],
    /// NSATTR: bit 0 write protected.
    pub nsattr: u8,
    /// NVMSETID.
    pub nvmsetid: U16,
    /// ENDGID.
    pub endgid: U16,
    /// NGUID.
    pub nguid: [u8; 16],
    /// EUI64.
    pub eui64: [u8; 8],
    /// LBAF0 to LBAF63.
    pub lbaf: [LbaFormat; 64],
    /// Vendor specific.
    pub vendor: [u8; 3712],
}
layout!(Namespace, 4096, nsfeat @ 24, nlbaf @ 25, flbas @ 26, nmic @ 30, rescap @ 31, dlfeat @ 33, nawun @ 34,
    nawupf @ 36, nacwu @ 38, noiob @ 46, nvmcap @ 48, npwg @ 64, nows @ 72, copy @ 74, anagrpid @ 92, nsattr @ 99,
    nguid @ 104, eui64 @ 120, lbaf @ 128, vendor @ 384);

impl Namespace {
    /// Bytes per logical block of the format in use, when that is a legal shift (9 to 31).
    pub fn block_size(&self) -> Option<u32> {
        let index = self.flbas & 0xf | (self.flbas & 0x60) >> 1;
        let shift = self.lbaf.get(usize::from(index))?.data_shift;
        (9..32).contains(&shift).then(|| 1 << shift)
    }
}

/// I/O command set specific Identify Controller, NVM command set (CNS 06h, CSI 00h).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NvmController {
    /// VSL: Verify size limit, 2^n units of CAP.MPSMIN.
    pub vsl: u8,
    /// WZSL: Write Zeroes size limit, likewise; 0 no limit.
    pub wzsl: u8,
    /// WUSL: Write Uncorrectable size limit, likewise.
    pub wusl: u8,
    /// DMRL: ranges per Dataset Management command; 0 no limit.
    pub dmrl: u8,
    /// DMRSL: blocks per range; 0 no limit.
    pub dmrsl: U32,
    /// DMSL: blocks per command; 0 no limit.
    pub dmsl: U64,
    /// Reserved.
    pub reserved: [u8; 4080],
}
layout!(NvmController, 4096, wzsl @ 1, dmrl @ 3, dmrsl @ 4, dmsl @ 8);

/// I/O command set independent Identify Namespace (CNS 08h).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NamespaceIndependent {
    /// NSFEAT.
    pub nsfeat: u8,
    /// NMIC: bit 0 may be attached to several controllers.
    pub nmic: u8,
    /// RESCAP.
    pub rescap: u8,
    /// FPI.
    pub fpi: u8,
    /// ANAGRPID.
    pub anagrpid: U32,
    /// NSATTR: bit 0 write protected.
    pub nsattr: u8,
    /// Reserved.
    pub reserved9: u8,
    /// NVMSETID.
    pub nvmsetid: U16,
    /// ENDGID.
    pub endgid: U16,
    /// NSTAT: bit 0 ready.
    pub nstat: u8,
    /// Reserved.
    pub reserved: [u8; 4081],
}
layout!(NamespaceIndependent, 4096, anagrpid @ 4, nsattr @ 8, nstat @ 14);

/// A list of 1024 ascending NSIDs, ended by zeroes (CNS 02h).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NamespaceList {
    /// The NSIDs.
    pub nsids: [U32; 1024],
}
layout!(NamespaceList, 4096);

impl NamespaceList {
    /// The NSIDs before the first zero.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.nsids.iter().map(|n| n.get()).take_while(|n| *n != 0)
    }
}

/// A controller list: a count and up to 2047 ascending CNTLIDs (CNS 12h, 13h).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ControllerList {
    /// How many follow.
    pub count: U16,
    /// The CNTLIDs.
    pub cntlids: [U16; 2047],
}
layout!(ControllerList, 4096);

/// Header of a Namespace Identification Descriptor (CNS 03h): NIDT, NIDL, two reserved bytes, then NIDL bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DescriptorHead {
    /// NIDT: 1 EUI64, 2 NGUID, 3 UUID, 4 CSI.
    pub kind: u8,
    /// NIDL: bytes that follow: 8, 16, 16, 1.
    pub len: u8,
    /// Reserved, zero.
    pub reserved: U16,
}
layout!(DescriptorHead, 4);

/// NIDT values.
pub mod nidt {
    /// IEEE Extended Unique Identifier, 8 bytes.
    pub const EUI64: u8 = 1;
    /// Namespace Globally Unique Identifier, 16 bytes.
    pub const NGUID: u8 = 2;
    /// Namespace UUID, 16 bytes.
    pub const UUID: u8 = 3;
    /// Command Set Identifier, 1 byte; 0 is NVM.
    pub const CSI: u8 = 4;
}

/// Writes one descriptor at the start of `list` and returns the rest, or `None` when it does not fit.
pub fn put_descriptor<'a>(list: &'a mut [u8], kind: u8, id: &[u8]) -> Option<&'a mut [u8]> {
    let need = 4 + id.len();
    if id.len() > 255 || list.len() < need {
        return None;
    }
    let (head, rest) = list.split_at_mut(need);
    head[..4].copy_from_slice(&[kind, id.len() as u8, 0, 0]);
    head[4..].copy_from_slice(id);
    Some(rest)
}

/// The descriptors of a list: `(NIDT, identifier)` until a zero type, a zero length or the end.
pub fn descriptors(mut list: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    core::iter::from_fn(move || {
        let (head, rest) = DescriptorHead::ref_from_prefix(list).ok()?;
        if head.kind == 0 || head.len == 0 {
            return None;
        }
        let id = rest.get(..usize::from(head.len))?;
        list = &rest[id.len()..];
        Some((head.kind, id))
    })
}
