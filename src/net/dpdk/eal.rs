//! Starting DPDK's environment layer with arguments of ours: memory of this process alone, no files that outlive it, no
//! thread that takes a reactor's CPU, and its log in ours.

use super::config::{DpdkConfig, PortName};
use super::ffi;
use super::plan::Plan;
use std::ffi::CString;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Memory for the layer itself and the drivers' rings, beside the pools, bytes.
const BASE_BYTES: u64 = 64 << 20;
/// Lines of the layer's log kept to explain why it did not start.
const LINES_KEPT: usize = 8;
/// Levels of its log (`RTE_LOG_ERR`) up to which a line is an error.
const LEVEL_ERROR: u32 = 4;

/// DPDK keeps its state in statics and can be started once per process.
static STARTED: AtomicBool = AtomicBool::new(false);
/// The last lines that were errors.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Errors go to the operator, everything else to who asks for it: DPDK warns of much that is as it should be here.
fn sink(level: u32, line: &str) {
    if level > LEVEL_ERROR {
        tracing::debug!("dpdk: {line}");
        return;
    }
    tracing::error!("dpdk: {line}");
    if let Ok(mut said) = SAID.lock() {
        if said.len() == LINES_KEPT {
            said.remove(0);
        }
        said.push(line.to_owned());
    }
}

/// What the layer has complained of, newest last, for an error message.
pub(super) fn said() -> String {
    SAID.lock().map(|said| said.join("; ")).unwrap_or_default()
}

/// Starts the layer for this configuration.
pub(super) fn start(config: &DpdkConfig, plan: &Plan) -> io::Result<()> {
    if STARTED.swap(true, Ordering::SeqCst) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "DPDK was started before in this process"));
    }
    let cpus: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|c| c.id).collect();
    let bytes = BASE_BYTES + plan.pool_bytes();
    let arguments = arguments(config, plan, &cpus, huge_free() >= bytes, bytes);
    tracing::debug!("dpdk: {}", arguments.join(" "));
    let text = |a: String| CString::new(a).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let arguments: Vec<CString> = arguments.into_iter().map(text).collect::<io::Result<_>>()?;
    ffi::start(&arguments, sink)
}

/// Bytes of huge pages that nobody uses.
fn huge_free() -> u64 {
    let Ok(sizes) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return 0 };
    let number = |path: std::path::PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let free = |size: std::fs::DirEntry| {
        let name = size.file_name().into_string().ok()?;
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(number(size.path().join("free_hugepages"))? * kib * 1024)
    };
    sizes.flatten().filter_map(free).sum()
}

/// The layer's command line. Nothing is shared with another process, so the prefix of file names need not be unique.
fn arguments(config: &DpdkConfig, plan: &Plan, cpus: &[usize], huge: bool, bytes: u64) -> Vec<String> {
    let list: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    let mut all: Vec<String> = ["pollux", "--no-telemetry", "--file-prefix=pollux"].map(str::to_owned).into();
    // The thread that starts the layer is pinned to the CPUs of "lcore 0": those it may use anyway.
    all.push(format!("--lcores=(0)@({})", list.join(",")));
    if huge {
        all.push("--in-memory".to_owned());
    } else {
        let mib = bytes.div_ceil(1 << 20).to_string();
        all.extend(["--no-huge".to_owned(), "--no-shconf".to_owned(), "-m".to_owned(), mib]);
    }
    match &config.port {
        PortName::Pci(address) => all.extend(["-a".to_owned(), address.clone()]),
        PortName::Virtual { .. } => all.extend(["--no-pci".to_owned(), format!("--vdev={}", plan.device)]),
    }
    all.extend(config.eal.iter().cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::super::config::Address;
    use super::*;

    #[test]
    fn arguments_fit_the_machine_and_the_port() {
        let address = Address::parse("10.77.0.2/24").unwrap();
        let mut config = DpdkConfig::new(PortName::parse("net_null0,size=64").unwrap(), address);
        config.eal = vec!["--log-level=8".into()];
        let plan = Plan::new(&config, 2).unwrap();
        let line = arguments(&config, &plan, &[0, 2], false, 100 << 20).join(" ");
        assert!(line.contains("--lcores=(0)@(0,2)") && line.contains("--no-huge --no-shconf -m 100"), "{line}");
        assert!(line.contains("--no-pci --vdev=net_null0,size=64") && line.ends_with(" --log-level=8"), "{line}");
        config.port = PortName::parse("00:03.0").unwrap();
        let line = arguments(&config, &plan, &[0], true, 1).join(" ");
        assert!(
            line.contains("-a 0000:00:03.0") && !line.contains("--no-huge") && !line.contains("--no-pci"),
            "{line}"
        );
    }
}
