//! NVMe controllers that the node drives itself, in the control plane's terms.

use crate::cluster::{NodeError, NvmeReport, NvmeSpec};
use crate::device;
use crate::device::nvme::{Controller, NvmeError, NvmeMedium};
use crate::wire::nvme::log::Smart;

/// The device spec of what the control plane asks for.
pub fn spec(asked: &NvmeSpec) -> Result<device::NvmeSpec, NodeError> {
    let address = asked.address.parse();
    let address = address.map_err(|_| NodeError::Unsupported("the address: it must be like 0000:02:00.0"))?;
    let (nsid, unsafe_noiommu) = (asked.nsid, asked.unsafe_noiommu);
    Ok(device::NvmeSpec { nsid, unsafe_noiommu, ..device::NvmeSpec::new(address) })
}

/// The active namespaces of a controller.
pub fn namespaces(asked: &NvmeSpec) -> Result<Vec<u32>, NodeError> {
    let spec = spec(asked)?;
    let found = Controller::open(spec.address, spec.unsafe_noiommu).and_then(|c| c.namespaces());
    found.map_err(|e| {
        tracing::warn!(address = %spec.address, "NVMe controller: {e}");
        refusal(&e)
    })
}

/// The controller of a namespace.
pub fn report(medium: &NvmeMedium) -> Result<NvmeReport, NodeError> {
    let facts = medium.controller().facts();
    let smart: Smart = medium.controller().smart().map_err(|e| refusal(&e))?;
    // The log counts in 128 bits; no disk gets near 64.
    let small = |n: zerocopy::little_endian::U128| u64::try_from(n.get()).unwrap_or(u64::MAX);
    Ok(NvmeReport {
        model: facts.model.clone(),
        serial: facts.serial.clone(),
        firmware: facts.firmware.clone(),
        enabled: !medium.is_dead(),
        critical_warning: smart.critical,
        temperature: smart.temperature.get(),
        spare: (smart.spare, smart.spare_threshold),
        used: smart.used,
        units: (small(smart.units_read), small(smart.units_written)),
        commands: (small(smart.reads), small(smart.writes)),
        busy_minutes: small(smart.busy_minutes),
        power: (small(smart.power_cycles), small(smart.power_on_hours)),
        unsafe_shutdowns: small(smart.unsafe_shutdowns),
        media_errors: small(smart.media_errors),
        error_entries: small(smart.error_entries),
    })
}

/// A controller that can not be had. The words are in the log; the caller learns the kind of it.
pub fn refusal(e: &NvmeError) -> NodeError {
    let errno = match e {
        NvmeError::NoDevice | NvmeError::NoNamespace { .. } => libc::ENODEV,
        NvmeError::Driver { .. } => return NodeError::Os { what: "not bound to vfio-pci", errno: libc::EBUSY },
        NvmeError::InUse { .. } | NvmeError::NotViable { .. } | NvmeError::Options | NvmeError::NoQueue(_) => {
            libc::EBUSY
        }
        NvmeError::Permission { .. } | NvmeError::NoRemapping => libc::EACCES,
        NvmeError::Map { .. } | NvmeError::Addresses(_) | NvmeError::NotHuge => libc::ENOMEM,
        NvmeError::Format { .. } => {
            return NodeError::Unsupported("the namespace's format: it must be 512 or 4096 bytes without metadata");
        }
        NvmeError::WhichNamespace { .. } => return NodeError::Unsupported("several namespaces, and none named"),
        NvmeError::System { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
        _ => libc::EIO,
    };
    NodeError::Os { what: "NVMe controller", errno }
}
