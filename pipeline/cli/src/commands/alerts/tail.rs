//! `weir alerts tail`: alerts as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weir_pipeline::alerts::follow::{Decoder, Polled, Record, Topic, Undecoded};
use weir_pipeline::connect;
use weir_sinks::kafka::alert::SCHEMA;
use weir_sinks::kafka::read::Alert;
use weir_sinks::notify::headline;

use super::{Tail, json, pipeline, print_line, short, time};
use crate::out::{complain, printable};
use crate::{Outcome, paint, runtime};

/// How long one look for a message takes.
const LOOK_WITHIN: Duration = Duration::from_millis(500);

pub(super) fn run(tail: &Tail) -> Result<Outcome, Outcome> {
    let pipeline = pipeline(&tail.file)?;
    let Some(name) = &pipeline.alerts.topic else {
        return Err(Outcome::refused(
            format!("{} has no alert topic", tail.file.display()),
            "add `topic` to [alerts] and start the pipeline again; `weir alerts list` needs none",
        ));
    };
    let of_error = |error| Outcome::of_error(&error);
    let registry = connect::registry(&pipeline).map_err(of_error)?;
    let mut decoder: Decoder<Alert> = Decoder::new(registry, SCHEMA).map_err(of_error)?;
    // A person who looks on is told at once.
    decoder.set_grace(Duration::ZERO);
    // Nothing is kept under this group.
    let group = format!("weir-{}-tail", pipeline.name);
    let topic = Topic::open(&pipeline, connect::kafka(&pipeline), &group, name).map_err(of_error)?;
    let bounds = topic.bounds().map_err(of_error)?;
    let start = |(low, high): (i64, i64)| if tail.from_beginning { low } else { high };
    let positions: BTreeMap<i32, i64> = bounds.iter().map(|(partition, bounds)| (*partition, start(*bounds))).collect();
    topic.assign(&positions).map_err(of_error)?;

    let runtime = runtime()?;
    let mut ended = BTreeSet::new();
    while !(tail.until_end && ended.len() == positions.len()) {
        match topic.poll(LOOK_WITHIN).map_err(of_error)? {
            Polled::Record(record) => {
                let decoded = runtime.block_on(decoder.decode(&record.value));
                if !print(&record, decoded, topic.name(), tail.json)? {
                    break;
                }
            }
            Polled::End(partition) => {
                ended.insert(partition);
            }
            Polled::Nothing => {}
        }
    }
    Ok(Outcome::done())
}

/// Prints an alert; what is none is told on standard error. Returns false when nobody reads any more.
fn print(record: &Record, decoded: Result<Alert, Undecoded>, topic: &str, as_json: bool) -> Result<bool, Outcome> {
    let alert = match decoded {
        Ok(alert) => alert,
        Err(Undecoded::Poisoned(why)) => {
            complain!("{topic}/{}@{}: {why}", record.partition, record.offset);
            return Ok(true);
        }
        Err(Undecoded::NotYet(why)) => {
            return Err(Outcome::unreachable(format!("the registry: {why}"), "check [registry], and that it is up"));
        }
    };
    if as_json {
        return Ok(print_line(&json(&alert)?));
    }
    let headline = printable(&headline(&alert)).into_owned();
    let painted = match (alert.is_resolved(), alert.severity.as_str()) {
        (true, _) => paint::good(&headline),
        (false, "critical") => paint::bad(&headline),
        (false, _) => headline,
    };
    let suppressed = match alert.suppressed_by.as_str() {
        "" => String::new(),
        by => paint::dim(&format!("  suppressed by {by}")),
    };
    let place = paint::dim(&format!("{}  {}", time(alert.window_end), short(&alert.fingerprint)));
    Ok(print_line(&format!("{place}  {painted}{suppressed}")))
}
