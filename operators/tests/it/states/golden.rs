//! The bytes that ClickHouse 26.7 wrote for given values, checked in: they need no engine.
//!
//! A line of `golden.tsv` has the function with its parameters, the argument's type, the values between bars, the
//! state as hexadecimal digits and the finalised value.

use weir_operators::aggregate::{Delta, accumulator, merge_states};
use weir_schemas::types::ColumnType;

use super::calls::{call, functions, parameters, types};
use super::values::{array, text};

/// The bytes of hexadecimal digits.
pub(super) fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// The hexadecimal digits of bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Whether a value is the expected one; floats may differ in their last bits.
pub(super) fn same(column_type: &ColumnType, ours: &str, theirs: &str) -> bool {
    if ours == theirs {
        return true;
    }
    if !matches!(column_type.without_null(), ColumnType::Float32 | ColumnType::Float64) {
        return false;
    }
    match (ours.parse::<f64>(), theirs.parse::<f64>()) {
        (Ok(ours), Ok(theirs)) => {
            (ours.is_nan() && theirs.is_nan()) || ours == theirs || (ours / theirs - 1.0).abs() < 1e-12
        }
        _ => false,
    }
}

#[test]
fn states_have_the_bytes_that_clickhouse_wrote() {
    let golden = include_str!("golden.tsv");
    let mut checked = 0;
    for line in golden.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, type_name, values, state, value] = fields.as_slice() else { panic!("{line}") };
        let function = functions().into_iter().find(|one| format!("{}{}", one.name(), parameters(one)) == *name);
        let argument = types()
            .into_iter()
            .flat_map(|one| [one.clone(), one.nullable()])
            .find(|one| one.to_string() == *type_name)
            .unwrap_or_else(|| panic!("{type_name}"));
        let call = call(&function.unwrap(), &argument).unwrap();
        let values: Vec<&str> = if values.is_empty() { vec![] } else { values.split('|').collect() };
        let values: Vec<&str> = values.iter().map(|value| if *value == "''" { "" } else { value }).collect();

        let mut ours = accumulator(&call).unwrap();
        ours.grow(2);
        ours.update(&vec![1; values.len()], &[array(&argument, &values)], None).unwrap();
        let finished = ours.finish(&[1]).unwrap();
        assert_eq!(finished.data_type(), &call.result.arrow(), "{line}");
        assert!(same(&call.result, &text(&call.result, &finished, 0), value), "{line}");

        // The engine's sets have their own order, so its bytes are compared after a merge, which sorts them.
        let mut bytes = Vec::new();
        ours.write_state(1, &mut bytes);
        let theirs = merge_states(&call, None, &[&unhex(state)]).unwrap();
        assert_eq!(hex(&bytes), hex(&theirs), "{line}");
        assert_eq!(bytes.len(), state.len() / 2, "{line}");
        if !name.starts_with("uniq") {
            assert_eq!(hex(&bytes), *state, "{line}");
        }
        let mut delta = Vec::new();
        assert_eq!((ours.take_delta(1, &mut delta), delta), (Delta::Whole, bytes), "{line}");
        checked += 1;
    }
    assert!(checked > 300, "{checked}");
}
