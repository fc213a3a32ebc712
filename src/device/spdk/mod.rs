//! NVMe through SPDK's driver: PCI functions, NVMe/TCP subsystems, vfio-user endpoints. Built with the feature `spdk`.
//!
//! A medium is one namespace. Its controller has a thread of its own (`controller`) for everything that may wait; each
//! core has a queue pair (`queue`), polled in the reactor's turn. A queue pair that fails is connected again, the
//! controller reset if need be, for a bounded time; then the medium is dead. Operations wait meanwhile and are sent
//! again. What a fabric target has acknowledged into a volatile cache may have gone with the process that ran it, so a
//! core that lost its target with unflushed writes takes the medium for dead at once.

mod controller;
mod ffi;
mod ffi_controller;
mod ffi_pair;
mod queue;
mod status;

pub use queue::SpdkQueue;

use super::{Caps, OpenError, SpdkPlace, SpdkSpec};
use crate::mem::Span;
use controller::{Controller, Space};
use ffi_pair::Pair;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Largest transfer; the driver cuts it into commands that the controller takes.
const IO_BYTES_MAX: u32 = 1 << 20;

/// A namespace, open.
#[derive(Debug)]
pub struct SpdkMedium {
    // Declared before the controller: it is dropped first.
    space: Arc<Space>,
    controller: Arc<Controller>,
    spec: SpdkSpec,
    /// A flush failed, or unflushed writes may be lost.
    killed: AtomicBool,
}

impl SpdkMedium {
    /// Attaches to the controller and finds the namespace.
    ///
    /// # Errors
    /// [`OpenError::Spdk`].
    pub fn open(spec: &SpdkSpec) -> Result<SpdkMedium, OpenError> {
        let controller = Controller::open(&spec.place)?;
        let space = controller.space(spec.nsid)?;
        let facts = &space.facts;
        let wrong = |reason: String| OpenError::Spdk { what: "opening the namespace", reason };
        if !matches!(facts.block_size, 512 | 4096) {
            return Err(wrong(format!("its blocks have {} bytes, neither 512 nor 4096", facts.block_size)));
        }
        if facts.metadata != 0 || facts.protected {
            return Err(wrong("it is formatted with metadata or protection information".to_owned()));
        }
        if facts.size < u64::from(facts.block_size) || facts.transfer_max < 4096 {
            return Err(wrong("it holds no block, or moves less than 4 KiB at a time".to_owned()));
        }
        let trid = spec.place.trid();
        tracing::info!(place = %trid, nsid = space.nsid, size = facts.size, block = facts.block_size, "attached");
        Ok(SpdkMedium { space, controller, spec: spec.clone(), killed: AtomicBool::new(false) })
    }

    /// What it can do, for a queue of `depth`.
    pub fn caps(&self, depth: u32) -> Caps {
        let facts = &self.space.facts;
        Caps {
            size: self.size(),
            block_size: facts.block_size,
            io_bytes_max: IO_BYTES_MAX,
            depth,
            volatile_cache: facts.volatile_cache,
            // More than one command is never atomic.
            atomic_bytes: facts.atomic_bytes.min(facts.transfer_max),
            write_zeroes: facts.write_zeroes,
            discard: facts.discard,
            read_only: facts.read_only,
        }
    }

    /// A queue for one core.
    ///
    /// # Errors
    /// [`OpenError::Spdk`].
    pub fn queue(self: &Arc<SpdkMedium>, depth: u32, spans: &[Span]) -> Result<SpdkQueue, OpenError> {
        let bounce = match self.spec.place {
            SpdkPlace::Tcp { .. } => false,
            SpdkPlace::VfioUser(_) => true,
            SpdkPlace::Pcie(_) => {
                let reached = ffi::register(spans);
                if !reached {
                    tracing::warn!(place = %self.spec.place.trid(),
                        "the device can not reach the buffers (no hugepages?): each transfer is copied");
                }
                !reached
            }
        };
        let facts = &self.space.facts;
        // One request for each operation, and those of a few large transfers beside.
        let pieces = IO_BYTES_MAX.div_ceil(facts.transfer_max) + 1;
        let requests = depth + depth.clamp(16, 64) * pieces;
        let zero_bytes = facts.transfer_max.min(IO_BYTES_MAX) / 4096 * 4096;
        let link = self.controller.link(|handle| {
            let transfer_max = IO_BYTES_MAX as usize;
            Pair::new(handle, self.space.nsid, depth as u16, requests, transfer_max, zero_bytes, bounce)
        })?;
        Ok(SpdkQueue::new(Arc::clone(self), link, self.caps(depth), zero_bytes))
    }

    /// Bytes on it now.
    pub fn size(&self) -> u64 {
        self.space.size.load(Ordering::Acquire)
    }

    /// Its size, which a resize of the namespace changed already: the controller told.
    ///
    /// # Errors
    /// [`OpenError::Spdk`] when it became smaller.
    pub fn rescan(&self) -> Result<u64, OpenError> {
        let (was, now) = (self.space.facts.size, self.size());
        if now < was {
            let reason = format!("it has {now} bytes now, fewer than the {was} it had");
            return Err(OpenError::Spdk { what: "looking at the namespace", reason });
        }
        Ok(now)
    }

    /// True when nothing it acknowledges can be relied on any more.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.killed.load(Ordering::Acquire) || self.controller.is_dead() || self.space.gone.load(Ordering::Acquire)
    }

    fn kill(&self) {
        if !self.killed.swap(true, Ordering::AcqRel) {
            tracing::error!(place = %self.spec.place.trid(), "unflushed writes may be lost: the medium is dead");
        }
    }
}

#[cfg(test)]
mod tests;
