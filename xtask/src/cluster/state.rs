//! The file that says where everything of a running cluster is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use waypost_testbed::cluster::Shard;
use waypost_testbed::prometheus::Prometheus;
use waypost_testbed::{Cluster, Service};

use crate::Error;

/// Removed when dropped.
pub(crate) struct StateFile {
    path: PathBuf,
    /// The URL and the process id of Prometheus, if it was asked for.
    prometheus: Option<(String, u32)>,
}

impl StateFile {
    pub(crate) fn write(
        path: &Path,
        cluster: &Cluster,
        prometheus: Option<&Prometheus>,
    ) -> Result<Self, Error> {
        let file = Self {
            path: path.to_owned(),
            prometheus: prometheus.map(|prometheus| (prometheus.url(), prometheus.pid())),
        };
        file.rewrite(cluster)?;
        Ok(file)
    }

    /// Readers see the old text or the new, never a part.
    pub(crate) fn rewrite(&self, cluster: &Cluster) -> Result<(), Error> {
        let mut state = describe(cluster, &self.path);
        if let Some((url, pid)) = &self.prometheus {
            state["prometheus"] = json!(url);
            state["prometheusPid"] = json!(pid);
        }
        let text = format!("{state:#}\n");
        let draft = self.path.with_extension("draft");
        write_private(&draft, &text)
            .and_then(|()| fs::rename(&draft, &self.path))
            .map_err(|error| Error::Step(format!("{}: {error}", self.path.display())))
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // Somebody else removed it: as well.
        let _ = fs::remove_file(&self.path);
    }
}

/// It holds passwords and a token.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// Programs and people read this: the keys are a promise.
fn describe(cluster: &Cluster, path: &Path) -> Value {
    json!({
        "gateways": list(&cluster.gateways, |gateway| json!({
            "url": url(&gateway.address()),
            "admin": url(&gateway.admin()),
            "pid": gateway.pid(),
        })),
        "shards": list(&cluster.shards, shard),
        "keygen": list(&cluster.keygens, node),
        "analytics": list(&cluster.consumers, |consumer| json!({
            "admin": url(&consumer.admin()),
            "pid": consumer.pid(),
        })),
        "redis": list(cluster.redis.nodes(), |node| json!({
            "addr": node.address(),
            "pid": node.pid(),
        })),
        "kafka": cluster.broker.servers(),
        "kafkaPid": cluster.broker.pid(),
        "analyticsPostgres": cluster.analytics_url(),
        "token": cluster.token(),
        "shardMap": cluster.shard_map(),
        "secrets": cluster.secrets.folder,
        "stateFile": path,
    })
}

fn shard(shard: &Shard) -> Value {
    json!({
        "id": shard.id.as_str(),
        "postgres": shard.url(),
        "postgresPid": shard.postgres.pid(),
        "replicas": list(&shard.replicas, |replica| json!({
            "postgres": replica.url(Shard::DATABASE),
            "postgresPid": replica.pid(),
        })),
        "nodes": list(&shard.nodes, node),
    })
}

fn node(service: &Service) -> Value {
    json!({
        "grpc": service.address(),
        "admin": url(&service.admin()),
        "pid": service.pid(),
    })
}

fn list<T>(items: &[T], describe: impl Fn(&T) -> Value) -> Value {
    items.iter().map(describe).collect()
}

fn url(address: &str) -> String {
    format!("http://{address}")
}
