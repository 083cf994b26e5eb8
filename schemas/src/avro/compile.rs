//! From a pair of schemas to the steps that read one record.
//!
//! The steps follow the writer's fields, since that is the order of the bytes. A field that the reader doesn't know is
//! walked and checked as strictly as the others, but nothing is kept of it. What the writer lacks is a constant: its
//! default, as the bytes that a writer would have sent.
//!
//! Invariant: steps refer only to steps of the same program and to buffers of the reader schema.

use std::collections::HashMap;

use arrow_buffer::i256;

use super::codes::{Look, Looks};
use super::defaults::encode_default;
use super::reader::{ReaderSchema, Shape, Slot, SlotKind, To};
use super::resolve::{Incompatibility, MISSING_FIELD, factor, names_differ, scalar, writer_field};
use super::schema::{Kind, Logical, NodeId, Problem, Schema, step};

/// A step's number within its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepId(pub(super) u32);

/// Where a value goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Neither its column nor its code is wanted, or the reader schema doesn't have it.
    Nowhere,
    /// Only to the codes: a judge looks at every field of wide events, and for those that nobody else reads the way over
    /// the columns would cost more than the code does.
    Code(Look),
    /// To a column, and what is wanted of it to the codes.
    Column(Slot),
}

/// What one step reads.
#[derive(Debug)]
pub(super) enum Step {
    Nothing,
    Bool(Target),
    /// An int into a column of 32 bits, within the bounds when there are any.
    Int {
        to: Target,
        within: Option<Within>,
    },
    /// An int or a long into a column of 64 bits, multiplied first.
    Long {
        to: Target,
        narrow: bool,
        factor: i64,
        within: Option<Within>,
    },
    /// An int or a long into a column of floats.
    IntToFloat {
        to: Target,
        narrow: bool,
        wide: bool,
    },
    Float {
        to: Target,
        wide: bool,
    },
    Double(Target),
    /// Bytes with their length before them; `utf8` when the writer or the reader calls them a string.
    Bytes {
        to: Target,
        utf8: bool,
    },
    Fixed {
        to: Target,
        size: usize,
    },
    Enum {
        to: Target,
        symbols: Box<[Option<Box<[u8]>>]>,
    },
    /// A decimal in `size` bytes, or in bytes with their length before them; less than `bound` without its sign.
    Decimal {
        to: Target,
        size: Option<usize>,
        bound: i256,
    },
    Uuid {
        to: Target,
        from: UuidFrom,
    },
    Record(Box<[StepId]>),
    Union(Box<[StepId]>),
    Array(List),
    Map {
        keys: Target,
        list: List,
    },
    /// No bytes: a null or an empty list for each buffer.
    Null(Box<[Target]>),
    /// No bytes of the record: those of a default.
    Constant {
        bytes: Box<[u8]>,
        of: StepId,
    },
    /// A value that the reader schema has no place for.
    Refuse(Box<str>),
}

/// The blocks of an array or a map.
#[derive(Debug)]
pub(super) struct List {
    pub(super) item: StepId,
    /// The least bytes that an item takes on the wire.
    pub(super) item_bytes_min: usize,
    /// Bytes of memory that an item takes in buffers of fixed width.
    pub(super) item_width: usize,
    pub(super) offsets: Box<[Target]>,
}

/// The bounds of a date, a time or a point in time, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within {
    pub(super) least: i64,
    pub(super) greatest: i64,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Date,
    Time,
    TimeOfDay,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum UuidFrom {
    /// 36 characters.
    Text,
    /// 16 bytes, or 36 characters.
    Bytes,
    /// 16 bytes without a length.
    Fixed,
}

/// The steps for one writer schema, one reader schema and the columns that are wanted.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    /// The field's path of each step, to tell where a record is wrong.
    pub(super) paths: Vec<Box<str>>,
    pub(super) root: StepId,
}

type Compiled = Result<StepId, Vec<Incompatibility>>;

/// Compiles the steps, or tells everything that keeps *every* record of the writer from being read.
pub(super) fn compile(
    writer: &Schema,
    reader: &ReaderSchema,
    wanted: &[bool],
    looks: Option<&Looks>,
) -> Result<Program, Vec<Incompatibility>> {
    let mut compiler = Compiler {
        reader,
        wanted,
        looks,
        steps: Vec::new(),
        paths: Vec::new(),
        skips: HashMap::new(),
        bytes_min: HashMap::new(),
        in_default: false,
    };
    let root = compiler.read(writer, writer.root(), &reader.root, "")?;
    Ok(Program { steps: compiler.steps, paths: compiler.paths, root })
}

struct Compiler<'a> {
    reader: &'a ReaderSchema,
    wanted: &'a [bool],
    looks: Option<&'a Looks>,
    steps: Vec<Step>,
    paths: Vec<Box<str>>,
    /// The steps that walk a writer's named type which the reader lacks; they are shared, and may be recursive.
    skips: HashMap<NodeId, StepId>,
    bytes_min: HashMap<NodeId, usize>,
    /// Whether a default is being read, whose writer is the reader schema itself: its nodes have other numbers.
    in_default: bool,
}

impl Compiler<'_> {
    fn add(&mut self, step: Step, path: &str) -> StepId {
        self.steps.push(step);
        self.paths.push(path.into());
        StepId(self.steps.len() as u32 - 1)
    }

    fn target(&self, slot: Slot) -> Target {
        if self.wanted.get(self.reader.slots[slot.0 as usize].column).copied().unwrap_or(false) {
            return Target::Column(slot);
        }
        self.looks.and_then(|looks| looks.of[slot.0 as usize]).map_or(Target::Nowhere, Target::Code)
    }

    fn targets(&self, slots: &[Slot]) -> Box<[Target]> {
        let targets = slots.iter().map(|slot| self.target(*slot));
        targets.filter(|target| !matches!(target, Target::Nowhere)).collect()
    }

    fn read(&mut self, writer: &Schema, wrote: NodeId, shape: &Shape, path: &str) -> Compiled {
        let refuse = |message: String| Err(vec![Problem::new(path, message)]);
        let (read, kind) = (&self.reader.schema.node(shape.node).kind, &writer.node(wrote).kind);
        match (read, kind, &shape.to) {
            (_, Kind::Union(branches), _) => self.union(writer, branches, shape, path),
            (_, Kind::Null, _) if shape.nullable => {
                let mut slots = Vec::new();
                shape.slots(&mut slots);
                let step = Step::Null(self.targets(&slots));
                Ok(self.add(step, path))
            }
            (Kind::Record { name, .. }, Kind::Record { name: wrote_name, .. }, To::Record { fields }) => {
                if !name.reads(wrote_name) {
                    return refuse(names_differ(name, wrote_name));
                }
                self.record(writer, wrote, shape.node, fields, path)
            }
            (_, Kind::Array(item), To::Array { offsets, item: shape }) => {
                let inner = format!("{path}[]");
                let list = self.list(writer, *item, shape, offsets, &inner)?;
                Ok(self.add(Step::Array(list), path))
            }
            (_, Kind::Map(value), To::Map { offsets, keys, value: shape }) => {
                let inner = format!("{path}{{}}");
                let mut list = self.list(writer, *value, shape, std::slice::from_ref(offsets), &inner)?;
                let keys = self.target(*keys);
                list.item_bytes_min = list.item_bytes_min.saturating_add(1);
                list.item_width += SlotKind::Bytes.width();
                Ok(self.add(Step::Map { keys, list }, path))
            }
            (
                Kind::Enum { name, symbols, default },
                Kind::Enum { name: wrote_name, symbols: written, .. },
                To::Leaf(slot),
            ) => {
                if !name.reads(wrote_name) {
                    return refuse(names_differ(name, wrote_name));
                }
                let read = |symbol: &String| {
                    let known = symbols.contains(symbol).then_some(symbol).or(default.as_ref());
                    known.map(|text| text.as_bytes().into())
                };
                let symbols = written.iter().map(read).collect();
                let to = self.target(*slot);
                Ok(self.add(Step::Enum { to, symbols }, path))
            }
            (_, _, To::Leaf(slot)) => match scalar(&self.reader.schema, shape.node, writer, wrote) {
                Err(message) => refuse(message),
                Ok(()) => match self.leaf(writer, wrote, shape.node, self.target(*slot)) {
                    Ok(step) => Ok(self.add(step, path)),
                    Err(message) => refuse(message),
                },
            },
            (read, wrote, _) => {
                refuse(format!("the reader's {} doesn't read the writer's {}", read.word(), wrote.word()))
            }
        }
    }

    /// A branch that can't be read refuses its values; if none can, the schemas don't fit.
    fn union(&mut self, writer: &Schema, branches: &[NodeId], shape: &Shape, path: &str) -> Compiled {
        let mut steps = Vec::with_capacity(branches.len());
        let mut against = Vec::new();
        let mut readable = false;
        for branch in branches {
            match self.read(writer, *branch, shape, path) {
                Ok(step) => {
                    readable = true;
                    steps.push(step);
                }
                Err(problems) => {
                    let detail = match problems.as_slice() {
                        [one] => one.message.clone(),
                        several => several.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                    };
                    steps.push(self.add(Step::Refuse(detail.into()), path));
                    against.extend(problems);
                }
            }
        }
        if readable { Ok(self.add(Step::Union(steps.into()), path)) } else { Err(against) }
    }

    fn list(
        &mut self,
        writer: &Schema,
        item: NodeId,
        shape: &Shape,
        offsets: &[Slot],
        path: &str,
    ) -> Result<List, Vec<Incompatibility>> {
        let item_bytes_min = self.bytes_min(writer, item);
        let mut slots = Vec::new();
        shape.slots(&mut slots);
        let width = |slot: &Slot| self.reader.slots[slot.0 as usize].kind.width();
        // All columns count, wanted or not: which records are too large must not depend on what is wanted.
        let item_width = slots.iter().map(width).sum();
        let item = self.read(writer, item, shape, path)?;
        Ok(List { item, item_bytes_min, item_width, offsets: self.targets(offsets) })
    }

    fn record(&mut self, writer: &Schema, wrote: NodeId, read: NodeId, shapes: &[Shape], path: &str) -> Compiled {
        let schema = &self.reader.schema;
        let (Kind::Record { fields: wanted, .. }, Kind::Record { fields: written, .. }) =
            (&schema.node(read).kind, &writer.node(wrote).kind)
        else {
            return Ok(self.add(Step::Nothing, path));
        };
        let mut problems = Vec::new();
        let mut reads: Vec<Option<usize>> = vec![None; written.len()];
        let mut constants = Vec::new();
        for (index, (field, shape)) in wanted.iter().zip(shapes).enumerate() {
            let at = step(path, &field.name);
            match (writer_field(writer, wrote, &field.name, &field.aliases), &field.default) {
                (Some(from), _) if reads[from].is_none() => reads[from] = Some(index),
                (Some(from), _) => {
                    let message = format!("the writer's `{}` is read by another field already", written[from].name);
                    problems.push(Problem::new(&at, message));
                }
                (None, Some(default)) => {
                    let mut bytes = Vec::new();
                    encode_default(schema, shape.written, default, &at, &mut bytes).map_err(|problem| vec![problem])?;
                    let around = std::mem::replace(&mut self.in_default, true);
                    let of = self.read(schema, shape.written, shape, &at);
                    self.in_default = around;
                    let of = of?;
                    constants.push(self.add(Step::Constant { bytes: bytes.into(), of }, &at));
                }
                (None, None) => problems.push(Problem::new(&at, MISSING_FIELD)),
            }
        }
        let mut steps = Vec::with_capacity(written.len() + constants.len());
        for (field, reader) in written.iter().zip(reads) {
            let compiled = match reader.and_then(|index| Some((wanted.get(index)?, shapes.get(index)?))) {
                Some((wanted, shape)) => self.read(writer, field.node, shape, &step(path, &wanted.name)),
                None => Ok(self.skip(writer, field.node, &step(path, &field.name))),
            };
            match compiled {
                Ok(one) => steps.push(one),
                Err(more) => problems.extend(more),
            }
        }
        steps.extend(constants);
        if problems.is_empty() { Ok(self.add(Step::Record(steps.into()), path)) } else { Err(problems) }
    }

    fn leaf(&self, writer: &Schema, wrote: NodeId, read: NodeId, to: Target) -> Result<Step, String> {
        let (read, wrote) = (self.reader.schema.node(read), writer.node(wrote));
        let narrow = matches!(wrote.kind, Kind::Int);
        let multiplied = match (read.logical, wrote.logical) {
            (Some(to), Some(from)) if matches!(read.kind, Kind::Int | Kind::Long) => factor(to, from)?,
            _ => 1,
        };
        let size = match wrote.kind {
            Kind::Fixed { size, .. } => Some(size),
            _ => None,
        };
        Ok(match (&read.kind, read.logical) {
            (_, Some(Logical::Decimal { precision, .. })) => Step::Decimal { to, size, bound: power_of_ten(precision) },
            (_, Some(Logical::Uuid)) => {
                let from = match wrote.kind {
                    Kind::String => UuidFrom::Text,
                    Kind::Fixed { .. } => UuidFrom::Fixed,
                    _ => UuidFrom::Bytes,
                };
                Step::Uuid { to, from }
            }
            (Kind::Boolean, _) => Step::Bool(to),
            (Kind::Int, logical) => Step::Int { to, within: logical.and_then(within) },
            (Kind::Long, logical) => Step::Long { to, narrow, factor: multiplied, within: logical.and_then(within) },
            (Kind::Float | Kind::Double, _) => {
                let wide = matches!(read.kind, Kind::Double);
                match wrote.kind {
                    Kind::Int | Kind::Long => Step::IntToFloat { to, narrow, wide },
                    Kind::Float => Step::Float { to, wide },
                    _ => Step::Double(to),
                }
            }
            (Kind::Fixed { size, .. }, _) => Step::Fixed { to, size: *size },
            (Kind::Bytes | Kind::String, _) => {
                let utf8 = matches!(read.kind, Kind::String) || matches!(wrote.kind, Kind::String);
                Step::Bytes { to, utf8 }
            }
            _ => Step::Nothing,
        })
    }

    /// The steps that walk a type of which nothing is kept.
    fn skip(&mut self, writer: &Schema, id: NodeId, path: &str) -> StepId {
        if let Some(step) = self.skips.get(&id) {
            return *step;
        }
        let (node, to) = (writer.node(id), Target::Nowhere);
        // The number is taken first, so that a type inside itself can name it.
        let here = self.add(Step::Nothing, path);
        self.skips.insert(id, here);
        let made = match &node.kind {
            Kind::Null => Step::Nothing,
            Kind::Boolean => Step::Bool(to),
            Kind::Int => Step::Int { to, within: None },
            Kind::Long => Step::Long { to, narrow: false, factor: 1, within: None },
            Kind::Float => Step::Float { to, wide: false },
            Kind::Double => Step::Double(to),
            Kind::Bytes => Step::Bytes { to, utf8: false },
            Kind::String => Step::Bytes { to, utf8: true },
            Kind::Fixed { size, .. } => Step::Fixed { to, size: *size },
            Kind::Enum { symbols, .. } => {
                Step::Enum { to, symbols: symbols.iter().map(|_| Some(Box::default())).collect() }
            }
            Kind::Array(item) => Step::Array(self.skip_list(writer, *item, &format!("{path}[]"), 0)),
            Kind::Map(value) => Step::Map { keys: to, list: self.skip_list(writer, *value, &format!("{path}{{}}"), 1) },
            Kind::Record { fields, .. } => Step::Record(
                fields.iter().map(|field| self.skip(writer, field.node, &step(path, &field.name))).collect(),
            ),
            Kind::Union(branches) => {
                Step::Union(branches.iter().map(|branch| self.skip(writer, *branch, path)).collect())
            }
        };
        self.steps[here.0 as usize] = made;
        here
    }

    fn skip_list(&mut self, writer: &Schema, item: NodeId, path: &str, key_bytes_min: usize) -> List {
        let item_bytes_min = self.bytes_min(writer, item).saturating_add(key_bytes_min);
        List { item: self.skip(writer, item, path), item_bytes_min, item_width: 0, offsets: Box::default() }
    }

    /// The least bytes that a value of a writer's type takes. Within a type that contains itself, the inner one counts
    /// as nothing: that is too little, never too much.
    fn bytes_min(&mut self, writer: &Schema, id: NodeId) -> usize {
        if self.in_default {
            // A default's bytes are our own, so nothing needs to be checked before they are read.
            return 0;
        }
        if let Some(known) = self.bytes_min.get(&id) {
            return *known;
        }
        self.bytes_min.insert(id, 0);
        let least = match &writer.node(id).kind {
            Kind::Null => 0,
            Kind::Float => 4,
            Kind::Double => 8,
            Kind::Fixed { size, .. } => *size,
            Kind::Record { fields, .. } => {
                fields.iter().fold(0usize, |sum, field| sum.saturating_add(self.bytes_min(writer, field.node)))
            }
            Kind::Union(branches) => {
                1 + branches.iter().map(|branch| self.bytes_min(writer, *branch)).min().unwrap_or(0)
            }
            _ => 1,
        };
        self.bytes_min.insert(id, least);
        least
    }
}

/// ClickHouse's bounds of dates and points in time, and a day's of times.
fn within(logical: Logical) -> Option<Within> {
    // 1900-01-01T00:00:00Z and the last second of 2299.
    const LEAST: i64 = -2_208_988_800;
    const GREATEST: i64 = 10_413_791_999;
    const DAY: i64 = 86_400;
    Some(match logical {
        Logical::Date => Within { least: LEAST / DAY, greatest: GREATEST / DAY, what: What::Date },
        Logical::TimeMillis => Within { least: 0, greatest: DAY * 1_000 - 1, what: What::TimeOfDay },
        Logical::TimeMicros => Within { least: 0, greatest: DAY * 1_000_000 - 1, what: What::TimeOfDay },
        Logical::Timestamp { digits, .. } => {
            let unit = 10i64.pow(u32::from(digits));
            // In nanoseconds the end of 2299 is beyond 64 bits; the sum saturates at the last one that they hold.
            let greatest = GREATEST.saturating_mul(unit).saturating_add(unit - 1);
            Within { least: LEAST.saturating_mul(unit), greatest, what: What::Time }
        }
        _ => return None,
    })
}

/// 10 to the power of `digits`, which is at most 76.
fn power_of_ten(digits: u32) -> i256 {
    (0..digits).fold(i256::ONE, |power, _| power.wrapping_mul(i256::from(10)))
}
