//! Who may talk to whom, computed back out of the rendered policies.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Broken, Place};
use crate::k8s::objects::{Labels, Pod, items, labels, selects, text};
use crate::k8s::policies::{Mark, mark};
use crate::k8s::topology::Outside;

/// One direction of a pod's connections: its name in a policy, and where its peers are.
#[derive(Clone, Copy)]
struct Direction {
    name: &'static str,
    rules: &'static str,
    peers: &'static str,
}

const IN: Direction = Direction {
    name: "Ingress",
    rules: "ingress",
    peers: "from",
};
const OUT: Direction = Direction {
    name: "Egress",
    rules: "egress",
    peers: "to",
};

/// Every pod looks names up.
const NAMES: &str = "namespace kube-system:53";

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    let mut policies = place.objects.of_kind("NetworkPolicy");
    if !policies.any(denies_all) {
        let problem = "a pod that no policy knows could talk to everybody";
        found.push(Broken::new("default-deny", "Namespace", problem));
    }
    let pods = place.objects.pods();
    for pod in &pods {
        let Some(role) = role_of(place, &pod.labels) else {
            found.push(Broken::new(
                "call-graph",
                &pod.owner,
                "no call of the topology knows it",
            ));
            continue;
        };
        for direction in [IN, OUT] {
            let Some(allowed) = allowed(place, &pods, pod, direction) else {
                let problem = format!("everything is allowed: {}", direction.name);
                found.push(Broken::new("default-deny", &pod.owner, problem));
                continue;
            };
            let declared = declared(place, &role, direction);
            for extra in allowed.difference(&declared) {
                let problem = format!("{} of {extra} is allowed and not declared", direction.name);
                found.push(Broken::new("call-graph", &pod.owner, problem));
            }
            for missing in declared.difference(&allowed) {
                let problem = format!("{} of {missing} is declared and denied", direction.name);
                found.push(Broken::new("call-graph", &pod.owner, problem));
            }
        }
        for call in place.topology.calls.iter().filter(|call| call.to == role) {
            // The far side of Kafka is there only where somebody else reads.
            let is_far = role == "kafka" && call.port == 9094;
            if !is_far
                && !pod
                    .ports
                    .iter()
                    .any(|(_, port)| *port == u64::from(call.port))
            {
                let problem = format!("is called at {}, which it does not have", call.port);
                found.push(Broken::new("ports", &pod.owner, problem));
            }
        }
    }
}

/// Whether it is for all pods and both directions, and allows nothing.
fn denies_all(policy: &Value) -> bool {
    let spec = &policy["spec"];
    let is_for_all = spec["podSelector"].as_object().is_some_and(Map::is_empty);
    let directions = [IN, OUT].iter().all(|direction| {
        let has = items(&spec["policyTypes"]).any(|kind| kind == direction.name);
        has && spec[direction.rules].is_null()
    });
    is_for_all && directions
}

/// What the topology calls a pod.
fn role_of(place: &Place<'_>, labels: &Labels) -> Option<String> {
    let calls = place.topology.calls.iter();
    let mut roles = calls.flat_map(|call| [&call.from, &call.to]);
    let is_it = |role: &&String| match mark(role) {
        Mark::Label(key, value) => labels.get(key) == Some(&value),
        Mark::Key(key) => labels.contains_key(key),
    };
    roles.find(is_it).cloned()
}

/// What the policies allow, as `peer:port`; none if no policy is about this direction, so
/// that all is allowed.
fn allowed(
    place: &Place<'_>,
    pods: &[Pod<'_>],
    pod: &Pod<'_>,
    direction: Direction,
) -> Option<BTreeSet<String>> {
    let policies = place.objects.of_kind("NetworkPolicy").filter(|policy| {
        items(&policy["spec"]["policyTypes"]).any(|kind| kind == direction.name)
            && selects(&policy["spec"]["podSelector"], &pod.labels)
    });
    let mut allowed = None;
    for policy in policies {
        let allowed: &mut BTreeSet<String> = allowed.get_or_insert_default();
        for rule in items(&policy["spec"][direction.rules]) {
            let ports: Vec<String> = match rule["ports"].as_array() {
                Some(ports) => ports.iter().map(|port| port["port"].to_string()).collect(),
                None => vec!["any".to_owned()],
            };
            let mut peers: Vec<String> = items(&rule[direction.peers])
                .flat_map(|peer| ends(place, pods, peer))
                .collect();
            if rule[direction.peers].as_array().is_none_or(Vec::is_empty) {
                peers.push("anybody".to_owned());
            }
            for peer in peers {
                allowed.extend(ports.iter().map(|port| format!("{peer}:{port}")));
            }
        }
    }
    allowed
}

/// Whom a peer stands for.
fn ends(place: &Place<'_>, pods: &[Pod<'_>], peer: &Value) -> Vec<String> {
    if let Some(block) = peer.get("ipBlock") {
        return vec![format!("addresses {}", text(&block["cidr"]))];
    }
    if let Some(namespace) = peer.get("namespaceSelector") {
        let names = labels(&namespace["matchLabels"]);
        let name = names.get("kubernetes.io/metadata.name");
        return vec![format!("namespace {}", name.map_or("any", String::as_str))];
    }
    let selector = &peer["podSelector"];
    let chosen = pods.iter().filter(|pod| selects(selector, &pod.labels));
    let roles: BTreeSet<String> = chosen
        .filter_map(|pod| role_of(place, &pod.labels))
        .collect();
    if roles.is_empty() {
        return vec![format!("nobody, who is {selector}")];
    }
    roles.into_iter().collect()
}

/// What the topology declares for a role, in the same words.
fn declared(place: &Place<'_>, role: &str, direction: Direction) -> BTreeSet<String> {
    let is_out = direction.name == OUT.name;
    let mut declared = BTreeSet::new();
    if is_out {
        declared.insert(NAMES.to_owned());
    }
    for call in &place.topology.calls {
        let (own, other) = if is_out {
            (&call.from, &call.to)
        } else {
            (&call.to, &call.from)
        };
        if own != role {
            continue;
        }
        let port = call.port;
        match place.topology.outside.get(other) {
            Some(Outside::Namespace(name)) => {
                declared.insert(format!("namespace {name}:{port}"));
                continue;
            }
            Some(Outside::Cidr(cidr)) => {
                declared.insert(format!("addresses {cidr}:{port}"));
                continue;
            }
            None => {}
        }
        if place.deployment.has(place.region, other) {
            declared.insert(format!("{other}:{port}"));
        }
        if call.everywhere {
            let beside = place.deployment.beside(place.region);
            let there = beside.filter(|beside| place.deployment.has(beside, other));
            declared.extend(there.map(|there| format!("addresses {}:{port}", there.pods)));
        }
    }
    declared
}
