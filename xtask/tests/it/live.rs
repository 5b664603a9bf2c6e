//! The rules, the dashboards and the page as they are, over a cluster under load.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use waypost_testbed::prometheus::{Observation, Prometheus};
use waypost_testbed::service::{Kind, programs_folder};
use waypost_testbed::{Cluster, http};

use crate::dashboards::{dashboards, page_queries, queries};
use crate::metrics::{Known, root};

/// Between two scrapes, and between two looks at the rules.
const EVERY: Duration = Duration::from_secs(2);

/// For the rarest of what is measured to have happened twice, on a busy machine.
const DATA_DEADLINE: Duration = Duration::from_secs(90);

/// The alert comes after a minute, and clears as soon as the shard is heard.
const ALERT_DEADLINE: Duration = Duration::from_secs(120);

const CLEAR_DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(500);

/// Load of every kind, until this is dropped.
struct Load(Child);

impl Load {
    fn start(cluster: &Cluster) -> Self {
        let mut command = Command::new(programs_folder().unwrap().join("waypost-loadtest"));
        for gateway in 0..cluster.gateways.len() {
            command.arg("--target").arg(cluster.url(gateway));
        }
        let child = command
            .args(["--rate", "200", "--duration", "600s", "--links", "500"])
            // So many creates that each gateway leases keys more than once.
            .args(["--mix", "redirect=10,miss=2,create=8,edit=1,stats=1"])
            .env("WAYPOST_TOKEN", cluster.token())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn wait_until(deadline: Duration, mut missing: impl FnMut() -> Option<String>) {
    let started = Instant::now();
    while let Some(missing) = missing() {
        assert!(
            started.elapsed() < deadline,
            "after {deadline:?}: {missing}"
        );
        std::thread::sleep(POLL);
    }
}

/// Each query, with where it stands.
fn all_queries() -> Vec<(String, String)> {
    let of_dashboards = dashboards().into_iter().flat_map(|(uid, dashboard)| {
        let named = move |(title, query)| (format!("{uid}: {title}"), query);
        queries(&dashboard)
            .into_iter()
            .map(named)
            .collect::<Vec<_>>()
    });
    let of_page = page_queries()
        .into_iter()
        .map(|query| ("page".to_owned(), query));
    of_dashboards.chain(of_page).collect()
}

/// Whether there is a number to be drawn.
fn has_data(prometheus: &Prometheus, query: &str) -> bool {
    let query = query
        .replace("$region", ".*")
        .replace("$__rate_interval", "30s");
    let series = prometheus.query(&query).unwrap();
    series.iter().any(|series| {
        let value = series["value"][1].as_str().unwrap_or_default();
        value.parse().is_ok_and(f64::is_finite)
    })
}

fn is_firing(prometheus: &Prometheus, alert: &str, labels: &str) -> bool {
    let query = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",{labels}}}");
    !prometheus.query(&query).unwrap().is_empty()
}

/// What a series says that the page of metrics does not.
fn undocumented(known: &Known, series: &Value) -> Option<String> {
    let labels = series["metric"].as_object().unwrap();
    let name = labels["__name__"].as_str().unwrap();
    let matchers = labels.iter().filter(|(label, _)| *label != "__name__");
    let matchers: Vec<String> = matchers
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    known
        .check(&format!("{name}{{{}}}", matchers.join(",")))
        .err()
}

#[test]
fn under_load_every_panel_has_data_and_a_lost_shard_raises_its_alert_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let revoked = folder.path().join("revoked");
    std::fs::write(&revoked, "3f9a61c0d2b84e17\n").unwrap();
    let cluster = Cluster::builder()
        .replicas(1)
        .set(
            Kind::Gateway,
            "WAYPOST_REVOKED_KEYS",
            revoked.to_str().unwrap(),
        )
        // So that there are always some misses.
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "1")
        .start()
        .unwrap();
    let deploy: PathBuf = root().join("deploy/prometheus");
    let prometheus = cluster
        .observe(&Observation {
            rules: deploy.join("rules"),
            consoles: deploy.join("consoles"),
            every: EVERY,
        })
        .unwrap();
    let _load = Load::start(&cluster);

    let mut empty = all_queries();
    wait_until(DATA_DEADLINE, || {
        empty.retain(|(_, query)| !has_data(&prometheus, query));
        (!empty.is_empty()).then(|| format!("no data: {empty:#?}"))
    });
    let known = Known::read();
    let series = prometheus
        .query("{__name__=~\"(waypost|process)_.+\"}")
        .unwrap();
    assert!(series.len() > 1_000, "{} series", series.len());
    let unknown: Vec<_> = series
        .iter()
        .filter_map(|s| undocumented(&known, s))
        .collect();
    assert_eq!(unknown, Vec::<String>::new());
    let address = prometheus.url().replace("http://", "");
    let page = http::get(&address, "/consoles/index.html", POLL * 10).unwrap();
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<h1>Waypost</h1>") && page.body.contains("forever();"));

    assert!(!is_firing(&prometheus, "ShardUnheard", ""));
    for node in &cluster.shards[1].nodes {
        node.kill().unwrap();
    }
    let is_lost = || is_firing(&prometheus, "ShardUnheard", "shard=\"s1\"");
    wait_until(ALERT_DEADLINE, || {
        (!is_lost()).then(|| "ShardUnheard is silent".to_owned())
    });
    assert!(!is_firing(&prometheus, "ShardUnheard", "shard=\"s0\""));
    for node in &cluster.shards[1].nodes {
        node.restart().unwrap();
    }
    wait_until(CLEAR_DEADLINE, || {
        is_lost().then(|| "ShardUnheard still fires".to_owned())
    });
}
