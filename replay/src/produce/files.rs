//! CSV and JSON lines as an input, plain or gzip, with a schema given or (CSV) inferred.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apache_avro::Schema;
use apache_avro::types::Value;

use super::convert::{Kind, TimeText, kind_of};
use super::rows::{Row, Rows, key_of, time_of};
use super::{ProduceError, infer};

/// The longest line of a JSON file.
const LINE_BYTES_AT_MOST: u64 = 16 << 20;

/// A file to produce.
#[derive(Clone, Debug, Default)]
pub struct FileInput {
    /// The file; gzip when its name ends in `.gz`.
    pub path: PathBuf,
    /// The Avro schema, a record, as JSON. CSV without one gets one inferred from the whole file.
    pub schema: Option<String>,
    /// Columns to infer as decimals: name, precision, scale.
    pub decimals: BTreeMap<String, (usize, usize)>,
    /// How times are written.
    pub times: TimeText,
    /// A field, a string or a long, that gets the row's number (from 1): an event id for rows that have none.
    pub id_field: Option<String>,
    /// The field that is the Kafka key.
    pub key_field: Option<String>,
    /// The field that is the event time.
    pub time_field: Option<String>,
}

/// Counts what has been read of a file, for progress.
struct Counting<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

struct Opened {
    reader: Box<dyn Read + Send>,
    bytes_read: Arc<AtomicU64>,
    bytes: u64,
}

fn open(path: &Path) -> Result<Opened, ProduceError> {
    let failed = |source| ProduceError::Input { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let bytes_read = Arc::new(AtomicU64::new(0));
    let counting = Counting { inner: file, bytes: bytes_read.clone() };
    let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn Read + Send> = if is_gzip {
        Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(counting)))
    } else {
        Box::new(counting)
    };
    Ok(Opened { reader, bytes_read, bytes })
}

/// A CSV reader over `path`, and what it has read of how many bytes.
fn open_csv(path: &Path) -> Result<(csv::Reader<Box<dyn Read + Send>>, Opened), ProduceError> {
    let Opened { reader, bytes_read, bytes } = open(path)?;
    Ok((
        csv::ReaderBuilder::new().from_reader(reader),
        Opened { reader: Box::new(std::io::empty()), bytes_read, bytes },
    ))
}

/// Where a field's value comes from.
#[derive(Clone, Copy)]
enum Origin {
    Column(usize),
    RowNumber,
    Absent,
}

/// The record's fields, and which of them have a meaning of their own.
struct Layout {
    schema: String,
    fields: Vec<(String, Kind, Option<serde_json::Value>)>,
    id: Option<usize>,
    key: Option<usize>,
    time: Option<usize>,
    times: TimeText,
    path: PathBuf,
}

impl Layout {
    fn new(input: &FileInput, schema: String) -> Result<Layout, ProduceError> {
        let parsed = Schema::parse_str(&schema).map_err(|error| ProduceError::Schema(error.to_string()))?;
        let Kind::Record(fields) = kind_of(&parsed).map_err(ProduceError::Schema)? else {
            return Err(ProduceError::Schema("it isn't a record".to_owned()));
        };
        let place = |name: &Option<String>, what: &str| match name {
            None => Ok(None),
            Some(name) => fields.iter().position(|(field, _, _)| field == name).map(Some).ok_or_else(|| {
                let known: Vec<&str> = fields.iter().map(|(field, _, _)| field.as_str()).collect();
                ProduceError::Schema(format!("it has no field {name:?} for {what}; it has {}", known.join(", ")))
            }),
        };
        let id = place(&input.id_field, "the row number")?;
        let key = place(&input.key_field, "the key")?;
        let time = place(&input.time_field, "the event time")?;
        if let Some(at) = time
            && !matches!(&fields[at].1, Kind::Time(_))
            && !matches!(&fields[at].1, Kind::Nullable { kind, .. } if matches!(**kind, Kind::Time(_)))
        {
            return Err(ProduceError::Schema(format!(
                "{:?} isn't a timestamp, so it can't be the event time",
                fields[at].0
            )));
        }
        Ok(Layout { schema, fields, id, key, time, times: input.times.clone(), path: input.path.clone() })
    }

    fn row_number(&self, at: usize, number: u64) -> Result<Value, String> {
        self.fields[at].1.value_of_text(&number.to_string(), &self.times)
    }

    fn row(&self, value: Vec<(String, Value)>) -> Row {
        let of = |at: Option<usize>| at.and_then(|at| value.get(at)).map(|(_, value)| value);
        let (time_ms, key) = (of(self.time).and_then(time_of), of(self.key).and_then(key_of));
        Row { time_ms, key, release: None, is_spoiled: false, value: Value::Record(value) }
    }

    fn wrong(&self, line: u64, field: &str, why: impl std::fmt::Display) -> ProduceError {
        ProduceError::Row { path: self.path.clone(), line, why: format!("{field}: {why}") }
    }
}

fn share(opened: &Opened) -> Option<f64> {
    #[allow(clippy::cast_precision_loss)]
    (opened.bytes > 0).then(|| (opened.bytes_read.load(Ordering::Relaxed) as f64 / opened.bytes as f64).min(1.0))
}

/// Rows of a CSV file with a header line.
pub struct CsvRows {
    layout: Layout,
    origins: Vec<Origin>,
    reader: csv::Reader<Box<dyn Read + Send>>,
    opened: Opened,
    record: csv::StringRecord,
    number: u64,
}

impl CsvRows {
    /// Opens a CSV file, reading it once before if its schema has to be inferred.
    ///
    /// # Errors
    /// The file, its header, or a schema that doesn't fit them.
    pub fn open(input: &FileInput) -> Result<CsvRows, ProduceError> {
        let broken = |error: csv::Error| ProduceError::Input { path: input.path.clone(), source: error.into() };
        let schema = match &input.schema {
            Some(schema) => schema.clone(),
            None => {
                let mut reader = open_csv(&input.path)?.0;
                infer::schema_of(&mut reader, &input.decimals, input.id_field.as_deref()).map_err(broken)?
            }
        };
        let layout = Layout::new(input, schema)?;
        let (mut reader, opened) = open_csv(&input.path)?;
        let header = reader.headers().map_err(broken)?.clone();
        let origin = |(at, (name, _, default)): (usize, &(String, Kind, Option<serde_json::Value>))| match header
            .iter()
            .position(|column| column == name)
        {
            Some(column) => Ok(Origin::Column(column)),
            None if layout.id == Some(at) => Ok(Origin::RowNumber),
            None if default.is_some() => Ok(Origin::Absent),
            None => Err(ProduceError::Schema(format!(
                "its field {name:?} is no column of {} and has no default; the columns are {}",
                input.path.display(),
                header.iter().collect::<Vec<_>>().join(", ")
            ))),
        };
        let origins = layout.fields.iter().enumerate().map(origin).collect::<Result<_, _>>()?;
        Ok(CsvRows { layout, origins, reader, opened, record: csv::StringRecord::new(), number: 0 })
    }
}

impl Rows for CsvRows {
    fn schema(&self) -> &str {
        &self.layout.schema
    }

    fn next_row(&mut self) -> Result<Option<Row>, ProduceError> {
        let layout = &self.layout;
        let read = self.reader.read_record(&mut self.record);
        if !read.map_err(|error| ProduceError::Input { path: layout.path.clone(), source: error.into() })? {
            return Ok(None);
        }
        self.number += 1;
        let line = self.record.position().map_or(self.number + 1, csv::Position::line);
        let mut values = Vec::with_capacity(layout.fields.len());
        for (at, ((name, kind, default), origin)) in layout.fields.iter().zip(&self.origins).enumerate() {
            let value = match origin {
                Origin::Column(column) => kind.value_of_text(self.record.get(*column).unwrap_or(""), &layout.times),
                Origin::RowNumber => layout.row_number(at, self.number),
                Origin::Absent => {
                    kind.value_of_json(default.as_ref().unwrap_or(&serde_json::Value::Null), &layout.times)
                }
            };
            values.push((name.clone(), value.map_err(|why| layout.wrong(line, name, why))?));
        }
        Ok(Some(layout.row(values)))
    }

    fn share_done(&self) -> Option<f64> {
        share(&self.opened)
    }
}

/// Rows of a file with one JSON object on each line.
pub struct JsonRows {
    layout: Layout,
    kind: Kind,
    reader: BufReader<Box<dyn Read + Send>>,
    opened: Opened,
    line: Vec<u8>,
    number: u64,
}

impl JsonRows {
    /// Opens a file of JSON lines, which needs a schema.
    ///
    /// # Errors
    /// The file, or the schema.
    pub fn open(input: &FileInput) -> Result<JsonRows, ProduceError> {
        let schema = input
            .schema
            .clone()
            .ok_or_else(|| ProduceError::Schema("JSON lines need one: give a schema file".to_owned()))?;
        let layout = Layout::new(input, schema)?;
        let mut opened = open(&input.path)?;
        let reader = BufReader::new(std::mem::replace(&mut opened.reader, Box::new(std::io::empty())));
        let fields = layout.fields.iter().enumerate().filter(|(at, _)| layout.id != Some(*at));
        let kind = Kind::Record(fields.map(|(_, field)| field.clone()).collect());
        Ok(JsonRows { layout, kind, reader, opened, line: Vec::new(), number: 0 })
    }
}

impl Rows for JsonRows {
    fn schema(&self) -> &str {
        &self.layout.schema
    }

    fn next_row(&mut self) -> Result<Option<Row>, ProduceError> {
        let layout = &self.layout;
        loop {
            self.line.clear();
            let read = (&mut self.reader).take(LINE_BYTES_AT_MOST).read_until(b'\n', &mut self.line);
            if read.map_err(|source| ProduceError::Input { path: layout.path.clone(), source })? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let json: serde_json::Value =
            serde_json::from_slice(&self.line).map_err(|error| layout.wrong(self.number, "JSON", error))?;
        let value = self
            .kind
            .value_of_json(&json, &layout.times)
            .map_err(|why| layout.wrong(self.number, "the object", why))?;
        let Value::Record(mut fields) = value else { return Err(layout.wrong(self.number, "JSON", "not an object")) };
        if let Some(at) = layout.id {
            let id =
                layout.row_number(at, self.number).map_err(|why| layout.wrong(self.number, "the row number", why))?;
            fields.insert(at, (layout.fields[at].0.clone(), id));
        }
        Ok(Some(layout.row(fields)))
    }

    fn share_done(&self) -> Option<f64> {
        share(&self.opened)
    }
}
