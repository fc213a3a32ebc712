//! Why an NVMe controller can not be driven from here, in words that name what to do about it.

use crate::device::nvme::PciAddress;
use crate::wire::nvme::StatusCode;
use std::io;
use std::path::PathBuf;

/// Why a controller, a namespace or a queue could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NvmeError {
    /// No such function on the bus.
    #[error("no such PCI device")]
    NoDevice,
    /// Something else than an NVMe controller.
    #[error("PCI class {0:#08x} is not an NVMe controller (0x010802)")]
    NotNvme(u32),
    /// A kernel driver has it, or none.
    #[error(
        "{}; give it to VFIO first: pollux device bind {address}",
        driver.as_ref().map_or("no driver is bound to it".into(), |d| format!("the kernel driver `{d}` has it"))
    )]
    Driver {
        /// Which device.
        address: PciAddress,
        /// The driver that has it.
        driver: Option<String>,
    },
    /// The kernel has no IOMMU for it.
    #[error(
        "no IOMMU protects this machine from it: enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on or \
         amd_iommu=on"
    )]
    NoIommu,
    /// There is an IOMMU, but the spec says to do without.
    #[error("it is behind an IOMMU: take unsafe_noiommu out of the spec")]
    HasIommu,
    /// The kernel was not told to allow a device without an IOMMU.
    #[error(
        "no VFIO group for it without an IOMMU: modprobe vfio enable_unsafe_noiommu_mode=1 (a kernel built with \
         CONFIG_VFIO_NOIOMMU), then bind it again"
    )]
    NoUnsafeGroup,
    /// No VFIO in this kernel.
    #[error("{}: {source}; load the modules vfio_pci and vfio_iommu_type1", path.display())]
    NoVfio {
        /// The file that is missing.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This user may not.
    #[error("{}: permission denied: run as root, or give this user the file and a memlock limit", path.display())]
    Permission {
        /// The file.
        path: PathBuf,
    },
    /// The kernel wants to be told that nobody drives this device against the machine.
    #[error(
        "its IOMMU does not check interrupts, so the kernel asks for a word first (this program uses none): \
         echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    )]
    NoRemapping,
    /// Another process drives it, or another device of its group.
    #[error("{}: in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Other devices of the group still belong to kernel drivers.
    #[error("IOMMU group {group} holds devices that kernel drivers use: {others}; bind all of them to vfio-pci")]
    NotViable {
        /// The group.
        group: u32,
        /// The devices and their drivers.
        others: String,
    },
    /// The memlock limit, or the number of mappings, is used up.
    #[error("{bytes} bytes of memory can not be mapped for it: {source}; raise the memlock limit (ulimit -l)")]
    Map {
        /// How much.
        bytes: usize,
        /// Why.
        source: io::Error,
    },
    /// The device addresses run out.
    #[error("no device addresses left for {0} bytes")]
    Addresses(usize),
    /// Without an IOMMU only memory that never moves will do.
    #[error("without an IOMMU all buffers must be hugepages: put some into /proc/sys/vm/nr_hugepages")]
    NotHuge,
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The controller itself, while it was set up.
    #[error(transparent)]
    Controller(#[from] ControllerError),
    /// Not the namespace asked for.
    #[error("no namespace {nsid}; the active ones: {active}")]
    NoNamespace {
        /// The one asked for.
        nsid: u32,
        /// Those there are.
        active: String,
    },
    /// Which of several.
    #[error("several namespaces ({active}): name one, as in nvme:{address}/{first}")]
    WhichNamespace {
        /// Which device.
        address: PciAddress,
        /// The lowest.
        first: u32,
        /// All of them.
        active: String,
    },
    /// A format this driver does not do.
    #[error("namespace {nsid}: {format}; format it with 512 or 4096 bytes and no metadata (nvme format)")]
    Format {
        /// Which namespace.
        nsid: u32,
        /// What is wrong with it.
        format: Format,
    },
    /// All queue pairs are taken.
    #[error("all {0} I/O queue pairs of the controller are taken")]
    NoQueue(usize),
    /// The node opened it with other options.
    #[error("already open with other options")]
    Options,
}

/// What is wrong with a namespace's format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Format {
    /// A block size other than 512 and 4096.
    #[error("blocks of 2^{0} bytes")]
    Block(u8),
    /// Metadata with each block.
    #[error("{0} bytes of metadata per block")]
    Metadata(u16),
    /// No block.
    #[error("no capacity")]
    Empty,
}

/// What a controller did wrong, or could not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControllerError {
    /// It does not answer: removed, or switched off.
    #[error("the controller does not answer (removed, or without power)")]
    Gone,
    /// It did not become ready, or not stop, in the time it claims to need.
    #[error("the controller did not {what} within {ms} ms")]
    Slow {
        /// What it should have done.
        what: &'static str,
        /// The time it had.
        ms: u64,
    },
    /// CSTS.CFS.
    #[error("the controller reports a fatal status")]
    Fatal,
    /// It has no NVM command set.
    #[error("the controller does not do the NVM command set")]
    CommandSet,
    /// Its pages are too large.
    #[error("the controller needs memory pages of {0} bytes; 4096 are offered")]
    Pages(u64),
    /// Its registers end before its doorbells.
    #[error("the controller's registers end at {0} bytes, before its doorbells")]
    Registers(usize),
    /// An admin command failed.
    #[error("{what}: status {status:?}")]
    Command {
        /// Which.
        what: &'static str,
        /// How it ended.
        status: StatusCode,
    },
    /// I/O commands hang.
    #[error("commands neither completed nor could be aborted")]
    Hung,
    /// After a reset it has fewer queues than before.
    #[error("the controller does not grant the same queues again")]
    Queues,
    /// It completed what nobody submitted.
    #[error("the controller completed a command that was not under way")]
    Ghost,
    /// A queue did not leave the controller alone.
    #[error("a core did not let go of its queue")]
    Stuck,
}

impl NvmeError {
    pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> NvmeError {
        move |source| NvmeError::System { what, source }
    }
}
