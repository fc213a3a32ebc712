//! Where the kernel's files are. Paths inside are written without the leading slash: `sys/bus/pci/devices`.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of `sys`, `proc` and `dev`: `/`, or a tree that a test made.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// This machine.
    pub fn live() -> Root {
        Root(PathBuf::from("/"))
    }

    /// A tree with the same files under `path`.
    pub fn at(path: impl Into<PathBuf>) -> Root {
        Root(path.into())
    }

    /// The path of `inside`.
    pub fn path(&self, inside: &str) -> PathBuf {
        debug_assert!(!inside.starts_with('/'), "paths inside a root have no leading slash");
        self.0.join(inside)
    }

    /// A file's text without the white space around it; `None` when it can not be read.
    pub fn text(&self, inside: &str) -> Option<String> {
        // Kernel files are ASCII but for names that users gave.
        let bytes = fs::read(self.path(inside)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A decimal number alone in a file.
    pub fn number(&self, inside: &str) -> Option<u64> {
        self.text(inside)?.parse().ok()
    }

    /// A number alone in a file, written as `0x...`.
    pub fn hex(&self, inside: &str) -> Option<u32> {
        u32::from_str_radix(self.text(inside)?.strip_prefix("0x")?, 16).ok()
    }

    /// The names in a folder, sorted; none when there is no such folder.
    pub fn names(&self, inside: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(inside)) else { return Vec::new() };
        let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// What a symbolic link points to, as written.
    pub fn target(&self, inside: &str) -> Option<PathBuf> {
        fs::read_link(self.path(inside)).ok()
    }

    /// The last part of what a symbolic link points to: how sysfs names a driver, a group or a master.
    pub fn link(&self, inside: &str) -> Option<String> {
        self.target(inside)?.file_name()?.to_str().map(str::to_owned)
    }

    /// True when there is something at `inside`.
    pub fn has(&self, inside: &str) -> bool {
        self.path(inside).exists()
    }

    /// True for `/`.
    pub fn is_live(&self) -> bool {
        self.0 == Path::new("/")
    }
}
