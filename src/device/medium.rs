//! A medium: opened once per node from a [`Spec`] on the control thread, shared by the queues of all cores. Opening
//! may block (preallocation, probing); making a queue may too, but only for a few system calls.

use super::delay::{DelayHandle, DelayQueue, Latency};
use super::fault::{FaultHandle, FaultQueue, FaultRule};
use super::nvme::{NvmeError, NvmeMedium, PciAddress};
use super::{AnyQueue, Caps, FileMedium, NullQueue, NullSpec, RamMedium, RamQueue, Spec, UringQueue};
use crate::base::CoreId;
use crate::mem::Span;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Operations a queue may be asked to hold at most.
pub const DEPTH_MAX: u32 = 4096;

/// Why a medium or a queue to it could not be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system has not that much memory.
    #[error("{bytes} bytes of memory: {source}")]
    Memory {
        /// How much was asked for.
        bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A system call on the file failed.
    #[error("{}: {what}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Neither a regular file nor a block device; or not a regular file where one is to be made.
    #[error("{}: not a regular file{}", path.display(), if *create { "" } else { " or block device" })]
    NotStorage {
        /// What was named.
        path: PathBuf,
        /// True when the spec makes a file.
        create: bool,
    },
    /// Another process has it, or it is mounted.
    #[error("{}: in use: another process has it open, or it is mounted", path.display())]
    InUse {
        /// What was named.
        path: PathBuf,
    },
    /// The path names another file than when the medium was opened.
    #[error("{}: replaced by another file since it was opened", path.display())]
    Replaced {
        /// What was named.
        path: PathBuf,
    },
    /// The device does not address blocks this small.
    #[error("{}: block size {asked} is too small for the device behind it, which needs at least {least}", path.display())]
    BlockSize {
        /// What was named.
        path: PathBuf,
        /// The block size asked for, bytes.
        asked: u32,
        /// The smallest that works, bytes.
        least: u32,
    },
    /// Not one block long.
    #[error("{}: smaller than one block of {block_size} bytes", path.display())]
    Empty {
        /// What was named.
        path: PathBuf,
        /// The block size, bytes.
        block_size: u32,
    },
    /// The file to make is there, and longer.
    #[error("{}: has {has} bytes already, more than the size of {asked} asked for; a file is never cut short", path.display())]
    Larger {
        /// What was named.
        path: PathBuf,
        /// Its length, bytes.
        has: u64,
        /// The length asked for, bytes.
        asked: u64,
    },
    /// The medium became smaller while it was open.
    #[error("{}: has {now} bytes now, fewer than the {was} it had", path.display())]
    Shrunk {
        /// What was named.
        path: PathBuf,
        /// Its size when it was opened or last grew, bytes.
        was: u64,
        /// Its size now, bytes.
        now: u64,
    },
    /// No ring.
    #[error("io_uring: {0}; it needs Linux 5.10, and the sysctl kernel.io_uring_disabled at 0")]
    Ring(io::Error),
    /// An NVMe controller.
    #[error("{address}: {source}")]
    Nvme {
        /// Which one.
        address: PciAddress,
        /// Why it can not be had.
        source: NvmeError,
    },
    /// A queue depth of 0 or above [`DEPTH_MAX`].
    #[error("queue depth {0} is not in 1..={DEPTH_MAX}")]
    Depth(u32),
}

impl OpenError {
    pub(super) fn file(what: &'static str, path: &Path, source: io::Error) -> OpenError {
        OpenError::File { what, path: path.to_owned(), source }
    }

    fn nvme(address: PciAddress) -> impl Fn(NvmeError) -> OpenError {
        move |source| OpenError::Nvme { address, source }
    }
}

/// An open medium; clones share it.
#[derive(Clone, Debug)]
pub struct Medium {
    spec: Spec,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Ram(Arc<RamMedium>),
    Null(NullSpec),
    File(Arc<FileMedium>),
    Nvme(Arc<NvmeMedium>),
    Fault { inner: Box<Medium>, handle: FaultHandle, seed: u64 },
    Delay { inner: Box<Medium>, handle: DelayHandle, seed: u64 },
}

impl Medium {
    /// Opens what `spec` names.
    pub fn open(spec: &Spec) -> Result<Medium, OpenError> {
        Medium::open_with(spec, &mut |_, _| {})
    }

    /// As [`Medium::open`], telling `progress(done, total)`, in bytes, while a file is preallocated.
    pub fn open_with(spec: &Spec, progress: &mut dyn FnMut(u64, u64)) -> Result<Medium, OpenError> {
        let kind = match spec {
            Spec::Ram(s) => Kind::Ram(Arc::new(RamMedium::open(s)?)),
            Spec::Null(s) => Kind::Null(s.clone()),
            Spec::File(s) => Kind::File(Arc::new(FileMedium::open(s, progress)?)),
            Spec::Nvme(s) => Kind::Nvme(Arc::new(NvmeMedium::open(s).map_err(OpenError::nvme(s.address))?)),
            Spec::Fault { inner, rules, seed } => Kind::Fault {
                inner: Box::new(Medium::open_with(inner, progress)?),
                handle: FaultHandle::new(rules),
                seed: *seed,
            },
            Spec::Delay { inner, latency, seed } => Kind::Delay {
                inner: Box::new(Medium::open_with(inner, progress)?),
                handle: DelayHandle::new(latency),
                seed: *seed,
            },
        };
        Ok(Medium { spec: spec.clone(), kind })
    }

    /// This medium with faults in front, as `fault(SPEC;RULES)` names it; the medium itself goes on being shared.
    #[must_use]
    pub fn with_fault(self, rules: &[FaultRule], seed: u64) -> Medium {
        let spec = Spec::Fault { inner: Box::new(self.spec.clone()), rules: rules.to_vec(), seed };
        Medium { spec, kind: Kind::Fault { inner: Box::new(self), handle: FaultHandle::new(rules), seed } }
    }

    /// This medium with latency behind it, as `delay(SPEC;TIMES)` names it; the medium itself goes on being shared.
    #[must_use]
    pub fn with_delay(self, latency: &Latency, seed: u64) -> Medium {
        let spec = Spec::Delay { inner: Box::new(self.spec.clone()), latency: *latency, seed };
        Medium { spec, kind: Kind::Delay { inner: Box::new(self), handle: DelayHandle::new(latency), seed } }
    }

    /// A queue for `core`, of at most `depth` operations (1..=[`DEPTH_MAX`]). `spans` are the arenas that buffers may
    /// come from, on any core; they are registered with the kernel where it lets us.
    pub fn queue(&self, core: CoreId, depth: u32, spans: &[Span]) -> Result<AnyQueue, OpenError> {
        if depth == 0 || depth > DEPTH_MAX {
            return Err(OpenError::Depth(depth));
        }
        // Each core draws from its own sequence, or all would fail the same operations.
        let stream = |seed: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(core.0);
        Ok(match &self.kind {
            Kind::Ram(medium) => AnyQueue::Ram(RamQueue::new(Arc::clone(medium), depth)),
            Kind::Null(spec) => AnyQueue::Null(NullQueue::new(spec, depth)),
            Kind::File(medium) => AnyQueue::Uring(Box::new(UringQueue::new(Arc::clone(medium), depth, spans)?)),
            Kind::Nvme(medium) => {
                let queue = medium.queue(depth, spans).map_err(OpenError::nvme(medium.address()))?;
                AnyQueue::Nvme(Box::new(queue))
            }
            Kind::Fault { inner, handle, seed } => {
                let inner = inner.queue(core, depth, spans)?;
                AnyQueue::Fault(Box::new(FaultQueue::new(inner, handle.clone(), stream(*seed))))
            }
            Kind::Delay { inner, handle, seed } => {
                let inner = inner.queue(core, depth, spans)?;
                AnyQueue::Delay(Box::new(DelayQueue::new(inner, handle.clone(), stream(*seed))))
            }
        })
    }

    /// What the device can do. `depth` is the most a queue may be asked for.
    pub fn caps(&self) -> Caps {
        match &self.kind {
            Kind::Ram(medium) => medium.caps(DEPTH_MAX),
            Kind::Null(spec) => NullQueue::caps_of(spec, DEPTH_MAX),
            Kind::File(medium) => medium.caps(DEPTH_MAX),
            Kind::Nvme(medium) => medium.caps(DEPTH_MAX),
            Kind::Fault { inner, .. } | Kind::Delay { inner, .. } => inner.caps(),
        }
    }

    /// Looks whether the medium has grown, and returns its size in bytes. Queues show the new size in their caps from
    /// their next poll on. Memory never changes its size.
    ///
    /// # Errors
    /// [`OpenError::Shrunk`], and [`OpenError::File`] when the size can not be found.
    pub fn rescan(&self) -> Result<u64, OpenError> {
        match &self.kind {
            Kind::File(medium) => medium.rescan(),
            Kind::Nvme(medium) => medium.rescan().map_err(OpenError::nvme(medium.address())),
            Kind::Fault { inner, .. } | Kind::Delay { inner, .. } => inner.rescan(),
            Kind::Ram(_) | Kind::Null(_) => Ok(self.caps().size),
        }
    }

    /// True once a flush failed or the device went away: everything it is asked ends with
    /// [`super::DeviceError::Dead`].
    pub fn is_dead(&self) -> bool {
        match &self.kind {
            Kind::File(medium) => medium.is_dead(),
            Kind::Nvme(medium) => medium.is_dead(),
            Kind::Fault { inner, handle, .. } => handle.is_dead() || inner.is_dead(),
            Kind::Delay { inner, .. } => inner.is_dead(),
            Kind::Ram(_) | Kind::Null(_) => false,
        }
    }

    /// The file or block device at the bottom, if that is what it is.
    pub fn file(&self) -> Option<&FileMedium> {
        match &self.kind {
            Kind::File(medium) => Some(medium),
            Kind::Fault { inner, .. } | Kind::Delay { inner, .. } => inner.file(),
            Kind::Ram(_) | Kind::Null(_) | Kind::Nvme(_) => None,
        }
    }

    /// The namespace at the bottom, if an NVMe controller is driven from here.
    pub fn nvme(&self) -> Option<&NvmeMedium> {
        match &self.kind {
            Kind::Nvme(medium) => Some(medium),
            Kind::Fault { inner, .. } | Kind::Delay { inner, .. } => inner.nvme(),
            Kind::Ram(_) | Kind::Null(_) | Kind::File(_) => None,
        }
    }

    /// The spec it was opened from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The handle of the outermost fault wrapper, if there is one.
    pub fn faults(&self) -> Option<&FaultHandle> {
        match &self.kind {
            Kind::Fault { handle, .. } => Some(handle),
            Kind::Delay { inner, .. } => inner.faults(),
            _ => None,
        }
    }

    /// The handle of the outermost delay wrapper, if there is one.
    pub fn delays(&self) -> Option<&DelayHandle> {
        match &self.kind {
            Kind::Delay { handle, .. } => Some(handle),
            Kind::Fault { inner, .. } => inner.delays(),
            _ => None,
        }
    }
}
