//! Why a PCI function must not be taken from the kernel now, each reason with the thing it is about.

use super::pci::{Address, Function, Kind};
use super::root::Root;
use super::{disk, group, net};

/// One reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Obstacle {
    /// Nothing here drives such a function.
    #[error("class {0:06x} is neither an NVMe controller (010802) nor a network controller (02xxxx)")]
    Class(u32),
    /// Some other way of giving it to a process is in force.
    #[error(
        "driver {0} has it, which is neither the kernel's own nor vfio-pci: give it back with the tool that bound it"
    )]
    Driver(String),
    /// A file system is mounted.
    #[error("{device} is mounted on {on}: unmount it")]
    Mounted {
        /// `nvme0n1p1`.
        device: String,
        /// The directory.
        on: String,
    },
    /// The kernel swaps to it.
    #[error("{device} is swap space: swapoff /dev/{device}")]
    Swap {
        /// `nvme0n1p1`.
        device: String,
    },
    /// Another block device or the kernel's target stands on it.
    #[error("{device} is in use by {by}")]
    Held {
        /// `nvme0n1p1`.
        device: String,
        /// By what.
        by: String,
    },
    /// A process has it open.
    #[error("{node} is open in process {pid} ({program})")]
    Open {
        /// `/dev/nvme0n1`.
        node: String,
        /// Process.
        pid: u32,
        /// Its name.
        program: String,
    },
    /// Someone claimed it, and no file says who.
    #[error(
        "{0} is claimed by the kernel or a process (O_EXCL): a file system, array or pool that this process can not see"
    )]
    Claimed(String),
    /// It can not be found out whether it is in use.
    #[error("{node} can not be opened ({why}), so it can not be known to be unused")]
    Unknown {
        /// `/dev/nvme0n1`.
        node: String,
        /// The system's words.
        why: String,
    },
    /// The same namespaces are reached through another controller too.
    #[error("its namespaces are also reached through controller {controller}: bind both together")]
    OtherPath {
        /// `nvme1`.
        controller: String,
    },
    /// The machine is reached through it.
    #[error(
        "interface {interface} is up with {}{}: ip link set {interface} down", addresses.join(", "),
        if *only { ", the only way out of this machine" } else { "" }
    )]
    Reached {
        /// `eth0`.
        interface: String,
        /// The machine's addresses on it.
        addresses: Vec<String>,
        /// No other interface has a default route.
        only: bool,
    },
    /// A part of another interface.
    #[error("interface {interface} is part of {of}: take it out")]
    PartOf {
        /// `eth0`.
        interface: String,
        /// `bond0`.
        of: String,
    },
    /// A driver has it, and no interface is to be seen.
    #[error("its interface is not in this network namespace: move it back first")]
    InterfaceElsewhere,
    /// Virtual functions live from it.
    #[error("{0} virtual functions of it are switched on (sriov_numvfs)")]
    VirtualFunctions(u32),
    /// Nothing confines what it reads and writes.
    #[error(
        "no IOMMU confines it: switch it on in the firmware (VT-d, AMD-Vi) and boot with intel_iommu=on (Intel), or use \
         --unsafe-noiommu, with which the device can read and write all memory"
    )]
    NoIommu,
    /// A neighbour that the IOMMU can not tell from it stays with the kernel.
    #[error(
        "IOMMU group {group} also has {member}, which driver {driver} keeps: {}",
        if *bindable { "bind it together with this one" } else { "it can not be given away, so neither can this" }
    )]
    Group {
        /// The group.
        group: u32,
        /// The neighbour.
        member: Address,
        /// Its driver.
        driver: String,
        /// It is of a kind that can be bound.
        bindable: bool,
    },
}

/// Drivers that give a network function to a process, or keep it for one.
const USERSPACE_DRIVERS: [&str; 4] = ["uio_pci_generic", "igb_uio", "xen-pciback", "pciback"];

/// Everything that files tell against giving `function`, together with the functions `together`, to VFIO. A function that
/// VFIO has already is not asked for its users.
pub fn obstacles(root: &Root, function: &Function, together: &[Address], no_iommu: bool) -> Vec<Obstacle> {
    if !matches!(function.kind, Kind::Nvme | Kind::Nic) {
        return vec![Obstacle::Class(function.class)];
    }
    let mut found = Vec::new();
    if !function.is_vfio() {
        found.extend(foreign_driver(function));
        if function.virtual_functions > 0 {
            found.push(Obstacle::VirtualFunctions(function.virtual_functions));
        }
        found.extend(match function.kind {
            Kind::Nvme => disk::uses(root, function, together),
            _ => net::uses(root, function),
        });
    }
    found.extend(group::obstacles(root, function.address, together, no_iommu));
    found
}

fn foreign_driver(function: &Function) -> Option<Obstacle> {
    let driver = function.driver.as_deref()?;
    let foreign = match function.kind {
        Kind::Nvme => driver != "nvme",
        _ => USERSPACE_DRIVERS.contains(&driver),
    };
    foreign.then(|| Obstacle::Driver(driver.to_owned()))
}
