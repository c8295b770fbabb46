//! Compares every message with Kafka's own definition of it, field by field and version by version.
//!
//! `cargo run -p madang-protocol --example schema_oracle -- DIRECTORY...`, where the directories hold the files of `common/message/`
//! from the jars of Kafka (`clients/compat/oracle-java/run.sh` unpacks them). Exits with 1 if anything differs or a definition is missing.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use madang_protocol::ApiKey;
use madang_protocol::schema::{DefaultValue, FieldSchema, Kind, StructSchema, Versions};
use serde_json::Value;

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/messages/table.rs"]
mod table;

/// The structs of one definition that several fields share, by name.
type Common<'j> = HashMap<&'j str, &'j Value>;

/// One comparison: where it is, and what it has found.
struct Comparison<'j> {
    common: Common<'j>,
    differences: Vec<String>,
    compared: usize,
}

fn main() -> ExitCode {
    let directories: Vec<_> = std::env::args().skip(1).collect();
    if directories.is_empty() {
        eprintln!("usage: schema_oracle DIRECTORY...");
        return ExitCode::from(2);
    }
    let (mut differences, mut compared) = (Vec::new(), 0);
    for row in table::all() {
        match definition(row.name(), &directories) {
            Ok(json) => {
                let mut comparison = Comparison { common: common(&json), differences: Vec::new(), compared: 0 };
                comparison.message(&row, &json);
                differences.extend(comparison.differences);
                compared += comparison.compared;
            }
            Err(problem) => differences.push(problem),
        }
    }
    differences.iter().for_each(|difference| println!("{difference}"));
    println!("{compared} fields in a version compared, {} differences", differences.len());
    if differences.is_empty() && compared > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn definition(name: &str, directories: &[String]) -> Result<Value, String> {
    let file = directories.iter().map(|directory| Path::new(directory).join(format!("{name}.json")));
    let path = file.into_iter().find(|path| path.exists()).ok_or_else(|| format!("{name}: no {name}.json"))?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    // The definitions have comments on lines of their own.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    serde_json::from_str(&lines.collect::<Vec<_>>().join("\n")).map_err(|error| format!("{}: {error}", path.display()))
}

fn common(json: &Value) -> Common<'_> {
    let structs = json["commonStructs"].as_array().into_iter().flatten();
    structs.filter_map(|common| Some((common["name"].as_str()?, &common["fields"]))).collect()
}

fn versions(json: &Value) -> Versions {
    let number = |text: &str| text.parse().unwrap_or(i16::MIN);
    match json.as_str() {
        None | Some("none") => Versions::NONE,
        Some(text) => match (text.strip_suffix('+'), text.split_once('-')) {
            (Some(min), _) => Versions { min: number(min), max: i16::MAX },
            (None, Some((min, max))) => Versions { min: number(min), max: number(max) },
            (None, None) => Versions { min: number(text), max: number(text) },
        },
    }
}

/// `LogStartOffset` is `log_start_offset`, `Enable2Pc` is `enable_2pc`.
fn snake_case(camel: &str) -> String {
    let mut snake = String::new();
    let mut previous = '_';
    for letter in camel.chars() {
        let starts_word = letter.is_ascii_uppercase() && !previous.is_ascii_digit() || letter.is_ascii_digit();
        if starts_word && previous != '_' {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
        previous = letter;
    }
    snake
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Array(element) => format!("[]{}", kind_name(element)),
        Kind::Struct(schema) => schema.name.to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn inner_struct(kind: &Kind) -> Option<&'static StructSchema> {
    match kind {
        Kind::Array(element) => inner_struct(element),
        Kind::Struct(schema) => Some(schema),
        _ => None,
    }
}

/// The default that a definition states, given that a field of this kind has it.
fn default_of(json: &Value, kind: &Kind) -> DefaultValue {
    let text = match json {
        Value::Null => return DefaultValue::Empty,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let number = match text.strip_prefix("0x") {
        Some(hexadecimal) => i64::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    };
    match (kind, text.as_str(), number) {
        (_, "null", _) => DefaultValue::Null,
        (_, "" | "false", _) | (_, _, Some(0)) => DefaultValue::Empty,
        (Kind::Bool, "true", _) => DefaultValue::Bool(true),
        (Kind::String, ..) => DefaultValue::Text(Box::leak(text.into_boxed_str())),
        (_, _, Some(number)) => DefaultValue::Int(number),
        _ => DefaultValue::Text("not understood"),
    }
}

impl<'j> Comparison<'j> {
    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, place: &str, what: &str, ours: T, kafkas: T) {
        if ours != kafkas {
            self.differences.push(format!("{place}: {what} is {ours:?}, Kafka's is {kafkas:?}"));
        }
    }

    fn message(&mut self, row: &table::Row, json: &'j Value) {
        let name = row.name();
        let valid = versions(&json["validVersions"]);
        self.expect(name, "range of versions", row.versions, valid);
        let flexible = versions(&json["flexibleVersions"]);
        let key = ApiKey::ALL.iter().find(|key| name.strip_prefix(key.name()).is_some_and(is_suffix));
        if let Some(key) = key {
            self.expect(name, "API key", Some(key.code().into()), json["apiKey"].as_i64());
        }
        for version in valid.min..=valid.max {
            let place = format!("{name} v{version}");
            self.expect(&place, "flexibility", row.flexible.contains(version), flexible.contains(version));
            if let Some(key) = key {
                self.expect(&place, "flexibility of its API", key.is_flexible(version), flexible.contains(version));
            }
            self.fields(&place, row.schema, &json["fields"], version);
        }
    }

    fn fields(&mut self, place: &str, ours: &StructSchema, json: &'j Value, version: i16) {
        let present: Vec<_> = ours.fields.iter().filter(|field| field.versions.contains(version)).collect();
        let kafkas = json.as_array().into_iter().flatten();
        let kafkas: Vec<_> = kafkas.filter(|field| versions(&field["versions"]).contains(version)).collect();
        let our_names: Vec<_> = present.iter().map(|field| field.name.to_owned()).collect();
        let their_names: Vec<_> = kafkas.iter().map(|field| snake_case(field["name"].as_str().unwrap_or(""))).collect();
        self.expect(place, "list of fields", &our_names, &their_names);
        for (field, json) in present.into_iter().zip(kafkas) {
            self.field(&format!("{place} {}.{}", ours.name, field.name), field, json, version);
        }
    }

    fn field(&mut self, place: &str, ours: &FieldSchema, json: &'j Value, version: i16) {
        self.compared += 1;
        let kafkas_type = json["type"].as_str().unwrap_or("");
        self.expect(place, "type", kind_name(&ours.kind).as_str(), kafkas_type);
        let nullable = versions(&json["nullableVersions"]).contains(version);
        self.expect(place, "nullability", ours.nullable.contains(version), nullable);
        let our_tag = ours.tag.filter(|(_, tagged)| tagged.contains(version)).map(|(tag, _)| u64::from(tag));
        let kafkas_tag = json["tag"].as_u64().filter(|_| versions(&json["taggedVersions"]).contains(version));
        self.expect(place, "tag", our_tag, kafkas_tag);
        // Records are null by default, whatever the definition says.
        if !matches!(ours.kind, Kind::Records) {
            let present = json.get("default").map_or(DefaultValue::Empty, |default| match default {
                Value::Null => DefaultValue::Null,
                default => default_of(default, &ours.kind),
            });
            self.expect(place, "default", ours.default, present);
        }
        // A field of all versions is never dropped, so that nothing depends on the mark.
        if ours.versions != (Versions { min: 0, max: i16::MAX }) {
            self.expect(place, "ignorability", ours.ignorable, json["ignorable"].as_bool().unwrap_or(false));
        }
        if let Some(schema) = inner_struct(&ours.kind) {
            let shared = self.common.get(kafkas_type.trim_start_matches("[]")).copied();
            self.fields(place, schema, json.get("fields").or(shared).unwrap_or(&Value::Null), version);
        }
    }
}

fn is_suffix(rest: &str) -> bool {
    rest == "Request" || rest == "Response"
}
