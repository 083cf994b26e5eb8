//! The tests' own writer of schemas and values: slow, obvious, and sharing no code with the crate.

use apache_avro::types::Value;
use fastrand::Rng;
use serde_json::{Value as Json, json};

use crate::generate::Ty;

/// What must not occur twice in a union.
pub(crate) fn label(ty: &Ty) -> String {
    match json_of(ty, &mut Vec::new()) {
        Json::String(name) => name,
        Json::Object(object) => {
            let name = object.get("name").or(object.get("type"));
            name.and_then(Json::as_str).unwrap_or_default().to_owned()
        }
        _ => "union".to_owned(),
    }
}

pub(crate) fn schema(ty: &Ty) -> String {
    json_of(ty, &mut Vec::new()).to_string()
}

/// The JSON of a type; a name that stands in `defined` is only named.
fn json_of(ty: &Ty, defined: &mut Vec<String>) -> Json {
    let mut define = |name: &str, json: Json| {
        if defined.contains(&name.to_owned()) {
            return json!(name);
        }
        defined.push(name.to_owned());
        json
    };
    match ty {
        Ty::Bool => json!("boolean"),
        Ty::Int => json!("int"),
        Ty::Long => json!("long"),
        Ty::Float => json!("float"),
        Ty::Double => json!("double"),
        Ty::Bytes => json!("bytes"),
        Ty::Str => json!("string"),
        Ty::Fixed(name, size) => define(name, json!({"type": "fixed", "name": name, "size": size})),
        Ty::Enum(name, symbols, default) => {
            let mut json = json!({"type": "enum", "name": name, "symbols": symbols});
            if let Some(default) = default {
                json["default"] = json!(default);
            }
            define(name, json)
        }
        Ty::Decimal(None, precision, scale) => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        Ty::Decimal(Some((name, size)), precision, scale) => define(
            name,
            json!({"type": "fixed", "name": name, "size": size, "logicalType": "decimal", "precision": precision, "scale": scale}),
        ),
        Ty::UuidText => json!({"type": "string", "logicalType": "uuid"}),
        Ty::UuidFixed(name) => define(name, json!({"type": "fixed", "name": name, "size": 16, "logicalType": "uuid"})),
        Ty::Date => json!({"type": "int", "logicalType": "date"}),
        Ty::TimeMillis => json!({"type": "int", "logicalType": "time-millis"}),
        Ty::TimeMicros => json!({"type": "long", "logicalType": "time-micros"}),
        Ty::Timestamp(digits, local) => {
            let unit = ["millis", "micros", "nanos"][usize::from(digits / 3 - 1)];
            json!({"type": "long", "logicalType": format!("{}timestamp-{unit}", if *local { "local-" } else { "" })})
        }
        Ty::Duration(name) => {
            define(name, json!({"type": "fixed", "name": name, "size": 12, "logicalType": "duration"}))
        }
        Ty::Opt(inner, true) => json!(["null", json_of(inner, defined)]),
        Ty::Opt(inner, false) => json!([json_of(inner, defined), "null"]),
        Ty::Several(all) => Json::Array(all.iter().map(|one| json_of(one, defined)).collect()),
        Ty::Arr(item) => json!({"type": "array", "items": json_of(item, defined)}),
        Ty::Map(value) => json!({"type": "map", "values": json_of(value, defined)}),
        Ty::Rec(name, fields) => {
            let fields: Vec<Json> = fields
                .iter()
                .map(|field| {
                    let mut json = json!({"name": field.name, "type": json_of(&field.ty, defined)});
                    if let Some(alias) = &field.alias {
                        json["aliases"] = json!([alias]);
                    }
                    if let Some((default, _)) = &field.default {
                        json["default"] = default.clone();
                    }
                    json
                })
                .collect();
            json!({"type": "record", "name": name, "fields": fields})
        }
    }
}

fn long(value: i64, into: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest > 127 {
        into.push(rest as u8 & 127 | 128);
        rest >>= 7;
    }
    into.push(rest as u8);
}

/// Encodes a value, lists in one block or several, with their sizes or without.
pub(crate) fn encode(value: &Value, ty: &Ty, rng: &mut Rng, into: &mut Vec<u8>) {
    match (value, ty) {
        (Value::Null, _) => {}
        (Value::Boolean(bit), _) => into.push(u8::from(*bit)),
        (Value::Int(n) | Value::Date(n) | Value::TimeMillis(n), _) => long(i64::from(*n), into),
        (
            Value::Long(n)
            | Value::TimeMicros(n)
            | Value::TimestampMillis(n)
            | Value::TimestampMicros(n)
            | Value::TimestampNanos(n)
            | Value::LocalTimestampMillis(n)
            | Value::LocalTimestampMicros(n)
            | Value::LocalTimestampNanos(n),
            _,
        ) => long(*n, into),
        (Value::Float(x), _) => into.extend(x.to_le_bytes()),
        (Value::Double(x), _) => into.extend(x.to_le_bytes()),
        (Value::Bytes(bytes), _) => {
            long(bytes.len() as i64, into);
            into.extend(bytes);
        }
        (Value::String(text), _) => {
            long(text.len() as i64, into);
            into.extend(text.as_bytes());
        }
        (Value::Union(branch, inner), Ty::Opt(of, _)) => {
            long(i64::from(*branch), into);
            encode(inner, of, rng, into);
        }
        (Value::Union(branch, inner), Ty::Several(all)) => {
            long(i64::from(*branch), into);
            encode(inner, &all[*branch as usize], rng, into);
        }
        (Value::Array(items), Ty::Arr(of)) => {
            let items: Vec<Item<'_>> = items
                .iter()
                .map(|item| Box::new(|rng: &mut Rng, into: &mut Vec<u8>| encode(item, of, rng, into)) as Box<_>)
                .collect();
            blocks(&items, rng, into);
        }
        (Value::Map(pairs), Ty::Map(of)) => {
            let items: Vec<Item<'_>> = pairs
                .iter()
                .map(|(key, value)| {
                    Box::new(|rng: &mut Rng, into: &mut Vec<u8>| {
                        long(key.len() as i64, into);
                        into.extend(key.as_bytes());
                        encode(value, of, rng, into);
                    }) as Box<_>
                })
                .collect();
            blocks(&items, rng, into);
        }
        (Value::Record(values), Ty::Rec(_, fields)) => {
            values.iter().zip(fields).for_each(|((_, value), field)| encode(value, &field.ty, rng, into));
        }
        (value, ty) => encode_bytes(value, ty, into),
    }
}

fn encode_bytes(value: &Value, ty: &Ty, into: &mut Vec<u8>) {
    match (value, ty) {
        (Value::Fixed(_, bytes), _) => into.extend(bytes),
        (Value::Enum(index, _), _) => long(i64::from(*index), into),
        (Value::Decimal(decimal), Ty::Decimal(base, ..)) => {
            let bytes: Vec<u8> = decimal.try_into().expect("a decimal's bytes");
            if base.is_none() {
                long(bytes.len() as i64, into);
            }
            into.extend(bytes);
        }
        (Value::Uuid(uuid), Ty::UuidText) => {
            long(36, into);
            into.extend(uuid.to_string().as_bytes());
        }
        (Value::Uuid(uuid), _) => into.extend(uuid.as_bytes()),
        (Value::Duration(duration), _) => into.extend(<[u8; 12]>::from(*duration)),
        (value, ty) => panic!("{value:?} is not a value of {ty:?}"),
    }
}

type Item<'a> = Box<dyn Fn(&mut Rng, &mut Vec<u8>) + 'a>;

fn blocks(items: &[Item<'_>], rng: &mut Rng, into: &mut Vec<u8>) {
    let mut rest = items;
    while !rest.is_empty() {
        let (block, after) = rest.split_at(rng.usize(1..=rest.len()));
        rest = after;
        let mut bytes = Vec::new();
        block.iter().for_each(|item| item(rng, &mut bytes));
        if rng.bool() {
            long(-(block.len() as i64), into);
            long(bytes.len() as i64, into);
        } else {
            long(block.len() as i64, into);
        }
        into.extend(bytes);
    }
    into.push(0);
}
