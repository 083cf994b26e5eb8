//! A source's tracking plan, as the pipeline file names it.

use std::path::PathBuf;

use serde::Deserialize;
use weir_schemas::rule::Mode;

use super::Pipeline;
use super::load::Source;
use crate::problem::Problem;

/// A tracking plan: a folder with a file for each version, and how events say which one they follow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackingPlan {
    /// The folder; `3.toml` in it is version 3.
    pub folder: PathBuf,
    /// The field that claims the version: a column, or a map's value as in `props['plan_version']`.
    pub version: String,
    /// What becomes of an event that claims no version that the plan has.
    #[serde(default = "tag")]
    pub unknown_version: Mode,
    /// By which version such an event is judged.
    #[serde(default)]
    pub judge_unknown_by: JudgedBy,
    /// What becomes of an event whose type isn't in its version.
    #[serde(default = "tag")]
    pub unknown_type: Mode,
    /// What becomes of an event with properties that aren't in its version, where that asks for it.
    #[serde(default = "tag")]
    pub unplanned_property: Mode,
    /// What becomes of an event at most, whatever the plan's files say.
    #[serde(default)]
    pub mode_at_most: Mode,
}

/// The version that judges events which claim none, or one that isn't there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgedBy {
    /// The newest.
    #[default]
    Newest,
    /// The oldest.
    Oldest,
    /// None: they break no other rule of the plan.
    Nothing,
}

fn tag() -> Mode {
    Mode::Tag
}

/// Every problem of the plans' form.
pub(super) fn validate(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    for (name, stream) in &pipeline.sources {
        let Some(plan) = &stream.plan else { continue };
        let path = |key| ["sources", name.as_str(), "plan", key];
        if stream.event_type.is_none() {
            problems.push(source.problem(
                &path("folder"),
                format!("source `{name}` has a tracking plan, and no `event_type`"),
                "name the field of the event's type: a plan goes by it",
            ));
        }
        if !plan.folder.is_dir() {
            problems.push(source.problem(
                &path("folder"),
                format!("source `{name}`: there is no folder {}", plan.folder.display()),
                "the path starts at the pipeline file's folder; `weir plan infer` proposes a first version",
            ));
        }
    }
}
