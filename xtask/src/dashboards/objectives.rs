//! What was promised, and how much of it is left.

use super::dashboard::{Dashboard, Panel, Row, Unit, graph, heatmap, number, row};
use crate::slo::{Events, OBJECTIVES, Objective, WINDOW_DAYS};

pub(super) fn dashboard() -> Dashboard {
    let mut rows = vec![overview(), latency()];
    rows.extend(OBJECTIVES.iter().map(objective));
    Dashboard {
        uid: "waypost-slo",
        title: "Waypost: what was promised",
        description: "Per objective: how much of its error budget is left, how fast it burns, and which alerts fire.",
        rows,
    }
}

fn overview() -> Row {
    row(
        "All objectives",
        [
            number("Pages", Unit::Count, "Alerts that fire and wake somebody.")
                .query(
                    r#"count(ALERTS{R,alertstate="firing",severity="page"}) or vector(0)"#,
                    "pages",
                )
                .lines([1.0]),
            number(
                "Tickets",
                Unit::Count,
                "Alerts that fire and can wait for the day.",
            )
            .query(
                r#"count(ALERTS{R,alertstate="firing",severity="ticket"}) or vector(0)"#,
                "tickets",
            )
            .lines([1.0]),
            number(
                "Gateways that answer",
                Unit::Count,
                "Gateways whose metrics could be read.",
            )
            .query(r#"sum(up{R,job="gateway"})"#, "gateways")
            .runbook("process-down")
            .bad_below(1.0),
            number(
                "Processes down",
                Unit::Count,
                "Processes of ours whose metrics could not be read.",
            )
            .query(
                r#"count(up{R,job=~"gateway|shard-node|keygen|analytics-consumer"} == 0) or vector(0)"#,
                "processes",
            )
            .runbook("process-down")
            .lines([1.0]),
            number("Redirects", Unit::PerSecond, "Redirects a second.").query(
                r#"sum(rate(waypost_http_request_duration_seconds_count{R,route="redirect"}[W]))"#,
                "redirects",
            ),
            number("Creates", Unit::PerSecond, "Requests that create links, a second.").query(
                r#"sum(rate(waypost_http_request_duration_seconds_count{R,route=~"shorten|create|batch"}[W]))"#,
                "creates",
            ),
            graph(
                "Error budget left",
                Unit::Ratio,
                "Of 30 days. Below 0 more was bad than may be.",
            )
            .query("slo:error_budget_left:ratio{R}", "{{slo}} {{region}}")
            .bad_below(0.0)
            .width(12),
            graph(
                "Burn rates, over an hour",
                Unit::Count,
                "1: the budget is used up at the end of the 30 days; 14.4: after two days.",
            )
            .query("slo:burn_rate:rate1h{R}", "{{slo}} {{region}}")
            .lines([1.0, 3.0, 6.0, 14.4])
            .width(12),
        ],
    )
}

fn latency() -> Row {
    let quantile = |q: &str, matchers: &str| {
        format!(
            "histogram_quantile({q}, sum by (le) (rate(waypost_http_request_duration_seconds_bucket{{R,{matchers}}}[W])))"
        )
    };
    let redirects = r#"route="redirect",code!~"5..""#;
    let within = |le: &str| {
        format!(
            r#"sum(rate(waypost_http_request_duration_seconds_bucket{{R,{redirects},le="{le}"}}[W])) / sum(rate(waypost_http_request_duration_seconds_count{{R,{redirects}}}[W]))"#
        )
    };
    let of = |metric: &str, matchers: &str| {
        format!("histogram_quantile(0.99, sum by (le) (rate({metric}_bucket{{R,{matchers}}}[W])))")
    };
    row(
        "Latency",
        [
            graph(
                "Redirects",
                Unit::Seconds,
                "From a request's head to its answer, of those that were answered. Promised: half within 10 ms, 99 of 100 within 50 ms.",
            )
            .query(&quantile("0.5", redirects), "p50")
            .query(&quantile("0.99", redirects), "p99")
            .query(&quantile("0.999", redirects), "p99.9")
            .lines([0.01, 0.05])
            .runbook("redirect-latency-50ms"),
            graph(
                "Redirects in time",
                Unit::Ratio,
                "The part that was answered within 10 ms and within 50 ms.",
            )
            .query(&within("0.01"), "within 10 ms")
            .query(&within("0.05"), "within 50 ms")
            .bad_below(0.99)
            .runbook("redirect-latency-10ms"),
            heatmap(
                "Redirects, all of them",
                Unit::Seconds,
                "How many took how long.",
            )
            .query(
                &format!("sum by (le) (increase(waypost_http_request_duration_seconds_bucket{{R,{redirects}}}[W]))"),
                "{{le}}",
            ),
            graph(
                "p99 by tier",
                Unit::Seconds,
                "A redirect out of memory takes what p50 says. Those that miss wait for Redis, and those that miss there for the shard and its database.",
            )
            .query(&quantile("0.5", redirects), "redirect, p50")
            .query(&of("waypost_redis_call_duration_seconds", r#"call="get""#), "Redis")
            .query(&of("waypost_shard_call_duration_seconds", r#"rpc="resolve""#), "call to the shard")
            .query(&of("waypost_shard_rpc_seconds", r#"rpc="resolve_batch""#), "in the shard-node")
            .width(12)
            .runbook("redirect-latency-50ms"),
            graph(
                "Creates",
                Unit::Seconds,
                "From a request's head to its answer, of single creates that were answered. Promised: 99 of 100 within 250 ms.",
            )
            .query(&quantile("0.5", r#"route=~"shorten|create",code!~"5..""#), "p50")
            .query(&quantile("0.99", r#"route=~"shorten|create",code!~"5..""#), "p99")
            .lines([0.25])
            .width(12)
            .runbook("create-latency-250ms"),
        ],
    )
}

/// One objective. Its runbook is called like it.
fn objective(objective: &Objective) -> Row {
    let Objective { id, .. } = *objective;
    let budget = objective.budget();
    let (seconds, minutes) = (WINDOW_DAYS * 86_400, WINDOW_DAYS * 1_440);
    let burn = |window: &str| format!("slo:error_ratio:rate{window}{{R,slo=\"{id}\"}} / {budget}");
    let mut panels = vec![
        number("Promised", Unit::Ratio, objective.promise)
            .query(&format!("max(slo:objective:ratio{{slo=\"{id}\"}})"), "promised")
            .width(3),
        number("Budget left", Unit::Ratio, "Of the error budget of 30 days.")
            .query(&format!("min(slo:error_budget_left:ratio{{R,slo=\"{id}\"}})"), "left")
            .bad_below(0.0)
            .width(3),
        number(
            "Minutes left",
            Unit::Minutes,
            "How long everything may fail in these 30 days, from now on.",
        )
        .query(
            &format!("min(slo:error_budget_left:ratio{{R,slo=\"{id}\"}}) * {budget} * {minutes}"),
            "left",
        )
        .bad_below(0.0)
        .width(3),
        number(
            "Time to exhaustion",
            Unit::Seconds,
            "When the budget is used up if it burns on as in the last hour; a year stands for never.",
        )
        .query(
            &format!(
                "clamp_max(min(slo:error_budget_left:ratio{{R,slo=\"{id}\"}}) / max(slo:burn_rate:rate1h{{R,slo=\"{id}\"}}) * {seconds}, 31536000)"
            ),
            "left",
        )
        .width(3),
        number("Alerts", Unit::Count, "Alerts on this objective that fire.")
            .query(
                &format!("count(ALERTS{{R,slo=\"{id}\",alertstate=\"firing\"}}) or vector(0)"),
                "firing",
            )
            .lines([1.0])
            .width(3),
    ];
    if let Events::Requests { .. } = objective.events {
        let left = format!(
            "min(slo:error_budget_left:ratio{{R,slo=\"{id}\"}}) * {budget} * sum(avg_over_time(slo:events:rate5m{{R,slo=\"{id}\"}}[{WINDOW_DAYS}d])) * {seconds}"
        );
        let panel = number(
            "Requests left",
            Unit::Count,
            "Requests that may be bad in these 30 days, from now on, at the average rate so far.",
        );
        panels.push(panel.query(&left, "left").bad_below(0.0).width(3));
    }
    panels.push(
        graph(
            "Burn rates",
            Unit::Count,
            "How many times faster than it may the budget burns. Somebody is woken at 14.4 (over 5 minutes and an hour) and at 6 (over 30 minutes and 6 hours); a ticket is written at 3 (2 hours, a day) and 1 (6 hours, 3 days).",
        )
        .query(&burn("5m"), "5 minutes {{region}}")
        .query(&burn("1h"), "1 hour {{region}}")
        .query(&burn("6h"), "6 hours {{region}}")
        .query(&burn("3d"), "3 days {{region}}")
        .lines([1.0, 3.0, 6.0, 14.4])
        .width(12),
    );
    let panels: Vec<Panel> = panels.into_iter().map(|panel| panel.runbook(id)).collect();
    row(objective.id, panels)
}
