//! The whole graph, top to bottom in the order of flow.
//!
//! ```text
//!  Kafka ─▶ source ── events ─▶ identify ═▶ deduplicate ── accepted ──┬─▶ combine ═▶ maintain      (a pair per view)
//!           fetch,              hash of      each tenant and          ├─▶ key ═▶ a team's own operator
//!           decode,             tenant, id   id once                  ├─▶ record events
//!           judge time,                        │                      ├─▶ record violations
//!           rules, proof                       │                      └─▶ count accepted ═╗
//!           │      │                           │ tallies                                  ╠═▶ detect
//!           │      │                           ▼                                          ║
//!           │      └──────── tallies ────▶ count ─▶ gather ═▶ ledger                      ║
//!           │ refused                                                                     ║
//!           ├─▶ record refused                                                            ║
//!           └─▶ count refused ════════════════════════════════════════════════════════════╝
//!
//!  accepted ─▶ profile events ═══╗
//!    copies ─▶ profile copies ═══╣                       (what deduplicate has seen before)
//!   refused ─▶ profile refused ══╬═▶ judge ═▶ raise      (by tenant, then all tenants together)
//!                     sequence ══╝
//!
//!  ─▶ stays on the worker   ═▶ goes to the worker of the key group
//!  Each rule of uniqueness puts key unique ═▶ unique between the source's events and identify; what one refuses joins refused.
//!  Each rule of sequences takes what was accepted, and the events that were refused, by key sequence ═▶ sequence.
//!  Where a source has a retry topic, what came from it is left out before detect, profile, sequence and a team's own operators.
//!  A source without an event id has `tally` in the place of identify and deduplicate.
//!  A run for a slice of the log (a replay) lets only events within its times go on from accepted.
//!
//!  every operator ┄┄▶ end of epoch: state and rows ┄┄▶ gathered ─▶ commit ─▶ outbox ─▶ deliver
//! ```
//! What bounds an edge: nothing of its own, timely's edges have no bound. Bytes are bounded where they enter: a source
//! reads only while its worker's fetched and uncommitted bytes are below `in_flight_bytes / workers`
//! (`epochs::poll_budget`), at most 4 MiB per poll; at most two epochs are uncommitted (`epochs::Clock`); committed rows are
//! bounded by `outbox_bytes`, above which no epoch opens. What an operator keeps in memory is bounded by its share of
//! [`OPERATOR_BYTES`]; the rest of its state is on disk.
//!
//! Architecture invariant: no operator knows Kafka or ClickHouse, no sink knows an operator; they meet in `run`, which
//! says what this file builds.

mod unique;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use timely::dataflow::operators::{Concat, Probe};
use timely::dataflow::{ProbeHandle, Scope};
use timely::scheduling::activate::Activator;
use weir_operators::account::{KeepLedger, TopicNames};
use weir_operators::adaptor::{Host, operate};
use weir_operators::combine::{self, Combine};
use weir_operators::deduplicate::{Deduplicate, Deduplication, Identify};
use weir_operators::detect::policy::Policy;
use weir_operators::detect::{CountAccepted, CountRefused, Detect, SenderColumns, Thresholds};
use weir_operators::judge::{Court, Judge, Names, Raise, Telling};
use weir_operators::leave_out::LeaveOut;
use weir_operators::maintain::{Keeping, Maintain};
use weir_operators::moment::Moment;
use weir_operators::profile::{self, ProfileCopies, ProfileEvents, ProfileRefused};
use weir_operators::record::{RecordEvents, RecordRefused};
use weir_operators::route::{BatchStream, Route};
use weir_operators::rule::{Basis, Rule};
use weir_operators::sequence::{KeySequence, Sequence, Tell};
use weir_operators::tally::{GatherTallies, TallyAccepted};
use weir_operators::view::ViewPlan;
use weir_operators::violations::RecordViolations;
use weir_operators::within::Within;
use weir_schemas::rows::Table;
use weir_schemas::rule::Mode;
use weir_schemas::time::Span;

use crate::count::{Count, CountBroken};
use crate::custom::{AddGroup, CustomOperator};
use crate::error::Error;
use crate::feed::{FeedContext, feed};
use crate::metrics::Metrics;
use crate::progress::maintaining;
use crate::source::Source;
use unique::{Unrepeated, unique};

/// Bytes that all operators of a process may keep in memory, roughly; each gets the same share.
pub const OPERATOR_BYTES: usize = 512 << 20;

/// Index of the key group in the batches of operators that put it first.
const GROUP: usize = 0;

/// What follows one source.
#[derive(Clone)]
pub struct SourceGraph {
    /// The source's name.
    pub name: String,
    /// The schema of its events.
    pub schema: arrow_schema::SchemaRef,
    /// The topics of all sources, by number.
    pub topics: Vec<TopicNames>,
    /// The number of the topic that retried records come from, if there is one.
    pub retry_topic: Option<u16>,
    /// Index of the tenant in a batch of events.
    pub tenant: Option<usize>,
    /// Index of the event id in a batch of events.
    pub id: Option<usize>,
    /// The allowed lateness.
    pub lateness: Span,
    /// The part of the events that a run is for; absent, all.
    pub within: Option<Within>,
    /// Index of the event id in a batch of events, and how copies are told; absent, nothing is deduplicated.
    pub deduplicate: Option<(usize, Deduplication)>,
    /// The table that accepted events are written to.
    pub keep_events: Option<Table>,
    /// The columns that name an event's sender.
    pub sender: SenderColumns,
    /// The rules of this source, in the order of their ids.
    pub rules: Vec<Rule>,
    /// The views of this source.
    pub views: Vec<(Arc<ViewPlan>, Keeping)>,
    /// When refused records are an alert.
    pub detect: Option<(SenderColumns, Thresholds)>,
    /// How what events look like is judged.
    pub judge: Option<Judging>,
    /// A team's own operators, by their names in the pipeline file.
    pub custom: Vec<(String, CustomOperator)>,
}

/// What a source's judge works with.
#[derive(Clone)]
pub struct Judging {
    /// Where it stands whose an event is.
    pub senders: profile::SenderColumns,
    /// What is counted, and how it is told.
    pub telling: Telling,
    /// When it is judged, and by what.
    pub court: Court,
    /// How the source's fields are named.
    pub names: Names,
    /// Whose alerts are, and who is told.
    pub policy: Policy,
}

/// What the operators of a worker share.
pub struct Wiring {
    /// State, sink of epochs, failures, the moment to resume from.
    pub host: Host,
    /// Where counts are noted.
    pub metrics: Arc<Metrics>,
    /// Sees when the worker has passed an epoch.
    pub probe: ProbeHandle<Moment>,
    /// Bytes that one operator may keep in memory on this worker.
    pub operator_bytes: usize,
    /// How often a ledger's key did not balance.
    pub imbalances: Arc<AtomicU64>,
}

impl SourceGraph {
    /// How many operators keep something in memory.
    pub fn keepers(&self) -> usize {
        // The ledger, deduplication, detection, judging and raising, two for each view, one for each rule over several events.
        let several = |rule: &&Rule| matches!(rule.basis, Basis::Unique(_) | Basis::Sequence(_));
        5 + 2 * self.views.len() + self.custom.len() + self.rules.iter().filter(several).count()
    }
}

/// Builds what follows one source on one worker, and returns what wakes the source.
///
/// # Errors
/// When an operator can't be built; the dataflow must not run then.
pub fn build<'scope>(
    scope: Scope<'scope, Moment>,
    graph: &SourceGraph,
    wiring: &Wiring,
    cx: FeedContext,
    source: Box<dyn Source>,
    busy: Rc<Cell<bool>>,
    fail: impl Fn(Error) + 'static,
) -> Result<Activator, Error> {
    let from = feed(scope, cx, source, wiring.host.resume, busy, fail);

    let Unrepeated { events, refused, tallies: repeated, refused_events } = unique(graph, wiring, from.events)?;
    let Accepted { accepted, tallies, copies } = accept(graph, wiring, events)?;
    keep_books(graph, wiring, repeated.into_iter().fold(from.tallies.concat(tallies), Concat::concat))?;
    let refused = refused.into_iter().fold(from.refused, Concat::concat);
    let refused_events = refused_events.into_iter().fold(from.refused_events, Concat::concat);
    let accepted = within(graph, wiring, "", accepted)?;
    record(graph, wiring, accepted.clone(), refused.clone())?;
    let firsts = firsts(graph, wiring, "accepted", accepted.clone())?;
    let first_refused = self::firsts(graph, wiring, "refused", refused)?;
    let copies = copies.map(|copies| self::firsts(graph, wiring, "copies", copies)).transpose()?;
    for (plan, keeping) in &graph.views {
        view(plan, *keeping, wiring, accepted.clone())?;
    }
    if let Some((columns, thresholds)) = &graph.detect {
        detect(graph, *columns, thresholds, wiring, firsts.clone(), first_refused.clone())?;
    }
    let refused_events = within(graph, wiring, " refused events", refused_events)?;
    let numbered = self::firsts(graph, wiring, "refused events", refused_events)?.concat(firsts.clone());
    let sequences = sequences(graph, wiring, numbered)?;
    if let Some(judging) = &graph.judge {
        judge(graph, judging, wiring, firsts.clone(), first_refused, copies, sequences)?;
    }
    for (name, operator) in &graph.custom {
        custom(name, operator, graph, wiring, firsts.clone())?;
    }
    accepted.probe_with(&wiring.probe);
    Ok(from.activator)
}

/// counts ─▶ count broken
fn count_broken(graph: &SourceGraph, rule: &Rule, wiring: &Wiring, counts: BatchStream<'_>) -> Result<(), Error> {
    let metrics = wiring.metrics.clone();
    let count = CountBroken { source: graph.name.clone(), rule: Arc::clone(&rule.id), mode: rule.mode, metrics };
    let name = format!("{}/count broken {}", graph.name, rule.id);
    watch(operate(&name, counts, Route::Pipeline, &wiring.host, move |_| Ok(Box::new(count)))?, wiring);
    Ok(())
}

/// accepted and refused events ─▶ key sequence ═▶ sequence ─▶ count broken, for each rule of sequences. Gives a judge's cells.
fn sequences<'scope>(
    graph: &SourceGraph,
    wiring: &Wiring,
    events: BatchStream<'scope>,
) -> Result<Vec<BatchStream<'scope>>, Error> {
    let (host, lateness, bytes) = (&wiring.host, graph.lateness, wiring.operator_bytes);
    let mut all = Vec::new();
    for rule in &graph.rules {
        let Basis::Sequence(sequencing) = &rule.basis else { continue };
        let (of, key) = (sequencing.clone(), KeySequence::new((**sequencing).clone(), graph.sender));
        let name = format!("{}/key sequence {}", graph.name, rule.id);
        let keyed = operate(&name, events.clone(), Route::Pipeline, host, move |_| Ok(Box::new(key)))?;
        let window = graph.judge.as_ref().map(|judging| judging.court.window);
        let tell = Tell::new(rule.clone(), of.is_masked, graph.topics.clone(), window);
        let by_device = Route::ByGroup { column: KeySequence::GROUP };
        let name = format!("{}/sequence {}", graph.name, rule.id);
        let (cells, gaps, _) = two_or_three(operate(&name, one(keyed)?, by_device, host, move |registry| {
            Ok(Box::new(Sequence::new(&of, lateness, tell, bytes, registry)?))
        })?)?;
        count_broken(graph, rule, wiring, gaps)?;
        cells.clone().probe_with(&wiring.probe);
        all.push(cells);
    }
    Ok(all)
}

/// What comes out of deduplication.
struct Accepted<'scope> {
    accepted: BatchStream<'scope>,
    tallies: BatchStream<'scope>,
    /// The copies, where a judge looks at them.
    copies: Option<BatchStream<'scope>>,
}

/// events ─▶ identify ═▶ deduplicate, or events ─▶ tally
fn accept<'scope>(
    graph: &SourceGraph,
    wiring: &Wiring,
    events: BatchStream<'scope>,
) -> Result<Accepted<'scope>, Error> {
    let (host, tenant) = (&wiring.host, graph.tenant);
    let accepted = |streams: Vec<BatchStream<'scope>>| -> Result<Accepted<'scope>, Error> {
        let (accepted, tallies, copies) = two_or_three(streams)?;
        Ok(Accepted { accepted, tallies, copies })
    };
    let Some((id, settings)) = graph.deduplicate else {
        let name = format!("{}/tally", graph.name);
        let tallied = operate(&name, events, Route::Pipeline, host, move |_| Ok(Box::new(TallyAccepted::new(tenant))));
        return accepted(tallied?);
    };
    let settings = Deduplication { memory_bytes: wiring.operator_bytes, ..settings };
    let name = format!("{}/identify", graph.name);
    let identified = operate(&name, events, Route::Pipeline, host, move |_| Ok(Box::new(Identify::new(tenant, id))))?;
    let by_id = Route::ByGroup { column: Identify::group_column(graph.schema.fields().len()) };
    let (name, is_judged) = (format!("{}/deduplicate", graph.name), graph.judge.is_some());
    accepted(operate(&name, one(identified)?, by_id, host, move |registry| {
        let operator = Deduplicate::new(settings, registry)?;
        Ok(Box::new(if is_judged { operator.telling_copies() } else { operator }))
    })?)
}

/// Without what a run for a slice of the log reads beside it, to know copies and stragglers.
fn within<'scope>(
    graph: &SourceGraph,
    wiring: &Wiring,
    what: &str,
    events: BatchStream<'scope>,
) -> Result<BatchStream<'scope>, Error> {
    let Some(within) = graph.within.clone() else { return Ok(events) };
    let name = format!("{}/within{what}", graph.name);
    one(operate(&name, events, Route::Pipeline, &wiring.host, move |_| Ok(Box::new(within)))?)
}

/// Without what came from the retry topic: its windows were judged long ago, and a team's operators count on lateness.
fn firsts<'scope>(
    graph: &SourceGraph,
    wiring: &Wiring,
    what: &str,
    batches: BatchStream<'scope>,
) -> Result<BatchStream<'scope>, Error> {
    let Some(topic) = graph.retry_topic else { return Ok(batches) };
    let name = format!("{}/leave out retried {what}", graph.name);
    one(operate(&name, batches, Route::Pipeline, &wiring.host, move |_| Ok(Box::new(LeaveOut::new(topic))))?)
}

/// tallies ─▶ count ─▶ gather ═▶ ledger
fn keep_books(graph: &SourceGraph, wiring: &Wiring, tallies: BatchStream<'_>) -> Result<(), Error> {
    let (host, topics) = (&wiring.host, graph.topics.clone());
    let count = Count { source: graph.name.clone(), topics: topics.clone(), metrics: wiring.metrics.clone() };
    let name = format!("{}/count", graph.name);
    let counted = operate(&name, tallies, Route::Pipeline, host, move |_| Ok(Box::new(count)))?;
    let name = format!("{}/gather", graph.name);
    let gathered = operate(&name, one(counted)?, Route::Pipeline, host, |_| Ok(Box::new(GatherTallies::default())))?;
    let (imbalances, bytes) = (wiring.imbalances.clone(), wiring.operator_bytes);
    let name = format!("{}/ledger", graph.name);
    let ledger = operate(&name, one(gathered)?, Route::ByGroup { column: GROUP }, host, move |registry| {
        Ok(Box::new(KeepLedger::new(topics, imbalances, bytes, registry)?))
    })?;
    watch(ledger, wiring);
    Ok(())
}

/// refused ─▶ record refused; accepted ─▶ record events, where they are kept, and record violations, where rules tag
fn record(
    graph: &SourceGraph,
    wiring: &Wiring,
    accepted: BatchStream<'_>,
    refused: BatchStream<'_>,
) -> Result<(), Error> {
    let (host, topics) = (&wiring.host, graph.topics.clone());
    let name = format!("{}/record refused", graph.name);
    watch(operate(&name, refused, Route::Pipeline, host, |_| Ok(Box::new(RecordRefused::new(topics))))?, wiring);
    if let Some(table) = &graph.keep_events {
        let passing = graph.rules.iter().filter(|rule| rule.mode.passes());
        let tags = passing.map(|rule| (rule.mode == Mode::Tag).then(|| Arc::clone(&rule.id))).collect();
        let events = RecordEvents::new(table, graph.topics.clone(), tags);
        let name = format!("{}/record events", graph.name);
        watch(operate(&name, accepted.clone(), Route::Pipeline, host, |_| Ok(Box::new(events)))?, wiring);
    }
    if graph.rules.iter().any(|rule| rule.mode == Mode::Tag) {
        let violations = RecordViolations::new(&graph.rules, graph.sender, graph.topics.clone());
        let name = format!("{}/record violations", graph.name);
        watch(operate(&name, accepted, Route::Pipeline, host, |_| Ok(Box::new(violations)))?, wiring);
    }
    Ok(())
}

/// accepted ─▶ combine ═▶ maintain
fn view(plan: &Arc<ViewPlan>, keeping: Keeping, wiring: &Wiring, accepted: BatchStream<'_>) -> Result<(), Error> {
    let (host, bytes) = (&wiring.host, wiring.operator_bytes);
    let of_plan = plan.clone();
    let name = format!("{}/combine", plan.name);
    let combined =
        operate(&name, accepted, Route::Pipeline, host, move |_| Ok(Box::new(Combine::new(of_plan, bytes)?)))?;
    let (of_plan, keeping) = (plan.clone(), Keeping { memory_bytes: bytes, ..keeping });
    let name = maintaining(&plan.name);
    let by_key = Route::ByGroup { column: combine::GROUP };
    let maintained = operate(&name, one(combined)?, by_key, host, move |registry| {
        Ok(Box::new(Maintain::new(of_plan, keeping, registry)?))
    })?;
    watch(maintained, wiring);
    Ok(())
}

/// accepted ─▶ count accepted ═╗
///  refused ─▶ count refused ══╩═▶ detect
fn detect<'scope>(
    graph: &SourceGraph,
    columns: SenderColumns,
    thresholds: &Thresholds,
    wiring: &Wiring,
    accepted: BatchStream<'scope>,
    refused: BatchStream<'scope>,
) -> Result<(), Error> {
    let (host, window, bytes) = (&wiring.host, thresholds.window, wiring.operator_bytes);
    let name = format!("{}/count accepted", graph.name);
    let good =
        operate(&name, accepted, Route::Pipeline, host, move |_| Ok(Box::new(CountAccepted::new(columns, window))))?;
    let name = format!("{}/count refused", graph.name);
    let bad = operate(&name, refused, Route::Pipeline, host, move |_| Ok(Box::new(CountRefused::new(window))))?;
    let (thresholds, topics) = (thresholds.clone(), graph.topics.clone());
    let name = format!("{}/detect", graph.name);
    let by_sender = Route::ByGroup { column: GROUP };
    let judged = operate(&name, one(good)?.concat(one(bad)?), by_sender, host, move |registry| {
        Ok(Box::new(Detect::new(thresholds, topics, bytes, registry)?))
    })?;
    watch(judged, wiring);
    Ok(())
}

/// accepted ─▶ profile events ═══╗
///   copies ─▶ profile copies ═══╣
///  refused ─▶ profile refused ══╬═▶ judge ═▶ raise
///                    sequences ═╝
fn judge<'scope>(
    graph: &SourceGraph,
    judging: &Judging,
    wiring: &Wiring,
    accepted: BatchStream<'scope>,
    refused: BatchStream<'scope>,
    copies: Option<BatchStream<'scope>>,
    sequences: Vec<BatchStream<'scope>>,
) -> Result<(), Error> {
    let (host, bytes) = (&wiring.host, wiring.operator_bytes);
    let Judging { senders, telling, court, names, policy } = judging.clone();
    let (layout, window) = (telling.layout.clone(), court.window);
    let name = format!("{}/profile events", graph.name);
    let of_events = layout.clone();
    let good = operate(&name, accepted, Route::Pipeline, host, move |_| {
        Ok(Box::new(ProfileEvents::new(of_events, senders, window)))
    })?;
    let name = format!("{}/profile refused", graph.name);
    let bad = operate(&name, refused, Route::Pipeline, host, move |_| Ok(Box::new(ProfileRefused::new(window))))?;
    let mut cells = one(good)?.concat(one(bad)?);
    if let Some(copies) = copies {
        let name = format!("{}/profile copies", graph.name);
        let copied = operate(&name, copies, Route::Pipeline, host, move |_| {
            Ok(Box::new(ProfileCopies::new(layout, senders, window)))
        })?;
        cells = cells.concat(one(copied)?);
    }
    for numbers in sequences {
        cells = cells.concat(numbers);
    }
    let (by_tenant, of_judge) = (Route::ByGroup { column: profile::GROUP }, court.clone());
    let name = format!("{}/judge", graph.name);
    let (source, topics) = (graph.name.clone(), graph.topics.clone());
    let of_source = source.clone();
    let judged = operate(&name, cells, by_tenant, host, move |registry| {
        Ok(Box::new(Judge::new(of_judge, telling, &of_source, bytes, registry)?))
    })?;
    let name = format!("{}/raise", graph.name);
    let together = Route::ByGroup { column: GROUP };
    let raised = operate(&name, one(judged)?, together, host, move |registry| {
        Ok(Box::new(Raise::new(court, names, &source, policy, topics, bytes, registry)?))
    })?;
    watch(raised, wiring);
    Ok(())
}

/// accepted ─▶ key ═▶ a team's own operator, or without a key accepted ─▶ it
fn custom(
    name: &str,
    operator: &CustomOperator,
    graph: &SourceGraph,
    wiring: &Wiring,
    accepted: BatchStream<'_>,
) -> Result<(), Error> {
    let (host, build) = (&wiring.host, operator.build.clone());
    if operator.key.is_empty() {
        watch(operate(name, accepted, Route::Pipeline, host, move |registry| build(registry))?, wiring);
        return Ok(());
    }
    let add = AddGroup::new(&graph.schema, &operator.key)?;
    let by_key = Route::ByGroup { column: add.column() };
    let keyed = operate(&format!("{name}/key"), accepted, Route::Pipeline, host, move |_| Ok(Box::new(add)))?;
    watch(operate(name, one(keyed)?, by_key, host, move |registry| build(registry))?, wiring);
    Ok(())
}

/// The one edge of an operator that has one.
fn one<'scope>(streams: Vec<BatchStream<'scope>>) -> Result<BatchStream<'scope>, Error> {
    next(&mut streams.into_iter())
}

fn next<'scope>(streams: &mut impl Iterator<Item = BatchStream<'scope>>) -> Result<BatchStream<'scope>, Error> {
    streams.next().ok_or_else(|| Error::Stopped("an operator has fewer output edges than it should".to_owned()))
}

/// The edges of an operator that has two, and a third where it has one.
fn two_or_three<'scope>(
    streams: Vec<BatchStream<'scope>>,
) -> Result<(BatchStream<'scope>, BatchStream<'scope>, Option<BatchStream<'scope>>), Error> {
    let mut streams = streams.into_iter();
    Ok((next(&mut streams)?, next(&mut streams)?, streams.next()))
}

/// Lets the probe see streams that lead nowhere else.
fn watch(streams: Vec<BatchStream<'_>>, wiring: &Wiring) {
    for stream in streams {
        stream.probe_with(&wiring.probe);
    }
}
