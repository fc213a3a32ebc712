//! The network interfaces of a function, and whether the machine is reached through them.
//!
//! Addresses come from the routing tables' files: `fib_trie` has every IPv4 address without its interface, `route` has the
//! interface of every connected network. An address that no interface's network explains may be anywhere, so it counts
//! against every interface that is up.

use super::obstacle::Obstacle;
use super::pci::Function;
use super::root::Root;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Flag of an interface that is up (`IFF_UP`).
const UP: u32 = 1;
/// Scope of an IPv6 address that every interface makes for itself.
const SCOPE_LINK: &str = "20";

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// True when it is switched on.
    pub up: bool,
    /// Addresses of the machine on it, link-local ones left out.
    pub addresses: Vec<String>,
    /// The bond, bridge or team that it is part of.
    pub master: Option<String>,
    /// Devices on top of it: VLANs, macvlans.
    pub uppers: Vec<String>,
}

/// Where the interfaces of `function` are in sysfs: below it, or below its virtio device.
fn folders(root: &Root, function: &Function) -> Vec<String> {
    let virtio = root.names(&function.file("")).into_iter().filter(|n| is_virtio(n));
    let mut folders: Vec<String> = virtio.map(|n| function.file(&format!("{n}/net"))).collect();
    folders.push(function.file("net"));
    folders.retain(|folder| root.has(folder));
    folders
}

fn is_virtio(name: &str) -> bool {
    name.strip_prefix("virtio").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The interfaces of a function that are in this network namespace.
pub fn interfaces(root: &Root, function: &Function) -> Vec<Interface> {
    let names = folders(root, function).into_iter().flat_map(|folder| root.names(&folder)).collect::<BTreeSet<_>>();
    let read = |name: String| {
        let file = |inside: &str| format!("sys/class/net/{name}/{inside}");
        let upper = |n: String| n.strip_prefix("upper_").map(str::to_owned);
        let up = root.hex(&file("flags")).is_none_or(|flags| flags & UP != 0);
        Interface {
            addresses: addresses(root, &name),
            up,
            master: root.link(&file("master")),
            uppers: root.names(&format!("sys/class/net/{name}")).into_iter().filter_map(upper).collect(),
            name,
        }
    };
    names.into_iter().map(read).collect()
}

/// Why the network functions can not be taken away from the kernel.
pub fn uses(root: &Root, function: &Function) -> Vec<Obstacle> {
    let interfaces = interfaces(root, function);
    if interfaces.is_empty() && driven(root, function) {
        return vec![Obstacle::InterfaceElsewhere];
    }
    let mut found = Vec::new();
    for i in interfaces {
        if let Some(master) = i.master {
            found.push(Obstacle::PartOf { interface: i.name.clone(), of: master });
        }
        for upper in i.uppers {
            found.push(Obstacle::PartOf { interface: i.name.clone(), of: upper });
        }
        if i.up && !i.addresses.is_empty() {
            let only = !other_default(root, &i.name);
            found.push(Obstacle::Reached { interface: i.name, addresses: i.addresses, only });
        }
    }
    found
}

/// True when a driver that makes interfaces has the function.
fn driven(root: &Root, function: &Function) -> bool {
    match function.driver.as_deref() {
        None | Some("vfio-pci") => false,
        Some("virtio-pci") => {
            let devices = root.names(&function.file("")).into_iter().filter(|n| is_virtio(n));
            devices.into_iter().any(|n| root.link(&function.file(&format!("{n}/driver"))).is_some())
        }
        Some(_) => true,
    }
}

/// A connected IPv4 network: its interface, prefix and mask.
struct Network {
    interface: String,
    prefix: u32,
    mask: u32,
}

fn networks(root: &Root) -> Vec<Network> {
    let table = root.text("proc/net/route").unwrap_or_default();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // The kernel prints the bytes of network order as a number of the machine's.
        let number =
            |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(|n| u32::from_be_bytes(n.to_ne_bytes()));
        Some((fields.first()?.to_string(), number(1)?, number(2)?, number(7)?))
    };
    let rows = table.lines().skip(1).filter_map(row);
    rows.filter(|(_, _, gateway, mask)| *gateway == 0 && *mask != 0)
        .map(|(interface, prefix, _, mask)| Network { interface, prefix, mask })
        .collect()
}

/// True when another interface has a default route.
fn other_default(root: &Root, interface: &str) -> bool {
    let table = root.text("proc/net/route").unwrap_or_default();
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        let (name, prefix, mask) = (fields.next(), fields.next(), fields.nth(5));
        name.is_some_and(|n| n != interface) && prefix == Some("00000000") && mask == Some("00000000")
    })
}

/// Every IPv4 address of the machine but the loopback's.
fn local_v4(root: &Root) -> BTreeSet<Ipv4Addr> {
    let trie = root.text("proc/net/fib_trie").unwrap_or_default();
    let mut leaf = None;
    let mut found = BTreeSet::new();
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(leaf.filter(|address| !address.is_loopback()));
        }
    }
    found
}

fn addresses(root: &Root, interface: &str) -> Vec<String> {
    let networks = networks(root);
    let mut found = Vec::new();
    for address in local_v4(root) {
        let on: Vec<&Network> = networks.iter().filter(|n| address.to_bits() & n.mask == n.prefix).collect();
        if on.is_empty() {
            found.push(format!("{address} (of an interface that its route does not name)"));
        } else if on.iter().any(|n| n.interface == interface) {
            found.push(address.to_string());
        }
    }
    // address, index, prefix length, scope, flags, interface
    let six = root.text("proc/net/if_inet6").unwrap_or_default();
    for line in six.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [address, _, _, scope, _, name] = fields[..]
            && name == interface
            && scope != SCOPE_LINK
            && let Ok(bits) = u128::from_str_radix(address, 16)
        {
            found.push(Ipv6Addr::from_bits(bits).to_string());
        }
    }
    found
}
