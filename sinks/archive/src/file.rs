//! A Parquet file of records: one row each.
//!
//! | column | type | |
//! |---|---|---|
//! | `partition` | int32 | the partition |
//! | `offset` | int64 | the offset; rows are in ascending order of offsets |
//! | `timestamp` | timestamp(ms, UTC), optional | the Kafka timestamp |
//! | `timestamp_type` | string, optional | `CreateTime` or `LogAppendTime`, as Kafka calls them |
//! | `key` | binary, optional | |
//! | `value` | binary, optional | absent, a tombstone |
//! | `headers` | list of (`key` binary, `value` binary, optional) | in their order, repetitions kept |
//! | `schema_id` | int64, optional | the writer schema's id in Confluent's frame |
//!
//! Names of headers are bytes, because nothing on the way of a record holds them to UTF-8. Encodings are those of
//! Parquet's first version, compressed with Zstandard, so that every reader has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder, TimestampMillisecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnPath;
use weir_schemas::headers;

use crate::error::Error;
use crate::record::Record;

/// Bytes of records that are gathered before they are encoded.
const GATHER_BYTES: u64 = 1 << 20;

/// Bytes of a row group, about, and rows: what a reader has to have in memory.
const GROUP_BYTES: usize = 16 << 20;
const GROUP_ROWS: usize = 128 << 10;

/// Ids of schemas that are told of a file. Whoever sends garbage can't make the manifest large.
const SCHEMA_IDS_MAX: usize = 256;

/// The names of `timestamp_type`, as Kafka's tools write them.
const CREATE_TIME: &str = "CreateTime";
const APPEND_TIME: &str = "LogAppendTime";

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Binary, false), Field::new("value", DataType::Binary, true)])
}

/// The columns of a file.
pub fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let header = Field::new("item", DataType::Struct(header_fields()), false);
    Arc::new(Schema::new(vec![
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", time, true),
        Field::new("timestamp_type", DataType::Utf8, true),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new("headers", DataType::List(Arc::new(header)), false),
        Field::new("schema_id", DataType::Int64, true),
    ]))
}

fn properties() -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("weir".to_owned())
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
        // Statistics of values would repeat parts of customers' events in the footer, and help nobody.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_dictionary_enabled(column("offset"), false)
        .set_column_encoding(column("offset"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("timestamp"), false)
        .set_column_encoding(column("timestamp"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("value"), false);
    for name in ["partition", "offset", "timestamp", "schema_id"] {
        properties = properties.set_column_statistics_enabled(column(name), EnabledStatistics::Chunk);
    }
    properties.build()
}

/// What a file holds, beside the rows themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The first offset.
    pub first_offset: i64,
    /// The last offset.
    pub last_offset: i64,
    /// Rows.
    pub records: u64,
    /// Bytes of keys, values and headers.
    pub raw_bytes: u64,
    /// The least timestamp, in milliseconds since 1970; absent where no row has one.
    pub least_timestamp_ms: Option<i64>,
    /// The greatest timestamp.
    pub greatest_timestamp_ms: Option<i64>,
    /// The sum of the rows' hashes.
    pub rows_hash: u64,
    /// Ids of the schemas that the values name; of a file with very many, the least ones.
    pub schema_ids: BTreeSet<u32>,
}

impl Facts {
    pub(crate) fn new() -> Facts {
        Facts {
            first_offset: i64::MAX,
            last_offset: i64::MIN,
            records: 0,
            raw_bytes: 0,
            least_timestamp_ms: None,
            greatest_timestamp_ms: None,
            rows_hash: 0,
            schema_ids: BTreeSet::new(),
        }
    }

    pub(crate) fn add(&mut self, record: &Record<'_>) {
        self.first_offset = self.first_offset.min(record.offset);
        self.last_offset = self.last_offset.max(record.offset);
        self.records += 1;
        self.raw_bytes += record.bytes();
        if let Some(at) = record.timestamp_ms {
            self.least_timestamp_ms = Some(self.least_timestamp_ms.map_or(at, |least| least.min(at)));
            self.greatest_timestamp_ms = Some(self.greatest_timestamp_ms.map_or(at, |greatest| greatest.max(at)));
        }
        self.rows_hash = self.rows_hash.wrapping_add(record.hash());
        if let Some(id) = record.schema_id() {
            self.schema_ids.insert(id);
            if self.schema_ids.len() > SCHEMA_IDS_MAX {
                self.schema_ids.pop_last();
            }
        }
    }
}

struct Columns {
    partition: Int32Builder,
    offset: Int64Builder,
    timestamp: TimestampMillisecondBuilder,
    timestamp_type: StringBuilder,
    key: BinaryBuilder,
    value: BinaryBuilder,
    headers: ListBuilder<StructBuilder>,
    schema_id: Int64Builder,
}

impl Columns {
    fn new() -> Columns {
        let entries =
            StructBuilder::new(header_fields(), vec![Box::new(BinaryBuilder::new()), Box::new(BinaryBuilder::new())]);
        let item = Field::new("item", DataType::Struct(header_fields()), false);
        Columns {
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            timestamp: TimestampMillisecondBuilder::new().with_timezone("UTC"),
            timestamp_type: StringBuilder::new(),
            key: BinaryBuilder::new(),
            value: BinaryBuilder::new(),
            headers: ListBuilder::new(entries).with_field(item),
            schema_id: Int64Builder::new(),
        }
    }

    fn add(&mut self, record: &Record<'_>) {
        self.partition.append_value(record.partition);
        self.offset.append_value(record.offset);
        self.timestamp.append_option(record.timestamp_ms);
        let kind = if record.is_append_time { APPEND_TIME } else { CREATE_TIME };
        self.timestamp_type.append_option(record.timestamp_ms.map(|_| kind));
        self.key.append_option(record.key);
        self.value.append_option(record.value);
        for (name, value) in headers::iter(record.headers) {
            let entry = self.headers.values();
            if let Some(names) = entry.field_builder::<BinaryBuilder>(0) {
                names.append_value(name);
            }
            if let Some(values) = entry.field_builder::<BinaryBuilder>(1) {
                values.append_option(value);
            }
            entry.append(true);
        }
        self.headers.append(true);
        self.schema_id.append_option(record.schema_id().map(i64::from));
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(self.partition.finish()),
                Arc::new(self.offset.finish()),
                Arc::new(self.timestamp.finish()),
                Arc::new(self.timestamp_type.finish()),
                Arc::new(self.key.finish()),
                Arc::new(self.value.finish()),
                Arc::new(self.headers.finish()),
                Arc::new(self.schema_id.finish()),
            ],
        )
    }
}

/// Writes one file, in memory.
pub(crate) struct FileWriter {
    columns: Columns,
    gathered_bytes: u64,
    writer: ArrowWriter<Vec<u8>>,
    facts: Facts,
}

fn bug(error: impl std::fmt::Display) -> Error {
    Error::Bug(format!("parquet: {error}"))
}

impl FileWriter {
    pub(crate) fn new() -> Result<FileWriter, Error> {
        let writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties())).map_err(bug)?;
        Ok(FileWriter { columns: Columns::new(), gathered_bytes: 0, writer, facts: Facts::new() })
    }

    pub(crate) fn add(&mut self, record: &Record<'_>) -> Result<(), Error> {
        self.columns.add(record);
        self.facts.add(record);
        self.gathered_bytes += record.bytes() + 32;
        if self.gathered_bytes >= GATHER_BYTES {
            self.encode()?;
        }
        Ok(())
    }

    fn encode(&mut self) -> Result<(), Error> {
        self.gathered_bytes = 0;
        let batch = self.columns.finish().map_err(bug)?;
        self.writer.write(&batch).map_err(bug)
    }

    /// The file's bytes.
    pub(crate) fn finish(mut self) -> Result<(Vec<u8>, Facts), Error> {
        self.encode()?;
        Ok((self.writer.into_inner().map_err(bug)?, self.facts))
    }
}

/// Reads the records of a file, in their order.
pub(crate) struct FileReader {
    name: String,
    batches: ParquetRecordBatchReader,
}

impl FileReader {
    /// `rows` at a time.
    pub(crate) fn open(name: &str, file: impl ChunkReader + 'static, rows: usize) -> Result<FileReader, Error> {
        let wrong = |error: ParquetError| Error::damaged(name, error);
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(wrong)?;
        let batches = builder.with_batch_size(rows.max(1)).build().map_err(wrong)?;
        Ok(FileReader { name: name.to_owned(), batches })
    }

    /// Calls `each` with the records of the next batch; false when there is none.
    pub(crate) fn next(&mut self, mut each: impl FnMut(&Record<'_>) -> Result<(), Error>) -> Result<bool, Error> {
        let Some(batch) = self.batches.next() else { return Ok(false) };
        let batch = batch.map_err(|error| Error::damaged(&self.name, error))?;
        let missing = || Error::damaged(&self.name, "its columns aren't those of an archive's file");
        let rows = Rows::of(&batch).ok_or_else(missing)?;
        let mut headers = Vec::new();
        for row in 0..batch.num_rows() {
            each(&rows.record(row, &mut headers))?;
        }
        Ok(true)
    }
}

/// A batch's columns.
struct Rows<'a> {
    partition: &'a arrow_array::Int32Array,
    offset: &'a arrow_array::Int64Array,
    timestamp: &'a arrow_array::TimestampMillisecondArray,
    timestamp_type: &'a arrow_array::StringArray,
    key: &'a arrow_array::BinaryArray,
    value: &'a arrow_array::BinaryArray,
    headers: &'a arrow_array::ListArray,
    names: &'a arrow_array::BinaryArray,
    values: &'a arrow_array::BinaryArray,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Rows<'a>> {
        let column = |name: &str| batch.column_by_name(name);
        let headers = column("headers")?.as_list_opt::<i32>()?;
        let entries = headers.values().as_struct_opt()?;
        Some(Rows {
            partition: column("partition")?.as_primitive_opt::<Int32Type>()?,
            offset: column("offset")?.as_primitive_opt::<Int64Type>()?,
            timestamp: column("timestamp")?.as_primitive_opt::<TimestampMillisecondType>()?,
            timestamp_type: column("timestamp_type")?.as_string_opt::<i32>()?,
            key: column("key")?.as_binary_opt::<i32>()?,
            value: column("value")?.as_binary_opt::<i32>()?,
            names: entries.column_by_name("key")?.as_binary_opt::<i32>()?,
            values: entries.column_by_name("value")?.as_binary_opt::<i32>()?,
            headers,
        })
    }

    /// The record of a row; its headers are put into `buffer`.
    fn record<'b>(&'b self, row: usize, buffer: &'b mut Vec<u8>) -> Record<'b> {
        buffer.clear();
        let ends = self.headers.value_offsets();
        let entries = ends.get(row).zip(ends.get(row + 1)).map(|(from, to)| *from as usize..*to as usize);
        for entry in entries.into_iter().flatten() {
            let value = self.values.is_valid(entry).then(|| self.values.value(entry));
            headers::push(buffer, self.names.value(entry), value);
        }
        Record {
            partition: self.partition.value(row),
            offset: self.offset.value(row),
            timestamp_ms: self.timestamp.is_valid(row).then(|| self.timestamp.value(row)),
            is_append_time: self.timestamp_type.is_valid(row) && self.timestamp_type.value(row) == APPEND_TIME,
            key: self.key.is_valid(row).then(|| self.key.value(row)),
            value: self.value.is_valid(row).then(|| self.value.value(row)),
            headers: buffer,
        }
    }
}
