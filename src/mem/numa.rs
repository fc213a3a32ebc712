//! Memory near the core that uses it. On a machine with one memory node there is nothing to choose, and nothing here
//! makes a system call. Facts come from `/sys/devices/system`; what can not be read or set leaves the kernel's choice.

use std::io;
use std::path::Path;
use std::ptr::NonNull;

const SYSTEM: &str = "/sys/devices/system";
/// `MPOL_PREFERRED`: this node while it has memory, any other after that.
const PREFERRED: libc::c_int = 1;
/// Nodes that fit the mask below.
const NODES_MAX: usize = 1024;

/// The memory node of `cpu`, when the machine has more than one.
pub(super) fn node_of(cpu: usize) -> Option<usize> {
    choose(Path::new(SYSTEM), cpu)
}

fn choose(system: &Path, cpu: usize) -> Option<usize> {
    let with_memory = std::fs::read_to_string(system.join("node/has_memory")).ok()?;
    let nodes = parse_list(with_memory.trim())?;
    if nodes.len() < 2 {
        return None;
    }
    let folder = std::fs::read_dir(system.join(format!("cpu/cpu{cpu}"))).ok()?;
    let number = |name: &str| name.strip_prefix("node")?.parse().ok();
    let node = folder.flatten().find_map(|entry| number(entry.file_name().to_str()?))?;
    // A node without memory of its own (a CPU socket with empty slots) has nothing to prefer.
    nodes.contains(&node).then_some(node)
}

/// Reads a kernel list like `0-1,3`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= NODES_MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Prefers `node` for pages of the range that are not there yet.
pub(super) fn prefer(base: NonNull<u8>, len: usize, node: usize) -> io::Result<()> {
    assert!(node < NODES_MAX);
    let mut mask = [0u64; NODES_MAX / 64];
    mask[node / 64] |= 1 << (node % 64);
    // SAFETY: the range is a mapping of the caller, the mask lives across the call; a policy changes no content.
    let r =
        unsafe { libc::syscall(libc::SYS_mbind, base.as_ptr(), len, PREFERRED, mask.as_ptr(), NODES_MAX + 1, 0u32) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Commit, Mapping};

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list(""), Some(vec![]));
        assert_eq!((parse_list("x"), parse_list("0-99999")), (None, None));
    }

    #[test]
    fn a_cpu_s_node_matters_where_there_are_several() {
        let system = tempfile::tempdir().unwrap();
        let at = |path: &str| system.path().join(path);
        for folder in ["node", "cpu/cpu0/node0", "cpu/cpu1/node1", "cpu/cpu2/node2", "cpu/cpu3/cache"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("node/has_memory"), "0-1\n").unwrap();
        let chosen: Vec<_> = (0..5).map(|cpu| choose(system.path(), cpu)).collect();
        assert_eq!(chosen, [Some(0), Some(1), None, None, None]);
        std::fs::write(at("node/has_memory"), "0\n").unwrap();
        assert_eq!(choose(system.path(), 0), None);
    }

    #[test]
    fn preferring_a_node_that_is_there_works_and_keeps_the_memory() {
        let mapping = Mapping::new(2 << 20, Commit::OnTouch).unwrap();
        match prefer(mapping.base(), mapping.len(), 0) {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => eprintln!("SKIPPED: mbind: {e}"),
            Err(e) => panic!("mbind: {e}"),
        }
        // SAFETY: the mapping is ours and its first byte is there.
        unsafe { mapping.base().write(1) };
    }
}
