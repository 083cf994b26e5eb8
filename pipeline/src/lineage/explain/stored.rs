//! What ClickHouse holds of a row: the row itself, refused records of its window, accepted events, versions.

use std::collections::BTreeMap;

use serde::Deserialize;
use weir_operators::view::ViewPlan;
use weir_schemas::retry::RETRIED;
use weir_schemas::tables;
use weir_schemas::types::ColumnType;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, Lines, base_table, ddl, identifier, literal};

use super::asked::Wanted;
use super::places::Place;
use super::stretches::Stretch;
use super::{ExplainError, Window, asked};

/// Refused records that are decoded together, at most.
const REFUSED_TOGETHER: usize = 1_000;
/// Rows that are named where more than one fits.
const NAMED_AT_MOST: usize = 10;
/// Where the generation begins in a version, below which is the epoch.
const EPOCH_BITS: u32 = 40;
const LAST_EPOCH: u64 = (1 << EPOCH_BITS) - 1;
/// Without these ClickHouse computes branches that no row takes (see `weir verify`).
const LAZILY: &str =
    "short_circuit_function_evaluation = 'force_enable', optimize_rewrite_aggregate_function_with_if = 0";

/// Whether a row is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is.
    #[default]
    Stored,
    /// It was, until a tombstone took its place.
    Removed,
    /// Nothing was ever written of it.
    Never,
}

/// A row as it is stored. Values are texts as `toString` gives them; `None` is NULL, or that there is no row.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) presence: Presence,
    pub(super) dimensions: Vec<Option<String>>,
    pub(super) measures: Vec<Option<String>>,
    pub(super) revision: u32,
    pub(super) is_closed: bool,
    pub(super) is_final: bool,
    pub(super) generation: u32,
    pub(super) epoch: u64,
}

/// Finds the one row.
pub(super) async fn find(
    client: &Client,
    plan: &ViewPlan,
    window: Window,
    wanted: &[Wanted],
) -> Result<Row, ExplainError> {
    #[derive(Deserialize)]
    struct Found {
        dimensions: Vec<Option<String>>,
        measures: Vec<Option<String>>,
        revision: u32,
        is_closed: bool,
        is_final: bool,
    }
    let condition = conditions(plan, window, false, wanted.iter().map(|(at, value)| (*at, value)));
    let sql = format!(
        "SELECT {} AS `dimensions`, {} AS `measures`, `revision`, `is_closed`, `is_final` FROM {} AS `row` WHERE {condition} \
         ORDER BY 1 LIMIT {}",
        texts(plan.dimensions.iter().map(|dimension| dimension.name.as_str())),
        texts(plan.measures.iter().map(|measure| measure.name.as_str())),
        client.qualified(&plan.name),
        NAMED_AT_MOST + 1,
    );
    let mut found = client.select::<Found>(&sql).await?;
    if found.len() > 1 {
        let shown = |row: &Found| key_of(plan, &row.dimensions);
        let named: Vec<String> = found.iter().take(NAMED_AT_MOST).map(shown).collect();
        let more = if found.len() > NAMED_AT_MOST { "\n    ..." } else { "" };
        return Err(asked(
            format!("more than one row of `{}` has that window and those dimensions", plan.name),
            format!("say which with --where; there are\n    {}{more}", named.join("\n    ")),
        ));
    }
    let Some(row) = found.pop() else { return absent(client, plan, window, wanted).await };
    let all: Vec<Wanted> = row.dimensions.iter().cloned().enumerate().collect();
    let version = version_of(client, plan, window, &all).await?;
    Ok(Row {
        presence: Presence::Stored,
        dimensions: row.dimensions,
        measures: row.measures,
        revision: row.revision,
        is_closed: row.is_closed,
        is_final: row.is_final,
        generation: u32::try_from(version >> EPOCH_BITS).unwrap_or(u32::MAX),
        epoch: version & LAST_EPOCH,
    })
}

/// A row that readers don't see: one that was removed, or that there never was. Which one is meant has to be said whole.
async fn absent(client: &Client, plan: &ViewPlan, window: Window, wanted: &[Wanted]) -> Result<Row, ExplainError> {
    let named = |at| wanted.iter().find(|(of, _)| *of == at).map(|(_, value)| value.clone());
    let Some(dimensions) = (0..plan.dimensions.len()).map(named).collect::<Option<Vec<_>>>() else {
        return Err(asked(
            format!("`{}` has no such row", plan.name),
            "check the window and the dimensions; one that isn't delivered yet comes within seconds. Give every dimension \
             with --where to learn of a row that was removed, or that HAVING leaves out",
        ));
    };
    let version = version_of(client, plan, window, wanted).await?;
    let presence = if version > 0 { Presence::Removed } else { Presence::Never };
    Ok(Row {
        presence,
        dimensions,
        measures: vec![None; plan.measures.len()],
        generation: u32::try_from(version >> EPOCH_BITS).unwrap_or(u32::MAX),
        // Every epoch may have brought records of a row that none has written.
        epoch: if presence == Presence::Removed { version & LAST_EPOCH } else { LAST_EPOCH },
        ..Row::default()
    })
}

/// A row's key for people, as arguments that name it.
fn key_of(plan: &ViewPlan, dimensions: &[Option<String>]) -> String {
    let one = |(dimension, value): (&weir_operators::view::Dimension, &Option<String>)| {
        format!("--where '{}={}'", dimension.name, value.as_deref().unwrap_or("\\N").replace('\'', "'\\''"))
    };
    plan.dimensions.iter().zip(dimensions).map(one).collect::<Vec<_>>().join(" ")
}

async fn version_of(client: &Client, plan: &ViewPlan, window: Window, wanted: &[Wanted]) -> Result<u64, ExplainError> {
    #[derive(Deserialize)]
    struct Found {
        version: String,
    }
    let condition = conditions(plan, window, true, wanted.iter().map(|(at, value)| (*at, value)));
    let version = ddl::VERSION;
    let from = client.qualified(&base_table(&plan.name));
    let sql = format!("SELECT toString(max(`{version}`)) AS version FROM {from} AS `row` WHERE {condition}");
    let found = client.select::<Found>(&sql).await?;
    Ok(found.into_iter().next().and_then(|found| found.version.parse().ok()).unwrap_or_default())
}

/// The measures of the row as a query over the accepted events gives them; none where it gives no row.
pub(super) async fn measures(
    client: &Client,
    plan: &ViewPlan,
    from: &str,
    window: Window,
    row: &Row,
) -> Result<Vec<Option<String>>, ExplainError> {
    let condition = conditions(plan, window, false, row.dimensions.iter().enumerate());
    let measures = texts(plan.measures.iter().map(|measure| measure.name.as_str()));
    let sql = format!("SELECT {measures} AS `measures` FROM {from} AS `row` WHERE {condition} SETTINGS {LAZILY}");
    #[derive(Deserialize)]
    struct Found {
        measures: Vec<Option<String>>,
    }
    let mut lines = client.lines(&sql, "JSONEachRow")?;
    match lines.next().await? {
        Some(line) => Ok(parse::<Found>(&line)?.measures),
        None => Ok(Vec::new()),
    }
}

/// The row's window and dimensions, over the columns of `row`.
fn conditions<'a>(
    plan: &ViewPlan,
    window: Window,
    is_base: bool,
    wanted: impl Iterator<Item = (usize, &'a Option<String>)>,
) -> String {
    // The base table writes a dot in a column's name as a colon.
    let physical = |name: &str| if is_base { identifier(&name.replace('.', ":")) } else { identifier(name) };
    let at = format!("fromUnixTimestamp64Micro({}, {})", window.start, literal(zone_of(plan)));
    let start = match plan.window.column_type {
        ColumnType::Date => format!("toDate({at})"),
        ColumnType::Date32 => format!("toDate32({at})"),
        _ => at,
    };
    let mut all = vec![format!("`row`.{} = {start}", physical(&plan.window.name))];
    for (at, value) in wanted {
        let Some(dimension) = plan.dimensions.get(at) else { continue };
        let name = physical(&dimension.name);
        all.push(match value {
            Some(value) => format!("toString(`row`.{name}) = {}", literal(value)),
            None => format!("isNull(`row`.{name})"),
        });
    }
    all.join(" AND ")
}

fn zone_of(plan: &ViewPlan) -> &str {
    plan.window.zone.as_deref().unwrap_or("UTC")
}

/// An array of the columns' texts.
fn texts<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let each: Vec<String> =
        names.map(|name| format!("CAST(toString(`row`.{}), 'Nullable(String)')", identifier(name))).collect();
    if each.is_empty() { "CAST([], 'Array(Nullable(String))')".to_owned() } else { format!("[{}]", each.join(", ")) }
}

/// The condition of the row's events over the accepted events: its window, the view's filter, its dimensions.
pub(super) fn accepted_where(plan: &ViewPlan, window: Window, row: &Row) -> String {
    let mut all = vec![between("`_event_time`", window)];
    all.extend(plan.filter.iter().map(|filter| format!("({filter})")));
    for (dimension, value) in plan.dimensions.iter().zip(&row.dimensions) {
        all.push(match value {
            Some(value) => format!("toString({}) = {}", dimension.value, literal(value)),
            None => format!("isNull({})", dimension.value),
        });
    }
    all.join(" AND ")
}

fn between(column: &str, window: Window) -> String {
    const YEAR_1900: i64 = -2_208_988_800_000_000;
    format!(
        "{column} >= fromUnixTimestamp64Micro({}, 'UTC') AND {column} < fromUnixTimestamp64Micro({}, 'UTC')",
        window.from().max(YEAR_1900),
        window.end
    )
}

/// The places of accepted events with their schema ids.
pub(super) async fn accepted(
    client: &Client,
    source: &str,
    topics: &[String],
    condition: &str,
) -> Result<BTreeMap<Place, u32>, DeliveryError> {
    let from = client.qualified(source);
    let sql = format!("SELECT `_topic`, `_partition`, toString(`_offset`), `_schema_id` FROM {from} WHERE {condition}");
    let mut lines = client.lines(&format!("{sql} SETTINGS {LAZILY}"), "JSONCompactEachRow")?;
    let mut places = BTreeMap::new();
    while let Some(line) = lines.next().await? {
        let (topic, partition, offset, schema): (String, i32, String, u32) = parse(&line)?;
        if let (Some(at), Ok(offset)) = (index_of(topics, &topic), offset.parse()) {
            places.insert((at, partition, offset), schema);
        }
    }
    Ok(places)
}

/// A refused record.
pub(super) struct Refused {
    pub(super) place: Place,
    pub(super) reason: String,
    pub(super) rule: String,
    /// Whether it was taken again since.
    pub(super) is_retried: bool,
    pub(super) value: Vec<u8>,
}

/// The refused records that may belong to the window and whose bytes have a schema: those with an event time in it, and
/// among the stretches those that had none when they were refused, since their schema may be readable by now.
pub(super) async fn refused(
    client: &Client,
    topics: &[String],
    window: Window,
    stretches: &[Stretch],
) -> Result<Lines, DeliveryError> {
    // The table is there once the pipeline was started with a retry topic.
    let (is_retried, join) = if !client.has_table(RETRIED).await? {
        ("0", String::new())
    } else {
        let join = "ON r.`topic` = q.`topic` AND r.`partition` = q.`partition` AND r.`offset` = q.`offset`";
        ("r.`epoch` > 0", format!("LEFT JOIN {} AS r {join}", client.qualified(RETRIED)))
    };
    let names: Vec<String> = topics.iter().map(|topic| literal(topic)).collect();
    let sql = format!(
        "SELECT q.`topic`, q.`partition`, toString(q.`offset`), assumeNotNull(q.`schema_id`) AS schema, q.`reason`, q.`rule`, \
         toUInt8({is_retried}), hex(assumeNotNull(q.`value`)) FROM {} AS q {join} \
         WHERE q.`topic` IN ({}) AND isNotNull(q.`schema_id`) AND isNotNull(q.`value`) \
         AND ({} OR (isNull(q.`event_time`) AND ({}))) ORDER BY schema",
        client.qualified(tables::QUARANTINE),
        names.join(", "),
        between("q.`event_time`", window),
        within(stretches),
    );
    client.lines(&sql, "JSONCompactEachRow")
}

/// The condition that a place lies between the first and the last of a partition's stretches.
fn within(stretches: &[Stretch]) -> String {
    let mut spans: BTreeMap<(&str, i32), (i64, i64)> = BTreeMap::new();
    for of in stretches {
        let span = spans.entry((&of.topic, of.partition)).or_insert((of.first, of.next));
        *span = (span.0.min(of.first), span.1.max(of.next));
    }
    let one = |((topic, partition), (first, next)): (&(&str, i32), &(i64, i64))| {
        format!(
            "(q.`topic` = {} AND q.`partition` = {partition} AND q.`offset` >= {first} AND q.`offset` < {next})",
            literal(topic)
        )
    };
    if spans.is_empty() { "0".to_owned() } else { spans.iter().map(one).collect::<Vec<_>>().join(" OR ") }
}

/// The next refused records by schema id; `None` after the last.
pub(super) async fn next_refused(
    lines: &mut Lines,
    topics: &[String],
) -> Result<Option<BTreeMap<u32, Vec<Refused>>>, DeliveryError> {
    let mut batch: BTreeMap<u32, Vec<Refused>> = BTreeMap::new();
    for _ in 0..REFUSED_TOGETHER {
        let Some(line) = lines.next().await? else {
            return Ok((!batch.is_empty()).then_some(batch));
        };
        type Line = (String, i32, String, u32, String, String, u8, String);
        let (topic, partition, offset, schema, reason, rule, is_retried, value): Line = parse(&line)?;
        let (Some(at), Ok(offset)) = (index_of(topics, &topic), offset.parse()) else { continue };
        let (place, value) = ((at, partition, offset), unhex(&value));
        batch.entry(schema).or_default().push(Refused { place, reason, rule, is_retried: is_retried != 0, value });
    }
    Ok(Some(batch))
}

/// What `weir_versions` has of a version.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) weir_version: String,
    pub(super) weir_commit: String,
    pub(super) definition: String,
}

/// A version of the pipeline; `None` where it isn't known.
pub(super) async fn version(client: &Client, id: &str) -> Result<Option<Version>, DeliveryError> {
    let sql = format!(
        "SELECT `weir_version`, `weir_commit`, `definition` FROM {} WHERE `pipeline_version` = {}",
        client.qualified(tables::VERSIONS),
        literal(id)
    );
    Ok(client.select::<Version>(&sql).await?.into_iter().next())
}

fn index_of(topics: &[String], topic: &str) -> Option<u16> {
    topics.iter().position(|known| known == topic).and_then(|at| u16::try_from(at).ok())
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T, DeliveryError> {
    let odd = |error| DeliveryError::Retriable { why: format!("ClickHouse answered something else: {error}") };
    serde_json::from_slice(line).map_err(odd)
}
