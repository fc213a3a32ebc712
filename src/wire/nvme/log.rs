//! Log pages (base specification, "Get Log Page command").

use crate::wire::layout;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Log Page Identifiers.
pub mod lid {
    /// Supported Log Pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Error Information.
    pub const ERROR: u8 = 0x01;
    /// SMART / Health Information.
    pub const SMART: u8 = 0x02;
    /// Firmware Slot Information.
    pub const FIRMWARE: u8 = 0x03;
    /// Changed Attached Namespace List.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands Supported and Effects.
    pub const EFFECTS: u8 = 0x05;
    /// Asymmetric Namespace Access.
    pub const ANA: u8 = 0x0c;
    /// Feature Identifiers Supported and Effects.
    pub const FEATURE_EFFECTS: u8 = 0x12;
    /// Discovery.
    pub const DISCOVERY: u8 = 0x70;
    /// Reservation Notification.
    pub const RESERVATION: u8 = 0x80;
}

/// Error Information entry (log 01h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ErrorEntry {
    /// Error Count: a number that grows with each error; 0 marks an unused entry.
    pub count: U64,
    /// SQID.
    pub sqid: U16,
    /// CID.
    pub cid: U16,
    /// Status word of the completion.
    pub status: U16,
    /// Byte (bits 7:0) and bit (bits 10:8) of the command parameter at fault; FFFFh unknown.
    pub location: U16,
    /// First LBA in error.
    pub lba: U64,
    /// NSID.
    pub nsid: U32,
    /// Vendor log page with more; 0 none.
    pub vendor: u8,
    /// TRTYPE.
    pub trtype: u8,
    /// CSI and opcode of the failed command.
    pub reserved30: [u8; 2],
    /// Command specific.
    pub specific: U64,
    /// Transport specific.
    pub transport: U16,
    /// Reserved.
    pub reserved42: [u8; 22],
}
layout!(ErrorEntry, 64, sqid @ 8, cid @ 10, status @ 12, location @ 14, lba @ 16, nsid @ 24, vendor @ 28,
    trtype @ 29, specific @ 32, transport @ 40);

/// SMART / Health Information (log 02h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Smart {
    /// Critical Warning bits.
    pub critical: u8,
    /// Composite Temperature, Kelvin.
    pub temperature: U16,
    /// Available Spare, percent.
    pub spare: u8,
    /// Available Spare Threshold, percent.
    pub spare_threshold: u8,
    /// Percentage Used.
    pub used: u8,
    /// Endurance Group Critical Warning Summary and reserved.
    pub reserved6: [u8; 26],
    /// Data Units Read: thousands of 512-byte units.
    pub units_read: U128,
    /// Data Units Written: thousands of 512-byte units.
    pub units_written: U128,
    /// Host Read Commands.
    pub reads: U128,
    /// Host Write Commands.
    pub writes: U128,
    /// Controller Busy Time, minutes.
    pub busy_minutes: U128,
    /// Power Cycles.
    pub power_cycles: U128,
    /// Power On Hours.
    pub power_on_hours: U128,
    /// Unsafe Shutdowns.
    pub unsafe_shutdowns: U128,
    /// Media and Data Integrity Errors.
    pub media_errors: U128,
    /// Number of Error Information Log Entries over the life of the controller.
    pub error_entries: U128,
    /// Warning Composite Temperature Time, minutes.
    pub warning_minutes: U32,
    /// Critical Composite Temperature Time, minutes.
    pub critical_minutes: U32,
    /// Temperature Sensors 1 to 8, Kelvin.
    pub sensors: [U16; 8],
    /// Thermal management counters and reserved.
    pub reserved216: [u8; 296],
}
layout!(Smart, 512, temperature @ 1, spare @ 3, units_read @ 32, units_written @ 48, reads @ 64, writes @ 80,
    busy_minutes @ 96, power_cycles @ 112, power_on_hours @ 128, unsafe_shutdowns @ 144, media_errors @ 160,
    error_entries @ 176, warning_minutes @ 192, sensors @ 200);

/// Firmware Slot Information (log 03h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FirmwareSlots {
    /// AFI: active slot, bits 2:0.
    pub active: u8,
    /// Reserved.
    pub reserved1: [u8; 7],
    /// FRS1 to FRS7: revisions, ASCII.
    pub revisions: [[u8; 8]; 7],
    /// Reserved.
    pub reserved64: [u8; 448],
}
layout!(FirmwareSlots, 512, revisions @ 8);

/// Commands Supported and Effects (log 05h): one dword per opcode.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Effects {
    /// ACS: admin commands.
    pub admin: [U32; 256],
    /// IOCS: I/O commands.
    pub io: [U32; 256],
    /// Reserved.
    pub reserved: [u8; 2048],
}
layout!(Effects, 4096, io @ 1024);

/// CSUPP: the command is supported.
pub const EFFECT_SUPPORTED: u32 = 1 << 0;
/// LBCC: logical block content may change.
pub const EFFECT_CONTENT: u32 = 1 << 1;

/// Supported Log Pages (log 00h): one dword per LID; bit 0 says supported.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SupportedPages {
    /// LIDS0 to LIDS255.
    pub lids: [U32; 256],
}
layout!(SupportedPages, 1024);
