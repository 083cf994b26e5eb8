//! A team's own operators: registered by name in a `main` of their own, used by name in the pipeline file.
//!
//! Such an operator sees a source's accepted events: a batch of the columns of
//! [`event_schema`](weir_schemas::stage::event_schema), and with a key the rows' key group behind them (`_group`,
//! `UInt16`), which is the group under which the operator's tables keep them. It writes rows of the tables that it
//! declares.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt16Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use weir_operators::error::Error;
use weir_operators::operator::{Context, Operator};
use weir_operators::route::key_group;
use weir_operators::state::StateRegistry;
use weir_schemas::rows::Table;
use weir_schemas::stage::BROKEN_RULES;
use weir_schemas::stage::Column;

/// Makes an operator's instance on one worker.
pub type Build = Arc<dyn Fn(&mut StateRegistry) -> Result<Box<dyn Operator>, Error> + Send + Sync>;

/// An operator as a team describes it for one use in a pipeline file.
#[derive(Clone)]
pub struct CustomOperator {
    /// Columns whose values bring rows to one worker: all rows that have them in common meet there. Without any, rows
    /// stay on the worker that read them, and the operator keeps no state.
    pub key: Vec<String>,
    /// The tables that it writes.
    pub tables: Vec<Table>,
    /// Makes it.
    pub build: Build,
}

/// Describes an operator from its settings in the pipeline file and the columns of its source. What it refuses is told
/// to the author of the file.
pub type Describe = dyn Fn(&toml::Table, &[Column]) -> Result<CustomOperator, String> + Send + Sync;

/// The operators that this program knows besides the built-in ones.
#[derive(Clone, Default)]
pub struct OperatorRegistry(BTreeMap<String, Arc<Describe>>);

impl OperatorRegistry {
    /// Makes an operator known under `name`; a second one of the same name replaces the first.
    #[must_use]
    pub fn with(
        mut self,
        name: &str,
        describe: impl Fn(&toml::Table, &[Column]) -> Result<CustomOperator, String> + Send + Sync + 'static,
    ) -> OperatorRegistry {
        self.0.insert(name.to_owned(), Arc::new(describe));
        self
    }

    /// How to describe the operator `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Describe>> {
        self.0.get(name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Adds the key group of each row behind a source's columns, so that the next edge can route by it. The marks of broken
/// rules, where there are any, stand behind it: its place is the same with and without them.
pub struct AddGroup {
    key: Vec<usize>,
    column: usize,
    schema: SchemaRef,
}

impl AddGroup {
    /// For batches of `schema` and a key of the columns `key`.
    ///
    /// # Errors
    /// When a column is missing or its type can't be part of a key.
    pub fn new(schema: &Schema, key: &[String]) -> Result<AddGroup, Error> {
        let refuse = |detail: String| Error::Custom { operator: "key of a custom operator".to_owned(), detail };
        let mut indexes = Vec::new();
        for name in key {
            let index = schema.index_of(name).map_err(|_| refuse(format!("there is no column {name}")))?;
            let data_type = schema.field(index).data_type();
            if bytes_of(&arrow_array::new_empty_array(data_type), 0, &mut Vec::new()).is_none() {
                return Err(refuse(format!("column {name} of type {data_type} cannot be part of a key")));
            }
            indexes.push(index);
        }
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        let column = schema.index_of(BROKEN_RULES).unwrap_or(fields.len());
        fields.insert(column, Arc::new(Field::new("_group", DataType::UInt16, false)));
        Ok(AddGroup { key: indexes, column, schema: Arc::new(Schema::new(fields)) })
    }

    /// The index of the column that it adds.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl Operator for AddGroup {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let mut key = Vec::new();
        let groups = (0..batch.num_rows()).map(|row| {
            key.clear();
            for column in &self.key {
                bytes_of(batch.column(*column), row, &mut key);
            }
            key_group(&key)
        });
        let groups: ArrayRef = Arc::new(UInt16Array::from_iter_values(groups));
        let mut columns = batch.columns().to_vec();
        columns.insert(self.column.min(columns.len()), groups);
        cx.emit(RecordBatch::try_new(self.schema.clone(), columns)?);
        Ok(())
    }

    fn end_of_epoch(&mut self, _cx: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Appends the value of a row as bytes that equal values have in common, each with its length in front; a null differs
/// from every value. `None` for a type that can't be part of a key; a row beyond the end appends nothing.
fn bytes_of(column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Option<()> {
    if row < column.len() && column.is_null(row) {
        out.push(0);
        return Some(());
    }
    macro_rules! number {
        ($type:ty) => {
            column.as_primitive::<$type>().values().get(row).map(|value| value.to_le_bytes().to_vec())
        };
    }
    let value = match column.data_type() {
        DataType::Boolean => (row < column.len()).then(|| vec![u8::from(column.as_boolean().value(row))]),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Date32 => number!(Date32Type),
        DataType::Decimal128(..) => number!(Decimal128Type),
        DataType::Timestamp(TimeUnit::Second, _) => number!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => number!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => number!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => number!(TimestampNanosecondType),
        DataType::Binary => (row < column.len()).then(|| column.as_binary::<i32>().value(row).to_vec()),
        DataType::FixedSizeBinary(_) => (row < column.len()).then(|| column.as_fixed_size_binary().value(row).to_vec()),
        _ => return None,
    };
    if let Some(value) = value {
        out.push(1);
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(&value);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use arrow_array::{BinaryArray, Int64Array};

    use super::*;

    #[test]
    fn a_key_that_no_column_has_or_no_type_can_be_is_refused() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        let schema = Schema::new(vec![Field::new("user", DataType::Binary, true), Field::new("tags", list, false)]);
        assert!(AddGroup::new(&schema, &["user".to_owned()]).is_ok_and(|add| add.column() == 2));
        let refused = |name: &str| AddGroup::new(&schema, &[name.to_owned()]).err().map(|error| error.to_string());
        assert!(refused("nobody").is_some_and(|text| text.contains("no column nobody")));
        assert!(refused("tags").is_some_and(|text| text.contains("cannot be part of a key")));
    }

    #[test]
    fn neighbouring_values_do_not_run_into_each_other() {
        let key = |texts: [&str; 2]| {
            let mut out = Vec::new();
            for text in texts {
                let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![text.as_bytes()]));
                bytes_of(&column, 0, &mut out);
            }
            out
        };
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        let (mut null, mut zero) = (Vec::new(), Vec::new());
        bytes_of(&(Arc::new(Int64Array::from(vec![None])) as ArrayRef), 0, &mut null);
        bytes_of(&(Arc::new(Int64Array::from(vec![0])) as ArrayRef), 0, &mut zero);
        assert_ne!(null, zero);
    }
}
