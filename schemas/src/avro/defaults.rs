//! A field's default as the Avro binary that a writer would have sent: so that a default is decoded by the same code
//! as a value.

use serde_json::Value;

use super::schema::{Kind, NodeId, Problem, Schema, step};
use super::wire::put_long;

/// Records within records that a default may fill in by their fields' own defaults.
const DEPTH_MAX: usize = 32;

/// Appends `value` as the binary of type `id`. A union's default may be a value of any of its branches; the first that
/// fits counts. Bytes and fixed are written as text of the code points 0 to 255.
pub(super) fn encode_default(
    schema: &Schema,
    id: NodeId,
    value: &Value,
    path: &str,
    into: &mut Vec<u8>,
) -> Result<(), Problem> {
    encode(schema, id, value, path, DEPTH_MAX, into)
}

fn encode(
    schema: &Schema,
    id: NodeId,
    value: &Value,
    path: &str,
    depth: usize,
    into: &mut Vec<u8>,
) -> Result<(), Problem> {
    let kind = &schema.node(id).kind;
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Problem::new(path, "the default contains itself without end; write it out"));
    };
    match (kind, value) {
        (Kind::Array(item), Value::Array(items)) => {
            if !items.is_empty() {
                put_long(items.len() as i64, into);
            }
            for one in items {
                encode(schema, *item, one, &format!("{path}[]"), depth, into)?;
            }
            into.push(0);
        }
        (Kind::Map(of), Value::Object(pairs)) => {
            if !pairs.is_empty() {
                put_long(pairs.len() as i64, into);
            }
            for (key, one) in pairs {
                put_long(key.len() as i64, into);
                into.extend(key.as_bytes());
                encode(schema, *of, one, &format!("{path}{{}}"), depth, into)?;
            }
            into.push(0);
        }
        (Kind::Record { fields, .. }, Value::Object(given)) => {
            for field in fields {
                let at = step(path, &field.name);
                let value = given.get(&field.name).or(field.default.as_ref());
                let value = value.ok_or_else(|| Problem::new(&at, "the default around it doesn't name this field"))?;
                encode(schema, field.node, value, &at, depth, into)?;
            }
        }
        (Kind::Union(branches), value) => {
            let start = into.len();
            for (index, branch) in branches.iter().enumerate() {
                put_long(index as i64, into);
                if encode(schema, *branch, value, path, depth, into).is_ok() {
                    return Ok(());
                }
                into.truncate(start);
            }
            return Err(misfit(kind, value, path));
        }
        _ => return scalar(kind, value, into).ok_or_else(|| misfit(kind, value, path)),
    }
    Ok(())
}

fn misfit(kind: &Kind, value: &Value, path: &str) -> Problem {
    Problem::new(path, format!("the default {value} is not a value of type {}", kind.word()))
}

/// Appends a value that holds no others; `None` when it isn't one of the type.
fn scalar(kind: &Kind, value: &Value, into: &mut Vec<u8>) -> Option<()> {
    match (kind, value) {
        (Kind::Null, Value::Null) => {}
        (Kind::Boolean, Value::Bool(bit)) => into.push(u8::from(*bit)),
        (Kind::Int, Value::Number(number)) => {
            let number = number.as_i64().and_then(|n| i32::try_from(n).ok())?;
            put_long(i64::from(number), into);
        }
        (Kind::Long, Value::Number(number)) => put_long(number.as_i64()?, into),
        (Kind::Float, Value::Number(number)) => {
            into.extend((number.as_f64()? as f32).to_le_bytes());
        }
        (Kind::Double, Value::Number(number)) => into.extend(number.as_f64()?.to_le_bytes()),
        (Kind::String, Value::String(text)) => {
            put_long(text.len() as i64, into);
            into.extend(text.as_bytes());
        }
        (Kind::Bytes, Value::String(text)) => {
            let bytes = latin(text)?;
            put_long(bytes.len() as i64, into);
            into.extend(bytes);
        }
        (Kind::Fixed { size, .. }, Value::String(text)) => {
            into.extend(latin(text).filter(|bytes| bytes.len() == *size)?);
        }
        (Kind::Enum { symbols, .. }, Value::String(text)) => {
            let index = symbols.iter().position(|symbol| symbol == text)?;
            put_long(index as i64, into);
        }
        _ => return None,
    }
    Some(())
}

/// The bytes of a text whose code points are all below 256.
fn latin(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}
