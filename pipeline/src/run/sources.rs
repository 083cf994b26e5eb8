//! A source's two halves: what opens its shares once the state says where, and what follows it in the graph.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use weir_judge::settings::Settings;
use weir_operators::account::TopicNames;
use weir_operators::deduplicate::Deduplication;
use weir_operators::detect::{SenderColumns, Thresholds};
use weir_operators::judge::{CELLS_AT_ONCE, Court, Names, Telling};
use weir_operators::maintain::{CLOSING_BYTES, Keeping, PROVISIONAL_BYTES};
use weir_operators::profile::{self, Layout};
use weir_operators::within::Within;
use weir_schemas::place::{Partition, TopicId};
use weir_schemas::registry::Registry;
use weir_schemas::stage::{Column, system};
use weir_schemas::time::EventTime;

use super::operators::Described;
use super::span;
use super::tables::kept_events;
use crate::alerts;
use crate::bind::{Bound, BoundSource, BoundView};
use crate::config::judge::Judge as JudgeConfig;
use crate::config::{self, Pipeline};
use crate::dataflow::{Judging, SourceGraph};
use crate::engine::{Inputs, OpenSource, PrepareSource, Prepared, Resume, Running};
use crate::error::Error;
use crate::kept;
use crate::problem::Problem;
use crate::readers::{self, KeptReader};
use crate::recovery;
use crate::samples::{Sampled, Samples};
use crate::slice::Slice;
use crate::source::Source;
use crate::source::attend::{Admit, Forget, News};
use crate::source::describe::Topic;
use crate::source::joining::Joining;
use crate::source::log::{Assigned, Attending};
use crate::source::open::{self, Start};
use crate::source::pace::Paced;
use crate::source::retry::Retries;
use crate::source::stream::{self, Paces, StreamSource};

/// The versions of a source's subject whose records it would refuse. A start goes on in any case, as a running pipeline
/// would: each record is judged by itself.
pub(super) async fn unreadable(
    config: &config::Source,
    source: &BoundSource,
    kept: &KeptReader,
    registry: &Registry,
) -> Vec<String> {
    match readers::compare(&source.name, config, &source.reader, kept, registry).await {
        Ok(found) => found.unreadable,
        Err(error) => {
            tracing::warn!(source = source.name, %error, "the subject's versions aren't compared");
            Vec::new()
        }
    }
}

/// What is to be told of a source's schemas, each time that somebody looks.
pub(super) fn schema_news(
    config: &config::Source,
    source: &BoundSource,
    kept: &KeptReader,
    unreadable: Vec<String>,
    registry: &Registry,
    handle: &tokio::runtime::Handle,
) -> News {
    let (name, subject) = (source.name.clone(), readers::subject_of(config));
    let (kept, registry, handle) = (kept.clone(), registry.clone(), handle.clone());
    Box::new(move || {
        let newer = handle.block_on(readers::look_for_newer(&name, &subject, &kept, &registry));
        unreadable.iter().cloned().chain(newer).collect()
    })
}

/// What opens a source's shares, once the state says where. `news` is told beside what the log itself tells.
pub(super) fn opener(
    pipeline: &Pipeline,
    config: &config::Source,
    source: &BoundSource,
    inputs: Inputs,
    news: News,
    running: &Running,
) -> Result<PrepareSource, Error> {
    let Inputs { log, schemas } = inputs;
    let (conductor, clock) = (running.conductor.clone(), running.clock.clone());
    // Who invents time also says where the log ends.
    let until_end = running.until_end && conductor.is_none();
    let (slice, pace) = (running.slice.clone(), running.pace.clone());
    let start = Start::parse(&config.start).ok_or_else(|| {
        Error::Config(vec![Problem::of_file(
            "the pipeline file",
            format!("source `{}`: start = {:?} is no word and no time", source.name, config.start),
            "write earliest, latest, or a time such as 2026-01-31T00:00:00Z",
        )])
    })?;
    let names = config.all_topics();
    // Half of what may be in flight may wait in librdkafka's queues besides, in equal parts for the sources; as much again
    // may be fetched from them and not be taken yet.
    let queues_bytes = pipeline.in_flight_bytes / 2 / pipeline.sources.len().max(1) as u64;
    let plan = stream::Plan {
        name: source.name.clone(),
        contract: source.contract.clone(),
        reader: source.reader.clone(),
        wanted: source.wanted.clone(),
        codes: source.judged.as_ref().map(|layout| layout.codes().clone()),
        grace_ms: pipeline.registry.grace_ms,
        align_within: span(config.align_within_ms),
        greatest: AtomicI64::new(i64::MIN),
        last_record_at_ms: AtomicI64::new(clock.now_ms()),
        told: EventTime::MIN,
        retries: None,
        paces: Paces::default(),
        joining: Joining::default(),
        precedents: running.precedents.clone(),
    };
    let (retry_topic, retained) = (config.retry_topic.clone(), span(config.retained_ms()));
    Ok(Box::new(move |resume: Resume| {
        let described = log.topics(&names)?;
        check_identities(&described, &resume)?;
        let topics: Vec<(TopicId, Topic)> = described
            .iter()
            .filter_map(|topic| Some((number_of(&resume.topics, &topic.name)?, topic.clone())))
            .collect();
        let committed: Vec<_> = resume.positions.values().cloned().collect();
        let is_retry = |topic: &Topic| retry_topic.as_ref() == Some(&topic.name);
        let (retry, own): (Vec<_>, Vec<_>) = topics.into_iter().partition(|(_, topic)| is_retry(topic));
        open::check_one_order(retry.iter().map(|(_, topic)| topic))?;
        let mut resumes = open::open(&*log, &own, &committed, start, until_end)?;
        // What was retried before the first start counts, wherever the source itself begins.
        resumes.extend(open::open(&*log, &retry, &committed, Start::Earliest, until_end)?);
        if let Some(slice) = &slice {
            resumes = open::narrow(resumes, &committed, slice)?;
        }
        for of in &resumes {
            let (topic, number) = (of.partition.topic.0, of.partition.number);
            recovery::forget_marks(&resume.store, topic, number, of.log_begins_at)?;
        }
        let (source, forget) = (plan.name.clone(), forget_marks(&resume));
        let own = resumes.iter().filter(|of| retry_topic.as_ref() != Some(&of.topic));
        let greatest = carried_from(own.map(|of| of.watermark), resume.told);
        let queue_bytes = queues_bytes / resumes.len().max(1) as u64;
        let lateness = plan.contract.bounds.allowed_lateness;
        let at_start = kept::Start { told: resume.told, lateness, retained };
        let kept_from = kept::retain(&resume.store, &plan.name, at_start)?;
        let retries = retry_topic.map(|topic| Retries {
            origins: names.iter().filter(|name| **name != topic).cloned().collect(),
            topic,
            kept_from,
            retained,
            store: resume.store.clone(),
        });
        let greatest = AtomicI64::new(greatest.0);
        let plan = Arc::new(stream::Plan { told: resume.told, greatest, retries, ..plan });
        // A run to the ends that it noted, or for a slice, reads what there was.
        let admit = (!until_end && slice.is_none()).then(|| admit(&resume, plan.clone()));
        let attend = log.attend(Attending { source, topics: described, news, forget, admit })?;
        let open: OpenSource = Arc::new(move |worker: usize, peers: usize| {
            let share = open::share(&resumes, worker, peers);
            let assigned: Vec<Assigned> = share
                .iter()
                .map(|of| Assigned { topic: of.topic.clone(), partition: of.partition.number, offset: of.offset })
                .collect();
            let fetcher = log.read(&plan.name, &assigned, queue_bytes)?;
            let source = StreamSource::new(plan.clone(), schemas.clone(), fetcher, share, clock.now_ms());
            let source: Box<dyn Source> = match &pace {
                Some(pace) => Box::new(Paced::new(Box::new(source), pace.clone())),
                None => Box::new(source),
            };
            Ok(match &conductor {
                Some(conductor) => conductor.accompany(source),
                None => source,
            })
        });
        Ok(Prepared { open, attend })
    }))
}

/// From where the clock carries the watermark on, should nothing come any more: from the greatest mark of the partitions, or
/// from what the stream was told, where the clock had carried it beyond them already. Else each restart would make the last
/// windows wait once more for as long as the log had been silent.
fn carried_from(marks: impl Iterator<Item = EventTime>, told: EventTime) -> EventTime {
    marks.max().unwrap_or(EventTime::MIN).max(told)
}

/// Hands partitions that are new to the readers of `plan`.
fn admit(resume: &Resume, plan: Arc<stream::Plan>) -> Admit {
    let topics = resume.topics.clone();
    Box::new(move |topic, number, low| {
        let Some(id) = number_of(&topics, topic) else { return false };
        plan.joining.bring(stream::Resume {
            topic: topic.to_owned(),
            partition: Partition { topic: id, number },
            offset: low,
            log_begins_at: low,
            watermark: EventTime::MIN,
            end: None,
        })
    })
}

/// Lets go of the marks of what the log has forgotten.
fn forget_marks(resume: &Resume) -> Forget {
    let (topics, store) = (resume.topics.clone(), resume.store.clone());
    Box::new(move |topic, partition, log_begins_at| match number_of(&topics, topic) {
        Some(number) => recovery::forget_marks(&store, number.0, partition, log_begins_at),
        None => Ok(()),
    })
}

/// Holds the topics to the ids that the state has of them, and keeps the ids of those that it hasn't read yet.
fn check_identities(topics: &[Topic], resume: &Resume) -> Result<(), Error> {
    for topic in topics {
        let is_known = resume.positions.keys().any(|(name, _)| *name == topic.name);
        let known = recovery::read_topic_id(&resume.store, &topic.name)?;
        if is_known {
            open::check_identity(topic, known.as_deref())?;
        }
        if let Some(id) = topic.id.as_ref().filter(|id| known.as_ref() != Some(id)) {
            recovery::write_topic_id(&resume.store, &topic.name, id)?;
        }
    }
    Ok(())
}

fn number_of(topics: &[String], name: &str) -> Option<TopicId> {
    let at = topics.iter().position(|topic| topic == name)?;
    u16::try_from(at).ok().map(TopicId)
}

/// What follows a source, once the topics have their numbers.
pub(super) fn graph_of(
    pipeline: &Pipeline,
    config: &config::Source,
    source: &BoundSource,
    bound: &Bound,
    custom: &[Described],
    slice: Option<&Slice>,
) -> Box<dyn FnOnce(Vec<TopicNames>) -> SourceGraph> {
    let index = |field: &Option<String>| field.as_deref().and_then(|field| column_of(&source.columns, field));
    let allowed_lateness = span(config.allowed_lateness_ms);
    let (tenant, retained) = (index(&config.tenant), span(config.retained_ms()));
    let keeping = |view: &BoundView| Keeping {
        provisional: view.config.provisional,
        allowed_lateness,
        retained,
        memory_bytes: 0,
        closing_bytes: CLOSING_BYTES,
        provisional_bytes: PROVISIONAL_BYTES,
    };
    let sender = SenderColumns {
        tenant,
        sdk: index(&config.release.sdk),
        sdk_version: index(&config.release.sdk_version),
        app_version: index(&config.release.app_version),
    };
    let views = bound.views.iter().filter(|view| view.plan.source == source.name);
    let graph = SourceGraph {
        name: source.name.clone(),
        schema: Arc::clone(source.contract.emitted()),
        topics: Vec::new(),
        retry_topic: None,
        tenant,
        id: index(&config.event_id),
        lateness: allowed_lateness,
        within: slice.map(|slice| Within::new(slice.from, slice.to, source.only.clone())),
        deduplicate: index(&config.event_id).map(|id| {
            let horizon = span(config.dedup_horizon_ms);
            (id, Deduplication { tenant, allowed_lateness, horizon, retained, memory_bytes: 0 })
        }),
        keep_events: kept_events(pipeline, source),
        sender,
        rules: source.contract.rules.clone(),
        views: views.map(|view| (Arc::new(view.plan.clone()), keeping(view))).collect(),
        detect: pipeline.alerts.refused_share.as_ref().map(|detector| {
            let thresholds = Thresholds {
                source: source.name.clone(),
                open_at: detector.open_at,
                resolve_below: detector.resolve_below,
                min_records: detector.min_records,
                silent_windows: detector.silent_windows,
                window: span(detector.window_ms),
                settle: allowed_lateness,
                policy: alerts::policy(pipeline, &source.contract.rules),
            };
            (sender, thresholds)
        }),
        judge: pipeline
            .alerts
            .judge
            .as_ref()
            .zip(source.judged.clone())
            .map(|(judge, layout)| judging(pipeline, judge, layout, config, source)),
        custom: custom
            .iter()
            .filter(|described| described.source == source.name)
            .map(|described| (described.name.clone(), described.operator.clone()))
            .collect(),
    };
    let retry_topic = config.retry_topic.clone();
    Box::new(move |topics| {
        let number = retry_topic.and_then(|retry| topics.iter().position(|names| *names.topic == *retry));
        let retry_topic = number.and_then(|number| u16::try_from(number).ok());
        SourceGraph { topics, retry_topic, ..graph }
    })
}

/// What alerts show of their records.
pub(super) fn samples_of(pipeline: &Pipeline, bound: &Bound, inputs: Inputs, running: &Running) -> Samples {
    let Inputs { log, schemas } = inputs;
    let sampled = bound.sources.iter().filter_map(|source| {
        let config = pipeline.sources.get(&source.name)?;
        let release = &config.release;
        let sampled = Sampled {
            reader: source.reader.clone(),
            layout: Layout::new(&source.reader.columns, 0, &[]),
            sensitive: config.sensitive.clone(),
            event_time: config.event_time.clone(),
            tenant: config.tenant.clone(),
            event_type: config.event_type.clone(),
            release: [release.sdk.clone(), release.sdk_version.clone(), release.app_version.clone()],
        };
        Some((source.name.clone(), sampled))
    });
    Samples::new(sampled.collect(), log.lookups(), schemas, running.clock.clone())
}

/// What a source's judge works with.
fn judging(
    pipeline: &Pipeline,
    judge: &JudgeConfig,
    layout: Arc<Layout>,
    config: &config::Source,
    source: &BoundSource,
) -> Judging {
    let index = |field: &Option<String>| field.as_deref().and_then(|field| column_of(&source.columns, field));
    // Their numbers in a batch's marks: in the order of their ids, those that let events pass.
    let rules = source.contract.rules.iter().filter(|rule| rule.mode.passes()).map(|rule| rule.id.to_string());
    let rules: Vec<String> = rules.collect();
    let settings = Settings {
        false_alerts_per_week: judge.false_alerts_per_week,
        learn_windows: judge.learn_windows,
        users_min: f64::from(judge.users_min),
        ..Settings::default()
    };
    Judging {
        senders: profile::SenderColumns {
            tenant: index(&config.tenant),
            event_type: index(&config.event_type),
            release: [&config.release.sdk, &config.release.sdk_version, &config.release.app_version].map(index),
            user: index(&config.user),
        },
        telling: Telling { layout, rules },
        court: Court {
            window: span(judge.window_ms),
            settle: span(config.allowed_lateness_ms),
            settings,
            cells_at_once: CELLS_AT_ONCE,
        },
        names: Names {
            events: kept_events(pipeline, source).map(|table| table.name.to_string()),
            tenant: config.tenant.clone(),
            event_type: config.event_type.clone(),
            release: [&config.release.sdk, &config.release.sdk_version, &config.release.app_version].map(Clone::clone),
            has_users: config.user.is_some(),
        },
        policy: alerts::policy(pipeline, &source.contract.rules),
    }
}

/// A column's index in a batch of events.
fn column_of(columns: &[Column], field: &str) -> Option<usize> {
    columns.iter().position(|column| column.name == field).map(|at| at + system::COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_in_a_silence_goes_on_from_where_the_clock_had_carried_the_watermark() {
        let marks = [EventTime(500), EventTime::MIN, EventTime(700)];
        assert_eq!(carried_from(marks.into_iter(), EventTime(300)), EventTime(700));
        assert_eq!(carried_from(marks.into_iter(), EventTime(9_000)), EventTime(9_000), "it was carried beyond them");
        assert_eq!(carried_from(std::iter::empty(), EventTime::MIN), EventTime::MIN);
    }
}
