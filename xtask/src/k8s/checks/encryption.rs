//! Nothing is said in the clear to what keeps state: Postgres, Kafka and Redis. Each
//! certificate that is shown, and each authority that one is checked by, is mounted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::secrets::{self, Secrets};
use super::{Broken, Place, options};
use crate::k8s::objects::{containers, items, name_of, text, title};

const RULE: &str = "encryption";

/// In Postgres's own rules for whom it answers.
const NO_PLAIN_TEXT: &str = "hostnossl all all all reject";

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    let secrets = secrets::of(place);
    for (pod, spec) in place.objects.templates() {
        for container in containers(spec) {
            let files = Files {
                place,
                secrets: &secrets,
                spec,
                container,
            };
            let mut broken = |problem: String| found.push(Broken::new(RULE, &pod.owner, problem));
            if options::program_of(text(&container["image"])).is_some() {
                let set = options::set(place, container);
                postgres(&set, &files, &mut broken);
                // It does nothing else.
                if !set.contains_key("WAYPOST_MIGRATE_ONLY") {
                    kafka(&set, &files, &mut broken);
                    mutual(place, &set, &files, &mut broken);
                }
            } else if place.is_full && pod.owner == "StatefulSet/redis" {
                redis(&files, &mut broken);
            }
        }
    }
    for object in &place.objects.0 {
        let mut broken = |problem: String| found.push(Broken::new(RULE, &title(object), problem));
        servers(object, &secrets, &mut broken);
    }
}

fn postgres(set: &BTreeMap<String, String>, files: &Files<'_>, broken: &mut impl FnMut(String)) {
    let Some(url) = set.get("WAYPOST_POSTGRES_URL") else {
        return;
    };
    let parameter = |url: &str, name: &str| {
        let parameters = url.split_once('?')?.1.split('&');
        let mut pairs = parameters.filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then(|| value.to_owned()))
    };
    if parameter(url, "sslmode").as_deref() != Some("verify-full") {
        broken("does not check who its Postgres is: no sslmode=verify-full".to_owned());
    }
    match parameter(url, "sslrootcert") {
        Some(path) => files.must_have(&path, broken),
        None => broken("does not say whose certificates of Postgres it takes".to_owned()),
    }
    let replicas = set.get("WAYPOST_POSTGRES_REPLICA_URLS");
    for url in replicas.into_iter().flat_map(|urls| urls.split(',')) {
        // Without parameters it has those of the other one.
        let mode = parameter(url, "sslmode");
        if mode.is_some_and(|mode| mode != "verify-full") {
            broken("does not check who a replica is".to_owned());
        }
    }
}

fn kafka(set: &BTreeMap<String, String>, files: &Files<'_>, broken: &mut impl FnMut(String)) {
    if !set.contains_key("WAYPOST_KAFKA") {
        return;
    }
    let path = set.get("WAYPOST_KAFKA_SETTINGS");
    let Some(File::Text(settings)) = path.and_then(|path| files.find(path)) else {
        broken("speaks to Kafka in the clear: no file of settings".to_owned());
        return;
    };
    let pairs: BTreeMap<&str, &str> = settings
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    if !matches!(pairs.get("security.protocol"), Some(&"ssl" | &"sasl_ssl")) {
        broken("speaks to Kafka in the clear".to_owned());
    }
    for (_, path) in pairs.iter().filter(|(name, _)| name.ends_with(".location")) {
        files.must_have(path, broken);
    }
}

/// Where there is an authority of ours, all programs show each other certificates, and
/// those that speak to Redis show them there, too.
fn mutual(
    place: &Place<'_>,
    set: &BTreeMap<String, String>,
    files: &Files<'_>,
    broken: &mut impl FnMut(String),
) {
    if !place.is_full {
        return;
    }
    let mut peers = vec!["WAYPOST_TLS"];
    if set.contains_key("WAYPOST_REDIS") {
        peers.push("WAYPOST_REDIS_TLS");
    }
    for peer in peers {
        for file in ["CA", "CERT", "KEY"] {
            let name = format!("{peer}_{file}");
            match set.get(&name) {
                Some(path) => files.must_have(path, broken),
                None => broken(format!("speaks in the clear: no {name}")),
            }
        }
    }
}

/// As the file says that its server is started with.
fn redis(files: &Files<'_>, broken: &mut impl FnMut(String)) {
    let words = items(&files.container["command"]).map(text);
    let file = words.filter(|word| word.ends_with(".conf")).last();
    let Some(File::Text(settings)) = file.and_then(|file| files.find(file)) else {
        broken("starts without a file of settings".to_owned());
        return;
    };
    let needed = [
        "port 0",
        "tls-auth-clients yes",
        "tls-cluster yes",
        "tls-replication yes",
    ];
    for needed in needed {
        if !settings.lines().any(|line| line == needed) {
            broken(format!("speaks in the clear: no \"{needed}\""));
        }
    }
    let named = settings.lines().filter_map(|line| line.split_once(' '));
    for (_, path) in named.filter(|(name, _)| name.starts_with("tls-") && name.ends_with("-file")) {
        files.must_have(path, broken);
    }
}

/// What is asked of the operators' own.
fn servers(object: &Value, secrets: &Secrets, broken: &mut impl FnMut(String)) {
    let spec = &object["spec"];
    let mut keys: Vec<(&str, &str)> = Vec::new();
    match text(&object["kind"]) {
        "Cluster" => {
            let rules = &spec["postgresql"]["pg_hba"];
            if items(rules)
                .next()
                .is_none_or(|first| first != NO_PLAIN_TEXT)
            {
                broken("answers in the clear".to_owned());
            }
        }
        "Kafka" => {
            for listener in items(&spec["kafka"]["listeners"]) {
                let name = text(&listener["name"]);
                if listener["tls"] != true {
                    broken(format!("listens in the clear: {name}"));
                }
                if listener["authentication"].is_null() {
                    broken(format!("lets everybody in: {name}"));
                }
                let own = &listener["configuration"]["brokerCertChainAndKey"];
                if let Some(secret) = own["secretName"].as_str() {
                    keys.extend(["certificate", "key"].map(|key| (secret, text(&own[key]))));
                }
            }
            if spec["kafka"]["authorization"].is_null() {
                broken("lets each of its users do everything".to_owned());
            }
        }
        "KafkaMirrorMaker2" => {
            let sources = items(&spec["mirrors"]).map(|mirror| &mirror["source"]);
            for end in std::iter::once(&spec["target"]).chain(sources) {
                let (alias, login) = (text(&end["alias"]), &end["authentication"]);
                if items(&end["tls"]["trustedCertificates"]).next().is_none() {
                    broken(format!("speaks in the clear to {alias}"));
                }
                if login.is_null() {
                    broken(format!("does not say to {alias} who it is"));
                }
                for trusted in items(&end["tls"]["trustedCertificates"]) {
                    // A pattern is of names as the operator gives them.
                    let key = trusted["certificate"].as_str().unwrap_or("ca.crt");
                    keys.push((text(&trusted["secretName"]), key));
                }
                for (kind, names) in [
                    ("certificateAndKey", &["certificate", "key"][..]),
                    ("passwordSecret", &["password"][..]),
                ] {
                    let secret = text(&login[kind]["secretName"]);
                    let named = names.iter().filter_map(|name| login[kind][*name].as_str());
                    keys.extend(named.map(|key| (secret, key)));
                }
            }
        }
        "KafkaUser" => {
            let reference = &spec["authentication"]["password"]["valueFrom"]["secretKeyRef"];
            if let Some(secret) = reference["name"].as_str() {
                keys.push((secret, text(&reference["key"])));
            }
            if spec["authorization"].is_null() {
                broken("may do nothing: no authorization".to_owned());
            }
        }
        _ => {}
    }
    for (secret, key) in keys {
        if !secrets.get(secret).is_some_and(|keys| keys.contains(key)) {
            broken(format!("there is no Secret {secret} with {key}"));
        }
    }
}

/// What a container finds in its volumes.
struct Files<'a> {
    place: &'a Place<'a>,
    secrets: &'a Secrets,
    spec: &'a Value,
    container: &'a Value,
}

enum File {
    /// Of a ConfigMap.
    Text(String),
    /// Of a Secret, which is not here.
    Secret,
}

impl Files<'_> {
    fn must_have(&self, path: &str, broken: &mut impl FnMut(String)) {
        if self.find(path).is_none() {
            broken(format!("{path} is in none of its volumes"));
        }
    }

    fn find(&self, path: &str) -> Option<File> {
        let mut mounts = items(&self.container["volumeMounts"]).filter_map(|mount| {
            let inside = path.strip_prefix(text(&mount["mountPath"]))?;
            Some((&mount["name"], inside.strip_prefix('/')?))
        });
        let (name, inside) = mounts.next()?;
        let mut volumes = items(&self.spec["volumes"]);
        let volume = volumes.find(|volume| volume["name"] == *name)?;
        let sources = items(&volume["projected"]["sources"]);
        let mut sources = std::iter::once(volume).chain(sources);
        sources.find_map(|source| self.of(source, inside))
    }

    fn of(&self, source: &Value, inside: &str) -> Option<File> {
        let (secret, map) = (&source["secret"], &source["configMap"]);
        // A volume's own secret, and one of several in a volume.
        let names = ["secretName", "name"];
        if let Some(name) = names.iter().find_map(|name| secret[*name].as_str()) {
            let keys = self.secrets.get(name)?;
            return keys.contains(key(secret, inside)?).then_some(File::Secret);
        }
        let mut maps = self.place.objects.of_kind("ConfigMap");
        let found = maps.find(|object| map["name"] == name_of(object))?;
        let content = found["data"].get(key(map, inside)?)?;
        Some(File::Text(text(content).to_owned()))
    }
}

/// Under which key a file stands.
fn key<'a>(source: &'a Value, file: &'a str) -> Option<&'a str> {
    if source["items"].is_null() {
        return Some(file);
    }
    let mut chosen = items(&source["items"]);
    let item = chosen.find(|item| item["path"] == file)?;
    Some(text(&item["key"]))
}
