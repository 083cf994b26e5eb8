//! Whether a reader schema can read what a writer schema wrote, by the rules of the Avro specification ("Schema
//! Resolution"), told for every field at once.
//!
//! [`can_read`] is the check of a registry: a pair passes only if *every* value that the writer can write is readable.
//! The decoder is more patient, as the specification is: a value whose union branch or symbol the reader lacks is
//! refused, its neighbours are not.
//!
//! Where both sides carry a logical type, Weir adds what the specification leaves open, since a number that is read in
//! another unit is wrong without a sign of it: a decimal's scales have to agree (its base may be bytes or fixed of any
//! size); a time or timestamp may become finer (it is multiplied), never coarser; dates, times, timestamps and numbers
//! with another such meaning don't mix. A logical type on one side only counts as on the other.

use std::collections::HashSet;

use super::schema::{Kind, Logical, NodeId, Problem, Schema, TypeName, step};

/// Something that keeps a reader schema from reading a writer's values.
pub type Incompatibility = Problem;

/// Whether every value written with `writer` can be read with `reader`.
///
/// # Errors
/// Every incompatibility, with its path in the reader schema.
pub fn can_read(reader: &Schema, writer: &Schema) -> Result<(), Vec<Incompatibility>> {
    let mut check = Check { reader, writer, assumed: HashSet::new(), found: Vec::new() };
    check.pair(reader.root(), writer.root(), "");
    if check.found.is_empty() { Ok(()) } else { Err(check.found) }
}

struct Check<'a> {
    reader: &'a Schema,
    writer: &'a Schema,
    /// Pairs that are being looked at or were looked at: a recursive type is readable if everything else in it is.
    assumed: HashSet<(NodeId, NodeId)>,
    found: Vec<Incompatibility>,
}

impl Check<'_> {
    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        self.found.push(Problem::new(path, message));
    }

    /// Whether the pair alone is readable; what was found is dropped.
    fn reads(&mut self, reader: NodeId, writer: NodeId) -> bool {
        let before = self.found.len();
        let assumed = self.assumed.clone();
        self.pair(reader, writer, "");
        let readable = self.found.len() == before;
        self.found.truncate(before);
        if !readable {
            self.assumed = assumed;
        }
        readable
    }

    fn pair(&mut self, reader: NodeId, writer: NodeId, path: &str) {
        if !self.assumed.insert((reader, writer)) {
            return;
        }
        let (read, wrote) = (self.reader.node(reader), self.writer.node(writer));
        match (&read.kind, &wrote.kind) {
            (_, Kind::Union(branches)) => {
                for branch in branches {
                    self.pair(reader, *branch, path);
                }
            }
            (Kind::Union(branches), _) => {
                if !branches.iter().any(|branch| self.reads(*branch, writer)) {
                    self.refuse(
                        path,
                        format!("no type of the reader's union reads the writer's {}", wrote.kind.word()),
                    );
                }
            }
            (Kind::Array(read), Kind::Array(wrote)) => self.pair(*read, *wrote, &format!("{path}[]")),
            (Kind::Map(read), Kind::Map(wrote)) => self.pair(*read, *wrote, &format!("{path}{{}}")),
            (Kind::Record { name: read_name, .. }, Kind::Record { name: wrote_name, .. }) => {
                if !read_name.reads(wrote_name) {
                    self.refuse(path, names_differ(read_name, wrote_name));
                }
                self.record(reader, writer, path);
            }
            (Kind::Enum { name, symbols, default }, Kind::Enum { name: wrote_name, symbols: written, .. }) => {
                let missing: Vec<&str> =
                    written.iter().filter(|symbol| !symbols.contains(symbol)).map(String::as_str).collect();
                let (lacks, has_default) = (!missing.is_empty(), default.is_some());
                let message = format!(
                    "the reader's enum lacks {} and has no default; add the symbols or a default",
                    missing.join(", ")
                );
                if !name.reads(wrote_name) {
                    self.refuse(path, names_differ(name, wrote_name));
                }
                if lacks && !has_default {
                    self.refuse(path, message);
                }
            }
            _ => {
                if let Err(message) = scalar(self.reader, reader, self.writer, writer) {
                    self.refuse(path, message);
                }
            }
        }
    }

    fn record(&mut self, reader: NodeId, writer: NodeId, path: &str) {
        let Kind::Record { fields: wanted, .. } = &self.reader.node(reader).kind else { return };
        for field in wanted {
            let at = step(path, &field.name);
            match writer_field(self.writer, writer, &field.name, &field.aliases) {
                Some(index) => {
                    let Kind::Record { fields: written, .. } = &self.writer.node(writer).kind else { return };
                    let node = written[index].node;
                    self.pair(field.node, node, &at);
                }
                None if field.default.is_some() => {}
                None => self.refuse(&at, MISSING_FIELD),
            }
        }
    }
}

pub(super) const MISSING_FIELD: &str =
    "the writer has no such field and the reader no default for it; give it a default, or an alias if it was renamed";

pub(super) fn names_differ(reader: &TypeName, writer: &TypeName) -> String {
    format!("the reader's `{}` doesn't read the writer's `{}`; add that name as an alias", reader.full, writer.full)
}

/// Index of the writer's field that the reader's field called `name` reads: its own name first, then its aliases.
pub(super) fn writer_field(writer: &Schema, record: NodeId, name: &str, aliases: &[String]) -> Option<usize> {
    let Kind::Record { fields, .. } = &writer.node(record).kind else { return None };
    let find = |name: &str| fields.iter().position(|field| field.name == name);
    find(name).or_else(|| aliases.iter().find_map(|alias| find(alias)))
}

/// Whether a value that is neither a union, a list, an enum nor a record can be read, or what stands against it.
pub(super) fn scalar(reader: &Schema, read: NodeId, writer: &Schema, wrote: NodeId) -> Result<(), String> {
    let (read, wrote) = (reader.node(read), writer.node(wrote));
    if let (Some(Logical::Decimal { scale: to, .. }), Some(Logical::Decimal { scale: from, .. })) =
        (read.logical, wrote.logical)
    {
        return if to == from {
            Ok(())
        } else {
            Err(format!("the reader's decimal has scale {to}, the writer's {from}; scales have to agree"))
        };
    }
    match (&read.kind, &wrote.kind) {
        (Kind::Null, Kind::Null)
        | (Kind::Boolean, Kind::Boolean)
        | (Kind::Int, Kind::Int)
        | (Kind::Long, Kind::Int | Kind::Long)
        | (Kind::Float, Kind::Int | Kind::Long | Kind::Float)
        | (Kind::Double, Kind::Int | Kind::Long | Kind::Float | Kind::Double)
        | (Kind::Bytes | Kind::String, Kind::Bytes | Kind::String) => {}
        (Kind::Fixed { name, size }, Kind::Fixed { name: wrote_name, size: wrote_size }) => {
            if !name.reads(wrote_name) {
                return Err(names_differ(name, wrote_name));
            }
            if size != wrote_size {
                return Err(format!("the reader's fixed has {size} bytes, the writer's {wrote_size}"));
            }
        }
        (read, wrote) => {
            return Err(format!("the reader's {} doesn't read the writer's {}", read.word(), wrote.word()));
        }
    }
    match (read.logical, wrote.logical) {
        (Some(to), Some(from)) => factor(to, from).map(|_| ()),
        _ => Ok(()),
    }
}

/// What a written integer is multiplied by, or why two logical types don't mix.
pub(super) fn factor(reader: Logical, writer: Logical) -> Result<i64, String> {
    let digits = |logical| match logical {
        Logical::Timestamp { digits, .. } => Some((true, digits)),
        Logical::TimeMillis => Some((false, 3)),
        Logical::TimeMicros => Some((false, 6)),
        _ => None,
    };
    match (digits(reader), digits(writer)) {
        (Some((point, to)), Some((other_point, from))) if point == other_point && from <= to => {
            Ok(10i64.pow(u32::from(to - from)))
        }
        (None, None) if reader == writer => Ok(1),
        (Some((true, _)), Some((true, _))) | (Some((false, _)), Some((false, _))) => {
            Err(format!("the reader's {reader} is coarser than the writer's {writer}; read it as {writer}"))
        }
        _ => Err(format!("the reader's {reader} doesn't read the writer's {writer}")),
    }
}
