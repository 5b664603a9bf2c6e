//! What pods set is what the programs read: `docs/configuration.md` has each program's
//! options, as the programs print them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Broken, Place};
use crate::k8s::objects::{containers, items, labels, name_of, text};

/// The names in the environment of each program's options, and which must be set.
#[derive(Debug, Default)]
pub(in crate::k8s) struct Options(BTreeMap<String, Program>);

#[derive(Debug, Default)]
struct Program {
    known: BTreeSet<String>,
    required: BTreeSet<String>,
}

impl Options {
    /// Reads the tables of a page.
    pub(in crate::k8s) fn of(page: &str) -> Self {
        let mut programs: BTreeMap<String, Program> = BTreeMap::new();
        let mut current = None;
        for line in page.lines() {
            if let Some(name) = line.strip_prefix("<!-- options of ") {
                current = name.strip_suffix(" -->").map(str::to_owned);
            } else if line.starts_with("<!-- end") {
                current = None;
            }
            let cells: Vec<&str> = line.split(" | ").collect();
            if let (Some(program), [_, name, default, ..]) = (&current, &*cells)
                && let Some(name) = name.strip_prefix('`')
            {
                let program = programs.entry(program.clone()).or_default();
                let name = name.trim_end_matches('`').to_owned();
                if default.trim() == "required" {
                    program.required.insert(name.clone());
                }
                program.known.insert(name);
            }
        }
        Self(programs)
    }
}

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    for (pod, spec) in place.objects.templates() {
        for container in containers(spec) {
            let Some(program) = program_of(text(&container["image"])) else {
                continue;
            };
            let mut broken = |problem| found.push(Broken::new("options", &pod.owner, problem));
            let Some(options) = place.options.0.get(&program) else {
                broken(format!("{program} is no program of ours"));
                continue;
            };
            let set = set(place, container);
            for name in set.keys().filter(|name| !options.known.contains(*name)) {
                // A part of another's value.
                let part = format!("$({name})");
                let is_part = set.values().any(|value| value.contains(&part));
                if name.starts_with("WAYPOST_") || !is_part {
                    broken(format!("{program} has no option {name}"));
                }
            }
            for name in options
                .required
                .iter()
                .filter(|name| !set.contains_key(*name))
            {
                broken(format!("{program} does not start without {name}"));
            }
            for argument in items(&container["args"]) {
                broken(format!(
                    "{} is a flag: options are set by their names",
                    text(argument)
                ));
            }
            ports(&set, container, &mut broken);
            spool(&set, spec, &mut broken);
        }
    }
}

/// `waypost-gateway` of `registry.example.com/waypost/waypost-gateway:1`.
pub(super) fn program_of(image: &str) -> Option<String> {
    let name = image.rsplit('/').next()?.split([':', '@']).next()?;
    name.starts_with("waypost-").then(|| name.to_owned())
}

/// All variables of a container, and the values of those that have one here.
pub(super) fn set(place: &Place<'_>, container: &Value) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    for source in items(&container["envFrom"]) {
        let name = text(&source["configMapRef"]["name"]);
        let maps = place.objects.of_kind("ConfigMap");
        for map in maps.into_iter().filter(|map| name_of(map) == name) {
            set.extend(labels(&map["data"]));
        }
    }
    let own = items(&container["env"]);
    set.extend(own.map(|env| {
        (
            text(&env["name"]).to_owned(),
            text(&env["value"]).to_owned(),
        )
    }));
    set
}

/// It listens where others look for it: on all addresses, and on the ports that it names.
fn ports(set: &BTreeMap<String, String>, container: &Value, broken: &mut impl FnMut(String)) {
    let named = items(&container["ports"]).filter_map(|port| port["containerPort"].as_u64());
    let named: BTreeSet<String> = named.map(|port| port.to_string()).collect();
    if named.is_empty() {
        return;
    }
    let mut listened = BTreeSet::new();
    for name in ["WAYPOST_LISTEN", "WAYPOST_ADMIN_LISTEN"] {
        // By default on loopback, where no probe comes.
        match set
            .get(name)
            .and_then(|address| address.strip_prefix("0.0.0.0:"))
        {
            Some(port) => {
                listened.insert(port.to_owned());
            }
            None => broken(format!("{name} is not 0.0.0.0 and a port")),
        }
    }
    if listened != named {
        broken(format!(
            "listens on {listened:?} and names the ports {named:?}"
        ));
    }
}

/// The spool's bound is below the volume's, beyond which the pod is evicted.
fn spool(set: &BTreeMap<String, String>, spec: &Value, broken: &mut impl FnMut(String)) {
    let Some(bound) = set.get("WAYPOST_SPOOL_MAX_MIB") else {
        return;
    };
    let volume = items(&spec["volumes"]).find(|volume| volume["name"] == "spool");
    let Some(size) = volume.and_then(|volume| volume["emptyDir"]["sizeLimit"].as_str()) else {
        return;
    };
    let mib = match (size.strip_suffix("Gi"), size.strip_suffix("Mi")) {
        (Some(gib), _) => gib.parse::<u64>().map(|gib| gib * 1024),
        (_, Some(mib)) => mib.parse(),
        _ => Ok(0),
    };
    let fits = matches!((bound.parse::<u64>(), mib), (Ok(bound), Ok(mib)) if bound < mib);
    if !fits {
        broken(format!(
            "its spool may take {bound} MiB of a volume of {size}"
        ));
    }
}
