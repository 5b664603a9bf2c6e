//! The report for a terminal.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{Check, KindReport, Percentiles, Report, StepReport, Tick};
use crate::span::Pretty;

/// The line of one second.
#[must_use]
pub fn progress(tick: &Tick) -> String {
    format!(
        "{:>5.0}s  {:>9.0}/s  p50 {:>7}  p99 {:>7}  errors {}",
        tick.seconds,
        tick.rate,
        pretty(tick.p50_ms),
        pretty(tick.p99_ms),
        tick.errors
    )
}

/// The whole report.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    write(&mut text, report).expect("writing to a string cannot fail");
    text
}

fn write(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(
        out,
        "targets {}\nmix {}, zipf {}, {} connections, {} thread(s), latency from the intended start",
        report.targets.join(" "),
        report.mix,
        report.zipf,
        report.connections,
        report.threads
    )?;
    for step in &report.steps {
        write_step(out, step)?;
    }
    match report.sustainable_rate {
        Some(rate) => writeln!(out, "\nlast sustained rate: {rate}/s")?,
        None => writeln!(out, "\nno rate was sustained")?,
    }
    if !report.verdict.objectives.is_empty() {
        let verdict = if report.verdict.met { "met" } else { "not met" };
        writeln!(out, "objectives: {verdict}")?;
    }
    Ok(())
}

fn write_step(out: &mut String, step: &StepReport) -> fmt::Result {
    writeln!(
        out,
        "\n{}/s intended, {:.1}/s offered, {:.1}/s achieved over {}s: {}",
        step.intended_rate,
        step.offered_rate,
        step.achieved_rate,
        step.duration_seconds,
        if step.sustained {
            "sustained"
        } else {
            "not sustained"
        }
    )?;
    writeln!(
        out,
        "  {:<18}{:>10}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "", "requests", "errors", "p50", "p90", "p99", "p99.9", "max"
    )?;
    write_row(out, "all, latency", &step.total, &step.total.latency_ms)?;
    write_row(out, "all, service", &step.total, &step.total.service_ms)?;
    for (kind, seen) in &step.kinds {
        write_row(out, kind.name(), seen, &seen.latency_ms)?;
    }
    for (kind, seen) in &step.kinds {
        for (class, count) in &seen.errors_by_class {
            writeln!(out, "  error: {kind}, {class}: {count}")?;
        }
    }
    for check in &step.checks {
        writeln!(out, "  {}", describe(check))?;
    }
    if step.generator_late {
        writeln!(
            out,
            "  warning: the load generator itself ran late (p99 {}): these latencies are upper \
             bounds; give it more CPU or a lower rate",
            pretty(step.generator_lag_ms.p99)
        )?;
    }
    Ok(())
}

fn write_row(out: &mut String, name: &str, seen: &KindReport, at: &Percentiles) -> fmt::Result {
    write!(out, "  {name:<18}{:>10}{:>8}", seen.requests, seen.errors)?;
    for latency in at.for_reading([at.p50, at.p90, at.p99, at.p999, at.max]) {
        write!(out, "{latency:>9}")?;
    }
    writeln!(out)
}

/// An objective with what was seen, in one line.
#[must_use]
pub fn describe(check: &Check) -> String {
    let verdict = if check.met { "met" } else { "not met" };
    let share = check.objective.contains("errors");
    match check.actual {
        None => format!("{}: {verdict}, nothing was seen", check.objective),
        Some(actual) if share => format!("{}: {verdict}, {:.4}%", check.objective, actual * 100.0),
        Some(actual) => format!("{}: {verdict}, {}", check.objective, pretty(actual)),
    }
}

fn pretty(millis: f64) -> Pretty {
    Pretty(Duration::from_secs_f64(millis / 1e3))
}
