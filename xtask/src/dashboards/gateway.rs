//! What clients ask of the gateways, and what those ask of others.

use super::dashboard::{Dashboard, Row, Unit, graph, number, row, table};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "waypost-gateway",
        title: "Waypost: gateways",
        description: "Rates, errors and durations by route and by call, keys, limits and what was refused.",
        rows: vec![routes(), calls(), keys(), refusals()],
    }
}

fn routes() -> Row {
    row(
        "Routes",
        [
            graph("Requests", Unit::PerSecond, "Requests a second, by route.").query(
                "sum by (route) (rate(waypost_http_request_duration_seconds_count{R}[W]))",
                "{{route}}",
            ),
            graph(
                "Failures",
                Unit::Ratio,
                "The part of each route's requests that was answered with 5xx.",
            )
            .query(
                r#"sum by (route) (rate(waypost_http_request_duration_seconds_count{R,code=~"5.."}[W]) or 0 * rate(waypost_http_request_duration_seconds_count{R}[W])) / sum by (route) (rate(waypost_http_request_duration_seconds_count{R}[W]))"#,
                "{{route}}",
            )
            .runbook("redirect-availability"),
            graph("p99", Unit::Seconds, "From a request's head to its answer, by route.").query(
                "histogram_quantile(0.99, sum by (route, le) (rate(waypost_http_request_duration_seconds_bucket{R}[W])))",
                "{{route}}",
            ),
            graph("Answers to redirects", Unit::PerSecond, "By status.").query(
                r#"sum by (code) (rate(waypost_http_request_duration_seconds_count{R,route="redirect"}[W]))"#,
                "{{code}}",
            ),
            graph(
                "Redirects not answered",
                Unit::PerSecond,
                "503, since nobody who knows could be asked. Those that are unconfirmed are apart from the objective: a replica has no such link, and only the primary may say 404.",
            )
            .query(
                "sum by (reason) (rate(waypost_lookups_unanswered_total{R}[W]))",
                "{{reason}}",
            )
            .runbook("redirect-availability"),
            graph("Connections", Unit::Count, "Open connections of clients, by gateway.")
                .query("sum by (instance) (waypost_http_connections{R})", "{{instance}}"),
        ],
    )
}

fn calls() -> Row {
    row(
        "Calls to others",
        [
            graph("Calls to shards", Unit::PerSecond, "By RPC and what came of it.").query(
                "sum by (rpc, result) (rate(waypost_shard_call_duration_seconds_count{R}[W]))",
                "{{rpc}} {{result}}",
            ),
            graph("Calls to shards, p99", Unit::Seconds, "By RPC.").query(
                "histogram_quantile(0.99, sum by (rpc, le) (rate(waypost_shard_call_duration_seconds_bucket{R}[W])))",
                "{{rpc}}",
            ),
            graph(
                "Batches",
                Unit::Count,
                "Slugs or links that one call carries, on average: it grows with the load, and keeps the shards from feeling it.",
            )
            .query(
                "sum by (rpc) (rate(waypost_shard_call_items_sum{R}[W])) / sum by (rpc) (rate(waypost_shard_call_items_count{R}[W]))",
                "{{rpc}}",
            ),
            graph(
                "Waiting for a call",
                Unit::Count,
                "Slugs and links in the queues to the shards.",
            )
            .query("sum by (shard, rpc) (waypost_shard_call_queue_items{R})", "{{shard}} {{rpc}}"),
            graph(
                "Retries",
                Unit::PerSecond,
                "Calls that did not reach their node: made again at another, or refused since too many fail.",
            )
            .query("sum by (result) (rate(waypost_shard_call_retries_total{R}[W]))", "{{result}}"),
            graph("Calls for statistics, p99", Unit::Seconds, "By RPC.").query(
                "histogram_quantile(0.99, sum by (rpc, le) (rate(waypost_analytics_call_duration_seconds_bucket{R}[W])))",
                "{{rpc}}",
            ),
        ],
    )
}

fn keys() -> Row {
    row(
        "Keys",
        [
            graph(
                "Slugs in stock",
                Unit::Count,
                "The lowest of all gateways, and what each is to have: a minute of creates.",
            )
            .query("min(waypost_keys_in_stock{R})", "lowest")
            .query("max(waypost_keys_wanted{R})", "wanted")
            .runbook("keys-run-out"),
            graph("Leases from keygen, p99", Unit::Seconds, "Of the gateways' calls within an hour: there is one every now and then.").query(
                "histogram_quantile(0.99, sum by (le) (increase(waypost_keygen_call_duration_seconds_bucket{R}[1h])))",
                "p99",
            ),
            graph(
                "Slugs handed out",
                Unit::PerSecond,
                "By all keygens; withheld: their prefix has none left in its epoch.",
            )
            .query("sum(rate(waypost_keygen_slugs_total{R}[W]))", "handed out")
            .query("sum(rate(waypost_keygen_slugs_withheld_total{R}[W]))", "withheld")
            .runbook("keys-run-out"),
            graph("Requests to keygen", Unit::PerSecond, "By what came of them.").query(
                "sum by (outcome) (rate(waypost_keygen_requests_total{R}[W]))",
                "{{outcome}}",
            ),
            graph(
                "Leases not granted, slugs taken already",
                Unit::PerSecond,
                "The second should never happen for minted slugs.",
            )
            .query("sum(rate(waypost_key_lease_failures_total{R}[W]))", "leases not granted")
            .query("sum(rate(waypost_key_conflicts_total{R}[W]))", "minted, taken already")
            .query("sum(rate(waypost_series_conflicts_total{R}[W]))", "repeatable, taken already")
            .runbook("keys-run-out"),
        ],
    )
}

fn refusals() -> Row {
    row(
        "What was refused",
        [
            graph("Limits on clients", Unit::PerSecond, "What they refused or closed, by limit.")
                .query("sum by (limit) (rate(waypost_gateway_limited_total{R}[W]))", "{{limit}}"),
            graph(
                "Shed",
                Unit::PerSecond,
                "API requests answered 503 since their lane was full.",
            )
            .query("sum by (lane) (rate(waypost_gateway_shed_total{R}[W]))", "{{lane}}")
            .runbook("create-availability"),
            graph("API requests under way", Unit::Count, "By lane.")
                .query("sum by (lane) (waypost_gateway_lane_requests{R})", "{{lane}}"),
            graph("Tokens", Unit::PerSecond, "Requests refused because of their token.").query(
                "sum by (reason) (rate(waypost_tokens_refused_total{R}[W]))",
                "{{reason}}",
            ),
            graph(
                "Destinations",
                Unit::PerSecond,
                "Creates and edits refused because of where the link would lead.",
            )
            .query(
                "sum by (reason) (rate(waypost_destinations_refused_total{R}[W]))",
                "{{reason}}",
            ),
            graph(
                "Visits and passwords",
                Unit::PerSecond,
                "Visits of links with a limit for which a shard was asked, and passwords worked out.",
            )
            .query("sum by (result) (rate(waypost_visits_asked_total{R}[W]))", "visits {{result}}")
            .query(
                "sum by (work, result) (rate(waypost_passwords_total{R}[W]))",
                "passwords {{work}} {{result}}",
            ),
            number(
                "Wrong signatures",
                Unit::Count,
                "Links whose signature was wrong, within an hour. None was served.",
            )
            .query("sum(increase(waypost_bad_signatures_total{R}[1h]))", "links")
            .lines([1.0])
            .runbook("signatures-wrong"),
            number(
                "Connections refused",
                Unit::PerSecond,
                "Closed at once because of the limit on all of them.",
            )
            .query("sum(rate(waypost_http_connections_refused_total{R}[W]))", "connections"),
            table(
                "Watched files",
                "file",
                "Files that a process reads again when they change: whether what they say is in force, and since when it is.",
            )
            .query("min by (file) (waypost_watched_file_current{R})", "in force")
            .query(
                "time() - min by (file) (waypost_watched_file_last_success_timestamp_seconds{R})",
                "read, seconds ago",
            )
            .runbook("watched-file-old"),
        ],
    )
}
