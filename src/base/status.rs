//! How a block request ended: the one vocabulary between `device`, `store`, `volume` and both targets. Each protocol
//! computes its own status from it in exactly one function.

/// The end of a block request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Done, and durable where durability was asked or promised.
    Ok,
    /// First LBA + count is past the end of the volume.
    OutOfRange,
    /// The media failed, or data did not match its checksum and no good copy exists.
    MediaError,
    /// The thin pool behind the volume has no space left; reads go on.
    CapacityExceeded,
    /// Compare found different data.
    CompareMismatch,
    /// The volume went away or its device is dead (fail-stop).
    Gone,
    /// A named limit was reached; the same request may succeed later.
    Busy,
    /// The request was aborted before it took effect.
    Aborted,
    /// The volume cannot do this kind of request.
    Unsupported,
    /// The volume is write protected.
    ReadOnly,
}

impl Status {
    /// True for [`Status::Ok`].
    pub fn is_ok(self) -> bool {
        self == Status::Ok
    }
    /// The first failure of two parts of one request wins.
    #[must_use]
    pub fn and(self, other: Status) -> Status {
        if self.is_ok() { other } else { self }
    }
}
