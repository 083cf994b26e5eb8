//! What the console can show: the views with their columns, and which of Weir's own tables there are.
//!
//! Invariant: every name that ends up in SQL comes from here, never from a browser; what a browser names is looked up.

use serde::Serialize;
use weir_operators::account::LEDGER;
use weir_operators::aggregate::Function;
use weir_operators::view::{Measure as Planned, Output, ViewPlan, Width};
use weir_schemas::types::ColumnType;
use weir_sinks::clickhouse::identifier;
use weir_sinks::clickhouse::reader::STATE_SUFFIX;

use super::steps::wider_of;
use crate::bind::Bound;
use crate::coarser::merge_of;
use crate::config::Pipeline;

/// Everything that can be asked about.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Catalog {
    /// The pipeline's name.
    pub pipeline: String,
    /// The database.
    pub database: String,
    /// The views, by name.
    pub views: Vec<View>,
    /// The sources, by name.
    pub sources: Vec<Source>,
    /// Whether alerts are written.
    pub has_alerts: bool,
    /// Whether records can be retried.
    pub has_retries: bool,
    /// The bounds on the edges of the flow.
    pub bounds: Bounds,
}

/// What bounds what is in flight, in bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Bounds {
    /// Fetched and not yet committed.
    pub in_flight_bytes: u64,
    /// Committed and not yet delivered.
    pub outbox_bytes: u64,
    /// Least milliseconds between two inserts into one table.
    pub insert_every_ms: u64,
    /// The length of an epoch.
    pub epoch_ms: u64,
    /// Worker threads.
    pub workers: usize,
}

/// A source, as far as the console goes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// The column of the tenant.
    #[serde(skip)]
    pub tenant: Option<String>,
    /// How long a closed window is corrected.
    pub allowed_lateness_ms: u64,
    /// How long accepted events are kept in ClickHouse, if they are.
    pub keep_events_days: Option<u32>,
    /// The columns that say which release sent an event: SDK, its version, the app's; only where accepted events are kept
    /// and any of them is named.
    #[serde(skip)]
    pub release: Option<[Option<String>; 3]>,
}

/// A view.
#[derive(Clone, Debug, Default, Serialize)]
pub struct View {
    /// Its name.
    pub name: String,
    /// The source that it reads.
    pub source: String,
    /// What its text says about it: the comment above its SELECT.
    pub comment: String,
    /// Its SQL.
    pub sql: String,
    /// The column of the window's start.
    pub window: String,
    /// The window's length in seconds; a day's is 86,400 whatever the calendar says.
    pub window_s: i64,
    /// Widths of points, in seconds, that every window fits into, besides its own.
    #[serde(skip)]
    pub wider_s: Vec<i64>,
    /// Whether groups that don't meet its HAVING have no rows: what is put together of several rows is then of those that
    /// met it, and not what the SELECT would give over all of them.
    pub has_having: bool,
    /// The zone whose calendar cuts it.
    pub zone: String,
    /// Whether the window's start is a date without a time.
    #[serde(skip)]
    pub is_date: bool,
    /// How long rows are kept, in days; absent, for ever.
    pub retention_days: Option<u32>,
    /// Whether rows of open windows are written.
    pub is_provisional: bool,
    /// Grouping columns.
    pub dimensions: Vec<Dimension>,
    /// The one of them that is the tenant.
    pub tenant: Option<String>,
    /// Aggregates.
    pub measures: Vec<Measure>,
}

/// A grouping column.
#[derive(Clone, Debug, Serialize)]
pub struct Dimension {
    /// Its name.
    pub name: String,
    /// Its ClickHouse type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is text, which is compared as it is.
    #[serde(skip)]
    pub is_text: bool,
}

/// An aggregate.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    /// Its name.
    pub name: String,
    /// The type of its value.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function that it is computed with, such as uniqExact.
    pub function: String,
    /// Whether its value is a number, which can be drawn.
    pub is_number: bool,
    /// Whether values of several groups add up: counts and sums.
    pub is_additive: bool,
    /// Whether no rows are 0: counts, sums and distinct counts; else nothing is known of a window without rows.
    pub empty_is_zero: bool,
    /// How values of several rows are put together, with `{}` in the place of the column.
    #[serde(skip)]
    pub rollup: String,
    /// The column that is put together.
    #[serde(skip)]
    pub column: String,
}

impl Catalog {
    /// What `pipeline`, bound, has to show.
    pub fn of(pipeline: &Pipeline, bound: &Bound) -> Catalog {
        let views = bound.views.iter().map(|view| {
            let tenant = pipeline.sources.get(&view.plan.source).and_then(|source| source.tenant.clone());
            let of = View::of(&view.plan, &view.text, tenant);
            View { retention_days: view.config.retention_days, is_provisional: view.config.provisional, ..of }
        });
        let sources = bound.sources.iter().filter_map(|bound| {
            let source = pipeline.sources.get(&bound.name)?;
            let of = &source.release;
            let release = [of.sdk.clone(), of.sdk_version.clone(), of.app_version.clone()];
            let is_counted = source.keep_events_days.is_some() && release.iter().any(Option::is_some);
            Some(Source {
                name: bound.name.clone(),
                topics: source.all_topics(),
                tenant: source.tenant.clone(),
                allowed_lateness_ms: source.allowed_lateness_ms,
                keep_events_days: source.keep_events_days,
                release: is_counted.then_some(release),
            })
        });
        Catalog {
            pipeline: pipeline.name.clone(),
            database: pipeline.clickhouse.database.clone(),
            views: views.collect(),
            sources: sources.collect(),
            has_alerts: pipeline.alerts.has_detector(),
            has_retries: pipeline.sources.values().any(|source| source.retry_topic.is_some()),
            bounds: Bounds {
                in_flight_bytes: pipeline.in_flight_bytes,
                outbox_bytes: pipeline.outbox_bytes,
                insert_every_ms: pipeline.clickhouse.insert_every_ms,
                epoch_ms: pipeline.epoch_ms,
                workers: pipeline.workers,
            },
        }
    }

    /// The view of this name.
    pub fn view(&self, name: &str) -> Option<&View> {
        self.views.iter().find(|view| view.name == name)
    }

    /// The name of a table or view, as SQL writes it.
    pub fn qualified(&self, name: &str) -> String {
        format!("{}.{}", identifier(&self.database), identifier(name))
    }

    /// The ledger, as SQL writes it.
    pub fn ledger(&self) -> String {
        self.qualified(LEDGER)
    }

    /// Sources whose accepted events say which release sent them, as in `weir_releases`: shares of others can't be told.
    pub fn releases(&self) -> impl Iterator<Item = (&Source, &[Option<String>; 3])> {
        self.sources.iter().filter_map(|source| Some((source, source.release.as_ref()?)))
    }
}

impl View {
    fn of(plan: &ViewPlan, text: &str, tenant: Option<String>) -> View {
        let columns = plan.columns();
        let shown = |output: &Output| columns.get(plan.outputs.iter().position(|of| of == output)?);
        let kind = |output: Output| shown(&output).map(|column| column.column_type.clone());
        let dimensions = plan.dimensions.iter().enumerate().filter_map(|(at, dimension)| {
            let kind = kind(Output::Dimension(at))?;
            let is_text = matches!(kind, ColumnType::String | ColumnType::LowCardinality | ColumnType::FixedString(_));
            Some(Dimension { name: dimension.name.clone(), kind: kind.to_string(), is_text })
        });
        let dimensions: Vec<Dimension> = dimensions.collect();
        let measures = plan.measures.iter().enumerate().filter_map(|(at, measure)| {
            Some(Measure::of(measure, &kind(Output::Measure(at))?)) //
        });
        View {
            name: plan.name.clone(),
            source: plan.source.clone(),
            comment: comment_of(text),
            sql: text.trim().to_owned(),
            window: plan.window.name.clone(),
            window_s: match plan.window.width {
                Width::Fixed(span) => (span.0 / 1_000_000).max(1),
                Width::Hours(hours) => i64::from(hours.min(24)) * 3_600,
                Width::Days(days) => i64::from(days) * 86_400,
            },
            wider_s: wider_of(plan),
            has_having: plan.having.is_some(),
            zone: plan.window.zone.as_deref().unwrap_or("UTC").to_owned(),
            is_date: matches!(plan.window.column_type, ColumnType::Date | ColumnType::Date32),
            tenant: tenant.filter(|name| dimensions.iter().any(|dimension| dimension.name == *name)),
            measures: measures.collect(),
            dimensions,
            ..View::default()
        }
    }

    /// The dimension of this name.
    pub fn dimension(&self, name: &str) -> Option<&Dimension> {
        self.dimensions.iter().find(|dimension| dimension.name == name)
    }

    /// The measure of this name.
    pub fn measure(&self, name: &str) -> Option<&Measure> {
        self.measures.iter().find(|measure| measure.name == name)
    }
}

impl Measure {
    fn of(measure: &Planned, result: &ColumnType) -> Measure {
        let call = &measure.call;
        let name = measure.name.clone();
        let column = match call.stored_type() {
            ColumnType::AggregateState(_) => format!("{name}{STATE_SUFFIX}"),
            _ => name.clone(),
        };
        let is_additive = matches!(call.function, Function::Count | Function::Sum);
        let is_distinct = matches!(call.function, Function::UniqExact | Function::UniqCombined64);
        let is_number = matches!(
            result.without_null(),
            ColumnType::Bool
                | ColumnType::Int(_)
                | ColumnType::UInt(_)
                | ColumnType::Float32
                | ColumnType::Float64
                | ColumnType::Decimal(..)
        );
        Measure {
            name,
            kind: result.to_string(),
            function: call.function.name().to_owned(),
            is_number,
            is_additive,
            empty_is_zero: is_additive || is_distinct,
            rollup: format!("{}({{}})", merge_of(call)),
            column,
        }
    }

    /// The expression that puts rows of `alias` together.
    pub fn over(&self, alias: &str) -> String {
        self.rollup.replace("{}", &format!("{alias}.{}", identifier(&self.column)))
    }
}

/// The comment lines above a SELECT.
fn comment_of(text: &str) -> String {
    let lines = text.trim_start().lines().map_while(|line| line.trim_start().strip_prefix("--"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_above_a_select_tells_what_it_is() {
        assert_eq!(comment_of("-- What came in,\n-- by minute.\nSELECT 1"), "What came in, by minute.");
        assert_eq!(comment_of("\nSELECT 1 -- one"), "");
    }
}
