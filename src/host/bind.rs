//! Giving functions to VFIO and back.
//!
//! [`bind`] checks everything before it changes anything: a reason against one function stops all. What a function was is
//! remembered before it is taken away, and a step that fails puts it back. [`unbind`] works from what was remembered, or
//! without that lets the kernel choose a driver, and waits until the device is there again.

use super::group::{Iommu, iommu, remaps_interrupts};
use super::obstacle::{Obstacle, obstacles};
use super::pci::{Address, Function, Kind, VFIO_PCI};
use super::{Kernel, Record, Root, disk, net};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long the kernel may take to bring a device back: a controller may need half a minute to get ready.
const BACK_MAX: Duration = Duration::from_mins(1);
/// How long a disk may take to appear when it is not known whether there was one.
const DISK_MAX: Duration = Duration::from_secs(2);
/// How often to look.
const LOOK: Duration = Duration::from_millis(50);

/// The driver of VFIO, in sysfs.
const VFIO_DRIVER: &str = "sys/bus/pci/drivers/vfio-pci";
/// Asks the kernel to find a driver for a function.
const PROBE: &str = "sys/bus/pci/drivers_probe";
/// Switches the mode without protection on.
const NO_IOMMU: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

/// Lets VFIO give out functions whose interrupts nobody confines.
const INTERRUPTS: &str = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";

/// What the operator asks for besides the functions.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The folder of the records.
    pub state: &'a Path,
    /// Bind also what no IOMMU confines.
    pub no_iommu: bool,
}

/// A function that VFIO has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Which.
    pub address: Address,
    /// The driver that had it before; `None`: nobody, or not known.
    pub was: Option<String>,
    /// It was bound before already.
    pub already: bool,
    /// How it is confined.
    pub iommu: Iommu,
    /// Unsafe interrupts were allowed for it: the IOMMU of this machine does not remap any.
    pub unsafe_interrupts: bool,
}

/// Modes of VFIO that were switched on for a function.
#[derive(Clone, Copy, Default)]
struct Modes {
    no_iommu: bool,
    unsafe_interrupts: bool,
}

/// A function that is given back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// Which.
    pub address: Address,
    /// The driver that has it now; `None`: nobody had it before either.
    pub driver: Option<String>,
    /// Its disks or interfaces.
    pub children: Vec<String>,
    /// It was given back before already.
    pub already: bool,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The machine has no such function.
    #[error("{0}: there is no such PCI function")]
    Absent(Address),
    /// It would hurt someone. Nothing was changed.
    #[error("{}", Refusals(.0))]
    Refused(Vec<(Address, Vec<Obstacle>)>),
    /// VFIO is not there.
    #[error("module {module} is neither loaded nor built in, and does not load: {why}")]
    Module {
        /// Its name.
        module: &'static str,
        /// What was said.
        why: String,
    },
    /// This kernel can not do without an IOMMU.
    #[error("this kernel's vfio has no mode without IOMMU (built without CONFIG_VFIO_NOIOMMU)")]
    NoIommuMode,
    /// A file of the kernel could not be written.
    #[error("/{path}: writing `{text}`: {source}{}", root_hint(.source))]
    Write {
        /// Which.
        path: String,
        /// What.
        text: String,
        /// Why.
        source: io::Error,
    },
    /// The record could not be read or written.
    #[error("{address}: record in {folder}: {source}{}", root_hint(.source))]
    Record {
        /// Of which function.
        address: Address,
        /// The state directory.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// It was tried, and is undone.
    #[error("{address}: vfio-pci did not take it ({why}); it is with {} again, the kernel's log may say more", .now.as_deref().unwrap_or("no driver"))]
    NotTaken {
        /// Which.
        address: Address,
        /// The answer of the last step.
        why: String,
        /// The driver that has it now.
        now: Option<String>,
    },
    /// There is nothing to give back.
    #[error("{address}: it is with {}, not with vfio-pci, and no record says that it should not be", .driver.as_deref().unwrap_or("no driver"))]
    NotBound {
        /// Which.
        address: Address,
        /// The driver that has it.
        driver: Option<String>,
    },
    /// A process drives it.
    #[error("{address}: {by}: end that first")]
    InUse {
        /// Which.
        address: Address,
        /// By whom.
        by: String,
    },
    /// Nobody took it.
    #[error("{address}: no driver of the kernel took it back{}", .wanted.as_ref().map_or_else(String::new, |w| format!(" (it was with {w})")))]
    NoDriver {
        /// Which.
        address: Address,
        /// The driver that had it.
        wanted: Option<String>,
    },
    /// The driver has it, but what hangs on it does not come.
    #[error("{address}: {driver} has it back, but after {} s there is still no {missing}", BACK_MAX.as_secs())]
    NotBack {
        /// Which.
        address: Address,
        /// The driver that has it.
        driver: String,
        /// What is missing.
        missing: String,
    },
}

struct Refusals<'a>(&'a [(Address, Vec<Obstacle>)]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (at, (address, why)) in self.0.iter().flat_map(|(a, all)| all.iter().map(move |o| (a, o))).enumerate() {
            write!(f, "{}{address}: refused: {why}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

fn root_hint(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::PermissionDenied => " (this needs root)",
        io::ErrorKind::ReadOnlyFilesystem => " (sysfs is read-only here, as in a container)",
        _ => "",
    }
}

fn write<K: Kernel>(kernel: &mut K, path: &str, text: &str) -> Result<(), BindError> {
    let failed = |source| BindError::Write { path: path.to_owned(), text: text.trim().to_owned(), source };
    kernel.write(path, text).map_err(failed)
}

fn read(root: &Root, address: Address) -> Result<Function, BindError> {
    Function::read(root, address).ok_or(BindError::Absent(address))
}

/// Names of the disks or interfaces that the kernel has of a function.
fn children(root: &Root, function: &Function) -> Vec<String> {
    match function.kind {
        Kind::Nvme => disk::disks(root, function).into_iter().map(|d| d.name).collect(),
        _ => net::interfaces(root, function).into_iter().map(|i| i.name).collect(),
    }
}

/// Gives every one of `addresses` to VFIO, or none when a reason speaks against one of them.
///
/// # Errors
/// See [`BindError`]. When a later step fails, functions before the failing one stay bound; the failing one is put back.
pub fn bind<K: Kernel>(kernel: &mut K, addresses: &[Address], options: Options) -> Result<Vec<Bound>, BindError> {
    let mut functions = Vec::new();
    for address in addresses {
        functions.push(read(kernel.root(), *address)?);
    }
    let no_iommu = options.no_iommu;
    let reasons = |root: &Root, f: &Function| (f.address, obstacles(root, f, addresses, no_iommu || f.is_vfio()));
    let mut refused: Vec<_> = functions.iter().map(|f| reasons(kernel.root(), f)).collect();
    refused.retain(|(_, why)| !why.is_empty());
    if !refused.is_empty() {
        return Err(BindError::Refused(refused));
    }
    let claims = claim(kernel, &functions)?;
    let mut bound = Vec::new();
    let all_bound = functions.iter().all(Function::is_vfio);
    let modes = if all_bound { Modes::default() } else { prepare(kernel, &functions)? };
    for function in &functions {
        bound.push(bind_one(kernel, function, options.state, modes)?);
    }
    // Only now: no one could start to use a disk between the check and the end of its driver.
    drop(claims);
    Ok(bound)
}

/// Claims every disk of the functions that the kernel still has, and writes its cache out.
fn claim<K: Kernel>(kernel: &mut K, functions: &[Function]) -> Result<Vec<File>, BindError> {
    let (mut claims, mut refused) = (Vec::new(), Vec::new());
    for function in functions.iter().filter(|f| f.kind == Kind::Nvme && !f.is_vfio()) {
        let mut why = Vec::new();
        for disk in disk::disks(kernel.root(), function) {
            let node = format!("/dev/{}", disk.name);
            match kernel.claim(&node[1..]).and_then(|file| file.sync_all().map(|()| file)) {
                Ok(file) => claims.push(file),
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => why.push(Obstacle::Claimed(disk.name)),
                Err(e) => why.push(Obstacle::Unknown { node, why: format!("{e}{}", root_hint(&e)) }),
            }
        }
        if !why.is_empty() {
            refused.push((function.address, why));
        }
    }
    if refused.is_empty() { Ok(claims) } else { Err(BindError::Refused(refused)) }
}

/// Sees to it that VFIO is loaded, in the modes that the functions need; says which it switched on for them.
fn prepare<K: Kernel>(kernel: &mut K, functions: &[Function]) -> Result<Modes, BindError> {
    for (module, file) in [("vfio-pci", VFIO_DRIVER), ("vfio_iommu_type1", "sys/module/vfio_iommu_type1")] {
        if !kernel.root().has(file) {
            kernel.load(module).map_err(|why| BindError::Module { module, why })?;
        }
        if !kernel.root().has(file) {
            return Err(BindError::Module { module, why: format!("/{file} is still missing") });
        }
    }
    let confined = |f: &Function| matches!(iommu(kernel.root(), f.address), Iommu::Group(_));
    let (some, all) = (functions.iter().any(confined), functions.iter().all(confined));
    let remapped = !some || remaps_interrupts(kernel.root());
    // Every function here has a driver that is trusted with its interrupts already, and the process that gets it asks for
    // none; so this takes nothing away that was there. It is told, and ends with the last function.
    let unsafe_interrupts = !remapped && switch_on(kernel, INTERRUPTS)?.unwrap_or(false);
    let no_iommu = !all && switch_on(kernel, NO_IOMMU)?.ok_or(BindError::NoIommuMode)?;
    Ok(Modes { no_iommu, unsafe_interrupts })
}

/// Switches a mode on; true when it was off, `None` when there is no such mode.
fn switch_on<K: Kernel>(kernel: &mut K, mode: &str) -> Result<Option<bool>, BindError> {
    match kernel.root().text(mode).as_deref() {
        None => Ok(None),
        Some("Y" | "1") => Ok(Some(false)),
        Some(_) => write(kernel, mode, "Y").map(|()| Some(true)),
    }
}

fn bind_one<K: Kernel>(kernel: &mut K, function: &Function, state: &Path, modes: Modes) -> Result<Bound, BindError> {
    let address = function.address;
    let record_error = |source| BindError::Record { address, folder: state.display().to_string(), source };
    if function.is_vfio() {
        let was = Record::load(state, address).ok().flatten().and_then(|r| r.driver);
        return Ok(Bound {
            address,
            was,
            already: true,
            iommu: iommu(kernel.root(), address),
            unsafe_interrupts: false,
        });
    }
    let others = Record::all(state);
    let record = Record {
        driver: function.driver.clone(),
        driver_override: function.driver_override.clone(),
        children: children(kernel.root(), function).len() as u32,
        // A mode that was switched on for another function ends with the last of them, whichever that is.
        no_iommu: modes.no_iommu || others.iter().any(|r| r.no_iommu),
        unsafe_interrupts: modes.unsafe_interrupts || others.iter().any(|r| r.unsafe_interrupts),
    };
    record.save(state, address).map_err(record_error)?;
    let taken = take(kernel, function);
    let now = read(kernel.root(), address)?;
    if now.is_vfio() {
        let iommu = iommu(kernel.root(), address);
        return Ok(Bound {
            address,
            was: record.driver,
            already: false,
            iommu,
            unsafe_interrupts: modes.unsafe_interrupts,
        });
    }
    // Back to what it was, as far as the kernel lets us; the first error is the one to tell.
    let why = taken.err().map_or_else(|| "it was offered".into(), |e| e.to_string());
    let _ = kernel.write(&function.file("driver_override"), &override_text(record.driver_override.as_deref()));
    if now.driver.is_none() && record.driver.is_some() {
        let _ = kernel.write(PROBE, &address.to_string());
    }
    Record::remove(state, address).map_err(record_error)?;
    Err(BindError::NotTaken { address, why, now: read(kernel.root(), address)?.driver })
}

/// An override as the kernel's file takes it: an empty line takes one away.
fn override_text(driver: Option<&str>) -> String {
    format!("{}\n", driver.unwrap_or_default())
}

fn take<K: Kernel>(kernel: &mut K, function: &Function) -> Result<(), BindError> {
    write(kernel, &function.file("driver_override"), VFIO_PCI)?;
    if function.driver.is_some() {
        write(kernel, &function.file("driver/unbind"), &function.address.to_string())?;
    }
    write(kernel, PROBE, &function.address.to_string())
}

/// Gives a function back to the driver that had it and waits for its disks or interfaces.
///
/// # Errors
/// See [`BindError`].
pub fn unbind<K: Kernel>(kernel: &mut K, address: Address, state: &Path) -> Result<Given, BindError> {
    let record_error = |source| BindError::Record { address, folder: state.display().to_string(), source };
    let function = read(kernel.root(), address)?;
    let record = Record::load(state, address).map_err(record_error)?;
    let already = !function.is_vfio();
    if already && record.is_none() {
        return Err(BindError::NotBound { address, driver: function.driver });
    }
    if already && function.driver.is_some() {
        // Someone else gave it back.
        Record::remove(state, address).map_err(record_error)?;
        return Ok(Given { address, children: children(kernel.root(), &function), driver: function.driver, already });
    }
    if !already {
        unused(kernel, &function)?;
    }
    let old_override = record.as_ref().and_then(|r| r.driver_override.as_deref());
    write(kernel, &function.file("driver_override"), &override_text(old_override))?;
    if !already {
        write(kernel, &format!("{VFIO_DRIVER}/unbind"), &address.to_string())?;
    }
    let driver = give(kernel, &function, record.as_ref())?;
    if let Some(record) = &record {
        let last = !any_vfio(kernel.root());
        for (_, mode) in
            [(record.no_iommu, NO_IOMMU), (record.unsafe_interrupts, INTERRUPTS)].iter().filter(|m| last && m.0)
        {
            write(kernel, mode, "N")?;
        }
    }
    let children = match &driver {
        Some(driver) => wait(kernel, &function, driver, record.as_ref().map(|r| r.children as usize))?,
        None => Vec::new(),
    };
    Record::remove(state, address).map_err(record_error)?;
    Ok(Given { address, driver, children, already: false })
}

fn any_vfio(root: &Root) -> bool {
    super::functions(root).iter().any(Function::is_vfio)
}

/// VFIO waits for ever for a process that has the device, so ask before.
fn unused<K: Kernel>(kernel: &mut K, function: &Function) -> Result<(), BindError> {
    let address = function.address;
    let devices = kernel.root().names(&function.file("vfio-dev"));
    let mut nodes: Vec<String> = devices.iter().map(|d| format!("/dev/vfio/devices/{d}")).collect();
    let node = iommu(kernel.root(), address).node();
    nodes.extend(node.iter().map(|node| format!("/{node}")));
    if let Some(open) = disk::openers(kernel.root(), &nodes).into_iter().next() {
        return Err(BindError::InUse { address, by: open.to_string() });
    }
    // A group can be opened once; that also finds a user whom this process can not see.
    let Some(node) = node.filter(|node| kernel.root().has(node)) else { return Ok(()) };
    match kernel.claim(&node) {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            Err(BindError::InUse { address, by: format!("/{node} is open in a process") })
        }
        _ => Ok(()),
    }
}

/// Finds a driver: the old one, else whichever the kernel chooses. `None` when nobody had it before.
fn give<K: Kernel>(kernel: &mut K, function: &Function, record: Option<&Record>) -> Result<Option<String>, BindError> {
    let address = function.address;
    let wanted = match record {
        Some(Record { driver: None, .. }) => return Ok(None),
        Some(Record { driver, .. }) => driver.clone(),
        None => None,
    };
    if let Some(driver) = &wanted {
        // It may be gone, or want nothing of the device any more: then the kernel chooses.
        let _ = kernel.write(&format!("sys/bus/pci/drivers/{driver}/bind"), &address.to_string());
    }
    if read(kernel.root(), address)?.driver.is_none() {
        write(kernel, PROBE, &address.to_string())?;
    }
    match read(kernel.root(), address)?.driver {
        None => Err(BindError::NoDriver { address, wanted }),
        driver => Ok(driver),
    }
}

/// Waits until the driver shows what it made of the function: `wanted` disks or interfaces.
fn wait<K: Kernel>(
    kernel: &mut K,
    function: &Function,
    driver: &str,
    wanted: Option<usize>,
) -> Result<Vec<String>, BindError> {
    let mut waited = Duration::ZERO;
    loop {
        let root = kernel.root();
        let names = children(root, function);
        let ready = function.kind != Kind::Nvme || disk::is_live(root, function);
        let nodes = function.kind != Kind::Nvme || names.iter().all(|n| root.has(&format!("dev/{n}")));
        let enough = match wanted {
            Some(wanted) => names.len() >= wanted,
            None => !names.is_empty() || waited >= DISK_MAX,
        };
        if ready && nodes && enough {
            return Ok(names);
        }
        if waited >= BACK_MAX {
            let what = if function.kind == Kind::Nvme { "disk" } else { "interface" };
            let missing = match (ready, wanted) {
                (false, _) => "controller that is live".to_owned(),
                (true, Some(wanted)) if wanted > 1 => format!("{what} but {} of {wanted}", names.len()),
                _ => what.to_owned(),
            };
            return Err(BindError::NotBack { address: function.address, driver: driver.to_owned(), missing });
        }
        kernel.pause(LOOK);
        waited += LOOK;
    }
}
