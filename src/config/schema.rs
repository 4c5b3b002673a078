//! What an editor needs to help: a JSON Schema of the file, with the blocks of all kinds and policies.

use super::file::File;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use tabane_api::Registry;

/// The JSON Schema (draft 2020-12) of a configuration file.
pub fn schema(registry: &Registry) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = File::json_schema(&mut generator);
    // Behind the file's own types: a plugin's that has the name of one of these is the one to be renamed.
    let kinds = blocks(
        registry.kinds().iter().map(|k| (k.name, k.schema)),
        &mut generator,
    );
    let policies = blocks(
        registry.policies().iter().map(|p| (p.name, p.schema)),
        &mut generator,
    );
    schema.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    schema.insert("title".to_owned(), json!("tabane"));
    let mut definitions = generator.take_definitions(true);
    if let Some(properties) = definitions
        .get_mut("Service")
        .and_then(|service| service.get_mut("properties"))
        .and_then(Value::as_object_mut)
    {
        join(properties, "kind", kinds);
        join(properties, "policy", policies);
    }
    // Numbers and switches may be variables.
    for (_, definition) in definitions.iter_mut() {
        allow_variables(definition);
    }
    schema.insert("$defs".to_owned(), Value::Object(definitions));
    schema.to_value()
}

type Make = fn(&mut SchemaGenerator) -> Schema;

/// One of the names, or a map of one name to its block.
fn blocks(
    entries: impl Iterator<Item = (&'static str, Make)>,
    generator: &mut SchemaGenerator,
) -> Value {
    let mut names = Vec::new();
    let mut properties = Map::new();
    for (name, make) in entries {
        names.push(name);
        properties.insert(name.to_owned(), make(generator).to_value());
    }
    json!({"anyOf": [
        {"enum": names},
        {
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1
        }
    ]})
}

fn join(properties: &mut Map<String, Value>, key: &str, more: Value) {
    if let (Some(Value::Object(property)), Value::Object(more)) = (properties.get_mut(key), more) {
        property.extend(more);
    }
}

fn allow_variables(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let plain = matches!(
                map.get("type").and_then(Value::as_str),
                Some("integer" | "number" | "boolean")
            );
            if plain && let Some(kind) = map.remove("type") {
                let described = map.remove("description");
                let mut value = std::mem::take(map);
                value.insert("type".to_owned(), kind);
                map.insert(
                    "anyOf".to_owned(),
                    json!([value, {"type": "string", "pattern": "\\$\\{"}]),
                );
                if let Some(described) = described {
                    map.insert("description".to_owned(), described);
                }
                return;
            }
            map.values_mut().for_each(allow_variables);
        }
        Value::Array(list) => list.iter_mut().for_each(allow_variables),
        _ => {}
    }
}
