//! A volume behind a block protocol as a [`Target`]: a client with its own net and buffers. Requests are spread over the
//! connections by slot, so that each keeps exactly its own depth.

use super::clock::Clock;
use super::target::{About, Completed, Dead, Fault, Kind, Request, Target, identity_of};
use crate::base::{CoreId, Status, Time};
use crate::initiator::{Client, Command, Ended, Failure, Op, ScsiError, State};
use crate::mem::{Buf, Class, Pool};
use crate::net::Net;
use crate::wire::nvme::{StatusCode, sc};
use crate::wire::scsi::status;

/// Buffers beyond one per request: answers of the set-up, and payloads still in a send queue when their command has ended.
const SPARE: usize = 8;
/// Bytes of the largest answer of a set-up (Identify, INQUIRY pages).
const ANSWER_LEN: usize = 4096;

/// A connected volume.
pub struct Remote<C: Client, N: Net> {
    net: N,
    client: C,
    pool: Pool,
    about: About,
    conns: u32,
}

/// What a [`Remote`] is made with, beside the client.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The target's name for people.
    pub name: String,
    /// I/O connections of the client.
    pub conns: u16,
    /// Commands under way per connection.
    pub depth: u16,
    /// Bytes of the largest request that will be made.
    pub io_bytes: u32,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The target, the network or the protocol said no.
    #[error("{0}")]
    Refused(String),
    /// There is no memory for buffers.
    #[error("buffers: {0}")]
    Memory(#[from] std::io::Error),
}

impl<C: Client, N: Net> Remote<C, N> {
    /// Connects `client` and waits until the volume is usable.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(client: C, shape: Shape, net: N, clock: &Clock) -> Result<Remote<C, N>, ConnectError> {
        let conns = u32::from(shape.conns);
        let depth = conns * u32::from(shape.depth);
        let mut pool = Pool::standalone(CoreId(0), &classes(shape.io_bytes as usize, depth as usize))?;
        let (mut net, mut client) = (net, client);
        while client.state() == State::Connecting {
            let now = clock.now();
            client.poll(now, &mut net, &mut pool);
            client.kick(now, &mut net, &mut pool);
            std::thread::yield_now();
        }
        let (State::Ready, Some(disk)) = (client.state(), client.disk()) else {
            return Err(ConnectError::Refused(client.why().unwrap_or_default()));
        };
        let about = About {
            block_size: disk.block_size,
            blocks: disk.blocks,
            io_bytes_max: disk.io_bytes_max,
            depth,
            name: shape.name,
            identity: identity_of(&disk.identity),
        };
        Ok(Remote { net, client, pool, about, conns })
    }

    /// The net, for its counters.
    pub fn net(&self) -> &N {
        &self.net
    }
}

fn classes(io_bytes: usize, depth: usize) -> Vec<Class> {
    let size = io_bytes.next_multiple_of(4096);
    if size == ANSWER_LEN {
        return vec![Class { size, count: depth + SPARE }];
    }
    vec![Class { size: ANSWER_LEN, count: SPARE }, Class { size, count: depth + SPARE }]
}

/// A client's failure in the shared vocabulary, where that has a word for it.
fn fault(failure: Failure) -> Fault {
    match failure {
        Failure::Status(code) => nvme(code).map_or(Fault::Nvme(code.sct(), code.sc()), Fault::Status),
        Failure::Scsi(e) => scsi(e).map_or(Fault::Scsi(e.status, e.key, e.asc), Fault::Status),
        Failure::Lost => Fault::Lost,
        Failure::TimedOut => Fault::TimedOut,
        Failure::Digest => Fault::Digest,
    }
}

fn nvme(code: StatusCode) -> Option<Status> {
    match code {
        c if c == sc::LBA_OUT_OF_RANGE => Some(Status::OutOfRange),
        c if c == sc::CAPACITY_EXCEEDED => Some(Status::CapacityExceeded),
        c if c == sc::COMPARE_FAILURE => Some(Status::CompareMismatch),
        c if c == sc::UNRECOVERED_READ || c == sc::WRITE_FAULT => Some(Status::MediaError),
        c if c == sc::WRITE_PROTECTED => Some(Status::ReadOnly),
        c if c == sc::ABORT_REQUESTED => Some(Status::Aborted),
        _ => None,
    }
}

fn scsi(e: ScsiError) -> Option<Status> {
    use crate::wire::scsi::{Key, asc};
    match (e.status, e.asc) {
        (_, asc::LBA_OUT_OF_RANGE) => Some(Status::OutOfRange),
        (_, asc::SPACE_ALLOCATION_FAILED) => Some(Status::CapacityExceeded),
        (_, asc::WRITE_PROTECTED) => Some(Status::ReadOnly),
        (status::TASK_ABORTED, _) => Some(Status::Aborted),
        (status::BUSY | status::TASK_SET_FULL, _) => Some(Status::Busy),
        _ if e.key == Key::Miscompare as u8 => Some(Status::CompareMismatch),
        _ if e.key == Key::MediumError as u8 => Some(Status::MediaError),
        _ => None,
    }
}

impl<C: Client, N: Net> Target for Remote<C, N> {
    fn about(&self) -> &About {
        &self.about
    }

    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    #[inline]
    fn submit(&mut self, request: Request, payload: Option<Buf>) -> Result<(), Option<Buf>> {
        let op = match request.kind {
            Kind::Read => Op::Read,
            Kind::Write => Op::Write,
            Kind::Flush => Op::Flush,
        };
        let command = Command {
            queue: (request.slot % self.conns) as u16,
            slot: (request.slot / self.conns) as u16,
            op,
            lba: request.lba,
            blocks: request.blocks,
            want_data: request.want_data,
        };
        self.client.submit(&command, payload, &mut self.net, &mut self.pool)
    }

    #[inline]
    fn kick(&mut self, now: Time) {
        self.client.kick(now, &mut self.net, &mut self.pool);
    }

    fn figures(&self) -> Option<serde_json::Value> {
        let s = self.net.stats();
        Some(serde_json::json!({
            "receives": s.receives, "sends": s.sends, "waits": s.waits, "sends_blocked": s.blocked,
            "bytes_in": s.bytes_in, "bytes_out": s.bytes_out,
        }))
    }

    #[inline]
    fn poll(&mut self, now: Time, done: &mut Vec<Completed>) -> Result<(), Dead> {
        self.client.poll(now, &mut self.net, &mut self.pool);
        let conns = self.conns;
        done.extend(self.client.ended().drain(..).map(|e: Ended| Completed {
            slot: u32::from(e.slot) * conns + u32::from(e.queue),
            result: e.result.map_err(fault),
            buf: e.buf,
        }));
        if self.client.state() == State::Failed {
            let why = self.client.why().unwrap_or_else(|| "disconnected".to_owned());
            return Err(Dead(why));
        }
        Ok(())
    }
}

impl<C: Client, N: Net> Drop for Remote<C, N> {
    /// Leaves in order: the target sees a shutdown or logout, not a broken connection.
    fn drop(&mut self) {
        let clock = Clock::start();
        if self.client.state() != State::Ready {
            return;
        }
        self.client.disconnect(clock.now(), &mut self.net, &mut self.pool);
        while self.net.connections() > 0 && clock.now() < Time(200_000_000) {
            let now = clock.now();
            self.net.poll(now, &mut self.pool, &mut self.client);
            self.net.flush(now, &mut self.pool);
            std::thread::yield_now();
        }
    }
}
