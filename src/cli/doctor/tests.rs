//! Findings on machines of files, and the probes on this one.

use super::examine::examine;
use super::*;
use crate::host::Kernel;
use crate::host::fake::Fake;
use crate::net::Engine;

const BUILD: Build = Build { dpdk: true, spdk: false };

fn good_probes() -> Probes {
    Probes {
        uring: Ok(true),
        path: "/data".into(),
        direct: Ok(()),
        engines: [(Engine::Tcp, Ok(())), (Engine::Uring, Ok(()))],
    }
}

/// A server on which nothing is left to do.
fn server() -> Fake {
    let f = Fake::new();
    for (file, text) in [
        ("sys/devices/system/cpu/online", "0-7\n"),
        ("sys/devices/system/cpu/isolated", "1-7\n"),
        ("sys/devices/system/cpu/nohz_full", "1-7\n"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ("proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\n"),
        ("proc/self/status", "Name:\tpollux\nCpus_allowed_list:\t0-7\nCapEff:\t0000000000004000\n"),
        (
            "proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max open files            1048576              1048576              files     \n\
             Max locked memory         8388608              8388608              bytes     \n",
        ),
        ("proc/sys/kernel/osrelease", "6.12.1\n"),
        ("proc/sys/kernel/io_uring_disabled", "0\n"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t6291456\n"),
        ("proc/sys/net/core/somaxconn", "4096\n"),
        ("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n"),
        ("sys/class/iommu/ivhd0/x", ""),
    ] {
        f.put(file, text);
    }
    for node in 0..2 {
        let place = format!("sys/devices/system/node/node{node}/hugepages");
        f.put(&format!("{place}/hugepages-2048kB/nr_hugepages"), "4096\n");
        f.put(&format!("{place}/hugepages-2048kB/free_hugepages"), "4000\n");
        f.put(&format!("{place}/hugepages-1048576kB/nr_hugepages"), "2\n");
        f.put(&format!("{place}/hugepages-1048576kB/free_hugepages"), "1\n");
    }
    f.function("0000:00:03.0", "0x010802\n", Some("vfio-pci"), Some(3));
    f.function("0000:00:02.0", "0x020000\n", Some("vfio-pci"), Some(2));
    f
}

fn of<'a>(found: &'a [Finding], topic: &str) -> Vec<&'a Finding> {
    found.iter().filter(|f| f.topic == topic).collect()
}

/// The findings on the server after `change`: all fine but one of `topic`, which is returned.
fn changed(topic: &str, change: impl Fn(&mut Fake, &mut Probes, &mut Build)) -> Finding {
    let (mut fake, mut probes, mut build) = (server(), good_probes(), Build { spdk: true, ..BUILD });
    change(&mut fake, &mut probes, &mut build);
    let found = examine(fake.root(), &probes, build);
    let mut bad: Vec<&Finding> = found.iter().filter(|f| f.grade != Grade::Ok).collect();
    assert!(bad.len() == 1 && bad[0].topic == topic, "{topic}: {bad:#?}");
    bad.pop().unwrap().clone()
}

#[test]
fn a_server_on_which_nothing_is_left_to_do() {
    let found = examine(server().root(), &good_probes(), BUILD);
    let bad: Vec<_> = found.iter().filter(|f| f.grade != Grade::Ok).map(|f| f.text.as_str()).collect();
    assert_eq!(bad, ["built without feature spdk: NVMe through SPDK's driver, over PCIe, TCP and vfio-user"]);
    assert!(runs(&found));
    let pages = of(&found, "hugepages");
    assert_eq!(pages.len(), 2);
    assert_eq!(pages[1].text, "node 1: 4000 of 4096 pages of 2 MiB free, 1 of 2 pages of 1 GiB free");
    assert_eq!(of(&found, "memlock")[0].text, "no limit for this process");
    assert_eq!(of(&found, "iommu")[0].text, "2 groups (ivhd0)");
    let text = to_text(&found);
    assert!(text.ends_with(&format!("{} ok, 1 could be better, 0 missing", found.len() - 1)), "{text}");
    let json = to_json(&found);
    assert_eq!((&json["runs"], &json["missing"], &json["better"]), (&true.into(), &0.into(), &1.into()));
}

#[test]
fn each_thing_that_is_left_to_do_comes_with_its_step() {
    type Change<'a> = &'a dyn Fn(&mut Fake, &mut Probes, &mut Build);
    let cases: [(&str, &str, &str, Change); 18] = [
        ("cores", "none isolated", "isolcpus=managed_irq,domain,1-7 nohz_full=1-7", &|f, _, _| {
            f.put("sys/devices/system/cpu/isolated", "\n");
        }),
        ("cores", "periodic tick", "nohz_full=1-7 rcu_nocbs=1-7", &|f, _, _| {
            f.put("sys/devices/system/cpu/nohz_full", " (null)\n");
        }),
        ("frequency", "powersave", "cpupower frequency-set -g performance", &|f, _, _| {
            f.put("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
        }),
        ("clock", "hpet", "clocksource=tsc", &|f, _, _| {
            f.put("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n");
        }),
        ("hugepages", "node 1: 0 of 0 pages", "node1/hugepages/hugepages-2048kB/nr_hugepages", &|f, _, _| {
            for file in ["nr_hugepages", "free_hugepages"] {
                f.put(&format!("sys/devices/system/node/node1/hugepages/hugepages-2048kB/{file}"), "0\n");
            }
        }),
        ("hugepages", "transparent hugepages are off", "echo madvise", &|f, _, _| {
            f.put("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
        }),
        ("memlock", "8192 KiB", "LimitMEMLOCK=infinity", &|f, _, _| {
            f.put("proc/self/status", "CapEff:\t0000000000000000\n");
        }),
        ("files", "1024 open", "LimitNOFILE=", &|f, _, _| {
            f.put("proc/self/limits", "Max open files            1024   4096   files\n");
        }),
        ("io_uring", "not there", "kernel.io_uring_disabled=0", &|f, p, _| {
            f.put("proc/sys/kernel/io_uring_disabled", "2\n");
            p.uring = Err("not there".into());
        }),
        ("io_uring", "EPERM", "system call filter", &|_, p, _| p.uring = Err("EPERM".into())),
        ("io_uring", "could not be registered", "ulimit -l", &|_, p, _| p.uring = Ok(false)),
        ("direct", "/data: no direct I/O (Invalid", "ext4, xfs", &|_, p, _| p.direct = Err("Invalid argument".into())),
        ("iommu", "interrupts not remapped", "interrupt remapping", &|f, _, _| {
            f.put("proc/interrupts", " 0: 1 IO-APIC 2-edge timer\n");
        }),
        ("vfio", "not loaded", "modprobe -a vfio-pci", &|f, _, _| f.remove("sys/module/vfio_iommu_type1")),
        ("nvme", "nvme0n1 1.0 GiB 4096), driver nvme: bindable", "pollux device bind 0000:00:04.0", &|f, _, _| {
            f.nvme("0000:00:04.0", 0, Some(4));
        }),
        ("nic", "eth0 up), driver virtio-pci: bindable", "pollux device bind 0000:00:05.0", &|f, _, _| {
            f.nic("0000:00:05.0", "eth0", Some(5));
        }),
        ("tcp", "tcp_rmem = 4096 131072 212992", "sysctl -w net.ipv4.tcp_rmem='4096 131072 6291456'", &|f, _, _| {
            f.put("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t212992\n");
        }),
        ("build", "without feature dpdk", "apt-get install libdpdk-dev", &|_, _, b| b.dpdk = false),
    ];
    for (topic, text, step, change) in cases {
        let found = changed(topic, change);
        assert!(found.text.contains(text), "{topic}: {}", found.text);
        assert!(found.steps.iter().any(|s| s.contains(step)), "{topic}: {:?}", found.steps);
    }
}

#[test]
fn without_an_iommu_the_steps_depend_on_the_firmware_and_the_cpu() {
    let without = |tables: Option<&str>| {
        changed("iommu", |f, _, _| {
            f.remove("sys/kernel/iommu_groups");
            if let Some(table) = tables {
                f.put(&format!("sys/firmware/acpi/tables/{table}"), "");
            }
        })
    };
    let found = without(Some("IVRS"));
    assert_eq!(
        (found.grade, found.steps.as_slice()),
        (Grade::Missing, ["kernel arguments: amd_iommu=on iommu=pt".to_owned()].as_slice())
    );
    assert!(without(None).steps[0].starts_with("firmware set-up"));
}

#[test]
fn a_disk_in_use_says_why_it_is_not_bindable() {
    let found = changed("nvme", |f, _, _| {
        f.nvme("0000:00:04.0", 0, Some(4));
        f.put("proc/swaps", "Filename Type\n/dev/nvme0n1 partition\n");
    });
    assert!(found.text.contains("not bindable: nvme0n1 is swap space") && found.steps.is_empty(), "{found:?}");
}

#[test]
fn only_what_is_needed_fails_the_command() {
    let mut probes = good_probes();
    probes.engines[1].1 = Err("no".into());
    let found = examine(server().root(), &probes, BUILD);
    assert!(runs(&found) && of(&found, "tcp")[1].grade == Grade::Missing);
    probes.engines[0].1 = Err("no".into());
    assert!(!runs(&examine(server().root(), &probes, BUILD)));
    let probes = Probes { uring: Err("no".into()), ..good_probes() };
    assert!(!runs(&examine(server().root(), &probes, BUILD)));
}

#[test]
fn a_machine_that_shows_nothing_is_described_too() {
    let empty = tempfile::tempdir().unwrap();
    let found = examine(&Root::at(empty.path()), &good_probes(), BUILD);
    assert!(of(&found, "hugepages")[0].text.contains("this kernel has none"));
    assert!(of(&found, "nvme")[0].text.contains("no NVMe controller"));
    assert!(runs(&found));
}

#[test]
fn the_probes_tell_what_this_machine_does_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let probes = Probes::run(dir.path());
    assert!(probes.engines[0].1.is_ok(), "plain sockets work everywhere: {probes:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let name = format!("pollux-doctor-{}", std::process::id());
    assert!(!std::env::temp_dir().join(name).exists());
    assert!(Probes::run(&dir.path().join("none")).direct.is_err());
    let found = examine(&Root::live(), &probes, Build::this());
    for topic in ["cores", "memlock", "io_uring", "direct", "iommu", "vfio", "nvme", "nic", "tcp", "build"] {
        assert!(!of(&found, topic).is_empty(), "{topic}");
    }
    assert_eq!(runs(&found), probes.uring.is_ok());
}
