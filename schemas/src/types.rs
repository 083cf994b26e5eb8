//! The types of columns: ClickHouse's, because their names and rules are the ones that count, each with
//! the one Arrow type that carries it.
//!
//! Invariant: every array in the dataflow has exactly the Arrow type that [`ColumnType::arrow`] names.
//! `String` travels as Arrow `Binary`, since ClickHouse's strings are bytes and its functions count bytes.
//!
//! Not here: conversion rules (promotion, overflow) are the expressions' business; text of DDL is the sink's,
//! but the *name* of a type is part of its meaning and is written and read here.

use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, TimeUnit};

/// A ClickHouse type that Weir can carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// `Bool`.
    Bool,
    /// `Int8` to `Int64`, by width in bits.
    Int(Width),
    /// `UInt8` to `UInt64`, by width in bits.
    UInt(Width),
    /// `Float32`.
    Float32,
    /// `Float64`.
    Float64,
    /// `Decimal(precision, scale)`, precision 1 to 76.
    Decimal(u8, u8),
    /// `String`: bytes.
    String,
    /// `LowCardinality(String)`: the same bytes, few distinct ones.
    LowCardinality,
    /// `FixedString(n)`.
    FixedString(u16),
    /// `UUID`; the 16 bytes are in the order in which the text shows them.
    Uuid,
    /// `Date`: days, 1970 to 2149.
    Date,
    /// `Date32`: days, 1900 to 2299.
    Date32,
    /// `DateTime('zone')`: whole seconds; the zone is for display and for the functions of calendar.
    DateTime(Option<Zone>),
    /// `DateTime64(scale, 'zone')`, scale 0, 3, 6 or 9.
    DateTime64(u8, Option<Zone>),
    /// `Array(T)`.
    Array(Box<ColumnType>),
    /// `Map(K, V)`.
    Map(Box<ColumnType>, Box<ColumnType>),
    /// `Nullable(T)`; never of a nullable, an array or a map.
    Nullable(Box<ColumnType>),
    /// `AggregateFunction(f, T...)`: the state's bytes. The text between the parentheses.
    AggregateState(String),
}

/// The width of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    W8 = 8,
    /// 16 bits.
    W16 = 16,
    /// 32 bits.
    W32 = 32,
    /// 64 bits.
    W64 = 64,
}

/// A time zone's IANA name.
pub type Zone = Arc<str>;

impl ColumnType {
    /// The Arrow type that carries this one; null slots are allowed exactly in `Nullable`.
    pub fn arrow(&self) -> DataType {
        match self {
            ColumnType::Bool => DataType::Boolean,
            ColumnType::Int(Width::W8) => DataType::Int8,
            ColumnType::Int(Width::W16) => DataType::Int16,
            ColumnType::Int(Width::W32) => DataType::Int32,
            ColumnType::Int(Width::W64) => DataType::Int64,
            ColumnType::UInt(Width::W8) => DataType::UInt8,
            ColumnType::UInt(Width::W16) => DataType::UInt16,
            ColumnType::UInt(Width::W32) => DataType::UInt32,
            ColumnType::UInt(Width::W64) => DataType::UInt64,
            ColumnType::Float32 => DataType::Float32,
            ColumnType::Float64 => DataType::Float64,
            ColumnType::Decimal(p, s) if *p <= 38 => DataType::Decimal128(*p, *s as i8),
            ColumnType::Decimal(p, s) => DataType::Decimal256(*p, *s as i8),
            ColumnType::String | ColumnType::LowCardinality | ColumnType::AggregateState(_) => DataType::Binary,
            ColumnType::FixedString(n) => DataType::FixedSizeBinary(i32::from(*n)),
            ColumnType::Uuid => DataType::FixedSizeBinary(16),
            ColumnType::Date | ColumnType::Date32 => DataType::Date32,
            ColumnType::DateTime(_) => DataType::Timestamp(TimeUnit::Second, None),
            ColumnType::DateTime64(scale, _) => DataType::Timestamp(unit_of(*scale), None),
            ColumnType::Array(of) => DataType::List(Arc::new(of.field("item"))),
            ColumnType::Map(key, value) => DataType::Map(
                Arc::new(Field::new(
                    "entries",
                    DataType::Struct(Fields::from(vec![key.field("key"), value.field("value")])),
                    false,
                )),
                false,
            ),
            ColumnType::Nullable(of) => of.arrow(),
        }
    }

    /// An Arrow field of this type.
    pub fn field(&self, name: &str) -> Field {
        Field::new(name, self.arrow(), self.is_nullable())
    }

    /// Whether this is `Nullable(T)`.
    pub fn is_nullable(&self) -> bool {
        matches!(self, ColumnType::Nullable(_))
    }

    /// The type without its `Nullable`.
    pub fn without_null(&self) -> &ColumnType {
        match self {
            ColumnType::Nullable(of) => of,
            other => other,
        }
    }

    /// `Nullable` of this type; arrays, maps and states stay as they are, as ClickHouse forbids those.
    #[must_use]
    pub fn nullable(self) -> ColumnType {
        match self {
            ColumnType::Nullable(_) | ColumnType::Array(_) | ColumnType::Map(..) | ColumnType::AggregateState(_) => {
                self
            }
            other => ColumnType::Nullable(Box::new(other)),
        }
    }
}

/// Arrow's unit of a `DateTime64` scale. Scales between the four take the next finer unit.
fn unit_of(scale: u8) -> TimeUnit {
    match scale {
        0 => TimeUnit::Second,
        1..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

impl fmt::Display for ColumnType {
    /// The type as ClickHouse writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnType::Bool => f.write_str("Bool"),
            ColumnType::Int(w) => write!(f, "Int{}", *w as u8),
            ColumnType::UInt(w) => write!(f, "UInt{}", *w as u8),
            ColumnType::Float32 => f.write_str("Float32"),
            ColumnType::Float64 => f.write_str("Float64"),
            ColumnType::Decimal(p, s) => write!(f, "Decimal({p}, {s})"),
            ColumnType::String => f.write_str("String"),
            ColumnType::LowCardinality => f.write_str("LowCardinality(String)"),
            ColumnType::FixedString(n) => write!(f, "FixedString({n})"),
            ColumnType::Uuid => f.write_str("UUID"),
            ColumnType::Date => f.write_str("Date"),
            ColumnType::Date32 => f.write_str("Date32"),
            ColumnType::DateTime(None) => f.write_str("DateTime"),
            ColumnType::DateTime(Some(zone)) => write!(f, "DateTime('{zone}')"),
            ColumnType::DateTime64(scale, None) => write!(f, "DateTime64({scale})"),
            ColumnType::DateTime64(scale, Some(zone)) => write!(f, "DateTime64({scale}, '{zone}')"),
            ColumnType::Array(of) => write!(f, "Array({of})"),
            ColumnType::Map(key, value) => write!(f, "Map({key}, {value})"),
            // LowCardinality stands outside Nullable in ClickHouse.
            ColumnType::Nullable(of) if **of == ColumnType::LowCardinality => {
                f.write_str("LowCardinality(Nullable(String))")
            }
            ColumnType::Nullable(of) => write!(f, "Nullable({of})"),
            ColumnType::AggregateState(inner) => write!(f, "AggregateFunction({inner})"),
        }
    }
}
