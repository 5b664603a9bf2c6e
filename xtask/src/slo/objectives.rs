//! What the service promises, over 30 days and for each region.

/// One promise: of all events, at most `1 - target` are bad.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Objective {
    /// The label `slo` of all its rules.
    pub(crate) id: &'static str,
    /// The first part of its alerts' names.
    pub(crate) alert: &'static str,
    /// Says what is promised, in one sentence.
    pub(crate) promise: &'static str,
    pub(crate) target: f64,
    pub(crate) events: Events,
}

/// Over how long a promise is kept or not.
pub(crate) const WINDOW_DAYS: u32 = 30;

impl Objective {
    /// The part of the events that may be bad, in as many digits as it has.
    pub(crate) fn budget(&self) -> String {
        let text = format!("{:.6}", 1.0 - self.target);
        text.trim_end_matches('0').to_owned()
    }
}

/// How events are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Events {
    /// Requests: two rates a second, `[W]` standing for the window.
    Requests {
        total: &'static str,
        bad: &'static str,
    },
    /// Time: a gauge of seconds for each region, good while it is not above a bound.
    Seconds { gauge: &'static str, at_most: u32 },
}

/// The bounds are buckets of `waypost_http_request_duration_seconds`.
pub(crate) const OBJECTIVES: [Objective; 7] = [
    Objective {
        id: "redirect-availability",
        alert: "RedirectAvailability",
        promise: "99.99 % of redirects whose answer some part of the system knows are answered",
        target: 0.9999,
        // An absence that only the primary could confirm is nobody's to answer while the
        // primary is away: it is counted apart.
        events: Events::Requests {
            total: r#"(sum by (region) (rate(waypost_http_request_duration_seconds_count{route="redirect"}[W]))
  - (sum by (region) (rate(waypost_lookups_unanswered_total{reason="unconfirmed"}[W]))
     or 0 * sum by (region) (rate(waypost_http_request_duration_seconds_count{route="redirect"}[W]))))"#,
            bad: r#"clamp_min(sum by (region) (rate(waypost_http_request_duration_seconds_count{route="redirect",code=~"5.."}[W]))
  - (sum by (region) (rate(waypost_lookups_unanswered_total{reason="unconfirmed"}[W]))
     or 0 * sum by (region) (rate(waypost_http_request_duration_seconds_count{route="redirect"}[W]))), 0)"#,
        },
    },
    Objective {
        id: "redirect-latency-50ms",
        alert: "RedirectLatency50ms",
        promise: "99 % of redirects are answered within 50 ms: p99 <= 50 ms",
        target: 0.99,
        events: Events::Requests {
            total: r#"sum by (region) (rate(waypost_http_request_duration_seconds_count{route="redirect",code!~"5.."}[W]))"#,
            bad: r#"(sum by (region) (rate(waypost_http_request_duration_seconds_count{route="redirect",code!~"5.."}[W]))
  - sum by (region) (rate(waypost_http_request_duration_seconds_bucket{route="redirect",code!~"5..",le="0.05"}[W])))"#,
        },
    },
    Objective {
        id: "redirect-latency-10ms",
        alert: "RedirectLatency10ms",
        promise: "90 % of redirects are answered within 10 ms, which is more than p50 <= 10 ms asks for",
        target: 0.9,
        events: Events::Requests {
            total: r#"sum by (region) (rate(waypost_http_request_duration_seconds_count{route="redirect",code!~"5.."}[W]))"#,
            bad: r#"(sum by (region) (rate(waypost_http_request_duration_seconds_count{route="redirect",code!~"5.."}[W]))
  - sum by (region) (rate(waypost_http_request_duration_seconds_bucket{route="redirect",code!~"5..",le="0.01"}[W])))"#,
        },
    },
    Objective {
        id: "create-availability",
        alert: "CreateAvailability",
        promise: "99.9 % of requests that create links are answered",
        target: 0.999,
        events: Events::Requests {
            total: r#"sum by (region) (rate(waypost_http_request_duration_seconds_count{route=~"shorten|create|batch"}[W]))"#,
            bad: r#"sum by (region) (rate(waypost_http_request_duration_seconds_count{route=~"shorten|create|batch",code=~"5.."}[W]))"#,
        },
    },
    Objective {
        id: "create-latency-250ms",
        alert: "CreateLatency250ms",
        promise: "99 % of single creates are answered within 250 ms",
        target: 0.99,
        events: Events::Requests {
            total: r#"sum by (region) (rate(waypost_http_request_duration_seconds_count{route=~"shorten|create",code!~"5.."}[W]))"#,
            bad: r#"(sum by (region) (rate(waypost_http_request_duration_seconds_count{route=~"shorten|create",code!~"5.."}[W]))
  - sum by (region) (rate(waypost_http_request_duration_seconds_bucket{route=~"shorten|create",code!~"5..",le="0.25"}[W])))"#,
        },
    },
    Objective {
        id: "click-freshness",
        alert: "ClickFreshness",
        promise: "99 % of the time every click older than 60 s is counted",
        target: 0.99,
        events: Events::Seconds {
            gauge: "max by (region) (waypost_analytics_lag_seconds)",
            at_most: 60,
        },
    },
    Objective {
        id: "recovery-point",
        alert: "RecoveryPoint",
        promise: "99.9 % of the time the loss of a region would lose less than 10 s of writes (RPO)",
        target: 0.999,
        events: Events::Seconds {
            gauge: "max by (region) (waypost_shard_replication_lag_seconds)",
            at_most: 10,
        },
    },
];
