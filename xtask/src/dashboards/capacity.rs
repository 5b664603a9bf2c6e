//! What is used up, and whether a few links or one shard take most of it.

use super::dashboard::{Dashboard, Row, Unit, graph, row, table};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "waypost-capacity",
        title: "Waypost: capacity and hot keys",
        description: "Processor, memory, files and rows, and whether the load is spread.",
        rows: vec![spread(), processes(), stored()],
    }
}

fn spread() -> Row {
    row(
        "Whether the load is spread",
        [
            graph("Hottest shard", Unit::Count, "The calls of the shard with most of them, over the average. An alert comes at 4. No metric names a link: which one it is, its tenant's statistics say.")
                .query(
                    "max by (region) (sum by (region, shard) (rate(waypost_shard_rpc_seconds_count{R}[W]))) / avg by (region) (sum by (region, shard) (rate(waypost_shard_rpc_seconds_count{R}[W])))",
                    "{{region}}",
                )
                .lines([4.0])
                .runbook("shard-hot"),
            graph("Slugs looked up at shards", Unit::PerSecond, "By shard.").query(
                r#"sum by (shard) (rate(waypost_shard_batch_items_sum{R,operation=~"resolve|resolve_replica"}[W]))"#,
                "{{shard}}",
            )
            .runbook("shard-hot"),
            graph("Hot keys", Unit::Ratio, "The part of the lookups beyond memory that found another of the same slug on its way, and waited for that: it is high when few links take most of the misses.").query(
                r#"sum(rate(waypost_lookups_joined_total{R}[W])) / sum(rate(waypost_cache_lookups_total{R,tier="l1",result=~"miss|stale"}[W]))"#,
                "joined",
            )
            .runbook("shard-hot"),
            graph("Redirects by gateway", Unit::PerSecond, "Whether whatever is in front spreads them.").query(
                r#"sum by (instance) (rate(waypost_http_request_duration_seconds_count{R,route="redirect"}[W]))"#,
                "{{instance}}",
            ),
            graph("Busiest gateway", Unit::Count, "Its redirects over the average.").query(
                r#"max(sum by (instance) (rate(waypost_http_request_duration_seconds_count{R,route="redirect"}[W]))) / avg(sum by (instance) (rate(waypost_http_request_duration_seconds_count{R,route="redirect"}[W])))"#,
                "gateways",
            ),
        ],
    )
}

fn processes() -> Row {
    row(
        "Processes",
        [
            graph("Cores in use", Unit::Count, "By kind of process.")
                .query("sum by (job) (rate(process_cpu_seconds_total{R}[W]))", "{{job}}"),
            graph("Redirects per core", Unit::PerSecond, "What a core of a gateway does at this mixture.").query(
                r#"sum(rate(waypost_http_request_duration_seconds_count{R,route="redirect"}[W])) / sum(rate(process_cpu_seconds_total{R,job="gateway"}[W]))"#,
                "redirects",
            ),
            graph("Memory", Unit::Bytes, "The largest process of each kind.")
                .query("max by (job) (process_resident_memory_bytes{R})", "{{job}}"),
            graph("Open files", Unit::Ratio, "Of those that a process may open, connections among them; the fullest of each kind.")
                .query("max by (job) (process_open_fds{R} / process_max_fds{R})", "{{job}}")
                .lines([0.8]),
            graph("Threads", Unit::Count, "The most of each kind.")
                .query("max by (job) (process_threads{R})", "{{job}}"),
            graph("Youngest process", Unit::Seconds, "How long ago the last one of each kind was started: it falls at a restart.")
                .query("time() - max by (job) (process_start_time_seconds{R})", "{{job}}")
                .runbook("process-down"),
            table("Builds", "version", "What runs: processes of each release.")
                .query("count by (version) (waypost_build_info{R})", "processes"),
        ],
    )
}

fn stored() -> Row {
    row(
        "What is stored",
        [
            graph("Bytes", Unit::Bytes, "Links and their indexes, by shard.")
                .query("max by (shard) (waypost_shard_stored_bytes{R})", "{{shard}}"),
            graph("Bytes per row", Unit::Bytes, "Links and their indexes, over the rows; tombstones and free space among them.")
                .query(
                    "sum(max by (shard) (waypost_shard_stored_bytes{R})) / (sum(max by (shard) (waypost_shard_links{R})) > 0)",
                    "bytes",
                ),
            graph("Prefixes", Unit::Count, "That gateways believe each shard to own.")
                .query("max by (shard) (waypost_ownership_prefixes{R})", "{{shard}}"),
            graph("Blocked destinations", Unit::Count, "Hosts and URLs in the blocklist in force.")
                .query("max by (instance) (waypost_blocklist_entries{R})", "{{instance}}"),
        ],
    )
}
