//! What caches answer, and whether they may be believed.

use super::dashboard::{Dashboard, Row, Unit, graph, row};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "waypost-cache",
        title: "Waypost: caches",
        description: "What memory and Redis answer, what they hold, and whether they may be believed.",
        rows: vec![lookups(), memory(), redis(), trust()],
    }
}

fn lookups() -> Row {
    row(
        "Lookups",
        [
            graph(
                "Answered by a cache",
                Unit::Ratio,
                "Of all lookups, by memory alone and by memory or Redis. The shards are planned for one in five at most.",
            )
            .query(
                r#"sum(rate(waypost_cache_lookups_total{R,tier="l1",result="hit"}[W])) / sum(rate(waypost_cache_lookups_total{R,tier="l1",result=~"hit|miss|stale"}[W]))"#,
                "memory",
            )
            .query(
                r#"sum(rate(waypost_cache_lookups_total{R,result=~"hit|absent"}[W])) / sum(rate(waypost_cache_lookups_total{R,tier="l1",result=~"hit|miss|stale"}[W]))"#,
                "memory or Redis",
            )
            .bad_below(0.8)
            .runbook("cache-hits-low"),
            graph("Memory", Unit::PerSecond, "Lookups in memory, by what came of them.").query(
                r#"sum by (result) (rate(waypost_cache_lookups_total{R,tier="l1",result=~"hit|miss|stale|served_stale"}[W]))"#,
                "{{result}}",
            ),
            graph("Redis", Unit::PerSecond, "Lookups in Redis, by what came of them.").query(
                r#"sum by (result) (rate(waypost_cache_lookups_total{R,tier="redis"}[W]))"#,
                "{{result}}",
            ),
            graph(
                "Joined",
                Unit::PerSecond,
                "Lookups that waited for another's of the same slug instead of making their own: what is spared when a hot link expires from memory.",
            )
            .query("sum(rate(waypost_lookups_joined_total{R}[W]))", "joined"),
            graph(
                "Lookups at shards",
                Unit::PerSecond,
                "Slugs that no cache had, by shard-nodes' count.",
            )
            .query(
                r#"sum(rate(waypost_shard_batch_items_sum{R,operation=~"resolve|resolve_replica"}[W]))"#,
                "slugs",
            )
            .runbook("cache-hits-low"),
        ],
    )
}

fn memory() -> Row {
    row(
        "Memory",
        [
            graph(
                "Bytes",
                Unit::Bytes,
                "What links take in each gateway, and may take.",
            )
            .query("waypost_l1_bytes{R}", "{{instance}}")
            .query("max(waypost_l1_max_bytes{R})", "at most")
            .width(12),
            graph("Links", Unit::Count, "Links in each gateway's memory.")
                .query("waypost_l1_links{R}", "{{instance}}")
                .width(12),
        ],
    )
}

fn redis() -> Row {
    row(
        "Redis",
        [
            graph("Commands, p99", Unit::Seconds, "As gateways see it.").query(
                "histogram_quantile(0.99, sum by (call, le) (rate(waypost_redis_call_duration_seconds_bucket{R}[W])))",
                "{{call}}",
            ),
            graph(
                "Put by gateways",
                Unit::PerSecond,
                "Answers of shards to be put into Redis, by what came of it.",
            )
            .query("sum by (result) (rate(waypost_redis_puts_total{R}[W]))", "{{result}}"),
            graph(
                "Put by shards",
                Unit::PerSecond,
                "Changes that shard-nodes put there.",
            )
            .query("sum by (outcome) (rate(waypost_shard_cache_puts_total{R}[W]))", "{{outcome}}")
            .runbook("changes-not-in-redis"),
            graph(
                "Ranges left alone",
                Unit::Count,
                "Of 64, by gateway: after errors a range of slots is passed over for a while.",
            )
            .query("waypost_redis_breakers_open{R}", "{{instance}}")
            .runbook("redis-avoided"),
            graph(
                "Ranges that began to be left alone",
                Unit::PerSecond,
                "One that goes up and down is worth a look although none is open now.",
            )
            .query("sum by (instance) (rate(waypost_redis_breakers_opened_total{R}[W]))", "{{instance}}")
            .runbook("redis-avoided"),
        ],
    )
}

fn trust() -> Row {
    row(
        "Whether caches are believed",
        [
            graph(
                "Shards heard",
                Unit::Count,
                "1 while at least one gateway hears a shard's changes.",
            )
            .query("max by (shard) (waypost_shard_stream_live{R})", "{{shard}}")
            .bad_below(1.0)
            .runbook("shard-unheard"),
            graph(
                "Time since a heartbeat",
                Unit::Seconds,
                "The longest of all gateways. One comes every 0.25 s; after 1.5 s the shard is asked about all that is held of it.",
            )
            .query("max by (shard) (waypost_shard_heartbeat_age_seconds{R})", "{{shard}}")
            .lines([1.5])
            .runbook("shard-unheard"),
            graph(
                "Changes not in Redis",
                Unit::Seconds,
                "The age of the oldest, as the shards tell it. Above 1 s Redis is passed over for the shard.",
            )
            .query("max by (shard) (waypost_shard_unapplied_seconds{R})", "{{shard}}")
            .lines([1.0])
            .runbook("changes-not-in-redis"),
            graph(
                "Streams lost",
                Unit::PerSecond,
                "Change streams that ended after they were heard.",
            )
            .query("sum by (shard) (rate(waypost_shard_streams_lost_total{R}[W]))", "{{shard}}")
            .runbook("shard-unheard"),
        ],
    )
}
