//! What must hold of each pod of ours: what it may do, what it may take, how it starts and
//! ends.

use serde_json::Value;

use super::{Broken, Place};
use crate::k8s::objects::{Pod, containers, items, selects, text};

/// What a process may take beyond its drain before it ends itself.
const OVERRUN_S: u64 = 5;

/// A drain that no option says is as long as the option's default.
const DEFAULT_GRACE_MS: u64 = 25_000;

/// Volumes of which nothing on the node is reached.
const VOLUMES: [&str; 7] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    for (pod, spec) in place.objects.templates() {
        let mut broken = |rule, problem: String| found.push(Broken::new(rule, &pod.owner, problem));
        restricted(spec, &mut broken);
        resources(spec, &mut broken);
        if !pod.owner.starts_with("Job/") {
            probes(spec, &mut broken);
            ending(spec, &mut broken);
        }
        if spec["automountServiceAccountToken"] != false {
            broken("no-token", "is given a token of the API".to_owned());
        }
        if place.is_full && !pod.owner.starts_with("Job/") {
            spread(place, &pod, spec, &mut broken);
        }
    }
}

/// As Pod Security Standards' level "restricted" has it.
fn restricted(spec: &Value, broken: &mut impl FnMut(&'static str, String)) {
    let mut refuse = |problem: &str| broken("restricted", problem.to_owned());
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[field] == true {
            refuse(field);
        }
    }
    for volume in items(&spec["volumes"]) {
        let fields = volume.as_object().into_iter().flatten();
        let mut kinds = fields
            .map(|(key, _)| key.as_str())
            .filter(|key| *key != "name");
        if !kinds.all(|kind| VOLUMES.contains(&kind)) {
            refuse("a volume of a kind that is not allowed");
        }
    }
    let of_pod = &spec["securityContext"];
    for container in containers(spec) {
        let own = &container["securityContext"];
        let either = |field: &str| {
            if own[field].is_null() {
                &of_pod[field]
            } else {
                &own[field]
            }
        };
        if own["privileged"] == true {
            refuse("privileged");
        }
        if own["allowPrivilegeEscalation"] != false {
            refuse("allowPrivilegeEscalation is not false");
        }
        if either("runAsNonRoot") != true || either("runAsUser") == 0 {
            refuse("may run as root");
        }
        let profile = &either("seccompProfile")["type"];
        if profile != "RuntimeDefault" && profile != "Localhost" {
            refuse("no seccomp profile");
        }
        if !items(&own["capabilities"]["drop"]).any(|name| name == "ALL") {
            refuse("does not drop all capabilities");
        }
        if items(&own["capabilities"]["add"]).any(|name| name != "NET_BIND_SERVICE") {
            refuse("adds capabilities");
        }
        // Beyond the standard, and all of ours can.
        if own["readOnlyRootFilesystem"] != true {
            refuse("its root file system can be written");
        }
        if items(&container["ports"]).any(|port| port.get("hostPort").is_some()) {
            refuse("a port of the node");
        }
    }
}

fn resources(spec: &Value, broken: &mut impl FnMut(&'static str, String)) {
    for container in containers(spec) {
        let (requests, limits) = (
            &container["resources"]["requests"],
            &container["resources"]["limits"],
        );
        for name in ["cpu", "memory", "ephemeral-storage"] {
            if requests[name].is_null() {
                broken("resources", format!("requests no {name}"));
            }
        }
        for name in ["memory", "ephemeral-storage"] {
            if requests[name] != limits[name] {
                broken(
                    "resources",
                    format!("is promised less {name} than it may take"),
                );
            }
        }
        if !limits["cpu"].is_null() {
            broken(
                "resources",
                "would be throttled by a limit of CPU".to_owned(),
            );
        }
    }
}

fn probes(spec: &Value, broken: &mut impl FnMut(&'static str, String)) {
    for container in items(&spec["containers"]) {
        let asked = |probe: &str| {
            let probe = container[probe].as_object()?;
            let kinds = ["httpGet", "grpc", "tcpSocket", "exec"];
            kinds.iter().find_map(|kind| probe.get(*kind))
        };
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            if asked(probe).is_none() {
                broken("probes", format!("no {probe}"));
            }
        }
        if asked("livenessProbe") == asked("readinessProbe") {
            let problem = "a pod that is not ready would be killed: both probes ask the same";
            broken("probes", problem.to_owned());
        }
        let is_ours = text(&container["image"]).contains("waypost-");
        let asks = |probe: &str, path: &str| container[probe]["httpGet"]["path"] == path;
        if is_ours && !(asks("livenessProbe", "/live") && asks("readinessProbe", "/ready")) {
            broken("probes", "/live says alive, and /ready ready".to_owned());
        }
    }
}

/// The time that a pod is given is what its parts take.
fn ending(spec: &Value, broken: &mut impl FnMut(&'static str, String)) {
    let given = spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    for container in items(&spec["containers"]) {
        let is_ours = text(&container["image"]).contains("waypost-");
        if !is_ours {
            continue;
        }
        let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
        let Some(sleep) = sleep else {
            let problem = "ends before load balancers have noticed: no preStop sleep";
            broken("grace", problem.to_owned());
            continue;
        };
        let set = |name: &str| {
            let value = items(&container["env"]).find(|env| env["name"] == name)?;
            text(&value["value"]).parse::<u64>().ok()
        };
        let drain = set("WAYPOST_SHUTDOWN_GRACE_MS").unwrap_or(DEFAULT_GRACE_MS);
        let needed = sleep + drain.div_ceil(1_000) + OVERRUN_S;
        if given < needed {
            broken("grace", format!("has {given} s to end, and takes {needed}"));
        }
        if set("WAYPOST_LAME_DUCK_MS").is_some_and(|lame_duck| lame_duck >= drain) {
            broken(
                "grace",
                "takes new connections as long as it has to end".to_owned(),
            );
        }
    }
}

/// Losing a zone, or draining a node, leaves some.
fn spread(
    place: &Place<'_>,
    pod: &Pod<'_>,
    spec: &Value,
    broken: &mut impl FnMut(&'static str, String),
) {
    let is_spread = items(&spec["topologySpreadConstraints"]).any(|constraint| {
        constraint["topologyKey"] == "topology.kubernetes.io/zone"
            && constraint["whenUnsatisfiable"] == "DoNotSchedule"
            && selects(&constraint["labelSelector"], &pod.labels)
    });
    if !is_spread {
        broken("spread", "may be in one zone alone".to_owned());
    }
    let budgets = place.objects.of_kind("PodDisruptionBudget");
    let budgets: Vec<_> = budgets
        .filter(|budget| selects(&budget["spec"]["selector"], &pod.labels))
        .collect();
    let [budget] = budgets.as_slice() else {
        // With two, nothing can be evicted at all.
        broken("budget", format!("{} disruption budgets", budgets.len()));
        return;
    };
    if budget["spec"]["maxUnavailable"]
        .as_u64()
        .is_none_or(|most| most == 0)
    {
        broken("budget", "its node could never be drained".to_owned());
    }
    if budget["spec"]["unhealthyPodEvictionPolicy"] != "AlwaysAllow" {
        broken(
            "budget",
            "a pod that is not ready would hold its node".to_owned(),
        );
    }
}
