//! A machine of files for tests: functions, disks, interfaces and groups in a temporary folder, and a kernel that answers
//! writes as the real one does.

use super::{Address, Kernel, Root};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const DEVICES: &str = "sys/bus/pci/devices";
const DRIVERS: &str = "sys/bus/pci/drivers";

/// The machine.
pub struct Fake {
    dir: TempDir,
    root: Root,
    /// Disks that someone claimed without a trace in any file.
    pub claimed: BTreeSet<String>,
    /// Modules that can be loaded.
    pub loadable: BTreeSet<String>,
    /// VFIO refuses what it is offered.
    pub vfio_refuses: bool,
    /// Disks appear only after this many pauses; `u32::MAX`: never.
    pub disk_delay: u32,
    /// Every write, in order: `path=text`.
    pub written: Vec<String>,
    /// Disks that are on their way: (function, disk, pauses left).
    coming: Vec<(String, String, u32)>,
}

impl Fake {
    /// A machine with the drivers nvme and virtio-pci, with VFIO loaded, and no functions.
    pub fn new() -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let fake = Fake {
            dir,
            root,
            claimed: BTreeSet::new(),
            loadable: BTreeSet::new(),
            vfio_refuses: false,
            disk_delay: 0,
            written: Vec::new(),
            coming: Vec::new(),
        };
        for driver in ["nvme", "virtio-pci", "vfio-pci"] {
            fake.driver(driver);
        }
        fake.put("sys/bus/pci/drivers_probe", "");
        fake.put("sys/module/vfio_iommu_type1/refcnt", "0");
        fake.put("proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
        fake.put("proc/interrupts", " 24:  0  IR-PCI-MSI 65536-edge  nvme0q0\n");
        fake.put("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
        fake.put("proc/self/mountinfo", "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n");
        fake
    }

    /// Writes a file, and the folders it is in.
    pub fn put(&self, inside: &str, text: &str) {
        let path = self.dir.path().join(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Makes a symbolic link.
    pub fn link(&self, inside: &str, target: &str) {
        let path = self.dir.path().join(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    /// Removes a file or folder, if it is there.
    pub fn remove(&self, inside: &str) {
        let path = self.dir.path().join(inside);
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }

    pub fn driver(&self, name: &str) {
        for file in ["bind", "unbind"] {
            self.put(&format!("{DRIVERS}/{name}/{file}"), "");
        }
    }

    /// Where the records go.
    pub fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("run/pollux")
    }

    pub fn function(&self, address: &str, class: &str, driver: Option<&str>, group: Option<u32>) -> Address {
        let file = |name: &str| format!("{DEVICES}/{address}/{name}");
        for (name, text) in [
            ("class", class),
            ("vendor", "0x1b36\n"),
            ("device", "0x0010\n"),
            ("numa_node", "-1\n"),
            ("driver_override", "(null)\n"),
        ] {
            self.put(&file(name), text);
        }
        if let Some(driver) = driver {
            self.link(&file("driver"), &format!("../../drivers/{driver}"));
            // The way through the link, as a real one resolves it.
            self.put(&format!("{DRIVERS}/{driver}/unbind"), "");
        }
        if let Some(group) = group {
            self.link(&file("iommu_group"), &format!("../../../kernel/iommu_groups/{group}"));
            self.put(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"), "");
            self.put(&format!("sys/kernel/iommu_groups/{group}/type"), "DMA-FQ\n");
            self.put(&format!("dev/vfio/{group}"), "");
        }
        address.parse().unwrap()
    }

    /// An NVMe function with driver nvme, one controller and one disk.
    pub fn nvme(&self, address: &str, number: u32, group: Option<u32>) -> Address {
        let made = self.function(address, "0x010802\n", Some("nvme"), group);
        self.controller(address, number);
        self.disk(address, &format!("nvme{number}n1"));
        made
    }

    fn controller(&self, address: &str, number: u32) {
        self.put(&format!("{DEVICES}/{address}/nvme/nvme{number}/state"), "live\n");
        self.put(&format!("sys/class/nvme/nvme{number}/address"), address);
    }

    fn disk(&self, address: &str, name: &str) {
        let controller = name.strip_prefix("nvme").and_then(|rest| rest.split_once('n')).unwrap().0;
        self.put(&format!("{DEVICES}/{address}/nvme/nvme{controller}/{name}/nsid"), "1\n");
        self.put(&format!("sys/block/{name}/dev"), "259:0\n");
        self.put(&format!("sys/block/{name}/size"), "2097152\n");
        self.put(&format!("sys/block/{name}/queue/logical_block_size"), "4096\n");
        fs::create_dir_all(self.dir.path().join(format!("sys/block/{name}/holders"))).unwrap();
        self.put(&format!("dev/{name}"), "");
    }

    pub fn partition(&self, disk: &str, number: u32) {
        let name = format!("{disk}p{number}");
        self.put(&format!("sys/block/{disk}/{name}/partition"), &format!("{number}\n"));
        self.put(&format!("sys/block/{disk}/{name}/dev"), &format!("259:{number}\n"));
        fs::create_dir_all(self.dir.path().join(format!("sys/block/{disk}/{name}/holders"))).unwrap();
    }

    /// A virtio network function with one interface that is up.
    pub fn nic(&self, address: &str, interface: &str, group: Option<u32>) -> Address {
        let made = self.function(address, "0x020000\n", Some("virtio-pci"), group);
        self.link(&format!("{DEVICES}/{address}/virtio0/driver"), "../../../../bus/virtio/drivers/virtio_net");
        self.put(&format!("{DEVICES}/{address}/virtio0/net/{interface}/flags"), "");
        self.put(&format!("sys/class/net/{interface}/flags"), "0x1003\n");
        made
    }

    fn driver_of(&self, address: &str) -> Option<String> {
        self.root.link(&format!("{DEVICES}/{address}/driver"))
    }

    /// The kernel detaches a driver: what hung on it is gone.
    fn detach(&mut self, address: &str) {
        self.remove(&format!("{DEVICES}/{address}/driver"));
        let controllers = self.root.names(&format!("{DEVICES}/{address}/nvme"));
        for controller in controllers {
            for disk in self.root.names(&format!("{DEVICES}/{address}/nvme/{controller}")) {
                if disk.starts_with("nvme") {
                    self.remove(&format!("sys/block/{disk}"));
                    self.remove(&format!("dev/{disk}"));
                }
            }
        }
        self.remove(&format!("{DEVICES}/{address}/nvme"));
    }

    /// The kernel attaches a driver, if that wants the function.
    fn attach(&mut self, address: &str, driver: &str) -> io::Result<()> {
        if driver == "vfio-pci" && self.vfio_refuses {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        if !self.root.has(&format!("{DRIVERS}/{driver}")) {
            return Ok(());
        }
        self.link(&format!("{DEVICES}/{address}/driver"), &format!("../../drivers/{driver}"));
        if driver == "nvme" {
            self.controller(address, 0);
            if self.disk_delay == 0 {
                self.disk(address, "nvme0n1");
            } else {
                self.coming.push((address.into(), "nvme0n1".into(), self.disk_delay));
            }
        }
        Ok(())
    }

    fn probe(&mut self, address: &str) -> io::Result<()> {
        if self.driver_of(address).is_some() {
            return Ok(());
        }
        let only = self.root.text(&format!("{DEVICES}/{address}/driver_override")).unwrap();
        let class = self.root.hex(&format!("{DEVICES}/{address}/class")).unwrap();
        let natural = if class == 0x01_0802 { "nvme" } else { "virtio-pci" };
        let driver = if only.is_empty() || only == "(null)" { natural.to_owned() } else { only };
        self.attach(address, &driver)
    }
}

impl Kernel for Fake {
    fn root(&self) -> &Root {
        &self.root
    }

    fn write(&mut self, inside: &str, text: &str) -> io::Result<()> {
        self.written.push(format!("{inside}={}", text.trim()));
        let text = text.trim();
        let parts: Vec<&str> = inside.split('/').collect();
        match parts[..] {
            ["sys", "bus", "pci", "drivers_probe"] => self.probe(text),
            ["sys", "bus", "pci", "devices", address, "driver", "unbind"] => {
                assert_eq!(address, text, "the kernel refuses another's address");
                self.detach(text);
                Ok(())
            }
            ["sys", "bus", "pci", "drivers", driver, "unbind"] => {
                if self.driver_of(text).as_deref() != Some(driver) {
                    return Err(io::Error::from_raw_os_error(libc::ENODEV));
                }
                self.detach(text);
                Ok(())
            }
            ["sys", "bus", "pci", "drivers", driver, "bind"] => {
                if !self.root.has(&format!("{DRIVERS}/{driver}")) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let only = self.root.text(&format!("{DEVICES}/{text}/driver_override")).unwrap();
                if self.driver_of(text).is_some() || !(only.is_empty() || only == driver) {
                    return Err(io::Error::from_raw_os_error(libc::ENODEV));
                }
                self.attach(text, driver)
            }
            _ => {
                assert!(self.root.has(inside), "{inside} is not a file of the kernel");
                self.put(inside, text);
                Ok(())
            }
        }
    }

    fn load(&mut self, module: &str) -> Result<(), String> {
        if !self.loadable.contains(module) {
            return Err(format!("Module {module} not found"));
        }
        match module {
            "vfio-pci" => self.driver("vfio-pci"),
            module => self.put(&format!("sys/module/{module}/refcnt"), "0"),
        }
        Ok(())
    }

    fn claim(&mut self, inside: &str) -> io::Result<File> {
        let name = Path::new(inside).file_name().unwrap().to_str().unwrap();
        if self.claimed.contains(name) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        File::open(self.root.path(inside))
    }

    fn pause(&mut self, _time: Duration) {
        for (_, _, left) in &mut self.coming {
            *left = if *left == u32::MAX { *left } else { *left - 1 };
        }
        let ready: Vec<_> = self.coming.extract_if(.., |(_, _, left)| *left == 0).collect();
        for (address, disk, _) in ready {
            self.disk(&address, &disk);
        }
    }
}
