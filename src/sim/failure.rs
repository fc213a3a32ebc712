//! How a run fails: a broken promise of the store, or of the code around it.

use super::oracle::Violation;
use super::sweep::Part;
use crate::base::Status;
use crate::store::StoreError;
use crate::store::format::Addr;
use crate::store::fsck::{Finding, NoStore};
use std::fmt;

/// What went wrong in a run.
#[derive(Clone, PartialEq, Debug)]
pub enum Failure {
    /// A reader or a recovery found what it must not.
    Promise(Violation),
    /// A request ended in a way it must not here.
    Status {
        /// Which request.
        request: &'static str,
        /// How it ended.
        status: Status,
    },
    /// A request ended that nobody made, or twice.
    Stranger(u64),
    /// The slice refused what it wrote itself.
    Refused(StoreError),
    /// The slice died although nothing failed under it.
    Died(StoreError),
    /// Nothing moves any more.
    Stuck {
        /// Requests that wait.
        requests: usize,
        /// Device operations under way.
        operations: usize,
        /// What the slices say of themselves.
        state: String,
    },
    /// The offline checker finds damage where there is none.
    Fsck(Finding),
    /// A decoder takes a block with one bit inverted for a sound one.
    Unnoticed {
        /// What the block is.
        part: Part,
        /// Where it is.
        addr: Addr,
        /// Which byte.
        byte: usize,
        /// Which bit of it.
        bit: u32,
    },
    /// The offline checker finds no store where there is one.
    NoStore(NoStore),
    /// The offline checker finds nothing, although the store refused or could not read something.
    FsckBlind(Option<StoreError>),
    /// Buffers did not come back to the pool.
    Leak {
        /// How many.
        buffers: usize,
    },
    /// An assertion of the store or of the simulated device.
    Panic(String),
}

impl From<Violation> for Failure {
    fn from(v: Violation) -> Failure {
        Failure::Promise(v)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Promise(v) => write!(f, "{v}"),
            Failure::Status { request, status } => write!(f, "a {request} ended with {status:?}"),
            Failure::Stranger(tag) => write!(f, "request {tag} ended, which is not under way"),
            Failure::Refused(e) => write!(f, "the slice does not open: {e}"),
            Failure::Died(e) => write!(f, "the slice died on a healthy device: {e}"),
            Failure::Stuck { requests, operations, state } => {
                write!(f, "nothing moves: {requests} requests and {operations} device operations wait; {state}")
            }
            Failure::Fsck(finding) => write!(f, "fsck finds damage: {finding}"),
            Failure::Unnoticed { part, addr, byte, bit } => {
                write!(f, "bit {bit} of byte {byte} of the {part:?} at block {} may flip unnoticed", addr.0)
            }
            Failure::NoStore(why) => write!(f, "fsck: {why}"),
            Failure::FsckBlind(Some(e)) => write!(f, "fsck finds nothing, the store: {e}"),
            Failure::FsckBlind(None) => write!(f, "fsck finds nothing, the store media errors"),
            Failure::Leak { buffers } => write!(f, "{buffers} buffers did not come back"),
            Failure::Panic(message) => write!(f, "panic: {message}"),
        }
    }
}

impl std::error::Error for Failure {}
