//! Samples of alerts: what their records hold, read from the log by place, masked.
//!
//! A detector leaves in an alert's row which records it wants to show (`weir_operators::wanted`): some by their places,
//! others to be looked for from a place on. Here they are read when the row is about to be committed, decoded with the
//! source's reader schema and written as JSON. So nothing is kept of an event that nobody is told of, and the same log
//! gives the same samples.
//!
//! Bounds: three samples, at most [`LOOKED_AT`] records read for one alert, [`WITHIN`] for all alerts of a commit. An alert
//! whose records can't be read by then (the log has let go of them, Kafka is away) is committed without samples: it is
//! worth more than they are.

mod render;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::builder::{BinaryBuilder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::Field;
use weir_operators::profile::{Indicator, Layout, SCHEMAS, Spot, delay_bucket};
use weir_operators::wanted::{Search, Wanted};
use weir_schemas::avro::{Decoder, ReaderSchema};
use weir_schemas::frame::{FRAME_BYTES, frame};
use weir_schemas::registry::{Cached, SchemaCache};
use weir_schemas::rows::Changes;
use weir_schemas::stage::profile_codes;
use weir_schemas::tables;

use crate::clock::Clock;
use crate::error::Error;
use crate::rules::is_sensitive;
use crate::source::log::LookUp;
use crate::source::message::Record;

/// Samples of an alert, at most.
const SAMPLES: usize = 3;
/// Records that are read for one alert, at most.
const LOOKED_AT: usize = 50_000;
/// How long the alerts of one commit may wait for their samples.
const WITHIN: Duration = Duration::from_secs(20);

/// How often it is looked whether the registry has answered.
const ANSWER_EVERY: Duration = Duration::from_millis(10);
/// Records that are decoded at once.
const BATCH: usize = 1_024;
/// Alerts whose samples are remembered.
const REMEMBERED: usize = 256;

/// What is needed of a source.
pub struct Sampled {
    /// Its reader schema.
    pub reader: Arc<ReaderSchema>,
    /// What a judge counts of its columns, each by its type.
    pub layout: Layout,
    /// Fields whose values nobody may see.
    pub sensitive: Vec<String>,
    /// The field of the event time.
    pub event_time: String,
    /// The field of the tenant.
    pub tenant: Option<String>,
    /// The field of the event's type.
    pub event_type: Option<String>,
    /// The fields of SDK, its version and the app's version.
    pub release: [Option<String>; 3],
}

/// Fills samples into rows of alerts; by default, none.
#[derive(Default)]
pub struct Samples {
    sources: BTreeMap<String, Sampled>,
    /// Topics by number.
    topics: Vec<String>,
    schemas: Option<SchemaCache>,
    clock: Clock,
    log: Option<Box<dyn LookUp>>,
    /// When the samples of this commit must be there.
    until: Option<Instant>,
    decoders: HashMap<(String, u32), Option<Arc<Decoder>>>,
    /// Found samples by source and what was wanted: the steps of an alert mostly want the same.
    found: HashMap<(Vec<u8>, Vec<u8>), Found>,
}

/// What was found for an alert.
#[derive(Clone, Debug, Default)]
struct Found {
    samples: Vec<String>,
    places: Vec<Spot>,
}

impl Samples {
    /// Reads through `log`; topics aren't known yet.
    pub fn new(
        sources: BTreeMap<String, Sampled>,
        log: Box<dyn LookUp>,
        schemas: SchemaCache,
        clock: Clock,
    ) -> Samples {
        Samples { sources, schemas: Some(schemas), clock, log: Some(log), ..Samples::default() }
    }

    /// The topics' names by number.
    pub fn set_topics(&mut self, topics: Vec<String>) {
        self.topics = topics;
    }

    /// Puts samples where rows of alerts say which they want, and the places of those that were looked for.
    ///
    /// # Errors
    /// When the rows haven't the columns of their table: a bug.
    pub fn fill(&mut self, changes: Vec<Changes>) -> Result<Vec<Changes>, Error> {
        let until = Instant::now() + WITHIN;
        self.until = Some(until);
        changes.into_iter().map(|changes| self.fill_one(changes, until)).collect()
    }

    fn fill_one(&mut self, changes: Changes, until: Instant) -> Result<Changes, Error> {
        let schema = changes.rows.schema();
        let wrong = |what: &str| Error::Stopped(format!("rows of {} have no {what}", changes.table));
        let at = |name: &str| schema.index_of(name).map_err(|_| wrong(name));
        let (sources, samples, examples) = (at("source")?, at("samples")?, at("examples")?);
        let texts = |index: usize| changes.rows.column(index).as_list_opt::<i32>();
        let (Some(wanted), Some(places)) = (texts(samples), texts(examples)) else { return Err(wrong("samples")) };
        let of_source = changes.rows.column(sources).as_binary_opt::<i32>().ok_or_else(|| wrong("source"))?;
        let (mut filled, mut shown) = (Vec::new(), Vec::new());
        for row in 0..changes.rows.num_rows() {
            let request = wanted.value(row);
            let request = request.as_binary_opt::<i32>().filter(|texts| !texts.is_empty()).map(|texts| texts.value(0));
            let found = request.map(|bytes| self.find(of_source.value(row), bytes, until)).unwrap_or_default();
            let known = places.value(row);
            let known = known.as_binary_opt::<i32>().map(|texts| texts.iter().flatten().map(<[u8]>::to_vec).collect());
            let mut known: Vec<Vec<u8>> = known.unwrap_or_default();
            for place in found.places.iter().map(|place| self.place(*place).into_bytes()) {
                if known.len() < SAMPLES && !known.contains(&place) {
                    known.push(place);
                }
            }
            shown.push(known);
            filled.push(found.samples.into_iter().map(String::into_bytes).collect());
        }
        let mut columns = changes.rows.columns().to_vec();
        for (index, texts) in [(samples, filled), (examples, shown)] {
            if let Some(column) = columns.get_mut(index) {
                *column = lists(&texts, schema.field(index));
            }
        }
        let rows = RecordBatch::try_new(schema.clone(), columns).map_err(|error| Error::Stopped(error.to_string()))?;
        Ok(Changes { table: changes.table, rows, deleted: changes.deleted })
    }

    fn place(&self, Spot(topic, partition, offset): Spot) -> String {
        let topic = self.topics.get(usize::from(topic)).map_or("?", String::as_str);
        format!("{topic}/{partition}@{offset}")
    }

    fn find(&mut self, source: &[u8], request: &[u8], until: Instant) -> Found {
        let key = (source.to_vec(), request.to_vec());
        if let Some(found) = self.found.get(&key) {
            return found.clone();
        }
        let name = String::from_utf8_lossy(source).into_owned();
        let (Some(wanted), true) = (Wanted::from_bytes(request), self.sources.contains_key(&name)) else {
            return Found::default();
        };
        let mut found = Found::default();
        let mut is_whole = true;
        for place in wanted.places.iter().take(SAMPLES) {
            let read = self.read(*place, 1, until, |_, records| records.to_vec());
            is_whole &= read.is_some();
            if let Some(record) = read.into_iter().flatten().next() {
                found.samples.push(self.sample(&name, &record, &wanted.fields));
                found.places.push(*place);
            }
        }
        if let Some(search) = wanted.search.as_ref().filter(|_| found.samples.len() < SAMPLES) {
            is_whole &= self.search(&name, search, &wanted.fields, &mut found, until);
        }
        if !is_whole {
            tracing::warn!(source = name, found = found.samples.len(), "an alert's records could not be read in time");
            return found;
        }
        if self.found.len() >= REMEMBERED {
            self.found.clear();
        }
        self.found.insert(key, found.clone());
        found
    }

    /// Reads up to `count` records from a place on and takes what `each` makes of them.
    fn read<T>(
        &mut self,
        from: Spot,
        count: usize,
        until: Instant,
        each: impl FnOnce(&mut Samples, &[Arc<Record>]) -> Vec<T>,
    ) -> Option<Vec<T>> {
        let topic = self.topics.get(usize::from(from.0))?.clone();
        let records = self.log.as_mut()?.look_up(&topic, from.1, from.2, count, until)?;
        Some(each(self, &records))
    }

    /// Looks for events; returns whether the log could be read.
    fn search(&mut self, source: &str, search: &Search, fields: &[String], found: &mut Found, until: Instant) -> bool {
        let (mut from, mut looked_at) = (search.from, 0);
        while looked_at < LOOKED_AT && found.samples.len() < SAMPLES {
            let read = self.read(from, BATCH, until, |samples, records| {
                let fitting = samples.fitting(source, search, records);
                let last = records.last().map(|record| record.offset);
                vec![(fitting.into_iter().filter_map(|at| records.get(at).cloned()).collect::<Vec<_>>(), last)]
            });
            let Some((records, last)) = read.map(|mut read| read.pop().unwrap_or_default()) else { return false };
            for record in records {
                let place = Spot(from.0, from.1, record.offset);
                if found.samples.len() < SAMPLES && !found.places.contains(&place) {
                    found.samples.push(self.sample(source, &record, fields));
                    found.places.push(place);
                }
            }
            let Some(last) = last else { return true };
            from.2 = last + 1;
            looked_at += BATCH;
        }
        true
    }

    /// Which of `records` are events that are looked for.
    fn fitting(&mut self, source: &str, search: &Search, records: &[Arc<Record>]) -> Vec<usize> {
        let mut by_schema: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, record) in records.iter().enumerate() {
            if let Some(Ok(framed)) = record.value.as_deref().map(frame) {
                by_schema.entry(framed.schema_id).or_default().push(at);
            }
        }
        let mut fitting = Vec::new();
        for (id, of_schema) in by_schema {
            let Some(decoder) = self.decoder(source, id) else { continue };
            let data: Vec<&[u8]> = of_schema.iter().filter_map(|&at| body(&records[at])).collect();
            // A batch that would be too large holds no event that anybody wants to read.
            let Ok(decoded) = decoder.decode(&data) else { continue };
            let Some(sampled) = self.sources.get(source) else { continue };
            for (row, record) in decoded.records.iter().enumerate() {
                let Some(&at) = of_schema.get(*record as usize) else { continue };
                if sampled.fits(search, &decoded.batch, row, id, records[at].timestamp_ms) {
                    fitting.push(at);
                }
            }
        }
        fitting.sort_unstable();
        fitting
    }

    /// A record as people see it.
    fn sample(&mut self, source: &str, record: &Record, fields: &[String]) -> String {
        let framed = record.value.as_deref().map(frame);
        let decoded = match &framed {
            Some(Ok(framed)) => self.decoder(source, framed.schema_id).and_then(|decoder| {
                let decoded = decoder.decode(&[body(record)?]).ok()?;
                let shown: Vec<usize> = (0..decoded.batch.num_columns().saturating_sub(1)).collect();
                (decoded.batch.num_rows() == 1).then_some(decoded.batch.project(&shown).ok()?)
            }),
            _ => None,
        };
        let Some(sampled) = self.sources.get(source) else { return String::new() };
        match decoded {
            Some(batch) => {
                let first = fields.iter().chain(&sampled.event_type).chain(std::iter::once(&sampled.event_time));
                let order: Vec<&String> =
                    first.chain(sampled.release.iter().flatten()).chain(&sampled.tenant).collect();
                render::event(&batch, &order, |path| is_sensitive(&sampled.sensitive, path))
            }
            None => render::bytes(record.value.as_deref(), !sampled.sensitive.is_empty()),
        }
    }

    fn decoder(&mut self, source: &str, id: u32) -> Option<Arc<Decoder>> {
        let key = (source.to_owned(), id);
        if let Some(known) = self.decoders.get(&key) {
            return known.clone();
        }
        let Sampled { reader, layout, .. } = self.sources.get(source)?;
        let (reader, codes) = (reader.clone(), layout.codes().clone());
        let schemas = self.schemas.clone()?;
        let writer = loop {
            let now_ms = u64::try_from(self.clock.now_ms()).unwrap_or(0);
            match schemas.get(id, now_ms) {
                Cached::Ready(writer) => break writer,
                // Workers have asked for it before, but in a run that went on from its state and has read nothing yet.
                Cached::Pending if self.until.is_some_and(|until| Instant::now() < until) => {
                    std::thread::sleep(ANSWER_EVERY);
                }
                _ => return None,
            }
        };
        let wanted = vec![true; reader.columns.len()];
        let decoder = Decoder::with_codes(&writer.schema, reader, &wanted, Some(&codes)).ok().map(Arc::new);
        self.decoders.insert(key, decoder.clone());
        decoder
    }
}

fn body(record: &Record) -> Option<&[u8]> {
    record.value.as_deref()?.get(FRAME_BYTES..)
}

impl Sampled {
    /// Whether a decoded event is one that is looked for.
    fn fits(&self, search: &Search, batch: &RecordBatch, row: usize, schema: u32, recorded_ms: i64) -> bool {
        let text = |field: &Option<String>| -> Vec<u8> {
            let column = field.as_ref().and_then(|field| batch.column_by_name(field));
            let texts = column.and_then(|column| column.as_binary_opt::<i32>()).filter(|texts| texts.is_valid(row));
            texts.map(|texts| texts.value(row).to_vec()).unwrap_or_default()
        };
        let is = |wanted: &Option<String>, field: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == text(field))
        };
        let of_type = search.event_type.is_empty() || search.event_type.as_bytes() == text(&self.event_type);
        let of_release = search.release.iter().zip(&self.release).all(|(wanted, field)| is(wanted, field));
        if !(of_type && of_release && is(&search.tenant, &self.tenant)) {
            return false;
        }
        let field = self.layout.fields().iter().find(|field| field.name == search.field);
        let Some(indicator) = search.indicator(field.map(|field| field.kind)) else { return false };
        let has = match (indicator, field.zip(profile_codes(batch))) {
            (Indicator::Schema(bucket), _) => schema % u32::from(SCHEMAS) == u32::from(bucket),
            (Indicator::Delay(bucket), _) => {
                let time_ms = batch.column_by_name(&self.event_time).and_then(|times| render::time_ms(times, row));
                time_ms.is_some_and(|time_ms| delay_bucket(recorded_ms.saturating_sub(time_ms)) == bucket)
            }
            (_, Some((field, codes))) => field.holds(codes.value(row), indicator),
            _ => false,
        };
        has == search.holds
    }
}

/// The one event of `batch` as JSON for people: the fields of `first` first, sensitive ones masked, cut short, bounded.
pub(crate) fn event_text(batch: &RecordBatch, first: &[&String], sensitive: &[String]) -> String {
    render::event(batch, first, |path| is_sensitive(sensitive, path))
}

/// The tables whose rows say which samples they want.
pub fn wants_samples(table: &str) -> bool {
    table == tables::ALERTS || table == tables::ALERTS_HISTORY
}

fn lists(texts: &[Vec<Vec<u8>>], field: &Field) -> ArrayRef {
    let mut column = ListBuilder::new(BinaryBuilder::new());
    if let arrow_schema::DataType::List(item) = field.data_type() {
        column = column.with_field(item.clone());
    }
    for row in texts {
        row.iter().for_each(|text| column.values().append_value(text));
        column.append(true);
    }
    Arc::new(column.finish())
}
