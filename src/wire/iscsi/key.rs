//! The text keys of RFC 7143 (section 13, and 12.1 for authentication) and of RFC 7144.

/// Declares the keys with their names.
macro_rules! keys {
    ($($(#[$doc:meta])* $variant:ident = $name:expr),+ $(,)?) => {
        /// A key that iSCSI defines. The discriminants are small and dense, so that a bit set of keys fits a `u64`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Key {
            $($(#[$doc])* $variant),+
        }
        impl Key {
            /// Every key.
            pub const ALL: &[Key] = &[$(Key::$variant),+];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Key::$variant => $name),+
                }
            }
            /// The key of this name; names are case-sensitive.
            pub fn of(name: &str) -> Option<Key> {
                match name {
                    $($name => Some(Key::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

keys! {
    /// Authentication methods, in the initiator's order of preference.
    AuthMethod = "AuthMethod",
    /// CHAP algorithms, or the chosen one.
    ChapA = "CHAP_A",
    /// CHAP identifier.
    ChapI = "CHAP_I",
    /// CHAP challenge.
    ChapC = "CHAP_C",
    /// CHAP user name.
    ChapN = "CHAP_N",
    /// CHAP response.
    ChapR = "CHAP_R",
    /// Header digests, in the order of preference.
    HeaderDigest = "HeaderDigest",
    /// Data digests, in the order of preference.
    DataDigest = "DataDigest",
    /// Most connections of a session.
    MaxConnections = "MaxConnections",
    /// Text command: which targets are there.
    SendTargets = "SendTargets",
    /// Name of the target.
    TargetName = "TargetName",
    /// Name of the initiator.
    InitiatorName = "InitiatorName",
    /// Text for people about the target.
    TargetAlias = "TargetAlias",
    /// Text for people about the initiator.
    InitiatorAlias = "InitiatorAlias",
    /// Where a target is: `address[:port][,portal group tag]`.
    TargetAddress = "TargetAddress",
    /// The portal group of the portal that the initiator came to.
    TargetPortalGroupTag = "TargetPortalGroupTag",
    /// No unsolicited Data-Out when either side says Yes.
    InitialR2t = "InitialR2T",
    /// Data may be in the command PDU when both sides say Yes.
    ImmediateData = "ImmediateData",
    /// Largest data segment that the side that says so receives, bytes.
    MaxRecvDataSegmentLength = "MaxRecvDataSegmentLength",
    /// Largest solicited burst, bytes.
    MaxBurstLength = "MaxBurstLength",
    /// Largest unsolicited burst, immediate data included, bytes.
    FirstBurstLength = "FirstBurstLength",
    /// Seconds to wait before a reconnect.
    DefaultTime2Wait = "DefaultTime2Wait",
    /// Seconds that tasks are kept behind that.
    DefaultTime2Retain = "DefaultTime2Retain",
    /// Most R2Ts of a command at once.
    MaxOutstandingR2t = "MaxOutstandingR2T",
    /// PDUs of a sequence come in order when either side says Yes.
    DataPduInOrder = "DataPDUInOrder",
    /// Sequences come in order when either side says Yes.
    DataSequenceInOrder = "DataSequenceInOrder",
    /// Recovery hierarchy: 0, 1 or 2.
    ErrorRecoveryLevel = "ErrorRecoveryLevel",
    /// `Normal` or `Discovery`.
    SessionType = "SessionType",
    /// Which later RFCs are spoken.
    ProtocolLevel = "iSCSIProtocolLevel",
    /// RFC 7143 13.26 (was: task reporting of RFC 5048).
    TaskReporting = "TaskReporting",
    /// Node architecture, for people.
    NodeArchitecture = "X#NodeArchitecture",
    /// Obsolete markers, to be answered with `No` or `Reject`: initiator to target.
    IfMarker = "IFMarker",
    /// Obsolete markers: target to initiator.
    OfMarker = "OFMarker",
    /// Obsolete marker interval.
    IfMarkInt = "IFMarkInt",
    /// Obsolete marker interval.
    OfMarkInt = "OFMarkInt",
}

const _: () = assert!(Key::ALL.len() <= 64);
