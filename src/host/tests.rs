//! Binding and giving back on machines of files: what is refused and why, what is written in which order, and what is left
//! behind when something fails.

use super::bind::{BindError, Bound, Options, bind, unbind};
use super::fake::Fake;
use super::*;

const DISK: &str = "0000:00:03.0";
/// Something done to a machine.
type Change<'a> = &'a dyn Fn(&mut Fake);

const NIC: &str = "0000:00:02.0";

fn try_bind(fake: &mut Fake, addresses: &[Address], no_iommu: bool) -> Result<Vec<Bound>, BindError> {
    let state = fake.state();
    bind(fake, addresses, Options { state: &state, no_iommu })
}

fn give_back(fake: &mut Fake, address: Address) -> Result<bind::Given, BindError> {
    let state = fake.state();
    unbind(fake, address, &state)
}

/// One disk in a group of its own.
fn machine() -> (Fake, Address) {
    let fake = Fake::new();
    let disk = fake.nvme(DISK, 0, Some(3));
    (fake, disk)
}

fn driver(fake: &Fake, address: Address) -> Option<String> {
    Function::read(fake.root(), address).unwrap().driver
}

/// Refused, for one reason that contains `part`, with nothing changed.
fn refused(fake: &mut Fake, addresses: &[Address], part: &str) {
    let before: Vec<_> = addresses.iter().map(|a| driver(fake, *a)).collect();
    let error = try_bind(fake, addresses, false).unwrap_err();
    assert!(matches!(&error, BindError::Refused(all) if all.len() == 1 && all[0].1.len() == 1), "{error}");
    let text = error.to_string();
    assert!(text.contains(part) && text.contains(": refused: "), "{text}");
    assert_eq!(before, addresses.iter().map(|a| driver(fake, *a)).collect::<Vec<_>>());
    assert_eq!(fake.written, Vec::<String>::new(), "nothing is written when something is refused");
    assert!(!fake.state().exists());
}

#[test]
fn a_disk_goes_to_vfio_and_comes_back() {
    let (mut fake, disk) = machine();
    fake.disk_delay = 3;
    let bound = try_bind(&mut fake, &[disk], false).unwrap();
    let expected = Bound {
        address: disk,
        was: Some("nvme".into()),
        already: false,
        iommu: Iommu::Group(3),
        unsafe_interrupts: false,
    };
    assert_eq!(bound, [expected]);
    assert_eq!(driver(&fake, disk).as_deref(), Some("vfio-pci"));
    assert!(!fake.root().has("sys/block/nvme0n1"));
    let device = "sys/bus/pci/devices/0000:00:03.0";
    let steps = [
        format!("{device}/driver_override=vfio-pci"),
        format!("{device}/driver/unbind={DISK}"),
        format!("sys/bus/pci/drivers_probe={DISK}"),
    ];
    assert_eq!(fake.written, steps);

    // Again: nothing happens, and what it was is still known.
    let again = try_bind(&mut fake, &[disk], false).unwrap();
    assert!(again[0].already && again[0].was.as_deref() == Some("nvme") && fake.written.len() == 3);

    let given = give_back(&mut fake, disk).unwrap();
    assert_eq!((given.driver.as_deref(), given.already), (Some("nvme"), false));
    assert_eq!(given.children, ["nvme0n1"], "it waited for the disk");
    let f = Function::read(fake.root(), disk).unwrap();
    assert_eq!((f.driver.as_deref(), f.driver_override), (Some("nvme"), None));
    assert_eq!(Record::load(&fake.state(), disk).unwrap(), None);
    let error = give_back(&mut fake, disk).unwrap_err();
    assert!(matches!(error, BindError::NotBound { .. }) && error.to_string().contains("it is with nvme"), "{error}");
}

#[test]
fn an_old_override_comes_back_too_and_a_driverless_function_stays_so() {
    let (mut fake, disk) = machine();
    fake.put("sys/bus/pci/devices/0000:00:03.0/driver_override", "nvme\n");
    try_bind(&mut fake, &[disk], false).unwrap();
    give_back(&mut fake, disk).unwrap();
    assert_eq!(Function::read(fake.root(), disk).unwrap().driver_override.as_deref(), Some("nvme"));

    let mut fake = Fake::new();
    let disk = fake.function(DISK, "0x010802\n", None, Some(3));
    let bound = try_bind(&mut fake, &[disk], false).unwrap();
    assert_eq!(bound[0].was, None);
    let given = give_back(&mut fake, disk).unwrap();
    assert_eq!((given.driver, driver(&fake, disk)), (None, None));
}

#[test]
fn without_a_record_the_kernel_chooses() {
    let (mut fake, disk) = machine();
    try_bind(&mut fake, &[disk], false).unwrap();
    Record::remove(&fake.state(), disk).unwrap();
    assert_eq!(give_back(&mut fake, disk).unwrap().driver.as_deref(), Some("nvme"));

    // The remembered driver is gone: another may take it.
    try_bind(&mut fake, &[disk], false).unwrap();
    let record = Record {
        driver: Some("gone".into()),
        driver_override: None,
        children: 1,
        no_iommu: false,
        unsafe_interrupts: false,
    };
    record.save(&fake.state(), disk).unwrap();
    assert_eq!(give_back(&mut fake, disk).unwrap().driver.as_deref(), Some("nvme"));
}

#[test]
fn a_damaged_record_is_told_and_nothing_is_changed() {
    let (mut fake, disk) = machine();
    try_bind(&mut fake, &[disk], false).unwrap();
    fake.put("run/pollux/device-0000:00:03.0.json", "{\"driver\":");
    let error = give_back(&mut fake, disk).unwrap_err().to_string();
    assert!(error.contains("record in") && error.contains("run/pollux"), "{error}");
    assert_eq!(driver(&fake, disk).as_deref(), Some("vfio-pci"));
}

#[test]
fn disks_in_use_are_refused() {
    let table = |line: &str| format!("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}\n");
    let mounted = "30 22 259:1 / /mnt/two\\040words rw,relatime shared:9 master:1 - ext4 /dev/root rw";
    let btrfs = "31 22 0:45 /@ /data rw - btrfs /dev/nvme0n1 rw,subvol=/@";
    let cases: [(&str, Change); 12] = [
        ("nvme0n1p1 is mounted on /mnt/two words", &|f| {
            f.partition("nvme0n1", 1);
            f.put("proc/self/mountinfo", &table(mounted));
        }),
        ("nvme0n1 is mounted on /data", &|f| f.put("proc/self/mountinfo", &table(btrfs))),
        ("nvme0n1p2 is swap space", &|f| {
            f.partition("nvme0n1", 2);
            f.put("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 1 0 -2\n");
        }),
        ("nvme0n1 is in use by md array md0", &|f| {
            f.put("sys/block/md0/md/level", "raid1\n");
            f.put("sys/block/nvme0n1/holders/md0", "");
        }),
        ("nvme0n1p1 is in use by logical volume vg-lv", &|f| {
            f.partition("nvme0n1", 1);
            f.put("sys/block/dm-0/dm/name", "vg-lv\n");
            f.put("sys/block/dm-0/dm/uuid", "LVM-abc\n");
            f.put("sys/block/nvme0n1/nvme0n1p1/holders/dm-0", "");
        }),
        ("nvme0n1 is in use by device-mapper device crypt", &|f| {
            f.put("sys/block/dm-1/dm/name", "crypt\n");
            f.put("sys/block/dm-1/dm/uuid", "CRYPT-LUKS2-abc\n");
            f.put("sys/block/nvme0n1/holders/dm-1", "");
        }),
        ("nvme0n1 is in use by loop device loop0", &|f| f.put("sys/block/loop0/loop/backing_file", "/dev/nvme0n1\n")),
        ("the kernel's NVMe target, nqn.x namespace 1", &|f| {
            let namespace = "sys/kernel/config/nvmet/subsystems/nqn.x/namespaces/1";
            f.put(&format!("{namespace}/enable"), "1\n");
            f.put(&format!("{namespace}/device_path"), "/dev/nvme0n1\n");
        }),
        ("/dev/nvme0n1 is open in process 77 (fio)", &|f| {
            f.put("proc/77/comm", "fio\n");
            f.link("proc/77/fd/3", "/dev/nvme0n1");
        }),
        ("/dev/nvme0 is open in process 78 (nvme)", &|f| {
            f.put("proc/78/comm", "nvme\n");
            f.link("proc/78/fd/3", "/dev/nvme0");
        }),
        ("nvme0n1 is claimed", &|f| assert!(f.claimed.insert("nvme0n1".into()))),
        ("/dev/nvme0n1 can not be opened", &|f| f.remove("dev/nvme0n1")),
    ];
    for (part, change) in cases {
        let (mut fake, disk) = machine();
        change(&mut fake);
        refused(&mut fake, &[disk], part);
    }
}

#[test]
fn what_is_like_a_use_and_is_none_does_not_refuse() {
    let (mut fake, disk) = machine();
    fake.partition("nvme0n1", 1);
    fake.put(
        "proc/self/mountinfo",
        "22 1 259:7 / / rw - ext4 /dev/nvme0n11 rw\n23 22 0:5 / /dev rw - devtmpfs udev rw\n",
    );
    fake.put("proc/swaps", "Filename Type\n/dev/nvme0n10 partition\n");
    fake.put("sys/block/loop0/loop/backing_file", "/dev/nvme0n1.img\n");
    fake.put("sys/kernel/config/nvmet/subsystems/a/namespaces/1/enable", "0\n");
    fake.put("sys/kernel/config/nvmet/subsystems/a/namespaces/1/device_path", "/dev/nvme0n1\n");
    fake.link("proc/77/fd/3", "/dev/nvme0n10");
    try_bind(&mut fake, &[disk], false).unwrap();
}

#[test]
fn disks_below_a_shared_subsystem_are_found_and_paths_stay_together() {
    let mut fake = Fake::new();
    let (one, two) = (fake.nvme(DISK, 0, Some(3)), fake.nvme("0000:00:04.0", 1, Some(4)));
    for (number, hidden) in [("nvme0n1", "nvme0c0n1"), ("nvme1n1", "nvme0c1n1")] {
        // The paths are hidden disks; the one disk hangs below the subsystem.
        fake.remove(&format!("sys/block/{number}"));
        fake.put(&format!("sys/block/{hidden}/hidden"), "1\n");
        fake.put(&format!("sys/block/{hidden}/size"), "8\n");
    }
    fake.put("sys/bus/pci/devices/0000:00:03.0/nvme/nvme0/nvme0c0n1/nsid", "1");
    fake.put("sys/block/nvme0n1/size", "2048\n");
    fake.put("sys/block/nvme0n1/dev", "259:9\n");
    for name in ["nvme0", "nvme1", "nvme0n1/nsid"] {
        fake.put(&format!("sys/class/nvme-subsystem/nvme-subsys0/{name}"), "");
    }
    let function = Function::read(fake.root(), one).unwrap();
    let names: Vec<String> = disks(fake.root(), &function).into_iter().map(|d| d.name).collect();
    assert_eq!(names, ["nvme0n1"]);
    refused(&mut fake, &[one], "also reached through controller nvme1");
    // Two claims of one disk would be one too many.
    try_bind(&mut fake, &[one, two], false).unwrap();
    assert!(driver(&fake, one).as_deref() == Some("vfio-pci") && driver(&fake, two).as_deref() == Some("vfio-pci"));
}

#[test]
fn interfaces_that_the_machine_is_reached_through_are_refused() {
    let row = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
        eth0 00000000 0202000A 0003 0 0 0 00000000 0 0 0\n\
        eth0 0002000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
    let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.2.15\n        /32 host LOCAL\n     |-- 10.0.2.255\n        \
        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
    let machine = || {
        let fake = Fake::new();
        let nic = fake.nic(NIC, "eth0", Some(2));
        (fake, nic)
    };
    let (mut fake, nic) = machine();
    fake.put("proc/net/route", row);
    fake.put("proc/net/fib_trie", trie);
    refused(
        &mut fake,
        &[nic],
        "interface eth0 is up with 10.0.2.15, the only way out of this machine: ip link set eth0 down",
    );
    fake.put("proc/net/route", &format!("{row}eth1 00000000 0102000A 0003 0 0 0 00000000 0 0 0\n"));
    refused(&mut fake, &[nic], "interface eth0 is up with 10.0.2.15: ip link");
    // An address that no connected network explains counts against every interface that is up.
    fake.put("proc/net/route", "Iface Destination Gateway Flags RefCnt Use Metric Mask\n");
    refused(&mut fake, &[nic], "10.0.2.15 (of an interface that its route does not name)");
    fake.put("proc/net/fib_trie", "");
    fake.put("proc/net/if_inet6", "20010db8000000000000000000000001 02 40 00 80 eth0\n");
    refused(&mut fake, &[nic], "interface eth0 is up with 2001:db8::1");
    fake.put("sys/class/net/eth0/flags", "0x1002\n");
    try_bind(&mut fake, &[nic], false).unwrap();

    let (mut fake, nic) = machine();
    fake.put("proc/net/route", &row.replace("eth0", "eth1"));
    fake.put("proc/net/fib_trie", trie);
    fake.put("proc/net/if_inet6", "fe800000000000000000000000000001 02 40 20 80 eth0\n");
    try_bind(&mut fake, &[nic], false).expect("the addresses are another's, and a link-local one is nobody's");
    assert_eq!(give_back(&mut fake, nic).unwrap().driver.as_deref(), Some("virtio-pci"));

    let (mut fake, nic) = machine();
    fake.link("sys/class/net/eth0/master", "../bond0");
    refused(&mut fake, &[nic], "interface eth0 is part of bond0");
    let (mut fake, nic) = machine();
    fake.put("sys/class/net/eth0/upper_eth0.5", "");
    refused(&mut fake, &[nic], "interface eth0 is part of eth0.5");
    let (mut fake, nic) = machine();
    fake.remove("sys/bus/pci/devices/0000:00:02.0/virtio0/net");
    refused(&mut fake, &[nic], "not in this network namespace");
    let (mut fake, nic) = machine();
    fake.put("sys/bus/pci/devices/0000:00:02.0/sriov_numvfs", "4\n");
    refused(&mut fake, &[nic], "4 virtual functions");
}

#[test]
fn other_functions_and_other_drivers_are_refused() {
    let mut fake = Fake::new();
    let sata = fake.function("0000:00:1f.2", "0x010601\n", Some("ahci"), Some(1));
    refused(&mut fake, &[sata], "class 010601 is neither");
    let disk = fake.function(DISK, "0x010802\n", Some("uio_pci_generic"), Some(3));
    refused(&mut fake, &[disk], "driver uio_pci_generic has it");
    let absent = "0000:7f:00.0".parse().unwrap();
    assert!(matches!(try_bind(&mut fake, &[absent], false), Err(BindError::Absent(a)) if a == absent));
}

#[test]
fn a_group_goes_whole_or_not_at_all() {
    let mut fake = Fake::new();
    let one = fake.nvme(DISK, 0, Some(3));
    fake.function("0000:00:01.0", "0x060400\n", Some("pcieport"), Some(3));
    fake.function("0000:00:05.0", "0x040300\n", None, Some(3));
    let two = fake.function("0000:00:03.1", "0x010802\n", Some("nvme"), Some(3));
    refused(&mut fake, &[one], "IOMMU group 3 also has 0000:00:03.1, which driver nvme keeps: bind it together");
    assert_eq!(try_bind(&mut fake, &[one, two], false).unwrap().len(), 2);

    let mut fake = Fake::new();
    let one = fake.nvme(DISK, 0, Some(3));
    fake.function("0000:00:1f.2", "0x010601\n", Some("ahci"), Some(3));
    refused(&mut fake, &[one], "0000:00:1f.2, which driver ahci keeps: it can not be given away");
}

#[test]
fn without_an_iommu_only_when_asked_for() {
    let mut fake = Fake::new();
    let disk = fake.nvme(DISK, 0, None);
    refused(&mut fake, &[disk], "no IOMMU confines it");
    assert!(matches!(try_bind(&mut fake, &[disk], true), Err(BindError::NoIommuMode)));
    let mode = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    fake.put(mode, "N\n");
    let bound = try_bind(&mut fake, &[disk], true).unwrap();
    assert_eq!((bound[0].iommu, fake.root().text(mode).as_deref()), (Iommu::None(None), Some("Y")));
    // The group that VFIO then makes up protects as little.
    fake.link("sys/bus/pci/devices/0000:00:03.0/iommu_group", "../../../kernel/iommu_groups/0");
    fake.put("sys/kernel/iommu_groups/0/name", "vfio-noiommu\n");
    assert_eq!(iommu(fake.root(), disk).node().as_deref(), Some("dev/vfio/noiommu-0"));
    fake.remove("sys/bus/pci/devices/0000:00:03.0/iommu_group");
    give_back(&mut fake, disk).unwrap();
    assert_eq!(fake.root().text(mode).as_deref(), Some("N"), "the mode ends with the last device");
}

#[test]
fn interrupts_that_nobody_remaps_are_allowed_for_as_long_as_something_is_bound() {
    let mode = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    let (mut fake, disk) = machine();
    let two = fake.nvme("0000:00:04.0", 1, Some(4));
    fake.put(mode, "N\n");
    assert!(!try_bind(&mut fake, &[disk], false).unwrap()[0].unsafe_interrupts, "the machine remaps them");
    assert_eq!(fake.root().text(mode).as_deref(), Some("N"));
    give_back(&mut fake, disk).unwrap();

    fake.put("proc/interrupts", " 24:  0  PCI-MSI 65536-edge  nvme0q0\n");
    assert!(try_bind(&mut fake, &[disk], false).unwrap()[0].unsafe_interrupts);
    assert!(!try_bind(&mut fake, &[two], false).unwrap()[0].unsafe_interrupts, "they are allowed already");
    assert_eq!(fake.root().text(mode).as_deref(), Some("Y"));
    give_back(&mut fake, disk).unwrap();
    assert_eq!(fake.root().text(mode).as_deref(), Some("Y"), "another function needs it");
    give_back(&mut fake, two).unwrap();
    assert_eq!(fake.root().text(mode).as_deref(), Some("N"));
}

#[test]
fn modules_are_loaded_or_named() {
    let (mut fake, disk) = machine();
    fake.remove("sys/bus/pci/drivers/vfio-pci");
    let error = try_bind(&mut fake, &[disk], false).unwrap_err().to_string();
    assert!(error.contains("module vfio-pci") && error.contains("not found"), "{error}");
    assert_eq!(driver(&fake, disk).as_deref(), Some("nvme"));
    fake.loadable.insert("vfio-pci".into());
    fake.remove("sys/module/vfio_iommu_type1");
    let error = try_bind(&mut fake, &[disk], false).unwrap_err().to_string();
    assert!(error.contains("module vfio_iommu_type1"), "{error}");
    fake.loadable.insert("vfio_iommu_type1".into());
    try_bind(&mut fake, &[disk], false).unwrap();
}

#[test]
fn what_vfio_does_not_take_is_put_back() {
    let (mut fake, disk) = machine();
    fake.vfio_refuses = true;
    let error = try_bind(&mut fake, &[disk], false).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("vfio-pci did not take it") && text.contains("it is with nvme again"), "{text}");
    let f = Function::read(fake.root(), disk).unwrap();
    assert_eq!((f.driver.as_deref(), f.driver_override), (Some("nvme"), None));
    assert_eq!(Record::load(&fake.state(), disk).unwrap(), None);
    assert!(fake.root().has("sys/block/nvme0n1"));
}

#[test]
fn a_device_that_a_process_drives_stays_bound() {
    let (mut fake, disk) = machine();
    try_bind(&mut fake, &[disk], false).unwrap();
    fake.put("proc/99/comm", "pollux\n");
    fake.link("proc/99/fd/7", "/dev/vfio/3");
    let error = give_back(&mut fake, disk).unwrap_err().to_string();
    assert!(error.contains("/dev/vfio/3 is open in process 99 (pollux)"), "{error}");
    fake.remove("proc/99/fd/7");
    fake.claimed.insert("3".into());
    let error = give_back(&mut fake, disk).unwrap_err().to_string();
    assert!(error.contains("/dev/vfio/3 is open in a process"), "{error}");
    assert_eq!(driver(&fake, disk).as_deref(), Some("vfio-pci"));
    fake.claimed.clear();
    give_back(&mut fake, disk).unwrap();
}

#[test]
fn a_disk_that_does_not_come_back_is_an_error_that_says_so() {
    let (mut fake, disk) = machine();
    try_bind(&mut fake, &[disk], false).unwrap();
    fake.disk_delay = u32::MAX;
    let error = give_back(&mut fake, disk).unwrap_err().to_string();
    assert!(error.contains("nvme has it back") && error.contains("no disk"), "{error}");
    assert!(Record::load(&fake.state(), disk).unwrap().is_some(), "another try knows what to wait for");
}
