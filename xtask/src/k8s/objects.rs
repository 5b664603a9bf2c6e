//! Rendered manifests: what is found in them by kind, name and label.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;

pub(super) type Labels = BTreeMap<String, String>;

/// All objects of one overlay.
#[derive(Debug, Clone)]
pub(super) struct Objects(pub(super) Vec<Value>);

/// A pod as its owner makes it. Those that an operator makes have no template here.
#[derive(Debug)]
pub(super) struct Pod<'a> {
    /// As in `Deployment/gateway`.
    pub(super) owner: String,
    pub(super) labels: Labels,
    pub(super) template: Option<&'a Value>,
    /// By name, and by number where the operator names none.
    pub(super) ports: Vec<(String, u64)>,
}

impl Objects {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_norway::Deserializer::from_str(text)
            .map(|document| Value::deserialize(document).map_err(|error| error.to_string()))
            .filter(|object| object.as_ref().map_or(true, |object| !object.is_null()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    pub(super) fn has(&self, kind: &str, name: &str) -> bool {
        self.of_kind(kind).any(|object| name_of(object) == name)
    }

    /// Pods of ours and of the operators.
    pub(super) fn pods(&self) -> Vec<Pod<'_>> {
        let mut pods = Vec::new();
        for object in &self.0 {
            match text(&object["kind"]) {
                "Deployment" | "StatefulSet" | "Job" => pods.push(own(object)),
                "Cluster" => pods.extend(postgres(object)),
                "Kafka" => pods.extend(kafka(object)),
                "KafkaMirrorMaker2" => {
                    let name = format!("{}-mirrormaker2", name_of(object));
                    pods.push(made(object, [("strimzi.io/name", &*name)], vec![8083]));
                }
                _ => {}
            }
        }
        pods
    }

    /// Pods of ours alone.
    pub(super) fn templates(&self) -> impl Iterator<Item = (Pod<'_>, &Value)> {
        let pods = self.pods().into_iter();
        pods.filter_map(|pod| pod.template.map(|template| (pod, template)))
    }
}

fn own(object: &Value) -> Pod<'_> {
    let template = &object["spec"]["template"];
    let ports = containers(&template["spec"])
        .flat_map(|container| items(&container["ports"]))
        .map(|port| {
            let number = port["containerPort"].as_u64().unwrap_or_default();
            (text(&port["name"]).to_owned(), number)
        });
    Pod {
        owner: title(object),
        labels: labels(&template["metadata"]["labels"]),
        ports: ports.collect(),
        template: Some(&template["spec"]),
    }
}

fn postgres(object: &Value) -> Vec<Pod<'_>> {
    let count = object["spec"]["instances"].as_u64().unwrap_or_default();
    let instance = |number| {
        let name = name_of(object);
        let instance = format!("{name}-{number}");
        let role = if number == 1 { "primary" } else { "replica" };
        let marks = [
            ("cnpg.io/cluster", name),
            ("cnpg.io/instanceName", &instance),
            ("cnpg.io/instanceRole", role),
        ];
        let mut pod = made(object, marks, vec![5432, 8000]);
        pod.labels
            .extend(labels(&object["spec"]["inheritedMetadata"]["labels"]));
        pod.ports.push(("metrics".to_owned(), 9187));
        pod
    };
    (1..=count).map(instance).collect()
}

fn kafka(object: &Value) -> [Pod<'_>; 2] {
    let name = name_of(object);
    let listeners = items(&object["spec"]["kafka"]["listeners"]);
    let listeners = listeners.filter_map(|listener| listener["port"].as_u64());
    let ports = [9090, 9091, 8443].into_iter().chain(listeners).collect();
    let (brokers, entities) = (format!("{name}-kafka"), format!("{name}-entity-operator"));
    [
        made(object, [("strimzi.io/name", &*brokers)], ports),
        made(object, [("strimzi.io/name", &*entities)], Vec::new()),
    ]
}

fn made<'a, const N: usize>(
    object: &'a Value,
    marks: [(&str, &str); N],
    ports: Vec<u64>,
) -> Pod<'a> {
    let marks = marks.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Pod {
        owner: title(object),
        labels: marks.into(),
        template: None,
        ports: ports
            .into_iter()
            .map(|port| (String::new(), port))
            .collect(),
    }
}

/// As in `Deployment/gateway`.
pub(super) fn title(object: &Value) -> String {
    format!("{}/{}", text(&object["kind"]), name_of(object))
}

pub(super) fn name_of(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

/// What is no text is as good as none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn labels(value: &Value) -> Labels {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| (key.clone(), text(value).to_owned()))
        .collect()
}

/// Of a pod, those that start first as well.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(&pod["initContainers"]).chain(items(&pod["containers"]))
}

/// Whether a selector with `matchLabels` and `matchExpressions` is for such labels.
pub(super) fn selects(selector: &Value, labels: &Labels) -> bool {
    let pairs = self::labels(&selector["matchLabels"]);
    let are_equal = pairs
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    are_equal
        && items(&selector["matchExpressions"]).all(|expression| {
            let value = labels.get(text(&expression["key"]));
            let is_listed = || {
                items(&expression["values"])
                    .any(|listed| value.is_some_and(|value| listed == value.as_str()))
            };
            match text(&expression["operator"]) {
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                "In" => is_listed(),
                "NotIn" => !is_listed(),
                _ => false,
            }
        })
}
