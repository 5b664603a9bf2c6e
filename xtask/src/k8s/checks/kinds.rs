//! What holds of objects of every kind.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Broken, Place};
use crate::k8s::objects::{name_of, text, title};

/// The custom resources that are made here, in the versions that their operators still
/// serve: names that are close to these were served once (`kafka.strimzi.io/v1beta2`), or
/// are read by nobody.
const CUSTOM: [(&str, &str); 14] = [
    ("barmancloud.cnpg.io/v1", "ObjectStore"),
    ("cert-manager.io/v1", "Certificate"),
    ("external-secrets.io/v1", "ExternalSecret"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("kafka.strimzi.io/v1", "Kafka"),
    ("kafka.strimzi.io/v1", "KafkaMirrorMaker2"),
    ("kafka.strimzi.io/v1", "KafkaNodePool"),
    ("kafka.strimzi.io/v1", "KafkaTopic"),
    ("kafka.strimzi.io/v1", "KafkaUser"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("postgresql.cnpg.io/v1", "Cluster"),
    ("postgresql.cnpg.io/v1", "ScheduledBackup"),
];

/// What Kubernetes takes of a ConfigMap's data, in bytes.
const MAX_CONFIG_MAP: usize = 1 << 20;

/// Fields that operators have given up.
const GIVEN_UP: [&str; 3] = ["barmanObjectStore", "enablePodMonitor", "zookeeper"];

/// The groups that Kubernetes itself serves, whose schemas are checked elsewhere.
pub(in crate::k8s) const CORE: [&str; 7] = [
    "v1",
    "apps/v1",
    "autoscaling/v2",
    "batch/v1",
    "networking.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
];

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    let mut seen = BTreeSet::new();
    for object in &place.objects.0 {
        let name = title(object);
        let mut broken = |rule, problem: String| found.push(Broken::new(rule, &name, problem));
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        if !CORE.contains(&version) && !CUSTOM.contains(&(version, kind)) {
            broken(
                "known-kinds",
                format!("{version} {kind} is none that is made here"),
            );
        }
        for field in GIVEN_UP {
            if has_field(object, field) {
                broken(
                    "known-kinds",
                    format!("{field} was given up by its operator"),
                );
            }
        }
        let namespace = text(&object["metadata"]["namespace"]);
        let group = version.split('/').next().unwrap_or_default();
        if !seen.insert((group.to_owned(), kind, namespace, name_of(object))) {
            broken("no-duplicates", "is there twice".to_owned());
        }
        if kind != "Namespace" && namespace != place.topology.namespace {
            broken("namespace", format!("is in the namespace \"{namespace}\""));
        }
        let data = object["data"].as_object().into_iter().flatten();
        let size: usize = data.map(|(key, value)| key.len() + text(value).len()).sum();
        if kind == "ConfigMap" && size > MAX_CONFIG_MAP {
            broken("size", format!("{size} bytes are too many for a ConfigMap"));
        }
        if kind == "Secret" {
            broken("no-secrets", "a secret in the tree".to_owned());
        }
        if let Some(what) = secret_in(object) {
            broken(
                "no-secrets",
                format!("holds what looks like a secret: {what}"),
            );
        }
        if kind == "Namespace" {
            let level = &object["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
            if level != "restricted" {
                broken(
                    "restricted",
                    "does not enforce the level restricted".to_owned(),
                );
            }
        }
    }
}

fn has_field(value: &Value, field: &str) -> bool {
    match value {
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| key == field || has_field(value, field)),
        Value::Array(items) => items.iter().any(|item| has_field(item, field)),
        _ => false,
    }
}

/// A password in a URL, a private key, or a variable that is called like a secret and has
/// its value here; the first few characters of it.
fn secret_in(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => {
            let has_password = text.split(',').any(|url| {
                let login = url
                    .split_once("://")
                    .and_then(|(_, rest)| rest.split_once('@'));
                let password = login.and_then(|(login, _)| login.split_once(':'));
                password.is_some_and(|(_, password)| !password.starts_with("$("))
            });
            let is_secret =
                has_password || text.contains("PRIVATE KEY") || text.split_whitespace().any(is_key);
            is_secret.then(|| text.chars().take(24).collect())
        }
        Value::Object(fields) => {
            let called = fields.get("name").map_or("", text).to_uppercase();
            let is_secret = ["PASSWORD", "TOKEN", "SECRET", "API_KEY"]
                .iter()
                .any(|word| called.ends_with(word));
            if is_secret
                && fields
                    .get("value")
                    .is_some_and(|value| !text(value).is_empty())
            {
                return Some(called);
            }
            fields.values().find_map(secret_in)
        }
        Value::Array(items) => items.iter().find_map(secret_in),
        _ => None,
    }
}

/// As `openssl rand -hex 32` writes one.
fn is_key(word: &str) -> bool {
    word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}
