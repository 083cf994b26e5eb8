//! Binding: a pipeline file and its schemas become plans that name columns by index.
//!
//! A view is planned twice: first over every column of its source, to learn which ones it reads, then over those that
//! anybody reads, so that the others are never decoded. Pure: schemas come in as values, so that `check` can bind
//! without a network and tests without a registry.
//!
//! Invariant: column indices in every plan are those of [`event_schema`](weir_schemas::stage::event_schema) over
//! [`BoundSource::columns`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_schema::SchemaRef;
use weir_operators::expr::Expr;
use weir_operators::profile::Layout;
use weir_operators::prove::Proof;
use weir_operators::rule::{Basis, Rule};
use weir_operators::view::ViewPlan;
use weir_schemas::avro::{Decoder, Incompatibility, ReaderSchema, Schema};
use weir_schemas::stage::{
    Column, coded_event_schema, event_schema, marked_event_schema, recorded_event_schema, system,
};
use weir_schemas::time::Span;
use weir_schemas::types::ColumnType;

use crate::config::{self, Pipeline};
use crate::declared::{Declared, OfSource};
use crate::plan::{self, Plan};
use crate::problem::{Problem, nearest};
use crate::rules::{self, ReferenceTables};
use crate::source::intake::Contract;
use crate::source::judge::Bounds;
use crate::sql::{self, SourceColumns};

/// Everything that a pipeline file says, bound to columns.
#[derive(Debug)]
pub struct Bound {
    /// The sources, in the order of the pipeline file.
    pub sources: Vec<BoundSource>,
    /// The views, in the order of their names.
    pub views: Vec<BoundView>,
    /// The tables that rules look values up in.
    pub tables: ReferenceTables,
    /// The tracking plans, by source.
    pub plans: BTreeMap<String, Plan>,
}

/// A source, bound.
#[derive(Debug)]
pub struct BoundSource {
    /// Its name.
    pub name: String,
    /// The reader schema.
    pub reader: Arc<ReaderSchema>,
    /// Which of the reader's columns are read.
    pub wanted: Vec<bool>,
    /// Those columns, in the reader's order.
    pub columns: Vec<Column>,
    /// What a judge counts of every column of the reader schema, if there is one.
    pub judged: Option<Arc<Layout>>,
    /// What every record must be.
    pub contract: Contract,
    /// What an event must meet to count in a run for a slice of the log.
    pub only: Option<Expr>,
}

/// A view, bound.
#[derive(Clone, Debug)]
pub struct BoundView {
    /// The SELECT's text, as `verify` runs it.
    pub text: String,
    /// Its plan.
    pub plan: ViewPlan,
    /// Its part of the pipeline file.
    pub config: config::View,
}

impl BoundSource {
    /// What decodes the records of a writer schema.
    ///
    /// # Errors
    /// What keeps every record of this writer from being read.
    pub fn decoder(&self, writer: &Schema) -> Result<Decoder, Vec<Incompatibility>> {
        let codes = self.judged.as_ref().map(|layout| layout.codes());
        Decoder::with_codes(writer, Arc::clone(&self.reader), &self.wanted, codes)
    }
}

impl Bound {
    /// The source of `name`.
    pub fn source(&self, name: &str) -> Option<&BoundSource> {
        self.sources.iter().find(|source| source.name == name)
    }
}

/// Binds `pipeline`, read from `file`, to its sources' reader schemas.
///
/// # Errors
/// Every problem of fields, views and rules, each at its place.
pub fn bind(
    file: &str,
    pipeline: &Pipeline,
    readers: &BTreeMap<String, Arc<ReaderSchema>>,
) -> Result<Bound, Vec<Problem>> {
    let mut problems = Vec::new();
    let texts = read_views(pipeline, &mut problems);
    let tables = ReferenceTables::read(pipeline, &mut problems);
    let everything: BTreeMap<String, SourceColumns> = pipeline
        .sources
        .iter()
        .filter_map(|(name, source)| Some((name.clone(), columns_of(source, readers.get(name)?.columns.clone()))))
        .collect();
    for (name, source) in &pipeline.sources {
        if let Some(columns) = everything.get(name) {
            check_fields(file, name, source, &columns.columns, &mut problems);
            rules::check_listed(file, name, source, &columns.columns, &mut problems);
        }
    }
    let fits = problems.is_empty();
    let mut used: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (view, text) in &texts {
        match sql::plan(view, text, &file_of(pipeline, view), &everything) {
            Ok(plan) => {
                check_retention(file, pipeline, &plan, &mut problems);
                used.entry(plan.source.clone()).or_default().extend(sql::columns_used(&plan));
            }
            Err(found) => problems.extend(found),
        }
    }
    // Rules are over fields that have to be there; views don't ask for them.
    if !fits {
        return Err(problems);
    }
    let plans = plan::read_all(pipeline, &mut problems);
    let declared = Declared { file, pipeline, tables: &tables, plans: &plans };
    let mut all = Vec::new();
    for (name, columns) in &everything {
        let Some(reader) = readers.get(name) else { continue };
        match declared.of_source(name, reader, columns) {
            Ok(of_source) => {
                let used = used.entry(name.clone()).or_default();
                of_source.visit_columns(&mut |index| {
                    used.insert(index);
                });
                if let Some(only) = plan_only(&pipeline.sources[name], columns, &mut problems) {
                    only.visit_columns(&mut |index| {
                        used.insert(index);
                    });
                }
                all.extend(of_source.rules);
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        declared.check_modes(all.iter(), &mut problems);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let (views, sources) = bind_to_wanted(&declared, readers, &texts, &used)?;
    Ok(Bound { sources, views, tables, plans })
}

/// The second planning, over the columns that are read.
fn bind_to_wanted(
    declared: &Declared<'_>,
    readers: &BTreeMap<String, Arc<ReaderSchema>>,
    texts: &BTreeMap<String, String>,
    used: &BTreeMap<String, BTreeSet<usize>>,
) -> Result<(Vec<BoundView>, Vec<BoundSource>), Vec<Problem>> {
    let pipeline = declared.pipeline;
    let none = BTreeSet::new();
    let mut wanted = BTreeMap::new();
    let mut narrowed = BTreeMap::new();
    for (name, source) in &pipeline.sources {
        let Some(reader) = readers.get(name) else { continue };
        let flags = wanted_columns(pipeline, name, source, reader, used.get(name).unwrap_or(&none));
        let kept = reader.columns.iter().zip(&flags).filter(|(_, wanted)| **wanted).map(|(column, _)| column.clone());
        narrowed.insert(name.clone(), columns_of(source, kept.collect()));
        wanted.insert(name.clone(), flags);
    }
    let mut problems = Vec::new();
    let mut views = Vec::new();
    for (view, text) in texts {
        match sql::plan(view, text, &file_of(pipeline, view), &narrowed) {
            Ok(plan) => views.push(BoundView { text: text.clone(), plan, config: pipeline.views[view].clone() }),
            Err(found) => problems.extend(found),
        }
    }
    let mut sources = Vec::new();
    for (name, source) in &pipeline.sources {
        let (Some(reader), Some(columns), Some(flags)) = (readers.get(name), narrowed.get(name), wanted.remove(name))
        else {
            continue;
        };
        let of_source = match declared.of_source(name, reader, columns) {
            Ok(of_source) => of_source,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        let own = views.iter().filter(|view| view.plan.source == *name);
        let proofs = own.filter_map(|view| Proof::of_view(&view.plan)).collect();
        let judged = judged_of(pipeline, source, reader, &of_source.rules).map(Arc::new);
        let events = event_schema(&columns.columns);
        let events =
            judged.as_ref().map_or_else(|| events.clone(), |layout| coded_event_schema(&events, layout.codes()));
        sources.push(BoundSource {
            name: name.clone(),
            reader: Arc::clone(reader),
            wanted: flags,
            judged,
            contract: contract_of(name, source, &columns.columns, events, of_source, proofs),
            only: plan_only(source, columns, &mut problems),
            columns: columns.columns.clone(),
        });
    }
    if problems.is_empty() { Ok((views, sources)) } else { Err(problems) }
}

/// Plans what events must meet to count in a replay. What could fail over an event is refused: it would end the replay there.
fn plan_only(source: &config::Source, columns: &SourceColumns, problems: &mut Vec<Problem>) -> Option<Expr> {
    const PLACE: &str = "--where";
    match sql::plan_condition(source.only.as_ref()?, PLACE, columns) {
        Ok(only) if only.can_fail() => {
            let remedy = "write it so that it holds or not for every value, as with toInt64OrNull";
            problems.push(Problem::of_file(PLACE, "the condition could fail over an event", remedy));
            None
        }
        Ok(only) => Some(only),
        Err(found) => {
            problems.extend(found);
            None
        }
    }
}

/// Rows have to outlive their corrections: one that ClickHouse has let go comes back with each, and goes again at some time.
fn check_retention(file: &str, pipeline: &Pipeline, plan: &ViewPlan, problems: &mut Vec<Problem>) {
    const DAY_MS: u64 = 86_400_000;
    let kept = pipeline.views.get(&plan.name).and_then(|view| view.retention_days);
    let (Some(days), Some(source)) = (kept, pipeline.sources.get(&plan.source)) else { return };
    let corrected_ms = source.allowed_lateness_ms.saturating_add(source.retained_ms());
    if u64::from(days) * DAY_MS < corrected_ms {
        let because = if source.retry_topic.is_some() {
            "`allowed_lateness_ms` and `retry_for_ms`"
        } else {
            "`allowed_lateness_ms`"
        };
        problems.push(Problem::of_file(
            file,
            format!(
                "views.{}.retention_days is {days}, and windows of the source `{}` are corrected for longer",
                plan.name, plan.source
            ),
            format!("keep rows for {} days at least, or lower {because} of the source", corrected_ms.div_ceil(DAY_MS)),
        ));
    }
}

fn read_views(pipeline: &Pipeline, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for (name, view) in &pipeline.views {
        match std::fs::read_to_string(&view.file) {
            Ok(text) => {
                texts.insert(name.clone(), text);
            }
            Err(error) => problems.push(Problem::of_file(
                &view.file.display().to_string(),
                format!("view `{name}`: {error}"),
                "the path starts at the pipeline file's folder; the file is UTF-8",
            )),
        }
    }
    texts
}

fn file_of(pipeline: &Pipeline, view: &str) -> String {
    pipeline.views.get(view).map(|view| view.file.display().to_string()).unwrap_or_default()
}

fn columns_of(source: &config::Source, columns: Vec<Column>) -> SourceColumns {
    SourceColumns { columns, event_time: source.event_time.clone() }
}

/// What a judge counts of a source's events, if there is one.
fn judged_of(pipeline: &Pipeline, source: &config::Source, reader: &ReaderSchema, rules: &[Rule]) -> Option<Layout> {
    pipeline.alerts.judge.as_ref()?;
    let mut identities: Vec<&str> = fields_of(source).into_iter().map(|(_, field)| field).collect();
    identities.retain(|field| *field != source.event_time);
    identities.extend(source.identities.iter().map(String::as_str));
    // How a device's numbers and names are spread says nothing of a release.
    identities.extend(rules.iter().flat_map(|rule| match &rule.basis {
        Basis::Sequence(sequencing) => sequencing.columns.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }));
    let passing = rules.iter().filter(|rule| rule.mode.passes()).count();
    Some(Layout::new(&reader.columns, passing, &identities))
}

/// Which of the reader's columns are read at all.
fn wanted_columns(
    pipeline: &Pipeline,
    name: &str,
    source: &config::Source,
    reader: &ReaderSchema,
    used: &BTreeSet<usize>,
) -> Vec<bool> {
    let everything =
        source.keep_events_days.is_some() || pipeline.operators.values().any(|custom| custom.source == name);
    let named: Vec<&str> = fields_of(source).into_iter().map(|(_, field)| field).collect();
    let wanted = |(at, column): (usize, &Column)| {
        everything || used.contains(&(at + system::COUNT)) || named.contains(&column.name.as_str())
    };
    reader.columns.iter().enumerate().map(wanted).collect()
}

/// The fields that a source names, with the key that names each.
fn fields_of(source: &config::Source) -> Vec<(&'static str, &str)> {
    let optional = [
        ("event_id", &source.event_id),
        ("user", &source.user),
        ("event_type", &source.event_type),
        ("tenant", &source.tenant),
        ("release.sdk", &source.release.sdk),
        ("release.sdk_version", &source.release.sdk_version),
        ("release.app_version", &source.release.app_version),
    ];
    let named = optional.into_iter().filter_map(|(key, field)| Some((key, field.as_deref()?)));
    std::iter::once(("event_time", source.event_time.as_str())).chain(named).collect()
}

fn check_fields(file: &str, name: &str, source: &config::Source, columns: &[Column], problems: &mut Vec<Problem>) {
    for (key, field) in fields_of(source) {
        let Some(column) = columns.iter().find(|column| column.name == field) else {
            let remedy = match nearest(field, columns.iter().map(|column| column.name.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the schema has: {}", names_of(columns)),
            };
            problems.push(Problem::of_file(
                file,
                format!("source `{name}`: `{key}` names the field `{field}`, which its schema doesn't have"),
                remedy,
            ));
            continue;
        };
        let plain = column.column_type.without_null();
        let (fits, wanted) = match key {
            "event_time" => (matches!(plain, ColumnType::DateTime64(..) | ColumnType::DateTime(_)), "a timestamp"),
            "event_id" | "user" => (!matches!(plain, ColumnType::Array(_) | ColumnType::Map(..)), "a plain value"),
            _ => (matches!(plain, ColumnType::String | ColumnType::LowCardinality), "a string or an enum"),
        };
        if !fits {
            problems.push(Problem::of_file(
                file,
                format!("source `{name}`: `{key}` must be {wanted}, and `{field}` is {}", column.column_type),
                format!("name a field that is {wanted}"),
            ));
        }
    }
}

fn names_of(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn index_of(columns: &[Column], field: &str) -> Option<usize> {
    columns.iter().position(|column| column.name == field)
}

fn contract_of(
    name: &str,
    source: &config::Source,
    columns: &[Column],
    events: SchemaRef,
    of_source: OfSource,
    proofs: Vec<Proof>,
) -> Contract {
    let OfSource { rules, plan } = of_source;
    let index = |field: &Option<String>| field.as_deref().and_then(|field| index_of(columns, field));
    let span = |ms: u64| Span::from_ms(i64::try_from(ms).unwrap_or(i64::MAX));
    let release = &source.release;
    let marked = rules.iter().any(|rule| rule.mode.passes()).then(|| marked_event_schema(&events));
    Contract {
        source: name.to_owned(),
        sensitive: source.sensitive.clone(),
        bounds: Bounds {
            disorder: span(source.disorder_ms),
            allowed_lateness: span(source.allowed_lateness_ms),
            future_limit: span(source.future_limit_ms),
            idle_after_ms: i64::try_from(source.idle_after_ms).unwrap_or(i64::MAX),
        },
        recorded: rules
            .iter()
            .any(Rule::refuses_behind_source)
            .then(|| recorded_event_schema(marked.as_ref().unwrap_or(&events))),
        marked,
        events,
        // `check_fields` found it; the first column stands in only for a schema that was refused.
        event_time: index_of(columns, &source.event_time).unwrap_or(0),
        tenant: index(&source.tenant),
        release: [index(&release.sdk), index(&release.sdk_version), index(&release.app_version)],
        sender_headers: [
            source.tenant.clone(),
            release.sdk.clone(),
            release.sdk_version.clone(),
            release.app_version.clone(),
        ],
        rules,
        plan,
        proofs,
    }
}
