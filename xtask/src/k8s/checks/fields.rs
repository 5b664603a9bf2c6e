//! Custom resources have fields that their operators know, of the kinds that they take:
//! what is misspelt is dropped in silence when it is applied.

use serde_json::Value;

use super::{Broken, Place};
use crate::k8s::objects::{text, title};

/// By kind: what may stand under `spec`.
const FIELDS: &str = include_str!("fields.yaml");

pub(super) fn check(place: &Place<'_>, found: &mut Vec<Broken>) {
    let mut broken = |object: &Value, problem: String| {
        found.push(Broken::new("fields", &title(object), problem));
    };
    let shapes: Value = match serde_norway::from_str(FIELDS) {
        Ok(shapes) => shapes,
        Err(error) => return broken(&Value::Null, format!("fields.yaml: {error}")),
    };
    for object in &place.objects.0 {
        // A kind that is in neither list is refused by its version.
        if let Some(shape) = shapes.get(text(&object["kind"])) {
            walk(shape, &object["spec"], "spec", &mut |problem| {
                broken(object, problem);
            });
        }
    }
}

/// Whether a value is as a shape says: a word for what is no list or object, a list of one
/// shape for a list, fields for an object; `field!` must be there, `"*"` is any field.
fn walk(shape: &Value, value: &Value, place: &str, broken: &mut impl FnMut(String)) {
    match (shape, value) {
        (Value::Array(shapes), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                walk(&shapes[0], item, &format!("{place}/{index}"), broken);
            }
        }
        (Value::Object(fields), Value::Object(values)) => {
            for (name, value) in values {
                let needed = format!("{name}!");
                let names = [name.as_str(), &needed, "*"];
                match names.iter().find_map(|name| fields.get(*name)) {
                    Some(shape) => walk(shape, value, &format!("{place}/{name}"), broken),
                    None => broken(format!("{place} has no field {name}")),
                }
            }
            let needed = fields.keys().filter_map(|name| name.strip_suffix('!'));
            for name in needed.filter(|name| !values.contains_key(*name)) {
                broken(format!("{place} lacks {name}"));
            }
        }
        (Value::String(word), value) if is_a(word, value) => {}
        _ => broken(format!("{place} is no {shape}: {value}")),
    }
}

fn is_a(word: &str, value: &Value) -> bool {
    match word {
        "any" => true,
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "integer or string" => value.is_i64() || value.is_string(),
        words => words.split(" | ").any(|word| value == word),
    }
}
