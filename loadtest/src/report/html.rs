//! The report as one page that needs nothing else: no script, no font, no
//! network.

use std::fmt::Write as _;
use std::time::Duration;

use super::curve::{Series, draw};
use super::text::describe;
use super::{Percentiles, Report, StepReport};
use crate::span::Pretty;

/// Lines that can still be told apart in one drawing.
const MAX_SERIES: usize = 8;

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Load test</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5d666f; --rule: #dfe3e8; --page: #fff;
  --s0: #0b62d6; --s1: #c2410c; --s2: #15803d; --s3: #a21caf; --s4: #b45309; --s5: #0e7490; --s6: #be123c; --s7: #4d5560; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a4adb6; --rule: #343a40; --page: #15181b;
  --s0: #6cb1ff; --s1: #ff9d66; --s2: #62d087; --s3: #e49bee; --s4: #f2c14e; --s5: #5bd3e8; --s6: #ff8fa3; --s7: #b8c0c8; } }
body { margin: 2rem auto; max-width: 920px; padding: 0 1rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
p.soft, .axis, th { color: var(--soft); }
svg { width: 100%; height: auto; } .grid { stroke: var(--rule); } .axis { fill: var(--soft); font-size: 12px; }
.line { fill: none; stroke-width: 2; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); } .s2 { stroke: var(--s2); } .s3 { stroke: var(--s3); }
.s4 { stroke: var(--s4); } .s5 { stroke: var(--s5); } .s6 { stroke: var(--s6); } .s7 { stroke: var(--s7); }
.legend span { margin-right: 1.2rem; white-space: nowrap; } .legend svg { width: 24px; height: 10px; margin-right: .4rem; }
</style></head><body>
"#;

/// The page.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut page = HEAD.to_owned();
    let verdict = match (report.verdict.objectives.is_empty(), report.verdict.met) {
        (true, _) => "no objectives given",
        (false, true) => "objectives met",
        (false, false) => "objectives not met",
    };
    let _ = writeln!(
        page,
        "<h1>Load test: {verdict}</h1>\n<p class=\"soft\">{} &middot; mix {} &middot; Zipf {} \
         &middot; {} connections. Latency counts from the time a request was due, also while it \
         waited for a free connection; service time counts from when it was sent.</p>",
        escape(&report.targets.join(" ")),
        escape(&report.mix),
        report.zipf,
        report.connections
    );
    if let Some(rate) = report.sustainable_rate {
        let _ = writeln!(page, "<p>Last sustained rate: <b>{rate}/s</b></p>");
    }
    write_drawing(&mut page, report);
    for step in &report.steps {
        write_step(&mut page, step);
    }
    page.push_str("</body></html>\n");
    page
}

fn write_drawing(page: &mut String, report: &Report) {
    let series = series(&report.steps);
    page.push_str("<h2>Latency by percentile</h2>\n<p class=\"legend\">");
    for (index, line) in series.iter().enumerate() {
        let _ = write!(
            page,
            "<span><svg viewBox=\"0 0 24 10\" aria-hidden=\"true\"><path class=\"line s{index}\" \
             d=\"M0 5H24\"/></svg>{}</span>",
            line.name
        );
    }
    page.push_str("</p>\n");
    page.push_str(&draw(&series));
}

/// One rate: latency beside service time. Several: their latencies, spread
/// evenly over the steps when there are too many, the last always among them.
fn series(steps: &[StepReport]) -> Vec<Series<'_>> {
    if let [step] = steps {
        return vec![
            Series {
                name: "latency from the intended start".to_owned(),
                points: &step.total.latency_curve,
            },
            Series {
                name: "service time".to_owned(),
                points: &step.total.service_curve,
            },
        ];
    }
    let shown = steps.len().min(MAX_SERIES);
    (1..=shown)
        .map(|place| {
            let step = &steps[place * steps.len() / shown - 1];
            Series {
                name: format!("{}/s", step.intended_rate),
                points: &step.total.latency_curve,
            }
        })
        .collect()
}

fn write_step(page: &mut String, step: &StepReport) {
    let _ = writeln!(
        page,
        "<h2>{}/s intended</h2>\n<p>{:.1}/s offered, {:.1}/s achieved over {}s: {}.</p>\n\
         <div class=\"wide\"><table><tr><th></th><th>requests</th><th>errors</th><th>p50</th>\
         <th>p90</th><th>p95</th><th>p99</th><th>p99.9</th><th>max</th></tr>",
        step.intended_rate,
        step.offered_rate,
        step.achieved_rate,
        step.duration_seconds,
        if step.sustained {
            "sustained"
        } else {
            "not sustained"
        }
    );
    let total = &step.total;
    let counts = (total.requests, total.errors);
    write_row(page, "all, latency", counts, &total.latency_ms);
    write_row(page, "all, service time", counts, &total.service_ms);
    for (kind, seen) in &step.kinds {
        let counts = (seen.requests, seen.errors);
        write_row(page, kind.name(), counts, &seen.latency_ms);
    }
    page.push_str("</table></div>\n<ul>\n");
    for check in &step.checks {
        let _ = writeln!(page, "<li>{}</li>", escape(&describe(check)));
    }
    for (kind, seen) in &step.kinds {
        for (class, count) in &seen.errors_by_class {
            let _ = writeln!(page, "<li>error: {kind}, {class}: {count}</li>");
        }
    }
    let _ = writeln!(
        page,
        "<li>the load generator noticed due requests {} late at p99{}</li>\n</ul>",
        pretty(step.generator_lag_ms.p99),
        if step.generator_late {
            ": it is too busy, and these latencies are upper bounds"
        } else {
            ""
        }
    );
}

fn write_row(page: &mut String, name: &str, (requests, errors): (u64, u64), at: &Percentiles) {
    let _ = write!(
        page,
        "<tr><td>{name}</td><td>{requests}</td><td>{errors}</td>"
    );
    for latency in at.for_reading([at.p50, at.p90, at.p95, at.p99, at.p999, at.max]) {
        let _ = write!(page, "<td>{latency}</td>");
    }
    page.push_str("</tr>\n");
}

fn pretty(millis: f64) -> Pretty {
    Pretty(Duration::from_secs_f64(millis / 1e3))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
