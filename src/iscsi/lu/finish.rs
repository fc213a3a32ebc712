//! How a block request's end becomes a command's end: the one place that turns a status into sense data.

use super::{Cx, End, Io, State};
use crate::base::Status;
use crate::mem::{Buf, Pool};
use crate::volume::{Detail, Kind};
use crate::wire::scsi::{Key, Sense, asc};

/// The data that came is shorter than the command needs.
pub(super) const SHORT_DATA: Sense = Sense::illegal(asc::INVALID_FIELD_IN_CDB);

/// MISCOMPARE, and at which byte of the data.
pub(super) fn miscompare(at: u64) -> Sense {
    Sense::new(Key::Miscompare, asc::MISCOMPARE).with_info(at)
}

/// The sense data of a request of `kind` that ended with a failure; `None` for those that are statuses of their own.
pub fn sense(kind: Kind, status: Status, detail: Detail) -> Option<Sense> {
    Some(match status {
        Status::Ok | Status::Busy => return None,
        Status::OutOfRange => Sense::illegal(asc::LBA_OUT_OF_RANGE),
        Status::MediaError if kind.changes() => Sense::new(Key::MediumError, asc::WRITE_ERROR),
        Status::MediaError => Sense::new(Key::MediumError, asc::UNRECOVERED_READ),
        Status::CapacityExceeded => Sense::new(Key::DataProtect, asc::SPACE_ALLOCATION_FAILED),
        Status::CompareMismatch => miscompare(u64::from(detail.differs_at())),
        Status::Gone => Sense::new(Key::HardwareError, asc::INTERNAL_FAILURE),
        Status::Aborted => Sense::new(Key::AbortedCommand, asc::NONE),
        Status::Unsupported => Sense::illegal(asc::INVALID_OPCODE),
        Status::ReadOnly => Sense::new(Key::DataProtect, asc::WRITE_PROTECTED),
    })
}

/// The end of a command that was one [`Io`]. What a Read brought is the command's data; with any failure it goes back.
#[inline]
pub fn finish(state: &State, io: &Io, status: Status, detail: Detail, buf: Option<Buf>, pool: &mut Pool) -> End {
    if status.is_ok() {
        return End { data: buf, ..End::GOOD };
    }
    pool.put_all(buf);
    failed(state, io.kind, status, detail)
}

/// The end of a command one of whose requests failed.
pub(super) fn failed(state: &State, kind: Kind, status: Status, detail: Detail) -> End {
    match sense(kind, status, detail) {
        Some(sense) => End::check(Sense { descriptor: state.descriptor_sense(), ..sense }),
        None => End::BUSY,
    }
}

/// The end of a program whose request failed; what the request brought goes back.
pub(super) fn failed_at(cx: &mut Cx<'_>, kind: Kind, status: Status, detail: Detail, buf: Option<Buf>) -> End {
    cx.pool.put_all(buf);
    failed(cx.state, kind, status, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_sense() {
        let all = [
            (Status::OutOfRange, 0x5, 0x2100),
            (Status::MediaError, 0x3, 0x1100),
            (Status::CapacityExceeded, 0x7, 0x2707),
            (Status::CompareMismatch, 0xe, 0x1d00),
            (Status::Gone, 0x4, 0x4400),
            (Status::Aborted, 0xb, 0x0000),
            (Status::Unsupported, 0x5, 0x2000),
            (Status::ReadOnly, 0x7, 0x2700),
        ];
        for (status, key, asc) in all {
            let sense = sense(Kind::Read, status, Detail::NONE).unwrap();
            assert_eq!((sense.key as u8, sense.asc), (key, asc), "{status:?}");
        }
        assert_eq!(sense(Kind::Write, Status::MediaError, Detail::NONE).unwrap().asc, 0x0c00);
        assert_eq!(sense(Kind::Compare, Status::CompareMismatch, Detail::differing(77)).unwrap().info, Some(77));
        assert!(sense(Kind::Read, Status::Ok, Detail::NONE).is_none());
        assert!(sense(Kind::Read, Status::Busy, Detail::NONE).is_none());
    }
}
