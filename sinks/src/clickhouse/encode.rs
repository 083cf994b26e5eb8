//! Rows of one table as the outbox keeps them.
//!
//! Payload, version 1: one byte that says what follows ([`ROWS`] or [`TOMBSTONE`]), then `RowBinary`. Rows have all of the
//! table's columns and the version; a tombstone has the key's columns, the version and a 1. A tombstone's other columns
//! are left to ClickHouse's defaults, since an aggregate state of no bytes is not a state.
//!
//! A keyed table gives one [`OutRow`] per row, whose key is the row's natural key in `RowBinary`. An appended table
//! gives blocks of up to [`BLOCK_ROWS`] rows and about [`BLOCK_BYTES`], whose key is that of their first row.

use arrow_array::{Array, BooleanArray};
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::time::Version;

use crate::error::Error;
use crate::row_binary::{self, Cell};
use crate::sink::{Encode, OutRow};

/// What a payload begins with when rows follow.
pub(crate) const ROWS: u8 = 0;
/// What a payload begins with when one tombstone follows.
pub(crate) const TOMBSTONE: u8 = 1;

/// Most rows in one block of an appended table.
const BLOCK_ROWS: u32 = 8_192;
/// A block of an appended table ends with the row that reaches this size.
const BLOCK_BYTES: usize = 1 << 20;

/// Encodes the rows of one table.
#[derive(Clone, Debug)]
pub struct TableEncoder {
    table: Table,
}

impl TableEncoder {
    /// An encoder for `table`.
    pub fn new(table: Table) -> TableEncoder {
        TableEncoder { table }
    }

    fn encode_keyed(
        &self,
        cells: &[Cell<'_>],
        rows: usize,
        deleted: Option<&BooleanArray>,
        version: Version,
        out: &mut Vec<OutRow>,
    ) {
        let (key_cells, other_cells) = cells.split_at(self.table.key_columns.min(cells.len()));
        out.reserve(rows);
        let mut longest = 64;
        for row in 0..rows {
            let is_deleted = deleted.is_some_and(|deleted| deleted.is_valid(row) && deleted.value(row));
            let mut payload = Vec::with_capacity(longest);
            payload.push(if is_deleted { TOMBSTONE } else { ROWS });
            key_cells.iter().for_each(|cell| cell.write(row, &mut payload));
            let key = payload[1..].to_vec();
            if is_deleted {
                payload.extend_from_slice(&version.0.to_le_bytes());
                payload.push(1);
            } else {
                other_cells.iter().for_each(|cell| cell.write(row, &mut payload));
                payload.extend_from_slice(&version.0.to_le_bytes());
            }
            longest = longest.max(payload.len()).min(BLOCK_BYTES);
            out.push(OutRow { key, payload, rows: 1 });
        }
    }

    fn encode_appended(&self, cells: &[Cell<'_>], rows: usize, version: Version, out: &mut Vec<OutRow>) {
        let mut block = OutRow { key: Vec::new(), payload: vec![ROWS], rows: 0 };
        for row in 0..rows {
            if block.rows == 0 {
                let key_cells = cells.iter().take(self.table.key_columns);
                key_cells.for_each(|cell| cell.write(row, &mut block.key));
            }
            cells.iter().for_each(|cell| cell.write(row, &mut block.payload));
            block.payload.extend_from_slice(&version.0.to_le_bytes());
            block.rows += 1;
            if block.rows >= BLOCK_ROWS || block.payload.len() >= BLOCK_BYTES {
                out.push(std::mem::replace(&mut block, OutRow { key: Vec::new(), payload: vec![ROWS], rows: 0 }));
            }
        }
        if block.rows > 0 {
            out.push(block);
        }
    }
}

impl Encode for TableEncoder {
    fn encode(&self, changes: &Changes, version: Version, out: &mut Vec<OutRow>) -> Result<(), Error> {
        let wrong = |detail: String| Err(Error::Columns { table: self.table.name.to_string(), detail });
        let rows = changes.rows.num_rows();
        if changes.table != self.table.name {
            return wrong(format!("rows of table {} came", changes.table));
        }
        if let Some(deleted) = changes.deleted.as_ref().filter(|deleted| deleted.len() != rows) {
            return wrong(format!("{} marks of deletion came for {rows} rows", deleted.len()));
        }
        let cells = row_binary::cells(&self.table.name, &self.table.columns, &changes.rows)?;
        match (self.table.kind, &changes.deleted) {
            (TableKind::Keyed, deleted) => self.encode_keyed(&cells, rows, deleted.as_ref(), version, out),
            (TableKind::Appended, Some(deleted)) if deleted.true_count() > 0 => {
                return wrong("a tombstone came for a table whose rows only come".to_owned());
            }
            (TableKind::Appended, _) => self.encode_appended(&cells, rows, version, out),
        }
        Ok(())
    }

    fn newest_only(&self) -> bool {
        self.table.kind == TableKind::Keyed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BinaryArray, RecordBatch, TimestampSecondArray, UInt64Array};
    use weir_schemas::stage::Column;
    use weir_schemas::types::{ColumnType, Width};

    use super::*;

    fn table(kind: TableKind) -> Table {
        Table {
            name: Arc::from("revenue"),
            comment: String::new(),
            columns: vec![
                Column::new("window_start", ColumnType::DateTime(None)),
                Column::new("tenant", ColumnType::LowCardinality),
                Column::new("orders", ColumnType::UInt(Width::W64)),
                Column::new("users", ColumnType::AggregateState("uniqExact, String".to_owned())),
            ],
            key_columns: 2,
            partition_by: Some(0),
            kind,
            retention_days: None,
        }
    }

    fn changes(tenants: &[&str], deleted: Option<Vec<bool>>) -> Changes {
        let rows = tenants.len();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("window_start", Arc::new(TimestampSecondArray::from(vec![0x0102_0304; rows]))),
            ("tenant", Arc::new(BinaryArray::from_iter_values(tenants))),
            ("orders", Arc::new(UInt64Array::from(vec![7; rows]))),
            ("users", Arc::new(BinaryArray::from_iter_values(vec![[0xab]; rows]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
        Changes { table: Arc::from("revenue"), rows, deleted: deleted.map(BooleanArray::from) }
    }

    /// The bytes of the outbox are kept on disk across versions of Weir, hence golden.
    #[test]
    fn keyed_rows_and_tombstones_have_golden_bytes() {
        let mut out = Vec::new();
        let encoder = TableEncoder::new(table(TableKind::Keyed));
        encoder.encode(&changes(&["eu", "us"], Some(vec![false, true])), Version(9), &mut out).expect("fits");
        let version = [9, 0, 0, 0, 0, 0, 0, 0];
        let mut row = b"\0\x04\x03\x02\x01\x02eu\x07\0\0\0\0\0\0\0\xab".to_vec();
        row.extend(version);
        let mut tombstone = b"\x01\x04\x03\x02\x01\x02us".to_vec();
        tombstone.extend(version);
        tombstone.push(1);
        assert_eq!(
            out,
            [
                OutRow { key: b"\x04\x03\x02\x01\x02eu".to_vec(), payload: row, rows: 1 },
                OutRow { key: b"\x04\x03\x02\x01\x02us".to_vec(), payload: tombstone, rows: 1 },
            ]
        );
    }

    #[test]
    fn appended_rows_leave_in_bounded_blocks() {
        let mut out = Vec::new();
        let encoder = TableEncoder::new(table(TableKind::Appended));
        let tenants = vec!["a tenant"; 20_000];
        encoder.encode(&changes(&tenants, None), Version(1), &mut out).expect("fits");
        assert_eq!(out.iter().map(|block| block.rows).collect::<Vec<_>>(), [8_192, 8_192, 3_616]);
        let row_bytes = 4 + 9 + 8 + 1 + 8;
        assert!(out.iter().all(|block| block.payload.len() == 1 + row_bytes * block.rows as usize));
    }

    #[test]
    fn what_does_not_fit_the_declaration_is_an_error() {
        let mut out = Vec::new();
        let mut other = changes(&["eu"], None);
        other.table = Arc::from("other");
        let encoder = TableEncoder::new(table(TableKind::Appended));
        for (changes, expected) in [
            (other, "rows of table other came"),
            (changes(&["eu"], Some(vec![true])), "a tombstone came"),
            (changes(&["eu"], Some(vec![true, false])), "2 marks of deletion came for 1 rows"),
        ] {
            let error = encoder.encode(&changes, Version(1), &mut out).expect_err("does not fit").to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(out.is_empty());
    }
}
