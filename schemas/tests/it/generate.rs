//! Random schemas, their evolutions and values, from a seed.

use apache_avro::types::Value;
use arrow_buffer::i256;
use fastrand::Rng;
use serde_json::{Value as Json, json};

use crate::write::label;

/// A type as the tests think of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ty {
    Bool,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Str,
    Fixed(String, usize),
    Enum(String, Vec<String>, Option<String>),
    /// In bytes, or in a fixed of that name and size; precision and scale.
    Decimal(Option<(String, usize)>, u32, u32),
    UuidText,
    UuidFixed(String),
    Date,
    TimeMillis,
    TimeMicros,
    Timestamp(u8, bool),
    Duration(String),
    /// With null; whether null comes first.
    Opt(Box<Ty>, bool),
    /// A writer's union of several types.
    Several(Vec<Ty>),
    Arr(Box<Ty>),
    Map(Box<Ty>),
    Rec(String, Vec<Field>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) ty: Ty,
    /// A value that the writer doesn't send, as JSON and as a tree.
    pub(crate) default: Option<(Json, Value)>,
}

/// Where a type stands. Directly below a record, ClickHouse takes all arrays and maps for one list, so there are none.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Within {
    Top,
    Record,
    List,
}

pub(crate) struct Gen {
    pub(crate) rng: Rng,
    names: usize,
    /// Records around the type that is being evolved.
    records: usize,
}

impl Gen {
    pub(crate) fn new(seed: u64) -> Gen {
        Gen { rng: Rng::with_seed(seed), names: 0, records: 0 }
    }

    pub(crate) fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    pub(crate) fn record(&mut self, fields: usize, depth: usize, within: Within) -> Ty {
        let name = self.name("R");
        let fields = (0..fields)
            .map(|_| {
                let ty = self.ty(depth, within);
                Field { name: self.name("f"), alias: None, ty, default: None }
            })
            .collect();
        Ty::Rec(name, fields)
    }

    fn ty(&mut self, depth: usize, within: Within) -> Ty {
        if depth == 0 {
            return self.scalar();
        }
        match self.rng.u32(0..26) {
            0..19 => self.scalar(),
            19 | 20 => {
                let inner = self.ty(depth - 1, within);
                match inner {
                    Ty::Opt(..) | Ty::Several(_) => inner,
                    inner => Ty::Opt(Box::new(inner), self.rng.bool()),
                }
            }
            21 => {
                let mut all = vec![self.scalar()];
                for _ in 0..2 {
                    let another = self.scalar();
                    if all.iter().all(|one| label(one) != label(&another)) {
                        all.push(another);
                    }
                }
                Ty::Several(all)
            }
            22 | 23 if within != Within::Record => {
                if self.rng.bool() {
                    let count = self.rng.usize(1..4);
                    Ty::Arr(Box::new(self.record(count, depth - 1, Within::List)))
                } else {
                    Ty::Arr(Box::new(self.ty(depth - 1, Within::List)))
                }
            }
            24 if within != Within::Record => {
                let mut value = self.ty(depth - 1, Within::List);
                while holds_record(&value) {
                    value = self.scalar();
                }
                Ty::Map(Box::new(value))
            }
            25 => {
                let count = self.rng.usize(1..4);
                self.record(count, depth - 1, if within == Within::Top { Within::Record } else { within })
            }
            _ => Ty::Str,
        }
    }

    fn scalar(&mut self) -> Ty {
        match self.rng.u32(0..19) {
            0 => Ty::Bool,
            1 => Ty::Int,
            2 => Ty::Long,
            3 => Ty::Float,
            4 => Ty::Double,
            5 => Ty::Bytes,
            6 | 7 => Ty::Str,
            8 => Ty::Fixed(self.name("X"), self.rng.usize(1..20)),
            9 => {
                let symbols = (0..self.rng.usize(1..5)).map(|_| self.name("S")).collect();
                Ty::Enum(self.name("E"), symbols, None)
            }
            10 => {
                let precision = self.rng.u32(1..=76);
                Ty::Decimal(None, precision, self.rng.u32(0..=precision))
            }
            11 => {
                let precision = self.rng.u32(1..=76);
                let size = (f64::from(precision) * 10f64.log2() / 8.0) as usize + 2;
                Ty::Decimal(Some((self.name("D"), size)), precision, self.rng.u32(0..=precision))
            }
            12 => Ty::UuidText,
            13 => Ty::UuidFixed(self.name("U")),
            14 => Ty::Date,
            15 => Ty::TimeMillis,
            16 => Ty::TimeMicros,
            17 => Ty::Timestamp([3, 6, 9][self.rng.usize(0..3)], self.rng.bool()),
            _ => Ty::Duration(self.name("P")),
        }
    }

    /// What a reader may make of a writer's type. Unions of several types become one of them.
    pub(crate) fn evolve(&mut self, ty: &Ty) -> Ty {
        let change = self.rng.u32(0..10) < 3;
        match ty {
            Ty::Int if change => [Ty::Long, Ty::Float, Ty::Double, Ty::Int][self.rng.usize(0..4)].clone(),
            Ty::Long if change => [Ty::Float, Ty::Double, Ty::Timestamp(6, false)][self.rng.usize(0..3)].clone(),
            Ty::Float if change => Ty::Double,
            Ty::Bytes if change => Ty::Str,
            Ty::Str if change => Ty::Bytes,
            Ty::Timestamp(3, local) if change => Ty::Timestamp([6, 9][self.rng.usize(0..2)], *local),
            Ty::TimeMillis if change => Ty::TimeMicros,
            Ty::Decimal(base, precision, scale) if change => {
                Ty::Decimal(base.clone(), self.rng.u32(*scale.max(&1)..=*precision), *scale)
            }
            Ty::Enum(name, symbols, _) if change => {
                let kept: Vec<String> = symbols.iter().filter(|_| self.rng.bool()).cloned().collect();
                let kept = if kept.is_empty() { symbols.clone() } else { kept };
                let default = self.rng.bool().then(|| kept[0].clone());
                Ty::Enum(name.clone(), kept, default)
            }
            Ty::Opt(inner, first) => {
                let inner = self.evolve(inner);
                if change || matches!(inner, Ty::Opt(..)) { inner } else { Ty::Opt(Box::new(inner), *first) }
            }
            Ty::Several(all) => {
                let one = all[self.rng.usize(0..all.len())].clone();
                self.evolve(&one)
            }
            Ty::Arr(item) => Ty::Arr(Box::new(self.evolve(item))),
            Ty::Map(value) => Ty::Map(Box::new(self.evolve(value))),
            Ty::Rec(name, fields) => {
                self.records += 1;
                let mut kept = Vec::new();
                for field in fields {
                    if self.rng.u32(0..8) == 0 {
                        continue;
                    }
                    let mut field = Field { ty: self.evolve(&field.ty), ..field.clone() };
                    if self.rng.u32(0..6) == 0 {
                        field.alias = Some(std::mem::replace(&mut field.name, self.name("renamed")));
                    }
                    kept.push(field);
                }
                kept.extend((0..self.rng.usize(0..3)).map(|_| self.added()));
                if kept.is_empty() {
                    kept.push(fields[0].clone());
                    kept[0].ty = self.evolve(&fields[0].ty);
                }
                self.records -= 1;
                self.rng.shuffle(&mut kept);
                Ty::Rec(name.clone(), kept)
            }
            same => {
                if change && !matches!(same, Ty::Opt(..)) {
                    Ty::Opt(Box::new(same.clone()), true)
                } else {
                    same.clone()
                }
            }
        }
    }

    /// A field that the writer doesn't have.
    fn added(&mut self) -> Field {
        let (ty, json, tree) = match self.rng.u32(0..5) {
            0 => (Ty::Long, json!(-77), Value::Long(-77)),
            1 => (Ty::Str, json!("fallback"), Value::String("fallback".into())),
            2 => (Ty::Opt(Box::new(Ty::Int), true), Json::Null, Value::Union(0, Box::new(Value::Null))),
            3 if self.records == 1 => {
                let tree = Value::Map([("k".into(), Value::Boolean(true))].into());
                (Ty::Map(Box::new(Ty::Bool)), json!({"k": true}), tree)
            }
            _ => (Ty::Double, json!(2.5), Value::Double(2.5)),
        };
        Field { name: self.name("added"), alias: None, ty, default: Some((json, tree)) }
    }

    pub(crate) fn value(&mut self, ty: &Ty) -> Value {
        let odd = self.rng.u32(0..60) == 0;
        match ty {
            Ty::Bool => Value::Boolean(self.rng.bool()),
            Ty::Int => Value::Int(self.rng.i32(..) >> self.rng.u32(0..32)),
            Ty::Long => Value::Long(self.rng.i64(..) >> self.rng.u32(0..64)),
            Ty::Float => Value::Float(f32::from_bits(self.rng.u32(..))),
            Ty::Double => Value::Double(f64::from_bits(self.rng.u64(..))),
            Ty::Bytes => {
                Value::Bytes((0..self.rng.usize(0..20)).map(|_| self.rng.u8(0..if odd { 255 } else { 128 })).collect())
            }
            Ty::Str => Value::String((0..self.rng.usize(0..20)).map(|_| self.rng.char('a'..'\u{2fff}')).collect()),
            Ty::Fixed(_, size) => Value::Fixed(*size, (0..*size).map(|_| self.rng.u8(..)).collect()),
            Ty::Enum(_, symbols, _) => {
                let index = self.rng.usize(0..symbols.len());
                Value::Enum(index as u32, symbols[index].clone())
            }
            Ty::Decimal(base, precision, _) => Value::Decimal(self.decimal(base, *precision, odd).as_slice().into()),
            Ty::UuidText | Ty::UuidFixed(_) => Value::Uuid(apache_avro::Uuid::from_u128(self.rng.u128(..))),
            Ty::Date => Value::Date(if odd { self.rng.i32(..) } else { self.rng.i32(-25_567..=120_529) }),
            Ty::TimeMillis => Value::TimeMillis(if odd { self.rng.i32(..) } else { self.rng.i32(0..86_400_000) }),
            Ty::TimeMicros => Value::TimeMicros(if odd { self.rng.i64(..) } else { self.rng.i64(0..86_400_000_000) }),
            Ty::Timestamp(digits, local) => {
                let unit = 10i64.pow(u32::from(*digits));
                let at = if odd {
                    self.rng.i64(..)
                } else {
                    self.rng.i64(-2_000_000_000..9_000_000_000).saturating_mul(unit)
                };
                match (digits, local) {
                    (3, false) => Value::TimestampMillis(at),
                    (6, false) => Value::TimestampMicros(at),
                    (_, false) => Value::TimestampNanos(at),
                    (3, true) => Value::LocalTimestampMillis(at),
                    (6, true) => Value::LocalTimestampMicros(at),
                    (_, true) => Value::LocalTimestampNanos(at),
                }
            }
            Ty::Duration(_) => {
                let bytes: [u8; 12] = std::array::from_fn(|_| self.rng.u8(..));
                Value::Duration(bytes.into())
            }
            Ty::Opt(inner, first) => {
                let (null, some) = if *first { (0, 1) } else { (1, 0) };
                if self.rng.u32(0..4) == 0 {
                    Value::Union(null, Box::new(Value::Null))
                } else {
                    Value::Union(some, Box::new(self.value(inner)))
                }
            }
            Ty::Several(all) => {
                let index = self.rng.usize(0..all.len());
                Value::Union(index as u32, Box::new(self.value(&all[index])))
            }
            Ty::Arr(item) => Value::Array((0..self.rng.usize(0..5)).map(|_| self.value(item)).collect()),
            Ty::Map(of) => {
                Value::Map((0..self.rng.usize(0..4)).map(|key| (format!("k{key}"), self.value(of))).collect())
            }
            Ty::Rec(_, fields) => {
                Value::Record(fields.iter().map(|field| (field.name.clone(), self.value(&field.ty))).collect())
            }
        }
    }

    /// Two's complement of a value within the precision, or of one a digit too long.
    fn decimal(&mut self, base: &Option<(String, usize)>, precision: u32, odd: bool) -> Vec<u8> {
        let digits = if odd && precision < 76 { precision + 1 } else { self.rng.u32(1..=precision) };
        let mut value = i256::from_i128(self.rng.i128(1..10));
        for _ in 1..digits {
            value = value.wrapping_mul(i256::from(10)).wrapping_add(i256::from(self.rng.i32(0..10)));
        }
        if self.rng.bool() {
            value = value.wrapping_neg();
        }
        let all = value.to_be_bytes();
        let size = match base {
            Some((_, size)) => *size,
            None => 1 + self.rng.usize(0..32).max((f64::from(digits) * 10f64.log2() / 8.0) as usize + 1).min(31),
        };
        let fill = if value.is_negative() { 0xff } else { 0 };
        let mut bytes = vec![fill; size.saturating_sub(32)];
        bytes.extend(&all[32usize.saturating_sub(size)..]);
        bytes
    }
}

fn holds_record(ty: &Ty) -> bool {
    match ty {
        Ty::Rec(..) => true,
        Ty::Opt(inner, _) | Ty::Arr(inner) | Ty::Map(inner) => holds_record(inner),
        _ => false,
    }
}
