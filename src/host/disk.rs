//! The block devices of an NVMe function, and who uses them: mounts, swap, holders (md, device mapper), loop devices,
//! the kernel's own NVMe target, and processes that have them open.
//!
//! Files can not tell everything (a second device of btrfs, ZFS, a mount in another namespace): whoever acts on the
//! answer also claims the disk with an exclusive open.

use super::obstacle::Obstacle;
use super::pci::{Address, Function};
use super::root::Root;
use std::path::Path;

/// A namespace that the kernel shows as a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// `nvme0n1`.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Logical block size, bytes.
    pub block: u32,
    /// Its partitions, `nvme0n1p1`.
    pub partitions: Vec<String>,
}

impl Disk {
    fn read(root: &Root, name: &str) -> Option<Disk> {
        let file = |inside: &str| format!("sys/block/{name}/{inside}");
        // The path of one controller to a shared namespace is a hidden disk without a device number of its own.
        if root.text(&file("hidden")).as_deref() == Some("1") {
            return None;
        }
        let partition = |part: &String| part.starts_with(name) && root.has(&file(&format!("{part}/partition")));
        Some(Disk {
            name: name.to_owned(),
            // sysfs counts in 512-byte sectors whatever the block size.
            bytes: root.number(&file("size"))?.saturating_mul(512),
            block: root.number(&file("queue/logical_block_size")).unwrap_or(512) as u32,
            partitions: root.names(&format!("sys/block/{name}")).into_iter().filter(partition).collect(),
        })
    }

    /// The names of the whole and of its parts.
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.partitions.iter().map(String::as_str))
    }

    /// Where sysfs has the whole or a part.
    fn folder(&self, name: &str) -> String {
        if name == self.name { format!("sys/block/{name}") } else { format!("sys/block/{}/{name}", self.name) }
    }
}

/// The kernel's names of the controllers of `function`: `nvme0`.
fn controllers(root: &Root, function: &Function) -> Vec<String> {
    root.names(&function.file("nvme"))
}

/// The subsystem that a controller belongs to: `nvme-subsys0`.
fn subsystem(root: &Root, controller: &str) -> Option<String> {
    let all = root.names("sys/class/nvme-subsystem");
    all.into_iter().find(|s| root.has(&format!("sys/class/nvme-subsystem/{s}/{controller}")))
}

/// The disks of a function, by name.
pub fn disks(root: &Root, function: &Function) -> Vec<Disk> {
    let mut names = Vec::new();
    for controller in controllers(root, function) {
        names.extend(root.names(&function.file(&format!("nvme/{controller}"))));
        // With native multipathing the disk hangs below the subsystem, and only its hidden paths below the controllers.
        if let Some(subsystem) = subsystem(root, &controller) {
            names.extend(root.names(&format!("sys/class/nvme-subsystem/{subsystem}")));
        }
    }
    names.retain(|name| name.starts_with("nvme") && root.has(&format!("sys/block/{name}")));
    names.sort();
    names.dedup();
    names.iter().filter_map(|name| Disk::read(root, name)).collect()
}

/// Controllers on other functions that lead to the same namespaces.
fn other_paths(root: &Root, function: &Function, together: &[Address]) -> Vec<Obstacle> {
    let mine = controllers(root, function);
    let Some(subsystem) = mine.iter().find_map(|c| subsystem(root, c)) else { return Vec::new() };
    let is_controller = |name: &String| {
        let number = name.strip_prefix("nvme").unwrap_or("");
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    };
    let others = root.names(&format!("sys/class/nvme-subsystem/{subsystem}")).into_iter();
    let others = others.filter(|name| is_controller(name) && !mine.contains(name));
    let given = |name: &String| {
        let address = root.text(&format!("sys/class/nvme/{name}/address")).and_then(|a| a.parse::<Address>().ok());
        address.is_some_and(|address| together.contains(&address))
    };
    others.filter(|name| !given(name)).map(|controller| Obstacle::OtherPath { controller }).collect()
}

/// Everything that files tell about who uses the disks of `function`.
pub fn uses(root: &Root, function: &Function, together: &[Address]) -> Vec<Obstacle> {
    let mut found = other_paths(root, function, together);
    let disks = disks(root, function);
    for disk in &disks {
        for name in disk.names() {
            found.extend(mounts(root, name, &root.text(&format!("{}/dev", disk.folder(name))).unwrap_or_default()));
            found.extend(swaps(root, name));
            found.extend(holders(root, &disk.folder(name), name));
            found.extend(lent(root, name));
        }
    }
    let mut nodes: Vec<String> = disks.iter().flat_map(Disk::names).map(|n| format!("/dev/{n}")).collect();
    for controller in controllers(root, function) {
        nodes.push(format!("/dev/{controller}"));
        // The character devices of the namespaces: commands without a block layer.
        let generic = root.names(&function.file(&format!("nvme/{controller}"))).into_iter();
        nodes.extend(generic.filter(|n| n.starts_with("ng")).map(|n| format!("/dev/{n}")));
    }
    found.extend(openers(root, &nodes));
    found
}

/// File systems on `name` with device number `number` that this process can see.
fn mounts(root: &Root, name: &str, number: &str) -> Vec<Obstacle> {
    let table = root.text("proc/self/mountinfo").unwrap_or_default();
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let (device, on) = (fields.nth(2)?, fields.nth(1)?);
        // After the optional fields and a hyphen: type, source. btrfs has a number of its own, so the source counts too.
        let source = fields.skip_while(|f| *f != "-").nth(2)?;
        let hit = device == number || unescaped(source) == format!("/dev/{name}");
        hit.then(|| Obstacle::Mounted { device: name.to_owned(), on: unescaped(on) })
    };
    table.lines().filter_map(mount).collect()
}

/// A path of a proc table: white space and backslashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 4);
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

fn swaps(root: &Root, name: &str) -> Option<Obstacle> {
    let table = root.text("proc/swaps")?;
    let mut paths = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    paths.any(|path| unescaped(path) == format!("/dev/{name}")).then(|| Obstacle::Swap { device: name.to_owned() })
}

/// Block devices that are made of `name`: md, device mapper, LVM.
fn holders(root: &Root, folder: &str, name: &str) -> Vec<Obstacle> {
    let by = |holder: String| {
        let mapped = root.text(&format!("sys/block/{holder}/dm/name"));
        let uuid = root.text(&format!("sys/block/{holder}/dm/uuid")).unwrap_or_default();
        let by = match mapped {
            Some(mapped) if uuid.starts_with("LVM-") => format!("logical volume {mapped}"),
            Some(mapped) => format!("device-mapper device {mapped}"),
            None if root.has(&format!("sys/block/{holder}/md")) => format!("md array {holder}"),
            None => holder,
        };
        Obstacle::Held { device: name.to_owned(), by }
    };
    root.names(&format!("{folder}/holders")).into_iter().map(by).collect()
}

/// Kernel users that neither hold a claim nor a descriptor of a process: loop devices and the NVMe target.
fn lent(root: &Root, name: &str) -> Vec<Obstacle> {
    let node = format!("/dev/{name}");
    let mut found = Vec::new();
    let loops = root.names("sys/block").into_iter().filter(|n| n.starts_with("loop"));
    for device in loops {
        if root.text(&format!("sys/block/{device}/loop/backing_file")).is_some_and(|f| f == node) {
            found.push(Obstacle::Held { device: name.to_owned(), by: format!("loop device {device}") });
        }
    }
    let target = "sys/kernel/config/nvmet/subsystems";
    for subsystem in root.names(target) {
        for number in root.names(&format!("{target}/{subsystem}/namespaces")) {
            let namespace = format!("{target}/{subsystem}/namespaces/{number}");
            let on = root.text(&format!("{namespace}/enable")).is_some_and(|e| e == "1");
            if on && root.text(&format!("{namespace}/device_path")).is_some_and(|p| p == node) {
                let by = format!("the kernel's NVMe target, {subsystem} namespace {number}");
                found.push(Obstacle::Held { device: name.to_owned(), by });
            }
        }
    }
    found
}

/// Processes that have one of `nodes` open, this one left out.
pub fn openers(root: &Root, nodes: &[String]) -> Vec<Obstacle> {
    let own = std::process::id();
    let mut found = Vec::new();
    for name in root.names("proc") {
        let Ok(pid) = name.parse::<u32>() else { continue };
        if pid == own && root.is_live() {
            continue;
        }
        for fd in root.names(&format!("proc/{pid}/fd")) {
            let Some(target) = root.target(&format!("proc/{pid}/fd/{fd}")) else { continue };
            if let Some(node) = nodes.iter().find(|node| Path::new(node.as_str()) == target) {
                let program = root.text(&format!("proc/{pid}/comm")).unwrap_or_default();
                found.push(Obstacle::Open { node: node.clone(), pid, program });
                break;
            }
        }
    }
    found
}

/// True when every controller of the function works.
pub fn is_live(root: &Root, function: &Function) -> bool {
    let controllers = controllers(root, function);
    let live = |c: &String| root.text(&function.file(&format!("nvme/{c}/state"))).is_some_and(|s| s == "live");
    !controllers.is_empty() && controllers.iter().all(live)
}
