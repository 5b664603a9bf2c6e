//! The document says all that the router does, and can be read by programs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::super::{Code, routes};

fn document() -> Value {
    let mut openapi = routes().into_openapi();
    super::complete(&mut openapi);
    serde_json::to_value(openapi).unwrap()
}

/// Each operation, as "GET /path".
fn operations(document: &Value) -> BTreeMap<String, &Map<String, Value>> {
    let paths = document["paths"].as_object().unwrap();
    let mut operations = BTreeMap::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{} {path}", method.to_uppercase());
            operations.insert(name, operation.as_object().unwrap());
        }
    }
    operations
}

/// Each route of the router, in the same form. The router tells its routes to nobody
/// but in its debug output.
fn routed() -> BTreeSet<String> {
    let (router, _) = routes().split_for_parts();
    let text = format!("{router:?}");
    let (routes, paths) = text.split_once("node: Node { paths: {").unwrap();
    let (paths, _) = paths.split_once("\"} }").unwrap();
    let mut routed = BTreeSet::new();
    for path in paths.split("RouteId(").skip(1) {
        let (id, path) = path.split_once("): \"").unwrap();
        let path = path.split('"').next().unwrap();
        let (_, of_route) = routes
            .split_once(&format!("RouteId({id}): MethodRouter"))
            .unwrap();
        let (_, methods) = of_route.split_once("allow_header: Bytes(b\"").unwrap();
        let (methods, _) = methods.split_once('"').unwrap();
        // HEAD is answered wherever GET is.
        for method in methods.split(',').filter(|method| *method != "HEAD") {
            routed.insert(format!("{method} {path}"));
        }
    }
    routed
}

#[test]
fn every_route_is_in_the_document_with_each_of_its_methods() {
    let document = document();
    let documented: BTreeSet<String> = operations(&document).into_keys().collect();
    let routed = routed();
    assert!(routed.len() > 10, "{routed:?}");
    let missing: Vec<_> = routed.difference(&documented).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_operation_says_what_it_does_and_how_it_ends_well() {
    let document = document();
    let tags: BTreeSet<&str> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{name}: {id} is taken");
        assert!(operation["summary"].is_string(), "{name}");
        for tag in operation["tags"].as_array().unwrap() {
            assert!(tags.contains(tag.as_str().unwrap()), "{name}: {tag}");
        }
        let responses = operation["responses"].as_object().unwrap();
        let well = |status: &String| status.starts_with(['2', '3']);
        assert!(responses.keys().any(well), "{name}");
        for (status, response) in responses {
            let has_text = !response["description"].as_str().unwrap().is_empty();
            assert!(has_text, "{name}, {status}");
        }
    }
}

#[test]
fn every_code_is_an_answer_of_some_operation() {
    let document = document();
    let mut answered = BTreeSet::new();
    for operation in operations(&document).values() {
        for response in operation["responses"].as_object().unwrap().values() {
            let examples = &response["content"]["application/problem+json"]["examples"];
            answered.extend(examples.as_object().into_iter().flat_map(Map::keys));
        }
    }
    for code in Code::ALL {
        // What is no operation has no answers in the document.
        if *code != Code::MethodNotAllowed {
            let name = code.name().to_owned();
            assert!(answered.contains(&name), "{name}");
        }
    }
}

#[test]
fn every_field_has_an_example() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas {
        let fields = schema["properties"].as_object().into_iter().flatten();
        for (field, schema) in fields {
            let is_plain =
                schema["type"].to_string().contains("boolean") || schema.get("enum").is_some();
            let is_elsewhere = schema.to_string().contains("$ref");
            let has_example = ["example", "examples"]
                .iter()
                .any(|word| schema.get(word).is_some());
            assert!(
                is_plain || is_elsewhere || has_example,
                "{name}.{field}: {schema}"
            );
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(document: &Value, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    if name == "$ref" {
                        let to = field.as_str().unwrap().strip_prefix('#').unwrap();
                        assert!(document.pointer(to).is_some(), "{to}");
                    }
                    check(document, field);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| check(document, item)),
            _ => {}
        }
    }
    let document = document();
    check(&document, &document);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
}
