//! `weir archive list`: what is in the archive.

use std::collections::BTreeMap;

use weir_archive::{Entry, Hour};
use weir_pipeline::archive::retention_ms;
use weir_pipeline::connect;

use super::{List, Shelf, hold_to_topics};
use crate::out::{line, say};
use crate::{Outcome, paint, runtime};

/// What an hour of a topic holds.
#[derive(Default)]
struct Sum {
    objects: u64,
    records: u64,
    bytes: u64,
    raw_bytes: u64,
    /// First and last offset by partition.
    offsets: BTreeMap<i32, (i64, i64)>,
}

impl Sum {
    fn add(&mut self, entry: &Entry) {
        self.objects += 1;
        self.records += entry.records;
        self.bytes += entry.bytes;
        self.raw_bytes += entry.raw_bytes;
        let offsets = self.offsets.entry(entry.partition).or_insert((entry.first_offset, entry.last_offset));
        *offsets = (offsets.0.min(entry.first_offset), offsets.1.max(entry.last_offset));
    }
}

pub(super) fn run(list: &List) -> Result<Outcome, Outcome> {
    let shelf = Shelf::open(&list.file)?;
    let catalog = &shelf.catalog;
    let is_wanted = |topic: &str| list.topic.as_deref().is_none_or(|wanted| wanted == topic);
    if let Some(topic) = &list.topic {
        hold_to_topics(catalog, topic)?;
    }
    let entries = || catalog.entries.values().filter(|entry| is_wanted(&entry.topic));
    if list.objects {
        for entry in entries() {
            let is_read = match serde_json::to_string(entry) {
                Ok(json) if list.json => line(format_args!("{json}")),
                _ => line(format_args!("{}", entry.object)),
            };
            if !is_read {
                break;
            }
        }
        return Ok(Outcome::done());
    }
    let mut hours: BTreeMap<(&str, Hour), Sum> = BTreeMap::new();
    entries().for_each(|entry| hours.entry((&entry.topic, entry.hour)).or_default().add(entry));
    if list.json {
        for ((topic, hour), sum) in &hours {
            let (day, hour) = hour.shown();
            let of = |(partition, (first, last)): (&i32, &(i64, i64))| serde_json::json!({ "partition": partition, "first_offset": first, "last_offset": last });
            let offsets: Vec<_> = sum.offsets.iter().map(of).collect();
            let row = serde_json::json!({
                "topic": topic, "day": day, "hour": hour, "objects": sum.objects, "records": sum.records,
                "bytes": sum.bytes, "raw_bytes": sum.raw_bytes, "offsets": offsets,
            });
            if !line(format_args!("{row}")) {
                break;
            }
        }
        return Ok(Outcome::done());
    }
    print(&shelf, &hours);
    Ok(Outcome::done())
}

fn print(shelf: &Shelf, hours: &BTreeMap<(&str, Hour), Sum>) {
    let catalog = &shelf.catalog;
    if catalog.topics.is_empty() {
        say!("nothing is archived yet; `weir run` does it");
        return;
    }
    let mut table = paint::table(&["topic", "day", "hour", "records", "objects", "bytes", "of raw", "offsets"]);
    for ((topic, hour), sum) in hours {
        let (day, hour) = hour.shown();
        let offsets = sum.offsets.iter().map(|(partition, (first, last))| format!("{partition}: {first} to {last}"));
        let cells =
            [paint::count(sum.records), sum.objects.to_string(), paint::bytes(sum.bytes), paint::bytes(sum.raw_bytes)];
        let row = [(*topic).to_owned(), day, hour].into_iter().chain(cells);
        table.add_row(row.chain([offsets.collect::<Vec<_>>().join(", ")]));
    }
    say!("{table}\n");
    let topics: Vec<String> = catalog.topics.keys().cloned().collect();
    // The archive tells of itself where the cluster can't be asked.
    let kept = runtime().ok().and_then(|runtime| {
        let kafka = connect::kafka(&shelf.pipeline);
        retention_ms(&kafka, &shelf.pipeline.kafka.brokers, &topics, runtime.handle()).ok()
    });
    let kept = kept.unwrap_or_else(|| vec![None; topics.len()]);
    let mut table = paint::table(&[
        "partition",
        "archived",
        "to before",
        "records",
        "expired",
        "in the topic",
        "then in the archive",
    ]);
    for (topic, retention_ms) in topics.iter().zip(kept) {
        let days = shelf.config.keep_days_of(topic).map_or("for ever".to_owned(), |days| format!("{days} days"));
        for (partition, log) in catalog.topics.get(topic).into_iter().flatten() {
            table.add_row([
                format!("{topic}/{partition}"),
                format!("from {}", log.first),
                log.next.to_string(),
                paint::count(log.records),
                paint::count(log.expired_records),
                retention(retention_ms),
                days.clone(),
            ]);
        }
    }
    say!("{table}");
    for (topic, logs) in &catalog.topics {
        for (partition, log) in logs {
            for gap in &log.gaps {
                let told = format!(
                    "{topic}/{partition} from {} to before {} expired before it was archived",
                    gap.first, gap.next
                );
                say!("{} {told}", paint::bad("gap:"));
            }
        }
    }
    let missing = catalog.missing_schemas();
    if !missing.is_empty() {
        let ids = missing.iter().take(20).map(u32::to_string).collect::<Vec<_>>().join(", ");
        say!("{}", paint::dim(&format!("values name {} ids that the registry didn't know: {ids}", missing.len())));
    }
}

/// How long a topic keeps its records, for people.
pub(crate) fn retention(ms: Option<i64>) -> String {
    match ms {
        None => "?".to_owned(),
        Some(..0) => "for ever".to_owned(),
        Some(ms) if ms % 86_400_000 == 0 => format!("{} days", ms / 86_400_000),
        Some(ms) if ms % 3_600_000 == 0 => format!("{} hours", ms / 3_600_000),
        Some(ms) => format!("{} s", ms / 1_000),
    }
}
