//! What a run found out, for people and for programs. The first fields of the JSON are fixed: `iops`, `bytes_per_sec`,
//! `lat_us` {`mean`, `p50`, `p99`, `p99.9`, `max`}, `errors`, `verify_errors`; more may follow them.

use super::latency::{Recorder, Summary};
use super::units::{show_count, show_size};
use super::worker::Results;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One direction, or all together.
#[derive(Clone, Debug, Serialize)]
pub struct Direction {
    /// Requests per second.
    pub iops: f64,
    /// Bytes per second.
    pub bytes_per_sec: f64,
    /// Requests.
    pub ops: u64,
    /// Latency, microseconds.
    pub lat_us: Percentiles,
}

/// Latency in more detail than [`Summary`], microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "each field is the percentile it is named after")]
pub struct Percentiles {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    #[serde(rename = "p99.99")]
    pub p99_99: f64,
    pub max: f64,
}

/// What verification found.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Blocks read and found as they must be.
    pub checked: u64,
    /// Blocks read of which nothing was known.
    pub unknown: u64,
    /// Blocks that were read back before and after the workload, among the above.
    pub read_back: u64,
    /// Damaged blocks by kind.
    pub kinds: BTreeMap<String, u64>,
    /// The first damaged blocks, one line each.
    pub damage: Vec<String>,
}

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// URL or device.
    pub target: String,
    /// `randread`, ...
    pub rw: String,
    /// Percent of reads.
    pub read_percent: u8,
    /// Bytes per request.
    pub block_bytes: u32,
    /// Requests under way per connection.
    pub queue_depth: u32,
    /// Connections (or queues) in all.
    pub connections: u32,
    /// Threads.
    pub workers: u32,
    /// What the sequence of accesses was drawn from.
    pub seed: u64,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Reads and writes per second.
    pub iops: f64,
    /// Bytes read and written per second.
    pub bytes_per_sec: f64,
    /// Latency of reads and writes together, microseconds.
    pub lat_us: Summary,
    /// Requests that failed or were never answered.
    pub errors: u64,
    /// Blocks that were not what they must be.
    pub verify_errors: u64,
    /// Measured time, seconds.
    pub seconds: f64,
    /// Reads and writes measured.
    pub ops: u64,
    /// Reads alone, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<Direction>,
    /// Writes alone, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<Direction>,
    /// Flushes, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush: Option<Direction>,
    /// Part of the measured time, 0..=1, that the client was not waiting; near 1, the client was the limit.
    pub client_busy: f64,
    /// Failed requests by reason.
    pub error_kinds: BTreeMap<String, u64>,
    /// Why the run ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// With `--verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,
    /// Figures of the target's own: of a store, of a net; a list when there are several workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<serde_json::Value>,
    /// What was run.
    pub setting: Setting,
    /// The same for people.
    #[serde(skip)]
    pub notes: Vec<String>,
}

fn percentiles(r: &Recorder) -> Percentiles {
    let s = r.summary();
    Percentiles {
        mean: s.mean,
        p50: s.p50,
        p90: r.quantile_us(0.9),
        p99: s.p99,
        p99_9: s.p99_9,
        p99_99: r.quantile_us(0.9999),
        max: s.max,
    }
}

fn direction(r: &Recorder, seconds: f64) -> Option<Direction> {
    (r.samples() > 0 || r.ops > 0).then(|| Direction {
        iops: per(r.ops, seconds),
        bytes_per_sec: per(r.bytes, seconds),
        ops: r.ops,
        lat_us: percentiles(r),
    })
}

/// Rounded to a tenth: nothing finer is significant.
fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

impl Report {
    /// Figures from what the workers recorded.
    pub fn new(results: &Results, setting: Setting, verified: bool) -> Report {
        let seconds = results.window_ns as f64 / 1e9;
        let mut all = results.read.clone();
        all.merge(&results.write);
        let f = &results.findings;
        let verify = verified.then(|| Verification {
            checked: f.checked,
            unknown: f.unknown,
            read_back: results.read_back,
            kinds: f.kinds.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect(),
            damage: f.described.iter().map(ToString::to_string).collect(),
        });
        Report {
            iops: per(all.ops, seconds),
            bytes_per_sec: per(all.bytes, seconds),
            lat_us: all.summary(),
            errors: results.errors,
            verify_errors: f.damaged,
            seconds,
            ops: all.ops,
            read: direction(&results.read, seconds),
            write: direction(&results.write, seconds),
            flush: direction(&results.flush, seconds),
            client_busy: (per(results.busy_ns, results.turns_ns as f64) * 1000.0).round() / 1000.0,
            error_kinds: results.error_kinds.clone(),
            stopped: results.stopped.as_ref().map(ToString::to_string),
            verify,
            figures: match results.figures.as_slice() {
                [] => None,
                [one] => Some(one.clone()),
                several => Some(several.into()),
            },
            setting,
            notes: results.notes.clone(),
        }
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings always serialize")
    }

    /// A table for people, several lines.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let s = &self.setting;
        let _ = writeln!(
            out,
            "{}  {} {}  qd {} x {} connection{}  {:.2} s",
            s.target,
            s.rw,
            show_size(u64::from(s.block_bytes)),
            s.queue_depth,
            s.connections,
            if s.connections == 1 { "" } else { "s" },
            self.seconds,
        );
        let _ = writeln!(
            out,
            "{:<6} {:>11} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  (latency in us)",
            "", "IOPS", "MB/s", "mean", "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, direction) in [("read", &self.read), ("write", &self.write), ("flush", &self.flush)] {
            if let Some(d) = direction {
                let l = &d.lat_us;
                let _ = writeln!(
                    out,
                    "{name:<6} {:>11} {:>10.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                    show_count(d.iops.round() as u64),
                    d.bytes_per_sec / 1e6,
                    l.mean,
                    l.p50,
                    l.p90,
                    l.p99,
                    l.p99_9,
                    l.max
                );
            }
        }
        self.table_tail(&mut out);
        out
    }

    fn table_tail(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "total  {:>11} IOPS, {:.1} MB/s",
            show_count(self.iops.round() as u64),
            self.bytes_per_sec / 1e6
        );
        if self.client_busy > 0.95 {
            let _ = writeln!(
                out,
                "note: the client was busy {:.0} % of the time and may be the limit",
                self.client_busy * 100.0
            );
        }
        if let Some(v) = &self.verify {
            let _ = writeln!(
                out,
                "verify {} blocks checked, {} unknown, {} damaged",
                show_count(v.checked),
                show_count(v.unknown),
                show_count(self.verify_errors)
            );
        }
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        if self.errors > 0 {
            let kinds: Vec<String> = self.error_kinds.iter().map(|(k, n)| format!("{n} x {k}")).collect();
            let _ = writeln!(out, "errors {} ({})", self.errors, kinds.join(", "));
        }
        if let Some(why) = &self.stopped {
            let _ = writeln!(out, "ended early: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let mut r =
            Results { window_ns: 2_000_000_000, busy_ns: 1_000_000_000, turns_ns: 2_000_000_000, ..Results::default() };
        for n in 1..=1000u64 {
            r.read.latency(n * 100);
            r.read.ops += 1;
            r.read.bytes += 4096;
        }
        r.errors = 2;
        r.error_kinds.insert("connection lost".into(), 2);
        r
    }

    fn setting() -> Setting {
        Setting {
            target: "ram:1g".into(),
            rw: "randread".into(),
            read_percent: 100,
            block_bytes: 4096,
            queue_depth: 32,
            connections: 1,
            workers: 1,
            seed: 1,
        }
    }

    #[test]
    fn json_begins_with_the_fixed_fields_in_order() {
        let json = Report::new(&results(), setting(), true).json();
        let fixed = r#"{"iops":500.0,"bytes_per_sec":2048000.0,"lat_us":{"mean":50.05,"p50":50.0"#;
        assert!(json.starts_with(fixed), "{json}");
        let v: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&v["errors"], &v["verify_errors"]), (&2.into(), &0.into()));
        let fields: Vec<&str> = v["lat_us"].as_object().unwrap().keys().map(String::as_str).collect();
        for field in ["mean", "p50", "p99", "p99.9", "max"] {
            assert!(fields.contains(&field));
        }
        assert_eq!(fields.len(), 5);
        assert_eq!(v["client_busy"], 0.5);
        assert!(v.get("write").is_none() && v["verify"]["checked"] == 0);
        // A script may look at the first 300 characters only.
        assert!(json[..300].contains("\"verify_errors\":0"));
    }

    #[test]
    fn table_names_what_went_wrong() {
        let text = Report::new(&results(), setting(), false).table();
        assert!(text.contains("read           500") && text.contains("errors 2 (2 x connection lost)"), "{text}");
        assert!(!text.contains("write "));
    }

    #[test]
    fn nothing_measured_is_zero_not_nan() {
        let json = Report::new(&Results::default(), setting(), false).json();
        assert!(json.contains("\"iops\":0.0") && !json.contains("null"), "{json}");
    }
}
