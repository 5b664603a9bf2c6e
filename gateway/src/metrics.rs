//! The gateway's metrics. No label ever holds a slug, a URL or a user agent.

use std::time::Instant;

use http::StatusCode;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use tonic::Code;
use waypost_domain::ShardId;
use waypost_runtime::metrics::{self, LATENCY_SECONDS, Label, Registry, SIZES};

/// The answers of a followed link, most frequent first.
const REDIRECTS: [StatusCode; 4] = [
    StatusCode::FOUND,
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

const ROUTE: Label = Label::one_of(
    "route",
    &[
        "redirect",
        "shorten",
        "create",
        "batch",
        "list",
        "link",
        "switch",
        "takedown",
        "qr",
        "stats",
        "tenant_stats",
        "stats_page",
        "preview",
        "unlock",
        "other",
    ],
);
const CODE: Label = Label::such("code", "the status of the answer");

/// What a call to another service comes to.
const CALL_RESULT: Label = Label::one_of(
    "result",
    &["ok", "unavailable", "timeout", "overloaded", "refused"],
);
const SHARD_RPC: Label = Label::one_of(
    "rpc",
    &[
        "resolve",
        "create",
        "update",
        "delete",
        "claim",
        "list",
        "lease_visits",
        "return_visits",
        "export",
        "import",
    ],
);
const TIER: Label = Label::one_of("tier", &["l1", "redis"]);
const CACHE_RESULT: Label = Label::one_of(
    "result",
    &[
        "hit",
        "miss",
        "stale",
        "served_stale",
        "absent",
        "other_format",
        "damaged",
        "foreign",
        "bad_signature",
        "paused",
        "error",
        "refused",
    ],
);
const SHARD: Label = Label::such("shard", "the ids of the map");

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: HistogramVec,
    /// Of `requests`: found without a look at the labels.
    redirected: [Histogram; REDIRECTS.len()],
    /// Of `cache`: what nearly every lookup comes to.
    l1_hits: IntCounter,
    l1_misses: IntCounter,
    #[cfg(feature = "cluster")]
    redis_hits: IntCounter,
    cache: IntCounterVec,
    unanswered: IntCounterVec,
    rpcs: HistogramVec,
    rpc_retries: IntCounterVec,
    /// Items of a call to `resolve` and to `create`.
    resolve_items: Histogram,
    create_items: Histogram,
    leases: HistogramVec,
    analytics_calls: HistogramVec,
    moved: IntCounter,
    bad_signatures: IntCounterVec,
    stream_live: IntGaugeVec,
    streams_lost: IntCounterVec,
    ownership: IntGaugeVec,
    shard_map: IntGaugeVec,
    joined: IntCounter,
    visits: IntCounterVec,
    visits_joined: IntCounter,
    visits_returned: IntCounterVec,
    passwords: IntCounterVec,
    #[cfg(feature = "cluster")]
    redis_puts: IntCounterVec,
    /// Of one histogram, by call.
    #[cfg(feature = "cluster")]
    pub(crate) redis_gets: Histogram,
    #[cfg(feature = "cluster")]
    pub(crate) redis_writes: Histogram,
    #[cfg(feature = "cluster")]
    redis_breakers_open: IntGauge,
    #[cfg(feature = "cluster")]
    redis_breakers_opened: IntCounter,
    tokens_refused: IntCounterVec,
    keys: IntGauge,
    keys_wanted: IntGauge,
    lease_failures: IntCounter,
    key_conflicts: IntCounter,
    series_conflicts: IntCounter,
    connections: IntGauge,
    refused_connections: IntCounter,
    limited: IntCounterVec,
    #[cfg(feature = "cluster")]
    shared_limits: IntCounterVec,
    shed: IntCounterVec,
}

impl Metrics {
    /// Creates all metrics and registers them.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> metrics::Result<Self> {
        let requests = registry.histograms(
            "waypost_http_request_duration_seconds",
            "Time from a request's head to its answer",
            LATENCY_SECONDS,
            &[ROUTE, CODE],
        )?;
        let cache = registry.counters(
            "waypost_cache_lookups_total",
            "Lookups in a cache by their result. Of l1: hit, miss, stale, served_stale. Of redis: hit, absent (known not to exist), miss; other_format, damaged, foreign and bad_signature for a value that is none; paused while a breaker is open, error without an answer, refused",
            &[TIER, CACHE_RESULT],
        )?;
        let call_items = registry.histograms(
            "waypost_shard_call_items",
            "Slugs or links that one call to a shard-node carried",
            SIZES,
            &[Label::one_of("rpc", &["resolve", "create"])],
        )?;
        #[cfg(feature = "cluster")]
        let redis_calls = registry.histograms(
            "waypost_redis_call_duration_seconds",
            "Time of one command to Redis, on the way of a lookup (get) or after it (put)",
            LATENCY_SECONDS,
            &[Label::one_of("call", &["get", "put"])],
        )?;
        Ok(Self {
            redirected: REDIRECTS
                .map(|code| requests.with_label_values(&["redirect", code.as_str()])),
            l1_hits: cache.with_label_values(&["l1", "hit"]),
            l1_misses: cache.with_label_values(&["l1", "miss"]),
            #[cfg(feature = "cluster")]
            redis_hits: cache.with_label_values(&["redis", "hit"]),
            requests,
            cache,
            unanswered: registry.counters(
                "waypost_lookups_unanswered_total",
                "Lookups answered 503, since nobody who knows could be asked; unconfirmed: a replica has no such link, and only the primary may say 404",
                &[Label::one_of(
                    "reason",
                    &["unconfirmed", "unavailable", "overloaded", "refused"],
                )],
            )?,
            rpcs: registry.histograms(
                "waypost_shard_call_duration_seconds",
                "Time of one call to a shard-node",
                LATENCY_SECONDS,
                &[SHARD_RPC, CALL_RESULT],
            )?,
            rpc_retries: registry.counters(
                "waypost_shard_call_retries_total",
                "Calls that did not reach their shard-node: made again at another, or not because too many fail",
                &[Label::one_of("result", &["made", "refused"])],
            )?,
            resolve_items: call_items.with_label_values(&["resolve"]),
            create_items: call_items.with_label_values(&["create"]),
            leases: registry.histograms(
                "waypost_keygen_call_duration_seconds",
                "Time of one call to a keygen",
                LATENCY_SECONDS,
                &[CALL_RESULT],
            )?,
            analytics_calls: registry.histograms(
                "waypost_analytics_call_duration_seconds",
                "Time of one call for statistics",
                LATENCY_SECONDS,
                &[Label::one_of("rpc", &["link_stats", "tenant_stats"]), CALL_RESULT],
            )?,
            moved: registry.counter(
                "waypost_moved_answers_total",
                "Answers of shards that no longer own the prefix",
            )?,
            bad_signatures: registry.counters(
                "waypost_bad_signatures_total",
                "Links whose signature was wrong, none of which was served",
                &[Label::one_of("from", &["shard", "redis"])],
            )?,
            stream_live: registry.gauges(
                "waypost_shard_stream_live",
                "1 while a shard's changes are heard, without which caches are not believed; else 0",
                &[SHARD],
            )?,
            streams_lost: registry.counters(
                "waypost_shard_streams_lost_total",
                "Change streams that ended after they were heard",
                &[SHARD],
            )?,
            shard_map: registry.gauges(
                "waypost_shard_map_info",
                "1 for the shard map that is followed",
                &[Label::such("fingerprint", "one value at a time, the same at gateways that follow the same map")],
            )?,
            ownership: registry.gauges(
                "waypost_ownership_info",
                "1 for what this process knows of the owners of all prefixes",
                &[Label::such("fingerprint", "one value at a time, the same at gateways that agree")],
            )?,
            joined: registry.counter(
                "waypost_lookups_joined_total",
                "Lookups beyond memory that waited for another's of the same slug",
            )?,
            visits: registry.counters(
                "waypost_visits_asked_total",
                "Visits of links with a limit for which the shard was asked, by its word; outdated: the limit had changed, unknown: the shard could not be asked",
                &[Label::one_of(
                    "result",
                    &["granted", "used_up", "outdated", "unknown"],
                )],
            )?,
            visits_joined: registry.counter(
                "waypost_visits_joined_total",
                "Visits that waited for a lease which another had asked for",
            )?,
            visits_returned: registry.counters(
                "waypost_visits_returned_total",
                "Leased visits that were not made; lost: the shard could not be asked",
                &[Label::one_of("result", &["returned", "lost"])],
            )?,
            passwords: registry.counters(
                "waypost_passwords_total",
                "Passwords to be worked out (hash: a new one, check: a visitor's), and whether they were; refused: too many waited",
                &[
                    Label::one_of("work", &["hash", "check"]),
                    Label::one_of("result", &["done", "refused"]),
                ],
            )?,
            #[cfg(feature = "cluster")]
            redis_puts: registry.counters(
                "waypost_redis_puts_total",
                "Answers of shards to be put into Redis; outdated: a newer version is there, late: the answer is too old, paused: a breaker is open",
                &[Label::one_of(
                    "result",
                    &["stored", "outdated", "late", "paused", "error", "refused"],
                )],
            )?,
            #[cfg(feature = "cluster")]
            redis_gets: redis_calls.with_label_values(&["get"]),
            #[cfg(feature = "cluster")]
            redis_writes: redis_calls.with_label_values(&["put"]),
            #[cfg(feature = "cluster")]
            redis_breakers_open: registry.gauge(
                "waypost_redis_breakers_open",
                "Ranges of slots, of 64, that are left alone after errors",
            )?,
            #[cfg(feature = "cluster")]
            redis_breakers_opened: registry.counter(
                "waypost_redis_breakers_opened_total",
                "Times that a range of slots began to be left alone",
            )?,
            tokens_refused: registry.counters(
                "waypost_tokens_refused_total",
                "Requests to the API that were refused because of their token",
                &[Label::one_of(
                    "reason",
                    &[
                        "token_in_query",
                        "token_repeated",
                        "token_missing",
                        "token_invalid",
                        "token_expired",
                        "token_revoked",
                        "scope_missing",
                    ],
                )],
            )?,
            keys: registry.gauge("waypost_keys_in_stock", "Minted slugs in stock")?,
            keys_wanted: registry.gauge(
                "waypost_keys_wanted",
                "Minted slugs that are to be in stock: a minute of creates, and no fewer than 4,096",
            )?,
            lease_failures: registry.counter(
                "waypost_key_lease_failures_total",
                "Leases that keygen did not grant",
            )?,
            key_conflicts: registry.counter(
                "waypost_key_conflicts_total",
                "Minted slugs that were taken already",
            )?,
            series_conflicts: registry.counter(
                "waypost_series_conflicts_total",
                "Slugs of repeatable creates that were taken already",
            )?,
            connections: registry.gauge("waypost_http_connections", "Open client connections")?,
            refused_connections: registry.counter(
                "waypost_http_connections_refused_total",
                "Client connections closed at once because of the limit",
            )?,
            limited: registry.counters(
                "waypost_gateway_limited_total",
                "What a limit on one client has refused or closed",
                &[Label::one_of(
                    "limit",
                    &[
                        "creates",
                        "anonymous_creates",
                        "edits",
                        "misses",
                        "reads",
                        "connections_per_address",
                        "head_time",
                        "send_time",
                        "requests_per_connection",
                        "target_length",
                    ],
                )],
            )?,
            #[cfg(feature = "cluster")]
            shared_limits: registry.counters(
                "waypost_gateway_shared_limit_questions_total",
                "Questions to the limit that all gateways hold together in Redis; error and paused: each gateway's own limit decides alone",
                &[Label::one_of(
                    "result",
                    &["granted", "refused", "error", "paused"],
                )],
            )?,
            shed: registry.counters(
                "waypost_gateway_shed_total",
                "API requests answered 503 since their lane was full; bodies: there was no room to read one",
                &[Label::one_of(
                    "lane",
                    &["reads", "batches", "single", "bodies"],
                )],
            )?,
        })
    }

    /// Somebody who asked for a slug was answered.
    pub(crate) fn redirect(&self, code: StatusCode, started: Instant) {
        match REDIRECTS.iter().position(|redirect| *redirect == code) {
            Some(index) => self.redirected[index].observe(started.elapsed().as_secs_f64()),
            None => self.request("redirect", code, started),
        }
    }

    pub(crate) fn request(&self, route: &str, code: StatusCode, started: Instant) {
        self.requests
            .with_label_values(&[route, code.as_str()])
            .observe(started.elapsed().as_secs_f64());
    }

    pub(crate) fn l1_hit(&self) {
        self.l1_hits.inc();
    }

    pub(crate) fn l1_miss(&self) {
        self.l1_misses.inc();
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn redis_hit(&self) {
        self.redis_hits.inc();
    }

    pub(crate) fn cache(&self, tier: &str, result: &str) {
        self.cache.with_label_values(&[tier, result]).inc();
    }

    pub(crate) fn unanswered(&self, reason: &str) {
        self.unanswered.with_label_values(&[reason]).inc();
    }

    pub(crate) fn rpc_timer(&self, rpc: &'static str) -> RpcTimer<'_> {
        RpcTimer {
            metrics: self,
            rpc,
            started: Instant::now(),
        }
    }

    /// A call that did not reach its node, and whether it is made again.
    pub(crate) fn rpc_retry(&self, is_made: bool) {
        let result = if is_made { "made" } else { "refused" };
        self.rpc_retries.with_label_values(&[result]).inc();
    }

    pub(crate) fn resolving(&self, count: usize) {
        self.resolve_items.observe(count as f64);
    }

    pub(crate) fn creating(&self, count: usize) {
        self.create_items.observe(count as f64);
    }

    pub(crate) fn lease_ended(&self, result: &str, started: Instant) {
        self.leases
            .with_label_values(&[result])
            .observe(started.elapsed().as_secs_f64());
    }

    pub(crate) fn analytics_call(&self, rpc: &str, result: &str, started: Instant) {
        self.analytics_calls
            .with_label_values(&[rpc, result])
            .observe(started.elapsed().as_secs_f64());
    }

    pub(crate) fn moved(&self) {
        self.moved.inc();
    }

    pub(crate) fn bad_signature(&self, from: &str) {
        self.bad_signatures.with_label_values(&[from]).inc();
    }

    /// What is known of the owners of all prefixes, as one value.
    pub(crate) fn ownership(&self, fingerprint: &str) {
        self.ownership.reset();
        self.ownership.with_label_values(&[fingerprint]).set(1);
    }

    pub(crate) fn stream_is_live(&self, shard: &ShardId) {
        self.stream_live.with_label_values(&[shard.as_str()]).set(1);
    }

    /// Not heard now; its losses are shown from here on, so that the first is seen as one.
    pub(crate) fn stream_is_dead(&self, shard: &ShardId) {
        self.stream_live.with_label_values(&[shard.as_str()]).set(0);
        self.streams_lost.with_label_values(&[shard.as_str()]);
    }

    pub(crate) fn stream_lost(&self, shard: &ShardId) {
        self.streams_lost.with_label_values(&[shard.as_str()]).inc();
    }

    /// The shard has left the map, or the process ends.
    pub(crate) fn forget_stream(&self, shard: &ShardId) {
        // That there is none is as good.
        let _ = self.stream_live.remove_label_values(&[shard.as_str()]);
        let _ = self.streams_lost.remove_label_values(&[shard.as_str()]);
    }

    /// The map that is followed.
    pub(crate) fn shard_map(&self, fingerprint: &str) {
        self.shard_map.reset();
        self.shard_map.with_label_values(&[fingerprint]).set(1);
    }

    /// Counts those who wait for another's lookup.
    pub(crate) fn joined(&self) -> IntCounter {
        self.joined.clone()
    }

    pub(crate) fn visit(&self, result: &str) {
        self.visits.with_label_values(&[result]).inc();
    }

    /// Counts those who wait for another's lease.
    pub(crate) fn visits_joined(&self) -> IntCounter {
        self.visits_joined.clone()
    }

    pub(crate) fn visits_returned(&self, heard: bool, count: u32) {
        let result = if heard { "returned" } else { "lost" };
        let counter = self.visits_returned.with_label_values(&[result]);
        counter.inc_by(count.into());
    }

    pub(crate) fn password(&self, work: &str, result: &str) {
        self.passwords.with_label_values(&[work, result]).inc();
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn redis_put(&self, result: &str) {
        self.redis_puts.with_label_values(&[result]).inc();
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn redis_breaker(&self, is_open: bool) {
        if is_open {
            self.redis_breakers_open.inc();
            self.redis_breakers_opened.inc();
        } else {
            self.redis_breakers_open.dec();
        }
    }

    pub(crate) fn token_refused(&self, reason: &str) {
        self.tokens_refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn keys_in_stock(&self, count: usize) {
        self.keys.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn keys_wanted(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.keys_wanted.set(count);
    }

    pub(crate) fn lease_failed(&self) {
        self.lease_failures.inc();
    }

    pub(crate) fn key_conflict(&self) {
        self.key_conflicts.inc();
    }

    pub(crate) fn series_conflict(&self) {
        self.series_conflicts.inc();
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    pub(crate) fn connection_refused(&self) {
        self.refused_connections.inc();
    }

    pub(crate) fn limited(&self, limit: &str, count: u32) {
        self.limiter(limit).inc_by(count.into());
    }

    /// Counts what one limit refuses.
    pub(crate) fn limiter(&self, limit: &str) -> IntCounter {
        self.limited.with_label_values(&[limit])
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn shared_limit(&self, result: &str) {
        self.shared_limits.with_label_values(&[result]).inc();
    }

    pub(crate) fn shed(&self, lane: &str) {
        self.shed.with_label_values(&[lane]).inc();
    }
}

/// What a call came to that was not answered, as a label.
pub(crate) fn call_result(code: Code) -> &'static str {
    match code {
        Code::Unavailable | Code::Unknown | Code::Aborted => "unavailable",
        Code::Cancelled | Code::DeadlineExceeded => "timeout",
        Code::ResourceExhausted => "overloaded",
        _ => "refused",
    }
}

/// Measures one call to a shard.
#[derive(Debug)]
pub(crate) struct RpcTimer<'a> {
    metrics: &'a Metrics,
    rpc: &'static str,
    started: Instant,
}

impl RpcTimer<'_> {
    pub(crate) fn ended(self, result: &str) {
        self.metrics
            .rpcs
            .with_label_values(&[self.rpc, result])
            .observe(self.started.elapsed().as_secs_f64());
    }
}
