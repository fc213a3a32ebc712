//! Parts on a device as it is: no log, no checksum, the device's own durability. Owns the state between a part and the
//! one or two device operations it takes (a forced write to a volatile cache is followed by a flush).

use super::part::{DeviceId, Ended, Home, Kind, Outcome, Part, Payload};
use crate::base::Status;
use crate::base::ring::Ring;
use crate::device::{DeviceError, Done, Op, OpKind, Queue};
use crate::mem::{Buf, Pool};
use slab::Slab;

#[derive(Debug, Clone, Copy)]
struct Job {
    tag: u64,
    kind: Kind,
    flush_after: bool,
    device: DeviceId,
    offset: u64,
    len: u32,
}

/// Raw parts under way on this core, over all its devices.
pub struct Raw {
    jobs: Slab<Job>,
    cap: usize,
    /// Flushes after forced writes that found their device's queue full of others' operations; oldest first.
    owed: Ring<(DeviceId, usize)>,
}

impl Raw {
    /// Room for `cap` parts at once.
    pub fn new(cap: usize) -> Raw {
        Raw { jobs: Slab::with_capacity(cap), cap, owed: Ring::new(cap) }
    }

    /// Parts under way.
    pub fn inflight(&self) -> usize {
        self.jobs.len()
    }

    /// True while an operation that changes bytes of this range is under way. Looks at all of them: for compare-writes.
    pub fn changes(&self, device: DeviceId, offset: u64, len: u32) -> bool {
        self.jobs.iter().any(|(_, j)| {
            let writes = matches!(j.kind, Kind::Write | Kind::WriteZeroes | Kind::Deallocate);
            let apart = j.offset + u64::from(j.len) <= offset || offset + u64::from(len) <= j.offset;
            writes && !apart && j.device == device
        })
    }

    /// Starts a Read into `buf` (its length is the part's).
    pub fn read<Q: Queue>(&mut self, part: &Part, mut buf: Buf, queue: &mut Q) -> Outcome {
        assert_eq!(buf.len(), part.len as usize, "a read's buffer has the read's length");
        if let Some(result) = queue.read_now(part.offset, &mut buf) {
            return Outcome::Done(Ended::plain(part.tag, status(result), Some(buf)));
        }
        self.start(part, OpKind::Read, Some(buf), queue)
    }

    /// Starts a Write.
    pub fn write<Q: Queue>(&mut self, part: &Part, payload: Payload<'_>, queue: &mut Q, pool: &mut Pool) -> Outcome {
        assert_eq!(payload.bytes().len(), part.len as usize, "a write's payload has the write's length");
        if let Some(result) = queue.write_now(part.offset, payload.bytes()) {
            if let Some(buf) = payload.into_buf() {
                pool.put(buf);
            }
            return Outcome::Done(Ended::plain(part.tag, status(result), None));
        }
        let buf = match payload {
            Payload::Owned(buf) => buf,
            Payload::Borrowed(bytes) => {
                let Some(mut buf) = pool.get(bytes.len()) else { return Outcome::Later(None) };
                buf.copy_from_slice(bytes);
                match self.start(part, OpKind::Write, Some(buf), queue) {
                    Outcome::Later(Some(buf)) => {
                        pool.put(buf);
                        return Outcome::Later(None);
                    }
                    other => return other,
                }
            }
            Payload::None => panic!("a write has a payload"),
        };
        self.start(part, OpKind::Write, Some(buf), queue)
    }

    /// Starts a Flush.
    pub fn flush<Q: Queue>(&mut self, part: &Part, queue: &mut Q) -> Outcome {
        if !queue.caps().volatile_cache {
            return Outcome::Done(Ended::plain(part.tag, Status::Ok, None));
        }
        self.start(part, OpKind::Flush, None, queue)
    }

    /// Starts a `WriteZeroes` or Deallocate; both leave zeroes, so both are the device's Write Zeroes.
    pub fn zero<Q: Queue>(&mut self, part: &Part, queue: &mut Q) -> Outcome {
        self.start(part, OpKind::WriteZeroes, None, queue)
    }

    fn start<Q: Queue>(&mut self, part: &Part, kind: OpKind, buf: Option<Buf>, queue: &mut Q) -> Outcome {
        if self.jobs.len() == self.cap {
            return Outcome::Later(buf);
        }
        let writes = matches!(kind, OpKind::Write | OpKind::WriteZeroes);
        let flush_after = writes && part.fua && queue.caps().volatile_cache;
        let Home::Raw(device) = part.home else { panic!("a raw part is at home on a device") };
        let Part { offset, len, .. } = *part;
        let token = self.jobs.insert(Job { tag: part.tag, kind: part.kind, flush_after, device, offset, len });
        let op = Op { kind, offset: part.offset, len: u64::from(part.len), buf, at: 0, token: token as u64 };
        match queue.submit(op) {
            Ok(()) => Outcome::Pending,
            Err(op) => {
                self.jobs.remove(token);
                Outcome::Later(op.buf)
            }
        }
    }

    /// Takes a device completion; `None` while the part still needs another operation.
    pub fn done<Q: Queue>(&mut self, device: DeviceId, done: Done, queue: &mut Q, pool: &mut Pool) -> Option<Ended> {
        let token = usize::try_from(done.token).expect("a token of ours");
        let job = self.jobs[token];
        let mut buf = done.buf;
        if job.kind != Kind::Read {
            pool.put_all(buf.take());
        }
        if job.flush_after && done.result.is_ok() && done.kind != OpKind::Flush {
            // The write must not be called durable without its flush, however long that has to wait for room.
            if queue.submit(flush_op(token)).is_err() {
                assert!(self.owed.push((device, token)).is_ok(), "each job owes one flush");
            }
            return None;
        }
        self.jobs.remove(token);
        Some(Ended::plain(job.tag, status(done.result), buf))
    }

    /// Tries the flushes that found no room; `submit` puts one into a device's queue, if that has room now.
    pub fn catch_up(&mut self, mut submit: impl FnMut(DeviceId, Op) -> Result<(), Op>) {
        for _ in 0..self.owed.len() {
            let Some((device, token)) = self.owed.pop() else { break };
            if submit(device, flush_op(token)).is_err() {
                assert!(self.owed.push((device, token)).is_ok(), "it was there a moment ago");
            }
        }
    }

    /// True while a flush waits for room at its device.
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }
}

fn flush_op(token: usize) -> Op {
    Op { kind: OpKind::Flush, offset: 0, len: 0, buf: None, at: 0, token: token as u64 }
}

/// A device's answer in the vocabulary above.
fn status(result: Result<(), DeviceError>) -> Status {
    match result {
        Ok(()) => Status::Ok,
        Err(e) => e.into(),
    }
}
