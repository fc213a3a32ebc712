//! Physical addresses of memory, for a controller without an IOMMU in front (`unsafe_noiommu`): from
//! `/proc/self/pagemap` (Linux `Documentation/admin-guide/mm/pagemap.rst`). Only pages of the hugetlb pool will do: the
//! kernel moves every other page when it likes, and the controller would go on writing where it was.

use super::error::NvmeError;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of a hugepage.
pub const LARGE: usize = 2 << 20;
const SMALL: usize = 4096;
/// The page is in memory.
const PRESENT: u64 = 1 << 63;
/// Bits of the page frame number.
const FRAME: u64 = (1 << 55) - 1;
/// `KPF_HUGE`: a page of the hugetlb pool.
const HUGETLB: u64 = 1 << 17;

/// The physical address of each 2 MiB of `len` bytes at `start`.
pub(super) fn addresses(start: usize, len: usize) -> Result<Arc<[u64]>, NvmeError> {
    assert!(start.is_multiple_of(LARGE) && len.is_multiple_of(LARGE) && len != 0, "arenas are whole hugepages");
    let map = File::open("/proc/self/pagemap").map_err(NvmeError::system("/proc/self/pagemap"))?;
    let flags = File::open("/proc/kpageflags").map_err(NvmeError::system("/proc/kpageflags"))?;
    (start..start + len).step_by(LARGE).map(|at| address(&map, &flags, at)).collect()
}

fn address(map: &File, flags: &File, at: usize) -> Result<u64, NvmeError> {
    let entry = word(map, (at / SMALL) as u64)?;
    let frame = entry & FRAME;
    // The frame number reads as 0 without the right to see it (CAP_SYS_ADMIN).
    if entry & PRESENT == 0 || frame == 0 || word(flags, frame)? & HUGETLB == 0 {
        return Err(NvmeError::NotHuge);
    }
    Ok(frame * SMALL as u64)
}

fn word(file: &File, index: u64) -> Result<u64, NvmeError> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, index * 8).map_err(NvmeError::system("page map"))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Backing, Commit, Mapping};

    #[test]
    fn only_hugepages_have_an_address() {
        let memory = Mapping::new(2 * LARGE, Commit::Now).unwrap();
        let found = addresses(memory.base().as_ptr() as usize, memory.len());
        match (memory.backing(), found) {
            (Backing::Huge, Ok(found)) => {
                assert!(found.len() == 2 && found.iter().all(|a| a.is_multiple_of(LARGE as u64) && *a != 0));
                assert_ne!(found[0], found[1]);
            }
            // Also where this user may not see addresses at all.
            (_, found) => assert!(matches!(found, Err(NvmeError::NotHuge | NvmeError::System { .. })), "{found:?}"),
        }
    }
}
