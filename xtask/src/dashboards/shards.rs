//! The shards: each of them, what their nodes do, and who owns what.

use super::dashboard::{Dashboard, Row, Unit, graph, row, table};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "waypost-shards",
        title: "Waypost: shards",
        description: "Each shard, what its nodes and its database do, and who owns which prefixes.",
        rows: vec![each(), calls(), database(), changes(), ownership()],
    }
}

fn each() -> Row {
    row(
        "Each shard",
        [table(
            "Shards",
            "shard",
            "Requests a second, failures, time, what it holds, and how far its furthest standby is behind.",
        )
        .query("sum by (shard) (rate(waypost_shard_rpc_seconds_count{R}[W]))", "calls a second")
        .query(
            r#"sum by (shard) (rate(waypost_shard_rpc_seconds_count{R,outcome=~"unavailable|deadline_exceeded|internal"}[W]) or 0 * rate(waypost_shard_rpc_seconds_count{R}[W])) / sum by (shard) (rate(waypost_shard_rpc_seconds_count{R}[W]))"#,
            "failed, part",
        )
        .query(
            r#"histogram_quantile(0.99, sum by (shard, le) (rate(waypost_shard_rpc_seconds_bucket{R,rpc!="watch"}[W])))"#,
            "p99, seconds",
        )
        .query("sum by (shard) (waypost_shard_leader{R})", "leaders")
        .query("max by (shard) (waypost_shard_links{R})", "rows")
        .query("max by (shard) (waypost_shard_stored_bytes{R})", "bytes")
        .query("max by (shard) (waypost_shard_prefixes{R})", "prefixes")
        .query("max by (shard) (waypost_shard_epoch{R})", "epoch")
        .query(
            "sum by (shard) (waypost_shard_sessions{R}) / sum by (shard) (waypost_shard_sessions_max{R})",
            "sessions open, part",
        )
        .query("min by (shard) (waypost_shard_replication_lag_seconds{R})", "standby behind, seconds")
        .runbook("shard-hot")],
    )
}

fn calls() -> Row {
    row(
        "Calls",
        [
            graph("Calls", Unit::PerSecond, "By RPC.").query(
                "sum by (rpc) (rate(waypost_shard_rpc_seconds_count{R}[W]))",
                "{{rpc}}",
            ),
            graph("Failures", Unit::PerSecond, "Calls that were not answered, by shard.").query(
                r#"sum by (shard) (rate(waypost_shard_rpc_seconds_count{R,outcome=~"unavailable|deadline_exceeded|internal"}[W]) or 0 * rate(waypost_shard_rpc_seconds_count{R}[W]))"#,
                "{{shard}}",
            )
            .runbook("redirect-availability"),
            graph("p99", Unit::Seconds, "By RPC.").query(
                r#"histogram_quantile(0.99, sum by (rpc, le) (rate(waypost_shard_rpc_seconds_bucket{R,rpc!="watch"}[W])))"#,
                "{{rpc}}",
            ),
            graph("Waiting or running", Unit::Count, "Items in the queues of the nodes, by what is done with them.")
                .query("sum by (operation) (waypost_shard_queue_items{R})", "{{operation}}"),
            graph("Batches", Unit::Count, "Items that one statement serves, on average.").query(
                "sum by (operation) (rate(waypost_shard_batch_items_sum{R}[W])) / sum by (operation) (rate(waypost_shard_batch_items_count{R}[W]))",
                "{{operation}}",
            ),
            graph("Moved", Unit::PerSecond, "Items answered that another shard owns their prefix: they rise for a moment when prefixes move.")
                .query("sum by (shard) (rate(waypost_shard_moved_total{R}[W]))", "{{shard}}")
                .runbook("ownership-disagrees"),
        ],
    )
}

fn database() -> Row {
    row(
        "Databases",
        [
            graph("Sessions", Unit::Count, "Open, by shard, and as many as are to be open.")
                .query("sum by (shard) (waypost_shard_sessions{R})", "{{shard}}")
                .query("max(sum by (shard) (waypost_shard_sessions_max{R}))", "wanted"),
            graph("Sessions lost", Unit::PerSecond, "After an error or a deadline.")
                .query("sum by (shard) (rate(waypost_shard_sessions_lost_total{R}[W]))", "{{shard}}")
                .runbook("shard-failover"),
            graph("Standbys behind", Unit::Seconds, "The furthest standby of each shard: what the loss of the primary's region would cost. Promised: less than 10 s.")
                .query("min by (shard) (waypost_shard_replication_lag_seconds{R})", "{{shard}}")
                .lines([10.0])
                .runbook("replica-behind"),
            graph("Standbys that can be read", Unit::Count, "Should the primary be lost.")
                .query("min by (shard) (waypost_shard_replicas_usable{R})", "{{shard}}")
                .runbook("replica-behind"),
            graph("Rows", Unit::Count, "Links and tombstones, as the databases estimate them.")
                .query("max by (shard) (waypost_shard_links{R})", "{{shard}}"),
            graph("Damaged rows", Unit::PerSecond, "Met rows that cannot be read or bear no signature of ours; each is logged.")
                .query("sum by (shard) (rate(waypost_shard_rows_damaged_total{R}[W])) or 0 * sum by (shard) (waypost_shard_leader{R})", "{{shard}}")
                .runbook("signatures-wrong"),
        ],
    )
}

fn changes() -> Row {
    row(
        "Changes",
        [
            graph("Leaders", Unit::Count, "Nodes that relay their shard's changes: one each.")
                .query("sum by (shard) (waypost_shard_leader{R})", "{{shard}}")
                .bad_below(1.0)
                .runbook("shard-without-leader"),
            graph("Told", Unit::PerSecond, "Changes sent to the gateways, and those told once more since Redis may have lost them.")
                .query("sum by (shard) (rate(waypost_shard_changes_told_total{R}[W]))", "{{shard}}")
                .query("sum(rate(waypost_shard_changes_reopened_total{R}[W]))", "once more"),
            graph("Not in Redis", Unit::Seconds, "Age of the oldest change that is not there yet.")
                .query("max by (shard) (waypost_shard_outbox_age_seconds{R})", "{{shard}}")
                .lines([30.0])
                .runbook("changes-not-in-redis"),
            graph("Streams", Unit::Count, "Gateways that listen to each shard.")
                .query("sum by (shard) (waypost_shard_watchers{R})", "{{shard}}")
                .runbook("shard-unheard"),
            graph("Streams ended", Unit::PerSecond, "Since their gateway fell behind.")
                .query("sum by (shard) (rate(waypost_shard_watchers_lagged_total{R}[W]))", "{{shard}}"),
            graph("Visits leased, links purged", Unit::PerSecond, "Visits of links with a limit, and expired links that became tombstones.")
                .query("sum(rate(waypost_shard_visits_leased_total{R}[W]))", "visits")
                .query("sum(rate(waypost_shard_links_purged_total{R}[W]))", "purged"),
        ],
    )
}

fn ownership() -> Row {
    row(
        "Ownership",
        [
            graph("Prefixes", Unit::Count, "Of 3,844, that each shard owns by its own word.")
                .query("max by (shard) (waypost_shard_prefixes{R})", "{{shard}}"),
            graph("Epochs", Unit::Count, "The highest that gateways know of each shard's prefixes: they rise when prefixes move.")
                .query("max by (shard) (waypost_ownership_epoch{R})", "{{shard}}"),
            graph("Opinions", Unit::Count, "How many different views gateways have of who owns what, and how many shard maps they follow: 1 each, but while prefixes move or a map arrives.")
                .query("count by (region) (count by (region, fingerprint) (waypost_ownership_info{R}))", "{{region}}")
                .query("count by (region) (count by (region, fingerprint) (waypost_shard_map_info{R}))", "{{region}}, maps")
                .lines([2.0])
                .runbook("ownership-disagrees"),
            graph("Moved answers", Unit::PerSecond, "Answers to gateways that another shard owns the prefix.")
                .query("sum(rate(waypost_moved_answers_total{R}[W]))", "answers")
                .runbook("ownership-disagrees"),
        ],
    )
}
