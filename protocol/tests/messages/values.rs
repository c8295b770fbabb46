//! Random messages from their schema, with an encoder and a JSON printer of its own: what the derived codec is held against.
//! Deliberately simple and shared with no code of the crate, so that a mistake would have to be made twice.

use madang_protocol::schema::{DefaultValue, FieldSchema, Kind, StructSchema};

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Mostly small, at times any of `bits`.
    fn number(&mut self, bits: u32) -> i64 {
        match self.below(4) {
            0 => self.next().cast_signed() >> (64 - bits),
            1 => [i64::MIN, -1, 0, i64::MAX][self.below(4) as usize] >> (64 - bits),
            _ => self.below(100).cast_signed(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = if self.one_in(20) { 100 + self.below(9000) } else { self.below(12) };
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self) -> String {
        let len = if self.one_in(30) { 120 + self.below(300) } else { self.below(12) };
        (0..len).map(|_| ['a', 'Z', '0', '-', '.', 'é', '마', '🎭'][self.below(8) as usize]).collect()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Uuid([u8; 16]),
    Text(String),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    Struct(Vec<(FieldSchema, Value)>),
}

/// The version of a message, and whether it is flexible.
#[derive(Clone, Copy)]
pub(crate) struct Version {
    pub(crate) number: i16,
    pub(crate) flexible: bool,
}

/// A random message of `schema`: every field of the version, tagged ones at their default half of the time.
pub(crate) fn random_struct(schema: &StructSchema, version: Version, random: &mut Random) -> Value {
    let present = schema.fields.iter().filter(|field| field.versions.contains(version.number));
    Value::Struct(present.map(|field| (*field, random_field(field, version, random))).collect())
}

fn random_field(field: &FieldSchema, version: Version, random: &mut Random) -> Value {
    if field.tag.is_some() && random.one_in(2) {
        return default_of(field, version);
    }
    if field.nullable.contains(version.number) && random.one_in(4) {
        return Value::Null;
    }
    random_value(&field.kind, version, random)
}

fn random_value(kind: &Kind, version: Version, random: &mut Random) -> Value {
    match kind {
        Kind::Bool => Value::Bool(random.one_in(2)),
        Kind::Int8 => Value::Int(random.number(8)),
        Kind::Int16 => Value::Int(random.number(16)),
        Kind::Uint16 => Value::Int(random.number(16) & 0xffff),
        Kind::Int32 => Value::Int(random.number(32)),
        Kind::Int64 => Value::Int(random.number(64)),
        Kind::Float64 => Value::Float(random.number(32) as f64 / 8.0),
        Kind::Uuid => Value::Uuid(u128::from(random.next()).wrapping_mul(0x1_0000_0000_0000_0007).to_be_bytes()),
        Kind::String => Value::Text(random.text()),
        Kind::Bytes | Kind::Records => Value::Bytes(random.bytes()),
        Kind::Array(element) => {
            let len = if random.one_in(50) { 130 } else { random.below(4) };
            // Long arrays only of scalars: nested ones would multiply.
            let len = if matches!(element, Kind::Struct(_)) { len.min(3) } else { len };
            Value::Array((0..len).map(|_| random_value(element, version, random)).collect())
        }
        Kind::Struct(schema) => random_struct(schema, version, random),
    }
}

fn default_of(field: &FieldSchema, version: Version) -> Value {
    match field.default {
        DefaultValue::Null => Value::Null,
        DefaultValue::Int(number) => Value::Int(number),
        DefaultValue::Bool(value) => Value::Bool(value),
        DefaultValue::Text(text) => Value::Text(text.to_owned()),
        DefaultValue::Empty => match field.kind {
            Kind::Bool => Value::Bool(false),
            Kind::Int8 | Kind::Int16 | Kind::Uint16 | Kind::Int32 | Kind::Int64 => Value::Int(0),
            Kind::Float64 => Value::Float(0.0),
            Kind::Uuid => Value::Uuid([0; 16]),
            Kind::String => Value::Text(String::new()),
            Kind::Bytes | Kind::Records => Value::Bytes(Vec::new()),
            Kind::Array(_) => Value::Array(Vec::new()),
            Kind::Struct(schema) => {
                let present = schema.fields.iter().filter(|field| field.versions.contains(version.number));
                Value::Struct(present.map(|field| (*field, default_of(field, version))).collect())
            }
        },
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 127 {
        out.push((value % 128 + 128) as u8);
        value /= 128;
    }
    out.push(value as u8);
}

fn put_length(length: Option<usize>, bytes: usize, version: Version, out: &mut Vec<u8>) {
    if version.flexible {
        put_varint(length.map_or(0, |length| length as u64 + 1), out);
    } else {
        let number = length.map_or(-1, |length| length as i64);
        out.extend_from_slice(&number.to_be_bytes()[8 - bytes..]);
    }
}

/// Encodes a message.
pub(crate) fn encode(value: &Value, version: Version, out: &mut Vec<u8>) {
    let Value::Struct(fields) = value else { panic!("a message is a struct") };
    let tagged = |field: &FieldSchema| field.tag.filter(|(_, versions)| versions.contains(version.number));
    for (field, value) in fields.iter().filter(|(field, _)| tagged(field).is_none()) {
        encode_field(field, value, version, out);
    }
    if !version.flexible {
        return;
    }
    let mut section: Vec<_> = fields
        .iter()
        .filter(|(field, value)| *value != default_of(field, version))
        .filter_map(|(field, value)| tagged(field).map(|(tag, _)| (tag, field, value)))
        .collect();
    section.sort_by_key(|(tag, ..)| *tag);
    put_varint(section.len() as u64, out);
    for (tag, field, value) in section {
        let mut inside = Vec::new();
        encode_field(field, value, version, &mut inside);
        put_varint(tag.into(), out);
        put_varint(inside.len() as u64, out);
        out.extend(inside);
    }
}

fn encode_field(field: &FieldSchema, value: &Value, version: Version, out: &mut Vec<u8>) {
    if matches!(field.kind, Kind::Struct(_)) && field.nullable.contains(version.number) {
        out.push(if *value == Value::Null { 0xff } else { 1 });
    }
    encode_value(&field.kind, value, version, out);
}

fn encode_value(kind: &Kind, value: &Value, version: Version, out: &mut Vec<u8>) {
    match (kind, value) {
        (Kind::Struct(_), Value::Null) => {}
        (Kind::String, Value::Null) => put_length(None, 2, version, out),
        (_, Value::Null) => put_length(None, 4, version, out),
        (_, Value::Bool(value)) => out.push((*value).into()),
        (Kind::Int8, Value::Int(number)) => out.extend(&number.to_be_bytes()[7..]),
        (Kind::Int16 | Kind::Uint16, Value::Int(number)) => out.extend(&number.to_be_bytes()[6..]),
        (Kind::Int32, Value::Int(number)) => out.extend(&number.to_be_bytes()[4..]),
        (_, Value::Int(number)) => out.extend(number.to_be_bytes()),
        (_, Value::Float(number)) => out.extend(number.to_bits().to_be_bytes()),
        (_, Value::Uuid(uuid)) => out.extend(uuid),
        (_, Value::Text(text)) => {
            put_length(Some(text.len()), 2, version, out);
            out.extend(text.as_bytes());
        }
        (_, Value::Bytes(bytes)) => {
            put_length(Some(bytes.len()), 4, version, out);
            out.extend(bytes);
        }
        (Kind::Array(element), Value::Array(values)) => {
            put_length(Some(values.len()), 4, version, out);
            values.iter().for_each(|value| encode_value(element, value, version, out));
        }
        (_, Value::Struct(_)) => encode(value, version, out),
        (_, Value::Array(_)) => panic!("an array of another kind"),
    }
}

/// The message as Kafka's JSON converters read it.
#[allow(dead_code, reason = "the tests compare bytes; only the example prints JSON")]
pub(crate) fn to_json(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Uuid(uuid) => format!("\"{}\"", madang_protocol::types::Uuid(*uuid)),
        Value::Text(text) => format!("\"{text}\""),
        Value::Bytes(bytes) => format!("\"{}\"", base64(bytes)),
        Value::Array(values) => format!("[{}]", values.iter().map(to_json).collect::<Vec<_>>().join(",")),
        Value::Struct(fields) => {
            let field =
                |(field, value): &(FieldSchema, Value)| format!("\"{}\":{}", camel_case(field.name), to_json(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(","))
        }
    }
}

/// `enable_2pc` is `enable2Pc`.
fn camel_case(snake: &str) -> String {
    let mut upper = false;
    let mut camel = String::new();
    for letter in snake.chars() {
        if letter == '_' {
            upper = true;
            continue;
        }
        camel.push(if upper { letter.to_ascii_uppercase() } else { letter });
        upper = letter.is_ascii_digit();
    }
    camel
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sextet = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63] as char;
            text.push(if place <= chunk.len() { sextet } else { '=' });
        }
    }
    text
}
