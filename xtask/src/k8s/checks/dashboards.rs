//! Grafana finds its dashboards, and alerts lead to some that are there.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Broken, Place};
use crate::k8s::objects::{items, text, title};

const RULE: &str = "dashboards";

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    let mut uids = BTreeSet::new();
    for map in place.objects.of_kind("ConfigMap") {
        let mut broken = |problem: String| found.push(Broken::new(RULE, &title(map), problem));
        let files = map["data"].as_object().into_iter().flatten();
        for (_, file) in files.filter(|(name, _)| name.ends_with(".json")) {
            let Ok(dashboard) = serde_json::from_str::<Value>(text(file)) else {
                broken("is no JSON".to_owned());
                continue;
            };
            // The shard map is JSON, too.
            if !dashboard["panels"].is_array() {
                continue;
            }
            let metadata = &map["metadata"];
            if metadata["labels"]["grafana_dashboard"] != "1" {
                broken("Grafana's sidecar does not look for it".to_owned());
            }
            if metadata["annotations"]["grafana_folder"].is_null() {
                broken("has no folder".to_owned());
            }
            if !uids.insert(text(&dashboard["uid"]).to_owned()) {
                broken("has the uid of another".to_owned());
            }
        }
    }
    for rules in place.objects.of_kind("PrometheusRule") {
        let groups = items(&rules["spec"]["groups"]);
        for rule in groups.flat_map(|group| items(&group["rules"])) {
            let url = text(&rule["annotations"]["dashboard_url"]);
            let uid = url
                .split_once("/d/")
                .map(|(_, rest)| rest.split('?').next());
            if let Some(Some(uid)) = uid
                && !uids.contains(uid)
            {
                let problem = format!("{} leads to no dashboard: {uid}", text(&rule["alert"]));
                found.push(Broken::new(RULE, &title(rules), problem));
            }
        }
    }
}
