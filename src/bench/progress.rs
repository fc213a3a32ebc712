//! A progress bar on stderr with what the workers publish; only where a person looks at a terminal.

use super::units::show_count;
use super::worker::{Reading, Shared, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// Between two looks at the workers.
pub const EVERY: Duration = Duration::from_millis(200);

/// The bar, or nothing.
pub struct Progress {
    bar: Option<ProgressBar>,
    stage: Option<Stage>,
    last_ops: u64,
}

impl Progress {
    /// A bar when `wanted` and stderr is a terminal.
    pub fn new(wanted: bool) -> Progress {
        let bar = (wanted && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix:>12} [{bar:32}] {percent:>3}%  ETA {eta}  {msg}");
            bar.set_style(style.expect("a constant template is valid").progress_chars("=> "));
            bar
        });
        Progress { bar, stage: None, last_ops: 0 }
    }

    /// True when somebody looks.
    pub fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Shows where the workers are.
    pub fn update(&mut self, shared: &Shared) {
        let Some(bar) = &self.bar else { return };
        let readings: Vec<Reading> = shared.gauges.iter().map(super::worker::Gauge::read).collect();
        let Some(stage) = readings.iter().map(|r| r.stage).min_by_key(|s| *s as u8) else { return };
        if self.stage != Some(stage) {
            self.stage = Some(stage);
            bar.reset_eta();
            bar.set_prefix(name(stage));
        }
        // The slowest worker's share of the stage stands for all.
        let share = readings.iter().filter(|r| r.stage == stage && r.total > 0).min_by_key(|r| r.done * 1000 / r.total);
        if let Some(r) = share {
            bar.set_length(r.total);
            bar.set_position(r.done.min(r.total));
        }
        let ops: u64 = readings.iter().map(|r| r.ops).sum();
        let rate = (ops.saturating_sub(self.last_ops) as f64 / EVERY.as_secs_f64()) as u64;
        self.last_ops = ops;
        bar.set_message(if stage == Stage::Timed { format!("{} IOPS", show_count(rate)) } else { String::new() });
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::ReadBefore => "checking log",
        Stage::Prefill => "filling",
        Stage::Warmup => "warming up",
        Stage::Timed => "running",
        Stage::ReadAfter => "reading back",
        Stage::Over => "done",
    }
}
