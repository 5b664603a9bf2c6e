//! `docs/metrics.md`: every metric of every program, as they say themselves.

use std::collections::BTreeMap;

use crate::Error;

pub(super) const PAGE: &str = "docs/metrics.md";

const FLAG: &str = "--metrics-as-markdown";

/// The programs, by the name that the page and Prometheus' jobs give them.
const PROGRAMS: [(&str, &str); 5] = [
    ("gateway", "waypost-gateway"),
    ("shard-node", "waypost-shard-node"),
    ("keygen", "waypost-keygen"),
    ("analytics-consumer", "waypost-analytics-consumer"),
    ("waypost", "waypost"),
];

/// What gauges count whose names do not end in a unit. One that is missing here is to get
/// such a name.
const UNITS: [(&str, &str); 27] = [
    ("process_max_fds", "files"),
    ("process_open_fds", "files"),
    ("process_threads", "threads"),
    ("waypost_analytics_lag_records", "messages"),
    ("waypost_blocklist_entries", "hosts and URLs"),
    ("waypost_clicks_waiting", "clicks"),
    ("waypost_gateway_lane_requests", "requests"),
    ("waypost_http_connections", "connections"),
    ("waypost_keys_in_stock", "slugs"),
    ("waypost_keys_wanted", "slugs"),
    ("waypost_l1_links", "links"),
    ("waypost_ownership_epoch", "epoch"),
    ("waypost_ownership_prefixes", "prefixes"),
    ("waypost_redis_breakers_open", "ranges"),
    ("waypost_shard_call_queue_items", "items"),
    ("waypost_shard_coming_prefixes", "prefixes"),
    ("waypost_shard_epoch", "epoch"),
    ("waypost_shard_leader", "0 or 1"),
    ("waypost_shard_links", "rows"),
    ("waypost_shard_prefixes", "prefixes"),
    ("waypost_shard_queue_items", "items"),
    ("waypost_shard_replicas_usable", "replicas"),
    ("waypost_shard_sessions", "sessions"),
    ("waypost_shard_sessions_max", "sessions"),
    ("waypost_shard_stream_live", "0 or 1"),
    ("waypost_shard_watchers", "streams"),
    ("waypost_watched_file_current", "0 or 1"),
];

const HEAD: &str = "\
# Metrics

What each process tells on its admin port, under `/metrics`. Made by `cargo xtask docs` out \
of what the programs say themselves.

Of `waypost`, which is all of them in one process, each name stands for the whole. Where the \
labels say all that they may say, a counter's series exist from the start, at 0. Prometheus \
adds `job` and `instance`; the rules and dashboards also expect `region` on every target, and \
`shard` on those of shard-nodes.

| Metric | Type | Unit | Labels | Meaning | Of |
|---|---|---|---|---|---|
";

/// The page. `ask` has a program print what a flag asks for.
pub(super) fn page(ask: impl Fn(&str, &str) -> Result<String, Error>) -> Result<String, Error> {
    // By name, type, labels and meaning: which programs have it.
    let mut metrics: BTreeMap<[String; 4], Vec<&str>> = BTreeMap::new();
    for (name, program) in PROGRAMS {
        for row in ask(program, FLAG)?.lines() {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let cells = <[&str; 4]>::try_from(cells)
                .map_err(|_| Error::Step(format!("{program} {FLAG}: four cells, not {row}")))?;
            metrics
                .entry(cells.map(str::to_owned))
                .or_default()
                .push(name);
        }
    }
    let mut text = HEAD.to_owned();
    for ([metric, kind, labels, meaning], programs) in metrics {
        let name = metric.trim_matches('`');
        let unit = unit(name, &kind)
            .ok_or_else(|| Error::Step(format!("{name}: end its name in its unit")))?;
        let of = programs.join(", ");
        text += &format!("| {metric} | {kind} | {unit} | {labels} | {meaning} | {of} |\n");
    }
    Ok(text)
}

/// What a metric is counted in; none if its name does not say so as it should.
fn unit(name: &str, kind: &str) -> Option<&'static str> {
    const ENDS: [(&str, &str); 4] = [
        ("_timestamp_seconds", "seconds since 1970"),
        ("_start_time_seconds", "seconds since 1970"),
        ("_seconds", "seconds"),
        ("_bytes", "bytes"),
    ];
    let base = match kind {
        "counter" => name.strip_suffix("_total")?,
        _ if name.ends_with("_total") => return None,
        _ => name,
    };
    if kind == "gauge" && name.ends_with("_info") {
        return Some("1");
    }
    let ended = ENDS.iter().find(|(end, _)| base.ends_with(end));
    let listed = || UNITS.iter().find(|(listed, _)| *listed == name);
    match ended.or_else(listed) {
        Some((_, unit)) => Some(unit),
        None if kind == "counter" => Some("count"),
        None if kind == "histogram" => {
            let counted = [("_items", "items"), ("_batches", "batches")];
            let found = counted.iter().find(|(end, _)| name.ends_with(end));
            found.map(|(_, unit)| *unit)
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_of_several_programs_has_one_row() {
        let said = |program: &str, _: &str| {
            let own = match program {
                "waypost" | "waypost-keygen" => {
                    "| `waypost_keygen_slugs_total` | counter |  | Slugs |\n"
                }
                _ => "",
            };
            Ok(format!(
                "{own}| `process_open_fds` | gauge |  | Open files |\n"
            ))
        };
        let page = page(said).unwrap_or_default();
        assert!(page.ends_with(
            "|---|---|---|---|---|---|\n\
             | `process_open_fds` | gauge | files |  | Open files | gateway, shard-node, keygen, analytics-consumer, waypost |\n\
             | `waypost_keygen_slugs_total` | counter | count |  | Slugs | keygen, waypost |\n"
        ), "{page}");
    }

    #[test]
    fn names_say_what_is_counted_in_which_unit() {
        assert_eq!(
            unit("process_cpu_seconds_total", "counter"),
            Some("seconds")
        );
        assert_eq!(unit("waypost_clicks", "counter"), None);
        assert_eq!(unit("waypost_clicks_total", "gauge"), None);
        assert_eq!(unit("waypost_lag_millis", "gauge"), None);
        assert_eq!(unit("waypost_lag_millis", "histogram"), None);
        assert_eq!(unit("waypost_call_items", "histogram"), Some("items"));
        assert_eq!(unit("waypost_build_info", "gauge"), Some("1"));
    }
}
