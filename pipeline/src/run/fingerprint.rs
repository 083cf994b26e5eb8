//! What a state depends on, read from a pipeline file: a restart is held to it.

use std::fmt::Debug;

use sqlparser::dialect::ClickHouseDialect;
use sqlparser::parser::Parser;
use weir_operators::view::ViewPlan;

use crate::bind::Bound;
use crate::config::Pipeline;
use crate::lineage::{hash, hash_of_rule, hashes_of_plan, settings};
use crate::readers::Readers;
use crate::recovery::{Fingerprint, Part, SOURCE_PART};

/// What the state depends on. A view's query counts as its parsed form prints it, so that space and comments may change.
pub(super) fn fingerprint(pipeline: &Pipeline, bound: &Bound, readers: &Readers) -> Fingerprint {
    let mut fingerprint = Fingerprint { pipeline: pipeline.name.clone(), ..Fingerprint::default() };
    let or_none = |field: &Option<String>| field.clone().unwrap_or_else(|| "nothing".to_owned());
    for source in &bound.sources {
        let Some(config) = pipeline.sources.get(&source.name) else { continue };
        let mut part = Part { reader: readers.kept.get(&source.name).cloned(), ..Part::default() };
        for (fact, value) in [
            ("event_time", config.event_time.clone()),
            ("event_id", or_none(&config.event_id)),
            ("tenant", or_none(&config.tenant)),
            ("allowed_lateness_ms", config.allowed_lateness_ms.to_string()),
            ("dedup_horizon_ms", config.dedup_horizon_ms.to_string()),
        ] {
            part.facts.insert(fact.to_owned(), value);
        }
        for topic in &config.topics {
            part.facts.insert(format!("topic {topic}"), "read".to_owned());
        }
        for column in &source.reader.columns {
            part.facts.insert(format!("column {}", column.name), column.column_type.to_string());
        }
        fingerprint.parts.insert(format!("{SOURCE_PART}{}", source.name), part);
    }
    for view in &bound.views {
        let mut part = Part { loses_by_absence: true, ..Part::default() };
        part.facts.insert("query".to_owned(), canonical(&view.text, &view.plan));
        fingerprint.parts.insert(format!("view {}", view.plan.name), part);
    }
    for (name, custom) in &pipeline.operators {
        let mut part = Part { loses_by_absence: true, ..Part::default() };
        part.facts.insert("uses".to_owned(), custom.uses.clone());
        part.facts.insert("source".to_owned(), custom.source.clone());
        fingerprint.parts.insert(format!("operator {name}"), part);
    }
    if let Some(detector) = &pipeline.alerts.refused_share {
        let mut part = Part { loses_by_absence: false, ..Part::default() };
        part.facts.insert("window_ms".to_owned(), detector.window_ms.to_string());
        fingerprint.parts.insert("detector refused_share".to_owned(), part);
    }
    if let Some(judge) = &pipeline.alerts.judge {
        let mut part = Part { loses_by_absence: false, ..Part::default() };
        part.facts.insert("window_ms".to_owned(), judge.window_ms.to_string());
        fingerprint.parts.insert("detector judge".to_owned(), part);
    }
    fingerprint
}

/// Adds to the fingerprint of a run for a slice of the log what else decides its results. A live pipeline may change these from
/// where it is; the rows of a slice are one result, so such a run goes on with what it began with.
pub(super) fn add_what_decides(fingerprint: &mut Fingerprint, pipeline: &Pipeline, bound: &Bound) {
    for source in &bound.sources {
        let Some(config) = pipeline.sources.get(&source.name) else { continue };
        let part = fingerprint.parts.entry(format!("{SOURCE_PART}{}", source.name)).or_default();
        part.facts.insert("settings".to_owned(), settings(config).to_string());
        let plan = bound.plans.get(&source.name).map(hashes_of_plan).unwrap_or_default();
        let versions: Vec<&str> = plan.keys().map(String::as_str).collect();
        // Where the plan's folder is decides nothing, and what becomes of an event stands with the rules.
        let told = config.plan.as_ref().map(|plan| {
            let versions = versions.join(", ");
            format!("by {}, {:?} where unknown, of {versions}", plan.version, plan.judge_unknown_by)
        });
        part.facts.insert("plan".to_owned(), told.unwrap_or_else(|| "none".to_owned()));
        for (version, hash) in plan {
            part.facts.insert(format!("plan version {version}"), hash);
        }
        let rules = &source.contract.rules;
        // A rule that is new has no fact to differ from; their names together do.
        let names: Vec<&str> = rules.iter().map(|rule| &*rule.id).collect();
        part.facts.insert("rules".to_owned(), names.join(", "));
        for rule in rules {
            let told = format!("{} {} [{}]", rule.mode.name(), rule.expected, hash_of_rule(rule));
            part.facts.insert(format!("rule {}", rule.id), told);
        }
    }
    // What the file lacks by now, or has besides, differs from nothing: the names together do.
    let mut names = |of: &str, names: Vec<&str>| {
        let part = fingerprint.parts.entry(format!("the {of}")).or_default();
        part.facts.insert("names".to_owned(), if names.is_empty() { "none".to_owned() } else { names.join(", ") });
    };
    names("views", bound.views.iter().map(|view| view.plan.name.as_str()).collect());
    names("operators", pipeline.operators.keys().map(String::as_str).collect());
    for (name, custom) in &pipeline.operators {
        let part = fingerprint.parts.entry(format!("operator {name}")).or_default();
        // What they are may be secret.
        part.facts.insert("settings".to_owned(), hash(&custom.settings.to_string()));
    }
    let alerts = &pipeline.alerts;
    let part = fingerprint.parts.entry("the alerts".to_owned()).or_default();
    for (fact, value) in [
        ("refused_share", &alerts.refused_share as &dyn Debug),
        ("judge", &alerts.judge),
        ("owners", &alerts.owners),
        ("routes", &alerts.routes),
        ("suppressions", &alerts.suppressions),
    ] {
        part.facts.insert(fact.to_owned(), format!("{value:?}"));
    }
}

fn canonical(text: &str, plan: &ViewPlan) -> String {
    match Parser::parse_sql(&ClickHouseDialect {}, text) {
        Ok(statements) => statements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        // The planner took it, so the parser does; the plan's source alone still tells two views apart.
        Err(_) => format!("{} over {}", text.trim(), plan.source),
    }
}
