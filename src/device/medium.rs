//! A medium: opened once per node from a [`Spec`] on the control thread, shared by the queues of all cores. Opening
//! may block (preallocation, probing); making a queue may too, but only for a few system calls.

use super::delay::{DelayHandle, DelayQueue};
use super::fault::{FaultHandle, FaultQueue};
use super::{AnyQueue, Caps, NullQueue, NullSpec, RamMedium, RamQueue, Spec};
use crate::base::CoreId;
use crate::mem::Span;
use std::io;
use std::path::PathBuf;
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
    /// A queue depth of 0 or above [`DEPTH_MAX`].
    #[error("queue depth {0} is not in 1..={DEPTH_MAX}")]
    Depth(u32),
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
            Spec::File(s) => {
                let source = io::Error::from(io::ErrorKind::Unsupported);
                return Err(OpenError::File { what: "open", path: s.path.clone(), source });
            }
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
            Kind::Fault { inner, .. } | Kind::Delay { inner, .. } => inner.caps(),
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
