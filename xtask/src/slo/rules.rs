//! From objectives to Prometheus rules: error ratios over several windows, and alerts
//! on the rate at which the error budget burns (Google's SRE workbook, chapter 5).
//!
//! Everything longer than five minutes is made of the five-minute rates, weighted by
//! their events: a quiet night weighs as little as it matters, and 30 days are read out
//! of two short series. No traffic gives no ratio, and so no alert; no error gives zero.

use std::fmt::Write as _;

use super::objectives::{Events, Objective};

const WINDOWS: [&str; 7] = ["30m", "1h", "2h", "6h", "1d", "3d", "30d"];

/// A budget that burns so many times too fast over both windows.
struct Burn {
    factor: f64,
    short: &'static str,
    long: &'static str,
}

/// A budget of 30 days would be used up within 2, or 5: somebody is woken.
const FAST: [Burn; 2] = [
    Burn {
        factor: 14.4,
        short: "5m",
        long: "1h",
    },
    Burn {
        factor: 6.0,
        short: "30m",
        long: "6h",
    },
];

/// Within 10 days, or just about 30: somebody looks when the day begins.
const SLOW: [Burn; 2] = [
    Burn {
        factor: 3.0,
        short: "2h",
        long: "1d",
    },
    Burn {
        factor: 1.0,
        short: "6h",
        long: "3d",
    },
];

/// The rules of all objectives as a file of Prometheus 2.42 or later.
pub(super) fn of(objectives: &[Objective]) -> String {
    let mut text = String::from(
        "# Made by `cargo xtask slo` out of xtask/src/slo/objectives.rs: change it there.\ngroups:\n",
    );
    for objective in objectives {
        group(&mut text, objective);
    }
    text
}

fn group(text: &mut String, objective: &Objective) {
    let Objective { id, target, .. } = *objective;
    let _ = writeln!(text, "  # {}.", objective.promise);
    let _ = writeln!(text, "  - name: waypost-slo-{id}\n    rules:");
    let (total, bad) = rates(objective.events);
    record(text, "slo:events:rate5m", id, &total);
    record(text, "slo:bad_events:rate5m", id, &bad);
    let ratio =
        format!("slo:bad_events:rate5m{{slo=\"{id}\"}} / (slo:events:rate5m{{slo=\"{id}\"}} > 0)");
    record(text, "slo:error_ratio:rate5m", id, &ratio);
    for window in WINDOWS {
        let ratio = format!(
            "sum_over_time(slo:bad_events:rate5m{{slo=\"{id}\"}}[{window}])\n  \
             / (sum_over_time(slo:events:rate5m{{slo=\"{id}\"}}[{window}]) > 0)"
        );
        record(text, &format!("slo:error_ratio:rate{window}"), id, &ratio);
    }
    record(
        text,
        "slo:objective:ratio",
        id,
        &format!("vector({target})"),
    );
    let budget = objective.budget();
    let burn = |window| format!("slo:error_ratio:rate{window}{{slo=\"{id}\"}} / {budget}");
    record(text, "slo:burn_rate:rate5m", id, &burn("5m"));
    record(text, "slo:burn_rate:rate1h", id, &burn("1h"));
    let left = format!("1 - {}", burn("30d"));
    record(text, "slo:error_budget_left:ratio", id, &left);
    alert(
        text,
        objective,
        "BurnsFast",
        "page",
        &burns(objective, &FAST),
    );
    alert(
        text,
        objective,
        "BurnsSlowly",
        "ticket",
        &burns(objective, &SLOW),
    );
    let spent = format!("slo:error_budget_left:ratio{{slo=\"{id}\"}} < 0");
    alert(text, objective, "BudgetSpent", "ticket", &spent);
}

/// Events a second, all of them and the bad ones, over five minutes.
fn rates(events: Events) -> (String, String) {
    match events {
        Events::Requests { total, bad } => {
            let over = |query: &str| query.replace("[W]", "[5m]");
            let (total, bad) = (over(total), over(bad));
            // Without an error so far there is no series to take a rate of.
            let bad = format!("{bad}\n  or 0 * {total}");
            (total, bad)
        }
        Events::Seconds { gauge, at_most } => (
            format!("0 * {gauge} + 1"),
            format!("avg_over_time(({gauge} > bool {at_most})[5m:15s])"),
        ),
    }
}

/// Over the short window as well, so that an alert ends soon after its cause.
fn burns(objective: &Objective, rates: &[Burn]) -> String {
    let (id, budget) = (objective.id, 1.0 - objective.target);
    let pairs: Vec<String> = rates
        .iter()
        // More than all events cannot be bad.
        .filter(|burn| burn.factor * budget < 1.0)
        .map(
            |Burn {
                 factor,
                 short,
                 long,
             }| {
                let over = |window| {
                    format!(
                        "slo:error_ratio:rate{window}{{slo=\"{id}\"}} > {:.6}",
                        factor * budget
                    )
                };
                format!("({} and {})", over(short), over(long))
            },
        )
        .collect();
    let burning = format!("({})", pairs.join("\n  or "));
    match objective.events {
        // One failure in a quiet region wakes nobody: two within an hour must be what
        // the fastest rate takes, at least.
        Events::Requests { .. } => format!(
            "{burning}\n  and on (region) \
             avg_over_time(slo:events:rate5m{{slo=\"{id}\"}}[1h]) * 3600 > {:.0}",
            (2.0 / (FAST[0].factor * budget)).ceil()
        ),
        Events::Seconds { .. } => burning,
    }
}

fn record(text: &mut String, name: &str, id: &str, expr: &str) {
    let _ = writeln!(
        text,
        "      - record: {name}\n        labels: {{slo: {id}}}"
    );
    expression(text, expr);
}

fn alert(text: &mut String, objective: &Objective, kind: &str, severity: &str, expr: &str) {
    let Objective { id, alert, .. } = objective;
    let _ = writeln!(text, "      - alert: {alert}{kind}");
    expression(text, expr);
    let says = match kind {
        "BurnsFast" => "burns so fast that it is used up within days",
        "BurnsSlowly" => "burns faster than it may",
        _ => "is used up",
    };
    let _ = writeln!(
        text,
        "        labels: {{severity: {severity}, slo: {id}}}\n        annotations:\n          \
         summary: \"{{{{ $labels.region }}}}: the error budget of {id} {says}\"\n          \
         description: \"Promised: {}.\"\n          \
         runbook_url: \"{{{{ $externalLabels.docs }}}}/docs/runbooks/{id}.md\"\n          \
         dashboard_url: \"{{{{ $externalLabels.grafana }}}}/d/waypost-slo?var-region={{{{ $labels.region }}}}\"",
        objective.promise
    );
}

fn expression(text: &mut String, expr: &str) {
    text.push_str("        expr: |-\n");
    for line in expr.lines() {
        let _ = writeln!(text, "          {line}");
    }
}
