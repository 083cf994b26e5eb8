//! The tables that a pipeline needs.

use weir_operators::account::ledger_table;
use weir_operators::maintain::view_table;
use weir_operators::record::events_table;
use weir_operators::rule::Basis;
use weir_operators::view::Output;
use weir_schemas::retry;
use weir_schemas::rows::Table;
use weir_schemas::rule::Mode;
use weir_schemas::tables;
use weir_sinks::clickhouse::{Layout, ViewTable};

use super::operators::Described;
use crate::bind::{Bound, BoundSource, BoundView};
use crate::config::Pipeline;

/// The tables of everything that a pipeline writes.
pub(super) fn layout_of(pipeline: &Pipeline, bound: &Bound, custom: &[Described]) -> Layout {
    let mut plain =
        vec![tables::progress(), tables::partitions(), tables::judgements(), tables::quarantine(None), ledger_table()];
    plain.extend([tables::epochs(Some(pipeline.lineage.keep_epochs_days)), tables::versions(), tables::swaps()]);
    if pipeline.alerts.has_detector() {
        plain.extend([tables::alerts(), tables::alerts_history(), tables::acknowledgements()]);
    }
    if pipeline.sources.values().any(|source| source.retry_topic.is_some()) {
        plain.extend([retry::retried(), retry::retries()]);
    }
    let mut rules = bound.sources.iter().flat_map(|source| &source.contract.rules);
    if rules.any(|rule| rule.mode == Mode::Tag || matches!(rule.basis, Basis::Sequence(_))) {
        plain.push(tables::violations(None));
    }
    for source in &bound.sources {
        plain.extend(kept_events(pipeline, source));
    }
    plain.extend(custom.iter().flat_map(|described| described.operator.tables.clone()));
    Layout { tables: plain, views: bound.views.iter().map(table_of).collect() }
}

/// The table of a source's accepted events, where they are kept.
pub(super) fn kept_events(pipeline: &Pipeline, source: &BoundSource) -> Option<Table> {
    let days = pipeline.sources.get(&source.name)?.keep_events_days?;
    let has_marks = source.contract.marked.is_some();
    Some(events_table(&source.name, &source.columns, has_marks, Some(days)))
}

/// A view's table, and where the SELECT's columns stand in it.
fn table_of(view: &BoundView) -> ViewTable {
    let plan = &view.plan;
    let place = |output: &Output| match *output {
        Output::Window => 0,
        Output::Dimension(at) => 1 + at,
        Output::Measure(at) => 1 + plan.dimensions.len() + at,
    };
    ViewTable {
        table: view_table(plan, view.config.retention_days),
        select: plan.outputs.iter().map(place).collect(),
        window: 0,
        zone: plan.window.zone.clone(),
    }
}
