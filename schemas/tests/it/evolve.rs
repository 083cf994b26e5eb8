//! Decoding against an oracle: what `apache-avro` reads with the writer's schema alone, resolved to the reader's columns
//! by the slow and obvious code here, over random schemas, their evolutions and values.
//!
//! Finds: columns that slip by a row, blocks with sizes, nulls of nested records, defaults, aliases, promotions, ranges.

use std::sync::Arc;

use apache_avro::types::Value;
use arrow_buffer::i256;
use weir_schemas::avro::{Decoder, ReaderSchema, Schema, can_read};
use weir_schemas::profile::{Codes, Kind};
use weir_schemas::stage::{Column, profile_codes};

use crate::cells::{Cell, row, sorted};
use crate::codes::code_of;
use crate::generate::{Gen, Ty, Within};
use crate::write::{encode, schema};

/// A value that the reader has to refuse.
pub(crate) struct Refused;

/// The cells that `value`, written as `wrote`, becomes when it is read as `read`: one for each column.
pub(crate) fn cells(read: &Ty, wrote: &Ty, value: &Value) -> Result<Vec<Cell>, Refused> {
    match (read, wrote, value) {
        (_, Ty::Several(all), Value::Union(branch, inner)) => {
            let wrote = &all[*branch as usize];
            if can(read, wrote) { cells(read, wrote, inner) } else { Err(Refused) }
        }
        (Ty::Opt(..), Ty::Opt(..), Value::Union(_, null)) if **null == Value::Null => Ok(nulls(read)),
        (_, Ty::Opt(..), Value::Union(_, null)) if **null == Value::Null => Err(Refused),
        (_, Ty::Opt(wrote, _), Value::Union(_, inner)) => cells(read, wrote, inner),
        (Ty::Opt(read, _), _, _) => cells(read, wrote, value),
        (Ty::Rec(_, fields), Ty::Rec(_, written), Value::Record(values)) => {
            let mut all = Vec::new();
            // In the writer's order, as its first fault counts; then put into the reader's.
            for field in fields {
                let from = [Some(&field.name), field.alias.as_ref()];
                let index =
                    from.iter().flatten().find_map(|name| written.iter().position(|other| other.name == **name));
                match (index, &field.default) {
                    (Some(index), _) => all.extend(cells(&field.ty, &written[index].ty, &values[index].1)?),
                    (None, Some((_, default))) => all.extend(cells(&field.ty, &field.ty, default)?),
                    (None, None) => return Err(Refused),
                }
            }
            Ok(all)
        }
        (Ty::Arr(read), Ty::Arr(wrote), Value::Array(items)) => {
            let mut columns = vec![Vec::new(); nulls(read).len()];
            for item in items {
                for (column, cell) in columns.iter_mut().zip(cells(read, wrote, item)?) {
                    column.push(cell);
                }
            }
            Ok(columns.into_iter().map(Cell::List).collect())
        }
        (Ty::Map(read), Ty::Map(wrote), Value::Map(pairs)) => {
            let pairs: Result<Vec<_>, Refused> = pairs
                .iter()
                .map(|(key, value)| Ok((key.clone().into_bytes(), cells(read, wrote, value)?.remove(0))))
                .collect();
            Ok(vec![sorted(Cell::Map(pairs?))])
        }
        _ => Ok(vec![leaf(read, wrote, value)?]),
    }
}

/// Whether a reader's type can read a branch at all; only leaves occur in such unions.
fn can(read: &Ty, wrote: &Ty) -> bool {
    let read = match read {
        Ty::Opt(inner, _) => inner,
        read => read,
    };
    match (read, wrote) {
        (Ty::Long | Ty::Float | Ty::Double, Ty::Int) | (Ty::Float | Ty::Double, Ty::Long) | (Ty::Double, Ty::Float) => {
            true
        }
        (Ty::Float | Ty::Double, Ty::TimeMillis | Ty::Date | Ty::TimeMicros | Ty::Timestamp(..)) => true,
        (Ty::Int, Ty::Date | Ty::TimeMillis) => true,
        (Ty::Long, Ty::Date | Ty::TimeMillis | Ty::TimeMicros | Ty::Timestamp(..)) => true,
        (Ty::Date | Ty::TimeMillis, Ty::Int) => true,
        (Ty::TimeMicros | Ty::Timestamp(..), Ty::Int | Ty::Long) => true,
        (Ty::TimeMicros, Ty::TimeMillis) => true,
        (Ty::Bytes | Ty::Str, Ty::Bytes | Ty::Str | Ty::UuidText | Ty::Decimal(None, ..)) => true,
        (Ty::UuidText, Ty::Bytes | Ty::Str) => true,
        (Ty::Decimal(None, ..), Ty::Bytes | Ty::Str) => true,
        (Ty::Decimal(_, _, to), Ty::Decimal(_, _, from)) => to == from,
        (Ty::Timestamp(to, _), Ty::Timestamp(from, _)) => to >= from,
        (Ty::Enum(read, ..), Ty::Enum(wrote, ..)) => read == wrote,
        (read, wrote) => read == wrote,
    }
}

fn nulls(read: &Ty) -> Vec<Cell> {
    match read {
        Ty::Opt(inner, _) => nulls(inner),
        Ty::Rec(_, fields) => fields.iter().flat_map(|field| nulls(&field.ty)).collect(),
        Ty::Arr(item) => nulls(item).iter().map(|_| Cell::List(Vec::new())).collect(),
        Ty::Map(_) => vec![Cell::Map(Vec::new())],
        _ => vec![Cell::Null],
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) | Value::Date(n) | Value::TimeMillis(n) => Some(i64::from(*n)),
        Value::Long(n)
        | Value::TimeMicros(n)
        | Value::TimestampMillis(n)
        | Value::TimestampMicros(n)
        | Value::TimestampNanos(n)
        | Value::LocalTimestampMillis(n)
        | Value::LocalTimestampMicros(n)
        | Value::LocalTimestampNanos(n) => Some(*n),
        _ => None,
    }
}

fn raw(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Some(bytes.clone()),
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Uuid(uuid) => Some(uuid.to_string().into_bytes()),
        Value::Decimal(decimal) => decimal.try_into().ok(),
        _ => None,
    }
}

fn within(value: Option<i64>, least: i64, greatest: i64) -> Result<Cell, Refused> {
    value.filter(|value| (least..=greatest).contains(value)).map(Cell::Int).ok_or(Refused)
}

fn leaf(read: &Ty, wrote: &Ty, value: &Value) -> Result<Cell, Refused> {
    let number = integer(value);
    Ok(match (read, value) {
        (Ty::Bool, Value::Boolean(bit)) => Cell::Bool(*bit),
        (Ty::Int | Ty::Long, _) => Cell::Int(number.ok_or(Refused)?),
        (Ty::Float, Value::Float(x)) => Cell::Float(u64::from(x.to_bits())),
        (Ty::Double, Value::Float(x)) => Cell::Float(f64::from(*x).to_bits()),
        (Ty::Double, Value::Double(x)) => Cell::Float(x.to_bits()),
        (Ty::Float, _) => Cell::Float(u64::from((number.ok_or(Refused)? as f32).to_bits())),
        (Ty::Double, _) => Cell::Float((number.ok_or(Refused)? as f64).to_bits()),
        (Ty::Str, _) => {
            let bytes = raw(value).ok_or(Refused)?;
            std::str::from_utf8(&bytes).map_err(|_| Refused)?;
            Cell::Bytes(bytes)
        }
        (Ty::Bytes | Ty::Fixed(..), _) => Cell::Bytes(raw(value).ok_or(Refused)?),
        (Ty::Enum(_, symbols, default), Value::Enum(_, symbol)) => {
            let known = if symbols.contains(symbol) { Some(symbol) } else { default.as_ref() };
            Cell::Bytes(known.ok_or(Refused)?.clone().into_bytes())
        }
        (Ty::Decimal(_, precision, _), _) => {
            let bytes = raw(value).filter(|bytes| !bytes.is_empty()).ok_or(Refused)?;
            // Long values are summed up byte by byte: slow and sure, and exact while they fit.
            let negative = bytes[0] >= 128;
            let skip = bytes.iter().take_while(|byte| **byte == if negative { 255 } else { 0 }).count();
            let rest = &bytes[skip..];
            // Of 32 bytes the first bit has to be the sign's.
            if rest.len() > 32 || (rest.len() == 32 && (rest[0] >= 128) != negative) {
                return Err(Refused);
            }
            let start = if negative { i256::MINUS_ONE } else { i256::ZERO };
            let number = rest
                .iter()
                .fold(start, |sum, byte| sum.wrapping_mul(i256::from(256)).wrapping_add(i256::from(i32::from(*byte))));
            let text = number.to_string();
            if text.trim_start_matches('-').len() > *precision as usize {
                return Err(Refused);
            }
            Cell::Decimal(number)
        }
        (Ty::UuidText | Ty::UuidFixed(_), Value::Uuid(uuid)) => Cell::Bytes(uuid.as_bytes().to_vec()),
        (Ty::UuidText, Value::Bytes(bytes)) if bytes.len() == 16 => Cell::Bytes(bytes.clone()),
        (Ty::UuidText, _) => {
            let text = raw(value).filter(|text| text.len() == 36).ok_or(Refused)?;
            let uuid = apache_avro::Uuid::try_parse_ascii(&text).map_err(|_| Refused)?;
            Cell::Bytes(uuid.as_bytes().to_vec())
        }
        (Ty::Date, _) => within(number, -25_567, 120_529)?,
        (Ty::TimeMillis, _) => within(number, 0, 86_399_999)?,
        (Ty::TimeMicros, _) => {
            let number = if *wrote == Ty::TimeMillis { number.and_then(|n| n.checked_mul(1000)) } else { number };
            within(number, 0, 86_399_999_999)?
        }
        (Ty::Timestamp(to, _), _) => {
            let from = if let Ty::Timestamp(from, _) = wrote { *from } else { *to };
            let number = number.and_then(|n| n.checked_mul(10i64.pow(u32::from(to - from))));
            let unit = 10i128.pow(u32::from(*to));
            let least = i64::try_from(-2_208_988_800 * unit).unwrap_or(i64::MIN);
            let greatest = i64::try_from(10_413_792_000 * unit - 1).unwrap_or(i64::MAX);
            within(number, least, greatest)?
        }
        (Ty::Duration(_), Value::Duration(duration)) => Cell::Bytes(<[u8; 12]>::from(*duration).to_vec()),
        (read, value) => panic!("{value:?} doesn't become {read:?}"),
    })
}

#[test]
fn random_schemas_and_evolutions_decode_as_the_oracle_says() {
    crate::cap_the_oracle();
    let (mut decoded, mut refused, mut with_differences) = (0usize, 0usize, 0usize);
    for seed in 0..1_500 {
        let mut generator = Gen::new(seed);
        let fields = generator.rng.usize(1..9);
        let wrote = generator.record(fields, 3, Within::Top);
        let read = generator.evolve(&wrote);
        let (writer_text, reader_text) = (schema(&wrote), schema(&read));
        let told = format!("seed {seed}\nwriter {writer_text}\nreader {reader_text}");
        let writer = Schema::parse(&writer_text).unwrap_or_else(|error| panic!("{error}\n{told}"));
        let reader = Arc::new(ReaderSchema::parse(&reader_text).unwrap_or_else(|error| panic!("{error}\n{told}")));
        let all = vec![true; reader.columns.len()];
        let decoder =
            Decoder::new(&writer, Arc::clone(&reader), &all).unwrap_or_else(|error| panic!("{error:?}\n{told}"));
        with_differences += usize::from(can_read(reader.schema(), &writer).is_err());

        let oracle = apache_avro::Schema::parse_str(&writer_text).unwrap_or_else(|error| panic!("{error}\n{told}"));
        let mut rng = generator.rng.fork();
        let mut records = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..20 {
            let mut bytes = Vec::new();
            encode(&generator.value(&wrote), &wrote, &mut rng, &mut bytes);
            let mut rest = bytes.as_slice();
            #[expect(deprecated, reason = "the plain function is what an oracle needs")]
            let value = apache_avro::from_avro_datum(&oracle, &mut rest, None)
                .unwrap_or_else(|error| panic!("{error}\n{told}"));
            assert!(rest.is_empty(), "{told}");
            expected.push(cells(&read, &wrote, &value).ok());
            records.push(bytes);
        }
        let result = decoder.decode(&records).expect("a small batch");
        let accepted: Vec<u32> = (0..20).filter(|index| expected[*index as usize].is_some()).collect();
        assert_eq!(result.records, accepted, "{told}\n{:?}", result.refused);
        for (at, record) in result.records.iter().enumerate() {
            let expected =
                expected[*record as usize].clone().map(|row| row.into_iter().map(sorted).collect::<Vec<_>>());
            assert_eq!(Some(row(&result.batch, at)), expected, "record {record}\n{told}");
        }
        decoded += result.records.len();
        refused += result.refused.len();

        // What is wanted changes nothing but the columns that are there.
        let some: Vec<bool> = all.iter().map(|_| rng.bool()).collect();
        let part = Decoder::new(&writer, Arc::clone(&reader), &some)
            .expect("it compiled before")
            .decode(&records)
            .expect("small");
        assert_eq!((&part.records, &part.refused), (&result.records, &result.refused), "{told}");
        let indices: Vec<usize> = (0..some.len()).filter(|index| some[*index]).collect();
        assert_eq!(part.batch, result.batch.project(&indices).expect("indices in bounds"), "{told}");

        // Codes are those of the values, whichever columns are there.
        let mut kind = |column: &Column| if rng.u8(0..4) == 0 { Kind::Opaque } else { Kind::of(&column.column_type) };
        let kinds: Vec<Kind> = reader.columns.iter().map(&mut kind).collect();
        let places = Codes::new(kinds.iter().copied());
        let coded = Decoder::with_codes(&writer, Arc::clone(&reader), &some, Some(&places))
            .expect("it compiled before")
            .decode(&records)
            .expect("small");
        assert_eq!((&coded.records, &coded.refused), (&result.records, &result.refused), "{told}");
        let before: Vec<usize> = (0..indices.len()).collect();
        assert_eq!(coded.batch.project(&before).expect("codes are the last"), part.batch, "{told}");
        let codes = profile_codes(&coded.batch).expect("there are codes");
        for at in 0..result.records.len() {
            let cells = row(&result.batch, at).into_iter().zip(&reader.columns).zip(&kinds);
            let mut expected = vec![0; places.bytes()];
            for (index, ((cell, column), kind)) in cells.enumerate() {
                let code = code_of(&cell, &column.column_type, *kind);
                let (_, from) = places.place(index).expect("each column has one");
                expected[from..from + code.len()].copy_from_slice(&code);
            }
            assert_eq!(codes.value(at), expected, "codes of {:?}\n{told}", row(&result.batch, at));
        }
    }
    assert!(decoded > 15_000 && refused > 1_500 && with_differences > 100, "{decoded} {refused} {with_differences}");
}
