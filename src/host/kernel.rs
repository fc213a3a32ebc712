//! What changes the machine: writes to the kernel's files, loading a module, claiming a disk, waiting.

use super::root::Root;
use rustix::fs::{Mode, OFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The machine, as something that is changed. Tests answer as the kernel would.
pub trait Kernel {
    /// Where its files are.
    fn root(&self) -> &Root;

    /// Writes `text` into the existing file `inside`, in one write, as sysfs wants it.
    fn write(&mut self, inside: &str, text: &str) -> io::Result<()>;

    /// Loads a module with what it needs; the error is what `modprobe` said, or that there is none.
    fn load(&mut self, module: &str) -> Result<(), String>;

    /// Claims the block device `inside` for as long as the file lives. `EBUSY` when someone else has.
    fn claim(&mut self, inside: &str) -> io::Result<File>;

    /// Lets time pass.
    fn pause(&mut self, time: Duration);
}

/// This machine.
pub struct Live(Root);

impl Live {
    /// The machine that this process runs on.
    pub fn new() -> Live {
        Live(Root::live())
    }
}

impl Default for Live {
    fn default() -> Live {
        Live::new()
    }
}

impl Kernel for Live {
    fn root(&self) -> &Root {
        &self.0
    }

    fn write(&mut self, inside: &str, text: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.0.path(inside))?.write_all(text.as_bytes())
    }

    fn load(&mut self, module: &str) -> Result<(), String> {
        let mut command = Command::new("modprobe");
        let ended = command.arg(module).stdin(Stdio::null()).output();
        match ended {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err("there is no modprobe here".into()),
            Err(e) => Err(format!("modprobe: {e}")),
            Ok(out) if out.status.success() => Ok(()),
            Ok(out) => {
                let said = String::from_utf8_lossy(&out.stderr);
                Err(said.lines().next().map_or_else(|| format!("modprobe: {}", out.status), str::to_owned))
            }
        }
    }

    fn claim(&mut self, inside: &str) -> io::Result<File> {
        // Read-only, so that closing it is not taken for a change of content.
        let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(self.0.path(inside), flags, Mode::empty())?))
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}
