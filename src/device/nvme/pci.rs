//! What `/sys` says of a PCI function before it is opened: that it is an NVMe controller, which driver has it, and the
//! IOMMU group it is in.

use super::PciAddress;
use super::error::NvmeError;
use std::fs;
use std::path::{Path, PathBuf};

const DEVICES: &str = "/sys/bus/pci/devices";
const GROUPS: &str = "/sys/kernel/iommu_groups";
/// PCI class of an NVMe I/O controller.
const CLASS: u32 = 0x01_08_02;
/// The driver that gives a function to user space.
const VFIO: &str = "vfio-pci";

/// Proves that the function can be opened through VFIO; its group, and whether an IOMMU protects it.
pub fn group_of(address: PciAddress, unsafe_noiommu: bool) -> Result<u32, NvmeError> {
    group_under(Path::new(DEVICES), address, unsafe_noiommu)
}

fn group_under(devices: &Path, address: PciAddress, unsafe_noiommu: bool) -> Result<u32, NvmeError> {
    let device = devices.join(address.to_string());
    let class = fs::read_to_string(device.join("class")).map_err(|_| NvmeError::NoDevice)?;
    let class = class.trim().strip_prefix("0x").and_then(|c| u32::from_str_radix(c, 16).ok()).unwrap_or(0);
    if class != CLASS {
        return Err(NvmeError::NotNvme(class));
    }
    let group = device.join("iommu_group");
    if !group.exists() && !unsafe_noiommu {
        return Err(NvmeError::NoIommu);
    }
    let driver = link_name(&device.join("driver"));
    if driver.as_deref() != Some(VFIO) {
        return Err(NvmeError::Driver { address, driver });
    }
    let number = link_name(&group).and_then(|n| n.parse().ok());
    // VFIO makes groups of its own for devices without an IOMMU, where it was told to.
    let pretended = fs::read_to_string(group.join("name")).is_ok_and(|n| n.trim() == "vfio-noiommu");
    match (number, unsafe_noiommu) {
        (Some(number), asked) if asked == pretended => Ok(number),
        (Some(_), true) => Err(NvmeError::HasIommu),
        (None, true) => Err(NvmeError::NoUnsafeGroup),
        (_, false) => Err(NvmeError::NoIommu),
    }
}

/// The devices of a group and their drivers, for a complaint.
pub fn group_drivers(group: u32) -> String {
    let folder: PathBuf = [GROUPS, &group.to_string(), "devices"].iter().collect();
    let named = |entry: fs::DirEntry| {
        let driver = link_name(&entry.path().join("driver")).unwrap_or_else(|| "no driver".into());
        format!("{} ({driver})", entry.file_name().to_string_lossy())
    };
    let mut all: Vec<String> = fs::read_dir(folder).into_iter().flatten().flatten().map(named).collect();
    all.sort();
    all.join(", ")
}

/// The last name of the path a link points to.
fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_obstacle_has_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let address: PciAddress = "0000:00:04.0".parse().unwrap();
        let ask = |noiommu| group_under(dir.path(), address, noiommu).map_err(|e| e.to_string());
        assert_eq!(ask(false).unwrap_err(), "no such PCI device");
        let device = dir.path().join("0000:00:04.0");
        fs::create_dir(&device).unwrap();
        fs::write(device.join("class"), "0x020000\n").unwrap();
        assert!(ask(false).unwrap_err().contains("0x020000 is not an NVMe controller"));
        fs::write(device.join("class"), "0x010802\n").unwrap();
        // Without an IOMMU binding can not help, so that is said first.
        assert!(ask(false).unwrap_err().contains("intel_iommu=on"));
        assert!(ask(true).unwrap_err().contains("no driver is bound to it"));
        let group = dir.path().join("12");
        fs::create_dir(&group).unwrap();
        symlink(&group, device.join("iommu_group")).unwrap();
        symlink("../../../bus/pci/drivers/nvme", device.join("driver")).unwrap();
        let text = ask(false).unwrap_err();
        assert!(text.contains("`nvme` has it") && text.contains("pollux device bind 0000:00:04.0"), "{text}");
        fs::remove_file(device.join("driver")).unwrap();
        symlink("../../../bus/pci/drivers/vfio-pci", device.join("driver")).unwrap();
        assert_eq!(ask(false), Ok(12));
        fs::remove_file(device.join("iommu_group")).unwrap();
        assert!(ask(true).unwrap_err().contains("enable_unsafe_noiommu_mode"));
        symlink(&group, device.join("iommu_group")).unwrap();
        assert!(ask(true).unwrap_err().contains("behind an IOMMU"));
        fs::write(group.join("name"), "vfio-noiommu\n").unwrap();
        assert_eq!(ask(true), Ok(12));
        assert!(ask(false).unwrap_err().contains("no IOMMU protects"));
    }
}
