//! The device that keeps nothing: reads return zeroes, writes vanish. For measuring everything above it.

use super::{Caps, DeviceError, Done, NullSpec, Op, OpKind, Queue, check, check_now};
use crate::base::Time;

/// Largest single transfer.
const IO_BYTES_MAX: u32 = 4 << 20;

/// One core's queue to a null device.
#[derive(Debug)]
pub struct NullQueue {
    caps: Caps,
    fill: bool,
    done: Vec<Done>,
}

impl NullQueue {
    /// A queue of at most `depth` operations.
    pub fn new(spec: &NullSpec, depth: u32) -> NullQueue {
        NullQueue {
            caps: NullQueue::caps_of(spec, depth),
            fill: !spec.nofill,
            done: Vec::with_capacity(depth as usize),
        }
    }

    pub(super) fn caps_of(spec: &NullSpec, depth: u32) -> Caps {
        let block_size = spec.block.unwrap_or(super::BLOCK_DEFAULT);
        Caps {
            size: spec.size,
            block_size,
            io_bytes_max: IO_BYTES_MAX,
            depth,
            volatile_cache: false,
            atomic_bytes: block_size,
            write_zeroes: true,
            discard: true,
            read_only: false,
        }
    }
}

impl Queue for NullQueue {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    #[inline]
    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        check(&op, &self.caps);
        if self.done.len() >= self.caps.depth as usize {
            return Err(op);
        }
        if let (OpKind::Read, true, Some(buf)) = (op.kind, self.fill, &mut op.buf) {
            buf[op.at as usize..][..op.len as usize].fill(0);
        }
        self.done.push(Done { token: op.token, kind: op.kind, result: Ok(()), buf: op.buf });
        Ok(())
    }

    fn kick(&mut self) {}

    #[inline]
    fn poll(&mut self, _now: Time, done: &mut Vec<Done>) -> usize {
        let n = self.done.len();
        done.append(&mut self.done);
        n
    }

    fn inflight(&self) -> usize {
        self.done.len()
    }

    #[inline]
    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        check_now(offset, into.len(), &self.caps);
        if self.fill {
            into.fill(0);
        }
        Some(Ok(()))
    }

    #[inline]
    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), DeviceError>> {
        check_now(offset, from.len(), &self.caps);
        Some(Ok(()))
    }

    fn wake_at(&self) -> Option<Time> {
        (!self.done.is_empty()).then_some(Time(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{drain, pool, read, write};

    #[test]
    fn reads_zeroes_forgets_writes_and_is_bounded() {
        let mut pool = pool();
        let mut q = NullQueue::new(&NullSpec { size: 1 << 40, block: None, nofill: false }, 2);
        let mut buf = pool.get(4096).unwrap();
        buf.fill(9);
        q.submit(write(buf, (1 << 40) - 4096, 1)).unwrap();
        let mut dones = drain(&mut q);
        let buf = dones.pop().unwrap().buf.unwrap();
        q.submit(read(buf, (1 << 40) - 4096, 2)).unwrap();
        q.submit(Op { kind: OpKind::Flush, offset: 0, len: 0, buf: None, at: 0, token: 3 }).unwrap();
        let back = q.submit(read(pool.get(4096).unwrap(), 0, 4)).unwrap_err();
        assert_eq!((back.token, q.inflight(), q.wake_at()), (4, 2, Some(Time(0))));
        let dones = drain(&mut q);
        assert!(dones[0].buf.as_ref().unwrap().iter().all(|b| *b == 0));
        assert_eq!((dones.len(), q.inflight(), q.wake_at()), (2, 0, None));
        let mut block = [7u8; 4096];
        assert_eq!(q.write_now(0, &block), Some(Ok(())));
        assert_eq!(q.read_now(0, &mut block), Some(Ok(())));
        assert_eq!(block, [0; 4096]);
    }

    #[test]
    fn nofill_leaves_the_buffer() {
        let mut q = NullQueue::new(&NullSpec { size: 4096, block: None, nofill: true }, 1);
        let mut block = [7u8; 4096];
        assert_eq!(q.read_now(0, &mut block), Some(Ok(())));
        assert_eq!(block, [7; 4096]);
    }
}
