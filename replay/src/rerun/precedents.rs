//! What the live pipeline judged by the clock, read from `weir_judgements` for the stretches that a replay reads.

use serde::Deserialize;
use weir_pipeline::slice::Slice;
use weir_pipeline::source::judgement::Kind;
use weir_pipeline::source::precedent::{Precedent, Precedents};
use weir_schemas::tables;
use weir_schemas::time::EventTime;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, literal};

/// Those that decide a record's fate.
const KINDS: [Kind; 3] = [Kind::TooLateAfterIdle, Kind::TooLateRetried, Kind::UnknownSchema];

/// The precedents of what `slice` reads, and how many records they are of.
///
/// # Errors
/// What ClickHouse says.
pub async fn precedents(client: &Client, slice: &Slice) -> Result<(Precedents, u64), DeliveryError> {
    #[derive(Deserialize)]
    struct Row {
        topic: String,
        partition: i32,
        kind: String,
        first: String,
        last: String,
        watermark: String,
    }
    let (mut precedents, mut records) = (Precedents::default(), 0);
    if slice.stretches.is_empty() || !client.has_table(tables::JUDGEMENTS).await? {
        return Ok((precedents, records));
    }
    let kinds = KINDS.map(|kind| literal(kind.name()));
    let places = slice.stretches.iter().map(|of| {
        let (topic, first) = (literal(&of.topic), of.first);
        // One that begins before the stretch may reach into it.
        let reaches = format!("(offset >= {first} OR last_offset >= {first}) AND offset < {}", of.next);
        format!("(topic = {topic} AND partition = {} AND {reaches})", of.partition)
    });
    // A delivery that was repeated wrote the same row twice; a log that was read twice was judged twice, and the tables have
    // what came of the second time.
    let sql = format!(
        "SELECT topic, partition, kind, toString(offset) AS first, \
         toString(greatest(offset, argMax(last_offset, judged_at))) AS last, \
         toString(toUnixTimestamp64Micro(argMax(watermark, judged_at))) AS watermark \
         FROM {} WHERE kind IN ({}) AND ({}) GROUP BY topic, partition, kind, offset ORDER BY topic, partition, kind, offset",
        client.qualified(tables::JUDGEMENTS),
        kinds.join(", "),
        places.collect::<Vec<_>>().join(" OR ")
    );
    let number = |text: &str| text.parse::<i64>().unwrap_or_default();
    for row in client.select::<Row>(&sql).await? {
        let Some(kind) = KINDS.into_iter().find(|kind| kind.name() == row.kind) else { continue };
        let (first, last, watermark) = (number(&row.first), number(&row.last), EventTime(number(&row.watermark)));
        records += u64::try_from(last - first + 1).unwrap_or(0);
        precedents.add(&row.topic, row.partition, Precedent { first, last, kind, watermark });
    }
    Ok((precedents, records))
}
