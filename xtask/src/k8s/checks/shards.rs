//! The shard map, and where each shard's database and nodes are.

use serde_json::Value;
use waypost_domain::shard_map::ShardMap;

use super::{Broken, Place};
use crate::k8s::objects::{Objects, containers, items, name_of, text, title};

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    let mut broken = |name: &str, rule, problem| found.push(Broken::new(rule, name, problem));
    let map = maps_of(place).next();
    let json = map.map_or("", |map| text(&map["data"]["shard-map.json"]));
    // Says so if a prefix has no owner, or two.
    let map = match ShardMap::parse(json) {
        Ok(map) => map,
        Err(error) => return broken("ConfigMap/shard-map", "shard-map", error.to_string()),
    };
    let declared = &place.deployment.shards;
    for shard in map.shards() {
        let id = shard.id.as_str();
        let known = declared.iter().find(|declared| declared.id == id);
        if known.is_none_or(|known| known.home != shard.region) {
            let problem = format!("{id} at {} is not in the topology", shard.region);
            broken("ConfigMap/shard-map", "shard-map", problem);
        }
        if shard.region != place.region.name {
            continue;
        }
        let service = format!("shard-{id}");
        let node = format!("{service}.{}:7101", place.region.domain);
        if shard.nodes != [&*node] || !is_reached(place, &service) {
            let problem = format!("{id} is not reached at {:?}", shard.nodes);
            broken("ConfigMap/shard-map", "shard-map", problem);
        }
        if !place.objects.has("Deployment", &service) || !has_job(place.objects, id) {
            let problem = "there is no Deployment or no migration".to_owned();
            broken(&format!("shard {id}"), "shard-map", problem);
        }
    }
    if map.shards().len() != declared.len() {
        let problem = "does not have as many shards as the topology".to_owned();
        broken("ConfigMap/shard-map", "shard-map", problem);
    }
    if maps_of(place).any(|map| map["immutable"] == true) {
        let problem = "never changes: those who follow it would have to be started again";
        broken("ConfigMap/shard-map", "shard-map", problem.to_owned());
    }
    for object in &place.objects.0 {
        followed(object, found);
    }
    primaries(place, found);
}

/// Whoever reads the map sees it change, and is not started again for it: it is mounted as
/// a folder, by the one name that it has, and nothing in the pod's template changes with it.
fn followed(object: &Value, found: &mut Vec<Broken>) {
    let template = &object["spec"]["template"];
    let spec = &template["spec"];
    let mut broken = |problem: String| {
        found.push(Broken::new("shard-map", &title(object), problem));
    };
    for container in containers(spec) {
        let mut env = items(&container["env"]);
        let Some(path) = env.find(|env| env["name"] == "WAYPOST_SHARD_MAP") else {
            continue;
        };
        let folder = text(&path["value"]).rsplit_once('/');
        let folder = folder.map_or("", |(folder, _)| folder);
        let mut mounts = items(&container["volumeMounts"]);
        let mount = mounts.find(|mount| mount["mountPath"] == folder);
        let volume = mount.and_then(|mount| {
            let mut volumes = items(&spec["volumes"]);
            volumes.find(|volume| volume["name"] == mount["name"])
        });
        if volume.is_none_or(|volume| volume["configMap"]["name"] != "shard-map") {
            broken(format!(
                "reads a map that is not mounted as the folder {folder}"
            ));
        }
        let marks = template["metadata"]["annotations"].as_object();
        for (mark, _) in marks.into_iter().flatten() {
            if ["checksum", "hash"].iter().any(|word| mark.contains(word)) {
                broken(format!("is started again when {mark} changes"));
            }
        }
    }
}

fn maps_of<'a>(place: &Place<'a>) -> impl Iterator<Item = &'a Value> + use<'a> {
    let maps = place.objects.of_kind("ConfigMap");
    maps.filter(|map| name_of(map) == "shard-map")
}

/// Whether a Service has the name that other regions ask for: by the cluster's own names,
/// or because it is published.
fn is_reached(place: &Place<'_>, service: &str) -> bool {
    let mut services = place.objects.of_kind("Service");
    let Some(object) = services.find(|object| name_of(object) == service) else {
        return false;
    };
    let host = &object["metadata"]["annotations"]["external-dns.kubernetes.io/hostname"];
    let is_headless = object["spec"]["clusterIP"] == "None";
    let is_published = text(host) == format!("{service}.{}", place.region.domain);
    is_headless && (is_published || place.region.domain.ends_with(".svc.cluster.local"))
}

fn has_job(objects: &Objects, shard: &str) -> bool {
    let start = format!("migrate-{shard}-");
    objects
        .of_kind("Job")
        .any(|job| name_of(job).starts_with(&start))
}

/// A shard's database is the primary at home, and at its standby a copy that streams from
/// there; each is archived under a name of its own.
fn primaries(place: &Place<'_>, found: &mut Vec<Broken>) {
    for shard in &place.deployment.shards {
        let name = format!("pg-{}", shard.id);
        let at = |region: &str| format!("{name}-{region}");
        let mut clusters = place.objects.of_kind("Cluster");
        let Some(cluster) = clusters.find(|cluster| name_of(cluster) == name) else {
            continue;
        };
        let mut broken = |problem: String| {
            found.push(Broken::new("one-primary", &title(cluster), problem));
        };
        let Some(standby) = &shard.standby else {
            continue;
        };
        let replica = &cluster["spec"]["replica"];
        if replica["self"] != at(&place.region.name) || replica["primary"] != at(&shard.home) {
            broken(format!("is not the primary at {} alone", shard.home));
        }
        let is_home = shard.home == place.region.name;
        let source = if is_home { standby } else { &shard.home };
        if replica["source"] != at(source) {
            broken(format!("does not follow {source}"));
        }
        let is_copied = cluster["spec"]["bootstrap"].get("pg_basebackup").is_some();
        if is_copied == is_home {
            broken("begins as what it is not".to_owned());
        }
        for region in [&shard.home, standby] {
            let streams = items(&cluster["spec"]["externalClusters"]).any(|external| {
                external["name"] == at(region)
                    && external["connectionParameters"]["sslmode"] == "verify-full"
                    && external["plugin"]["parameters"]["serverName"] == at(region)
            });
            if !streams {
                // By the archive alone it would be minutes behind.
                broken(format!("does not stream from {region}"));
            }
        }
        let synchronous = &cluster["spec"]["postgresql"]["synchronous"];
        if synchronous["dataDurability"] != "required" {
            broken("acknowledges what one server has".to_owned());
        }
    }
}
