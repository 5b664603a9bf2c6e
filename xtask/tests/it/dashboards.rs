//! Grafana's dashboards and the page beside Prometheus: whole, readable, and of series
//! that there are. Prometheus itself says whether each query is valid.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::metrics::{Known, root, rules};
use crate::promql;

/// What a ConfigMap may hold.
const MAX_BYTES: usize = 1024 * 1024;

/// Grafana's grid.
const COLUMNS: u64 = 24;

/// The file's name and what it holds.
pub(crate) fn dashboards() -> Vec<(String, Value)> {
    let folder = fs::read_dir(root().join("deploy/grafana/dashboards")).unwrap();
    let read = |entry: Result<fs::DirEntry, _>| {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() <= MAX_BYTES, "{} is too large", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_str(&text).unwrap())
    };
    let mut dashboards: Vec<_> = folder.map(read).collect();
    dashboards.sort_by(|one, other| one.0.cmp(&other.0));
    dashboards
}

/// Every query of a dashboard, with the title of its panel.
pub(crate) fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels
        .flat_map(|panel| {
            let title = text(&panel["title"]);
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.map(move |target| (title.clone(), text(&target["expr"])))
        })
        .collect()
}

/// The queries of the page beside Prometheus.
pub(crate) fn page_queries() -> Vec<String> {
    let page = root().join("deploy/prometheus/consoles/index.html");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("id=\"wanted\">").unwrap();
    let (wanted, _) = rest.split_once("</script>").unwrap();
    let wanted: Vec<Value> = serde_json::from_str(wanted).unwrap();
    let queries = wanted
        .iter()
        .flat_map(|graph| graph["queries"].as_array().unwrap());
    queries.map(|query| text(&query[0])).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What is wrong with a dashboard.
fn lint(dashboard: &Value, known: &Known) -> Vec<String> {
    let mut problems = Vec::new();
    let mut must = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_owned());
        }
    };
    must(text(&dashboard["uid"]).starts_with("waypost-"), "uid");
    must(!text(&dashboard["title"]).is_empty(), "title");
    must(text(&dashboard["description"]).len() > 20, "description");
    must(dashboard["editable"] == false, "editable");
    must(dashboard["timezone"] == "utc", "timezone");
    let variables = dashboard["templating"]["list"].as_array();
    let variables: BTreeSet<String> = variables
        .into_iter()
        .flatten()
        .map(|variable| text(&variable["name"]))
        .collect();
    must(
        variables.contains("datasource") && variables.contains("region"),
        "variables",
    );
    let panels: Vec<&Value> = dashboard["panels"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    must(!panels.is_empty(), "panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    must(
        ids.len() == panels.len() && !ids.contains(&None),
        "ids of panels",
    );
    for (at, panel) in panels.iter().enumerate() {
        let place = Place::of(panel);
        must(place.is_on_grid(), "a panel beyond the grid");
        let others = panels[..at].iter().map(|panel| Place::of(panel));
        must(
            others.into_iter().all(|other| !other.overlaps(&place)),
            "overlaps",
        );
        must(!text(&panel["title"]).is_empty(), "title of a panel");
        if panel["type"] != "row" {
            lint_panel(panel, &variables, known, &mut must);
        }
    }
    problems
}

fn lint_panel(
    panel: &Value,
    variables: &BTreeSet<String>,
    known: &Known,
    must: &mut impl FnMut(bool, &str),
) {
    let title = text(&panel["title"]);
    let of = |problem: &str| format!("{title}: {problem}");
    must(text(&panel["description"]).len() > 5, &of("description"));
    must(
        !text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(),
        &of("unit"),
    );
    must(
        panel["datasource"]["uid"] == "${datasource}",
        &of("datasource"),
    );
    let targets: Vec<&Value> = panel["targets"].as_array().into_iter().flatten().collect();
    must(!targets.is_empty(), &of("targets"));
    for target in targets {
        must(
            target["datasource"]["uid"] == "${datasource}",
            &of("datasource of a query"),
        );
        must(!text(&target["legendFormat"]).is_empty(), &of("legend"));
        let expression = text(&target["expr"]);
        must(!expression.is_empty(), &of("query"));
        for used in expression.split('$').skip(1) {
            let end = used.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let name = &used[..end.unwrap_or(used.len())];
            let is_known = name == "__rate_interval" || variables.contains(name);
            must(is_known, &of(&format!("variable {name}")));
        }
        if let Err(problem) = known.check(&expression) {
            must(false, &of(&problem));
        }
        for selector in promql::read(&expression).selectors {
            let of_name = |problem| of(&format!("{problem} of {}", selector.name));
            let metric = known.metric(&selector.name);
            let counts = metric.is_some_and(|metric| metric.kind != "gauge");
            let is_rate = matches!(selector.within.as_str(), "rate" | "increase");
            must(!counts || is_rate, &of_name("no rate"));
            must(counts || !is_rate, &of_name("a rate of no counter"));
            let range = selector.range.as_deref().unwrap_or_default();
            let is_grafanas = range == "$__rate_interval";
            let is_long = selector.within == "increase" && range.ends_with(['h', 'd']);
            must(!is_rate || is_grafanas || is_long, &of_name("interval"));
            let is_of_region = selector.matchers.iter().any(|[label, operator, value]| {
                label == "region" && operator == "=~" && value == "$region"
            });
            // A target is the same everywhere.
            let is_global = selector.name == "slo:objective:ratio";
            must(is_of_region || is_global, &of_name("region"));
        }
    }
    for link in panel["links"].as_array().into_iter().flatten() {
        let url = text(&link["url"]);
        let page = url.strip_prefix("${docs}/");
        let is_there = page.is_some_and(|page| root().join(page).is_file());
        must(is_there, &of("link"));
    }
}

/// Where a panel lies on the grid.
struct Place {
    x: u64,
    y: u64,
    width: u64,
    height: u64,
}

impl Place {
    fn of(panel: &Value) -> Self {
        let read = |key| panel["gridPos"][key].as_u64().unwrap_or(COLUMNS + 1);
        Self {
            x: read("x"),
            y: read("y"),
            width: read("w"),
            height: read("h"),
        }
    }

    fn is_on_grid(&self) -> bool {
        self.width > 0 && self.height > 0 && self.x + self.width <= COLUMNS
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.width
            && other.x < self.x + self.width
            && self.y < other.y + other.height
            && other.y < self.y + self.height
    }
}

#[test]
fn dashboards_are_whole_and_of_series_that_there_are() {
    let known = Known::read();
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 6);
    for (name, dashboard) in dashboards {
        assert_eq!(
            text(&dashboard["uid"]),
            name,
            "uids are the names of the files"
        );
        assert_eq!(lint(&dashboard, &known), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_lint_rejects_what_is_broken() {
    let known = Known::read();
    let (_, good) = dashboards()
        .into_iter()
        .find(|(name, _)| name == "waypost-gateway")
        .unwrap();
    // The second panel: the first is a row.
    let expr = "/panels/1/targets/0/expr";
    let broken = [
        ("/uid", json!("other")),
        ("/editable", json!(true)),
        ("/templating/list", json!([])),
        ("/panels/2/id", json!(2)),
        ("/panels/1/title", json!("")),
        ("/panels/1/description", json!("")),
        ("/panels/1/fieldConfig/defaults/unit", json!("")),
        ("/panels/1/datasource/uid", json!("prometheus-of-somebody")),
        (
            "/panels/1/targets/0/datasource/uid",
            json!("prometheus-of-somebody"),
        ),
        ("/panels/1/targets/0/legendFormat", json!("")),
        ("/panels/1/targets", json!([])),
        ("/panels/1/gridPos/x", json!(20)),
        ("/panels/2/gridPos/x", json!(0)),
        (
            "/panels/2/links/0/url",
            json!("${docs}/docs/runbooks/nowhere.md"),
        ),
        (expr, json!("")),
        (expr, json!("waypost_gone{region=~\"$region\"}")),
        (
            expr,
            json!("sum(waypost_gateway_shed_total{region=~\"$region\"})"),
        ),
        (
            expr,
            json!("rate(waypost_keys_in_stock{region=~\"$region\"}[$__rate_interval])"),
        ),
        (
            expr,
            json!("rate(waypost_gateway_shed_total{region=~\"$region\"}[5m])"),
        ),
        (
            expr,
            json!("rate(waypost_gateway_shed_total[$__rate_interval])"),
        ),
        (
            expr,
            json!("waypost_keys_in_stock{region=~\"$region\",shard=~\"$shards\"}"),
        ),
        (
            expr,
            json!("waypost_keys_in_stock{region=~\"$region\",lane=\"reads\"}"),
        ),
    ];
    for (at, with) in broken {
        let mut dashboard = good.clone();
        *dashboard
            .pointer_mut(at)
            .unwrap_or_else(|| panic!("there is no {at}")) = with.clone();
        assert_ne!(
            lint(&dashboard, &known),
            Vec::<String>::new(),
            "{at} = {with}"
        );
    }
}

#[test]
fn every_query_is_valid() {
    let of_dashboards = dashboards().into_iter().flat_map(|(_, dashboard)| {
        let list = dashboard["annotations"]["list"].as_array().cloned();
        let annotations = list.into_iter().flatten().map(|each| text(&each["expr"]));
        let queries = queries(&dashboard).into_iter().map(|(_, query)| query);
        queries.chain(annotations).collect::<Vec<_>>()
    });
    let known = Known::read();
    for query in page_queries() {
        known.check(&query).unwrap();
    }
    let rules: Vec<Value> = of_dashboards
        .chain(page_queries())
        .enumerate()
        .map(|(number, query)| {
            let query = query.replace("$__rate_interval", "1m");
            json!({"record": format!("query:{number}"), "expr": query})
        })
        .collect();
    assert!(rules.len() > 150, "{} queries", rules.len());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    // Whatever is JSON is YAML.
    let groups = json!({"groups": [{"name": "queries", "rules": rules}]});
    fs::write(&file, groups.to_string()).unwrap();
    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(&file)
        .output();
    let output = output.expect("promtool is installed by `cargo xtask packages`");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn every_alert_leads_to_a_dashboard() {
    let uids: BTreeSet<String> = dashboards().into_iter().map(|(uid, _)| uid).collect();
    for rule in rules().iter().filter(|rule| !rule.is_recorded) {
        let begin = "dashboard_url: \"{{ $externalLabels.grafana }}/d/";
        let url = rule.text.split_once(begin).map(|(_, rest)| rest);
        let uid = url.and_then(|url| url.split_once('?')).map(|(uid, _)| uid);
        let uid = uid.unwrap_or_else(|| panic!("{} leads to no dashboard", rule.name));
        assert!(uids.contains(uid), "{} leads to {uid}", rule.name);
    }
}
