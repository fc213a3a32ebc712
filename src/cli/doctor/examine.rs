//! From facts to findings. Reads files under a root, and nothing else.

use super::super::device::{Listed, listed};
use super::{Build, Finding, Grade, Probes};
use crate::base::limits::CONNS_PER_CORE;
use crate::host::facts::{self, Cpus, hugepages, sysctl};
use crate::host::{Iommu, Kind, Root, remaps_interrupts};
use crate::mem::Sizing;
use std::collections::BTreeSet;

/// Largest TCP buffers below which a connection of 128 KiB transfers waits on a fast network, bytes.
const TCP_BUFFER: u64 = 6 << 20;
/// Connections that wait to be accepted.
const BACKLOG: u64 = 1024;
/// 2 MiB hugepages per node that hold the buffers of a few cores and what a controller needs: 1 GiB.
const HUGE_PAGES: u64 = 512;

/// Everything there is to say, in the order in which it is done: the process, memory, devices, network, build.
pub fn examine(root: &Root, probes: &Probes, build: Build) -> Vec<Finding> {
    let cpus = Cpus::read(root);
    let mut found = vec![cores(&cpus)];
    found.extend(governor(&cpus));
    found.push(clock(root));
    found.extend(pages(root));
    found.push(memlock(root));
    found.push(files(root));
    found.push(uring(root, probes));
    found.push(direct(probes));
    found.push(iommu(root, &cpus));
    found.push(vfio(root));
    let devices = listed(root);
    found.extend(disks(&devices));
    found.extend(nics(&devices, build));
    found.extend(tcp(root, probes));
    found.extend(features(build));
    found
}

/// The CPUs of a kernel list.
fn cpu_set(list: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some(low.trim().parse::<usize>().ok()?..=high.trim().parse::<usize>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The reverse.
fn cpu_list(set: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in set {
        match ranges.last_mut() {
            Some((_, high)) if *high + 1 == *cpu => *high = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let text = |(low, high): &(usize, usize)| if low == high { low.to_string() } else { format!("{low}-{high}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

fn cores(cpus: &Cpus) -> Finding {
    let (online, isolated) = (cpu_set(&cpus.online), cpu_set(&cpus.isolated));
    let mut text = format!("{} online ({})", online.len(), cpus.online);
    if !cpus.allowed.is_empty() && cpu_set(&cpus.allowed) != online {
        text = format!("{text}, this process may use {}", cpus.allowed);
    }
    match isolated.len() {
        0 if online.len() < 2 => Finding::new("cores", Grade::Ok, text),
        0 => {
            // The first CPU stays with the kernel; on large machines the first of every eight does not hurt.
            let rest = cpu_list(&online.iter().copied().skip(1).collect());
            Finding::new(
                "cores",
                Grade::Better,
                format!("{text}, none isolated: other programs and interrupts share them"),
            )
            .step(format!("kernel arguments: isolcpus=managed_irq,domain,{rest} nohz_full={rest} rcu_nocbs={rest}"))
            .step(format!("then: pollux serve --cores {rest}"))
        }
        _ if cpus.tickless.is_empty() => {
            let list = &cpus.isolated;
            Finding::new("cores", Grade::Better, format!("{text}, isolated {list}, each still with a periodic tick"))
                .step(format!("kernel arguments: nohz_full={list} rcu_nocbs={list}"))
        }
        _ => {
            Finding::new("cores", Grade::Ok, format!("{text}, isolated {}, tickless {}", cpus.isolated, cpus.tickless))
        }
    }
}

fn governor(cpus: &Cpus) -> Option<Finding> {
    let governor = cpus.governor.as_deref()?;
    Some(match governor {
        "performance" => Finding::new("frequency", Grade::Ok, "governor performance"),
        other => {
            Finding::new("frequency", Grade::Better, format!("governor {other}: a core that wakes is slow at first"))
                .step("cpupower frequency-set -g performance")
        }
    })
}

fn clock(root: &Root) -> Finding {
    let source = root.text("sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap_or_default();
    match source.as_str() {
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" => {
            Finding::new("clock", Grade::Better, format!("{source}: reading the time is a system call"))
                .step("kernel arguments: clocksource=tsc tsc=reliable (where the CPU's counter is)")
        }
        "" => Finding::new("clock", Grade::Ok, "the kernel does not say which"),
        _ => Finding::new("clock", Grade::Ok, source),
    }
}

fn pages(root: &Root) -> Vec<Finding> {
    let all = hugepages(root);
    let per_core = Sizing::default().bytes_per_core() >> 20;
    let transparent = root.text("sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let mut found = Vec::new();
    let nodes: BTreeSet<u32> = all.iter().map(|h| h.node).collect();
    for node in nodes {
        let of: Vec<_> = all.iter().filter(|h| h.node == node).collect();
        let size = |kib: u64| if kib >= 1 << 20 { format!("{} GiB", kib >> 20) } else { format!("{} MiB", kib >> 10) };
        let part = |h: &&facts::HugePages| format!("{} of {} pages of {} free", h.free, h.total, size(h.page_kib));
        let text = format!("node {node}: {}", of.iter().map(part).collect::<Vec<_>>().join(", "));
        let free: u64 = of.iter().filter(|h| h.page_kib == 2048).map(|h| h.free).sum();
        if free * 2 >= per_core as u64 {
            found.push(Finding::new("hugepages", Grade::Ok, text));
            continue;
        }
        let text = format!("{text}; a core takes {per_core} MiB, and uses ordinary memory where there are too few");
        let file = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages");
        let place = if root.has(&file[1..]) {
            format!("echo {HUGE_PAGES} > {file}")
        } else {
            format!("sysctl -w vm.nr_hugepages={HUGE_PAGES}")
        };
        found.push(Finding::new("hugepages", Grade::Better, text).step(place));
    }
    if found.is_empty() {
        found.push(Finding::new("hugepages", Grade::Better, "this kernel has none: ordinary memory is used"));
    }
    if transparent.contains("[never]") {
        let text = "transparent hugepages are off: memory that is not on hugepages costs more address translation";
        found.push(
            Finding::new("hugepages", Grade::Better, text)
                .step("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        );
    }
    found
}

fn memlock(root: &Root) -> Finding {
    let per_core = Sizing::default().bytes_per_core() as u64;
    match facts::memlock(root) {
        None => Finding::new("memlock", Grade::Ok, "no limit for this process"),
        Some(bytes) if bytes >= per_core => Finding::new("memlock", Grade::Ok, format!("{} MiB", bytes >> 20)),
        Some(bytes) => {
            let text = format!(
                "{} KiB: the {} MiB of buffers per core can be neither registered with io_uring nor used for DMA",
                bytes >> 10,
                per_core >> 20
            );
            Finding::new("memlock", Grade::Better, text)
                .step("ulimit -l unlimited (as root), LimitMEMLOCK=infinity in a systemd unit")
        }
    }
}

fn files(root: &Root) -> Finding {
    let wanted = CONNS_PER_CORE as u64 + 256;
    match facts::open_files(root) {
        None => Finding::new("files", Grade::Ok, "no limit on open descriptors"),
        Some(n) if n >= wanted => Finding::new("files", Grade::Ok, format!("{n} open descriptors")),
        Some(n) => Finding::new("files", Grade::Better, format!("{n} open descriptors limit the connections"))
            .step(format!("ulimit -n {wanted}, LimitNOFILE={wanted} in a systemd unit")),
    }
}

fn uring(root: &Root, probes: &Probes) -> Finding {
    let kernel = root.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let disabled = sysctl(root, "kernel.io_uring_disabled");
    let text = format!("Linux {kernel}, kernel.io_uring_disabled {}", disabled.as_deref().unwrap_or("not there"));
    match &probes.uring {
        Ok(true) => Finding::new("io_uring", Grade::Ok, format!("{text}; works, buffers registered")),
        Ok(false) => {
            Finding::new("io_uring", Grade::Better, format!("{text}; works, but its buffers could not be registered"))
                .step("ulimit -l unlimited (as root), LimitMEMLOCK=infinity in a systemd unit")
        }
        Err(why) => {
            let f =
                Finding::new("io_uring", Grade::Missing, format!("{text}; {why}: no file or block device can be used"));
            let f = if disabled.is_none_or(|d| d == "0") {
                f.step("let the container's or service's system call filter pass io_uring_setup, _enter and _register")
            } else {
                f.step("sysctl -w kernel.io_uring_disabled=0")
            };
            f.needed()
        }
    }
}

fn direct(probes: &Probes) -> Finding {
    let path = probes.path.display();
    match &probes.direct {
        Ok(()) => Finding::new("direct", Grade::Ok, format!("{path} takes direct I/O")),
        Err(why) => {
            let text = format!("{path}: no direct I/O ({why}): stores there would go through the page cache");
            Finding::new("direct", Grade::Better, text)
                .step("keep stores on ext4, xfs or a block device: pollux doctor --path PATH tells")
        }
    }
}

fn iommu(root: &Root, cpus: &Cpus) -> Finding {
    let groups = root.names("sys/kernel/iommu_groups");
    let confining =
        |g: &&String| root.text(&format!("sys/kernel/iommu_groups/{g}/name")).as_deref() != Some("vfio-noiommu");
    let count = groups.iter().filter(confining).count();
    if count > 0 {
        let text = format!("{count} groups ({})", root.names("sys/class/iommu").join(" "));
        return if remaps_interrupts(root) {
            Finding::new("iommu", Grade::Ok, text)
        } else {
            let text = format!("{text}, interrupts not remapped: `pollux device bind` has to allow unsafe interrupts");
            Finding::new("iommu", Grade::Better, text)
                .step("firmware set-up: interrupt remapping, x2APIC; not intremap=off among the kernel arguments")
        };
    }
    let argument = match cpus.vendor.as_deref() {
        Some("AuthenticAMD") => "amd_iommu=on",
        _ => "intel_iommu=on",
    };
    // The firmware describes an IOMMU to the kernel in one of these tables.
    let described = ["DMAR", "IVRS"].iter().any(|t| root.has(&format!("sys/firmware/acpi/tables/{t}")));
    let finding = Finding::new("iommu", Grade::Missing, "no groups: devices can not be given to a process safely");
    let finding = if described {
        finding
    } else {
        finding.step("firmware set-up: switch VT-d or AMD-Vi on (a virtual machine: a virtual IOMMU)")
    };
    finding.step(format!("kernel arguments: {argument} iommu=pt"))
}

fn vfio(root: &Root) -> Finding {
    let loaded = root.has("sys/bus/pci/drivers/vfio-pci") && root.has("sys/module/vfio_iommu_type1");
    if loaded {
        return Finding::new("vfio", Grade::Ok, "vfio-pci and vfio_iommu_type1 are there");
    }
    let text = "vfio-pci is not loaded (`pollux device bind` loads it where modprobe can)";
    Finding::new("vfio", Grade::Better, text).step("modprobe -a vfio-pci vfio_iommu_type1")
}

fn name(l: &Listed) -> String {
    let f = &l.function;
    let driver = f.driver.as_deref().map_or_else(|| "no driver".to_owned(), |d| format!("driver {d}"));
    let node = f.numa.map_or_else(String::new, |n| format!(", node {n}"));
    let children = if l.children.is_empty() { String::new() } else { format!(" ({})", l.children.join(", ")) };
    format!("{} {:04x}:{:04x}{children}, {driver}{node}", f.address, f.vendor, f.device)
}

fn refusal(topic: &'static str, l: &Listed) -> Finding {
    let why: Vec<String> = l.obstacles.iter().map(ToString::to_string).collect();
    Finding::new(topic, Grade::Better, format!("{}: not bindable: {}", name(l), why.join("; ")))
}

fn disks(devices: &[Listed]) -> Vec<Finding> {
    let look = |l: &Listed| {
        let address = l.function.address;
        if l.function.is_vfio() {
            let confined = if matches!(l.iommu, Iommu::Group(_)) { "" } else { ", WITHOUT an IOMMU" };
            Finding::new("nvme", Grade::Ok, format!("{}: --device nvme:{address}{confined}", name(l)))
        } else if l.obstacles.is_empty() {
            Finding::new("nvme", Grade::Better, format!("{}: bindable, the kernel drives it until then", name(l)))
                .step(format!("pollux device bind {address}, then --device nvme:{address}"))
        } else {
            refusal("nvme", l)
        }
    };
    let found: Vec<Finding> = devices.iter().filter(|l| l.function.kind == Kind::Nvme).map(look).collect();
    if found.is_empty() {
        return vec![Finding::new(
            "nvme",
            Grade::Ok,
            "no NVMe controller on PCI: files and block devices through io_uring",
        )];
    }
    found
}

fn nics(devices: &[Listed], build: Build) -> Vec<Finding> {
    let look = |l: &Listed| {
        let address = l.function.address;
        if l.function.is_vfio() {
            Finding::new("nic", Grade::Ok, format!("{}: [net.dpdk] port = \"{address}\"", name(l)))
        } else if !build.dpdk {
            // Without DPDK the kernel drives every card, and that is as it should be.
            Finding::new("nic", Grade::Ok, format!("{}: the kernel drives it", name(l)))
        } else if l.obstacles.is_empty() {
            Finding::new("nic", Grade::Better, format!("{}: bindable, the kernel drives it until then", name(l)))
                .step(format!("pollux device bind {address}, then [net.dpdk] port = \"{address}\""))
        } else {
            refusal("nic", l)
        }
    };
    let found: Vec<Finding> = devices.iter().filter(|l| l.function.kind == Kind::Nic).map(look).collect();
    if found.is_empty() {
        return vec![Finding::new("nic", Grade::Ok, "no network controller on PCI: the kernel's network")];
    }
    found
}

fn tcp(root: &Root, probes: &Probes) -> Vec<Finding> {
    let mut found = Vec::new();
    for (engine, result) in &probes.engines {
        found.push(match result {
            Ok(()) => Finding::new("tcp", Grade::Ok, format!("engine {engine} works")),
            Err(why) => Finding::new("tcp", Grade::Missing, format!("engine {engine}: {why}"))
                .step("another engine: [net] engine = \"tcp\" or \"uring\" in the configuration"),
        });
    }
    // One engine is enough.
    if probes.engines.iter().all(|(_, result)| result.is_err()) {
        for f in &mut found {
            f.needed = true;
        }
    }
    for name in ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"] {
        let Some(text) = sysctl(root, name) else { continue };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let most = text.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        found.push(if most >= TCP_BUFFER {
            Finding::new("tcp", Grade::Ok, format!("{name} = {text}"))
        } else {
            let least = text.rsplit_once(' ').map_or("4096 131072", |(least, _)| least);
            Finding::new("tcp", Grade::Better, format!("{name} = {text}: large transfers wait for the buffer"))
                .step(format!("sysctl -w {name}='{least} {TCP_BUFFER}'"))
        });
    }
    if let Some(n) = sysctl(root, "net.core.somaxconn").and_then(|n| n.parse::<u64>().ok()) {
        found.push(if n >= BACKLOG {
            Finding::new("tcp", Grade::Ok, format!("net.core.somaxconn = {n}"))
        } else {
            Finding::new("tcp", Grade::Better, format!("net.core.somaxconn = {n}: hosts that connect together wait"))
                .step(format!("sysctl -w net.core.somaxconn={BACKLOG}"))
        });
    }
    let congestion = sysctl(root, "net.ipv4.tcp_congestion_control").unwrap_or_default();
    found.extend(
        (!congestion.is_empty()).then(|| Finding::new("tcp", Grade::Ok, format!("congestion control {congestion}"))),
    );
    found
}

fn features(build: Build) -> Vec<Finding> {
    let feature = |on: bool, name: &str, what: &str, steps: [&str; 2]| {
        if on {
            return Finding::new("build", Grade::Ok, format!("feature {name}: {what}"));
        }
        let f = Finding::new("build", Grade::Better, format!("built without feature {name}: {what}"));
        f.step(steps[0]).step(steps[1])
    };
    vec![
        Finding::new("build", Grade::Ok, "userspace NVMe over VFIO (nvme:ADDRESS), io_uring, kernel TCP"),
        feature(
            build.dpdk,
            "dpdk",
            "network cards without the kernel",
            ["apt-get install libdpdk-dev libclang-dev pkg-config", "cargo build --release --features dpdk"],
        ),
        feature(
            build.spdk,
            "spdk",
            "NVMe through SPDK's driver, over PCIe, TCP and vfio-user",
            [
                "install SPDK so that pkg-config finds spdk_nvme (not in Debian)",
                "cargo build --release --features spdk",
            ],
        ),
    ]
}
