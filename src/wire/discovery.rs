//! The Discovery log page (log 70h): a header and one entry per way to a subsystem (base specification, "Discovery Log
//! Page").

use crate::wire::layout;
use crate::wire::nvme::{get_ascii, get_str, put_ascii, put_str};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Header of the log: 1024 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogHeader {
    /// GENCTR: changes whenever the log does; a reader of several parts compares it.
    pub genctr: U64,
    /// NUMREC: entries.
    pub numrec: U64,
    /// RECFMT; 0.
    pub format: U16,
    /// Reserved, zero.
    pub reserved: [u8; 1006],
}
layout!(LogHeader, 1024, numrec @ 8, format @ 16);

impl LogHeader {
    /// A header for `records` entries.
    pub fn new(generation: u64, records: u64) -> LogHeader {
        LogHeader { genctr: U64::new(generation), numrec: U64::new(records), format: U16::ZERO, reserved: [0; 1006] }
    }
}

/// TRTYPE: TCP.
pub const TRTYPE_TCP: u8 = 3;
/// ADRFAM: IPv4.
pub const ADRFAM_IPV4: u8 = 1;
/// ADRFAM: IPv6.
pub const ADRFAM_IPV6: u8 = 2;
/// SUBTYPE: a referral to another discovery service.
pub const SUBTYPE_REFERRAL: u8 = 1;
/// SUBTYPE: an NVM subsystem.
pub const SUBTYPE_NVM: u8 = 2;
/// SUBTYPE: the discovery subsystem that answers.
pub const SUBTYPE_CURRENT: u8 = 3;
/// TREQ: secure channel not required.
pub const TREQ_NOT_REQUIRED: u8 = 2;
/// EFLAGS: the same information is returned on every port of this subsystem.
pub const EFLAGS_DUPRETINFO: u16 = 1;
/// EFLAGS: explicit persistent connections are supported.
pub const EFLAGS_EPCSD: u16 = 2;

/// One entry: 1024 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogEntry {
    /// TRTYPE.
    pub trtype: u8,
    /// ADRFAM.
    pub adrfam: u8,
    /// SUBTYPE.
    pub subtype: u8,
    /// TREQ.
    pub treq: u8,
    /// PORTID.
    pub portid: U16,
    /// CNTLID: FFFFh for the dynamic model.
    pub cntlid: U16,
    /// ASQSZ: admin queue entries at most.
    pub asqsz: U16,
    /// EFLAGS.
    pub eflags: U16,
    /// Reserved, zero.
    pub reserved12: [u8; 20],
    /// TRSVCID: TCP port in ASCII.
    pub trsvcid: [u8; 32],
    /// Reserved, zero.
    pub reserved64: [u8; 192],
    /// SUBNQN.
    pub subnqn: [u8; 256],
    /// TRADDR: address in ASCII.
    pub traddr: [u8; 256],
    /// TSAS: byte 0 is SECTYPE for TCP (0: none).
    pub tsas: [u8; 256],
}
layout!(LogEntry, 1024, portid @ 4, cntlid @ 6, asqsz @ 8, eflags @ 10, trsvcid @ 32, subnqn @ 256, traddr @ 512,
    tsas @ 768);

impl LogEntry {
    /// A TCP entry of the dynamic controller model without security.
    pub fn tcp(subtype: u8, portid: u16, asqsz: u16, subnqn: &str, addr: core::net::SocketAddr) -> LogEntry {
        let mut e = LogEntry {
            trtype: TRTYPE_TCP,
            adrfam: if addr.is_ipv4() { ADRFAM_IPV4 } else { ADRFAM_IPV6 },
            subtype,
            treq: TREQ_NOT_REQUIRED,
            portid: U16::new(portid),
            cntlid: U16::new(super::fabrics::CNTLID_DYNAMIC),
            asqsz: U16::new(asqsz),
            eflags: U16::ZERO,
            reserved12: [0; 20],
            trsvcid: [b' '; 32],
            reserved64: [0; 192],
            subnqn: [0; 256],
            traddr: [b' '; 256],
            tsas: [0; 256],
        };
        put_str(&mut e.subnqn, subnqn);
        put_text(&mut e.trsvcid, format_args!("{}", addr.port()));
        put_text(&mut e.traddr, format_args!("{}", addr.ip()));
        e
    }
    /// SUBNQN, when it is a UTF-8 string.
    pub fn subnqn(&self) -> Option<&str> {
        get_str(&self.subnqn)
    }
    /// The TCP address, when TRTYPE is TCP and the text is one.
    pub fn socket_addr(&self) -> Option<core::net::SocketAddr> {
        let ip = get_ascii(&self.traddr).parse().ok()?;
        let port = get_ascii(&self.trsvcid).parse().ok()?;
        (self.trtype == TRTYPE_TCP).then(|| core::net::SocketAddr::new(ip, port))
    }
}

/// Formats into a space-padded field without allocating; an address or port always fits.
fn put_text(field: &mut [u8], text: core::fmt::Arguments<'_>) {
    struct Cursor<'a>(&'a mut [u8]);
    impl core::fmt::Write for Cursor<'_> {
        fn write_str(&mut self, s: &str) -> core::fmt::Result {
            let n = s.len().min(self.0.len());
            let (now, rest) = core::mem::take(&mut self.0).split_at_mut(n);
            now.copy_from_slice(&s.as_bytes()[..n]);
            self.0 = rest;
            Ok(())
        }
    }
    put_ascii(field, "");
    // The cursor's `write_str` never fails.
    let _ = core::fmt::Write::write_fmt(&mut Cursor(field), text);
}
