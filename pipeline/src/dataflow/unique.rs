//! The part of the graph that finds events whose key isn't unique, in front of deduplication.
//!
//! Where a rule refuses, events bring their records this far; the last such rule takes them away.

use weir_operators::adaptor::operate;
use weir_operators::refuse::Refusing;
use weir_operators::route::{BatchStream, Route};
use weir_operators::rule::Basis;
use weir_operators::unique::{KeyUnique, Unique, Verdict};
use weir_schemas::stage::RECORD_COLUMNS;

use super::{SourceGraph, Wiring, count_broken, next, one};
use crate::error::Error;

/// What rules of uniqueness let through and what they refuse.
pub(super) struct Unrepeated<'scope> {
    /// Events that go on, with their marks.
    pub(super) events: BatchStream<'scope>,
    /// Refused records, their tallies, and the same as events: one of each for a rule that refuses.
    pub(super) refused: Vec<BatchStream<'scope>>,
    pub(super) tallies: Vec<BatchStream<'scope>>,
    pub(super) refused_events: Vec<BatchStream<'scope>>,
}

/// events ─▶ key unique ═▶ unique ─▶ count broken, for each rule of uniqueness
pub(super) fn unique<'scope>(
    graph: &SourceGraph,
    wiring: &Wiring,
    events: BatchStream<'scope>,
) -> Result<Unrepeated<'scope>, Error> {
    let (host, tenant, bytes) = (&wiring.host, graph.tenant, wiring.operator_bytes);
    let mut all = Unrepeated { events, refused: Vec::new(), tallies: Vec::new(), refused_events: Vec::new() };
    let mut refusing = graph.rules.iter().filter(|rule| rule.refuses_behind_source()).count();
    for rule in &graph.rules {
        let Basis::Unique(unique) = &rule.basis else { continue };
        let (key, within, lateness) =
            (KeyUnique::new((**unique).clone(), tenant, graph.id), unique.within, graph.lateness);
        let name = format!("{}/key unique {}", graph.name, rule.id);
        let keyed = operate(&name, all.events, Route::Pipeline, host, move |_| Ok(Box::new(key)))?;
        let columns = graph.schema.fields().len() + if refusing > 0 { RECORD_COLUMNS.len() } else { 0 };
        let by_key = Route::ByGroup { column: KeyUnique::group_column(columns) };
        let name = format!("{}/unique {}", graph.name, rule.id);
        let verdict = if rule.refuses_behind_source() {
            refusing -= 1;
            let how = Refusing::new(rule.clone(), &graph.rules, graph.sender);
            Verdict::Refuse { refusing: Box::new(how), is_last: refusing == 0 }
        } else {
            let before = graph.rules.iter().take_while(|other| other.id != rule.id).filter(|rule| rule.mode.passes());
            Verdict::Mark(u16::try_from(before.count()).unwrap_or(u16::MAX))
        };
        let mut streams = operate(&name, one(keyed)?, by_key, host, move |registry| {
            Ok(Box::new(Unique::new(within, lateness, verdict, bytes, registry)?))
        })?
        .into_iter();
        let (events, counts) = (next(&mut streams)?, next(&mut streams)?);
        all.events = events;
        count_broken(graph, rule, wiring, counts)?;
        all.refused.extend(streams.next());
        all.tallies.extend(streams.next());
        all.refused_events.extend(streams.next());
    }
    Ok(all)
}
