//! What a replay costs: records, bytes, time, and what will be refused, as far as that can be told without reading.
//!
//! The live pipeline wrote down how many records it took of each stretch; where it knows nothing, there are at most as many
//! as offsets. Bytes are an estimate from a few records of each partition, and so is time, from the speed of earlier runs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::Deserialize;
use weir_pipeline::slice::Slice;
use weir_pipeline::source::log::Log;
use weir_schemas::frame::frame;
use weir_schemas::tables;
use weir_schemas::time::EventTime;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, literal};

use super::precedents::precedents;
use super::record::{Record, Status};

/// Places of a log that are looked into, at most, and records at each.
const SAMPLED_PLACES: usize = 64;
const SAMPLED_RECORDS: usize = 25;

/// Places within a stretch, at most.
const PLACES_OF_STRETCH: usize = 4;

/// How long a sample may take.
const SAMPLE_WITHIN: Duration = Duration::from_secs(10);

/// Over how long the live pipeline's speed is measured, in seconds.
const SPEED_OVER_S: u64 = 10;

/// What a replay costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How many records there are; where not all of the log is known, at most.
    pub records: u64,
    /// Whether the live pipeline counted all of them.
    pub is_counted: bool,
    /// The first and the last event time of those in time, where all were counted.
    pub times: Option<(EventTime, EventTime)>,
    /// Bytes of their values: an estimate; absent, none of them could be looked at.
    pub bytes: Option<u64>,
    /// Records of which the live pipeline judged by the clock.
    pub judged: u64,
    /// How many of them the live pipeline refused, by reason, the most first.
    pub refused: Vec<(String, u64)>,
    /// The greatest number of records a second that the live pipeline took over some time; absent, it isn't known.
    pub live_speed: Option<u64>,
}

/// Some records of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    records: u64,
    bytes: u64,
    /// The schemas that they name.
    pub schema_ids: BTreeSet<u32>,
}

/// Looks at records at even distances of each stretch, as many as there is time for.
pub fn sample(log: &dyn Log, slice: &Slice) -> Sampled {
    let (mut sampled, until) = (Sampled::default(), Instant::now() + SAMPLE_WITHIN);
    let stretches = &slice.stretches;
    let every = stretches.len().div_ceil(SAMPLED_PLACES).max(1);
    let places = (SAMPLED_PLACES / stretches.len().max(1)).clamp(1, PLACES_OF_STRETCH);
    let mut lookups = log.lookups();
    for of in stretches.iter().step_by(every) {
        let step = of.offsets() / places as u64;
        for offset in (0..places as u64).map(|at| of.first.saturating_add_unsigned(at * step)) {
            let found = lookups.look_up(&of.topic, of.partition, offset, SAMPLED_RECORDS, until).unwrap_or_default();
            for record in found.iter().filter(|record| record.offset < of.next) {
                let value = record.value.as_deref().unwrap_or_default();
                (sampled.records, sampled.bytes) = (sampled.records + 1, sampled.bytes + value.len() as u64);
                sampled.schema_ids.extend(frame(value).ok().map(|framed| framed.schema_id));
            }
        }
    }
    sampled
}

impl Sampled {
    /// What so many records take.
    fn bytes_of(&self, records: u64) -> Option<u64> {
        let whole = u128::from(self.bytes) * u128::from(records);
        u64::try_from(whole.checked_div(u128::from(self.records))?).ok()
    }
}

impl Cost {
    /// What reading `slice` costs.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn of(client: &Client, slice: &Slice, sampled: &Sampled) -> Result<Cost, DeliveryError> {
        let offsets = slice.offsets();
        let mut cost = Cost { records: offsets, ..Cost::default() };
        if slice.stretches.is_empty() {
            return Ok(cost);
        }
        if client.has_table(tables::EPOCHS).await? {
            let known = known(client, slice).await?;
            cost.records = known.records + offsets.saturating_sub(known.offsets);
            cost.is_counted = known.offsets >= offsets;
            cost.times = known.times.filter(|_| cost.is_counted);
            cost.live_speed = live_speed(client).await?;
        }
        if client.has_table(tables::QUARANTINE).await? {
            cost.refused = refused(client, slice).await?;
        }
        (_, cost.judged) = precedents(client, slice).await?;
        cost.bytes = sampled.bytes_of(cost.records);
        Ok(cost)
    }
}

/// What the live pipeline knows of a slice.
#[derive(Default)]
struct Known {
    /// The records that it took of it.
    records: u64,
    /// Of how many offsets that is known.
    offsets: u64,
    /// The first and the last event time; absent where no event was in time.
    times: Option<(EventTime, EventTime)>,
}

async fn known(client: &Client, slice: &Slice) -> Result<Known, DeliveryError> {
    #[derive(Deserialize)]
    struct Row {
        records: String,
        offsets: String,
        least: Option<String>,
        greatest: Option<String>,
    }
    let within = places(slice, |first, next| format!("first_offset >= {first} AND next_offset <= {next}"));
    // A delivery that was repeated wrote the same row twice.
    let sql = format!(
        "SELECT toString(sum(records)) AS records, toString(sum(next_offset - first_offset)) AS offsets, \
         toString(toUnixTimestamp64Micro(min(earliest))) AS least, toString(toUnixTimestamp64Micro(max(latest))) AS greatest FROM \
         (SELECT topic, partition, first_offset, next_offset, records, min(least_event_time) AS earliest, \
         max(greatest_event_time) AS latest FROM {} WHERE {within} \
         GROUP BY topic, partition, first_offset, next_offset, records)",
        client.qualified(tables::EPOCHS)
    );
    let Some(row) = client.select::<Row>(&sql).await?.into_iter().next() else { return Ok(Known::default()) };
    let number = |text: &str| text.parse().unwrap_or_default();
    let time = |text: Option<String>| text.and_then(|text| text.parse().ok()).map(EventTime);
    let times = time(row.least).zip(time(row.greatest));
    Ok(Known { records: number(&row.records), offsets: number(&row.offsets), times })
}

/// Records a second in the busiest stretch of the live pipeline's life that is known.
async fn live_speed(client: &Client) -> Result<Option<u64>, DeliveryError> {
    #[derive(Deserialize)]
    struct Row {
        speed: String,
    }
    let sql = format!(
        "SELECT toString(intDiv(max(records), {SPEED_OVER_S})) AS speed FROM (SELECT sum(records) AS records FROM {} \
         GROUP BY toStartOfInterval(committed_at, INTERVAL {SPEED_OVER_S} SECOND))",
        client.qualified(tables::EPOCHS)
    );
    let rows = client.select::<Row>(&sql).await?;
    Ok(rows.first().and_then(|row| row.speed.parse().ok()).filter(|speed| *speed > 0))
}

/// What the live pipeline refused of a slice.
async fn refused(client: &Client, slice: &Slice) -> Result<Vec<(String, u64)>, DeliveryError> {
    #[derive(Deserialize)]
    struct Row {
        reason: String,
        records: String,
    }
    let within = places(slice, |first, next| format!("offset >= {first} AND offset < {next}"));
    let sql = format!(
        "SELECT reason, toString(uniqExact(topic, partition, offset)) AS records FROM {} WHERE {within} \
         GROUP BY reason ORDER BY uniqExact(topic, partition, offset) DESC, reason",
        client.qualified(tables::QUARANTINE)
    );
    let rows = client.select::<Row>(&sql).await?;
    Ok(rows.into_iter().map(|row| (row.reason, row.records.parse().unwrap_or_default())).collect())
}

fn places(slice: &Slice, within: impl Fn(i64, i64) -> String) -> String {
    let place = |of: &weir_pipeline::slice::Stretch| {
        let (topic, partition) = (literal(&of.topic), of.partition);
        format!("(topic = {topic} AND partition = {partition} AND {})", within(of.first, of.next))
    };
    format!("({})", slice.stretches.iter().map(place).collect::<Vec<_>>().join(" OR "))
}

/// The newest replay of `records` that was read in one go and as fast as it went, and its records a second.
pub fn measured(records: &[Record]) -> Option<(&str, u64)> {
    let complete = records.iter().filter(|record| record.status == Status::Complete);
    complete.filter_map(|record| Some((record.run.as_str(), record.records_per_second?))).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_stands_for_the_rest() {
        let sampled = Sampled { records: 4, bytes: 1_000, ..Sampled::default() };
        assert_eq!(sampled.bytes_of(10_000_000_000), Some(2_500_000_000_000));
        assert_eq!(Sampled::default().bytes_of(5), None, "nobody knows");
    }
}
