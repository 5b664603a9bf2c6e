//! From a click to its count.

use super::dashboard::{Dashboard, Row, Unit, graph, heatmap, number, row};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "waypost-clicks",
        title: "Waypost: clicks, Kafka and analytics",
        description: "What becomes of each click: recorded, spooled, acknowledged by Kafka, counted, or lost.",
        rows: vec![way(), spool(), counting()],
    }
}

fn way() -> Row {
    row(
        "A click's way",
        [
            graph(
                "Clicks",
                Unit::PerSecond,
                "At each station. They are far apart only while something catches up.",
            )
            .query("sum(rate(waypost_clicks_recorded_total{R}[W]))", "recorded")
            .query("sum(rate(waypost_clicks_spooled_total{R}[W]))", "spooled")
            .query(
                "sum(rate(waypost_clicks_acked_total{R}[W]))",
                "acknowledged by Kafka",
            )
            .query("sum(rate(waypost_analytics_clicks_total{R}[W]))", "counted")
            .width(12)
            .runbook("clicks-not-sent"),
            graph(
                "Age of statistics",
                Unit::Seconds,
                "Up to when all clicks are counted. Promised: within 60 s.",
            )
            .query(
                "max by (region) (waypost_analytics_lag_seconds{R})",
                "{{region}}",
            )
            .lines([60.0])
            .width(12)
            .runbook("click-freshness"),
            number(
                "Lost within a day",
                Unit::Count,
                "Clicks that were answered and will never be counted.",
            )
            .query("sum(increase(waypost_clicks_lost_total{R}[1d]))", "clicks")
            .lines([1.0])
            .runbook("clicks-lost"),
            number(
                "Put aside within a day",
                Unit::Count,
                "Messages that could not be read, and are kept in the table dead_letter.",
            )
            .query(
                "sum(increase(waypost_analytics_dead_letters_total{R}[1d]))",
                "messages",
            )
            .lines([1.0])
            .runbook("messages-put-aside"),
            number(
                "Waiting",
                Unit::Count,
                "Clicks in spools or on their way to Kafka.",
            )
            .query("sum(waypost_clicks_waiting{R})", "clicks")
            .runbook("clicks-not-sent"),
            number(
                "Not counted",
                Unit::Count,
                "Messages in Kafka that are not counted yet.",
            )
            .query("sum(waypost_analytics_lag_records{R})", "messages")
            .runbook("clicks-not-counted"),
        ],
    )
}

fn spool() -> Row {
    row(
        "Spools and Kafka",
        [
            graph(
                "Spools",
                Unit::Ratio,
                "How full each gateway's is. When it is full the oldest clicks are dropped.",
            )
            .query(
                "waypost_click_spool_bytes{R} / waypost_click_spool_max_bytes{R}",
                "{{instance}}",
            )
            .lines([0.5, 1.0])
            .runbook("clicks-not-sent"),
            graph("Bytes in spools", Unit::Bytes, "Of all gateways.")
                .query("sum(waypost_click_spool_bytes{R})", "bytes"),
            graph(
                "Oldest unacknowledged click",
                Unit::Seconds,
                "By gateway. It grows while Kafka cannot be reached.",
            )
            .query(
                "max by (instance) (waypost_click_oldest_unsent_seconds{R})",
                "{{instance}}",
            )
            .lines([60.0])
            .runbook("clicks-not-sent"),
            graph("Lost", Unit::PerSecond, "By reason.")
                .query(
                    "sum by (reason) (rate(waypost_clicks_lost_total{R}[W]))",
                    "{{reason}}",
                )
                .runbook("clicks-lost"),
            graph(
                "Batches sent again",
                Unit::PerSecond,
                "Batches of clicks that Kafka refused or did not acknowledge.",
            )
            .query(
                "sum(rate(waypost_click_batches_retried_total{R}[W]))",
                "batches",
            )
            .runbook("clicks-not-sent"),
            graph(
                "Messages not counted",
                Unit::Count,
                "In each consumer's partitions.",
            )
            .query(
                "sum by (instance) (waypost_analytics_lag_records{R})",
                "{{instance}}",
            )
            .runbook("clicks-not-counted"),
        ],
    )
}

fn counting() -> Row {
    row(
        "Counting",
        [
            graph("Transactions", Unit::PerSecond, "That count, and those that failed and were tried again.")
                .query("sum(rate(waypost_analytics_transaction_seconds_count{R}[W]))", "transactions")
                .query("sum(rate(waypost_analytics_retries_total{R}[W]))", "tried again")
                .query("sum(rate(waypost_analytics_fenced_total{R}[W]))", "given up to another consumer")
                .runbook("clicks-not-counted"),
            heatmap("Time of a transaction", Unit::Seconds, "How many took how long.").query(
                "sum by (le) (increase(waypost_analytics_transaction_seconds_bucket{R}[W]))",
                "{{le}}",
            ),
            graph("Batches in a transaction", Unit::Count, "On average: it grows with the backlog.").query(
                "sum(rate(waypost_analytics_transaction_batches_sum{R}[W])) / sum(rate(waypost_analytics_transaction_batches_count{R}[W]))",
                "batches",
            ),
            graph("Batches", Unit::PerSecond, "That came, came again, and will not be counted any more.")
                .query("sum(rate(waypost_analytics_batches_total{R}[W]))", "taken")
                .query("sum(rate(waypost_analytics_duplicate_batches_total{R}[W]))", "came again")
                .query("sum(rate(waypost_analytics_too_late_batches_total{R}[W]))", "too late")
                .query("sum(rate(waypost_analytics_forgotten_batches_total{R}[W]))", "given up")
                .runbook("clicks-not-counted"),
            graph("Rows", Unit::PerSecond, "Rows of rollups written, and begun anew since they could not be read.")
                .query("sum(rate(waypost_analytics_rows_total{R}[W]))", "written")
                .query("sum(rate(waypost_analytics_unreadable_rows_total{R}[W]))", "begun anew")
                .query("sum(rate(waypost_analytics_log_gaps_total{R}[W]))", "gaps in the log"),
            graph("Statistics, p99", Unit::Seconds, "Of the RPCs that answer them.").query(
                "histogram_quantile(0.99, sum by (rpc, le) (rate(waypost_analytics_rpc_seconds_bucket{R}[W])))",
                "{{rpc}}",
            ),
        ],
    )
}
