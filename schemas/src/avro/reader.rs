//! From a reader schema to columns.
//!
//! | Avro | ClickHouse | note |
//! |---|---|---|
//! | boolean | `Bool` | |
//! | int, long | `Int32`, `Int64` | |
//! | float, double | `Float32`, `Float64` | |
//! | string, bytes | `String` | a string's bytes are UTF-8 |
//! | fixed(n) | `FixedString(n)` | n from 1 to 65,535 |
//! | enum | `LowCardinality(String)` | the reader's symbols; its default for one that it doesn't know |
//! | [null, T] in either order | `Nullable(T)` | an array or a map is empty instead: ClickHouse has no null of those |
//! | decimal(p, s) on bytes or fixed | `Decimal(p, s)` | exact, p up to 76 |
//! | uuid on string, bytes or fixed(16) | `UUID` | 16 bytes in network order |
//! | date | `Date32` | 1900-01-01 to 2299-12-31, else the record is refused |
//! | time-millis, time-micros | `Int32`, `Int64` | the count after midnight; ClickHouse's arithmetic on it is that of integers |
//! | timestamp-millis, -micros, -nanos | `DateTime64(3, 6 or 9, 'UTC')` | 1900 to 2299; nanoseconds end in 2262 |
//! | local-timestamp-* | the same | the wall clock's digits, shown as they are: no zone is known |
//! | duration | `FixedString(12)` | months, days, milliseconds, each a little-endian u32 |
//! | array of T | `Array(T)` | |
//! | map of T | `Map(String, T)` | pairs in the order of the wire, repeated keys kept |
//! | record in a record | columns `outer.inner` | in [null, record] every leaf is nullable; arrays and maps are empty |
//! | array of records | columns `lines.sku Array(..)` | parallel arrays, as ClickHouse's `Nested` has them |
//!
//! Refused, with the field's path and the way out: unions of several types, recursive types, records as a map's
//! values, big-decimal, decimals of more than 76 digits, a fixed of 0 bytes, a bare null, and logical types that their
//! base can't carry (other readers would ignore those silently).
//!
//! Arrays of records become parallel arrays rather than being refused because order lines are what shops send, and
//! because nothing is lost: the arrays of one list have equal lengths by construction. ClickHouse takes all arrays and
//! maps with the same word before the first dot for one such list: it keeps their lengths in one stream, doesn't create
//! a table with a map among several, and refuses rows whose arrays' lengths differ (checked with 26.9). So two arrays or
//! maps below one record that are *not* of one list are refused here rather than at the table or the first insert.

use serde_json::Value;

use super::RULES;
use super::defaults::encode_default;
use super::schema::{Kind, Logical, NodeId, Problem, Problems, Schema, step};
use crate::stage::Column;
use crate::types::{ColumnType, Width};

/// More columns than this are refused: schemas that repeat a type within a type within a type can name billions.
pub const COLUMNS_MAX: usize = 2_000;

/// The greatest precision of a ClickHouse decimal.
pub const DECIMAL_DIGITS_MAX: u32 = 76;

/// A schema that events are read with, and the columns that they become.
#[derive(Clone, Debug)]
pub struct ReaderSchema {
    /// The columns, in the schema's order, nested records flattened.
    pub columns: Vec<Column>,
    /// The rules that stand in the schema, in its order.
    pub rules: Vec<FieldRules>,
    pub(super) schema: Schema,
    pub(super) root: Shape,
    pub(super) layouts: Vec<Layout>,
    pub(super) slots: Vec<SlotSpec>,
}

/// The rules of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldRules {
    /// The field's path, which is its column's name.
    pub field: String,
    /// The rules: objects.
    pub rules: Vec<serde_json::Map<String, Value>>,
}

/// The number of a buffer that decoded values go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(pub(super) u32);

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotKind {
    Bool,
    I32,
    I64,
    F32,
    F64,
    I128,
    I256,
    Bytes,
    Fixed(usize),
    /// Where the lists of an array or a map end.
    Offsets,
}

impl SlotKind {
    /// Bytes that one value takes, text aside.
    pub(super) fn width(self) -> usize {
        match self {
            SlotKind::Bool => 1,
            SlotKind::I32 | SlotKind::F32 | SlotKind::Bytes | SlotKind::Offsets => 4,
            SlotKind::I64 | SlotKind::F64 => 8,
            SlotKind::I128 => 16,
            SlotKind::I256 => 32,
            SlotKind::Fixed(size) => size,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct SlotSpec {
    pub(super) kind: SlotKind,
    pub(super) nullable: bool,
    /// Index of the column that it belongs to.
    pub(super) column: usize,
}

/// How the buffers of one column fit together.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    Leaf(Slot),
    List { offsets: Slot, item: Box<Layout> },
    Map { offsets: Slot, keys: Slot, value: Box<Layout> },
}

/// A place in the reader schema: what a writer's value is turned into there.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The type without its null.
    pub(super) node: NodeId,
    /// The type as it was written, which defaults are read with.
    pub(super) written: NodeId,
    /// Whether the schema allows a null at this place itself.
    pub(super) nullable: bool,
    pub(super) to: To,
}

#[derive(Clone, Debug)]
pub(super) enum To {
    Leaf(Slot),
    Array { offsets: Vec<Slot>, item: Box<Shape> },
    Map { offsets: Slot, keys: Slot, value: Box<Shape> },
    Record { fields: Vec<Shape> },
}

impl Shape {
    /// The buffers that one value of this place adds one entry to: not those of a list's items.
    pub(super) fn slots(&self, into: &mut Vec<Slot>) {
        match &self.to {
            To::Leaf(slot) => into.push(*slot),
            To::Array { offsets, .. } => into.extend(offsets),
            To::Map { offsets, .. } => into.push(*offsets),
            To::Record { fields } => fields.iter().for_each(|field| field.slots(into)),
        }
    }
}

impl ReaderSchema {
    /// Reads a schema's JSON. Every problem is reported, each with its path and the way out.
    pub fn parse(text: &str) -> Result<ReaderSchema, Problems> {
        ReaderSchema::new(Schema::parse(text)?)
    }

    /// The columns of a parsed schema, whose outermost type has to be a record.
    pub fn new(schema: Schema) -> Result<ReaderSchema, Problems> {
        let mut build = Build {
            schema: &schema,
            slots: Vec::new(),
            problems: Vec::new(),
            within: Vec::new(),
            leaves: 0,
            rules: Vec::new(),
        };
        let root = schema.root();
        if !matches!(schema.node(root).kind, Kind::Record { .. }) {
            let word = schema.node(root).kind.word();
            let message =
                format!("a reader schema's outermost type is a record, not {word}: columns come from its fields");
            return Err(Problems(vec![Problem::new("", message)]));
        }
        let place = Place { path: String::new(), doc: String::new(), nullable: false };
        let (shape, drafts) = build.place(root, &place);
        build.nested_lists(&drafts);
        let Build { mut slots, problems, rules, .. } = build;
        let Some(shape) = shape.filter(|_| problems.is_empty()) else { return Err(Problems(problems)) };
        let mut columns = Vec::with_capacity(drafts.len());
        let mut layouts = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.into_iter().enumerate() {
            own(&draft.layout, index, &mut slots);
            columns.push(Column { name: draft.name, column_type: draft.column_type, comment: draft.doc });
            layouts.push(draft.layout);
        }
        Ok(ReaderSchema { columns, rules, schema, root: shape, layouts, slots })
    }

    /// The schema itself.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Index of the column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// Notes the column of every buffer of `layout`.
fn own(layout: &Layout, column: usize, slots: &mut [SlotSpec]) {
    let mut set = |slot: &Slot| slots[slot.0 as usize].column = column;
    match layout {
        Layout::Leaf(slot) => set(slot),
        Layout::List { offsets, item } => {
            set(offsets);
            own(item, column, slots);
        }
        Layout::Map { offsets, keys, value } => {
            set(offsets);
            set(keys);
            own(value, column, slots);
        }
    }
}

struct Draft {
    name: String,
    doc: String,
    column_type: ColumnType,
    layout: Layout,
    /// The outermost array or map that it lies in, by its path.
    list: Option<String>,
}

struct Place {
    path: String,
    doc: String,
    /// Whether a record around it may be null.
    nullable: bool,
}

struct Build<'a> {
    schema: &'a Schema,
    slots: Vec<SlotSpec>,
    problems: Vec<Problem>,
    /// The records around the place, to find recursion.
    within: Vec<NodeId>,
    leaves: usize,
    rules: Vec<FieldRules>,
}

type Built = (Option<Shape>, Vec<Draft>);

impl Build<'_> {
    fn slot(&mut self, kind: SlotKind, nullable: bool) -> Slot {
        self.slots.push(SlotSpec { kind, nullable, column: 0 });
        Slot(self.slots.len() as u32 - 1)
    }

    fn refuse(&mut self, place: &Place, message: impl Into<String>) -> Built {
        self.problems.push(Problem::new(&place.path, message));
        (None, Vec::new())
    }

    fn place(&mut self, written: NodeId, place: &Place) -> Built {
        if self.leaves > COLUMNS_MAX {
            return (None, Vec::new());
        }
        let schema = self.schema;
        let (node, nullable) = match &schema.node(written).kind {
            Kind::Union(branches) => {
                let is_null = |id: &&NodeId| matches!(schema.node(**id).kind, Kind::Null);
                let others: Vec<NodeId> = branches.iter().filter(|id| !is_null(id)).copied().collect();
                match others.as_slice() {
                    [one] => (*one, others.len() < branches.len()),
                    [] => {
                        return self
                            .refuse(place, "a union without a type besides null has no column; leave the field out");
                    }
                    several => {
                        let names: Vec<String> = several.iter().map(|id| label(schema, *id)).collect();
                        let message = format!(
                            "a union of several types ({}) has no column; write it in the reader schema as the one type \
                             that is wanted (records of the other types are then quarantined), or have producers use a \
                             record with one optional field for each",
                            names.join(", ")
                        );
                        return self.refuse(place, message);
                    }
                }
            }
            _ => (written, false),
        };
        if let Some(why) = &schema.node(node).ignored_logical {
            return self
                .refuse(place, format!("{why}; other readers ignore it silently, so correct it or leave it out"));
        }
        let (to, drafts) = match &schema.node(node).kind {
            Kind::Array(item) => self.array(*item, place),
            Kind::Map(value) => self.map(*value, place),
            Kind::Record { .. } => self.record(node, nullable, place),
            _ => self.leaf(node, nullable, place),
        };
        (to.map(|to| Shape { node, written, nullable, to }), drafts)
    }

    fn leaf(&mut self, node: NodeId, nullable: bool, place: &Place) -> (Option<To>, Vec<Draft>) {
        self.leaves += 1;
        if self.leaves > COLUMNS_MAX {
            if self.leaves == COLUMNS_MAX + 1 {
                self.refuse(
                    place,
                    format!("the schema has more than {COLUMNS_MAX} columns; leave out what isn't needed"),
                );
            }
            return (None, Vec::new());
        }
        match column_of(self.schema, node) {
            Err(message) => {
                self.refuse(place, message);
                (None, Vec::new())
            }
            Ok((column_type, kind)) => {
                let nullable = nullable || place.nullable;
                let slot = self.slot(kind, nullable);
                let column_type = if nullable { column_type.nullable() } else { column_type };
                let layout = Layout::Leaf(slot);
                let (name, doc) = (place.path.replace("[]", ""), self.schema.node(node).said(&place.doc));
                (Some(To::Leaf(slot)), vec![Draft { name, doc, column_type, layout, list: None }])
            }
        }
    }

    fn array(&mut self, item: NodeId, place: &Place) -> (Option<To>, Vec<Draft>) {
        let inner = Place { path: format!("{}[]", place.path), doc: place.doc.clone(), nullable: false };
        let (shape, drafts) = self.place(item, &inner);
        let mut offsets = Vec::with_capacity(drafts.len());
        let drafts = drafts
            .into_iter()
            .map(|draft| {
                let slot = self.slot(SlotKind::Offsets, false);
                offsets.push(slot);
                Draft {
                    column_type: ColumnType::Array(Box::new(draft.column_type)),
                    layout: Layout::List { offsets: slot, item: Box::new(draft.layout) },
                    list: Some(place.path.clone()),
                    ..draft
                }
            })
            .collect();
        (shape.map(|item| To::Array { offsets, item: Box::new(item) }), drafts)
    }

    fn map(&mut self, value: NodeId, place: &Place) -> (Option<To>, Vec<Draft>) {
        let inner = Place { path: format!("{}{{}}", place.path), doc: place.doc.clone(), nullable: false };
        let (shape, drafts) = self.place(value, &inner);
        let Some(shape) = shape else { return (None, Vec::new()) };
        let mut drafts = drafts.into_iter();
        let (Some(draft), None) = (drafts.next(), drafts.next()) else {
            return self.no_map_of_records(&inner);
        };
        if holds_record(&shape) {
            return self.no_map_of_records(&inner);
        }
        let (offsets, keys) = (self.slot(SlotKind::Offsets, false), self.slot(SlotKind::Bytes, false));
        let draft = Draft {
            name: place.path.replace("[]", ""),
            column_type: ColumnType::Map(Box::new(ColumnType::String), Box::new(draft.column_type)),
            layout: Layout::Map { offsets, keys, value: Box::new(draft.layout) },
            list: Some(place.path.clone()),
            ..draft
        };
        (Some(To::Map { offsets, keys, value: Box::new(shape) }), vec![draft])
    }

    fn no_map_of_records(&mut self, place: &Place) -> (Option<To>, Vec<Draft>) {
        self.refuse(
            place,
            "a map of records has no column; use an array of records with the key as a field, or a map of one type",
        );
        (None, Vec::new())
    }

    fn record(&mut self, node: NodeId, nullable: bool, place: &Place) -> (Option<To>, Vec<Draft>) {
        let schema = self.schema;
        let Kind::Record { name, fields } = &schema.node(node).kind else { return (None, Vec::new()) };
        if self.within.contains(&node) {
            let message = format!(
                "record `{}` contains itself; a recursive type has no columns: leave this field out",
                name.full
            );
            self.refuse(place, message);
            return (None, Vec::new());
        }
        self.within.push(node);
        let mut shapes = Vec::with_capacity(fields.len());
        let mut drafts = Vec::with_capacity(fields.len());
        for field in fields {
            let inner = Place {
                path: step(&place.path, &field.name),
                doc: field.doc.clone(),
                nullable: place.nullable || nullable,
            };
            if let Some(default) = &field.default
                && let Err(problem) = encode_default(schema, field.node, default, &inner.path, &mut Vec::new())
            {
                self.problems.push(problem);
            }
            let (shape, more) = self.place(field.node, &inner);
            shapes.extend(shape);
            drafts.extend(more);
            if let Some(rules) = &field.rules {
                self.rules(rules, &inner.path);
            }
        }
        self.within.pop();
        let complete = shapes.len() == fields.len();
        (complete.then_some(To::Record { fields: shapes }), drafts)
    }

    /// Keeps the rules of a field.
    fn rules(&mut self, rules: &Value, path: &str) {
        let list = rules.as_array().map(|list| list.iter().map(|rule| rule.as_object().cloned()).collect());
        match list {
            Some(Some(rules)) => self.rules.push(FieldRules { field: path.replace("[]", ""), rules }),
            _ => {
                let message = format!("`{RULES}` is a list of objects, such as [{{\"min\": 0, \"mode\": \"tag\"}}]");
                self.problems.push(Problem::new(path, message));
            }
        }
    }

    /// Refuses arrays and maps that ClickHouse would take for one `Nested` list although they aren't one.
    fn nested_lists(&mut self, drafts: &[Draft]) {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for draft in drafts {
            let (Some((prefix, _)), Some(list)) = (draft.name.split_once('.'), &draft.list) else { continue };
            match seen.iter().find(|(other, _)| *other == prefix) {
                Some((_, first)) if first != list => {
                    let message = format!(
                        "ClickHouse takes all arrays and maps below `{prefix}` for one list of equal lengths, but \
                         `{first}` is another; move one of them out of the record"
                    );
                    self.problems.push(Problem::new(list, message));
                }
                Some(_) => {}
                None => seen.push((prefix, list)),
            }
        }
    }
}

fn holds_record(shape: &Shape) -> bool {
    match &shape.to {
        To::Leaf(_) | To::Map { .. } => false,
        To::Array { item, .. } => holds_record(item),
        To::Record { .. } => true,
    }
}

/// The column type of a type that is neither a union, a list nor a record, or why it has none.
fn column_of(schema: &Schema, id: NodeId) -> Result<(ColumnType, SlotKind), String> {
    let node = schema.node(id);
    if let Some(logical) = node.logical {
        return match logical {
            Logical::Decimal { precision, scale } if precision <= DECIMAL_DIGITS_MAX => {
                let kind = if precision <= 38 { SlotKind::I128 } else { SlotKind::I256 };
                Ok((ColumnType::Decimal(precision as u8, scale as u8), kind))
            }
            Logical::Decimal { precision, .. } => Err(format!(
                "ClickHouse's decimals have at most {DECIMAL_DIGITS_MAX} digits, not {precision}; narrow it"
            )),
            Logical::BigDecimal => {
                Err("big-decimal has a scale of its own in each value and no column; use decimal with a fixed scale"
                    .to_owned())
            }
            Logical::Uuid => Ok((ColumnType::Uuid, SlotKind::Fixed(16))),
            Logical::Date => Ok((ColumnType::Date32, SlotKind::I32)),
            Logical::TimeMillis => Ok((ColumnType::Int(Width::W32), SlotKind::I32)),
            Logical::TimeMicros => Ok((ColumnType::Int(Width::W64), SlotKind::I64)),
            Logical::Timestamp { digits, .. } => {
                Ok((ColumnType::DateTime64(digits, Some("UTC".into())), SlotKind::I64))
            }
            Logical::Duration => Ok((ColumnType::FixedString(12), SlotKind::Fixed(12))),
        };
    }
    match &node.kind {
        Kind::Boolean => Ok((ColumnType::Bool, SlotKind::Bool)),
        Kind::Int => Ok((ColumnType::Int(Width::W32), SlotKind::I32)),
        Kind::Long => Ok((ColumnType::Int(Width::W64), SlotKind::I64)),
        Kind::Float => Ok((ColumnType::Float32, SlotKind::F32)),
        Kind::Double => Ok((ColumnType::Float64, SlotKind::F64)),
        Kind::Bytes | Kind::String => Ok((ColumnType::String, SlotKind::Bytes)),
        Kind::Enum { .. } => Ok((ColumnType::LowCardinality, SlotKind::Bytes)),
        Kind::Fixed { size, .. } => match u16::try_from(*size) {
            Ok(bytes) if bytes > 0 => Ok((ColumnType::FixedString(bytes), SlotKind::Fixed(*size))),
            _ => Err(format!("FixedString has 1 to 65535 bytes, not {size}; use bytes")),
        },
        Kind::Null => Err("a bare null has no column; leave the field out or give it a type".to_owned()),
        other => Err(format!("{} has no column of its own", other.word())),
    }
}

fn label(schema: &Schema, id: NodeId) -> String {
    let kind = &schema.node(id).kind;
    kind.name().map_or_else(|| kind.word().to_owned(), |name| name.full.clone())
}
