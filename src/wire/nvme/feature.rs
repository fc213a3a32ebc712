//! Features and asynchronous events (base specification, "Set Features command", "Asynchronous Event Request command").

/// Feature Identifiers.
pub mod fid {
    /// Arbitration.
    pub const ARBITRATION: u8 = 0x01;
    /// Power Management.
    pub const POWER: u8 = 0x02;
    /// Temperature Threshold.
    pub const TEMPERATURE: u8 = 0x04;
    /// Error Recovery.
    pub const ERROR_RECOVERY: u8 = 0x05;
    /// Volatile Write Cache.
    pub const VOLATILE_CACHE: u8 = 0x06;
    /// Number of Queues.
    pub const QUEUES: u8 = 0x07;
    /// Interrupt Coalescing (not for fabrics).
    pub const INTERRUPT_COALESCING: u8 = 0x08;
    /// Interrupt Vector Configuration (not for fabrics).
    pub const INTERRUPT_VECTOR: u8 = 0x09;
    /// Write Atomicity Normal.
    pub const WRITE_ATOMICITY: u8 = 0x0a;
    /// Asynchronous Event Configuration.
    pub const EVENT_CONFIG: u8 = 0x0b;
    /// Keep Alive Timer, milliseconds.
    pub const KEEP_ALIVE: u8 = 0x0f;
    /// Host Behavior Support.
    pub const HOST_BEHAVIOR: u8 = 0x16;
    /// Host Identifier.
    pub const HOST_ID: u8 = 0x81;
}

/// Bits of the Asynchronous Event Configuration feature and of OAES.
pub mod event_config {
    /// SMART / health critical warnings.
    pub const SMART: u32 = 0xff;
    /// Attached Namespace Attribute Notices.
    pub const NAMESPACE: u32 = 1 << 8;
    /// Firmware Activation Notices.
    pub const FIRMWARE: u32 = 1 << 9;
    /// Asymmetric Namespace Access Change Notices.
    pub const ANA: u32 = 1 << 11;
    /// Discovery Log Page Change Notification.
    pub const DISCOVERY: u32 = 1 << 31;
}

/// An asynchronous event: dword 0 of the completion of an Asynchronous Event Request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Asynchronous Event Type: 0 error, 1 SMART, 2 notice, 6 I/O command set, 7 vendor.
    pub kind: u8,
    /// Asynchronous Event Information.
    pub info: u8,
    /// Log Page Identifier to read, which also clears the event.
    pub lid: u8,
}

impl Event {
    /// The set of attached namespaces, or Identify data of one, changed.
    pub const NAMESPACE_CHANGED: Event = Event { kind: 2, info: 0x00, lid: super::log::lid::CHANGED_NAMESPACES };
    /// The discovery log changed.
    pub const DISCOVERY_CHANGED: Event = Event { kind: 2, info: 0xf0, lid: super::log::lid::DISCOVERY };

    /// As dword 0.
    pub const fn dword(self) -> u32 {
        (self.kind & 7) as u32 | (self.info as u32) << 8 | (self.lid as u32) << 16
    }
    /// From dword 0.
    pub const fn of(dword: u32) -> Event {
        Event { kind: dword as u8 & 7, info: (dword >> 8) as u8, lid: (dword >> 16) as u8 }
    }
}

/// Number of Queues: both counts are 0's based on the wire; `(submission, completion)` here are 1 to 65536.
pub fn queue_counts(dword: u32) -> (u32, u32) {
    ((dword & 0xffff) + 1, (dword >> 16) + 1)
}

/// The dword for `(submission, completion)` queue counts of 1 to 65536.
pub fn queue_counts_dword(submission: u32, completion: u32) -> u32 {
    (submission.wrapping_sub(1) & 0xffff) | (completion.wrapping_sub(1) & 0xffff) << 16
}
