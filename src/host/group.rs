//! IOMMU groups: functions that the hardware can not keep apart, so that one process must have them all.

use super::obstacle::Obstacle;
use super::pci::{Address, DEVICES, Function, Kind, VFIO_PCI};
use super::root::Root;

/// Where the kernel lists the groups.
const GROUPS: &str = "sys/kernel/iommu_groups";
/// The name of a group that VFIO made up for a function without an IOMMU.
const NO_IOMMU_GROUP: &str = "vfio-noiommu";

/// How a function's memory accesses are confined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Iommu {
    /// By the IOMMU, in this group.
    Group(u32),
    /// Not at all: whoever drives it can read and write all memory. The group, where VFIO has it, has a node of that
    /// name.
    None(Option<u32>),
}

impl Iommu {
    /// The node through which VFIO gives out the group, relative to the root; `None` when there is no group.
    pub fn node(self) -> Option<String> {
        match self {
            Iommu::Group(n) => Some(format!("dev/vfio/{n}")),
            Iommu::None(n) => n.map(|n| format!("dev/vfio/noiommu-{n}")),
        }
    }
}

/// The IOMMU group of a function.
pub fn iommu(root: &Root, address: Address) -> Iommu {
    let group = root.link(&format!("{DEVICES}/{address}/iommu_group")).and_then(|name| name.parse().ok());
    match group {
        Some(n) if root.text(&format!("{GROUPS}/{n}/name")).as_deref() != Some(NO_IOMMU_GROUP) => Iommu::Group(n),
        made_up => Iommu::None(made_up),
    }
}

/// True when the IOMMU also confines the interrupts that functions raise. Without that VFIO gives nothing out unless it is
/// told to allow unsafe interrupts. Where the kernel does not say, and on machines where the question does not arise, true.
pub fn remaps_interrupts(root: &Root) -> bool {
    // The kernel names the chips of remapped interrupts with this prefix, on Intel and AMD alike.
    let x86 = root.text("proc/cpuinfo").is_some_and(|text| text.contains("vendor_id"));
    !x86 || root.text("proc/interrupts").is_none_or(|text| text.is_empty() || text.contains(" IR-"))
}

/// The functions of a group, by address.
pub fn group_members(root: &Root, group: u32) -> Vec<Address> {
    let names = root.names(&format!("{GROUPS}/{group}/devices"));
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Why VFIO would refuse the group of `address`, were it and `together` given to it.
pub fn obstacles(root: &Root, address: Address, together: &[Address], no_iommu: bool) -> Vec<Obstacle> {
    let Iommu::Group(group) = iommu(root, address) else {
        return if no_iommu { Vec::new() } else { vec![Obstacle::NoIommu] };
    };
    let others = group_members(root, group).into_iter().filter(|a| *a != address && !together.contains(a));
    let others = others.filter_map(|a| Function::read(root, a));
    let stays = |f: &Function| match f.driver.as_deref() {
        // A bridge moves no data of its own.
        None | Some(VFIO_PCI | "pci-stub") => false,
        Some(_) => f.kind != Kind::Bridge,
    };
    let obstacle = |f: Function| Obstacle::Group {
        group,
        member: f.address,
        driver: f.driver.clone().unwrap_or_default(),
        bindable: matches!(f.kind, Kind::Nvme | Kind::Nic),
    };
    others.filter(stays).map(obstacle).collect()
}
