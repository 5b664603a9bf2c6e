//! The network policies of a region, as the calls of the topology ask for them.

use std::fmt::Write as _;

use super::topology::{Call, Deployment, Outside, Region, Topology};

/// What marks the pods of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    Label(&'static str, String),
    /// A label with whatever value.
    Key(&'static str),
}

/// The operators name their pods, and we ours.
pub(super) fn mark(role: &str) -> Mark {
    let of_kafka = |name: &str| Mark::Label("strimzi.io/name", name.to_owned());
    match role {
        "postgres" => Mark::Key("cnpg.io/cluster"),
        "kafka" => of_kafka("clicks-kafka"),
        "entity-operator" => of_kafka("clicks-entity-operator"),
        "mirror" => of_kafka("clicks-mirror-mirrormaker2"),
        ours => Mark::Label("app.kubernetes.io/name", ours.to_owned()),
    }
}

impl Mark {
    fn selector(&self) -> String {
        match self {
            Self::Label(key, value) => format!("{{matchLabels: {{{key}: {value}}}}}"),
            Self::Key(key) => {
                format!("{{matchExpressions: [{{key: {key}, operator: Exists}}]}}")
            }
        }
    }
}

/// One policy for each role that is in this region.
pub(super) fn of(topology: &Topology, deployment: &Deployment, region: &Region) -> String {
    let is_outside = |role: &str| topology.outside.contains_key(role);
    let is_here = |role: &str| !is_outside(role) && deployment.has(region, role);
    let mut roles: Vec<&str> = Vec::new();
    for call in &topology.calls {
        for role in [&*call.from, &*call.to] {
            if is_here(role) && !roles.contains(&role) {
                roles.push(role);
            }
        }
    }
    let policies = roles.iter().map(|role| {
        let mut text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {role}\nspec:\n  \
             podSelector: {}\n  policyTypes: [Ingress, Egress]\n",
            mark(role).selector()
        );
        let peers = |call: &Call, other: &str| peers(topology, deployment, region, call, other);
        let to: Vec<_> = topology.calls.iter().filter(|call| call.to == *role).collect();
        let from: Vec<_> = topology.calls.iter().filter(|call| call.from == *role).collect();
        let to: Vec<_> = to.iter().map(|call| (call.port, peers(call, &call.from))).collect();
        let from: Vec<_> = from.iter().map(|call| (call.port, peers(call, &call.to))).collect();
        rules(&mut text, "ingress", "from", &to);
        rules(&mut text, "egress", "to", &from);
        text
    });
    policies.collect::<Vec<_>>().join("---\n")
}

fn rules(text: &mut String, direction: &str, side: &str, calls: &[(u16, Vec<String>)]) {
    let is_any = calls.iter().any(|(_, peers)| !peers.is_empty());
    if !is_any {
        return;
    }
    let _ = writeln!(text, "  {direction}:");
    for (port, peers) in calls.iter().filter(|(_, peers)| !peers.is_empty()) {
        let _ = writeln!(text, "    - {side}:");
        for peer in peers {
            let _ = writeln!(text, "        - {peer}");
        }
        let _ = writeln!(text, "      ports: [{{protocol: TCP, port: {port}}}]");
    }
}

/// Where the other end of a call is: here, outside, or in other regions.
fn peers(
    topology: &Topology,
    deployment: &Deployment,
    region: &Region,
    call: &Call,
    other: &str,
) -> Vec<String> {
    match topology.outside.get(other) {
        Some(Outside::Namespace(name)) => {
            let label = format!("kubernetes.io/metadata.name: {name}");
            return vec![format!("namespaceSelector: {{matchLabels: {{{label}}}}}")];
        }
        Some(Outside::Cidr(cidr)) => return vec![format!("ipBlock: {{cidr: {cidr}}}")],
        None => {}
    }
    let mut peers = Vec::new();
    if deployment.has(region, other) {
        peers.push(format!("podSelector: {}", mark(other).selector()));
    }
    if call.everywhere {
        let beside = deployment.beside(region);
        let there = beside.filter(|beside| deployment.has(beside, other));
        peers.extend(there.map(|there| format!("ipBlock: {{cidr: {}}}", there.pods)));
    }
    peers
}
