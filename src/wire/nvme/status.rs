//! Completion status: Status Code Type and Status Code, and the Status field that carries them (base specification,
//! "Status Field Definition").

/// A status code with its type: SCT in bits 10:8, SC in bits 7:0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusCode(u16);

impl StatusCode {
    /// Status Code Type `sct` (0 to 7) and Status Code `sc`.
    pub const fn new(sct: u8, sc: u8) -> StatusCode {
        StatusCode(((sct & 7) as u16) << 8 | sc as u16)
    }
    /// SCT: 0 generic, 1 command specific, 2 media and data integrity, 3 path, 7 vendor.
    pub const fn sct(self) -> u8 {
        (self.0 >> 8) as u8
    }
    /// SC.
    pub const fn sc(self) -> u8 {
        self.0 as u8
    }
    /// True for Successful Completion.
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }
    /// The 16-bit status word of a completion, Do Not Retry set if `dnr`; the phase tag is 0, as fabrics require.
    pub const fn field(self, dnr: bool) -> u16 {
        self.0 << 1 | (dnr as u16) << 15
    }
    /// From the status word of a completion.
    pub const fn from_field(field: u16) -> StatusCode {
        StatusCode(field >> 1 & 0x7ff)
    }
}

impl core::fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:x}/{:02x}h", self.sct(), self.sc())
    }
}

/// The status codes this project sends or tells apart, by their names in the specifications.
pub mod sc {
    use super::StatusCode as S;

    /// Successful Completion.
    pub const SUCCESS: S = S::new(0, 0x00);
    /// Invalid Command Opcode.
    pub const INVALID_OPCODE: S = S::new(0, 0x01);
    /// Invalid Field in Command.
    pub const INVALID_FIELD: S = S::new(0, 0x02);
    /// Command ID Conflict.
    pub const CID_CONFLICT: S = S::new(0, 0x03);
    /// Data Transfer Error.
    pub const DATA_TRANSFER_ERROR: S = S::new(0, 0x04);
    /// Internal Error.
    pub const INTERNAL_ERROR: S = S::new(0, 0x06);
    /// Command Abort Requested.
    pub const ABORT_REQUESTED: S = S::new(0, 0x07);
    /// Command Aborted due to SQ Deletion.
    pub const ABORTED_SQ_DELETION: S = S::new(0, 0x08);
    /// Command Aborted due to Failed Fused Command.
    pub const ABORTED_FAILED_FUSED: S = S::new(0, 0x09);
    /// Command Aborted due to Missing Fused Command.
    pub const ABORTED_MISSING_FUSED: S = S::new(0, 0x0a);
    /// Invalid Namespace or Format.
    pub const INVALID_NAMESPACE: S = S::new(0, 0x0b);
    /// Command Sequence Error.
    pub const SEQUENCE_ERROR: S = S::new(0, 0x0c);
    /// Invalid Number of SGL Descriptors.
    pub const INVALID_SGL_COUNT: S = S::new(0, 0x0e);
    /// Data SGL Length Invalid.
    pub const SGL_LENGTH_INVALID: S = S::new(0, 0x0f);
    /// SGL Descriptor Type Invalid.
    pub const SGL_TYPE_INVALID: S = S::new(0, 0x11);
    /// SGL Offset Invalid.
    pub const SGL_OFFSET_INVALID: S = S::new(0, 0x16);
    /// Operation Denied.
    pub const OPERATION_DENIED: S = S::new(0, 0x15);
    /// Host Identifier Inconsistent Format.
    pub const HOSTID_INCONSISTENT: S = S::new(0, 0x18);
    /// Keep Alive Timer Expired.
    pub const KEEP_ALIVE_EXPIRED: S = S::new(0, 0x19);
    /// Keep Alive Timeout Invalid.
    pub const KEEP_ALIVE_INVALID: S = S::new(0, 0x1a);
    /// Namespace is Write Protected.
    pub const WRITE_PROTECTED: S = S::new(0, 0x20);
    /// Command Interrupted: retry may succeed.
    pub const INTERRUPTED: S = S::new(0, 0x21);
    /// Transient Transport Error.
    pub const TRANSIENT_TRANSPORT: S = S::new(0, 0x22);
    /// LBA Out of Range.
    pub const LBA_OUT_OF_RANGE: S = S::new(0, 0x80);
    /// Capacity Exceeded.
    pub const CAPACITY_EXCEEDED: S = S::new(0, 0x81);
    /// Namespace Not Ready.
    pub const NAMESPACE_NOT_READY: S = S::new(0, 0x82);
    /// Reservation Conflict.
    pub const RESERVATION_CONFLICT: S = S::new(0, 0x83);
    /// Command specific: Invalid Queue Identifier.
    pub const INVALID_QUEUE_ID: S = S::new(1, 0x01);
    /// Command specific: Abort Command Limit Exceeded.
    pub const ABORT_LIMIT: S = S::new(1, 0x03);
    /// Command specific: Asynchronous Event Request Limit Exceeded.
    pub const AER_LIMIT: S = S::new(1, 0x05);
    /// Command specific: Invalid Log Page.
    pub const INVALID_LOG_PAGE: S = S::new(1, 0x09);
    /// Command specific: Feature Identifier Not Saveable.
    pub const FEATURE_NOT_SAVEABLE: S = S::new(1, 0x0d);
    /// Command specific: Feature Not Changeable.
    pub const FEATURE_NOT_CHANGEABLE: S = S::new(1, 0x0e);
    /// Command specific: Feature Not Namespace Specific.
    pub const FEATURE_NOT_PER_NAMESPACE: S = S::new(1, 0x0f);
    /// Command specific (I/O): Command Size Limit Exceeded.
    pub const SIZE_LIMIT: S = S::new(1, 0x83);
    /// Connect: Incompatible Format.
    pub const CONNECT_FORMAT: S = S::new(1, 0x80);
    /// Connect: Controller Busy.
    pub const CONNECT_BUSY: S = S::new(1, 0x81);
    /// Connect: Invalid Parameters.
    pub const CONNECT_INVALID: S = S::new(1, 0x82);
    /// Connect: Restart Discovery.
    pub const CONNECT_RESTART_DISCOVERY: S = S::new(1, 0x83);
    /// Connect: Invalid Host.
    pub const CONNECT_INVALID_HOST: S = S::new(1, 0x84);
    /// Connect, Disconnect: Invalid Queue Type.
    pub const INVALID_QUEUE_TYPE: S = S::new(1, 0x85);
    /// Fabrics: Discover Restart.
    pub const DISCOVER_RESTART: S = S::new(1, 0x90);
    /// Fabrics: Authentication Required.
    pub const AUTH_REQUIRED: S = S::new(1, 0x91);
    /// Media: Write Fault.
    pub const WRITE_FAULT: S = S::new(2, 0x80);
    /// Media: Unrecovered Read Error.
    pub const UNRECOVERED_READ: S = S::new(2, 0x81);
    /// Media: Compare Failure.
    pub const COMPARE_FAILURE: S = S::new(2, 0x85);
    /// Media: Access Denied.
    pub const ACCESS_DENIED: S = S::new(2, 0x86);
    /// Path: Internal Path Error.
    pub const INTERNAL_PATH: S = S::new(3, 0x00);
}
