//! Versions of a pipeline: one hash over everything that decides what a row holds.
//!
//! It changes with a view's SQL, a rule, a tracking plan, a reader schema, what a source says of its fields and of time, and
//! Weir's own code; not with addresses, workers, memory or alerts. Secrets are no part of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weir_operators::rule::Rule;
use xxhash_rust::xxh3::xxh3_128;

use crate::bind::Bound;
use crate::config::{self, Pipeline};
use crate::plan::Plan;
use crate::readers::Readers;

/// The version of Weir's code.
pub(super) const CODE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from, where the build was told it in the variable `WEIR_COMMIT`; else empty.
pub(super) const CODE_COMMIT: &str = match option_env!("WEIR_COMMIT") {
    Some(commit) => commit,
    None => "",
};

/// A version of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineVersion {
    /// The hash, hexadecimal.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// What was hashed, as JSON.
    pub definition: String,
}

/// The version of `pipeline` as it was bound.
pub fn version_of(pipeline: &Pipeline, bound: &Bound, readers: &Readers) -> PipelineVersion {
    let views: Map<String, Value> = bound
        .views
        .iter()
        .map(|view| (view.plan.name.clone(), json!({ "hash": hash(&view.text), "sql": view.text })))
        .collect();
    let mut sources = Map::new();
    for source in &bound.sources {
        let Some(config) = pipeline.sources.get(&source.name) else { continue };
        let rules: Map<String, Value> = source
            .contract
            .rules
            .iter()
            .map(|rule| {
                let told = json!({
                    "hash": hash_of_rule(rule), "mode": rule.mode.name(), "when": &*rule.when, "requires": &*rule.expected,
                });
                (rule.id.to_string(), told)
            })
            .collect();
        let reader = readers.kept.get(&source.name).cloned().unwrap_or_default();
        let schema = [reader.text.as_str()].into_iter().chain(reader.referenced.iter().map(String::as_str));
        let schema: Vec<&str> = schema.collect();
        let told = json!({
            "rules": rules,
            "reader_schema": { "hash": hash(&schema.join("\n")), "version": reader.version, "id": reader.id },
            "settings": settings(config),
            "plan": bound.plans.get(&source.name).map(hashes_of_plan),
        });
        sources.insert(source.name.clone(), told);
    }
    let definition = json!({ "views": views, "sources": sources }).to_string();
    let id = hash(&format!("{}\n{CODE_VERSION}\n{CODE_COMMIT}\n{definition}", pipeline.name));
    PipelineVersion { id, pipeline: pipeline.name.clone(), definition }
}

/// The hash of each version of a tracking plan, by the version's name.
pub(crate) fn hashes_of_plan(plan: &Plan) -> BTreeMap<String, String> {
    plan.versions.iter().map(|version| (version.name.clone(), hash(&version.text))).collect()
}

/// A rule's hash: another one where it may find other events broken.
pub(crate) fn hash_of_rule(rule: &Rule) -> String {
    hash(&format!("{} {} {} {:?}", rule.mode.name(), rule.when, rule.expected, rule.basis))
}

/// What of a source's settings decides results.
pub(crate) fn settings(config: &config::Source) -> Value {
    json!({
        "topics": config.topics,
        "event_time": config.event_time,
        "event_id": config.event_id,
        "tenant": config.tenant,
        "disorder_ms": config.disorder_ms,
        "idle_after_ms": config.idle_after_ms,
        "allowed_lateness_ms": config.allowed_lateness_ms,
        "future_limit_ms": config.future_limit_ms,
        "dedup_horizon_ms": config.dedup_horizon_ms,
    })
}

/// A text's hash, hexadecimal: 128 bits of XXH3.
pub(crate) fn hash(text: &str) -> String {
    format!("{:032x}", xxh3_128(text.as_bytes()))
}
