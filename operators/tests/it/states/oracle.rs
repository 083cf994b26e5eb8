//! Every function over every type, on invented rows, against ClickHouse over the same rows.
//!
//! For each group: our value is the engine's; the engine finalises our state to the same value; our merge of the
//! engine's state finishes as it, and in our bytes; and a table to which the engine has added one half of the rows
//! and we the other half, as RowBinary, merges to it. The same for `-If`, whose states are those of the function
//! itself.

use arrow_array::{Array, ArrayRef, BooleanArray};
use weir_operators::aggregate::{Accumulator, Call, Function, accumulator};
use weir_schemas::types::{ColumnType, Width};

use super::calls::{call, functions, parameters, types};
use super::engine::Engine;
use super::golden::{hex, same, unhex};
use super::values::{NULL, array, text};

/// Rows of one type: which group each is in, its value, and whether the condition holds.
struct Rows {
    groups: Vec<u32>,
    values: Vec<String>,
    nullable_values: Vec<String>,
    conditions: Vec<bool>,
    halves: Vec<bool>,
}

/// A generator of a sequence that depends on its seed alone.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A value of a type out of about `distinct` different ones.
fn value(of: &ColumnType, random: &mut Random, distinct: u64) -> String {
    let mut chosen = Random(random.below(distinct));
    let number = chosen.next();
    let time = |number: u64, digits: usize| {
        let seconds = (number % 4_000_000_000) as i64;
        let fraction = format!("{:09}", number % 1_000_000_000);
        let text = chrono::DateTime::from_timestamp(seconds, 0).unwrap().format("%Y-%m-%d %H:%M:%S").to_string();
        if digits == 0 { text } else { format!("{text}.{}", &fraction[..digits]) }
    };
    match of {
        ColumnType::Bool => number.is_multiple_of(2).to_string(),
        ColumnType::Int(Width::W8) => (number as i8).to_string(),
        ColumnType::Int(Width::W16) => (number as i16).to_string(),
        ColumnType::Int(Width::W32) => (number as i32).to_string(),
        ColumnType::Int(Width::W64) => (number as i64).to_string(),
        ColumnType::UInt(Width::W8) => (number as u8).to_string(),
        ColumnType::UInt(Width::W16) => (number as u16).to_string(),
        ColumnType::UInt(Width::W32) => (number as u32).to_string(),
        ColumnType::UInt(Width::W64) => number.to_string(),
        // Eighths add up without rounding, so that the order of a sum does not show.
        ColumnType::Float32 | ColumnType::Float64 => ((number as i16 as f64) / 8.0).to_string(),
        ColumnType::Decimal(precision, scale) => {
            let limit = 10u64.pow(u32::from((*precision).min(18)));
            let digits = format!("{:0>width$}", number % limit, width = usize::from(*scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(*scale));
            format!("{}{whole}.{fraction}", if number >> 63 == 0 { "" } else { "-" })
        }
        ColumnType::FixedString(_) => format!("{:05}", number % 100_000),
        ColumnType::String | ColumnType::LowCardinality => "äx".repeat((number % 60) as usize) + &number.to_string(),
        ColumnType::Uuid => {
            let hex = format!("{number:016x}{:016x}", chosen.next());
            format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
        }
        ColumnType::Date | ColumnType::Date32 => time(number, 0)[..10].into(),
        ColumnType::DateTime(_) => time(number, 0),
        ColumnType::DateTime64(scale, _) => time(number, usize::from(*scale)),
        other => panic!("no values of {other}"),
    }
}

/// Groups of the given numbers of rows, mixed.
fn rows(of: &ColumnType, sizes: &[usize], random: &mut Random) -> Rows {
    let mut groups: Vec<u32> =
        sizes.iter().enumerate().flat_map(|(group, size)| std::iter::repeat_n(group as u32, *size)).collect();
    for at in (1..groups.len()).rev() {
        groups.swap(at, random.below(at as u64 + 1) as usize);
    }
    let mut made = Rows { groups, values: vec![], nullable_values: vec![], conditions: vec![], halves: vec![] };
    for group in &made.groups {
        let distinct = sizes[*group as usize] as u64 * 3 / 4 + 1;
        let value = value(of, random, distinct);
        // A group in three has nothing but nulls.
        let null = random.below(4) == 0 || group % 3 == 2;
        made.nullable_values.push(if null { NULL.into() } else { value.clone() });
        made.values.push(value);
        made.conditions.push(random.below(3) > 0 && group % 4 != 3);
        made.halves.push(random.below(2) == 0);
    }
    made
}

impl Rows {
    fn array(&self, argument: &ColumnType) -> ArrayRef {
        let values = if argument.is_nullable() { &self.nullable_values } else { &self.values };
        array(argument, &values.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn load(&self, engine: &Engine, of: &ColumnType) {
        engine.send("DROP TABLE IF EXISTS r", b"");
        let nullable = of.clone().nullable();
        engine.send(&format!("CREATE TABLE r (k UInt32, x {of}, n {nullable}, c UInt8, h UInt8) ENGINE = Memory"), b"");
        let mut body = String::new();
        for row in 0..self.groups.len() {
            body += &format!(
                "{}\t{}\t{}\t{}\t{}\n",
                self.groups[row],
                self.values[row],
                self.nullable_values[row],
                u8::from(self.conditions[row]),
                u8::from(self.halves[row])
            );
        }
        engine.send("INSERT INTO r FORMAT TSV", body.as_bytes());
    }
}

/// The accumulator after these rows, with a slot for every group.
fn ours(
    call: &Call,
    rows: &Rows,
    values: &ArrayRef,
    filter: Option<&BooleanArray>,
    slots: usize,
) -> Box<dyn Accumulator> {
    let mut ours = accumulator(call).unwrap();
    ours.grow(slots);
    // In batches, as a stream would bring them.
    let step = 1000;
    for at in (0..values.len()).step_by(step) {
        let length = step.min(values.len() - at);
        let filter = filter.map(|filter| filter.slice(at, length));
        ours.update(&rows.groups[at..at + length], &[values.slice(at, length)], filter.as_ref()).unwrap();
    }
    ours
}

fn state(accumulator: &dyn Accumulator, slot: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    accumulator.write_state(slot, &mut bytes);
    bytes
}

/// Checks one call on the rows in the engine's table.
fn check(engine: &Engine, call: &Call, argument: &ColumnType, rows: &Rows, conditional: bool, slots: usize) {
    let (name, parameters) = (call.function.name(), parameters(&call.function));
    let column = if argument.is_nullable() { "n" } else { "x" };
    let (suffix, condition) = if conditional { ("If", ", c") } else { ("", "") };
    let what = format!("{name}{suffix}{parameters} of {argument}");
    let values = rows.array(argument);
    let filter = conditional.then(|| BooleanArray::from(rows.conditions.clone()));
    let ours = ours(call, rows, &values, filter.as_ref(), slots);
    let all: Vec<u32> = (0..slots as u32).collect();
    let finished = ours.finish(&all).unwrap();

    let theirs = engine.rows(&format!(
        "SELECT k, {name}{suffix}{parameters}({column}{condition}), \
         hex({name}{suffix}State{parameters}({column}{condition})) FROM r GROUP BY k ORDER BY k FORMAT TSV"
    ));
    let mut sent = String::new();
    for row in &theirs {
        let [group, value, their_state] = row.as_slice() else { panic!("{what}: {row:?}") };
        let group: u32 = group.parse().unwrap();
        let our_value = text(&call.result, &finished, group as usize);
        assert!(same(&call.result, &our_value, value), "{what}, group {group}: {our_value}, ClickHouse {value}");

        let mut merged = accumulator(call).unwrap();
        merged.grow(1);
        merged.merge(0, &unhex(their_state)).unwrap_or_else(|error| panic!("{what}, group {group}: {error}"));
        let merged_value = text(&call.result, &merged.finish(&[0]).unwrap(), 0);
        assert!(
            same(&call.result, &merged_value, value),
            "{what}, group {group}: {merged_value} of their state {value}"
        );
        let our_state = state(ours.as_ref(), group);
        assert!(our_state == state(merged.as_ref(), 0), "{what}, group {group}: our bytes differ");
        sent += &format!("{group}\t{}\n", hex(&our_state));
    }
    engine.send("DROP TABLE IF EXISTS s", b"");
    engine.send("CREATE TABLE s (k UInt32, s String) ENGINE = Memory", b"");
    engine.send("INSERT INTO s FORMAT TSV", sent.as_bytes());
    let signature = call.signature.replace('\'', "\\'");
    let finalised = engine.rows(&format!(
        "SELECT k, finalizeAggregation(CAST(unhex(s), 'AggregateFunction({signature})')) FROM s ORDER BY k FORMAT TSV"
    ));
    for (row, expected) in finalised.iter().zip(&theirs) {
        assert!(
            same(&call.result, &row[1], &expected[1]),
            "{what}: ClickHouse reads our state as {row:?}, not {expected:?}"
        );
    }
    assert_eq!(finalised.len(), theirs.len(), "{what}");
    if !conditional {
        check_table(engine, call, column, rows, &values, &theirs);
    }
}

/// One half of the rows from the engine, one from here, in one table.
fn check_table(engine: &Engine, call: &Call, column: &str, rows: &Rows, values: &ArrayRef, expected: &[Vec<String>]) {
    let (name, parameters) = (call.function.name(), parameters(&call.function));
    let filter = BooleanArray::from(rows.halves.clone());
    let half = ours(call, rows, values, Some(&filter), expected.len());
    engine.send("DROP TABLE IF EXISTS m", b"");
    engine.send(
        &format!(
            "CREATE TABLE m (k UInt32, s AggregateFunction({})) ENGINE = AggregatingMergeTree ORDER BY k",
            call.signature
        ),
        b"",
    );
    let mut body = Vec::new();
    for row in expected {
        let group: u32 = row[0].parse().unwrap();
        body.extend_from_slice(&group.to_le_bytes());
        half.write_state(group, &mut body);
    }
    engine.send("INSERT INTO m FORMAT RowBinary", &body);
    engine
        .send(&format!("INSERT INTO m SELECT k, {name}State{parameters}({column}) FROM r WHERE h = 0 GROUP BY k"), b"");
    let merged = engine.rows(&format!("SELECT k, {name}Merge{parameters}(s) FROM m GROUP BY k ORDER BY k FORMAT TSV"));
    for (row, expected) in merged.iter().zip(expected) {
        assert!(same(&call.result, &row[1], &expected[1]), "{}: merged {row:?}, not {expected:?}", call.signature);
    }
    assert_eq!(merged.len(), expected.len(), "{}", call.signature);
}

#[test]
fn clickhouse_agrees_on_every_function_and_type() {
    let engine = Engine::start();
    let mut checked = 0;
    for (seed, of) in types().into_iter().enumerate() {
        let mut random = Random(20_260_000 + seed as u64);
        let rows = rows(&of, &[1, 2, 3, 16, 17, 18, 40, 100, 400], &mut random);
        rows.load(&engine, &of);
        let slots = 9;
        for argument in [of.clone(), of.clone().nullable()] {
            for call in functions().iter().filter_map(|function| call(function, &argument)) {
                check(&engine, &call, &argument, &rows, false, slots);
                checked += 1;
                // The state of countIf has the flag of nullable arguments, that of count has not; tables hold its
                // value.
                if call.function != Function::Count || !argument.is_nullable() {
                    check(&engine, &call, &argument, &rows, true, slots);
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 400, "{checked}");
}

/// Floats of all magnitudes that a sketch of 0.003 can span, both signs, with zeros and NaN, and decimals that use
/// every digit.
fn awkward(of: &ColumnType, random: &mut Random) -> String {
    let number = random.next();
    let sign = if number & 1 == 0 { "" } else { "-" };
    match of {
        ColumnType::Decimal(precision, scale) => {
            let digits: String = (0..*precision).map(|_| (b'0' + random.below(10) as u8) as char).collect();
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(*scale));
            format!("{sign}{whole}.{fraction}")
        }
        _ if number % 50 == 1 => "nan".into(),
        _ if number % 50 < 4 => format!("{sign}0"),
        ColumnType::Float32 => {
            let mantissa = 1.0 + (number >> 32) as f32 / (1u64 << 32) as f32;
            format!("{sign}{}", mantissa * 2f32.powi(random.below(200) as i32 - 100))
        }
        _ => {
            let mantissa = 1.0 + (number >> 11) as f64 / (1u64 << 53) as f64;
            format!("{sign}{}", mantissa * 2f64.powi(random.below(400) as i32 - 200))
        }
    }
}

#[test]
fn clickhouse_agrees_on_awkward_numbers() {
    let engine = Engine::start();
    let mut random = Random(99);
    let decimals = [ColumnType::Decimal(18, 4), ColumnType::Decimal(38, 10), ColumnType::Decimal(76, 20)];
    for of in [ColumnType::Float64, ColumnType::Float32].into_iter().chain(decimals) {
        let sizes = [1, 2, 5, 50, 2_000, 2_000];
        let mut rows = rows(&of, &sizes, &mut random);
        for row in 0..rows.values.len() {
            rows.values[row] = awkward(&of, &mut random);
            rows.nullable_values[row] = if row % 7 == 0 { NULL.into() } else { rows.values[row].clone() };
        }
        rows.load(&engine, &of);
        for argument in [of.clone(), of.clone().nullable()] {
            for call in functions().iter().filter_map(|function| call(function, &argument)) {
                // In a sum of floats NaN hides the rest, and the halves of a table add up in another order.
                let float_sum = matches!(call.function, Function::Sum | Function::Avg)
                    && matches!(of, ColumnType::Float32 | ColumnType::Float64);
                if !float_sum {
                    check(&engine, &call, &argument, &rows, false, sizes.len());
                }
            }
        }
    }
}

#[test]
fn clickhouse_agrees_on_sets_of_every_container() {
    let engine = Engine::start();
    let mut random = Random(7);
    for of in [ColumnType::UInt(Width::W64), ColumnType::String] {
        // Sets of hashes up to 4,096, then ranks: by linear counting, with the bias taken off, and beyond.
        let sizes = [5_000, 5_460, 5_500, 20_000, 300_000];
        let rows = rows(&of, &sizes, &mut random);
        rows.load(&engine, &of);
        for function in [Function::UniqExact, Function::UniqCombined64] {
            let call = call(&function, &of).unwrap();
            check(&engine, &call, &of, &rows, false, sizes.len());
        }
    }
}

#[test]
fn clickhouse_estimates_the_same_at_every_size() {
    let engine = Engine::start();
    let of = ColumnType::UInt(Width::W64);
    let call = call(&Function::UniqCombined64, &of).unwrap();
    let mut ours = accumulator(&call).unwrap();
    ours.grow(1);
    let (mut from, mut size) = (0u64, 4_000u64);
    while from < 3_000_000 {
        let values: Vec<u64> = (from..size).collect();
        let values: ArrayRef = std::sync::Arc::new(arrow_array::UInt64Array::from(values));
        ours.update(&vec![0; values.len()], &[values], None).unwrap();
        from = size;
        size += size / 12;
        let theirs = engine.rows(&format!("SELECT uniqCombined64(number) FROM numbers({from}) FORMAT TSV"));
        let value = text(&call.result, &ours.finish(&[0]).unwrap(), 0);
        assert_eq!(value, theirs[0][0], "{from} numbers");
    }
}
