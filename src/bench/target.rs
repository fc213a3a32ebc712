//! What the load generator drives: anything that takes block requests and reports how they ended. Implemented by the
//! initiators of both protocols, by a device's queue and by a slice of the log store; the engine above knows only this trait.
//!
//! What stays true: a request that was accepted is reported exactly once, also when the connection behind it breaks;
//! a buffer handed over with a request goes back to [`Target::pool`] by itself, except a read's, which comes with the
//! completion.

use crate::base::{Status, Time};
use crate::mem::{Buf, Pool};

/// Shape and identity of what is under test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// Bytes per logical block: 512 or 4096; what is written whole or not at all.
    pub block_size: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Largest single request, bytes.
    pub io_bytes_max: u32,
    /// Requests that may be under way at once.
    pub depth: u32,
    /// Where the bytes are, for people: an URL or a device spec.
    pub name: String,
    /// Which medium this is, the same in every run and over every path (from the namespace's UUID or NGUID where it
    /// has one): the "volume" that verify mode writes into every block.
    pub identity: u64,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Blocks to memory.
    Read,
    /// Memory to blocks.
    Write,
    /// Everything completed before is durable.
    Flush,
}

/// One request. `lba` and `blocks` count logical blocks ([`About::block_size`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What to do.
    pub kind: Kind,
    /// First logical block.
    pub lba: u64,
    /// How many; 0 only for Flush.
    pub blocks: u32,
    /// The engine's name for it, below [`About::depth`]; free again once completed. It also chooses the path: requests
    /// of equal `slot` modulo the number of paths use the same connection.
    pub slot: u32,
    /// A Read's bytes are wanted; otherwise they may be dropped where they arrive.
    pub want_data: bool,
}

/// Why a request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The target answered with this status.
    #[error("{0:?}")]
    Status(Status),
    /// The target answered with an NVMe status outside the shared vocabulary: code type and code.
    #[error("NVMe status {0:x}h/{1:02x}h")]
    Nvme(u8, u8),
    /// The target answered with a SCSI status outside the shared vocabulary: status, sense key, additional sense code.
    #[error("SCSI status {0:02x}h, sense {1:x}h/{2:04x}h")]
    Scsi(u8, u8, u16),
    /// The connection ended before an answer came: a write may or may not have happened.
    #[error("connection lost")]
    Lost,
    /// No answer within the command timeout: a write may or may not have happened.
    #[error("no answer in time")]
    TimedOut,
    /// The answer's data digest does not match its data.
    #[error("data digest error")]
    Digest,
}

/// The end of a request.
#[derive(Debug)]
pub struct Completed {
    /// [`Request::slot`].
    pub slot: u32,
    /// How it ended.
    pub result: Result<(), Fault>,
    /// A successful Read's data when it was wanted, exactly the requested bytes; goes back to [`Target::pool`].
    pub buf: Option<Buf>,
}

/// The target is gone for good; everything under way was reported before.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Dead(pub String);

/// A thing under load.
pub trait Target {
    /// Shape and identity.
    fn about(&self) -> &About;
    /// Where a Write's buffer comes from and a Read's goes to. Has a buffer for every request of the depth.
    fn pool(&mut self) -> &mut Pool;
    /// Queues a request; `payload` holds exactly a Write's bytes. Handed back when it cannot be taken now (path down or
    /// full): try again after a poll.
    ///
    /// # Errors
    /// The payload, untouched.
    fn submit(&mut self, request: Request, payload: Option<Buf>) -> Result<(), Option<Buf>>;
    /// Sends everything queued since the last call, in as few system calls as it takes.
    fn kick(&mut self, now: Time);
    /// Receives; reports ended requests into `done`.
    ///
    /// # Errors
    /// [`Dead`] once nothing can be submitted any more.
    fn poll(&mut self, now: Time, done: &mut Vec<Completed>) -> Result<(), Dead>;
    /// Figures of its own for the report, at the end of a run.
    fn figures(&self) -> Option<serde_json::Value> {
        None
    }
    /// The same for people, a line each.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<T: Target> Target for &mut T {
    fn about(&self) -> &About {
        (**self).about()
    }
    fn pool(&mut self) -> &mut Pool {
        (**self).pool()
    }
    fn submit(&mut self, request: Request, payload: Option<Buf>) -> Result<(), Option<Buf>> {
        (**self).submit(request, payload)
    }
    fn kick(&mut self, now: Time) {
        (**self).kick(now);
    }
    fn poll(&mut self, now: Time, done: &mut Vec<Completed>) -> Result<(), Dead> {
        (**self).poll(now, done)
    }
    fn figures(&self) -> Option<serde_json::Value> {
        (**self).figures()
    }
    fn notes(&self) -> Vec<String> {
        (**self).notes()
    }
}

/// A 64-bit name for a byte string, equal in every run and on every machine (FNV-1a with a final mix); used for
/// [`About::identity`].
pub fn identity_of(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::identity_of;

    #[test]
    fn identity_is_stable_and_tells_names_apart() {
        assert_eq!(identity_of(b"ram:64m"), identity_of(b"ram:64m"));
        assert_ne!(identity_of(b"ram:64m"), identity_of(b"ram:65m"));
        assert_ne!(identity_of(b""), 0);
    }
}
