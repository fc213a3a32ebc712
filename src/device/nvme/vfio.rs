//! A PCI function through VFIO (Linux `Documentation/driver-api/vfio.rst`, `linux/vfio.h`): container, group, device,
//! registers, and memory mapped for DMA. Called on the control thread only.
//!
//! Every `unsafe` here is a system call on descriptors this file owns, with structures whose layout is the kernel's.
//! What stays true: a mapping made for the device lives as long as its container, and the memory behind it is kept by
//! `dma.rs` at least as long.

use super::error::NvmeError;
use super::regs::Bar;
use super::{PciAddress, pci};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

const API_VERSION: i32 = 0;
/// `VFIO_TYPE1v2_IOMMU`.
const TYPE1V2: u64 = 3;
/// `VFIO_NOIOMMU_IOMMU`.
const NOIOMMU: u64 = 8;

const GET_API_VERSION: u64 = request(0);
const CHECK_EXTENSION: u64 = request(1);
const SET_IOMMU: u64 = request(2);
const GROUP_GET_STATUS: u64 = request(3);
const GROUP_SET_CONTAINER: u64 = request(4);
const GROUP_GET_DEVICE_FD: u64 = request(6);
const DEVICE_GET_REGION_INFO: u64 = request(8);
const DEVICE_RESET: u64 = request(11);
const IOMMU_GET_INFO: u64 = request(12);
const IOMMU_MAP_DMA: u64 = request(13);

/// `_IO(';', 100 + n)`.
const fn request(n: u64) -> u64 {
    (b';' as u64) << 8 | (100 + n)
}

/// `VFIO_GROUP_FLAGS_VIABLE`.
const VIABLE: u32 = 1;
/// `VFIO_REGION_INFO_FLAG_MMAP`.
const MAPPABLE: u32 = 4;
/// `VFIO_PCI_BAR0_REGION_INDEX` and `VFIO_PCI_CONFIG_REGION_INDEX`.
const BAR0: u32 = 0;
const CONFIG: u32 = 7;
/// The PCI command register, and its bits "memory space" and "bus master".
const PCI_COMMAND: u64 = 4;
const PCI_MEMORY: u16 = 2;
const PCI_MASTER: u16 = 4;
/// Most bytes of what `VFIO_IOMMU_GET_INFO` tells.
const INFO_MAX: usize = 4096;
/// `VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE`.
const CAP_RANGES: u16 = 1;

#[repr(C)]
struct GroupStatus {
    argsz: u32,
    flags: u32,
}

#[repr(C)]
struct RegionInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    cap_offset: u32,
    size: u64,
    offset: u64,
}

#[repr(C)]
struct MapDma {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

/// An ioctl whose argument is a number or nothing.
fn ioctl_number(fd: &impl AsRawFd, request: u64, argument: u64) -> io::Result<i32> {
    // SAFETY: the requests made through this function take no pointer.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

/// An ioctl whose argument is a structure.
///
/// # Safety
/// `T` is what the kernel expects for `request`, its `argsz` no more than its size.
unsafe fn ioctl_struct<T>(fd: &impl AsRawFd, request: u64, argument: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the structure is live and exclusively borrowed.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, std::ptr::from_mut(argument)) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

fn open(path: &Path) -> Result<File, NvmeError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|source| match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => NvmeError::Permission { path: path.to_owned() },
        Some(libc::EBUSY) => NvmeError::InUse { path: path.to_owned() },
        _ => NvmeError::NoVfio { path: path.to_owned(), source },
    })
}

/// The address space of one IOMMU group's devices.
#[derive(Debug)]
pub struct Container {
    fd: File,
    group: File,
    path: PathBuf,
    ranges: Vec<(u64, u64)>,
    protected: bool,
}

/// The containers of this process: the kernel lets a group be opened once.
static OPEN: Mutex<BTreeMap<u32, Weak<Container>>> = Mutex::new(BTreeMap::new());

impl Container {
    /// The container of group `number`: the one this process has, or a new one. Not `protected`: no IOMMU.
    pub fn of_group(number: u32, protected: bool) -> Result<Arc<Container>, NvmeError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(container) = open.get(&number).and_then(Weak::upgrade) {
            return Ok(container);
        }
        let container = Arc::new(Container::new(number, protected)?);
        open.insert(number, Arc::downgrade(&container));
        Ok(container)
    }

    fn new(number: u32, protected: bool) -> Result<Container, NvmeError> {
        let fd = open_container()?;
        let name = if protected { format!("/dev/vfio/{number}") } else { format!("/dev/vfio/noiommu-{number}") };
        let path = PathBuf::from(name);
        let group = open(&path)?;
        let mut status = GroupStatus { argsz: size_of::<GroupStatus>() as u32, flags: 0 };
        // SAFETY: `struct vfio_group_status`.
        unsafe { ioctl_struct(&group, GROUP_GET_STATUS, &mut status) }.map_err(NvmeError::system("group status"))?;
        if status.flags & VIABLE == 0 {
            return Err(NvmeError::NotViable { group: number, others: pci::group_drivers(number) });
        }
        let mut raw = fd.as_raw_fd();
        // SAFETY: the argument is a pointer to a file descriptor.
        unsafe { ioctl_struct(&group, GROUP_SET_CONTAINER, &mut raw) }.map_err(NvmeError::system("set container"))?;
        let kind = if protected { TYPE1V2 } else { NOIOMMU };
        ioctl_number(&fd, SET_IOMMU, kind).map_err(|source| match source.raw_os_error() {
            // Type 1 refuses an IOMMU without interrupt remapping so; without an IOMMU it is the right that is missing.
            Some(libc::EPERM) if protected => NvmeError::NoRemapping,
            Some(libc::EPERM) => NvmeError::Permission { path: path.clone() },
            _ => NvmeError::System { what: "set IOMMU", source },
        })?;
        let ranges = if protected { usable_ranges(&fd)? } else { Vec::new() };
        Ok(Container { fd, group, path, ranges, protected })
    }

    /// The device addresses it translates, inclusive; none when the kernel does not say.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// True when an IOMMU keeps the device to what was mapped.
    pub fn protected(&self) -> bool {
        self.protected
    }

    /// Lets the devices read and write `len` bytes at `memory` under the address `iova`; pins the memory.
    ///
    /// # Safety
    /// The memory stays mapped for the life of the container, and nothing of it is used as if no device wrote it.
    pub unsafe fn map(&self, memory: NonNull<u8>, len: usize, iova: u64) -> Result<(), NvmeError> {
        let mut map = MapDma {
            argsz: size_of::<MapDma>() as u32,
            // VFIO_DMA_MAP_FLAG_READ and _WRITE.
            flags: 3,
            vaddr: memory.as_ptr() as u64,
            iova,
            size: len as u64,
        };
        // SAFETY: `struct vfio_iommu_type1_dma_map`.
        let mapped = unsafe { ioctl_struct(&self.fd, IOMMU_MAP_DMA, &mut map) };
        mapped.map(drop).map_err(|source| NvmeError::Map { bytes: len, source })
    }
}

fn open_container() -> Result<File, NvmeError> {
    let fd = open(Path::new("/dev/vfio/vfio"))?;
    let version = ioctl_number(&fd, GET_API_VERSION, 0).map_err(NvmeError::system("VFIO version"))?;
    if version != API_VERSION {
        let source = io::Error::from_raw_os_error(libc::ENOSYS);
        return Err(NvmeError::System { what: "VFIO of an unknown version", source });
    }
    Ok(fd)
}

/// `VFIO_IOMMU_GET_INFO`.
fn usable_ranges(container: &File) -> Result<Vec<(u64, u64)>, NvmeError> {
    ioctl_number(container, CHECK_EXTENSION, TYPE1V2).map_err(NvmeError::system("VFIO type 1"))?;
    // Words, so that the structure in it is aligned.
    let mut info = [0u64; INFO_MAX / 8];
    info[0] = INFO_MAX as u64;
    // SAFETY: `struct vfio_iommu_type1_info` with room for its capabilities: argsz, its first 32 bits, is the whole of
    // the array.
    unsafe { ioctl_struct(container, IOMMU_GET_INFO, &mut info) }.map_err(NvmeError::system("IOMMU information"))?;
    let bytes: Vec<u8> = info.iter().flat_map(|w| w.to_ne_bytes()).collect();
    Ok(ranges_of(&bytes))
}

/// The IOVA ranges in an information structure with its chain of capabilities.
fn ranges_of(info: &[u8]) -> Vec<(u64, u64)> {
    let u16_at = |at: usize| Some(u16::from_ne_bytes(info.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(info.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(info.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let mut found = Vec::new();
    let flags = u32_at(4).unwrap_or(0);
    let mut at = if flags & 2 == 0 { 0 } else { u32_at(16).unwrap_or(0) as usize };
    // Each capability names the next; a chain can not be longer than the structure.
    for _ in 0..info.len() / 8 {
        if at == 0 {
            break;
        }
        if u16_at(at) == Some(CAP_RANGES) {
            let count = u32_at(at + 8).unwrap_or(0) as usize;
            let range = |i: usize| Some((u64_at(at + 16 + i * 16)?, u64_at(at + 24 + i * 16)?));
            found.extend((0..count.min(info.len() / 16)).map_while(range));
        }
        at = u32_at(at + 4).unwrap_or(0) as usize;
    }
    found
}

/// A PCI function in a container.
#[derive(Debug)]
pub struct Device {
    fd: File,
    config_at: u64,
    /// After the descriptor: the kernel wants the device closed before its group.
    _container: Arc<Container>,
}

impl Device {
    /// Opens the function at `address` in `container`. The kernel resets it on the way.
    pub fn open(container: Arc<Container>, address: PciAddress) -> Result<Device, NvmeError> {
        let name = std::ffi::CString::new(address.to_string()).expect("an address holds no zero");
        // SAFETY: the argument is a string that lives until the call returns.
        let fd = unsafe { libc::ioctl(container.group.as_raw_fd(), GROUP_GET_DEVICE_FD as _, name.as_ptr()) };
        if fd < 0 {
            let source = io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::EBUSY) => NvmeError::InUse { path: container.path.clone() },
                _ => NvmeError::System { what: "open the VFIO device", source },
            });
        }
        // SAFETY: the kernel just made this descriptor for us.
        let fd = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let config_at = region(&fd, CONFIG)?.offset;
        Ok(Device { fd, config_at, _container: container })
    }

    /// Maps the registers.
    pub fn bar(&self) -> Result<Bar, NvmeError> {
        let info = region(&self.fd, BAR0)?;
        let len = info.size as usize;
        if info.flags & MAPPABLE == 0 || len == 0 {
            let source = io::Error::from_raw_os_error(libc::ENODEV);
            return Err(NvmeError::System { what: "BAR 0 can not be mapped", source });
        }
        let (prot, fd) = (libc::PROT_READ | libc::PROT_WRITE, self.fd.as_raw_fd());
        // SAFETY: a shared mapping of a device file at an address of the kernel's choice touches no existing memory.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, info.offset.cast_signed()) };
        if base == libc::MAP_FAILED {
            return Err(NvmeError::System { what: "map BAR 0", source: io::Error::last_os_error() });
        }
        let base = NonNull::new(base.cast()).expect("mmap never returns page 0");
        // SAFETY: the mapping was made above, and nobody else knows it.
        Ok(unsafe { Bar::of_device(base, len) })
    }

    /// Lets the function answer to its registers and read and write memory, or cuts it off from memory.
    pub fn bus_master(&self, on: bool) -> io::Result<()> {
        let at = self.config_at + PCI_COMMAND;
        let mut word = [0u8; 2];
        self.fd.read_exact_at(&mut word, at)?;
        let was = u16::from_le_bytes(word);
        let now = if on { was | PCI_MEMORY | PCI_MASTER } else { was & !PCI_MASTER };
        self.fd.write_all_at(&now.to_le_bytes(), at)
    }

    /// Resets the function.
    pub fn reset(&self) -> io::Result<()> {
        ioctl_number(&self.fd, DEVICE_RESET, 0).map(drop)
    }
}

fn region(device: &File, index: u32) -> Result<RegionInfo, NvmeError> {
    let argsz = size_of::<RegionInfo>() as u32;
    let mut info = RegionInfo { argsz, flags: 0, index, cap_offset: 0, size: 0, offset: 0 };
    // SAFETY: `struct vfio_region_info`.
    unsafe { ioctl_struct(device, DEVICE_GET_REGION_INFO, &mut info) }.map_err(NvmeError::system("region"))?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_and_requests_are_the_kernels() {
        assert_eq!((size_of::<GroupStatus>(), size_of::<RegionInfo>(), size_of::<MapDma>()), (8, 32, 32));
        assert_eq!((GET_API_VERSION, IOMMU_MAP_DMA), (0x3b64, 0x3b71));
    }

    fn info(flags: u32, cap: u32, chain: &[&[u64]]) -> Vec<u8> {
        let mut words = vec![u64::from(flags) << 32, 0, u64::from(cap)];
        for part in chain {
            words.extend(*part);
        }
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    #[test]
    fn ranges_are_found_in_the_chain_and_lies_end_it() {
        // Capability 3 at 24, whose next is 40: capability 1 with two ranges.
        let other: &[u64] = &[3 | 1 << 16 | 40 << 32, 0];
        let ranges: &[u64] = &[1 | 1 << 16, 2, 0, 0xfedf_ffff, 0xfef0_0000, 0x7f_ffff_ffff];
        let whole = info(2, 24, &[other, ranges]);
        assert_eq!(ranges_of(&whole), [(0, 0xfedf_ffff), (0xfef0_0000, 0x7f_ffff_ffff)]);
        assert!(ranges_of(&info(0, 24, &[other, ranges])).is_empty());
        assert!(ranges_of(&info(2, 0, &[])).is_empty());
        // A chain that bites its tail, one that points outside, and every truncation.
        assert!(ranges_of(&info(2, 24, &[&[3 | 24 << 32, 0]])).is_empty());
        assert!(ranges_of(&info(2, u32::MAX, &[other])).is_empty());
        for len in 0..whole.len() {
            assert!(ranges_of(&whole[..len]).len() < 2);
        }
    }
}
