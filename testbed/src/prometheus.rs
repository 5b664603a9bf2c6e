//! Prometheus, which reads a cluster's metrics and judges our rules.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Doing as _, Error, Result, write};
use crate::http;
use crate::port::Port;
use crate::sandbox::Sandbox;
use crate::server::Server;

/// A query over days reads little more than one over minutes here.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Asked again until its server gives up.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// How Prometheus is to look at a cluster.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The folder with the rules.
    pub rules: PathBuf,
    /// The folder with the pages that it serves at `/consoles`.
    pub consoles: PathBuf,
    /// How often it reads metrics and judges rules.
    pub every: Duration,
}

/// Processes of one kind.
#[derive(Debug)]
pub(crate) struct Targets {
    /// As rules and dashboards call it.
    pub(crate) job: &'static str,
    /// `host:port` of their metrics.
    pub(crate) addresses: Vec<String>,
    /// Where all of them are of one shard.
    pub(crate) shard: Option<String>,
}

/// A running Prometheus; it ends when this is dropped, or with its sandbox.
#[derive(Debug)]
pub struct Prometheus {
    server: Server,
    port: Port,
}

impl Prometheus {
    pub(crate) fn start(
        sandbox: &Arc<Sandbox>,
        region: &str,
        targets: &[Targets],
        observation: &Observation,
    ) -> Result<Self> {
        let port = Port::reserve()?;
        let folder = sandbox.folder().join("prometheus");
        std::fs::create_dir(&folder).doing(|| format!("make {}", folder.display()))?;
        let file = folder.join("prometheus.yaml");
        // Whatever is JSON is YAML.
        write(
            &file,
            configuration(region, targets, observation).to_string(),
        )?;
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let arguments = vec![
            option("config.file", &file),
            option("storage.tsdb.path", &folder.join("data")),
            option("web.console.templates", &observation.consoles),
            option("web.console.libraries", &observation.consoles),
            format!("--web.listen-address={}", port.address()),
            "--log.level=warn".to_owned(),
        ];
        let address = port.address();
        let server = Server::start_in(sandbox, "prometheus", "prometheus", arguments, &address)?;
        // It takes connections before it answers queries.
        server.wait_until("wait for /-/ready of", || {
            http::get(&address, "/-/ready", READY_TIMEOUT).is_ok_and(|ready| ready.status == 200)
        })?;
        Ok(Self { server, port })
    }

    /// `http://host:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The page of the main graphs.
    #[must_use]
    pub fn page(&self) -> String {
        format!("{}/consoles/index.html", self.url())
    }

    /// The series that a PromQL expression has now, as Prometheus writes them: `metric`
    /// and `value`.
    ///
    /// # Errors
    /// If it does not answer, or the expression is no good.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let response = http::get(&self.port.address(), &path, QUERY_TIMEOUT)
            .doing(|| format!("query Prometheus for {expression}"))?;
        let answer: Value = serde_json::from_str(&response.body).unwrap_or_default();
        match &answer["data"]["result"] {
            Value::Array(series) => Ok(series.clone()),
            _ => Err(Error::Refused(format!("{expression}: {}", response.body))),
        }
    }
}

fn configuration(region: &str, targets: &[Targets], observation: &Observation) -> Value {
    let every = format!("{}ms", observation.every.as_millis());
    let mut jobs: Vec<Value> = Vec::new();
    for Targets {
        job,
        addresses,
        shard,
    } in targets
    {
        let mut labels = json!({"region": region});
        if let Some(shard) = shard {
            labels["shard"] = json!(shard);
        }
        let some = json!({"targets": addresses, "labels": labels});
        match jobs.iter_mut().find(|known| known["job_name"] == *job) {
            Some(known) => known["static_configs"]
                .as_array_mut()
                .expect("it was made as an array")
                .push(some),
            None => jobs.push(json!({"job_name": job, "static_configs": [some]})),
        }
    }
    json!({
        "global": {
            "scrape_interval": every,
            "scrape_timeout": every,
            "evaluation_interval": every,
        },
        "rule_files": [format!("{}/*.yaml", observation.rules.display())],
        "scrape_configs": jobs,
    })
}

/// For the value of a URL's query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shards_are_one_job_and_each_says_which_it_is() {
        let nodes = |shard: &str, address: &str| Targets {
            job: "shard-node",
            addresses: vec![address.to_owned()],
            shard: Some(shard.to_owned()),
        };
        let observation = Observation {
            rules: "/rules".into(),
            consoles: "/consoles".into(),
            every: Duration::from_secs(5),
        };
        let targets = [nodes("s0", "127.0.0.1:1"), nodes("s1", "127.0.0.1:2")];
        let made = configuration("eu", &targets, &observation);
        assert_eq!(
            made["scrape_configs"],
            json!([{"job_name": "shard-node", "static_configs": [
                {"targets": ["127.0.0.1:1"], "labels": {"region": "eu", "shard": "s0"}},
                {"targets": ["127.0.0.1:2"], "labels": {"region": "eu", "shard": "s1"}},
            ]}])
        );
        assert_eq!(made["global"]["scrape_interval"], "5000ms");
    }

    #[test]
    fn an_expression_survives_a_url() {
        assert_eq!(
            encoded("a{b=\"c d\"}[5m]"),
            "a%7Bb%3D%22c%20d%22%7D%5B5m%5D"
        );
    }
}
