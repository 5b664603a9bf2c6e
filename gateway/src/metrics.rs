//! The gateway's metrics. No label ever holds a slug, a URL or a user agent.

use std::time::Instant;

use http::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use waypost_domain::ShardId;

/// Seconds. Holds each threshold of the SLOs: 10, 50 and 250 ms.
const LATENCY_BUCKETS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// The answers of a followed link, most frequent first.
const REDIRECTS: [StatusCode; 4] = [
    StatusCode::FOUND,
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

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
    moved: IntCounter,
    bad_signatures: IntCounterVec,
    stream_live: IntGaugeVec,
    streams_lost: IntCounterVec,
    ownership: IntGaugeVec,
    joined: IntCounter,
    visits: IntCounterVec,
    visits_joined: IntCounter,
    visits_returned: IntCounterVec,
    passwords: IntCounterVec,
    redis_puts: IntCounterVec,
    redis_breakers_open: IntGauge,
    redis_breakers_opened: IntCounter,
    tokens_refused: IntCounterVec,
    keys: IntGauge,
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
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
            HistogramVec::new(options, labels)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
        };
        // route: redirect, shorten, create, batch, list, link, switch, takedown, qr, stats,
        // tenant_stats, stats_page,
        // preview, unlock, other.
        // code: the status of the answer.
        let requests = histogram(
            "waypost_http_request_duration_seconds",
            "Time from a request's head to its answer",
            &["route", "code"],
        )?;
        // tier: l1. result: hit, miss, stale, served_stale.
        // tier: redis. result: hit, absent, miss; other_format, damaged, foreign,
        // bad_signature for a value that is none; paused while a breaker is open,
        // error without an answer, refused.
        let cache = counters(
            "waypost_cache_lookups_total",
            "Lookups in a cache by their result",
            &["tier", "result"],
        )?;
        let metrics = Self {
            redirected: REDIRECTS
                .map(|code| requests.with_label_values(&["redirect", code.as_str()])),
            l1_hits: cache.with_label_values(&["l1", "hit"]),
            l1_misses: cache.with_label_values(&["l1", "miss"]),
            #[cfg(feature = "cluster")]
            redis_hits: cache.with_label_values(&["redis", "hit"]),
            requests,
            cache,
            // reason: unconfirmed (a replica has no such link, and only the primary may
            // say 404), unavailable, overloaded, refused.
            unanswered: counters(
                "waypost_lookups_unanswered_total",
                "Lookups answered 503, since nobody who knows could be asked",
                &["reason"],
            )?,
            // rpc: resolve, create, update, delete, claim, list, lease_visits, return_visits.
            // result: ok, unavailable, timeout,
            // overloaded, refused.
            rpcs: histogram(
                "waypost_shard_call_duration_seconds",
                "Time of one call to a shard-node",
                &["rpc", "result"],
            )?,
            moved: IntCounter::new(
                "waypost_moved_answers_total",
                "Answers of shards that no longer own the prefix",
            )?,
            // from: shard, redis.
            bad_signatures: counters(
                "waypost_bad_signatures_total",
                "Links whose signature was wrong, none of which was served",
                &["from"],
            )?,
            // shard: the ids of the map.
            stream_live: IntGaugeVec::new(
                Opts::new(
                    "waypost_shard_stream_live",
                    "Whether a shard's changes are heard, without which caches are not believed",
                ),
                &["shard"],
            )?,
            streams_lost: counters(
                "waypost_shard_streams_lost_total",
                "Change streams that ended after they were heard",
                &["shard"],
            )?,
            // fingerprint: one value at a time, the same at gateways that agree.
            ownership: IntGaugeVec::new(
                Opts::new(
                    "waypost_ownership_info",
                    "What this process knows of the owners of all prefixes",
                ),
                &["fingerprint"],
            )?,
            joined: IntCounter::new(
                "waypost_lookups_joined_total",
                "Lookups beyond memory that waited for another's of the same slug",
            )?,
            // result: granted, used_up; outdated for a link whose limit had changed,
            // unknown where the shard could not be asked.
            visits: counters(
                "waypost_visits_asked_total",
                "Visits of links with a limit for which the shard was asked, by its word",
                &["result"],
            )?,
            visits_joined: IntCounter::new(
                "waypost_visits_joined_total",
                "Visits that waited for a lease which another had asked for",
            )?,
            // result: returned; lost where the shard could not be asked.
            visits_returned: counters(
                "waypost_visits_returned_total",
                "Leased visits that were not made, by what became of them",
                &["result"],
            )?,
            // work: hash of a new password, check of a visitor's. result: done, refused
            // because too many waited.
            passwords: counters(
                "waypost_passwords_total",
                "Passwords to be worked out, and whether they were",
                &["work", "result"],
            )?,
            // result: stored, outdated for a version older than what is there, late
            // for an answer too old to be put there; paused, error, refused as above.
            redis_puts: counters(
                "waypost_redis_puts_total",
                "Answers of shards put into Redis by their result",
                &["result"],
            )?,
            redis_breakers_open: IntGauge::new(
                "waypost_redis_breakers_open",
                "Ranges of slots, of 64, that are left alone after errors",
            )?,
            redis_breakers_opened: IntCounter::new(
                "waypost_redis_breakers_opened_total",
                "Times that a range of slots began to be left alone",
            )?,
            // reason: the codes of the API that begin with token_, and scope_missing.
            tokens_refused: counters(
                "waypost_tokens_refused_total",
                "Requests to the API that were refused because of their token",
                &["reason"],
            )?,
            keys: IntGauge::new("waypost_keys_in_stock", "Minted slugs in stock")?,
            lease_failures: IntCounter::new(
                "waypost_key_lease_failures_total",
                "Leases that keygen did not grant",
            )?,
            key_conflicts: IntCounter::new(
                "waypost_key_conflicts_total",
                "Minted slugs that were taken already",
            )?,
            series_conflicts: IntCounter::new(
                "waypost_series_conflicts_total",
                "Slugs of repeatable creates that were taken already",
            )?,
            connections: IntGauge::new("waypost_http_connections", "Open client connections")?,
            refused_connections: IntCounter::new(
                "waypost_http_connections_refused_total",
                "Client connections closed at once because of the limit",
            )?,
            // limit: creates, anonymous_creates, edits, misses, reads;
            // connections_per_address, head_time, send_time, requests_per_connection, target_length.
            limited: counters(
                "waypost_gateway_limited_total",
                "What a limit on one client has refused or closed",
                &["limit"],
            )?,
            // result: granted, refused; error and paused, where each gateway's own limit
            // decides alone.
            #[cfg(feature = "cluster")]
            shared_limits: counters(
                "waypost_gateway_shared_limit_questions_total",
                "Questions to the limit that all gateways hold together in Redis",
                &["result"],
            )?,
            // lane: reads, batches, single; bodies, where there was no room to read one.
            shed: counters(
                "waypost_gateway_shed_total",
                "API requests answered 503 since their lane was full",
                &["lane"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.cache.clone()))?;
        registry.register(Box::new(metrics.unanswered.clone()))?;
        registry.register(Box::new(metrics.rpcs.clone()))?;
        registry.register(Box::new(metrics.moved.clone()))?;
        registry.register(Box::new(metrics.bad_signatures.clone()))?;
        registry.register(Box::new(metrics.stream_live.clone()))?;
        registry.register(Box::new(metrics.streams_lost.clone()))?;
        registry.register(Box::new(metrics.ownership.clone()))?;
        registry.register(Box::new(metrics.joined.clone()))?;
        registry.register(Box::new(metrics.visits.clone()))?;
        registry.register(Box::new(metrics.visits_joined.clone()))?;
        registry.register(Box::new(metrics.visits_returned.clone()))?;
        registry.register(Box::new(metrics.passwords.clone()))?;
        registry.register(Box::new(metrics.redis_puts.clone()))?;
        registry.register(Box::new(metrics.redis_breakers_open.clone()))?;
        registry.register(Box::new(metrics.redis_breakers_opened.clone()))?;
        registry.register(Box::new(metrics.tokens_refused.clone()))?;
        registry.register(Box::new(metrics.keys.clone()))?;
        registry.register(Box::new(metrics.lease_failures.clone()))?;
        registry.register(Box::new(metrics.key_conflicts.clone()))?;
        registry.register(Box::new(metrics.series_conflicts.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.refused_connections.clone()))?;
        registry.register(Box::new(metrics.limited.clone()))?;
        #[cfg(feature = "cluster")]
        registry.register(Box::new(metrics.shared_limits.clone()))?;
        registry.register(Box::new(metrics.shed.clone()))?;
        Ok(metrics)
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

    pub(crate) fn stream_ended(&self, shard: &ShardId, was_live: bool) {
        self.stream_live.with_label_values(&[shard.as_str()]).set(0);
        if was_live {
            self.streams_lost.with_label_values(&[shard.as_str()]).inc();
        }
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
