//! A picture of the latencies: how often each occurred, reads and writes apart, as SVG.

use super::latency::Recorder;
use plotters::prelude::*;
use std::path::Path;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error("histogram {0}: {1}")]
pub struct PlotError(String, String);

const SIZE: (u32, u32) = (960, 540);
/// Columns per factor of ten of latency.
const COLUMNS_PER_DECADE: f64 = 40.0;
const COLOURS: [RGBColor; 2] = [RGBColor(0x1b, 0x6c, 0xa8), RGBColor(0xc2, 0x4d, 0x2c)];

/// Percent of requests per logarithmic column of latency: `(lower edge in microseconds, percent)`.
fn columns(recorder: &Recorder) -> Vec<(f64, f64)> {
    let total = recorder.samples() as f64;
    let mut out: Vec<(i64, f64)> = Vec::new();
    for (us, count) in recorder.steps() {
        let column = (us.max(0.001).log10() * COLUMNS_PER_DECADE).floor() as i64;
        match out.last_mut() {
            Some((last, sum)) if *last == column => *sum += count as f64,
            _ => out.push((column, count as f64)),
        }
    }
    out.into_iter().map(|(c, n)| (10f64.powf(c as f64 / COLUMNS_PER_DECADE), n / total * 100.0)).collect()
}

/// Draws `series` (name and recorder; empty ones are left out) into `file`.
///
/// # Errors
/// [`PlotError`] when the file can not be written.
pub fn histogram(file: &Path, title: &str, series: &[(&str, &Recorder)]) -> Result<(), PlotError> {
    let failed = |e: &dyn std::fmt::Display| PlotError(file.display().to_string(), e.to_string());
    let mut svg = String::new();
    draw(&mut svg, title, series).map_err(|e| failed(&e))?;
    std::fs::write(file, svg).map_err(|e| failed(&e))
}

fn draw(svg: &mut String, title: &str, series: &[(&str, &Recorder)]) -> Result<(), Box<dyn std::error::Error>> {
    let data: Vec<_> =
        series.iter().filter(|(_, r)| r.samples() > 0).map(|(name, r)| (*name, *r, columns(r))).collect();
    let points = || data.iter().flat_map(|(_, _, c)| c.iter());
    let low = points().map(|(us, _)| *us).fold(f64::INFINITY, f64::min);
    let high = points().map(|(us, _)| *us).fold(0.0, f64::max);
    // With nothing recorded the axes still need some extent.
    let (low, high) = if low < high { (low * 0.8, high * 1.6) } else { (high.max(1.0) / 2.0, high.max(1.0) * 2.0) };
    let top = points().map(|(_, percent)| *percent).fold(0.1, f64::max) * 1.15;
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((low..high).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("latency, microseconds")
        .y_desc("percent of requests")
        .x_label_formatter(&|us| if *us < 1.0 { format!("{us:.2}") } else { format!("{us:.0}") })
        .y_label_formatter(&|p| format!("{p:.0}"))
        .draw()?;
    for ((name, recorder, columns), colour) in data.iter().zip(COLOURS) {
        let s = recorder.summary();
        let label = format!("{name}: p50 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}", s.p50, s.p99, s.p99_9, s.max);
        let line = LineSeries::new(columns.iter().copied(), colour.stroke_width(2));
        let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
        chart.draw_series(line)?.label(label).legend(key);
        let rule = [(s.p99.clamp(low, high), 0.0), (s.p99.clamp(low, high), top)];
        chart.draw_series(std::iter::once(PathElement::new(rule, colour.mix(0.4))))?;
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.8)).draw()?;
    root.present()?;
    drop(chart);
    drop(root);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_holds_both_series_and_their_figures() {
        let (mut read, mut write) = (Recorder::new(), Recorder::new());
        for n in 0..1000u64 {
            read.latency(9_000 + n * 10);
            write.latency(20_000 + n * n);
        }
        let total: f64 = columns(&read).iter().map(|(_, p)| p).sum();
        assert!((total - 100.0).abs() < 1e-6);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("h.svg");
        histogram(&file, "randrw 4 KiB", &[("read", &read), ("write", &write)]).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        for part in ["<svg", "</svg>", "randrw 4 KiB", "read: p50", "write: p50", "percent of requests"] {
            assert!(svg.contains(part), "no {part}");
        }
        assert!(svg.matches("polyline").count() >= 2);
    }

    #[test]
    fn an_empty_or_single_valued_run_still_draws() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Recorder::new();
        histogram(&dir.path().join("none.svg"), "none", &[("read", &one)]).unwrap();
        one.latency(5000);
        histogram(&dir.path().join("one.svg"), "one", &[("read", &one)]).unwrap();
        assert!(histogram(&dir.path().join("no/such/dir.svg"), "x", &[]).is_err());
    }
}
