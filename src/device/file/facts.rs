//! What the kernel knows of the device behind a file, from `/sys/dev/block`. Whatever can not be read is taken for its
//! safe value: a volatile cache, small atomic writes, nothing native.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The properties of a block device, or the assumptions made for a regular file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Smallest unit the device addresses, bytes.
    pub logical_block: u32,
    /// A completed write may be lost by a power cut until a flush.
    pub volatile_cache: bool,
    /// Bytes written whole or not at all.
    pub atomic_bytes: u32,
    /// Zeroes can be made without writing them.
    pub write_zeroes: bool,
    /// Discards are passed on.
    pub discard: bool,
    /// Completions can be polled for.
    pub io_poll: bool,
}

/// Sector size that every regular file's device has at least.
const SECTOR: u32 = 512;

impl Facts {
    /// The facts of an open file.
    pub fn of(file: &File, is_block: bool) -> io::Result<Facts> {
        if !is_block {
            return Ok(Facts {
                logical_block: SECTOR,
                volatile_cache: true,
                atomic_bytes: SECTOR,
                write_zeroes: true,
                discard: true,
                io_poll: false,
            });
        }
        let rdev = file.metadata()?.rdev();
        let node = format!("/sys/dev/block/{}:{}", libc::major(rdev), libc::minor(rdev));
        Ok(Facts::from_sysfs(&queue_dir(Path::new(&node))))
    }

    /// The facts in a block device's `queue` folder.
    fn from_sysfs(queue: &Path) -> Facts {
        let word = |name: &str| std::fs::read_to_string(queue.join(name)).ok().map(|s| s.trim().to_owned());
        let number = |name: &str| word(name).and_then(|w| w.parse::<u64>().ok());
        let logical_block = number("logical_block_size").and_then(|n| u32::try_from(n).ok()).unwrap_or(SECTOR);
        let atomic = number("atomic_write_unit_max_bytes").and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let write_zeroes = number("write_zeroes_max_bytes").is_some_and(|n| n > 0);
        Facts {
            logical_block,
            volatile_cache: word("write_cache").is_none_or(|w| w != "write through"),
            atomic_bytes: atomic.max(logical_block),
            write_zeroes,
            // A block device's hole is punched by zeroing with permission to unmap: both must be there.
            discard: write_zeroes && number("discard_max_bytes").is_some_and(|n| n > 0),
            io_poll: number("io_poll") == Some(1),
        }
    }
}

/// A partition has no queue of its own; its disk is one level up.
fn queue_dir(node: &Path) -> PathBuf {
    let own = node.join("queue");
    if own.is_dir() { own } else { node.join("../queue") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(entries: &[(&str, &str)]) -> Facts {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in entries {
            std::fs::write(dir.path().join(name), format!("{value}\n")).unwrap();
        }
        Facts::from_sysfs(dir.path())
    }

    #[test]
    fn a_good_disk() {
        let f = facts(&[
            ("logical_block_size", "4096"),
            ("write_cache", "write through"),
            ("atomic_write_unit_max_bytes", "16384"),
            ("write_zeroes_max_bytes", "131072"),
            ("discard_max_bytes", "1073741824"),
            ("io_poll", "1"),
        ]);
        let good = Facts {
            logical_block: 4096,
            volatile_cache: false,
            atomic_bytes: 16384,
            write_zeroes: true,
            discard: true,
            io_poll: true,
        };
        assert_eq!(f, good);
    }

    #[test]
    fn what_is_unknown_is_taken_for_the_worst() {
        let worst = Facts {
            logical_block: 512,
            volatile_cache: true,
            atomic_bytes: 512,
            write_zeroes: false,
            discard: false,
            io_poll: false,
        };
        assert_eq!(facts(&[]), worst);
        assert_eq!(facts(&[("write_cache", "write back"), ("io_poll", "0"), ("discard_max_bytes", "x")]), worst);
        assert!(!facts(&[("discard_max_bytes", "4096")]).discard, "unmapping needs zeroing too");
    }

    #[test]
    fn a_partition_asks_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("sda1");
        std::fs::create_dir_all(&part).unwrap();
        std::fs::create_dir_all(dir.path().join("queue")).unwrap();
        assert_eq!(queue_dir(&part), part.join("../queue"));
        std::fs::create_dir_all(part.join("queue")).unwrap();
        assert_eq!(queue_dir(&part), part.join("queue"));
    }
}
