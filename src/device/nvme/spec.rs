//! What names a namespace of an NVMe controller: `nvme:ADDRESS[/NSID][,readonly][,nosgl][,timeout=TIME][,unsafe_noiommu]`.

use super::PciAddress;
use crate::device::spec::Nanos;
use std::fmt;

/// A namespace of an NVMe controller that this process drives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NvmeSpec {
    /// The controller.
    pub address: PciAddress,
    /// The namespace, from 1; not needed when there is only one.
    pub nsid: Option<u32>,
    /// Refuse writes.
    pub read_only: bool,
    /// Never use SGLs, for controllers that claim them wrongly.
    pub no_sgl: bool,
    /// A command older than this is aborted, ns; [`NvmeSpec::TIMEOUT_NS`] when not given.
    pub timeout_ns: Option<u64>,
    /// Drive the controller without an IOMMU: every mistake of its may overwrite any memory of the machine.
    pub unsafe_noiommu: bool,
}

impl NvmeSpec {
    /// How long a command may take.
    pub const TIMEOUT_NS: u64 = 10_000_000_000;

    /// The defaults for `address`.
    pub fn new(address: PciAddress) -> NvmeSpec {
        NvmeSpec { address, nsid: None, read_only: false, no_sgl: false, timeout_ns: None, unsafe_noiommu: false }
    }
}

impl fmt::Display for NvmeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nvme:{}", self.address)?;
        self.nsid.map_or(Ok(()), |nsid| write!(f, "/{nsid}"))?;
        f.write_str(if self.read_only { ",readonly" } else { "" })?;
        f.write_str(if self.no_sgl { ",nosgl" } else { "" })?;
        self.timeout_ns.map_or(Ok(()), |ns| write!(f, ",timeout={}", Nanos(ns)))?;
        f.write_str(if self.unsafe_noiommu { ",unsafe_noiommu" } else { "" })
    }
}
