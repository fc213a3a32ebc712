//! `pollux doctor`: what this machine offers Pollux, what could be better, and the commands that make it so.

mod examine;
mod probe;
#[cfg(test)]
mod tests;

use crate::host::Root;
use probe::Probes;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `pollux doctor`. Status 0: nothing that Pollux needs is missing; 1: something is.
#[derive(clap::Args)]
pub struct Args {
    /// The directory, file or block device to look for direct I/O on
    #[arg(long, default_value = ".", value_name = "PATH")]
    path: PathBuf,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

/// How good a thing is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Grade {
    /// Nothing to do.
    Ok,
    /// Works, and would be faster, safer or larger with the steps.
    Better,
    /// Not there: what it says can not be used before the steps are done.
    Missing,
}

impl Grade {
    fn name(self) -> &'static str {
        ["ok", "better", "missing"][self as usize]
    }
}

/// One thing about the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Finding {
    /// What it is about: one of a fixed set of words.
    topic: &'static str,
    grade: Grade,
    /// Pollux does not run at all without it.
    needed: bool,
    /// What was found.
    text: String,
    /// Commands or changes, each complete.
    steps: Vec<String>,
}

impl Finding {
    fn new(topic: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
        Finding { topic, grade, needed: false, text: text.into(), steps: Vec::new() }
    }

    fn step(mut self, step: impl Into<String>) -> Finding {
        self.steps.push(step.into());
        self
    }

    fn needed(self) -> Finding {
        Finding { needed: true, ..self }
    }
}

/// What of the optional parts this program was built with.
#[derive(Clone, Copy, Debug)]
struct Build {
    /// Network cards driven by DPDK.
    dpdk: bool,
    /// NVMe driven by SPDK.
    spdk: bool,
}

impl Build {
    #[allow(unexpected_cfgs, reason = "a feature may be absent from this crate as well as switched off")]
    fn this() -> Build {
        Build { dpdk: cfg!(feature = "dpdk"), spdk: cfg!(feature = "spdk") }
    }
}

/// Looks and reports.
pub fn run(args: &Args) -> ExitCode {
    let probes = Probes::run(&args.path);
    let findings = examine::examine(&Root::live(), &probes, Build::this());
    let text = if args.json { to_json(&findings).to_string() } else { to_text(&findings) };
    // A reader that has seen enough and left is no error of ours.
    let _ = writeln!(std::io::stdout(), "{text}");
    if runs(&findings) { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn runs(findings: &[Finding]) -> bool {
    !findings.iter().any(|f| f.needed && f.grade == Grade::Missing)
}

fn count(findings: &[Finding], grade: Grade) -> usize {
    findings.iter().filter(|f| f.grade == grade).count()
}

fn to_text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for f in findings {
        let _ = writeln!(out, "{:<8}{:<11}{}", f.grade.name(), f.topic, f.text);
        for step in &f.steps {
            let _ = writeln!(out, "{:<19}-> {step}", "");
        }
    }
    let [ok, better, missing] = [Grade::Ok, Grade::Better, Grade::Missing].map(|g| count(findings, g));
    let _ = write!(out, "{ok} ok, {better} could be better, {missing} missing");
    out
}

fn to_json(findings: &[Finding]) -> Value {
    let finding = |f: &Finding| json!({"topic": f.topic, "grade": f.grade.name(), "needed": f.needed, "text": f.text, "steps": f.steps});
    json!({
        "runs": runs(findings), "ok": count(findings, Grade::Ok), "better": count(findings, Grade::Better),
        "missing": count(findings, Grade::Missing), "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
