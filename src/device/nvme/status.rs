//! What a command's status means for the operation it belongs to: the one place where NVMe status becomes a
//! [`DeviceError`].

use crate::device::{DeviceError, OpKind};
use crate::wire::nvme::{StatusCode, sc};

/// What to do about a command that did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Submit it again, a little later.
    Retry,
    /// The operation failed.
    Fail(DeviceError),
    /// The namespace is gone: everything fails from now on.
    Dead,
    /// The controller does not do Write Zeroes after all: write them.
    ByHand,
}

/// The verdict on `status`; `dnr`: the controller says that a retry would fail again.
pub fn verdict(kind: OpKind, status: StatusCode, dnr: bool) -> Verdict {
    assert!(!status.is_ok(), "success needs no verdict");
    // After a failed flush nobody knows what is durable.
    if kind == OpKind::Flush && (dnr || !passes(status)) {
        return Verdict::Dead;
    }
    match status {
        sc::INVALID_NAMESPACE => Verdict::Dead,
        sc::INVALID_OPCODE | sc::INVALID_FIELD | sc::SIZE_LIMIT if kind == OpKind::WriteZeroes => Verdict::ByHand,
        sc::INVALID_OPCODE | sc::INVALID_FIELD | sc::SIZE_LIMIT if kind == OpKind::Discard => {
            Verdict::Fail(DeviceError::Unsupported)
        }
        sc::INVALID_OPCODE | sc::WRITE_PROTECTED | READ_ONLY_RANGE => Verdict::Fail(DeviceError::Unsupported),
        sc::CAPACITY_EXCEEDED => Verdict::Fail(DeviceError::NoSpace),
        _ if !dnr && passes(status) => Verdict::Retry,
        _ => Verdict::Fail(DeviceError::Media),
    }
}

/// Command specific: Attempted Write to Read Only Range.
const READ_ONLY_RANGE: StatusCode = StatusCode::new(1, 0x82);

/// Conditions that pass: the command itself was in order, and the medium did not fail it.
fn passes(status: StatusCode) -> bool {
    let transient = [
        sc::DATA_TRANSFER_ERROR,
        sc::INTERNAL_ERROR,
        sc::ABORT_REQUESTED,
        sc::ABORTED_SQ_DELETION,
        sc::INTERRUPTED,
        sc::TRANSIENT_TRANSPORT,
        sc::NAMESPACE_NOT_READY,
    ];
    // Path related (SCT 3h) means another try, on this path or another.
    transient.contains(&status) || status.sct() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_meaning() {
        use OpKind::{Discard, Flush, Read, Write, WriteZeroes};
        let of = |kind, status| verdict(kind, status, false);
        assert_eq!(of(Read, sc::UNRECOVERED_READ), Verdict::Fail(DeviceError::Media));
        assert_eq!(of(Write, sc::WRITE_FAULT), Verdict::Fail(DeviceError::Media));
        assert_eq!(of(Write, sc::CAPACITY_EXCEEDED), Verdict::Fail(DeviceError::NoSpace));
        assert_eq!(of(Write, sc::WRITE_PROTECTED), Verdict::Fail(DeviceError::Unsupported));
        assert_eq!(of(Read, sc::INTERRUPTED), Verdict::Retry);
        assert_eq!(of(Read, sc::INTERNAL_PATH), Verdict::Retry);
        assert_eq!(verdict(Read, sc::INTERNAL_ERROR, true), Verdict::Fail(DeviceError::Media));
        assert_eq!(of(WriteZeroes, sc::INVALID_FIELD), Verdict::ByHand);
        assert_eq!(of(Discard, sc::INVALID_FIELD), Verdict::Fail(DeviceError::Unsupported));
        assert_eq!(of(Write, sc::INVALID_FIELD), Verdict::Fail(DeviceError::Media));
        assert_eq!(of(Read, sc::INVALID_NAMESPACE), Verdict::Dead);
        // A flush that failed for good is the end; one that was only put off is not.
        assert_eq!(of(Flush, sc::WRITE_FAULT), Verdict::Dead);
        assert_eq!(of(Flush, sc::INVALID_FIELD), Verdict::Dead);
        assert_eq!(of(Flush, sc::ABORT_REQUESTED), Verdict::Retry);
        assert_eq!(verdict(Flush, sc::INTERRUPTED, true), Verdict::Dead);
        for word in 1..0x800u16 {
            for kind in OpKind::ALL {
                let status = StatusCode::from_field(word << 1);
                assert!(verdict(kind, status, true) != Verdict::Retry, "{status:?}");
            }
        }
    }
}
