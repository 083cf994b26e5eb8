//! Scripts: an operator driven on virtual time, without a dataflow or a broker.
//!
//! A script takes steps (`input`, `watermark`, `end_of_epoch`, `commit`, `recover`) and renders what the operator
//! emitted and wrote as text, to be compared with an expectation that stands in the test. State is real: a
//! RocksDB in a temporary folder, which `recover` closes and opens again.
//!
//! ```text
//! let mut script = Script::new(|state| Ok(Box::new(CountKeys::new(state)?)))?;
//! script.input(batch)?;
//! script.watermark(EventTime::from_ms(60_000))?;
//! script.end_of_epoch()?;
//! expect![[...]].assert_eq(&script.take_output());
//! ```
//!
//! Not here: routing and stashing; the adaptor's own tests show that it keeps the order that a script keeps.

use std::fmt::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;
use tempfile::TempDir;
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime};

use crate::drive::{Driver, Ended};
use crate::error::Error;
use crate::moment::Moment;
use crate::operator::Operator;
use crate::state::{StateRegistry, Store, StoreOptions};

/// Builds the operator, again at each recovery.
type Build = Box<dyn Fn(&mut StateRegistry) -> Result<Box<dyn Operator>, Error>>;

/// The operator's name in its own state and in errors.
const NAME: &str = "script";

/// An operator, its state and what it has said so far.
pub struct Script {
    build: Build,
    /// `None` only while it is being built again.
    running: Option<Running>,
    folder: TempDir,
    commits_at_once: bool,
    /// Ended and not committed, oldest first, with the watermark at the end.
    ended: Vec<(Moment, Ended)>,
    committed: Moment,
    output: String,
}

struct Running {
    // Declared, and so dropped, before the store.
    driver: Driver,
    store: Arc<Store>,
}

impl Script {
    /// Starts at epoch 1 with a watermark that knows nothing; each epoch is committed as soon as it ends.
    pub fn new(
        build: impl Fn(&mut StateRegistry) -> Result<Box<dyn Operator>, Error> + 'static,
    ) -> Result<Script, Error> {
        let folder = tempfile::tempdir().map_err(failed)?;
        let mut script = Script {
            build: Box::new(build),
            running: None,
            folder,
            commits_at_once: true,
            ended: Vec::new(),
            committed: Moment::default(),
            output: String::new(),
        };
        script.start()?;
        Ok(script)
    }

    /// From now on epochs are committed by [`Script::commit`] only, as when the disk is slow.
    pub fn delay_commits(&mut self) {
        self.commits_at_once = false;
    }

    /// A batch of the open epoch comes.
    pub fn input(&mut self, batch: RecordBatch) -> Result<(), Error> {
        let (driver, output) = self.driver()?;
        driver.batch(batch, &mut |number, batch| render_batch(output, &format!("emitted on {number}"), &batch, None))
    }

    /// The watermark rises to `watermark`.
    pub fn watermark(&mut self, watermark: EventTime) -> Result<(), Error> {
        let (driver, output) = self.driver()?;
        driver.raise(watermark, &mut |number, batch| {
            render_batch(output, &format!("emitted on {number}"), &batch, None);
        })
    }

    /// The open epoch ends; rows that were written in it are rendered after what is emitted at its end.
    pub fn end_of_epoch(&mut self) -> Result<(), Error> {
        let (driver, output) = self.driver()?;
        let moment = Moment::new(driver.open(), driver.log_watermark());
        let ended = driver.end_epoch(&mut |number, batch| {
            render_batch(output, &format!("emitted on {number}"), &batch, None);
        })?;
        ended.rows.iter().for_each(|changes| render_changes(output, changes));
        if let Some(through) = ended.behind {
            output.push_str(&format!("left for later, done up to {} s\n", through.0 / 1_000_000));
        }
        self.ended.push((moment, ended));
        if self.commits_at_once { self.commit() } else { Ok(()) }
    }

    /// Commits the oldest epoch that has ended and is not committed; without one it does nothing.
    pub fn commit(&mut self) -> Result<(), Error> {
        if self.ended.is_empty() {
            return Ok(());
        }
        let (moment, ended) = self.ended.remove(0);
        let running = self.running.as_ref().ok_or_else(stopped)?;
        let mut writes = running.store.writes();
        ended.state.iter().for_each(|changes| changes.write_into(&mut writes));
        running.store.commit(writes, moment.epoch).map_err(failed)?;
        self.committed = moment;
        Ok(())
    }

    /// The process is killed and starts again: epochs that were not committed are lost, the open one too, and
    /// the operator is built on what was. It resumes at the epoch after the committed one, with the
    /// watermark of that one's end; after the end of a run ([`EventTime::MAX`]), with the log's.
    pub fn recover(&mut self) -> Result<(), Error> {
        self.running = None;
        self.ended.clear();
        self.start()
    }

    /// The open epoch.
    pub fn epoch(&self) -> Epoch {
        self.running.as_ref().map_or(self.committed.epoch.next(), |running| running.driver.open())
    }

    /// What was emitted and written since the last call: per batch a line that says where it went, then an
    /// aligned table. Binary columns are shown as text where they are text, rows of tables begin with `+`, or
    /// with `-` where they delete a key.
    pub fn take_output(&mut self) -> String {
        std::mem::take(&mut self.output)
    }

    fn start(&mut self) -> Result<(), Error> {
        let options = StoreOptions { cache_bytes: 4 << 20, write_buffer_bytes: 1 << 20 };
        let store = Arc::new(Store::open(self.folder.path(), options).map_err(failed)?);
        let resume = Moment::new(self.committed.epoch.next(), self.committed.watermark);
        let registry = StateRegistry::new(store.clone(), NAME, 0, 1, resume.epoch)?;
        let driver = Driver::new(registry, resume, &self.build)?;
        self.running = Some(Running { driver, store });
        Ok(())
    }

    fn driver(&mut self) -> Result<(&mut Driver, &mut String), Error> {
        let running = self.running.as_mut().ok_or_else(stopped)?;
        Ok((&mut running.driver, &mut self.output))
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error>>) -> Error {
    Error::State { operator: NAME.to_owned(), detail: error.into().to_string() }
}

fn stopped() -> Error {
    failed("its last recovery failed")
}

/// Appends the changes of a table as text.
fn render_changes(out: &mut String, changes: &Changes) {
    let deleted = |row| changes.deleted.as_ref().is_some_and(|deleted| deleted.is_valid(row) && deleted.value(row));
    render_batch(out, &format!("written to {}", changes.table), &changes.rows, Some(&deleted));
}

fn render_batch(out: &mut String, title: &str, batch: &RecordBatch, deleted: Option<&dyn Fn(usize) -> bool>) {
    let schema = batch.schema();
    let mut lines = vec![schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>()];
    let columns: Vec<Vec<String>> = batch.columns().iter().map(|column| render_column(column)).collect();
    lines.extend(
        (0..batch.num_rows())
            .map(|row| columns.iter().map(|column| column.get(row).cloned().unwrap_or_default()).collect()),
    );
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    out.push_str(title);
    out.push('\n');
    for (number, line) in lines.iter().enumerate() {
        let mark = match (deleted, number) {
            (None, _) => "",
            (Some(_), 0) => "  ",
            (Some(deleted), row) => {
                if deleted(row - 1) {
                    "- "
                } else {
                    "+ "
                }
            }
        };
        let mut text = format!("  {mark}");
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{cell:width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
}

fn render_column(column: &dyn Array) -> Vec<String> {
    if let (DataType::Binary, Some(bytes)) = (column.data_type(), column.as_binary_opt::<i32>()) {
        return bytes.iter().map(|value| value.map_or_else(|| "null".to_owned(), render_bytes)).collect();
    }
    let options = FormatOptions::default().with_null("null");
    match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => (0..column.len())
            .map(|row| formatter.value(row).try_to_string().unwrap_or_else(|error| format!("({error})")))
            .collect(),
        Err(error) => vec![format!("({error})"); column.len()],
    }
}

fn render_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => format!("'{text}'"),
        _ => bytes.iter().fold("0x".to_owned(), |hex, byte| hex + &format!("{byte:02x}")),
    }
}
