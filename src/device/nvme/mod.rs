//! NVMe controllers driven from here: no kernel driver, no interrupt, no system call per operation. The function is given
//! to this process by VFIO; queues lie in memory that both sides see, and registers are mapped.
//!
//! One [`Controller`] per device: brought up by the control thread that opens it, looked after by a thread of its own
//! (`admin`), which alone sends admin commands. One [`NvmeQueue`] per core: an I/O queue pair nobody else touches. The
//! two meet at the gate (`gate`), where a core that enters finds out that the controller was reset or is dead.
//!
//! From bottom to top: `regs`, `iova`, `physical`, `vfio` and `dma` reach hardware and memory (all `unsafe` is there);
//! `ring` and `prp` are the formats in memory; `queue` and `admin` are machines over them, which know no clock, no
//! thread and no hardware, and run against [`model`], a controller made of software, as they run against a disk.

mod address;
mod admin;
mod controller;
mod dma;
mod error;
mod facts;
mod gate;
mod iova;
pub mod model;
mod pci;
mod physical;
mod prp;
mod queue;
mod regs;
mod ring;
mod shared;
mod spec;
mod status;
#[cfg(test)]
mod tests;
mod vfio;

pub use address::{NotAnAddress, PciAddress};
pub use controller::Controller;
pub use error::{ControllerError, Format, NvmeError};
pub use facts::{ControllerFacts, NamespaceFacts};
pub use queue::NvmeQueue;
pub use spec::NvmeSpec;

use super::Caps;
use crate::mem::Span;
use facts::Limits;
use queue::Terms;
use shared::Namespace;
use std::sync::Arc;

/// Largest single operation; the queue splits it into what the controller takes.
const IO_BYTES_MAX: u32 = 4 << 20;

/// A namespace of an open controller, shared by the queues of all cores.
#[derive(Debug)]
pub struct NvmeMedium {
    // Before the controller: what holds a queue's memory goes first.
    namespace: Arc<Namespace>,
    facts: NamespaceFacts,
    spec: NvmeSpec,
    controller: Arc<Controller>,
}

impl NvmeMedium {
    /// Opens the controller, if this process has not yet, and finds the namespace.
    pub fn open(spec: &NvmeSpec) -> Result<NvmeMedium, NvmeError> {
        let controller = Controller::open(spec.address, spec.unsafe_noiommu)?;
        let facts = controller.namespace(spec.nsid)?;
        let namespace = Namespace::new(facts.nsid, facts.block_shift, facts.bytes());
        let namespace = controller.shared().namespace(namespace);
        Ok(NvmeMedium { namespace, facts, spec: spec.clone(), controller })
    }

    /// Where the controller is.
    pub fn address(&self) -> PciAddress {
        self.spec.address
    }

    /// The controller.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// What Identify said of the namespace when it was opened.
    pub fn facts(&self) -> &NamespaceFacts {
        &self.facts
    }

    /// What a queue of `depth` operations to it can do.
    pub fn caps(&self, depth: u32) -> Caps {
        caps(self.controller.facts(), &self.facts, &self.spec, self.namespace.size(), depth)
    }

    /// A queue of `depth` operations, on a queue pair of its own.
    pub fn queue(&self, depth: u32, spans: &[Span]) -> Result<NvmeQueue, NvmeError> {
        let windows = self.controller.windows(spans)?;
        let shared = self.controller.shared();
        let pair = shared.take_pair().ok_or(NvmeError::NoQueue(self.controller.pairs()))?;
        let terms = terms(self.controller.facts(), &self.facts, &self.spec, shared, &self.namespace);
        Ok(NvmeQueue::new(pair, terms, windows, self.caps(depth)).keeping(Arc::clone(&self.controller)))
    }

    /// Looks at its size again.
    pub fn rescan(&self) -> Result<u64, NvmeError> {
        self.controller.rescan()?;
        Ok(self.namespace.size())
    }

    /// True once a flush failed, the namespace was taken away, or the controller died.
    pub fn is_dead(&self) -> bool {
        self.namespace.is_dead() || self.controller.shared().gate.is_dead()
    }
}

/// What a queue of `depth` operations can do.
fn caps(controller: &ControllerFacts, namespace: &NamespaceFacts, spec: &NvmeSpec, size: u64, depth: u32) -> Caps {
    let block = 1u32 << namespace.block_shift;
    let atomic = namespace.atomic_blocks.unwrap_or(controller.atomic_blocks);
    let read_only = spec.read_only || namespace.read_only;
    Caps {
        size,
        block_size: block,
        io_bytes_max: IO_BYTES_MAX,
        depth,
        volatile_cache: !read_only && controller.volatile_cache,
        // A write that is split into several commands is not atomic, whatever each of them is.
        atomic_bytes: atomic.saturating_mul(block).min(controller.transfer_max),
        write_zeroes: controller.write_zeroes && !read_only,
        discard: controller.discard && !read_only,
        read_only,
    }
}

/// What a queue needs to know.
fn terms(
    controller: &ControllerFacts,
    facts: &NamespaceFacts,
    spec: &NvmeSpec,
    shared: &Arc<shared::Shared>,
    namespace: &Arc<Namespace>,
) -> Terms {
    Terms {
        shared: Arc::clone(shared),
        namespace: Arc::clone(namespace),
        limits: Limits::of(controller, facts),
        sgl: controller.sgl && !spec.no_sgl,
        deallocate: facts.zeroes_deallocate,
        timeout_ns: spec.timeout_ns.unwrap_or(NvmeSpec::TIMEOUT_NS),
        commands_max: controller.commands_max,
    }
}
