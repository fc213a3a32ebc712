//! `pollux device list | bind | unbind`: which NVMe and network functions there are, and who drives them.

use crate::host::bind::{self, Bound, Given, Options};
use crate::host::{
    Address, Function, Iommu, Kind, Live, Obstacle, Root, disks, functions, interfaces, iommu, obstacles,
};
use clap::Subcommand;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `pollux device`. Status 0: done; 1: refused or failed, with the device and the reason on stderr.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show the NVMe and network devices, who drives them, and what speaks against binding them
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Give devices to VFIO, so that a process can drive them; refuses those in use
    Bind {
        /// PCI addresses, for example 0000:03:00.0
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<Address>,
        /// Bind even what no IOMMU confines: the device, and whoever drives it, can then read and write ALL memory
        #[arg(long)]
        unsafe_noiommu: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Give devices back to the driver they had, and wait until their disks or interfaces are there again
    Unbind {
        /// PCI addresses, for example 0000:03:00.0
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<Address>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(clap::Args)]
struct Output {
    /// Where to remember which driver a device had
    #[arg(long, default_value = STATE_DIR, value_name = "PATH")]
    state_dir: PathBuf,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

/// Bindings end with the boot, and so do the records of them.
const STATE_DIR: &str = "/run/pollux";

/// Does it.
pub fn run(args: &Args) -> ExitCode {
    match act(args) {
        Ok(text) => {
            // A reader that has seen enough and left is no error of ours.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            for line in why.lines() {
                eprintln!("pollux device: {line}");
            }
            ExitCode::from(1)
        }
    }
}

fn act(args: &Args) -> Result<String, String> {
    let mut kernel = Live::new();
    match &args.action {
        Action::List { json } => {
            let all = listed(&Root::live());
            Ok(if *json {
                json!({"devices": all.iter().map(Listed::json).collect::<Vec<_>>()}).to_string()
            } else {
                table(&all)
            })
        }
        Action::Bind { addresses, unsafe_noiommu, output } => {
            let options = Options { state: &output.state_dir, no_iommu: *unsafe_noiommu };
            let bound = bind::bind(&mut kernel, &distinct(addresses), options).map_err(|e| e.to_string())?;
            for b in bound.iter().filter(|b| !matches!(b.iommu, Iommu::Group(_))) {
                eprintln!(
                    "pollux device: WARNING: {}: NO IOMMU CONFINES IT. The device and every process that drives it can read \
                     and write all memory of this machine, the kernel's included. Use this for tests only.",
                    b.address
                );
            }
            if bound.iter().any(|b| b.unsafe_interrupts) {
                eprintln!(
                    "pollux device: warning: this machine's IOMMU does not remap interrupts; VFIO was told to allow that \
                     (vfio_iommu_type1.allow_unsafe_interrupts=Y) until the last device is given back. A device whose \
                     firmware is hostile could raise any interrupt."
                );
            }
            Ok(if output.json {
                json!({"devices": bound.iter().map(bound_json).collect::<Vec<_>>()}).to_string()
            } else {
                lines(&bound, bound_text)
            })
        }
        Action::Unbind { addresses, output } => {
            let mut given = Vec::new();
            for address in distinct(addresses) {
                given.push(bind::unbind(&mut kernel, address, &output.state_dir).map_err(|e| e.to_string())?);
            }
            Ok(if output.json {
                json!({"devices": given.iter().map(given_json).collect::<Vec<_>>()}).to_string()
            } else {
                lines(&given, given_text)
            })
        }
    }
}

fn distinct(addresses: &[Address]) -> Vec<Address> {
    let mut all = addresses.to_vec();
    all.sort();
    all.dedup();
    all
}

fn lines<T>(all: &[T], text: fn(&T) -> String) -> String {
    all.iter().map(text).collect::<Vec<_>>().join("\n")
}

fn bound_text(b: &Bound) -> String {
    let was = match (&b.was, b.already) {
        (Some(driver), false) => format!("bound to vfio-pci (was with {driver})"),
        (None, false) => "bound to vfio-pci (had no driver)".into(),
        (_, true) => "is with vfio-pci already".into(),
    };
    let group = match b.iommu {
        Iommu::Group(n) => format!("IOMMU group {n}"),
        Iommu::None(_) => "NO IOMMU".into(),
    };
    format!("{}: {was}, {group}", b.address)
}

fn bound_json(b: &Bound) -> Value {
    let (group, no_iommu) = match b.iommu {
        Iommu::Group(n) => (Some(n), false),
        Iommu::None(n) => (n, true),
    };
    json!({
        "address": b.address.to_string(), "driver": "vfio-pci", "was": b.was, "already": b.already, "iommu_group": group,
        "no_iommu": no_iommu, "unsafe_interrupts": b.unsafe_interrupts, "node": b.iommu.node().map(|n| format!("/{n}")),
    })
}

fn given_text(g: &Given) -> String {
    let driver = g.driver.as_deref().unwrap_or("no driver, as before");
    let children = if g.children.is_empty() { String::new() } else { format!(": {}", g.children.join(" ")) };
    format!("{}: {} {driver}{children}", g.address, if g.already { "is already with" } else { "back with" })
}

fn given_json(g: &Given) -> Value {
    json!({"address": g.address.to_string(), "driver": g.driver, "already": g.already, "children": g.children})
}

/// A function and what there is to say about it.
pub struct Listed {
    /// As the kernel shows it.
    pub function: Function,
    /// How it is confined.
    pub iommu: Iommu,
    /// Its disks (`nvme0n1 1.0 GiB 4096`) or interfaces (`eth0 up`).
    pub children: Vec<String>,
    /// What speaks against binding it; empty also when VFIO has it.
    pub obstacles: Vec<Obstacle>,
}

/// The NVMe and network functions of the machine, by address. Only files are read: nothing is opened or claimed.
pub fn listed(root: &Root) -> Vec<Listed> {
    let all = functions(root).into_iter().filter(|f| matches!(f.kind, Kind::Nvme | Kind::Nic));
    let look = |function: Function| {
        let children = match function.kind {
            Kind::Nvme => {
                disks(root, &function).iter().map(|d| format!("{} {} {}", d.name, size(d.bytes), d.block)).collect()
            }
            _ => interfaces(root, &function)
                .iter()
                .map(|i| format!("{} {}", i.name, if i.up { "up" } else { "down" }))
                .collect(),
        };
        let obstacles = if function.is_vfio() { Vec::new() } else { obstacles(root, &function, &[], false) };
        Listed { iommu: iommu(root, function.address), children, obstacles, function }
    };
    all.map(look).collect()
}

/// Bytes in the largest unit that keeps a digit before the point.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

impl Listed {
    /// One word, or the first of what speaks against it.
    pub fn verdict(&self) -> String {
        match self.obstacles.as_slice() {
            [] if self.function.is_vfio() => "bound".into(),
            [] => "bindable".into(),
            [first] => format!("no: {first}"),
            [first, rest @ ..] => format!("no: {first} (and {} more)", rest.len()),
        }
    }

    /// Everything about it.
    pub fn json(&self) -> Value {
        let f = &self.function;
        let group = match self.iommu {
            Iommu::Group(n) => Some(n),
            Iommu::None(_) => None,
        };
        json!({
            "address": f.address.to_string(), "kind": f.kind.name(), "class": format!("{:06x}", f.class),
            "vendor": format!("{:04x}", f.vendor), "device": format!("{:04x}", f.device), "driver": f.driver,
            "numa": f.numa, "iommu_group": group, "children": self.children,
            "bound": f.is_vfio(), "bindable": !f.is_vfio() && self.obstacles.is_empty(),
            "obstacles": self.obstacles.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

fn table(all: &[Listed]) -> String {
    if all.is_empty() {
        return "no NVMe or network device on PCI".into();
    }
    let mut out =
        format!("{:<13}{:<6}{:<11}{:<12}{:<6}{:<7}WHAT, STATE", "ADDRESS", "KIND", "ID", "DRIVER", "NUMA", "IOMMU");
    for l in all {
        let f = &l.function;
        let dash = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let group = match l.iommu {
            Iommu::Group(n) => Some(n),
            Iommu::None(_) => None,
        };
        let id = format!("{:04x}:{:04x}", f.vendor, f.device);
        let what = if l.children.is_empty() { String::new() } else { format!("{}; ", l.children.join(", ")) };
        let _ = write!(
            out,
            "\n{:<13}{:<6}{id:<11}{:<12}{:<6}{:<7}{what}{}",
            f.address.to_string(),
            f.kind.name(),
            f.driver.as_deref().unwrap_or("-"),
            dash(f.numa),
            dash(group),
            l.verdict()
        );
    }
    out
}
