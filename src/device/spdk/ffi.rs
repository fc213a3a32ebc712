//! SPDK's environment: started once per process, its log passed on to ours, and memory that devices may reach.
//!
//! The `unsafe` of this driver is in the three `ffi*` files. What stays true in all of them: SPDK's functions are called
//! only after [`start`] succeeded; what they are given outlives its use; a controller outlives its queue pairs.

use crate::mem::{HUGE_PAGE, Span};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Write;
use std::sync::{Mutex, OnceLock};

/// What bindgen made of `shim.h`.
#[allow(
    non_camel_case_types,
    non_upper_case_globals,
    dead_code,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from C"
)]
pub(super) mod sys {
    include!(concat!(env!("OUT_DIR"), "/spdk.rs"));
}

/// Memory of an environment without hugepages, MiB: requests of all queue pairs, and bounce buffers. It is address space
/// until it is used.
const ORDINARY_MIB: c_int = 512;

/// What the environment was started for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// Sockets alone: no PCI device is looked at, memory is ordinary.
    Sockets,
    /// PCI devices: hugepages, and the PCI bus.
    Pci,
}

static STARTED: OnceLock<Result<Needs, String>> = OnceLock::new();

/// Starts the environment, the first time; it stays for the life of the process. The calling thread keeps the CPUs that
/// it may run on, and DPDK starts no thread that polls.
///
/// # Errors
/// Why it could not be started; and that it was started without the PCI bus, which can not be had later.
pub(super) fn start(needs: Needs) -> Result<(), String> {
    let has = STARTED.get_or_init(|| {
        let kept = sched_getaffinity(None).map_err(|e| format!("the CPUs of this thread: {e}"))?;
        let cpus = CString::new(list(&kept)).expect("digits, commas and dashes");
        let pci = needs == Needs::Pci;
        // SAFETY: the list lives across the call; the callback is a function of this process.
        let result = unsafe { sys::pollux_spdk_start(cpus.as_ptr(), pci, pci, ORDINARY_MIB, Some(log_line)) };
        // DPDK moves its main thread to its own cores; a core it has no use for is not given up for it.
        sched_setaffinity(None, &kept).map_err(|e| format!("giving this thread its CPUs back: {e}"))?;
        if result == 0 { Ok(needs) } else { Err(why(result)) }
    });
    match has {
        Ok(Needs::Sockets) if needs == Needs::Pci => {
            Err("SPDK was started without PCI, for the first device opened; open a PCIe device before the others"
                .into())
        }
        Ok(_) => Ok(()),
        Err(reason) => Err(reason.clone()),
    }
}

/// CPUs as DPDK reads them: `0-3,8`.
fn list(cpus: &CpuSet) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < CpuSet::MAX_CPU {
        let end = (at..CpuSet::MAX_CPU).find(|c| !cpus.is_set(*c)).unwrap_or(CpuSet::MAX_CPU);
        if end != at {
            let comma = if text.is_empty() { "" } else { "," };
            write!(text, "{comma}{at}-{}", end - 1).expect("a String takes all");
        }
        at = end + 1;
    }
    text
}

/// The first error SPDK's log told of since somebody asked; those after it are of what it led to.
static COMPLAINT: Mutex<String> = Mutex::new(String::new());

extern "C" fn log_line(level: c_int, line: *const c_char) {
    // SAFETY: the shim passes a terminated string that lives across the call.
    let line = unsafe { CStr::from_ptr(line) }.to_string_lossy();
    match level {
        i32::MIN..=0 => {
            // What it leads to is reported by whoever meets it, with this in it.
            tracing::info!("spdk: {line}");
            // A reactor must not wait for whoever reads it.
            if let Ok(mut first) = COMPLAINT.try_lock()
                && first.is_empty()
            {
                first.push_str(&line);
            }
        }
        1 => tracing::info!("spdk: {line}"),
        2 => tracing::debug!("spdk: {line}"),
        _ => tracing::trace!("spdk: {line}"),
    }
}

/// What SPDK's log complained of first, and what `result`, a negative error number, means. The complaint is forgotten then.
pub(super) fn why(result: c_int) -> String {
    let said = COMPLAINT.lock().map(|mut first| std::mem::take(&mut *first)).unwrap_or_default();
    let means = std::io::Error::from_raw_os_error(result.wrapping_neg());
    if said.is_empty() { means.to_string() } else { format!("{said} ({means})") }
}

/// Spans that were registered, by their first byte: whether devices can reach all of each.
static REGISTERED: Mutex<Option<HashMap<usize, bool>>> = Mutex::new(None);

/// Registers `spans` with the environment; true when PCI devices can reach every byte of them.
pub(super) fn register(spans: &[Span]) -> bool {
    let mut registered = REGISTERED.lock().expect("nobody panics with it");
    let registered = registered.get_or_insert_default();
    let mut all = true;
    for span in spans {
        let (start, len) = (span.start().as_ptr(), span.len());
        debug_assert!((start as usize).is_multiple_of(HUGE_PAGE) && len.is_multiple_of(HUGE_PAGE));
        all &= *registered.entry(start as usize).or_insert_with(|| {
            // SAFETY: a span stays mapped for the life of the process.
            let result = unsafe { sys::spdk_mem_register(start.cast(), len) };
            // SAFETY: as above; the memory is only asked about.
            result == 0 && unsafe { sys::pollux_spdk_reachable(start, len) }
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_as_dpdk_reads_them() {
        let mut cpus = CpuSet::new();
        assert_eq!(list(&cpus), "");
        [0, 1, 2, 5, 7, 8].into_iter().for_each(|c| cpus.set(c));
        assert_eq!(list(&cpus), "0-2,5-5,7-8");
        cpus.set(CpuSet::MAX_CPU - 1);
        assert_eq!(list(&cpus), format!("0-2,5-5,7-8,{0}-{0}", CpuSet::MAX_CPU - 1));
    }
}
