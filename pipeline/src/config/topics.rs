//! The topics of a pipeline file: each is read or written for one purpose.
//!
//! A topic that two sources read would have two positions and one place to keep them; one that is read and written would
//! feed itself for ever: a record that is refused goes to the quarantine, and is refused again.

use std::collections::BTreeMap;

use super::Pipeline;
use super::load::Source;
use crate::problem::Problem;

/// What a topic is for, and where the file says so.
struct Use<'a> {
    path: Vec<&'a str>,
    what: String,
}

/// Every topic that is named for two purposes.
pub(super) fn check(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let alerts = &pipeline.alerts;
    if alerts.current_topic.is_some() && alerts.topic.is_none() {
        problems.push(source.problem(
            &["alerts", "current_topic"],
            "there is a topic of newest steps and none of all steps",
            "add `topic`: what has been sent is told by it",
        ));
    }
    let control = pipeline.control_topic();
    let mut taken: BTreeMap<&str, String> = BTreeMap::new();
    for (topic, purpose) in uses(pipeline, &control) {
        if let Some(other) = taken.get(topic) {
            let message = format!("`{topic}` is {other} already, and can't be {} as well", purpose.what);
            problems.push(source.problem(&purpose.path, message, "give each a topic of its own"));
        } else {
            taken.insert(topic, purpose.what);
        }
    }
}

fn uses<'a>(pipeline: &'a Pipeline, control: &'a str) -> Vec<(&'a str, Use<'a>)> {
    let mut uses = Vec::new();
    for (name, stream) in &pipeline.sources {
        for topic in &stream.topics {
            let path = vec!["sources", name.as_str(), "topics"];
            uses.push((topic.as_str(), Use { path, what: format!("read by source `{name}`") }));
        }
        if let Some(topic) = &stream.retry_topic {
            let path = vec!["sources", name.as_str(), "retry_topic"];
            uses.push((topic.as_str(), Use { path, what: format!("the retry topic of source `{name}`") }));
        }
    }
    let alerts = &pipeline.alerts;
    let written = [
        (vec!["quality", "quarantine_topic"], pipeline.quality.quarantine_topic.as_deref(), "the quarantine's topic"),
        (vec!["alerts", "topic"], alerts.topic.as_deref(), "the topic of alerts"),
        (vec!["alerts", "current_topic"], alerts.current_topic.as_deref(), "the topic of the alerts' newest steps"),
        (vec!["alerts", "control_topic"], Some(control), "the alerts' control topic"),
        (vec!["lineage", "topic"], pipeline.lineage.topic.as_deref(), "the topic of lineage"),
    ];
    for (path, topic, what) in written {
        uses.extend(topic.map(|topic| (topic, Use { path, what: what.to_owned() })));
    }
    uses
}
