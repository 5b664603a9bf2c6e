//! The alerts, judged by Prometheus itself: each is silent before its cause, fires
//! while it lasts, and clears after it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn rules() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join("deploy/prometheus/rules").canonicalize().unwrap()
}

/// Minutes since the start of a test.
type Minute = u32;

/// What is scraped each minute, in promtool's notation, and what then holds when.
struct Case {
    alert: &'static str,
    series: Vec<(String, String)>,
    silent: Minute,
    firing: Minute,
    cleared: Minute,
    /// Of the same cause, and at no time to fire.
    never: Option<&'static str>,
}

/// The group of rules that an alert is in, alone: all of them over days take minutes.
fn group_of(alert: &str) -> String {
    let files = ["slo.yaml", "causes.yaml"];
    let texts = files.map(|file| fs::read_to_string(rules().join(file)).unwrap());
    let groups = texts
        .iter()
        .flat_map(|text| text.split("  - name: ").skip(1));
    let name = format!("- alert: {alert}\n");
    let group = groups.into_iter().find(|group| group.contains(&name));
    let group = group.unwrap_or_else(|| panic!("no alert is called {alert}"));
    format!("groups:\n  - name: {group}")
}

/// Runs each case in a world of its own.
fn judge(cases: &[Case]) {
    for case in cases {
        let mut text = "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n".to_owned();
        text.push_str("  - interval: 1m\n    input_series:\n");
        for (name, values) in &case.series {
            let _ = writeln!(text, "      - series: '{name}'\n        values: '{values}'");
        }
        text.push_str("    promql_expr_test:\n");
        let mut expect = |alert: &str, at: Minute, firing: u32| {
            let _ = writeln!(
                text,
                "      - expr: count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}) or vector(0)\n        \
                 eval_time: {at}m\n        exp_samples: [{{labels: '{{}}', value: {firing}}}]"
            );
        };
        expect(case.alert, case.silent, 0);
        expect(case.alert, case.firing, 1);
        expect(case.alert, case.cleared, 0);
        if let Some(never) = case.never {
            expect(never, case.firing, 0);
        }
        promtool(&group_of(case.alert), &text);
    }
}

fn promtool(rules: &str, tests: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.yaml");
    fs::write(&file, tests).unwrap();
    fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    let output = Command::new("promtool")
        .args(["test", "rules"])
        .arg(&file)
        .output()
        .expect("promtool is installed by `cargo xtask packages`");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{tests}");
}

/// A counter's values: so many a minute, one stretch after the other.
fn counter(stretches: &[(u64, Minute)]) -> String {
    let mut value = 0;
    let mut values = vec!["0".to_owned()];
    for (rate, minutes) in stretches {
        values.push(format!("{}+{rate}x{}", value + rate, minutes - 1));
        value += rate * u64::from(*minutes);
    }
    values.join(" ")
}

/// A gauge's values: this one for so long, one stretch after the other.
fn gauge(stretches: &[(&str, Minute)]) -> String {
    let values = stretches
        .iter()
        .map(|(value, minutes)| format!("{value}x{}", minutes - 1));
    values.collect::<Vec<_>>().join(" ")
}

/// Traffic of which a part is bad.
#[derive(Clone, Copy)]
struct Traffic {
    good: u64,
    bad: u64,
    minutes: Minute,
}

/// The series of an objective over requests.
fn requests(id: &str, traffic: &[Traffic]) -> Vec<(String, String)> {
    let rates = |of: fn(&Traffic) -> u64| {
        let stretches: Vec<_> = traffic.iter().map(|t| (of(t), t.minutes)).collect();
        counter(&stretches)
    };
    let name = |suffix: &str, labels: &str| {
        format!("waypost_http_request_duration_seconds_{suffix}{{region=\"eu\",{labels}}}")
    };
    let failing = |route: &str, good: &str| {
        vec![
            (
                name("count", &format!("route=\"{route}\",code=\"{good}\"")),
                rates(|t| t.good),
            ),
            (
                name("count", &format!("route=\"{route}\",code=\"503\"")),
                rates(|t| t.bad),
            ),
        ]
    };
    let slow = |route: &str, code: &str, le: &str| {
        vec![
            (
                name("count", &format!("route=\"{route}\",code=\"{code}\"")),
                rates(|t| t.good + t.bad),
            ),
            (
                name(
                    "bucket",
                    &format!("route=\"{route}\",code=\"{code}\",le=\"{le}\""),
                ),
                rates(|t| t.good),
            ),
        ]
    };
    match id {
        "RedirectAvailability" => failing("redirect", "302"),
        "RedirectLatency50ms" => slow("redirect", "302", "0.05"),
        "RedirectLatency10ms" => slow("redirect", "302", "0.01"),
        "CreateAvailability" => failing("create", "201"),
        "CreateLatency250ms" => slow("shorten", "201", "0.25"),
        other => panic!("no objective over requests is called {other}"),
    }
}

fn seconds(id: &str, stretches: &[(&str, Minute)]) -> Vec<(String, String)> {
    let name = match id {
        "ClickFreshness" => "waypost_analytics_lag_seconds{region=\"eu\"}",
        "RecoveryPoint" => "waypost_shard_replication_lag_seconds{region=\"eu\",shard=\"s0\"}",
        other => panic!("no objective over time is called {other}"),
    };
    vec![(name.to_owned(), gauge(stretches))]
}

/// Objectives over requests, with the part of them that may be bad.
const REQUESTS: [(&str, f64); 5] = [
    ("RedirectAvailability", 0.0001),
    ("RedirectLatency50ms", 0.01),
    ("RedirectLatency10ms", 0.1),
    ("CreateAvailability", 0.001),
    ("CreateLatency250ms", 0.01),
];

const SECONDS: [&str; 2] = ["ClickFreshness", "RecoveryPoint"];

/// Leaked, since the names of all cases live as long as the test.
fn name(objective: &str, kind: &str) -> &'static str {
    Box::leak(format!("{objective}{kind}").into_boxed_str())
}

#[test]
fn an_outage_pages_and_the_page_ends_with_it() {
    let phases = |good, bad, minutes| Traffic { good, bad, minutes };
    let mut cases: Vec<Case> = REQUESTS
        .iter()
        .map(|(objective, _)| Case {
            alert: name(objective, "BurnsFast"),
            series: requests(
                objective,
                &[
                    phases(60_000, 0, 60),
                    phases(0, 60_000, 300),
                    phases(60_000, 0, 60),
                ],
            ),
            silent: 59,
            firing: 359,
            cleared: 402,
            never: None,
        })
        .collect();
    cases.extend(SECONDS.iter().map(|objective| Case {
        alert: name(objective, "BurnsFast"),
        series: seconds(objective, &[("0", 60), ("90", 300), ("0", 60)]),
        silent: 59,
        firing: 359,
        cleared: 402,
        never: None,
    }));
    judge(&cases);
}

#[test]
fn a_total_outage_pages_within_a_minute_and_only_in_its_region() {
    let mut series = requests(
        "RedirectAvailability",
        &[
            Traffic {
                good: 60_000,
                bad: 0,
                minutes: 60,
            },
            Traffic {
                good: 0,
                bad: 60_000,
                minutes: 2,
            },
            Traffic {
                good: 60_000,
                bad: 0,
                minutes: 60,
            },
        ],
    );
    series.push((
        "waypost_http_request_duration_seconds_count{region=\"us\",route=\"redirect\",code=\"302\"}"
            .to_owned(),
        counter(&[(60_000, 122)]),
    ));
    judge(&[Case {
        alert: "RedirectAvailabilityBurnsFast",
        series,
        silent: 60,
        firing: 61,
        cleared: 110,
        never: None,
    }]);
}

#[test]
fn a_slow_leak_is_a_ticket_and_no_page() {
    let mut cases: Vec<Case> = REQUESTS
        .iter()
        .map(|(objective, budget)| {
            let bad = (4.0 * budget * 60_000.0) as u64;
            let phases = |bad, minutes| Traffic {
                good: 60_000 - bad,
                bad,
                minutes,
            };
            Case {
                alert: name(objective, "BurnsSlowly"),
                series: requests(
                    objective,
                    &[phases(0, 60), phases(bad, 1_500), phases(0, 500)],
                ),
                silent: 59,
                firing: 1_559,
                cleared: 1_560 + 370,
                never: Some(name(objective, "BurnsFast")),
            }
        })
        .collect();
    // One minute of 25: four times the hundredth that may be late.
    let mut leak = vec![("0", 60)];
    for _ in 0..60 {
        leak.extend([("90", 1), ("0", 24)]);
    }
    leak.push(("0", 500));
    cases.push(Case {
        alert: "ClickFreshnessBurnsSlowly",
        series: seconds("ClickFreshness", &leak),
        silent: 59,
        firing: 1_559,
        cleared: 1_560 + 370,
        never: Some("ClickFreshnessBurnsFast"),
    });
    // One minute of 250: four times the thousandth.
    let mut leak = vec![("0", 60)];
    for _ in 0..6 {
        leak.extend([("0", 200), ("90", 1), ("0", 49)]);
    }
    leak.push(("0", 500));
    cases.push(Case {
        alert: "RecoveryPointBurnsSlowly",
        series: seconds("RecoveryPoint", &leak),
        silent: 59,
        firing: 1_559,
        cleared: 1_560 + 370,
        never: None,
    });
    judge(&cases);
}

#[test]
fn a_budget_is_spent_until_enough_good_requests_have_come() {
    let mut cases: Vec<Case> = REQUESTS
        .iter()
        .map(|(objective, _)| Case {
            alert: name(objective, "BudgetSpent"),
            series: requests(
                objective,
                &[
                    Traffic {
                        good: 600,
                        bad: 0,
                        minutes: 60,
                    },
                    Traffic {
                        good: 0,
                        bad: 600,
                        minutes: 30,
                    },
                    Traffic {
                        good: 6_000_000,
                        bad: 0,
                        minutes: 60,
                    },
                ],
            ),
            silent: 59,
            firing: 89,
            cleared: 149,
            never: None,
        })
        .collect();
    cases.extend(SECONDS.iter().map(|objective| Case {
        alert: name(objective, "BudgetSpent"),
        series: seconds(objective, &[("0", 60), ("90", 3), ("0", 4_000)]),
        silent: 59,
        firing: 64,
        cleared: 4_000,
        never: None,
    }));
    judge(&cases);
}

/// The value of an expression at a minute; none: there is none.
fn assert_value(series: &[(String, String)], expr: &str, at: Minute, value: Option<&str>) {
    let mut text = "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n".to_owned();
    for (name, values) in series {
        let _ = writeln!(text, "      - series: '{name}'\n        values: '{values}'");
    }
    let samples = value.map_or_else(
        || "[]".to_owned(),
        |value| format!("[{{labels: '{{}}', value: {value}}}]"),
    );
    let _ = writeln!(
        text,
        "    promql_expr_test:\n      - expr: '{expr}'\n        eval_time: {at}m\n        exp_samples: {samples}"
    );
    promtool(&group_of("RedirectAvailabilityBurnsFast"), &text);
}

#[test]
fn without_traffic_there_is_no_ratio_and_without_errors_it_is_zero() {
    let still = Traffic {
        good: 0,
        bad: 0,
        minutes: 60,
    };
    let ratio = "sum(slo:error_ratio:rate1h{slo=\"redirect-availability\"})";
    let idle = requests("RedirectAvailability", &[still]);
    assert_value(&idle, ratio, 60, None);
    // No series with a 5xx yet.
    let healthy = requests(
        "RedirectAvailability",
        &[Traffic {
            good: 600,
            bad: 0,
            minutes: 60,
        }],
    );
    assert_value(&healthy[..1], ratio, 60, Some("0"));
}

#[test]
fn absences_that_nobody_can_confirm_spend_no_budget() {
    let mut series = requests(
        "RedirectAvailability",
        &[Traffic {
            good: 600,
            bad: 60,
            minutes: 60,
        }],
    );
    series.push((
        "waypost_lookups_unanswered_total{region=\"eu\",reason=\"unconfirmed\"}".to_owned(),
        counter(&[(60, 60)]),
    ));
    let ratio = "sum(slo:error_ratio:rate5m{slo=\"redirect-availability\"})";
    assert_value(&series, ratio, 60, Some("0"));
}

#[test]
fn one_failure_in_a_quiet_region_wakes_nobody() {
    let phases = |good, bad, minutes| Traffic { good, bad, minutes };
    let quiet = requests(
        "RedirectAvailability",
        &[phases(4, 0, 60), phases(3, 1, 1), phases(4, 0, 60)],
    );
    let firing = "count(ALERTS{alertname=\"RedirectAvailabilityBurnsFast\"}) or vector(0)";
    assert_value(&quiet, firing, 63, Some("0"));
}

#[test]
fn causes_fire_and_clear() {
    let series = |list: &[(&str, String)]| {
        let owned = list.iter().map(|(n, v)| ((*n).to_owned(), v.clone()));
        owned.collect::<Vec<_>>()
    };
    // Fine for half an hour, broken for half an hour, fine again.
    let level = |fine, broken| gauge(&[(fine, 30), (broken, 30), (fine, 60)]);
    let stirs = || counter(&[(0, 30), (5, 30), (0, 90)]);
    let case = |alert, list: &[(&str, String)]| Case {
        alert,
        series: series(list),
        silent: 29,
        firing: 59,
        cleared: 110,
        never: None,
    };
    judge(&[
        case(
            "ProcessDown",
            &[("up{job=\"keygen\",region=\"eu\"}", level("1", "0"))],
        ),
        case(
            "MetricsMissing",
            &[("up{job=\"gateway\"}", level("1", "0"))],
        ),
        case(
            "ShardUnheard",
            &[(
                "waypost_shard_stream_live{region=\"eu\",shard=\"s0\",instance=\"a\"}",
                level("1", "0"),
            )],
        ),
        case(
            "ShardWithoutLeader",
            &[(
                "waypost_shard_leader{region=\"eu\",shard=\"s0\",instance=\"a\"}",
                level("1", "0"),
            )],
        ),
        case(
            "ChangesNotInRedis",
            &[(
                "waypost_shard_outbox_age_seconds{region=\"eu\",shard=\"s0\"}",
                level("0", "40"),
            )],
        ),
        case(
            "ReplicaBehind",
            &[(
                "waypost_shard_replication_lag_seconds{region=\"eu\",shard=\"s0\"}",
                level("0", "11"),
            )],
        ),
        case(
            "ShardHot",
            &[
                (
                    "waypost_shard_rpc_seconds_count{region=\"eu\",shard=\"s0\"}",
                    counter(&[(3_000, 30), (120_000, 30), (3_000, 60)]),
                ),
                (
                    "waypost_shard_rpc_seconds_count{region=\"eu\",shard=\"s1\"}",
                    counter(&[(3_000, 120)]),
                ),
                (
                    "waypost_shard_rpc_seconds_count{region=\"eu\",shard=\"s2\"}",
                    counter(&[(3_000, 120)]),
                ),
                (
                    "waypost_shard_rpc_seconds_count{region=\"eu\",shard=\"s3\"}",
                    counter(&[(3_000, 120)]),
                ),
                (
                    "waypost_shard_rpc_seconds_count{region=\"eu\",shard=\"s4\"}",
                    counter(&[(3_000, 120)]),
                ),
                (
                    "waypost_shard_rpc_seconds_count{region=\"eu\",shard=\"s5\"}",
                    counter(&[(3_000, 120)]),
                ),
            ],
        ),
        case(
            "OwnershipDisagrees",
            &[
                (
                    "waypost_ownership_info{region=\"eu\",fingerprint=\"a\",instance=\"1\"}",
                    level("1", "1"),
                ),
                (
                    "waypost_ownership_info{region=\"eu\",fingerprint=\"b\",instance=\"2\"}",
                    "_x30 1x30 stale".to_owned(),
                ),
            ],
        ),
        case(
            "KeysRunOut",
            &[("waypost_keys_in_stock{region=\"eu\"}", level("4096", "10"))],
        ),
        case(
            "RedisAvoided",
            &[(
                "waypost_redis_breakers_open{region=\"eu\"}",
                level("0", "3"),
            )],
        ),
        case(
            "CacheHitsLow",
            &[
                (
                    "waypost_cache_lookups_total{region=\"eu\",tier=\"l1\",result=\"hit\"}",
                    counter(&[(60_000, 30), (6_000, 30), (60_000, 90)]),
                ),
                (
                    "waypost_cache_lookups_total{region=\"eu\",tier=\"l1\",result=\"miss\"}",
                    counter(&[(6_000, 30), (60_000, 30), (6_000, 90)]),
                ),
                (
                    "waypost_cache_lookups_total{region=\"eu\",tier=\"redis\",result=\"hit\"}",
                    counter(&[(3_000, 150)]),
                ),
            ],
        ),
        case(
            "ClicksLost",
            &[(
                "waypost_clicks_lost_total{region=\"eu\",reason=\"disk\"}",
                stirs(),
            )],
        ),
        case(
            "ClicksNotSent",
            &[(
                "waypost_click_oldest_unsent_seconds{region=\"eu\"}",
                level("0", "90"),
            )],
        ),
        case(
            "SpoolFills",
            &[
                (
                    "waypost_click_spool_bytes{region=\"eu\",instance=\"a\"}",
                    level("1", "60"),
                ),
                (
                    "waypost_click_spool_max_bytes{region=\"eu\",instance=\"a\"}",
                    level("100", "100"),
                ),
            ],
        ),
        case(
            "ClicksNotCounted",
            &[(
                "waypost_analytics_lag_seconds{region=\"eu\"}",
                level("1", "400"),
            )],
        ),
        Case {
            cleared: 140,
            ..case(
                "MessagesPutAside",
                &[(
                    "waypost_analytics_dead_letters_total{region=\"eu\"}",
                    stirs(),
                )],
            )
        },
        case(
            "SignaturesWrong",
            &[(
                "waypost_bad_signatures_total{region=\"eu\",from=\"redis\"}",
                stirs(),
            )],
        ),
        case(
            "WatchedFileOld",
            &[(
                "waypost_watched_file_current{region=\"eu\",instance=\"a\",file=\"revoked-keys\"}",
                level("1", "0"),
            )],
        ),
        // Valid for 1,000 minutes, then renewed: later than it should, and almost too late.
        Case {
            never: Some("CertificateExpires"),
            ..certificate("CertificateNotRenewed", 800)
        },
        certificate("CertificateExpires", 950),
    ]);
}

/// A certificate that is renewed some minutes after its alert must have come.
fn certificate(alert: &'static str, firing: Minute) -> Case {
    let series = |name, values| {
        let labels = "region=\"eu\",instance=\"a\",file=\"tls\"";
        let name = format!("waypost_tls_certificate_{name}_timestamp_seconds{{{labels}}}");
        (name, gauge(values))
    };
    let renewed = firing + 20;
    Case {
        alert,
        series: vec![
            series("not_before", &[("0", renewed), ("50000", 100)]),
            series("not_after", &[("60000", renewed), ("110000", 100)]),
        ],
        silent: 700,
        firing,
        cleared: renewed + 10,
        never: None,
    }
}

/// Values of `key:` in the rule files, with the alert that they belong to.
fn of_alerts(key: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in ["slo.yaml", "causes.yaml"] {
        let text = fs::read_to_string(rules().join(file)).unwrap();
        let mut alert = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("- alert: ") {
                name.clone_into(&mut alert);
            }
            if let Some(value) = line.trim_start_matches("- ").strip_prefix(key) {
                found.push((
                    alert.clone(),
                    value.trim_start_matches(':').trim().to_owned(),
                ));
            }
        }
    }
    found
}

#[test]
fn every_alert_has_a_case_here_and_a_page_that_names_it() {
    let this = include_str!("rules.rs");
    let alerts: BTreeSet<String> = of_alerts("alert").into_iter().map(|(a, _)| a).collect();
    assert!(alerts.len() > 30, "{alerts:?}");
    for alert in &alerts {
        let kinds = ["BurnsFast", "BurnsSlowly", "BudgetSpent"];
        let objective = kinds.iter().find_map(|kind| alert.strip_suffix(kind));
        assert!(
            this.contains(&format!("\"{}\"", objective.unwrap_or(alert))),
            "{alert} has no case"
        );
    }
    let pages = of_alerts("runbook_url");
    assert_eq!(pages.len(), alerts.len(), "an alert without a runbook");
    let root = rules().join("../../..");
    let mut used = BTreeSet::new();
    for (alert, url) in pages {
        let page = url
            .trim_matches('"')
            .strip_prefix("{{ $externalLabels.docs }}/");
        let page = page.expect("a link begins with where docs/ is").to_owned();
        let text = fs::read_to_string(root.join(&page))
            .unwrap_or_else(|error| panic!("{alert}: {page}: {error}"));
        assert!(text.contains(&alert), "{page} does not name {alert}");
        used.insert(page);
    }
    for page in fs::read_dir(root.join("docs/runbooks")).unwrap() {
        let text = fs::read_to_string(page.as_ref().unwrap().path()).unwrap();
        let name = page.unwrap().file_name().into_string().unwrap();
        let is_of_alert = text.contains("Alerts: ");
        assert!(
            !is_of_alert || used.contains(&format!("docs/runbooks/{name}")),
            "no alert leads to {name}"
        );
    }
}
