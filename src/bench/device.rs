//! A device's queue as a [`Target`]: load straight on the medium, without network or store.

use super::target::{About, Completed, Dead, Fault, Kind, Request, Target, identity_of};
use crate::base::{CoreId, Time};
use crate::device::{AnyQueue, Caps, Done, Medium, Op, OpKind, OpenError, Queue};
use crate::mem::{Arena, Buf, Class, Pool};

/// A device under load.
pub struct Device {
    queue: AnyQueue,
    pool: Pool,
    about: About,
    done: Vec<Done>,
    /// Per slot: the Read's bytes are wanted.
    wanted: Vec<bool>,
}

/// Why a device can not be driven.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It can not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no memory for buffers.
    #[error("buffers: {0}")]
    Memory(#[from] std::io::Error),
}

/// What a medium is, as a target. `depth` requests may be under way.
pub fn about(caps: &Caps, name: &str, depth: u32) -> About {
    About {
        block_size: caps.block_size,
        blocks: caps.size / u64::from(caps.block_size),
        io_bytes_max: caps.io_bytes_max,
        depth,
        name: name.to_owned(),
        identity: identity_of(name.as_bytes()),
    }
}

impl Device {
    /// A queue to `medium` with `depth` requests of at most `io_bytes` bytes under way. `core` tells the queues of
    /// several workers apart.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn open(medium: &Medium, core: CoreId, depth: u32, io_bytes: u32) -> Result<Device, DeviceError> {
        let size = (io_bytes as usize).next_multiple_of(4096);
        let count = depth as usize;
        let arena = Arena::new(size * count)?;
        let pool = Pool::new(core, &arena, &[Class { size, count }]).expect("the arena was made for these buffers");
        let queue = medium.queue(core, depth, &[arena.span()])?;
        let about = about(queue.caps(), &medium.spec().to_string(), depth);
        Ok(Device { queue, pool, about, done: Vec::with_capacity(count), wanted: vec![false; count] })
    }
}

impl Target for Device {
    fn about(&self) -> &About {
        &self.about
    }

    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    #[inline]
    fn submit(&mut self, request: Request, payload: Option<Buf>) -> Result<(), Option<Buf>> {
        let bytes = u64::from(request.blocks) * u64::from(self.about.block_size);
        let (kind, buf) = match request.kind {
            Kind::Read => (OpKind::Read, Some(self.pool.get(bytes as usize).ok_or(None)?)),
            Kind::Write => (OpKind::Write, payload),
            Kind::Flush => (OpKind::Flush, None),
        };
        self.wanted[request.slot as usize] = request.want_data;
        let offset = request.lba * u64::from(self.about.block_size);
        let op = Op { kind, offset, len: bytes, buf, at: 0, token: u64::from(request.slot) };
        self.queue.submit(op).map_err(|op| {
            if op.kind == OpKind::Write {
                return op.buf;
            }
            if let Some(buf) = op.buf {
                self.pool.put(buf);
            }
            None
        })
    }

    #[inline]
    fn kick(&mut self, _: Time) {
        self.queue.kick();
    }

    #[inline]
    fn poll(&mut self, now: Time, out: &mut Vec<Completed>) -> Result<(), Dead> {
        self.queue.poll(now, &mut self.done);
        for done in self.done.drain(..) {
            let slot = done.token as u32;
            let keep = done.kind == OpKind::Read && self.wanted[slot as usize] && done.result.is_ok();
            let buf = match done.buf {
                Some(buf) if keep => Some(buf),
                Some(buf) => {
                    self.pool.put(buf);
                    None
                }
                None => None,
            };
            out.push(Completed { slot, result: done.result.map_err(|e| Fault::Status(e.into())), buf });
        }
        Ok(())
    }
}
