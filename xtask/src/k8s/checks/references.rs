//! What objects name each other by: every name is of something that is there, and every
//! selector is of pods that are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Broken, Place, secrets};
use crate::k8s::objects::{Pod, containers, items, name_of, selects, text, title};

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    let secrets = secrets::of(place);
    for (pod, spec) in place.objects.templates() {
        let mut missing = |kind: &str, name: &str| {
            let problem = format!("there is no {kind} {name}");
            found.push(Broken::new("references", &pod.owner, problem));
        };
        for (kind, name, keys) in used(spec) {
            let is_there = match kind {
                "Secret" => secrets.contains_key(name),
                kind => place.objects.has(kind, name),
            };
            if !is_there {
                missing(kind, name);
            } else if kind == "Secret" {
                let known = &secrets[name];
                for key in keys.iter().filter(|key| !known.contains(**key)) {
                    missing("key in a Secret:", &format!("{name}/{key}"));
                }
            } else if kind == "ConfigMap" {
                let maps = place.objects.of_kind("ConfigMap");
                let map = maps.into_iter().find(|map| name_of(map) == name);
                let has = |key: &str| map.is_some_and(|map| map["data"].get(key).is_some());
                for key in keys.iter().filter(|key| !has(key)) {
                    missing("key in a ConfigMap:", key);
                }
            }
        }
        mounts(&pod, spec, found);
    }
    let pods = place.objects.pods();
    for object in &place.objects.0 {
        targets(place, object, found);
        selectors(object, &pods, found);
    }
}

/// What a pod names: the kind, the name, and the keys of it.
fn used<'a>(spec: &'a Value) -> Vec<(&'static str, &'a str, Vec<&'a str>)> {
    let mut used = vec![("ServiceAccount", text(&spec["serviceAccountName"]), vec![])];
    let keys = |source: &'a Value| {
        let items = items(&source["items"]);
        items.map(|item| text(&item["key"])).collect()
    };
    for volume in items(&spec["volumes"]) {
        for source in std::iter::once(volume).chain(items(&volume["projected"]["sources"])) {
            let (secret, map) = (&source["secret"], &source["configMap"]);
            // A volume's own secret, and one of several in a volume.
            for name in ["secretName", "name"] {
                if let Some(name) = secret[name].as_str() {
                    used.push(("Secret", name, keys(secret)));
                }
            }
            if let Some(name) = map["name"].as_str() {
                used.push(("ConfigMap", name, keys(map)));
            }
        }
        if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            used.push(("PersistentVolumeClaim", claim, vec![]));
        }
    }
    for container in containers(spec) {
        for source in items(&container["envFrom"]) {
            if let Some(map) = source["configMapRef"]["name"].as_str() {
                used.push(("ConfigMap", map, vec![]));
            }
            if let Some(secret) = source["secretRef"]["name"].as_str() {
                used.push(("Secret", secret, vec![]));
            }
        }
        for env in items(&container["env"]) {
            let from = &env["valueFrom"];
            if let Some(secret) = from["secretKeyRef"]["name"].as_str() {
                let key = text(&from["secretKeyRef"]["key"]);
                used.push(("Secret", secret, vec![key]));
            }
            if let Some(map) = from["configMapKeyRef"]["name"].as_str() {
                used.push((
                    "ConfigMap",
                    map,
                    vec![text(&from["configMapKeyRef"]["key"])],
                ));
            }
        }
    }
    used
}

/// Mounted volumes, and ports that are called by name.
fn mounts(pod: &Pod<'_>, spec: &Value, found: &mut Vec<Broken>) {
    let volumes = items(&spec["volumes"]).map(|volume| text(&volume["name"]));
    let volumes: BTreeSet<&str> = volumes.collect();
    let ports: BTreeSet<&str> = pod.ports.iter().map(|(name, _)| &**name).collect();
    let mut broken = |problem| found.push(Broken::new("references", &pod.owner, problem));
    for container in containers(spec) {
        for mount in items(&container["volumeMounts"]) {
            let name = text(&mount["name"]);
            // Those of claims are made for each pod.
            let is_claimed =
                pod.owner.starts_with("StatefulSet/") && ["data", "spool"].contains(&name);
            if !volumes.contains(name) && !is_claimed {
                broken(format!("mounts {name}, which is no volume"));
            }
            if mount.get("subPath").is_some() {
                broken(format!("mounts {name} by subPath, which is never updated"));
            }
        }
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            for kind in ["httpGet", "tcpSocket", "grpc"] {
                if let Some(port) = container[probe][kind]["port"].as_str()
                    && !ports.contains(port)
                {
                    broken(format!(
                        "{probe} asks the port {port}, which it does not have"
                    ));
                }
            }
        }
    }
}

/// What other objects than pods name.
fn targets(place: &Place<'_>, object: &Value, found: &mut Vec<Broken>) {
    let mut names: Vec<(&str, &str)> = Vec::new();
    let spec = &object["spec"];
    match text(&object["kind"]) {
        "HorizontalPodAutoscaler" => {
            let target = &spec["scaleTargetRef"];
            names.push((text(&target["kind"]), text(&target["name"])));
        }
        "StatefulSet" => names.push(("Service", text(&spec["serviceName"]))),
        "HTTPRoute" => {
            let parents = items(&spec["parentRefs"]);
            names.extend(parents.map(|parent| ("Gateway", text(&parent["name"]))));
            let backends = items(&spec["rules"]).flat_map(|rule| items(&rule["backendRefs"]));
            names.extend(backends.map(|backend| ("Service", text(&backend["name"]))));
        }
        "ScheduledBackup" => names.push(("Cluster", text(&spec["cluster"]["name"]))),
        "KafkaNodePool" | "KafkaTopic" | "KafkaUser" => {
            let cluster = &object["metadata"]["labels"]["strimzi.io/cluster"];
            names.push(("Kafka", text(cluster)));
        }
        "Cluster" => {
            let externals = items(&spec["externalClusters"]).map(|external| &external["plugin"]);
            for plugin in items(&spec["plugins"]).chain(externals) {
                let store = text(&plugin["parameters"]["barmanObjectName"]);
                names.push(("ObjectStore", store));
            }
            for field in ["serverTLSSecret", "replicationTLSSecret"] {
                if let Some(secret) = spec["certificates"][field].as_str() {
                    names.push(("Certificate", secret));
                }
            }
        }
        _ => {}
    }
    for (kind, name) in names {
        if !place.objects.has(kind, name) {
            let problem = format!("there is no {kind} {name}");
            found.push(Broken::new("references", &title(object), problem));
        }
    }
}

/// Services, budgets, monitors, policies and owners of pods choose some that are there.
fn selectors(object: &Value, pods: &[Pod<'_>], found: &mut Vec<Broken>) {
    let spec = &object["spec"];
    let kind = text(&object["kind"]);
    let selector = match kind {
        "Service" => Value::from_iter([("matchLabels", spec["selector"].clone())]),
        "NetworkPolicy" => spec["podSelector"].clone(),
        "PodDisruptionBudget" | "PodMonitor" | "Deployment" | "StatefulSet" => {
            spec["selector"].clone()
        }
        _ => return,
    };
    let chosen = pods.iter().filter(|pod| selects(&selector, &pod.labels));
    let chosen: Vec<_> = chosen.collect();
    let mut broken = |problem: String| {
        found.push(Broken::new("selectors", &title(object), problem));
    };
    if chosen.is_empty() {
        broken(format!("selects nothing that is there: {selector}"));
    }
    if matches!(kind, "Deployment" | "StatefulSet") {
        let own = title(object);
        let others: BTreeMap<&str, ()> = chosen
            .iter()
            .filter(|pod| pod.owner != own)
            .map(|pod| (&*pod.owner, ()))
            .collect();
        if !others.is_empty() {
            broken(format!("selects also pods of {:?}", others.keys()));
        }
        if !chosen.iter().any(|pod| pod.owner == own) {
            broken("does not select its own pods".to_owned());
        }
    }
    if kind == "Service" {
        for port in items(&spec["ports"]) {
            let target = port.get("targetPort").unwrap_or(&port["port"]);
            let has = |pod: &&Pod<'_>| {
                pod.ports.iter().any(|(name, number)| {
                    target.as_u64() == Some(*number) || target.as_str() == Some(name)
                })
            };
            if !chosen.iter().any(has) {
                broken(format!("its port {target} is none of its pods'"));
            }
        }
    }
    if kind == "PodMonitor" {
        for endpoint in items(&spec["podMetricsEndpoints"]) {
            let port = text(&endpoint["port"]);
            if !chosen
                .iter()
                .all(|pod| pod.ports.iter().any(|(name, _)| name == port))
            {
                broken(format!("its pods have no port {port}"));
            }
        }
    }
}
