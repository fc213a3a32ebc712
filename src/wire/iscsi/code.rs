//! The code points of RFC 7143: opcodes, reasons, events, functions and their answers, login status. Every enum has
//! its wire value as discriminant and `of` to read one.

/// Declares an enum over wire values with `ALL` and `of`.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident: $int:ty { $($(#[$vdoc:meta])* $variant:ident = $value:expr),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr($int)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $value),+
        }
        impl $name {
            /// Every code point.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The code point with this wire value.
            #[inline]
            pub const fn of(value: $int) -> Option<$name> {
                match value {
                    $(v if v == $value => Some($name::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Opcodes (11.2.1.2): the low 6 bits of a header's first byte.
    Opcode: u8 {
        /// NOP-Out, initiator.
        NopOut = 0x00,
        /// SCSI Command, initiator.
        ScsiCommand = 0x01,
        /// SCSI Task Management Function Request, initiator.
        TaskRequest = 0x02,
        /// Login Request, initiator.
        LoginRequest = 0x03,
        /// Text Request, initiator.
        TextRequest = 0x04,
        /// SCSI Data-Out, initiator.
        DataOut = 0x05,
        /// Logout Request, initiator.
        LogoutRequest = 0x06,
        /// SNACK Request, initiator.
        Snack = 0x10,
        /// NOP-In, target.
        NopIn = 0x20,
        /// SCSI Response, target.
        ScsiResponse = 0x21,
        /// SCSI Task Management Function Response, target.
        TaskResponse = 0x22,
        /// Login Response, target.
        LoginResponse = 0x23,
        /// Text Response, target.
        TextResponse = 0x24,
        /// SCSI Data-In, target.
        DataIn = 0x25,
        /// Logout Response, target.
        LogoutResponse = 0x26,
        /// Ready To Transfer, target.
        R2t = 0x31,
        /// Asynchronous Message, target.
        AsyncMessage = 0x32,
        /// Reject, target.
        Reject = 0x3f,
    }
}

impl Opcode {
    /// Bit 6 of a header's first byte: the request is for immediate delivery (initiator opcodes only).
    pub const IMMEDIATE: u8 = 0x40;
    /// The bits of a header's first byte that hold the opcode.
    pub const MASK: u8 = 0x3f;

    /// True for the opcodes that initiators send.
    #[inline]
    pub const fn from_initiator(self) -> bool {
        (self as u8) < 0x20
    }
}

codes! {
    /// Why a target rejects a PDU (11.17.1).
    RejectReason: u8 {
        /// The data digest did not match.
        DataDigest = 0x02,
        /// The SNACK can not be honoured.
        Snack = 0x03,
        /// Protocol error: the PDU may not come here or says what was not agreed.
        Protocol = 0x04,
        /// The opcode is not supported.
        NotSupported = 0x05,
        /// Too many immediate commands.
        TooManyImmediate = 0x06,
        /// The task named by the tag is in progress.
        TaskInProgress = 0x07,
        /// Invalid data acknowledgement.
        InvalidDataAck = 0x08,
        /// A field of the PDU is invalid.
        InvalidField = 0x09,
        /// Long operation: no target transfer tag to be had.
        LongOperation = 0x0a,
        /// Waiting for logout.
        WaitingForLogout = 0x0c,
    }
}

codes! {
    /// What an asynchronous message tells (11.9.1).
    AsyncEvent: u8 {
        /// A SCSI asynchronous event with sense data.
        Scsi = 0,
        /// The target asks for logout; Parameter3 = seconds to do so.
        LogoutRequested = 1,
        /// The target will drop the connection Parameter1; Parameter2/3 = seconds to wait and to retain.
        ConnectionDropped = 2,
        /// The target will drop every connection of the session.
        SessionDropped = 3,
        /// The target asks for parameter negotiation; Parameter3 = seconds to do so.
        NegotiationRequested = 4,
        /// All active tasks of the logical unit are being terminated.
        TasksTerminated = 5,
        /// Vendor specific.
        Vendor = 255,
    }
}

codes! {
    /// Task management functions (11.5.1).
    TaskFunction: u8 {
        /// ABORT TASK: the one named by the referenced task tag.
        AbortTask = 1,
        /// ABORT TASK SET: all of this session's tasks on the logical unit.
        AbortTaskSet = 2,
        /// CLEAR ACA.
        ClearAca = 3,
        /// CLEAR TASK SET: all tasks of the task set, of every session.
        ClearTaskSet = 4,
        /// LOGICAL UNIT RESET.
        LogicalUnitReset = 5,
        /// TARGET WARM RESET.
        TargetWarmReset = 6,
        /// TARGET COLD RESET: and drop every connection.
        TargetColdReset = 7,
        /// TASK REASSIGN: a task of a lost connection moves to this one (`ErrorRecoveryLevel` 2).
        TaskReassign = 8,
    }
}

codes! {
    /// Answers to task management functions (11.6.1).
    TaskAnswer: u8 {
        /// Function complete.
        Complete = 0,
        /// The task does not exist.
        NoTask = 1,
        /// The logical unit does not exist.
        NoLun = 2,
        /// The task is still allegiant to its connection.
        StillAllegiant = 3,
        /// Task allegiance reassignment is not supported.
        NoReassign = 4,
        /// The function is not supported.
        NotSupported = 5,
        /// Not authorized.
        NotAuthorized = 6,
        /// Rejected.
        Rejected = 255,
    }
}

codes! {
    /// What a logout closes (11.14.1).
    LogoutReason: u8 {
        /// The session with all its connections.
        CloseSession = 0,
        /// The connection named by CID.
        CloseConnection = 1,
        /// The connection named by CID, to recover its tasks.
        RemoveForRecovery = 2,
    }
}

codes! {
    /// Answers to a logout (11.15.1).
    LogoutAnswer: u8 {
        /// Closed.
        Closed = 0,
        /// The CID was not found.
        NoConnection = 1,
        /// Connection recovery is not supported.
        NoRecovery = 2,
        /// Cleanup failed.
        CleanupFailed = 3,
    }
}

codes! {
    /// Kinds of SNACK (11.16.1).
    SnackType: u8 {
        /// Data or R2T: send the run again.
        DataOrR2t = 0,
        /// Status: send the responses of the run again.
        Status = 1,
        /// Data acknowledgement: the run has arrived.
        DataAck = 2,
        /// R-Data: send the data again, cut anew.
        RData = 3,
    }
}

codes! {
    /// Stages of a login (11.12.3): the CSG and NSG fields.
    Stage: u8 {
        /// Security negotiation.
        Security = 0,
        /// Login operational negotiation.
        Operational = 1,
        /// Full feature phase.
        FullFeature = 3,
    }
}

codes! {
    /// Status-Class (high byte) and Status-Detail (low byte) of a login response (11.13.5).
    LoginStatus: u16 {
        /// Login is proceeding or done.
        Success = 0x0000,
        /// The target moved temporarily; `TargetAddress` says where to.
        MovedTemporarily = 0x0101,
        /// The target moved for good; `TargetAddress` says where to.
        MovedPermanently = 0x0102,
        /// Initiator error of no closer kind.
        InitiatorError = 0x0200,
        /// Authentication failed.
        AuthenticationFailed = 0x0201,
        /// This initiator may not use the target.
        AuthorizationFailed = 0x0202,
        /// No such target.
        NotFound = 0x0203,
        /// The target was removed.
        Removed = 0x0204,
        /// No common protocol version.
        Version = 0x0205,
        /// Too many connections in the session.
        TooManyConnections = 0x0206,
        /// A required key is missing.
        MissingParameter = 0x0207,
        /// The connection can not be in this session.
        CantInclude = 0x0208,
        /// The session type is not supported.
        SessionType = 0x0209,
        /// No such session.
        NoSession = 0x020a,
        /// The request is not valid during login.
        InvalidRequest = 0x020b,
        /// Target error of no closer kind.
        TargetError = 0x0300,
        /// The service is not available at the moment.
        Unavailable = 0x0301,
        /// Out of resources.
        OutOfResources = 0x0302,
    }
}

impl LoginStatus {
    /// Status-Class.
    #[inline]
    pub const fn class(self) -> u8 {
        (self as u16 >> 8) as u8
    }
    /// Status-Detail.
    #[inline]
    pub const fn detail(self) -> u8 {
        (self as u16 & 0xff) as u8
    }
}
