//! What only trying can tell: `io_uring`, registered buffers, direct I/O at a path, the TCP engines. Each is tried with the
//! code that a node runs.

use crate::base::CoreId;
use crate::device::{self, DeviceError, FileSpec, Medium, Op, OpKind, OpenError, Queue, Spec};
use crate::mem::{Buf, Sizing};
use crate::net::{AnyNet, Engine, TcpConfig};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of the file that is tried, and of the transfer.
const TRIAL: u64 = 1 << 20;
const TRANSFER: usize = 4096;
/// How long a transfer of the trial may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Results; an `Err` is the system's reason.
#[derive(Clone, Debug)]
pub struct Probes {
    /// A write, a flush and a read through `io_uring`; true when the buffers could be registered.
    pub uring: Result<bool, String>,
    /// The path that was asked about.
    pub path: PathBuf,
    /// Direct I/O there.
    pub direct: Result<(), String>,
    /// Each engine of kernel TCP.
    pub engines: [(Engine, Result<(), String>); 2],
}

impl Probes {
    /// Tries everything; leaves nothing behind.
    pub fn run(path: &Path) -> Probes {
        let engine = |engine| {
            let config = TcpConfig { conns_max: 1, ..TcpConfig::default() };
            (engine, AnyNet::new(engine, config).map(drop).map_err(|e| e.to_string()))
        };
        Probes {
            uring: uring(),
            path: path.to_owned(),
            direct: direct(path).map_err(|e| e.to_string()),
            engines: [engine(Engine::Tcp), engine(Engine::Uring)],
        }
    }
}

/// Opens something at `path` for direct I/O and reads a block of it, where there is one. In a directory that is a file
/// without a name, which nobody sees and which ends with the descriptor.
fn direct(path: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECT | OFlags::CLOEXEC;
    if path.is_dir() {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::open(path, flags | OFlags::TMPFILE | OFlags::RDWR, mode)?;
    } else {
        rustix::fs::open(path, flags | OFlags::RDONLY, Mode::empty())?;
    }
    Ok(())
}

/// A file of this process alone, removed at the end.
struct Trial(PathBuf);

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn uring() -> Result<bool, String> {
    let path = std::env::temp_dir().join(format!("pollux-doctor-{}", std::process::id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let trial = Trial(path);
    made.and_then(|file| file.set_len(TRIAL)).map_err(|e| format!("{}: {e}", trial.0.display()))?;
    // Where the file is says nothing about io_uring, so the page cache may serve.
    let spec = Spec::File(FileSpec { buffered: true, ..FileSpec::new(&trial.0) });
    let failed = |e: OpenError| e.to_string();
    let medium = Medium::open(&spec).map_err(failed)?;
    // As much memory as a core of a node registers by default.
    let (mut pool, span) = Sizing::default().provide(CoreId(0), 0).map_err(|e| format!("memory: {e}"))?;
    let before = device::unregistered_queues();
    let mut queue = medium.queue(CoreId(0), 4, &[span]).map_err(failed)?;
    let registered = device::unregistered_queues() == before;
    let mut buf = pool.get(TRANSFER).ok_or("no buffer")?;
    buf.fill(0x5a);
    let buf = once(&mut queue, OpKind::Write, Some(buf))?;
    once(&mut queue, OpKind::Flush, None)?;
    let buf = once(&mut queue, OpKind::Read, buf)?;
    match buf {
        Some(buf) if buf[..TRANSFER].iter().all(|b| *b == 0x5a) => Ok(registered),
        _ => Err("what was read is not what was written".into()),
    }
}

/// One operation to its end.
fn once(queue: &mut impl Queue, kind: OpKind, buf: Option<Buf>) -> Result<Option<Buf>, String> {
    let len = if buf.is_some() { TRANSFER as u64 } else { 0 };
    assert!(
        queue.submit(Op { kind, offset: 0, len, buf, at: 0, token: 0 }).is_ok(),
        "an idle queue takes an operation"
    );
    queue.kick();
    let (started, mut done) = (Instant::now(), Vec::new());
    while queue.poll(crate::base::Time(started.elapsed().as_nanos() as u64), &mut done) == 0 {
        if started.elapsed() > PATIENCE {
            return Err(format!("a {} did not end within {} s", kind.name(), PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    let done = done.pop().ok_or("no completion")?;
    done.result.map_err(|e: DeviceError| format!("{}: {e}", kind.name()))?;
    Ok(done.buf)
}
