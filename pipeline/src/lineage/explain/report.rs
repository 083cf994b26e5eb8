//! What is told of a row.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::Serialize;
use serde_json::Value;
use weir_operators::view::ViewPlan;
use weir_schemas::types::ColumnType;
use weir_sinks::clickhouse::swaps::Swapped;

use super::Window;
use super::places::{Places, Tally};
use super::stored::{Presence, Row, Version};
use super::stretches::{Known, Stretch};

/// Greatest relative difference of Float64 values, whose sums depend on the order of events in ClickHouse, too.
const TOLERANCE: f64 = 1e-9;

/// The explanation of a row.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The view.
    pub view: String,
    /// The window's first instant, in RFC 3339.
    pub window_start: String,
    /// The first instant after it.
    pub window_end: String,
    /// The dimensions with their values as text; null is NULL.
    pub dimensions: Vec<(String, Option<String>)>,
    /// How often the row of the closed window was corrected.
    pub revision: u32,
    /// Whether the window is closed.
    pub is_closed: bool,
    /// Whether the row can change no more by itself.
    pub is_final: bool,
    /// Whether readers see it.
    pub is_there: bool,
    /// Why not, in words; empty where they do.
    pub absence: String,
    /// The replay that stands in the place of the window's live rows, so that the row is its row; null where none does.
    pub replay: Option<InPlace>,
    /// The epoch whose commit wrote or removed it; where none did, the greatest there can be.
    pub epoch: u64,
    /// The generation of versions.
    pub generation: u32,
    /// The measures.
    pub measures: Vec<Measure>,
    /// Whether all measures came out as they are stored; null where nothing could be recomputed.
    pub is_equal: Option<bool>,
    /// What they were recomputed from.
    pub recomputed_from: String,
    /// The places of the records that counted.
    pub partitions: Vec<PartitionPlaces>,
    /// The writer schemas of the records that counted.
    pub schemas: Vec<SchemaSeen>,
    /// The releases that sent the records that counted, the commonest first.
    pub releases: Vec<Release>,
    /// Records of the row that were refused, and not retried since.
    pub left_out: Vec<Left>,
    /// Records of the row that were refused at first and retried since: what became of each is told at its place in the
    /// retry topic.
    pub retried: Vec<Left>,
    /// Further copies of events that counted.
    pub copies: u64,
    /// How the copy that counted is known.
    pub copies_known_by: String,
    /// Records without an event in the stretches that were read, whichever row they would have belonged to.
    pub undecodable: Vec<Left>,
    /// The versions of the pipeline that were in force.
    pub versions: Vec<VersionSeen>,
    /// How many epochs may have brought records of the row, the first and the last of them.
    pub epochs: (u64, u64, u64),
    /// Offsets that were looked through.
    pub offsets_searched: u64,
    /// Records that were read for it.
    pub records_read: u64,
    /// What else has to be known.
    pub notes: Vec<String>,
    #[serde(skip)]
    known_from: Option<u64>,
    #[serde(skip)]
    floats: Vec<bool>,
    #[serde(skip)]
    has_forgotten: bool,
}

/// A replay in the place of live rows.
#[derive(Clone, Debug, Serialize)]
pub struct InPlace {
    /// Its name.
    pub run: String,
    /// The first start of a window that it stands for, in RFC 3339.
    pub from: String,
    /// The first start behind them.
    pub to: String,
}

/// A measure, as it is stored and as it came out again.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    /// Its name.
    pub name: String,
    /// The stored value as text; null is NULL.
    pub stored: Option<String>,
    /// The recomputed value; null is NULL.
    pub recomputed: Option<String>,
    /// Whether the two are equal; null where nothing could be recomputed.
    pub is_equal: Option<bool>,
}

/// Where the records of one partition are.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionPlaces {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// How many counted.
    pub records: u64,
    /// Runs of consecutive offsets, first and last of each.
    pub runs: Vec<(i64, i64)>,
}

/// A writer schema.
#[derive(Clone, Debug, Serialize)]
pub struct SchemaSeen {
    /// Its id in the registry.
    pub id: u32,
    /// The source's subject, if it has it.
    pub subject: Option<String>,
    /// Its version there.
    pub version: Option<u32>,
    /// How many records it wrote.
    pub records: u64,
}

/// A release.
#[derive(Clone, Debug, Serialize)]
pub struct Release {
    /// The SDK.
    pub sdk: String,
    /// Its version.
    pub sdk_version: String,
    /// The app's version.
    pub app_version: String,
    /// How many records it sent.
    pub records: u64,
}

/// Records that didn't count.
#[derive(Clone, Debug, Serialize)]
pub struct Left {
    /// Why.
    pub reason: String,
    /// The rule that decided; empty where none did.
    pub rule: String,
    /// How many.
    pub records: u64,
}

/// A version of the pipeline.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VersionSeen {
    /// Its hash.
    pub pipeline_version: String,
    /// How many of the epochs it committed.
    pub epochs: u64,
    /// The hash of the view's SQL; empty where it isn't known.
    pub view_hash: String,
    /// Whether the view's SQL is what the file says today; null where it isn't known.
    pub is_todays_view: Option<bool>,
    /// The hashes of the source's rules, by id.
    pub rules: BTreeMap<String, String>,
    /// The version of Weir's code.
    pub weir_version: String,
    /// The commit it was built from; empty where the build didn't say.
    pub weir_commit: String,
}

impl VersionSeen {
    pub(super) fn unknown(id: &str, epochs: u64) -> VersionSeen {
        VersionSeen { pipeline_version: id.to_owned(), epochs, ..VersionSeen::default() }
    }

    pub(super) fn fill(&mut self, found: &Version, view: &str, source: &str, todays_view: &str) {
        self.weir_version = found.weir_version.clone();
        self.weir_commit = found.weir_commit.clone();
        let definition: Value = serde_json::from_str(&found.definition).unwrap_or_default();
        let hash = |of: &Value| of.get("hash").and_then(Value::as_str).unwrap_or_default().to_owned();
        let part = |path: [&str; 2]| path.iter().try_fold(&definition, |at, key| at.get(key));
        if let Some(of_view) = part(["views", view]) {
            self.view_hash = hash(of_view);
            self.is_todays_view = Some(self.view_hash == todays_view);
        }
        let rules = part(["sources", source]).and_then(|of| of.get("rules")).and_then(Value::as_object);
        self.rules = rules.into_iter().flatten().map(|(id, rule)| (id.clone(), hash(rule))).collect();
    }
}

impl Report {
    /// Names the replay whose rows readers see of the window: of those that stand there, the one that was swapped in last.
    pub(super) fn in_place(&mut self, active: &[Swapped], window: Window) {
        let stands = |of: &&Swapped| of.view == self.view && (of.from..of.to).contains(&window.start);
        self.replay = active.iter().rfind(stands).map(|of| InPlace {
            run: of.run.clone(),
            from: shown(of.from),
            to: shown(of.to),
        });
    }

    pub(super) fn of(plan: &ViewPlan, window: Window, row: &Row) -> Report {
        let names = plan.dimensions.iter().map(|dimension| dimension.name.clone());
        let measures = plan.measures.iter().zip(&row.measures).map(|(measure, stored)| Measure {
            name: measure.name.clone(),
            stored: stored.clone(),
            recomputed: None,
            is_equal: None,
        });
        let is_float = |of: &ColumnType| matches!(of.without_null(), ColumnType::Float64 | ColumnType::Float32);
        Report {
            view: plan.name.clone(),
            window_start: shown(window.start),
            window_end: shown(window.end),
            dimensions: names.zip(row.dimensions.iter().cloned()).collect(),
            revision: row.revision,
            is_closed: row.is_closed,
            is_final: row.is_final,
            is_there: row.presence == Presence::Stored,
            absence: since(row),
            epoch: row.epoch,
            generation: row.generation,
            measures: measures.collect(),
            floats: plan.measures.iter().map(|measure| is_float(measure.call.result_type())).collect(),
            ..Report::default()
        }
    }

    pub(super) fn epochs(&mut self, known: &Known) {
        let (first, last) = (known.epochs.first(), known.epochs.last());
        self.epochs =
            (known.epochs.len() as u64, first.copied().unwrap_or_default(), last.copied().unwrap_or_default());
        self.known_from = known.known_from;
    }

    pub(super) fn searched(
        &mut self,
        readable: &[Stretch],
        forgotten: &[Stretch],
        records: u64,
        undecodable: BTreeMap<String, u64>,
    ) {
        self.offsets_searched = readable.iter().map(Stretch::offsets).sum();
        self.records_read = records;
        self.undecodable =
            undecodable.into_iter().map(|(reason, records)| Left { reason, rule: String::new(), records }).collect();
        self.has_forgotten = !forgotten.is_empty();
        for Stretch { topic, partition, first, next } in forgotten {
            self.notes.push(format!("the log has forgotten {topic}/{partition} from {first} to {}", next - 1));
        }
    }

    pub(super) fn places(&mut self, topics: &[String], places: &Places, tally: Tally) {
        self.partitions = places
            .counted()
            .iter()
            .map(|((topic, partition), offsets)| PartitionPlaces {
                topic: topics.get(usize::from(*topic)).cloned().unwrap_or_default(),
                partition: *partition,
                records: offsets.len() as u64,
                runs: runs(offsets.iter().copied()),
            })
            .collect();
        let left = |((reason, rule), records): ((String, String), u64)| Left { reason, rule, records };
        self.left_out = tally.left_out.into_iter().map(left).collect();
        self.retried = tally.retried.into_iter().map(left).collect();
        self.releases = tally
            .releases
            .into_iter()
            .map(|([sdk, sdk_version, app_version], records)| Release { sdk, sdk_version, app_version, records })
            .collect();
        self.releases.sort_by_key(|release| std::cmp::Reverse(release.records));
        self.copies = tally.copies;
        self.copies_known_by = match (places.deduplicates(), places.knows_copies()) {
            (false, _) => "nothing is deduplicated: the source has no event id",
            (true, true) => "the accepted events, which keep the place of each",
            (true, false) if self.has_forgotten => {
                "the first place that the log still has: where it has forgotten the copy that counted, and the accepted events \
                 aren't kept, another copy stands in its stead"
            }
            (true, false) => {
                "the first place found: the accepted events aren't kept, so that where copies lie in several partitions it may have \
                 been another one, and a copy that came beyond the horizon counted, too"
            }
        }
        .to_owned();
        if tally.unproven > 0 {
            self.notes.push(format!(
                "{} records of the window can't be evaluated for the view, and count in no row",
                tally.unproven
            ));
        }
    }

    pub(super) fn compare(&mut self, row: &Row, recomputed: &[Option<String>], from: &str) {
        self.recomputed_from = from.to_owned();
        for ((at, measure), stored) in self.measures.iter_mut().enumerate().zip(&row.measures) {
            let value = recomputed.get(at).cloned().flatten();
            let is_float = self.floats.get(at).copied().unwrap_or(false);
            let is_equal = recomputed.get(at).is_some() && same(stored.as_deref(), value.as_deref(), is_float);
            measure.recomputed = value;
            measure.is_equal = Some(is_equal);
        }
        self.is_equal = Some(self.measures.iter().all(|measure| measure.is_equal == Some(true)));
    }

    /// Tells of a row that isn't there. `values` are what came out, none where no record counts; `holds` is whether HAVING is
    /// true for them.
    pub(super) fn absent(
        &mut self,
        row: &Row,
        plan: &ViewPlan,
        values: &[Option<String>],
        holds: Option<bool>,
        from: &str,
    ) {
        self.recomputed_from = from.to_owned();
        for (at, measure) in self.measures.iter_mut().enumerate() {
            measure.recomputed = values.get(at).cloned().flatten();
        }
        let having = plan.having.as_ref().map(ToString::to_string);
        let (why, is_right) = match (having, holds) {
            (Some(having), Some(false)) => (format!("HAVING {having} isn't true for it"), true),
            (_, None) => ("no record counts in it".to_owned(), true),
            (_, Some(true)) => ("though what came out says that it should be there".to_owned(), false),
            (None, Some(false)) => ("no record counts in it".to_owned(), true),
        };
        self.absence = format!("{}: {why}", since(row));
        self.is_equal = Some(is_right);
    }

    pub(super) fn nothing_left(&mut self) {
        self.recomputed_from =
            "nothing: the log has forgotten some of it, and the accepted events aren't kept".to_owned();
        self.notes.push("`keep_events_days` of the source keeps what the log forgets".to_owned());
    }

    pub(super) fn finish(&mut self, missing: usize) {
        if missing > 0 {
            self.notes
                .push(format!("{missing} accepted events of the row weren't found: they came after it was written, or what their epochs took isn't known any more"));
        }
        if self.is_equal == Some(false) {
            if self.versions.iter().any(|version| version.is_todays_view != Some(true)) {
                self.notes
                    .push("the view's SQL has changed since, or isn't known: it was recomputed by today's".to_owned());
            }
            if let Some(from) = self.known_from.filter(|from| *from > 1) {
                self.notes.push(format!("what epochs took isn't known before epoch {from}"));
            }
        }
    }
}

/// Since when a row isn't there; empty where it is.
fn since(row: &Row) -> String {
    match row.presence {
        Presence::Stored => String::new(),
        Presence::Removed => format!("removed by epoch {}", row.epoch),
        Presence::Never => "never written".to_owned(),
    }
}

/// Whether two values are the same, numbers of Float64 but for rounding.
fn same(left: Option<&str>, right: Option<&str>, is_float: bool) -> bool {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<f64>().ok());
    match (number(left), number(right)) {
        _ if left == right => true,
        (Some(left), Some(right)) if is_float => (left - right).abs() <= TOLERANCE * left.abs().max(right.abs()),
        _ => false,
    }
}

/// Runs of consecutive numbers, which come rising.
fn runs(offsets: impl Iterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for offset in offsets {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == offset => *last = offset,
            _ => runs.push((offset, offset)),
        }
    }
    runs
}

/// A time in RFC 3339.
pub(super) fn shown(at: i64) -> String {
    match DateTime::from_timestamp_micros(at) {
        Some(at) => at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        None => format!("{at} microseconds since 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_runs() {
        assert_eq!(runs([3, 4, 5, 9, 11, 12].into_iter()), [(3, 5), (9, 9), (11, 12)]);
        assert!(runs([].into_iter()).is_empty());
    }

    #[test]
    fn only_floats_may_differ_by_rounding() {
        assert!(same(Some("0.30000000000000004"), Some("0.3"), true));
        assert!(!same(Some("0.30000000000000004"), Some("0.3"), false));
        assert!(!same(Some("1"), Some("1.1"), true) && !same(None, Some("0"), true) && same(None, None, false));
    }
}
