//! What the codes of a record must be, found from the cells of its columns.

use arrow_buffer::i256;
use weir_schemas::profile::{DEFAULT, Kind, NULL, bucket_of, number, text};
use weir_schemas::types::ColumnType;

use crate::cells::Cell;

/// The code of one column's cell.
pub(crate) fn code_of(cell: &Cell, column_type: &ColumnType, kind: Kind) -> Vec<u8> {
    let of_number = |value: f64| match kind {
        Kind::Number => number(value),
        _ => default_if(value == 0.0),
    };
    let first = match cell {
        Cell::Null => NULL,
        Cell::Bool(value) => default_if(!value),
        Cell::Int(value) => of_number(*value as f64),
        Cell::Float(bits) if *column_type.without_null() == ColumnType::Float32 => {
            of_number(f64::from(f32::from_bits(*bits as u32)))
        }
        Cell::Float(bits) => of_number(f64::from_bits(*bits)),
        Cell::Decimal(digits) => {
            let ColumnType::Decimal(_, scale) = column_type.without_null() else { panic!("{column_type} of decimals") };
            of_number(nearest(*digits) / 10_f64.powi(i32::from(*scale)))
        }
        Cell::Bytes(bytes) if kind == Kind::Text => text(bytes),
        Cell::Bytes(bytes) => default_if(bytes.is_empty()),
        Cell::List(items) => default_if(items.is_empty()),
        Cell::Map(pairs) => default_if(pairs.is_empty()),
    };
    let mut code = vec![first];
    if kind == Kind::Map {
        let Cell::Map(pairs) = cell else { panic!("{column_type} has no keys") };
        let keys = pairs.iter().fold(0_u16, |keys, (key, _)| keys | 1 << bucket_of(key));
        code.extend(keys.to_le_bytes());
    }
    code
}

fn default_if(is: bool) -> u8 {
    if is { DEFAULT } else { 0 }
}

/// A decimal's digits by way of their text: only the magnitude has to be right.
fn nearest(digits: i256) -> f64 {
    digits.to_string().parse().expect("digits")
}
