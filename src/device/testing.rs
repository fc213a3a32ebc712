//! What the tests of several devices share: a small pool, operations, and a queue run until it is idle.

use super::{Done, Op, OpKind, Queue};
use crate::base::{CoreId, Time};
use crate::mem::{Buf, Class, Pool};

pub fn pool() -> Pool {
    Pool::standalone(CoreId(0), &[Class { size: 4096, count: 64 }, Class { size: 64 << 10, count: 4 }]).unwrap()
}

fn transfer(kind: OpKind, buf: Buf, offset: u64, token: u64) -> Op {
    Op { kind, offset, len: buf.len() as u64, buf: Some(buf), at: 0, token }
}

pub fn read(buf: Buf, offset: u64, token: u64) -> Op {
    transfer(OpKind::Read, buf, offset, token)
}

pub fn write(buf: Buf, offset: u64, token: u64) -> Op {
    transfer(OpKind::Write, buf, offset, token)
}

pub fn plain(kind: OpKind, offset: u64, len: u64, token: u64) -> Op {
    Op { kind, offset, len, buf: None, at: 0, token }
}

/// Kicks and polls until nothing is under way.
pub fn drain(q: &mut impl Queue) -> Vec<Done> {
    let mut dones = Vec::new();
    let start = std::time::Instant::now();
    while q.inflight() != 0 {
        q.kick();
        q.poll(Time(0), &mut dones);
        assert!(start.elapsed().as_secs() < 30, "the device stalled with {} operations", q.inflight());
    }
    dones
}
