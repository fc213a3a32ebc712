//! What the machine is: CPUs, hugepages, limits of this process, settings of the kernel.

use super::root::Root;

/// CPUs, each list as the kernel writes it (`0-3,6`), empty when it has none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cpus {
    /// Switched on.
    pub online: String,
    /// Those this process may run on.
    pub allowed: String,
    /// Kept free of everything that does not name them (`isolcpus`).
    pub isolated: String,
    /// Without a periodic tick (`nohz_full`).
    pub tickless: String,
    /// `GenuineIntel`, `AuthenticAMD`; none where the kernel has no such line.
    pub vendor: Option<String>,
    /// The frequency governor, where there is one.
    pub governor: Option<String>,
}

impl Cpus {
    /// Reads them.
    pub fn read(root: &Root) -> Cpus {
        let file = |name: &str| root.text(&format!("sys/devices/system/cpu/{name}")).unwrap_or_default();
        // A kernel without tickless CPUs writes "(null)".
        let list = |name: &str| Some(file(name)).filter(|l| l != "(null)").unwrap_or_default();
        Cpus {
            online: list("online"),
            allowed: status(root, "Cpus_allowed_list").unwrap_or_default(),
            isolated: list("isolated"),
            tickless: list("nohz_full"),
            vendor: keyed(&root.text("proc/cpuinfo").unwrap_or_default(), "vendor_id"),
            governor: Some(file("cpu0/cpufreq/scaling_governor")).filter(|g| !g.is_empty()),
        }
    }
}

/// The hugepages of one size on one NUMA node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HugePages {
    /// NUMA node.
    pub node: u32,
    /// KiB per page: 2048 or 1048576 on this architecture.
    pub page_kib: u64,
    /// Pages that are set aside.
    pub total: u64,
    /// Those nobody uses.
    pub free: u64,
}

/// The hugepages of every size on every node, by node and size.
pub fn hugepages(root: &Root) -> Vec<HugePages> {
    let mut found = Vec::new();
    let nodes: Vec<(u32, String)> = root
        .names("sys/devices/system/node")
        .iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .map(|node: u32| (node, format!("sys/devices/system/node/node{node}/hugepages")))
        .collect();
    // A kernel without NUMA has one place for all.
    let places = if nodes.is_empty() { vec![(0, "sys/kernel/mm/hugepages".to_owned())] } else { nodes };
    for (node, place) in places {
        for name in root.names(&place) {
            let kib = name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")).and_then(|n| n.parse().ok());
            let file = |file: &str| root.number(&format!("{place}/{name}/{file}")).unwrap_or(0);
            found.extend(kib.map(|page_kib| HugePages {
                node,
                page_kib,
                total: file("nr_hugepages"),
                free: file("free_hugepages"),
            }));
        }
    }
    found.sort_by_key(|h| (h.node, h.page_kib));
    found
}

/// A line `key: value` of this process's status.
fn status(root: &Root, key: &str) -> Option<String> {
    keyed(&root.text("proc/self/status")?, key)
}

fn keyed(text: &str, key: &str) -> Option<String> {
    let value = |line: &str| line.strip_prefix(key)?.trim_start().strip_prefix(':').map(|v| v.trim().to_owned());
    text.lines().find_map(value)
}

/// A soft limit of this process; `None` for unlimited, 0 when it can not be read.
fn soft_limit(root: &Root, name: &str) -> Option<u64> {
    let text = root.text("proc/self/limits").unwrap_or_default();
    let soft = text.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next().map(str::to_owned));
    match soft.as_deref() {
        Some("unlimited") => None,
        soft => Some(soft.and_then(|s| s.parse().ok()).unwrap_or(0)),
    }
}

/// Bytes that this process may lock: registered buffers and DMA count. `None`: as many as it wants.
pub fn memlock(root: &Root) -> Option<u64> {
    /// `CAP_IPC_LOCK`: the limit does not hold for it.
    const IPC_LOCK: u64 = 1 << 14;
    let capabilities = status(root, "CapEff").and_then(|c| u64::from_str_radix(&c, 16).ok()).unwrap_or(0);
    if capabilities & IPC_LOCK != 0 { None } else { soft_limit(root, "Max locked memory") }
}

/// Descriptors that this process may have open; `None` for unlimited.
pub fn open_files(root: &Root) -> Option<u64> {
    soft_limit(root, "Max open files")
}

/// A setting of the kernel: `sysctl(root, "net.core.somaxconn")`.
pub fn sysctl(root: &Root, name: &str) -> Option<String> {
    root.text(&format!("proc/sys/{}", name.replace('.', "/")))
}
