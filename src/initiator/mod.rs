//! The client side of the block protocols, for the load generator, for tests and later for imports: [`nvme`] speaks
//! NVMe/TCP, [`iscsi`] speaks iSCSI, and a caller that only wants blocks sees a [`Client`] in either.
//!
//! Sans-I/O: bytes come and go through a [`crate::net::Net`], time is an argument. A client is the
//! [`crate::net::Handler`] of its net. A caller's turn is [`Client::poll`], [`Client::submit`] as often as it likes,
//! [`Client::kick`]; ended commands are taken from [`Client::ended`].
//!
//! What stays true: every command accepted is reported exactly once, also when its connection breaks; no buffer is
//! lost; a target that breaks the protocol harms only its own client.

mod authority;
pub mod iscsi;
mod links;
pub mod nvme;
pub mod url;

use crate::base::Time;
use crate::mem::{Buf, Pool};
use crate::net::{Handler, Net};
use crate::wire::nvme::StatusCode;

/// Where a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Being made, or made again after a loss.
    Connecting,
    /// Commands are taken.
    Ready,
    /// Over; [`Client::why`] says why.
    Failed,
}

/// What is behind a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Bytes per logical block: 512 or 4096.
    pub block_size: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Largest single command, bytes.
    pub io_bytes_max: u32,
    /// What names the medium in every run and over every path: its UUID where it has one, whatever the protocol.
    pub identity: Vec<u8>,
}

/// A connection, or several, to one volume.
pub trait Client: Handler {
    /// Where the client is.
    fn state(&self) -> State;
    /// Why it failed, for people.
    fn why(&self) -> Option<String>;
    /// What is behind it, once [`State::Ready`] was reached for the first time.
    fn disk(&self) -> Option<Disk>;
    /// Starts a command; `payload` holds exactly the bytes of a Write or Compare. Handed back when it can not be taken
    /// now: not ready, the connection's queue is full, or `pool` has no buffer for a Read's data.
    ///
    /// # Errors
    /// The payload, untouched.
    fn submit<N: Net>(
        &mut self,
        command: &Command,
        payload: Option<Buf>,
        net: &mut N,
        pool: &mut Pool,
    ) -> Result<(), Option<Buf>>;
    /// Receives, and does what time asks for. Ended commands are in [`Client::ended`] afterwards.
    fn poll<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool);
    /// Sends what was queued, one call per connection.
    fn kick<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool);
    /// Commands that ended since they were last taken, in the order they ended.
    fn ended(&mut self) -> &mut Vec<Ended>;
    /// Leaves in order; every connection closes after what is queued. The caller goes on polling the net until it has
    /// no connections left.
    fn disconnect<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool);
}

/// What a command does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Blocks to host.
    Read,
    /// Host to blocks.
    Write,
    /// Everything completed before is durable.
    Flush,
    /// Blocks against the payload.
    Compare,
    /// Blocks become zero; no payload.
    WriteZeroes,
    /// Blocks are no longer needed (Dataset Management with Deallocate; UNMAP).
    Deallocate,
}

impl Op {
    /// True when the command carries a payload from the host.
    pub fn has_payload(self) -> bool {
        matches!(self, Op::Write | Op::Compare)
    }
}

/// A command for [`Client::submit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// I/O connection, below the number configured.
    pub queue: u16,
    /// The caller's name for it, below the depth configured and not in use on this connection; it is the CID or Initiator
    /// Task Tag on the wire.
    pub slot: u16,
    /// What to do.
    pub op: Op,
    /// First logical block.
    pub lba: u64,
    /// Logical blocks, 1..=65536; 0 for Flush.
    pub blocks: u32,
    /// A Read's bytes are wanted; otherwise they are dropped where they arrive.
    pub want_data: bool,
}

/// Why a command failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// An NVMe controller's answer.
    Status(StatusCode),
    /// A SCSI device's answer.
    Scsi(ScsiError),
    /// The connection ended before an answer came.
    Lost,
    /// No answer in time; the connection is given up.
    TimedOut,
    /// The answer's data failed its digest.
    Digest,
}

/// How a SCSI command failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScsiError {
    /// Status.
    pub status: u8,
    /// Sense key; 0 without sense data.
    pub key: u8,
    /// Additional sense code and qualifier, `ASC << 8 | ASCQ`; 0 without sense data.
    pub asc: u16,
}

/// The end of a command.
#[derive(Debug)]
pub struct Ended {
    /// [`Command::queue`].
    pub queue: u16,
    /// [`Command::slot`].
    pub slot: u16,
    /// How it ended.
    pub result: Result<(), Failure>,
    /// NVMe: dwords 0 and 1 of the completion; 0 where no response was sent.
    pub value: u64,
    /// A Read's data when it was wanted and the command succeeded; belongs to the pool that `poll` was given.
    pub buf: Option<Buf>,
}
