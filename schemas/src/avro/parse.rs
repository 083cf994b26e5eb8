//! From the JSON of a schema, and of the schemas it refers to, to [`Schema`].
//!
//! Every problem is reported, not the first only. A logical type that its base type can't carry is ignored, as the
//! specification asks, and the reason kept with the node.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::schema::{Kind, Logical, Node, NodeId, Problem, Problems, RecordField, Schema, TypeName, step, with_unit};

/// Parses `text`. The types that `referenced` define can be used by name, in the order given: a schema may use those
/// before it.
pub(super) fn parse(text: &str, referenced: &[String]) -> Result<Schema, Problems> {
    let mut parser = Parser::default();
    for other in referenced {
        parser.text(other);
    }
    let root = parser.text(text);
    if parser.problems.is_empty() { Ok(Schema { nodes: parser.nodes, root }) } else { Err(Problems(parser.problems)) }
}

/// Types within types, through names too: every walk over a schema recurses as deep.
const DEPTH_MAX: u32 = 128;

#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    /// How deep each node's types go. A type that isn't complete yet counts as nothing: walks stop at those.
    depths: Vec<u32>,
    names: HashMap<String, NodeId>,
    problems: Vec<Problem>,
}

impl Parser {
    fn text(&mut self, text: &str) -> NodeId {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => self.value(&value, "", ""),
            // A bare name is how some registries store a primitive schema.
            Err(_) if !text.trim().is_empty() && text.trim().chars().all(|c| c.is_ascii_alphabetic()) => {
                self.named(text.trim(), "", "")
            }
            Err(error) => self.refuse("", format!("the schema is not JSON: {error}")),
        }
    }

    fn add(&mut self, kind: Kind) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        let depth = match &kind {
            Kind::Array(of) | Kind::Map(of) => 1 + self.depths[of.0 as usize],
            Kind::Union(of) => 1 + of.iter().map(|id| self.depths[id.0 as usize]).max().unwrap_or(0),
            _ => 0,
        };
        self.nodes.push(Node { kind, logical: None, ignored_logical: None });
        self.depths.push(depth);
        id
    }

    /// Notes a problem; the node returned only keeps the walk going.
    fn refuse(&mut self, path: &str, message: impl Into<String>) -> NodeId {
        self.problems.push(Problem::new(path, message));
        self.add(Kind::Null)
    }

    fn value(&mut self, value: &Value, namespace: &str, path: &str) -> NodeId {
        match value {
            Value::String(name) => self.named(name, namespace, path),
            Value::Array(branches) => self.union(branches, namespace, path),
            Value::Object(object) => self.object(object, namespace, path),
            other => self.refuse(path, format!("a type is a name, an object or a list, not {other}")),
        }
    }

    fn named(&mut self, name: &str, namespace: &str, path: &str) -> NodeId {
        let kind = match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::String,
            _ => {
                let full = qualify(name, namespace);
                return match self.names.get(&full) {
                    Some(id) => *id,
                    None => self.refuse(
                        path,
                        format!("type `{full}` is not defined before it is used; define it there, or register it as a reference"),
                    ),
                };
            }
        };
        self.add(kind)
    }

    fn union(&mut self, branches: &[Value], namespace: &str, path: &str) -> NodeId {
        let ids: Vec<NodeId> = branches.iter().map(|branch| self.value(branch, namespace, path)).collect();
        let mut seen: Vec<String> = Vec::with_capacity(ids.len());
        for id in &ids {
            let kind = &self.nodes[id.0 as usize].kind;
            let label = kind.name().map_or_else(|| kind.word().to_owned(), |name| name.full.clone());
            if label == "union" {
                self.problems.push(Problem::new(path, "a union directly inside a union is not Avro; merge the two"));
            } else if seen.contains(&label) {
                self.problems.push(Problem::new(path, format!("the union names `{label}` twice; keep one of them")));
            }
            seen.push(label);
        }
        self.add(Kind::Union(ids))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str, path: &str) -> NodeId {
        let Some(of) = object.get("type") else {
            return self.refuse(path, "an object without `type`");
        };
        let id = match of {
            Value::String(word) => match word.as_str() {
                "record" | "error" => self.record(object, namespace, path),
                "enum" => self.enumeration(object, namespace, path),
                "fixed" => self.fixed(object, namespace, path),
                "array" => match object.get("items") {
                    Some(items) => {
                        let items = self.value(items, namespace, &format!("{path}[]"));
                        self.add(Kind::Array(items))
                    }
                    None => self.refuse(path, "an array without `items`"),
                },
                "map" => match object.get("values") {
                    Some(values) => {
                        let values = self.value(values, namespace, &format!("{path}{{}}"));
                        self.add(Kind::Map(values))
                    }
                    None => self.refuse(path, "a map without `values`"),
                },
                name => self.named(name, namespace, path),
            },
            nested => self.value(nested, namespace, path),
        };
        self.logical(object, id)
    }

    /// Puts the logical type of `object` on node `id`; a node that a name refers to is shared, so it gets a copy.
    fn logical(&mut self, object: &Map<String, Value>, id: NodeId) -> NodeId {
        let Some(Value::String(name)) = object.get("logicalType") else { return id };
        let node = &self.nodes[id.0 as usize];
        let (logical, ignored) = match logical_of(name, &node.kind, object) {
            Ok(logical) => (Some(logical), None),
            Err(None) => return id,
            Err(Some(why)) => (None, Some(why)),
        };
        if object.get("type").and_then(Value::as_str) != Some(node.kind.word()) {
            let copy = self.add(node.kind.clone());
            self.depths[copy.0 as usize] = self.depths[id.0 as usize];
            let node = &mut self.nodes[copy.0 as usize];
            node.logical = logical;
            node.ignored_logical = ignored;
            return copy;
        }
        let node = &mut self.nodes[id.0 as usize];
        node.logical = logical;
        node.ignored_logical = ignored;
        id
    }

    /// Reads name, namespace and aliases. The name is usable from here on, so that a record can contain itself.
    fn define(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
        path: &str,
        kind: fn(TypeName) -> Kind,
    ) -> NodeId {
        let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = qualify(name, namespace);
        if !full.split('.').all(is_name) {
            return self.refuse(path, format!("`{full}` is not a name: letters, digits and _ only, no digit first"));
        }
        let own_namespace = full.rsplit_once('.').map_or("", |(space, _)| space);
        let aliases = strings(object.get("aliases")).map(|alias| qualify(alias, own_namespace)).collect();
        let id = self.add(kind(TypeName { full: full.clone(), aliases }));
        if self.names.insert(full.clone(), id).is_some() {
            self.problems.push(Problem::new(path, format!("type `{full}` is defined twice")));
        }
        id
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str, path: &str) -> NodeId {
        let id = self.define(object, namespace, path, |name| Kind::Record { name, fields: Vec::new() });
        let Some(Value::Array(list)) = object.get("fields") else {
            self.problems.push(Problem::new(path, "a record without a list of `fields`"));
            return id;
        };
        let inner = match self.nodes[id.0 as usize].kind.name() {
            Some(name) => name.full.rsplit_once('.').map_or(String::new(), |(space, _)| space.to_owned()),
            None => return id,
        };
        let mut parsed: Vec<RecordField> = Vec::with_capacity(list.len());
        for field in list {
            let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
            let at = step(path, name);
            if !is_name(name) {
                self.problems
                    .push(Problem::new(&at, "is not a field name: letters, digits and _ only, no digit first"));
            }
            if parsed.iter().any(|other| other.name == name) {
                self.problems.push(Problem::new(&at, "the record has two fields of this name"));
            }
            let node = match field.get("type") {
                Some(of) => self.value(of, &inner, &at),
                None => self.refuse(&at, "a field without `type`"),
            };
            parsed.push(RecordField {
                name: name.to_owned(),
                aliases: strings(field.get("aliases")).map(str::to_owned).collect(),
                doc: doc_of(field),
                default: field.get("default").cloned(),
                node,
                rules: field.get(super::RULES).cloned(),
            });
        }
        let depth = 1 + parsed.iter().map(|field| self.depths[field.node.0 as usize]).max().unwrap_or(0);
        self.depths[id.0 as usize] = depth;
        if depth > DEPTH_MAX {
            self.problems.push(Problem::new(path, format!("types within types beyond {DEPTH_MAX} levels; flatten it")));
        }
        if let Kind::Record { fields, .. } = &mut self.nodes[id.0 as usize].kind {
            *fields = parsed;
        }
        id
    }

    fn enumeration(&mut self, object: &Map<String, Value>, namespace: &str, path: &str) -> NodeId {
        let id = self.define(object, namespace, path, |name| Kind::Enum { name, symbols: Vec::new(), default: None });
        let list: Vec<String> = strings(object.get("symbols")).map(str::to_owned).collect();
        let symbol = object.get("default").and_then(Value::as_str).map(str::to_owned);
        if !matches!(object.get("symbols"), Some(Value::Array(all)) if all.len() == list.len()) {
            self.problems.push(Problem::new(path, "an enum needs `symbols`, a list of strings"));
        }
        for (index, one) in list.iter().enumerate() {
            if list[..index].contains(one) {
                self.problems.push(Problem::new(path, format!("the enum has the symbol `{one}` twice")));
            }
        }
        if let Some(symbol) = &symbol
            && !list.contains(symbol)
        {
            self.problems.push(Problem::new(path, format!("the enum's default `{symbol}` is not one of its symbols")));
        }
        if let Kind::Enum { symbols, default, .. } = &mut self.nodes[id.0 as usize].kind {
            *symbols = list;
            *default = symbol;
        }
        id
    }

    fn fixed(&mut self, object: &Map<String, Value>, namespace: &str, path: &str) -> NodeId {
        let id = self.define(object, namespace, path, |name| Kind::Fixed { name, size: 0 });
        match object.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok()) {
            Some(bytes) => {
                if let Kind::Fixed { size, .. } = &mut self.nodes[id.0 as usize].kind {
                    *size = bytes;
                }
            }
            None => self.problems.push(Problem::new(path, "a fixed needs `size`, a number of bytes")),
        }
        id
    }
}

/// The logical type `name` over `kind`; `Err(None)` when nobody knows the name, `Err(why)` when it doesn't fit.
fn logical_of(name: &str, kind: &Kind, object: &Map<String, Value>) -> Result<Logical, Option<String>> {
    let timestamp = |digits, local| (Logical::Timestamp { digits, local }, matches!(kind, Kind::Long));
    let (logical, fits) = match name {
        "decimal" => return decimal_of(kind, object).map_err(Some),
        "big-decimal" => (Logical::BigDecimal, matches!(kind, Kind::Bytes)),
        "uuid" => (Logical::Uuid, matches!(kind, Kind::String | Kind::Bytes | Kind::Fixed { size: 16, .. })),
        "date" => (Logical::Date, matches!(kind, Kind::Int)),
        "time-millis" => (Logical::TimeMillis, matches!(kind, Kind::Int)),
        "time-micros" => (Logical::TimeMicros, matches!(kind, Kind::Long)),
        "timestamp-millis" => timestamp(3, false),
        "timestamp-micros" => timestamp(6, false),
        "timestamp-nanos" => timestamp(9, false),
        "local-timestamp-millis" => timestamp(3, true),
        "local-timestamp-micros" => timestamp(6, true),
        "local-timestamp-nanos" => timestamp(9, true),
        "duration" => (Logical::Duration, matches!(kind, Kind::Fixed { size: 12, .. })),
        _ => return Err(None),
    };
    if fits { Ok(logical) } else { Err(Some(format!("logical type `{name}` can't stand on {}", kind.word()))) }
}

fn decimal_of(kind: &Kind, object: &Map<String, Value>) -> Result<Logical, String> {
    if !matches!(kind, Kind::Bytes | Kind::Fixed { .. }) {
        return Err(format!("logical type `decimal` can't stand on {}; use bytes or fixed", kind.word()));
    }
    let number = |key: &str| object.get(key).map(|value| value.as_u64().and_then(|n| u32::try_from(n).ok()));
    match (number("precision"), number("scale").unwrap_or(Some(0))) {
        (Some(Some(precision)), Some(scale)) if precision >= 1 && scale <= precision => {
            Ok(Logical::Decimal { precision, scale })
        }
        _ => Err("a decimal needs `precision` of at least 1 and `scale` from 0 to `precision`".to_owned()),
    }
}

fn qualify(name: &str, namespace: &str) -> String {
    if let Some(bare) = name.strip_prefix('.') {
        bare.to_owned()
    } else if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What a field says of itself: its `doc`, then the unit of its values where a property `unit` names one.
fn doc_of(field: &Value) -> String {
    let text = |name: &str| field.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let doc = text("doc").unwrap_or_default();
    text("unit").map_or_else(|| doc.to_owned(), |unit| with_unit(doc, &format!("in {unit}")))
}

fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
