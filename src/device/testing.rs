//! What the tests of several devices share: a small pool, operations, a queue run until it is idle, and the loop
//! devices and small filesystems that only root can make.

use super::{Done, Medium, Op, OpKind, OpenError, Queue};
use crate::base::{CoreId, Time};
use crate::mem::{Buf, Class, Pool};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const CLASSES: [Class; 2] = [Class { size: 4096, count: 64 }, Class { size: 64 << 10, count: 24 }];

pub fn pool() -> Pool {
    Pool::standalone(CoreId(0), &CLASSES).unwrap()
}

pub fn open(spec: &str) -> Result<Medium, OpenError> {
    Medium::open(&spec.parse().unwrap_or_else(|e| panic!("{spec}: {e}")))
}

fn transfer(kind: OpKind, buf: Buf, offset: u64, token: u64) -> Op {
    Op { kind, offset, len: buf.len() as u64, buf: Some(buf), at: 0, token }
}

pub fn read(buf: Buf, offset: u64, token: u64) -> Op {
    transfer(OpKind::Read, buf, offset, token)
}

pub fn write(buf: Buf, offset: u64, token: u64) -> Op {
    transfer(OpKind::Write, buf, offset, token)
}

pub fn plain(kind: OpKind, offset: u64, len: u64, token: u64) -> Op {
    Op { kind, offset, len, buf: None, at: 0, token }
}

/// Kicks and polls until nothing is under way.
pub fn drain(q: &mut impl Queue) -> Vec<Done> {
    let mut dones = Vec::new();
    let start = std::time::Instant::now();
    while q.inflight() != 0 {
        q.kick();
        q.poll(Time(0), &mut dones);
        assert!(start.elapsed().as_secs() < 30, "the device stalled with {} operations", q.inflight());
    }
    dones
}

/// Does one operation on an idle queue.
pub fn one(q: &mut impl Queue, op: Op) -> Done {
    assert_eq!(q.inflight(), 0);
    q.submit(op).unwrap();
    let mut dones = drain(q);
    assert_eq!(dones.len(), 1);
    dones.pop().unwrap()
}

/// Runs a command that may need root; its output, or `None` with a loud line when it can not be run here.
fn privileged(command: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(command).args(args).output();
    match output {
        Ok(o) if o.status.success() => Some(String::from_utf8_lossy(&o.stdout).trim().to_owned()),
        other => {
            eprintln!("SKIPPED: `{command} {}` does not work here: {other:?}", args.join(" "));
            None
        }
    }
}

/// A filesystem mounted for a test.
pub struct Mount(tempfile::TempDir);

impl Mount {
    /// `None`, said loudly, where this can not be mounted.
    pub fn new(kind: &str, options: &str) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        privileged("mount", &["-t", kind, "-o", options, "pollux-test", dir.path().to_str()?])?;
        Some(Mount(dir))
    }
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: rings of the test let go of their files a moment after they are closed.
        privileged("umount", &["-l", self.0.path().to_str().unwrap()]);
    }
}

/// A loop device over a file.
pub struct Loop(PathBuf);

impl Loop {
    /// `None`, said loudly, where there are none.
    pub fn new(file: &Path, logical_block: u32) -> Option<Loop> {
        let block = logical_block.to_string();
        let node = privileged("losetup", &["--show", "-f", "-b", &block, file.to_str()?])?;
        Some(Loop(PathBuf::from(node)))
    }
    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        privileged("losetup", &["-d", self.path()]);
    }
}
