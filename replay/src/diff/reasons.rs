//! Reasons: what is known of both sides that may be why a row differs.
//!
//! Told are facts that stand in tables: records of the row's window that one side refused and the other didn't (by a rule, as too
//! late, for their bytes), refused ones that were retried since, copies that differ, and what differs in the definitions that
//! were in force: SQL, reader schema, settings, Weir itself. Facts of a row's tenant alone are told where the tenant is a
//! dimension. Several may hold, and which of them made the difference isn't said; where none is known, none is told.
//!
//! Records are compared by their places, within what the replay has read: a record that it never saw refused nothing there.
//!
//! Not here: what each record did to the row (`weir explain row` reads them again).

mod code;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_operators::expr::Expr;
use weir_operators::view::ViewPlan;
use weir_operators::window::Windows;
use weir_pipeline::bind::BoundSource;
use weir_pipeline::slice::Slice;
use weir_schemas::fate;
use weir_schemas::retry::RETRIED;
use weir_schemas::stage::system;
use weir_schemas::tables;
use weir_schemas::time::EventTime;
use weir_schemas::types::{ColumnType, Zone};
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::swaps::Swapped;
use weir_sinks::clickhouse::{Client, literal, swaps};

use super::{Example, ViewDiff};
use crate::compare::Error;
use code::Versions;

/// What may have made a row differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Events that were too late on one side.
    Late,
    /// A rule that refused events on one side.
    Rule,
    /// Records that were refused on one side for something else.
    Refused,
    /// Refused records that were retried on the live side.
    Retried,
    /// Copies of an event that differ.
    Duplicates,
    /// SQL, schema, settings or Weir itself.
    Code,
    /// Another replay, whose rows readers see.
    Swap,
    /// Records that the replay was told to leave out.
    Part,
}

impl Cause {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Late => "late",
            Cause::Rule => "rule",
            Cause::Refused => "refused",
            Cause::Retried => "retried",
            Cause::Duplicates => "duplicates",
            Cause::Code => "code",
            Cause::Swap => "swap",
            Cause::Part => "part",
        }
    }
}

/// A fact that may be why a row differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Reason {
    /// What kind of fact.
    pub cause: Cause,
    /// The fact, for people.
    pub detail: String,
}

/// Where the facts of a view are.
#[derive(Clone)]
pub struct Known {
    /// ClickHouse, in the live database.
    pub client: Client,
    /// The replay's database.
    pub database: String,
    /// The replay's name.
    pub run: String,
    /// The live view.
    pub view: ViewPlan,
    /// The topics of its source, that of retries included.
    pub topics: Vec<String>,
    /// Which of its dimensions is the source's tenant, if one is.
    pub tenant: Option<usize>,
    /// What the replay has read.
    pub slice: Slice,
    /// Whether it was told to leave out partitions or offsets.
    pub is_part: bool,
}

/// Which dimension of `view` is the column `tenant` of its source as it is, if one is.
pub fn tenant_of(view: &ViewPlan, source: &BoundSource, tenant: &str) -> Option<usize> {
    view.dimensions.iter().position(|dimension| {
        let Expr::Column { index, .. } = &dimension.value else { return false };
        let column = index.checked_sub(system::COUNT).and_then(|at| source.columns.get(at));
        column.is_some_and(|column| column.name == tenant)
    })
}

/// A window of one tenant, or of all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    start: i64,
    end: i64,
    tenant: String,
}

/// Reasons of each spot, which go by their places from 1 on.
type Told = BTreeMap<usize, BTreeSet<Reason>>;

impl Known {
    /// Writes beside each example what is known of it.
    ///
    /// # Errors
    /// When ClickHouse can't be asked, or a table isn't there.
    pub async fn explain(&self, diff: &mut ViewDiff) -> Result<(), Error> {
        let failed = |error| Error::ClickHouse { view: self.view.name.clone(), error };
        if diff.examples.is_empty() {
            return Ok(());
        }
        let of_examples = self.spots(&diff.examples).await.map_err(failed)?;
        let mut spots: Vec<Spot> = of_examples.iter().flatten().cloned().collect();
        spots.sort();
        spots.dedup();
        let mut told = Told::new();
        if !spots.is_empty() {
            let versions = self.versions(&spots).await.map_err(failed)?;
            self.refused(&spots, &versions, &mut told).await.map_err(failed)?;
            self.duplicates(&spots, &mut told).await.map_err(failed)?;
            for (at, _) in spots.iter().enumerate() {
                let details = versions.differences(at + 1, &self.view.name, &self.view.source);
                told.entry(at + 1).or_default().extend(details.into_iter().map(|detail| reason(Cause::Code, detail)));
            }
        }
        let swaps = swaps::active(&self.client).await.map_err(failed)?;
        for (example, spot) in diff.examples.iter_mut().zip(of_examples) {
            let mut reasons = BTreeSet::new();
            if let Some(spot) = spot {
                let at = spots.iter().position(|of| *of == spot).map(|at| at + 1).unwrap_or_default();
                reasons.extend(told.get(&at).into_iter().flatten().cloned());
                reasons.extend(self.swapped(&swaps, &spot));
            }
            if self.is_part {
                let detail = "the replay was told to leave out partitions or offsets (--only)".to_owned();
                reasons.insert(reason(Cause::Part, detail));
            }
            example.reasons = reasons.into_iter().collect();
        }
        Ok(())
    }

    /// The window and tenant of each example.
    async fn spots(&self, examples: &[Example]) -> Result<Vec<Option<Spot>>, DeliveryError> {
        #[derive(Deserialize)]
        struct Found {
            starts: Vec<Option<i64>>,
        }
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let starts: Vec<String> = examples.iter().map(|of| literal(&text(of.key.first()))).collect();
        let zone = zone_of(&self.view).map(|zone| format!(", {}", literal(&zone))).unwrap_or_default();
        let sql = format!(
            "SELECT arrayMap(t -> toUnixTimestamp64Micro(parseDateTime64BestEffortOrNull(t, 6{zone})), [{}]) AS starts \
             SETTINGS output_format_json_quote_64bit_integers = 0",
            starts.join(", ")
        );
        let found = self.client.select::<Found>(&sql).await?;
        let starts = found.into_iter().next().map(|found| found.starts).unwrap_or_default();
        let Ok(windows) = Windows::new(&self.view.window) else { return Ok(vec![None; examples.len()]) };
        let spot = |(example, start): (&Example, Option<i64>)| {
            let bounds = windows.bounds(EventTime(start?));
            let tenant = self.tenant.map(|at| text(example.key.get(at + 1))).unwrap_or_default();
            Some(Spot { start: bounds.start.0, end: bounds.end.0, tenant })
        };
        Ok(examples.iter().zip(starts).map(spot).collect())
    }

    /// Records that one side refused and the other didn't.
    async fn refused(&self, spots: &[Spot], versions: &Versions, told: &mut Told) -> Result<(), DeliveryError> {
        #[derive(Deserialize)]
        struct Found {
            spot: usize,
            reason: String,
            rule: String,
            only_live: u64,
            only_replay: u64,
            retried: u64,
        }
        let at = "toUnixTimestamp64Micro(assumeNotNull(event_time))";
        let (first, last) = (spots.iter().map(|of| of.start).min(), spots.iter().map(|of| of.end).max());
        let side = |from: String, is_live: u8| {
            format!(
                "SELECT topic, partition, offset, reason, rule, {spot} AS spot, {is_live} AS is_live FROM {from} \
                 WHERE event_time IS NOT NULL AND {at} >= {first} AND {at} < {last} AND spot > 0 AND ({read})",
                spot = self.spot_of(spots, at, "tenant"),
                first = first.unwrap_or_default(),
                last = last.unwrap_or_default(),
                read = self.read(),
            )
        };
        let replay = self.client.in_database(&self.database);
        let sql = format!(
            "SELECT spot, reason, rule, toUInt64(countIf(of_live AND NOT is_retried AND NOT of_replay)) AS only_live, \
             toUInt64(countIf(of_replay AND (is_retried OR NOT of_live))) AS only_replay, \
             toUInt64(countIf(of_replay AND is_retried)) AS retried \
             FROM (SELECT spot, topic, partition, offset, any(reason) AS reason, any(rule) AS rule, \
             max(is_live = 1) AS of_live, max(is_live = 0) AS of_replay, \
             (topic, partition, offset) IN ({retried}) AS is_retried \
             FROM ({} UNION ALL {}) GROUP BY spot, topic, partition, offset) GROUP BY spot, reason, rule \
             HAVING only_live + only_replay > 0 SETTINGS output_format_json_quote_64bit_integers = 0",
            side(self.client.qualified(tables::QUARANTINE), 1),
            side(replay.qualified(tables::QUARANTINE), 0),
            retried = self.retried().await?,
        );
        for of in self.client.select::<Found>(&sql).await? {
            let told = told.entry(of.spot).or_default();
            let (cause, what) = self.what(&of.reason, &of.rule, of.spot, versions);
            for (count, by, other) in
                [(of.only_live, "live", "in the replay"), (of.only_replay, "in the replay", "live")]
            {
                if count > 0 {
                    let detail = format!("{what}: {} of its window {by}, not {other}", records(count));
                    told.insert(reason(cause, detail));
                }
            }
            if of.retried > 0 {
                let detail =
                    format!("{what}: {} that both sides refused, retried since, counted live", records(of.retried));
                told.insert(reason(Cause::Retried, detail));
            }
        }
        Ok(())
    }

    /// What refused a record, in words.
    fn what(&self, name: &str, rule: &str, spot: usize, versions: &Versions) -> (Cause, String) {
        if [fate::Fate::TooLate.name(), fate::Fate::TooLateAfterIdle.name()].contains(&name) {
            return (Cause::Late, name.replace('_', " "));
        }
        if rule.is_empty() {
            return (Cause::Refused, format!("refused as {name}"));
        }
        let other =
            if versions.rule_differs(spot, &self.view.source, rule) { ", another one in the replay" } else { "" };
        (Cause::Rule, format!("the rule `{rule}`{other}"))
    }

    /// The places of records that were refused live, retried, and not refused again.
    async fn retried(&self) -> Result<String, DeliveryError> {
        if !self.client.has_table(RETRIED).await? {
            return Ok("SELECT '', toInt32(0), toInt64(0) WHERE 0".to_owned());
        }
        let (retried, refused) = (self.client.qualified(RETRIED), self.client.qualified(tables::QUARANTINE));
        Ok(format!(
            "SELECT topic, partition, offset FROM {retried} WHERE (retry_topic, retry_partition, retry_offset) NOT IN \
             (SELECT topic, partition, offset FROM {refused} WHERE topic IN (SELECT retry_topic FROM {retried}) \
             AND (topic, partition, offset) NOT IN (SELECT topic, partition, offset FROM {retried}))"
        ))
    }

    /// Copies of events that differ, of which either may count.
    async fn duplicates(&self, spots: &[Spot], told: &mut Told) -> Result<(), DeliveryError> {
        #[derive(Deserialize)]
        struct Found {
            spot: usize,
            copies: u64,
        }
        let spot = self.spot_of(spots, "toInt64(toUnixTimestamp(minute)) * 1000000", "tenant");
        let copies = fate::Fate::DuplicateDiffering.name();
        let ledger = weir_operators::account::LEDGER;
        let of = |from: String| {
            format!(
                "SELECT {spot} AS spot, toUInt64(sum({copies})) AS copies FROM {from} \
                 WHERE source IN ({source}, {retries}) AND spot > 0 GROUP BY spot",
                source = literal(&self.view.source),
                retries = literal(&format!("{}/retry", self.view.source)),
            )
        };
        let sql = format!(
            "SELECT spot, max(copies) AS copies FROM ({} UNION ALL {}) GROUP BY spot HAVING copies > 0 \
             SETTINGS output_format_json_quote_64bit_integers = 0",
            of(self.client.qualified(ledger)),
            of(self.client.in_database(&self.database).qualified(ledger)),
        );
        for of in self.client.select::<Found>(&sql).await? {
            let detail =
                format!("{} of events of its window differ from each other; either may count", copies_of(of.copies));
            told.entry(of.spot).or_default().insert(reason(Cause::Duplicates, detail));
        }
        Ok(())
    }

    /// The versions of the pipeline that took the events of each spot.
    async fn versions(&self, spots: &[Spot]) -> Result<Versions, DeliveryError> {
        let replay = self.client.in_database(&self.database);
        let in_force = [self.in_force(&self.client, spots).await?, self.in_force(&replay, spots).await?];
        Ok(Versions::of(in_force, [code::known(&self.client).await?, code::known(&replay).await?]))
    }

    async fn in_force(&self, client: &Client, spots: &[Spot]) -> Result<BTreeMap<usize, Vec<String>>, DeliveryError> {
        #[derive(Deserialize)]
        struct Found {
            spot: usize,
            versions: Vec<String>,
        }
        let micros = |column: &str| format!("toUnixTimestamp64Micro(assumeNotNull({column}))");
        let sql = format!(
            "SELECT arrayJoin(arrayFilter((i, w) -> {least} < w.2 AND {greatest} >= w.1, arrayEnumerate(spots), spots)) AS spot, \
             arraySort(groupUniqArray(pipeline_version)) AS versions FROM (SELECT *, {spots} AS spots FROM {from} \
             WHERE source IN ({source}, {retries}) AND least_event_time IS NOT NULL) GROUP BY spot \
             SETTINGS output_format_json_quote_64bit_integers = 0",
            least = micros("least_event_time"),
            greatest = micros("greatest_event_time"),
            spots = listed(spots),
            from = client.qualified(tables::EPOCHS),
            source = literal(&self.view.source),
            retries = literal(&format!("{}/retry", self.view.source)),
        );
        let found = client.select::<Found>(&sql).await?;
        Ok(found.into_iter().map(|of| (of.spot, of.versions)).collect())
    }

    /// The place of the spot that a time and a tenant fall into, in SQL; 0 for none.
    fn spot_of(&self, spots: &[Spot], at: &str, tenant: &str) -> String {
        let tenant = self.tenant.map(|_| format!(" AND {tenant} = w.3")).unwrap_or_default();
        format!("arrayFirstIndex(w -> {at} >= w.1 AND {at} < w.2{tenant}, {})", listed(spots))
    }

    /// The condition that holds for places that the replay has read.
    fn read(&self) -> String {
        let of = |of: &weir_pipeline::slice::Stretch| {
            let (topic, partition, first, next) = (literal(&of.topic), of.partition, of.first, of.next);
            format!("(topic = {topic} AND partition = {partition} AND offset >= {first} AND offset < {next})")
        };
        let read: Vec<String> =
            self.slice.stretches.iter().filter(|stretch| self.topics.contains(&stretch.topic)).map(of).collect();
        if read.is_empty() { "0".to_owned() } else { read.join(" OR ") }
    }

    fn swapped(&self, swaps: &[Swapped], spot: &Spot) -> Option<Reason> {
        let is_in = |of: &&Swapped| of.view == self.view.name && of.from <= spot.start && spot.start < of.to;
        let seen = swaps.iter().rev().find(is_in).filter(|of| of.run != self.run)?;
        Some(reason(Cause::Swap, format!("readers see the row of the replay `{}` in place of the live one", seen.run)))
    }
}

fn reason(cause: Cause, detail: String) -> Reason {
    Reason { cause, detail }
}

fn records(count: u64) -> String {
    if count == 1 { "1 record".to_owned() } else { format!("{count} records") }
}

fn copies_of(count: u64) -> String {
    if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") }
}

/// The spots as an array in SQL.
fn listed(spots: &[Spot]) -> String {
    let one = |of: &Spot| format!("(toInt64({}), toInt64({}), {})", of.start, of.end, literal(&of.tenant));
    format!("[{}]", spots.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// The zone in which ClickHouse prints the window's start; none is the server's.
fn zone_of(view: &ViewPlan) -> Option<Zone> {
    match &view.window.column_type {
        ColumnType::DateTime(zone) | ColumnType::DateTime64(_, zone) => zone.clone(),
        _ => Some(view.window.zone.clone().unwrap_or_else(|| Zone::from("UTC"))),
    }
}
