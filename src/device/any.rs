//! Every kind of queue as one type, told apart by a `match`: the data path has no `dyn`.

use super::delay::DelayQueue;
use super::fault::FaultQueue;
use super::{Caps, DeviceError, Done, NullQueue, NvmeQueue, Op, Queue, RamQueue, UringQueue};
use crate::base::Time;

/// One core's queue to whatever medium its spec named.
#[derive(Debug)]
pub enum AnyQueue {
    /// Memory.
    Ram(RamQueue),
    /// Nothing.
    Null(NullQueue),
    /// A file or block device.
    Uring(Box<UringQueue>),
    /// A namespace of an NVMe controller.
    Nvme(Box<NvmeQueue>),
    /// Faults in front of another queue.
    Fault(Box<FaultQueue<AnyQueue>>),
    /// Latency behind another queue.
    Delay(Box<DelayQueue<AnyQueue>>),
}

macro_rules! each {
    ($queue:expr, $q:ident => $call:expr) => {
        match $queue {
            AnyQueue::Ram($q) => $call,
            AnyQueue::Null($q) => $call,
            AnyQueue::Uring($q) => $call,
            AnyQueue::Nvme($q) => $call,
            AnyQueue::Fault($q) => $call,
            AnyQueue::Delay($q) => $call,
        }
    };
}

impl Queue for AnyQueue {
    #[inline]
    fn caps(&self) -> &Caps {
        each!(self, q => q.caps())
    }
    #[inline]
    fn submit(&mut self, op: Op) -> Result<(), Op> {
        each!(self, q => q.submit(op))
    }
    #[inline]
    fn kick(&mut self) {
        each!(self, q => q.kick());
    }
    #[inline]
    fn poll(&mut self, now: Time, done: &mut Vec<Done>) -> usize {
        each!(self, q => q.poll(now, done))
    }
    #[inline]
    fn inflight(&self) -> usize {
        each!(self, q => q.inflight())
    }
    #[inline]
    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        each!(self, q => q.read_now(offset, into))
    }
    #[inline]
    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), DeviceError>> {
        each!(self, q => q.write_now(offset, from))
    }
    fn wake_at(&self) -> Option<Time> {
        each!(self, q => q.wake_at())
    }
    fn wait_fd(&self) -> Option<i32> {
        each!(self, q => q.wait_fd())
    }
}
