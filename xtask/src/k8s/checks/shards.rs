//! The shard map, and where each shard's database and nodes are.

use waypost_domain::shard_map::ShardMap;

use super::{Broken, Place};
use crate::k8s::objects::{Objects, items, name_of, text, title};

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    let mut broken = |name: &str, rule, problem| found.push(Broken::new(rule, name, problem));
    let maps = place.objects.of_kind("ConfigMap");
    let map = maps.into_iter().find(|map| name_of(map) == "shard-map");
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
    primaries(place, found);
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
