//! A dashboard as it is written here, and as Grafana reads it: the classic schema, which
//! Grafana 9 and all later ones know.

use serde_json::{Value, json};

/// Grafana's grid.
const COLUMNS: u32 = 24;

pub(super) struct Dashboard {
    /// What alerts and links name it by: never to be changed.
    pub(super) uid: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) rows: Vec<Row>,
}

pub(super) struct Row {
    pub(super) title: String,
    pub(super) panels: Vec<Panel>,
}

pub(super) fn row(title: impl Into<String>, panels: impl Into<Vec<Panel>>) -> Row {
    Row {
        title: title.into(),
        panels: panels.into(),
    }
}

#[derive(Clone, Copy)]
pub(super) enum Unit {
    Seconds,
    /// 1 is shown as 100 %.
    Ratio,
    PerSecond,
    Bytes,
    Count,
    Minutes,
}

impl Unit {
    fn grafana(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Ratio => "percentunit",
            Self::PerSecond => "cps",
            Self::Bytes => "bytes",
            Self::Count => "short",
            Self::Minutes => "m",
        }
    }
}

enum Kind {
    Graph,
    /// One large number for each series.
    Number,
    /// The buckets of a histogram over time.
    Heatmap,
    /// One column for each query, joined by this label.
    Table(&'static str),
}

pub(super) struct Panel {
    title: String,
    description: String,
    kind: Kind,
    unit: Unit,
    width: u32,
    queries: Vec<(String, String)>,
    /// Drawn as lines, or where a number turns red.
    lines: Vec<f64>,
    /// Red is below the line.
    is_low_bad: bool,
    runbook: Option<&'static str>,
}

impl Panel {
    fn new(kind: Kind, title: &str, description: &str, unit: Unit, width: u32) -> Self {
        Self {
            title: title.to_owned(),
            description: description.to_owned(),
            kind,
            unit,
            width,
            queries: Vec::new(),
            lines: Vec::new(),
            is_low_bad: false,
            runbook: None,
        }
    }

    /// A series and its name, which may hold labels: `{{shard}}`. In the query, `{R` begins
    /// matchers of which the first is that of the region, and `[W]` is Grafana's interval
    /// for rates.
    pub(super) fn query(mut self, expr: &str, legend: &str) -> Self {
        let expr = expr
            .replace("{R", "{region=~\"$region\"")
            .replace("[W]", "[$__rate_interval]");
        self.queries.push((expr, legend.to_owned()));
        self
    }

    pub(super) fn lines(mut self, at: impl Into<Vec<f64>>) -> Self {
        self.lines = at.into();
        self
    }

    pub(super) fn bad_below(mut self, line: f64) -> Self {
        self.is_low_bad = true;
        self.lines(vec![line])
    }

    /// Of 24.
    pub(super) fn width(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    /// The page in `docs/runbooks` that says what to do.
    pub(super) fn runbook(mut self, page: &'static str) -> Self {
        self.runbook = Some(page);
        self
    }

    fn height(&self) -> u32 {
        match self.kind {
            Kind::Number => 4,
            _ => 8,
        }
    }
}

pub(super) fn graph(title: &str, unit: Unit, description: &str) -> Panel {
    Panel::new(Kind::Graph, title, description, unit, 8)
}

pub(super) fn number(title: &str, unit: Unit, description: &str) -> Panel {
    Panel::new(Kind::Number, title, description, unit, 4)
}

pub(super) fn heatmap(title: &str, unit: Unit, description: &str) -> Panel {
    Panel::new(Kind::Heatmap, title, description, unit, 8)
}

/// One row for each value of a label, and one column for each query.
pub(super) fn table(title: &str, by: &'static str, description: &str) -> Panel {
    Panel::new(Kind::Table(by), title, description, Unit::Count, COLUMNS)
}

impl Dashboard {
    pub(super) fn json(self) -> Value {
        let mut panels = Vec::new();
        let (mut id, mut y) = (0, 0);
        let mut next_id = || {
            id += 1;
            id
        };
        for row in self.rows {
            panels.push(json!({
                "id": next_id(),
                "type": "row",
                "title": row.title,
                "collapsed": false,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }));
            y += 1;
            // From the left; the next line begins below the highest of this one.
            let (mut x, mut highest) = (0, 0);
            for panel in row.panels {
                let (width, height) = (panel.width, panel.height());
                if x + width > COLUMNS {
                    y += highest;
                    (x, highest) = (0, 0);
                }
                let place = json!({"x": x, "y": y, "w": width, "h": height});
                panels.push(panel.json(next_id(), &place));
                x += width;
                highest = highest.max(height);
            }
            y += highest;
        }
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["waypost"],
            "schemaVersion": 36,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "utc",
            "templating": {"list": variables()},
            "annotations": {"list": [releases()]},
            "links": [{
                "type": "dashboards",
                "title": "Waypost",
                "tags": ["waypost"],
                "asDropdown": true,
                "includeVars": true,
                "keepTime": true,
            }],
            "panels": panels,
        })
    }
}

/// What the reader chooses.
fn variables() -> Value {
    json!([
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
        },
        {
            "name": "region",
            "label": "Region",
            "type": "query",
            "datasource": source(),
            "query": {"query": "label_values(up, region)", "refId": "region"},
            "refresh": 2,
            "sort": 1,
            "multi": true,
            "includeAll": true,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
        {
            "name": "docs",
            "label": "Where docs/ can be read",
            "type": "textbox",
            "query": "",
        },
    ])
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// Where a build began to run that did not run five minutes before.
fn releases() -> Value {
    json!({
        "name": "Releases",
        "datasource": source(),
        "enable": true,
        "iconColor": "blue",
        "expr": "count by (version, revision) (waypost_build_info{region=~\"$region\"}) unless count by (version, revision) (waypost_build_info{region=~\"$region\"} offset 5m)",
        "titleFormat": "{{version}} {{revision}}",
        "step": "60s",
    })
}

impl Panel {
    fn json(self, id: u32, place: &Value) -> Value {
        let is_table = matches!(self.kind, Kind::Table(_));
        let is_heatmap = matches!(self.kind, Kind::Heatmap);
        let targets: Vec<Value> = self
            .queries
            .iter()
            .zip('A'..)
            .map(|((expr, legend), letter)| {
                json!({
                    "refId": letter.to_string(),
                    "datasource": source(),
                    "expr": expr,
                    "legendFormat": legend,
                    "instant": is_table,
                    "range": !is_table,
                    "format": match self.kind {
                        Kind::Table(_) => "table",
                        Kind::Heatmap => "heatmap",
                        Kind::Graph | Kind::Number => "time_series",
                    },
                })
            })
            .collect();
        let (kind, options) = match self.kind {
            Kind::Graph => (
                "timeseries",
                json!({
                    "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
                    "tooltip": {"mode": "multi", "sort": "desc"},
                }),
            ),
            Kind::Number => (
                "stat",
                json!({
                    "reduceOptions": {"calcs": ["lastNotNull"]},
                    "colorMode": "value",
                    "graphMode": "area",
                    "textMode": "auto",
                }),
            ),
            Kind::Heatmap => (
                "heatmap",
                json!({
                    "calculate": false,
                    "yAxis": {"unit": self.unit.grafana()},
                    "color": {"mode": "scheme", "scheme": "Blues"},
                    "cellGap": 1,
                }),
            ),
            Kind::Table(_) => ("table", json!({"showHeader": true})),
        };
        let mut panel = json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": source(),
            "gridPos": place,
            "targets": targets,
            "options": options,
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit.grafana(),
                    "thresholds": self.thresholds(),
                    "custom": match self.kind {
                        Kind::Graph if !self.lines.is_empty() => json!({"thresholdsStyle": {"mode": "line"}}),
                        _ => json!({}),
                    },
                },
                "overrides": [],
            },
        });
        if let Some(page) = self.runbook {
            panel["links"] = json!([{
                "title": format!("What to do: {page}"),
                "url": format!("${{docs}}/docs/runbooks/{page}.md"),
                "targetBlank": true,
            }]);
        }
        if let Kind::Table(by) = self.kind {
            panel["transformations"] = self.columns(by);
        }
        if is_heatmap {
            panel["maxDataPoints"] = json!(60);
        }
        panel
    }

    fn thresholds(&self) -> Value {
        let (base, beyond) = match self.is_low_bad {
            true => ("red", "green"),
            false => ("green", "red"),
        };
        let mut steps = vec![json!({"color": base, "value": null})];
        steps.extend(
            self.lines
                .iter()
                .map(|at| json!({"color": beyond, "value": at})),
        );
        json!({"mode": "absolute", "steps": steps})
    }

    /// Joins the answers by a label, and names the columns.
    fn columns(&self, by: &str) -> Value {
        let names = self.queries.iter().zip('A'..);
        let names: serde_json::Map<String, Value> = names
            .map(|((_, legend), letter)| (format!("Value #{letter}"), json!(legend)))
            .collect();
        json!([
            {"id": "joinByField", "options": {"byField": by, "mode": "outer"}},
            {"id": "filterFieldsByName", "options": {"include": {"pattern": format!("^({by}|Value #.*)$")}}},
            {"id": "organize", "options": {"renameByName": names}},
        ])
    }
}
