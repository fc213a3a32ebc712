//! The one place where the end of a block request becomes an NVMe status.

use crate::base::Status;
use crate::volume::Kind;
use crate::wire::nvme::{StatusCode, sc};

/// The status word of the completion of a `kind` request that ended with `status`. Do Not Retry is set where the same
/// command can not succeed later by itself.
pub(super) fn word(kind: Kind, status: Status) -> u16 {
    let (code, dnr): (StatusCode, bool) = match status {
        Status::Ok => return 0,
        Status::OutOfRange => (sc::LBA_OUT_OF_RANGE, true),
        Status::MediaError if kind == Kind::Read || kind == Kind::Compare => (sc::UNRECOVERED_READ, true),
        Status::MediaError => (sc::WRITE_FAULT, true),
        Status::CapacityExceeded => (sc::CAPACITY_EXCEEDED, true),
        Status::CompareMismatch => (sc::COMPARE_FAILURE, true),
        Status::Gone => (sc::INTERNAL_ERROR, true),
        Status::Busy => (sc::INTERRUPTED, false),
        Status::Aborted => (sc::ABORT_REQUESTED, false),
        Status::Unsupported => (sc::INVALID_OPCODE, true),
        Status::ReadOnly => (sc::WRITE_PROTECTED, true),
    };
    code.field(dnr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_word() {
        let all = [
            (Status::Ok, 0x0000),
            (Status::OutOfRange, 0x8100),
            (Status::MediaError, 0x8502),
            (Status::CapacityExceeded, 0x8102),
            (Status::CompareMismatch, 0x850a),
            (Status::Gone, 0x800c),
            (Status::Busy, 0x0042),
            (Status::Aborted, 0x000e),
            (Status::Unsupported, 0x8002),
            (Status::ReadOnly, 0x8040),
        ];
        for (status, want) in all {
            assert_eq!(word(Kind::Read, status), want, "{status:?}");
        }
        assert_eq!(word(Kind::Write, Status::MediaError), 0x8500);
    }
}
