//! The Secrets that there will be, none of which is in the tree.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Place;
use crate::k8s::objects::{items, name_of, text};

/// The keys of each Secret, by its name.
pub(in crate::k8s) type Secrets = BTreeMap<String, BTreeSet<String>>;

/// What a cluster of one node is given by hand; its README says how.
const BY_HAND: [(&str, &[&str]); 4] = [
    ("analytics-consumer-secrets", &["service-token"]),
    (
        "gateway-secrets",
        &[
            "service-token",
            "link-mac",
            "source-key",
            "visitor-key",
            "api-key-mac",
            "jwt-hs256",
        ],
    ),
    ("keygen-secrets", &["service-token", "slug-key"]),
    ("shard-node-secrets", &["service-token", "link-mac"]),
];

/// Those that are made by the operators, by cert-manager, out of a secret store, or by hand.
pub(in crate::k8s) fn of(place: &Place<'_>) -> Secrets {
    let mut secrets = Secrets::new();
    let mut add = |name: &str, keys: &[&str]| {
        let keys = keys.iter().map(|key| (*key).to_owned());
        secrets.entry(name.to_owned()).or_default().extend(keys);
    };
    for object in &place.objects.0 {
        let (name, spec) = (name_of(object), &object["spec"]);
        match text(&object["kind"]) {
            "ExternalSecret" => {
                let keys = items(&spec["data"]).map(|data| text(&data["secretKey"]));
                add(text(&spec["target"]["name"]), &keys.collect::<Vec<&str>>());
            }
            "Certificate" => add(text(&spec["secretName"]), &["tls.crt", "tls.key", "ca.crt"]),
            "Cluster" => {
                // The user of the database that it begins with.
                let user = ["username", "password", "uri"];
                add(&format!("{name}-app"), &user);
                // Whoever is given no certificate makes an authority.
                if spec["certificates"]["serverCASecret"] == Value::Null {
                    add(&format!("{name}-ca"), &["ca.crt", "ca.key"]);
                }
            }
            "Kafka" => add(&format!("{name}-cluster-ca-cert"), &["ca.crt"]),
            "KafkaUser" => match text(&spec["authentication"]["type"]) {
                "tls" => add(name, &["ca.crt", "user.crt", "user.key"]),
                _ => add(name, &["password"]),
            },
            _ => {}
        }
    }
    if !place.is_full {
        BY_HAND.iter().for_each(|(name, keys)| add(name, keys));
    }
    secrets
}
