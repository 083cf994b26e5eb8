//! The tables that a pipeline needs, with what people are told of them in the database: what a column is, of which view, and
//! the SQL that it comes from.

use std::collections::BTreeSet;

use weir_operators::account::ledger_table;
use weir_operators::aggregate::{Call, Function};
use weir_operators::expr::Expr;
use weir_operators::maintain::view_table;
use weir_operators::record::events_table;
use weir_operators::rule::Basis;
use weir_operators::view::{Output, Window};
use weir_schemas::retry;
use weir_schemas::rows::Table;
use weir_schemas::rule::Mode;
use weir_schemas::stage::system;
use weir_schemas::tables;
use weir_schemas::types::ColumnType;
use weir_sinks::clickhouse::{KeptEvents, Layout, Rollup, ViewTable};

use super::operators::Described;
use crate::bind::{Bound, BoundSource, BoundView};
use crate::coarser::{merge_of, nests};
use crate::config::Pipeline;
use crate::sql;

/// The tables of everything that a pipeline writes.
pub(super) fn layout_of(pipeline: &Pipeline, bound: &Bound, custom: &[Described]) -> Layout {
    let mut plain =
        vec![tables::progress(), tables::partitions(), tables::judgements(), tables::quarantine(None), ledger_table()];
    plain.extend([tables::epochs(Some(pipeline.lineage.keep_epochs_days)), tables::versions(), tables::swaps()]);
    if pipeline.alerts.has_detector() {
        plain.extend([tables::alerts(), tables::alerts_history(), tables::acknowledgements()]);
    }
    if pipeline.alerts.judge.is_some() {
        plain.push(tables::shares());
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
    let kept = bound.sources.iter().filter_map(|source| releases_of(pipeline, source));
    Layout {
        tables: plain,
        views: bound.views.iter().map(|view| table_of(view, bound)).collect(),
        kept: kept.collect(),
        reader_database: pipeline.clickhouse.reader_database.clone(),
    }
}

/// Where a source's releases can be counted: in its accepted events, if they are kept and name releases.
fn releases_of(pipeline: &Pipeline, source: &BoundSource) -> Option<KeptEvents> {
    let config = pipeline.sources.get(&source.name)?;
    let release = &config.release;
    let release = [release.sdk.clone(), release.sdk_version.clone(), release.app_version.clone()];
    let names_any = release.iter().any(Option::is_some);
    names_any.then_some(())?;
    let days = config.keep_events_days?;
    Some(KeptEvents {
        source: source.name.clone(),
        topics: config.all_topics(),
        days,
        tenant: config.tenant.clone(),
        release,
    })
}

/// The table of a source's accepted events, where they are kept.
pub(super) fn kept_events(pipeline: &Pipeline, source: &BoundSource) -> Option<Table> {
    let days = pipeline.sources.get(&source.name)?.keep_events_days?;
    let has_marks = source.contract.marked.is_some();
    let mut table = events_table(&source.name, &source.columns, has_marks, Some(days));
    for column in table.columns.iter_mut().filter(|column| column.comment.is_empty()) {
        column.comment = format!("the events' field {}, of which the schema says nothing", column.name);
    }
    Some(table)
}

/// A view's table, and where the SELECT's columns stand in it.
fn table_of(view: &BoundView, bound: &Bound) -> ViewTable {
    let plan = &view.plan;
    let place = |output: &Output| match *output {
        Output::Window => 0,
        Output::Dimension(at) => 1 + at,
        Output::Measure(at) => 1 + plan.dimensions.len() + at,
    };
    let mut table = view_table(plan, view.config.retention_days);
    describe(&mut table, view, bound);
    let keys = std::iter::repeat_n(None, table.key_columns);
    let merges = keys.chain(plan.measures.iter().map(|measure| Some(merge_of(&measure.call)))).chain([None]);
    ViewTable {
        merges: merges.collect(),
        table,
        select: plan.outputs.iter().map(place).collect(),
        window: 0,
        zone: plan.window.zone.clone(),
        source: plan.source.clone(),
        // Of the groups that HAVING leaves out nothing is stored, so their part of a coarser one is nowhere.
        rollups: if plan.having.is_some() { Vec::new() } else { rollups_of(&plan.window) },
    }
}

/// Says what a view's table and its columns are: the sentence that its file begins with, and each column's SQL with what
/// the schema says of the fields in it.
fn describe(table: &mut Table, view: &BoundView, bound: &Bound) {
    let plan = &view.plan;
    let fields = bound.source(&plan.source).map(|source| source.columns.as_slice()).unwrap_or_default();
    let about = |used: &BTreeSet<usize>| {
        let fields = used.iter().filter_map(|at| fields.get(at.checked_sub(system::COUNT)?));
        let told = fields.filter(|field| !field.comment.is_empty());
        told.map(|field| format!("; {}: {}", field.name, field.comment)).collect::<String>()
    };
    let of_expr = |expr: &Expr, used: &mut BTreeSet<usize>| {
        expr.visit_columns(&mut |at| {
            used.insert(at);
        });
    };
    let mut comments = vec![format!("start of the window of {}; view {}", sql::width(plan), plan.name)];
    comments.extend(plan.dimensions.iter().map(|dimension| {
        let mut used = BTreeSet::new();
        of_expr(&dimension.value, &mut used);
        format!("{}; view {}{}", dimension.value, plan.name, about(&used))
    }));
    comments.extend(plan.measures.iter().map(|measure| {
        let mut used = BTreeSet::new();
        measure.call.arguments.iter().for_each(|argument| of_expr(argument, &mut used));
        let (sql, unit) = (sql::call(&measure.call), unit_of(&measure.call));
        format!("{sql}, {unit}; view {}{}", plan.name, about(&used))
    }));
    for (column, comment) in table.columns.iter_mut().zip(comments) {
        column.comment = comment;
    }
    let dimensions: Vec<&str> = plan.dimensions.iter().map(|dimension| dimension.name.as_str()).collect();
    let each = if dimensions.is_empty() { String::new() } else { format!(", {}", dimensions.join(", ")) };
    let rows = format!("One row per {}{each}, from the source {}", plan.window.name, plan.source);
    let filter = plan.filter.as_ref().map(|filter| format!(" where {filter}")).unwrap_or_default();
    let having = plan.having.as_ref().map(|having| format!(" having {having}")).unwrap_or_default();
    table.comment = format!("{}{rows}{filter}{having}", opening(&view.text));
}

/// What a measure's value counts, or by whose clock it is.
fn unit_of(call: &Call) -> String {
    let of = call.arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (&call.function, call.result.without_null()) {
        (Function::Count, _) if of.is_empty() => "in events".to_owned(),
        (Function::Count, _) => format!("in events that have {of}"),
        (Function::UniqExact, _) => format!("in distinct values of {of}"),
        (Function::UniqCombined64, _) => format!("in distinct values of {of}, about"),
        (_, ColumnType::DateTime(zone) | ColumnType::DateTime64(_, zone)) => {
            format!("a time ({})", zone.as_deref().unwrap_or("UTC"))
        }
        (_, ColumnType::Int(_) | ColumnType::UInt(_) | ColumnType::Decimal(..)) => format!("in the unit of {of}"),
        (_, ColumnType::Float32 | ColumnType::Float64) => format!("in the unit of {of}"),
        _ => format!("a value of {of}"),
    }
}

/// The comment that a view's file begins with, as a sentence before others; empty where there is none.
fn opening(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| line.starts_with("--"));
    let told = lines.map(|line| line.trim_start_matches('-').trim()).collect::<Vec<_>>().join(" ");
    match told.trim() {
        "" => String::new(),
        told if told.ends_with(['.', '!', '?']) => format!("{told} "),
        told => format!("{told}. "),
    }
}

/// The coarser views in which every window lies within one hour or day of the view's calendar.
fn rollups_of(window: &Window) -> Vec<Rollup> {
    let all = [(Rollup::Hour, 3_600), (Rollup::Day, 86_400)].into_iter();
    all.filter(|(_, unit_s)| nests(window, *unit_s)).map(|of| of.0).collect()
}

#[cfg(test)]
mod tests {
    use weir_operators::view::Width;
    use weir_schemas::time::Span;
    use weir_schemas::types::Zone;

    use super::*;

    #[test]
    fn windows_are_rolled_up_only_into_what_holds_them_whole() {
        let of = |width, zone: Option<&str>| {
            let zone = zone.map(Zone::from);
            rollups_of(&Window { name: "w".to_owned(), column_type: ColumnType::DateTime(None), width, zone })
        };
        let fixed = |seconds: i64| Width::Fixed(Span(seconds * 1_000_000));
        assert_eq!(of(fixed(60), None), [Rollup::Hour, Rollup::Day]);
        assert_eq!(of(fixed(60), Some("Asia/Kathmandu")), [Rollup::Hour, Rollup::Day]);
        assert_eq!(of(fixed(1_800), Some("Asia/Kathmandu")), []);
        assert_eq!(of(fixed(1_800), None), [Rollup::Hour, Rollup::Day]);
        assert_eq!(of(fixed(420), None), []);
        assert_eq!(of(fixed(5_400), None), [Rollup::Day]);
        assert_eq!(of(Width::Hours(5), Some("Europe/Berlin")), [Rollup::Day]);
        assert_eq!(of(Width::Days(1), None), []);
    }

    #[test]
    fn a_measure_says_what_it_counts() {
        let of = |function, arguments: &[&str], result| {
            let column =
                |name: &&str| Expr::Column { index: 0, name: (*name).to_owned(), column_type: ColumnType::Float64 };
            let arguments = arguments.iter().map(column).collect();
            unit_of(&Call { function, arguments, condition: None, signature: String::new(), result })
        };
        let count = || ColumnType::UInt(weir_schemas::types::Width::W64);
        let time = ColumnType::DateTime64(3, Some(Zone::from("Europe/Berlin"))).nullable();
        assert_eq!(of(Function::Count, &[], count()), "in events");
        assert_eq!(of(Function::Count, &["amount"], count()), "in events that have amount");
        assert_eq!(of(Function::UniqExact, &["user_id"], count()), "in distinct values of user_id");
        assert_eq!(of(Function::Avg, &["took"], ColumnType::Float64), "in the unit of took");
        assert_eq!(of(Function::Max, &["seen_at"], time), "a time (Europe/Berlin)");
    }

    #[test]
    fn a_views_own_words_come_first() {
        assert_eq!(opening("-- What came in,\n-- by minute\nSELECT 1 -- no"), "What came in, by minute. ");
        assert_eq!(opening("SELECT 1"), "");
    }
}
