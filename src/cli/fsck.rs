//! `pollux fsck DEVICE`: checks a store that no node has open. Nothing is written.

use crate::device::DeviceError;
use crate::store::fsck::{NoStore, Report, check};
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
    let mut read = |at: u64, into: &mut [u8]| {
        file.read_exact_at(into, at).map_err(|e| match e.raw_os_error() {
            Some(libc::EIO) | None => DeviceError::Media,
            Some(libc::ENXIO | libc::ENODEV) => DeviceError::Dead,
            Some(number) => DeviceError::Os(number),
        })
    };
    let mut progress = |done: u64, total: u64| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let report = check(size, &mut read, &mut progress);
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
    let p = &report.probed;
    let uuid = uuid::Uuid::from_bytes(p.store);
    let _ = writeln!(out, "store {} ({uuid}), {} slices of {} MiB", p.name, p.slices, p.slice_len >> 20);
    for s in &report.slices {
        let _ = writeln!(
            out,
            "slice {}: {} segments, {} batches, {} volumes, {} mapped blocks, {} MiB verified, {} batches replayed",
            s.slice,
            s.segments,
            s.batches,
            s.volumes,
            s.mapped,
            s.verified_bytes >> 20,
            s.replayed
        );
        if s.torn > 0 {
            let _ = writeln!(
                out,
                "slice {}: note: {} torn batches at the end of the log, dropped at open",
                s.slice, s.torn
            );
        }
        if s.lost > 0 {
            let _ = writeln!(out, "slice {}: note: {} blocks are marked as lost", s.slice, s.lost);
        }
    }
    for finding in &report.findings {
        let _ = writeln!(out, "DAMAGE {finding}");
    }
    if report.unlisted > 0 {
        let _ = writeln!(out, "DAMAGE and {} more", report.unlisted);
    }
    let _ = match report.findings.len() as u64 + report.unlisted {
        0 => write!(out, "clean"),
        n => write!(out, "{n} findings"),
    };
    out
}

fn to_json(report: &Report) -> Value {
    let p = &report.probed;
    let slices: Vec<Value> = report
        .slices
        .iter()
        .map(|s| {
            json!({
                "slice": s.slice, "segments": s.segments, "batches": s.batches, "volumes": s.volumes,
                "mapped_blocks": s.mapped, "lost_blocks": s.lost, "verified_bytes": s.verified_bytes,
                "replayed_batches": s.replayed, "torn_batches": s.torn,
            })
        })
        .collect();
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|f| json!({"slice": f.slice, "block": f.addr.0, "what": f.what.to_string()}))
        .collect();
    json!({
        "clean": report.is_clean(),
        "store": {
            "name": p.name.as_str(), "uuid": uuid::Uuid::from_bytes(p.store).to_string(), "slices": p.slices,
            "slice_bytes": p.slice_len, "segment_bytes": p.segment_bytes,
        },
        "slices": slices,
        "findings": findings,
        "unlisted_findings": report.unlisted,
    })
}
