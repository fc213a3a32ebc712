//! NVMe/TCP as a [`Target`]: an initiator with its own net and buffers. Requests are spread over the connections by
//! slot, so that each keeps exactly its own depth.

use super::clock::Clock;
use super::target::{About, Completed, Dead, Fault, Kind, Request, Target, identity_of};
use crate::base::{CoreId, Status, Time};
use crate::initiator::{Command, Config, Ended, Failure, Initiator, Namespace, Op, State};
use crate::mem::{Buf, Class, Pool};
use crate::net::Net;
use crate::wire::nvme::{IDENTIFY_LEN, StatusCode, sc};

/// Buffers beyond one per request: Identify data, and payloads still in a send queue when their command has ended.
const SPARE: usize = 8;

/// A connected namespace.
pub struct Nvme<N: Net> {
    net: N,
    initiator: Initiator,
    pool: Pool,
    about: About,
    queues: u32,
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

impl<N: Net> Nvme<N> {
    /// Connects and waits until the namespace is usable. `name` is the target's name for people; `io_bytes` the largest
    /// request that will be made.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(
        config: Config,
        name: String,
        io_bytes: u32,
        net: N,
        clock: &Clock,
    ) -> Result<Nvme<N>, ConnectError> {
        let queues = u32::from(config.queues);
        let depth = queues * u32::from(config.depth);
        let classes = classes(io_bytes as usize, depth as usize);
        let mut pool = Pool::standalone(CoreId(0), &classes)?;
        let (mut net, subsystem) = (net, config.subnqn.clone());
        let mut initiator = Initiator::new(config);
        while initiator.state() == State::Connecting {
            let now = clock.now();
            initiator.poll(now, &mut net, &mut pool);
            initiator.kick(now, &mut net, &mut pool);
            std::thread::yield_now();
        }
        let (State::Ready, Some(namespace)) = (initiator.state(), initiator.namespace()) else {
            let why = initiator.error().map_or_else(String::new, ToString::to_string);
            return Err(ConnectError::Refused(why));
        };
        let about = about(namespace, name, &subsystem, depth);
        Ok(Nvme { net, initiator, pool, about, queues })
    }

    /// The namespace, as its controller describes it.
    pub fn namespace(&self) -> &Namespace {
        self.initiator.namespace().expect("connected")
    }

    /// The net, for its counters.
    pub fn net(&self) -> &N {
        &self.net
    }
}

fn classes(io_bytes: usize, depth: usize) -> Vec<Class> {
    let size = io_bytes.next_multiple_of(4096);
    if size == IDENTIFY_LEN {
        return vec![Class { size, count: depth + SPARE }];
    }
    vec![Class { size: IDENTIFY_LEN, count: SPARE }, Class { size, count: depth + SPARE }]
}

fn about(ns: &Namespace, name: String, subsystem: &str, depth: u32) -> About {
    let identity = match ns.id {
        Some(id) => identity_of(&id),
        None => identity_of(format!("{subsystem}?nsid={}", ns.nsid).as_bytes()),
    };
    About { block_size: ns.block_size, blocks: ns.blocks, io_bytes_max: ns.io_bytes_max, depth, name, identity }
}

/// NVMe status to the shared vocabulary where it has a word for it.
fn fault(failure: Failure) -> Fault {
    let status = |code: StatusCode| match code {
        c if c == sc::LBA_OUT_OF_RANGE => Some(Status::OutOfRange),
        c if c == sc::CAPACITY_EXCEEDED => Some(Status::CapacityExceeded),
        c if c == sc::COMPARE_FAILURE => Some(Status::CompareMismatch),
        c if c == sc::UNRECOVERED_READ || c == sc::WRITE_FAULT => Some(Status::MediaError),
        c if c == sc::WRITE_PROTECTED => Some(Status::ReadOnly),
        c if c == sc::ABORT_REQUESTED => Some(Status::Aborted),
        _ => None,
    };
    match failure {
        Failure::Status(code) => status(code).map_or(Fault::Nvme(code.sct(), code.sc()), Fault::Status),
        Failure::Lost => Fault::Lost,
        Failure::TimedOut => Fault::TimedOut,
        Failure::Digest => Fault::Digest,
    }
}

impl<N: Net> Target for Nvme<N> {
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
            queue: (request.slot % self.queues) as u16,
            slot: (request.slot / self.queues) as u16,
            op,
            lba: request.lba,
            blocks: request.blocks,
            want_data: request.want_data,
        };
        self.initiator.submit(&command, payload, &mut self.net, &mut self.pool)
    }

    #[inline]
    fn kick(&mut self, now: Time) {
        self.initiator.kick(now, &mut self.net, &mut self.pool);
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
        self.initiator.poll(now, &mut self.net, &mut self.pool);
        let queues = self.queues;
        done.extend(self.initiator.ended().drain(..).map(|e: Ended| Completed {
            slot: u32::from(e.slot) * queues + u32::from(e.queue),
            result: e.result.map_err(fault),
            buf: e.buf,
        }));
        if self.initiator.state() == State::Failed {
            let why = self.initiator.error().map_or_else(|| "disconnected".to_owned(), ToString::to_string);
            return Err(Dead(why));
        }
        Ok(())
    }
}

impl<N: Net> Drop for Nvme<N> {
    /// Leaves in order: the target sees a shutdown, not a broken connection.
    fn drop(&mut self) {
        let clock = Clock::start();
        if self.initiator.state() != State::Ready {
            return;
        }
        self.initiator.disconnect(clock.now(), &mut self.net, &mut self.pool);
        while self.net.connections() > 0 && clock.now() < Time(200_000_000) {
            let now = clock.now();
            self.net.poll(now, &mut self.pool, &mut self.initiator);
            self.net.flush(now, &mut self.pool);
            std::thread::yield_now();
        }
    }
}
