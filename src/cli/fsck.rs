//! `pollux fsck DEVICE`: checks a store that no node has open. Nothing is written.

use crate::device::DeviceError;
use crate::store::fsck::{Finding, NoStore, Report, SliceReport, check};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{IsTerminal, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Arguments of `pollux fsck`. Status 0: sound; 1: damaged; 2: could not be checked.
#[derive(clap::Args)]
pub struct Args {
    /// The file or block device that the store is on
    #[arg(value_name = "DEVICE")]
    device: PathBuf,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

/// How long a device may stay locked before it counts as in use: the last writes of a killed node hold the lock until they
/// have landed.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// Checks and reports.
pub fn run(args: &Args) -> ExitCode {
    let report = match check_device(&args.device) {
        Ok(report) => report,
        Err(why) => {
            eprintln!("pollux fsck: {}: {why}", args.device.display());
            return ExitCode::from(2);
        }
    };
    let text = if args.json { to_json(&report).to_string() } else { to_text(&report) };
    // A reader that has seen enough and left is no error of ours.
    let _ = writeln!(std::io::stdout(), "{text}");
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn check_device(path: &Path) -> Result<Report, String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    lock(&file)?;
    let size = file.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?;
    let bar = progress_bar();
    let read = |at: u64, into: &mut [u8]| {
        file.read_exact_at(into, at).map_err(|e| match e.raw_os_error() {
            Some(libc::EIO) | None => DeviceError::Media,
            Some(libc::ENXIO | libc::ENODEV) => DeviceError::Dead,
            Some(number) => DeviceError::Os(number),
        })
    };
    let progress = |done: u64, total: u64| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let report = check(size, read, progress);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    report.map_err(|e: NoStore| e.to_string())
}

/// A node holds an exclusive lock on each device it has open.
fn lock(file: &File) -> Result<(), String> {
    let started = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if started.elapsed() < LOCK_WAIT => std::thread::sleep(Duration::from_millis(50)),
            Err(Errno::WOULDBLOCK) => return Err("in use by a running node: stop it or unload the store first".into()),
            Err(e) => return Err(format!("lock: {e}")),
        }
    }
}

/// A bar with the time left, where a person looks at a terminal.
fn progress_bar() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:32} {percent:>3}% of {total_bytes}  ETA {eta}");
        bar.with_style(style.expect("a constant template is valid").progress_chars("=> "))
    })
}

fn to_text(report: &Report) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let uuid = uuid::Uuid::from_bytes(report.store);
    let _ = writeln!(out, "store {} ({uuid}), {} slices", report.name, report.slices.len());
    for (number, s) in report.slices.iter().enumerate() {
        let _ = writeln!(
            out,
            "slice {number}: {} of 4 superblocks, checkpoint {}, {} batches after it, {} volumes, {} mapped blocks",
            s.superblocks, s.checkpoint, s.replayed, s.volumes, s.mapped
        );
        if s.torn > 0 {
            let _ =
                writeln!(out, "slice {number}: note: {} torn batches at the end of the log, dropped at open", s.torn);
        }
    }
    for finding in &report.findings {
        let _ = writeln!(out, "DAMAGE {finding}");
    }
    let _ = match report.findings_total {
        0 => write!(out, "clean"),
        n => write!(out, "{n} findings"),
    };
    out
}

fn to_json(report: &Report) -> Value {
    let slice = |(number, s): (usize, &SliceReport)| {
        json!({
            "slice": number, "superblocks": s.superblocks, "checkpoint": s.checkpoint, "replayed_batches": s.replayed,
            "torn_batches": s.torn, "volumes": s.volumes, "mapped_blocks": s.mapped,
        })
    };
    let finding = |f: &Finding| json!({"slice": f.slice, "block": f.addr.0, "what": f.to_string()});
    json!({
        "clean": report.is_clean(),
        "store": {"name": report.name.as_str(), "uuid": uuid::Uuid::from_bytes(report.store).to_string()},
        "slices": report.slices.iter().enumerate().map(slice).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "findings_total": report.findings_total,
    })
}
