//! The checks see what is wrong: each of `deploy/k8s/tests/broken` breaks one thing in
//! manifests that are right, and names the rule that must say so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;
use serde_json::Value;

use super::checks::Place;
use super::objects::{Objects, title};
use super::{overlays, program_options, render, steps, topology};

/// One thing that is broken on purpose.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Break {
    rule: String,
    /// Of which region's manifests.
    region: String,
    /// As in `Deployment/gateway`; none: an object is added.
    object: Option<String>,
    /// By place, as in `/spec/replicas`; null removes what is there.
    #[serde(default)]
    set: BTreeMap<String, Value>,
    add: Option<Value>,
}

impl Break {
    fn apply(&self, objects: &mut Objects) {
        objects.0.extend(self.add.clone());
        let Some(name) = &self.object else {
            return;
        };
        let mut all = objects.0.iter_mut();
        let object = all.find(|object| title(object) == *name);
        let object = object.unwrap_or_else(|| panic!("there is no {name}"));
        for (place, value) in &self.set {
            let (parent, last) = place.rsplit_once('/').unwrap();
            let last = last.replace("~1", "/");
            let parent = object.pointer_mut(parent);
            match parent.unwrap_or_else(|| panic!("{name} has no {place}")) {
                Value::Array(items) => items[last.parse::<usize>().unwrap()] = value.clone(),
                Value::Object(fields) if value.is_null() => {
                    fields.remove(&last).expect("there is something to remove");
                }
                Value::Object(fields) => {
                    fields.insert(last, value.clone());
                }
                _ => panic!("{name} has nothing at {place}"),
            }
        }
    }
}

#[test]
fn each_broken_manifest_is_refused_by_its_rule() {
    let (topology, options) = (topology().unwrap(), program_options().unwrap());
    let (mut rendered, mut missed) = (BTreeMap::new(), Vec::new());
    let folder = steps::root().join(overlays::FOLDER).join("tests/broken");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 20, "{} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let broken: Break = serde_norway::from_str(&text).unwrap();
        let objects = rendered
            .entry(broken.region.clone())
            .or_insert_with(|| render::render(&super::overlay(&broken.region)).unwrap().1);
        let place_of = topology
            .regions()
            .find(|(_, region)| region.name == broken.region);
        let judge = |objects: &Objects| {
            let place = Place::new(&topology, place_of.unwrap(), objects, &options);
            let mut found = place.broken();
            // Takes seconds.
            if broken.rule == "schema" {
                found.extend(render::against_schemas(objects).unwrap());
            }
            found
        };
        let mut objects = objects.clone();
        broken.apply(&mut objects);
        let found = judge(&objects);
        let rules: BTreeSet<&str> = found.iter().map(|broken| broken.rule).collect();
        if !rules.contains(&*broken.rule) {
            missed.push(format!("{}: {found:?}", file.display()));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn a_region_may_run_another_release_and_by_its_digests() {
    let text = super::read(super::TOPOLOGY).unwrap();
    let region = "        context: waypost-us-east-1\n";
    let made = |release: &str| {
        let topology = text.replace(region, &format!("{region}        release: {release}\n"));
        let topology = super::Topology::parse(&topology)?;
        overlays::files(&topology, &steps::root())
    };
    let files = made("{tag: 0.2.0}").unwrap();
    let image = "newName: registry.example.com/waypost/waypost-gateway, newTag: \"0.2.0\"}";
    assert!(files["overlays/us-east-1/app/kustomization.yaml"].contains(image));
    assert!(files["overlays/us-east-1/migrate/kustomization.yaml"].contains("nameSuffix: -0-2-0"));
    assert!(!files["overlays/eu-west-1/app/kustomization.yaml"].contains("0.2.0"));
    let digest = format!("sha256:{}", "0a".repeat(32));
    let digests = |programs: &[&str]| {
        let digests = programs.iter().map(|name| format!("{name}: \"{digest}\""));
        let digests: Vec<String> = digests.collect();
        made(&format!(
            "{{tag: 0.2.0, digests: {{{}}}}}",
            digests.join(", ")
        ))
    };
    let files = digests(&topology::PROGRAMS).unwrap();
    let image =
        format!("newName: registry.example.com/waypost/waypost-gateway, digest: \"{digest}\"}}");
    assert!(files["overlays/us-east-1/app/kustomization.yaml"].contains(&image));
    assert!(digests(&["gateway"]).unwrap_err().contains("not of all"));
    assert!(made("{tag: latest}").is_err());
}

#[test]
fn a_config_map_that_kubernetes_would_not_take_is_refused() {
    let (topology, options) = (topology().unwrap(), program_options().unwrap());
    let place_of = topology.regions().find(|(_, one)| one.name == "local");
    let place_of = place_of.unwrap();
    let refused = |bytes: usize| {
        let map = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "large", "namespace": "waypost"},
            "data": {"a": " ".repeat(bytes - 1)},
        });
        let objects = Objects(vec![map]);
        let found = Place::new(&topology, place_of, &objects, &options).broken();
        found.iter().any(|broken| broken.rule == "size")
    };
    assert!(!refused(1 << 20));
    assert!(refused((1 << 20) + 1));
}

/// As they are: by the same means, nothing is wrong.
#[test]
fn the_manifests_as_they_are_pass() {
    super::check().unwrap();
}

#[test]
fn a_shard_that_is_added_has_no_prefixes_and_one_with_prefixes_cannot_be_taken_out() {
    let text = super::read(super::TOPOLOGY).unwrap();
    let made = |text: &str| {
        let topology = super::Topology::parse(text).unwrap();
        overlays::files(&topology, &steps::root())
    };
    let added = text.replace(
        "      - {id: s5, home: ap-south-1, standby: us-east-1}\n",
        "      - {id: s5, home: ap-south-1, standby: us-east-1}\n      - {id: s6, home: us-east-1, standby: eu-west-1}\n",
    );
    let (before, after) = (made(&text).unwrap(), made(&added).unwrap());
    let map = |files: &BTreeMap<String, String>| -> Value {
        serde_json::from_str(&files["shard-maps/world/shard-map.json"]).unwrap()
    };
    let (before, after) = (map(&before), map(&after));
    assert_eq!(after["prefixes"]["s6"], "");
    assert_eq!(after["prefixes"]["s0"], before["prefixes"]["s0"]);
    let removed = text.replace(
        "      - {id: s5, home: ap-south-1, standby: us-east-1}\n",
        "",
    );
    let error = made(&removed).unwrap_err();
    assert!(error.contains("is given to no shard"), "{error}");
}
