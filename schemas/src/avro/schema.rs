//! An Avro schema as Weir looks at it: a flat list of nodes that refer to each other by number, so that recursive
//! types need no pointers and walking it needs no look-up of names.
//!
//! Invariant: every [`NodeId`] of a schema names one of its nodes; only the parser makes them.
//!
//! Not here: canonical forms and fingerprints, protocols, and IDL.

use std::fmt;

use serde_json::Value;

/// A node's number within its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

/// A parsed Avro schema.
#[derive(Clone, Debug)]
pub struct Schema {
    pub(super) nodes: Vec<Node>,
    pub(super) root: NodeId,
}

/// One type within a schema.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is on the wire.
    pub kind: Kind,
    /// What its values mean, when a logical type says so.
    pub logical: Option<Logical>,
    /// Why a `logicalType` that was written there doesn't count. By the specification such a one is ignored; for a
    /// reader schema Weir refuses it, since its author meant something by it.
    pub ignored_logical: Option<String>,
}

/// What a node is on the wire.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing.
    Null,
    /// One byte, 0 or 1.
    Boolean,
    /// A variable-length integer of 32 bits.
    Int,
    /// A variable-length integer of 64 bits.
    Long,
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// A length and bytes.
    Bytes,
    /// A length and UTF-8.
    String,
    /// As many bytes as the size says.
    Fixed {
        /// Its name.
        name: TypeName,
        /// Bytes.
        size: usize,
    },
    /// The index of a symbol.
    Enum {
        /// Its name.
        name: TypeName,
        /// The symbols in order.
        symbols: Vec<String>,
        /// What a reader takes for a symbol that it doesn't know.
        default: Option<String>,
    },
    /// Blocks of items.
    Array(NodeId),
    /// Blocks of pairs of a string and a value.
    Map(NodeId),
    /// Its fields, one after the other.
    Record {
        /// Its name.
        name: TypeName,
        /// The fields in order.
        fields: Vec<RecordField>,
    },
    /// The index of a branch and its value.
    Union(Vec<NodeId>),
}

/// The name of a record, an enum or a fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    /// Namespace and name with a dot between them, or the name alone.
    pub full: String,
    /// Full names that it had before.
    pub aliases: Vec<String>,
}

/// A field of a record.
#[derive(Clone, Debug)]
pub struct RecordField {
    /// Its name.
    pub name: String,
    /// Names that it had before.
    pub aliases: Vec<String>,
    /// Its documentation with the unit that it names, or nothing.
    pub doc: String,
    /// What a reader takes when the writer had no such field.
    pub default: Option<Value>,
    /// Its type.
    pub node: NodeId,
    /// The property [`RULES`](super::RULES), as it stands there.
    pub rules: Option<Value>,
}

/// A logical type that Weir knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logical {
    /// An unscaled integer, two's complement, big-endian, in bytes or fixed.
    Decimal {
        /// Digits, at least 1.
        precision: u32,
        /// Digits behind the point, at most `precision`.
        scale: u32,
    },
    /// A decimal that carries its scale with each value.
    BigDecimal,
    /// A UUID in a string, bytes, or a fixed of 16.
    Uuid,
    /// Days since 1970-01-01 in an int.
    Date,
    /// Milliseconds after midnight in an int.
    TimeMillis,
    /// Microseconds after midnight in a long.
    TimeMicros,
    /// A point in time in a long, counted from 1970 in units of 10^-digits seconds. `local` ones have no zone.
    Timestamp {
        /// 3, 6 or 9.
        digits: u8,
        /// Whether it is one of the `local-timestamp-*` types.
        local: bool,
    },
    /// Months, days and milliseconds, each a little-endian u32, in a fixed of 12.
    Duration,
}

impl Logical {
    /// What a number, or bytes, of it count, where the column's type doesn't tell.
    fn unit(self) -> Option<&'static str> {
        match self {
            Logical::TimeMillis => Some("in milliseconds since midnight"),
            Logical::TimeMicros => Some("in microseconds since midnight"),
            Logical::Timestamp { local: true, .. } => Some("a local time, shown as if it were UTC"),
            Logical::Duration => Some("in months, days and milliseconds, each a little-endian UInt32"),
            _ => None,
        }
    }
}

impl Node {
    /// What is said of a column with its values: the field's own words, then what they count.
    pub(super) fn said(&self, doc: &str) -> String {
        self.logical.and_then(Logical::unit).map_or_else(|| doc.to_owned(), |unit| with_unit(doc, unit))
    }
}

/// Words about a field, and its unit behind them.
pub(super) fn with_unit(doc: &str, unit: &str) -> String {
    match doc.trim_end_matches('.') {
        "" => unit.to_owned(),
        doc => format!("{doc}, {unit}"),
    }
}

impl Schema {
    /// The number of the outermost type.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The node of that number.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The full name of the outermost type, when it has one.
    pub fn name(&self) -> Option<&str> {
        self.node(self.root).kind.name().map(|name| name.full.as_str())
    }
}

impl TypeName {
    /// The name without its namespace.
    pub fn unqualified(&self) -> &str {
        self.full.rsplit('.').next().unwrap_or(&self.full)
    }

    /// Whether a reader's type of this name may read a writer's type called `writer`: the names agree without
    /// their namespaces, or `writer` is one of the aliases.
    pub fn reads(&self, writer: &TypeName) -> bool {
        self.unqualified() == writer.unqualified() || self.aliases.contains(&writer.full)
    }
}

impl Kind {
    /// The name of a named type.
    pub fn name(&self) -> Option<&TypeName> {
        match self {
            Kind::Fixed { name, .. } | Kind::Enum { name, .. } | Kind::Record { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The word that a schema writes for it.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Boolean => "boolean",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::Bytes => "bytes",
            Kind::String => "string",
            Kind::Fixed { .. } => "fixed",
            Kind::Enum { .. } => "enum",
            Kind::Array(_) => "array",
            Kind::Map(_) => "map",
            Kind::Record { .. } => "record",
            Kind::Union(_) => "union",
        }
    }
}

impl fmt::Display for Logical {
    /// The name that a schema writes, a decimal's digits with it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Logical::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Logical::BigDecimal => f.write_str("big-decimal"),
            Logical::Uuid => f.write_str("uuid"),
            Logical::Date => f.write_str("date"),
            Logical::TimeMillis => f.write_str("time-millis"),
            Logical::TimeMicros => f.write_str("time-micros"),
            Logical::Timestamp { digits, local } => {
                let unit = match digits {
                    3 => "millis",
                    6 => "micros",
                    _ => "nanos",
                };
                write!(f, "{}timestamp-{unit}", if *local { "local-" } else { "" })
            }
            Logical::Duration => f.write_str("duration"),
        }
    }
}

/// Something wrong in a schema, or between two schemas: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field's path from the outermost record: `order.lines[].price`, `[]` for an array's items, `{}` for a
    /// map's values; empty for the outermost type itself.
    pub path: String,
    /// What is wrong and the way out.
    pub message: String,
}

impl Problem {
    pub(super) fn new(path: &str, message: impl Into<String>) -> Problem {
        Problem { path: path.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "field `{}`: {}", self.path, self.message)
        }
    }
}

/// Every problem that was found, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `path` with a further step.
pub(super) fn step(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
