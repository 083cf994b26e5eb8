//! What each release showed of what was found out of order, as rows of `weir_shares`: the counts that the judge held against
//! each other.
//!
//! Only series that are out of order, or just back in order, are written, so in a quiet window nothing is. Bound: of a tenant
//! and window [`SERIES`] of them, those with the most evidence, each with [`RELEASES`] releases at most: those at fault first, then
//! those with the most records.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use weir_judge::signal::{Scope, Signal};
use weir_judge::tally::{Family, Indicator, Tally, code_of};
use weir_schemas::tables;

use super::told::is_of_release;
use crate::error::Error;
use crate::record::schema_of;

/// Series of a tenant's window that are written, at most.
const SERIES: usize = 32;
/// Releases of a series, at most.
const RELEASES: usize = 100;

/// One series of one window, by release.
pub(super) struct Share {
    window_start: i64,
    tenant: String,
    series: Series,
    label: String,
    /// SDK, its version, the app's version; records that show it, and of how many.
    releases: Vec<([String; 3], u64, u64)>,
}

/// What is counted, whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    indicator: Indicator,
    event_type: String,
    field: String,
}

/// What the releases of a tenant showed of what was found.
pub(super) fn shares(tally: &Tally, signals: &[Signal]) -> Vec<Share> {
    let mut found: Vec<&Signal> = signals.iter().collect();
    found.sort_by(|one, other| other.ln_e.total_cmp(&one.ln_e).then_with(|| one.series().cmp(&other.series())));
    let mut all: BTreeMap<Series, (String, Vec<&Scope>)> = BTreeMap::new();
    for signal in found {
        let series = Series {
            indicator: signal.indicator,
            event_type: signal.about_type().to_owned(),
            field: signal.field.clone(),
        };
        if all.contains_key(&series) || all.len() < SERIES {
            all.entry(series).or_insert_with(|| (signal.label.clone(), Vec::new())).1.push(&signal.scope);
        }
    }
    let written = all.into_iter().map(|(series, (label, at_fault))| Share {
        window_start: tally.window.start_us,
        tenant: tally.tenant.clone(),
        releases: of_releases(tally, &series, &at_fault),
        series,
        label,
    });
    written.collect()
}

/// Hits and trials of each release, those that count most first.
fn of_releases(tally: &Tally, series: &Series, at_fault: &[&Scope]) -> Vec<([String; 3], u64, u64)> {
    let mut counts = counts(tally, series);
    counts.sort_by_key(|(release, _, trials)| {
        let is_at_fault = tally.releases.get(*release).is_some_and(|of| at_fault.iter().any(|scope| scope.holds(of)));
        (!is_at_fault, std::cmp::Reverse(*trials), *release)
    });
    let named = counts.into_iter().take(RELEASES).filter_map(|(release, hits, trials)| {
        let of = tally.releases.get(release)?;
        Some(([of.sdk.clone(), of.sdk_version.clone(), of.app_version.clone()], hits, trials))
    });
    named.collect()
}

/// Hits and trials by the position of the release.
fn counts(tally: &Tally, series: &Series) -> Vec<(usize, u64, u64)> {
    // A volume is no share of a release's events; which part of them is of the type says how it went.
    let (family, wanted) = match series.indicator.family {
        Family::Volume | Family::TypeShare => {
            let code = code_of(&series.event_type);
            (Family::TypeShare, Indicator { family: Family::TypeShare, code })
        }
        family => (family, series.indicator),
    };
    let is_volume_of_all = series.indicator.family == Family::Volume && series.event_type.is_empty();
    let is_whole = is_of_release(wanted);
    let text = |at: u32| tally.texts.get(at as usize).map_or("", String::as_str);
    let is_meant = |event_type: &str| match (is_whole, series.event_type.as_str()) {
        (true, _) => event_type.is_empty(),
        (false, "") => !event_type.is_empty(),
        (false, of) => event_type == of,
    };
    // Trials of a release and type, which all rows of the family repeat, and its hits.
    let mut by_type: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
    let rows = tally.rows.iter().filter(|row| row.indicator.family == family && text(row.field) == series.field);
    for row in rows.filter(|row| is_meant(text(row.event_type))) {
        let (hits, trials) = by_type.entry((row.release, row.event_type)).or_default();
        *trials = row.trials;
        *hits += if row.indicator == wanted { row.hits } else { 0 };
    }
    let mut of_release: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for ((release, _), (hits, trials)) in by_type {
        let (all_hits, all_trials) = of_release.entry(release as usize).or_default();
        *all_hits += if is_volume_of_all { trials } else { hits };
        *all_trials += trials;
    }
    of_release.into_iter().map(|(release, (hits, trials))| (release, hits, trials)).collect()
}

/// The rows of the table, in the order of its columns.
pub(super) fn rows_of(shares: &[Share], source: &str) -> Result<RecordBatch, Error> {
    let rows: Vec<(&Share, &([String; 3], u64, u64))> =
        shares.iter().flat_map(|share| share.releases.iter().map(move |release| (share, release))).collect();
    let texts = |of: &dyn Fn(&Share, &[String; 3]) -> String| -> ArrayRef {
        let mut column = BinaryBuilder::new();
        rows.iter().for_each(|(share, (release, ..))| column.append_value(of(share, release)));
        Arc::new(column.finish())
    };
    let counts = |of: fn(&Share, u64, u64) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(share, (_, hits, trials))| of(share, *hits, *trials))))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(share, _)| share.window_start))),
        texts(&|_, _| source.to_owned()),
        texts(&|share, _| share.tenant.clone()),
        texts(&|share, _| share.series.indicator.family.name().to_owned()),
        counts(|share, _, _| share.series.indicator.code),
        texts(&|share, _| share.series.event_type.clone()),
        texts(&|share, _| share.series.field.clone()),
        texts(&|_, release| release[0].clone()),
        texts(&|_, release| release[1].clone()),
        texts(&|_, release| release[2].clone()),
        texts(&|share, _| share.label.clone()),
        counts(|_, hits, _| hits),
        counts(|_, _, trials| trials),
    ];
    Ok(RecordBatch::try_new(schema_of(&tables::shares()), columns)?)
}
