//! What the pipeline file says about the judge of everything that events show.

use serde::Deserialize;

use super::Pipeline;
use super::alerts::Alerts;
use super::load::Source;
use crate::problem::Problem;

/// Judges each tenant's releases by what their events look like, window by window.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The window, in milliseconds.
    #[serde(default = "default_judge_window_ms")]
    pub window_ms: u64,
    /// Windows that a field is watched before it is judged, and a release before what it brings is its habit.
    #[serde(default = "default_learn_windows")]
    pub learn_windows: u32,
    /// False alerts that one tenant may expect per week, over all of its series.
    #[serde(default = "default_false_alerts_per_week")]
    pub false_alerts_per_week: f64,
    /// Users that must be affected before anybody is told.
    #[serde(default = "default_users_min")]
    pub users_min: u32,
}

impl Alerts {
    /// Whether anything raises alerts.
    pub fn has_detector(&self) -> bool {
        self.refused_share.is_some() || self.judge.is_some()
    }
}

/// What can be wrong about it.
pub(super) fn check(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let Some(judge) = &pipeline.alerts.judge else { return };
    if !(1_000..=86_400_000).contains(&judge.window_ms) || 86_400_000 % judge.window_ms != 0 {
        problems.push(source.problem(
            &["alerts", "judge", "window_ms"],
            format!("a day is not a whole number of windows of {} ms", judge.window_ms),
            "write a part of a day from 1000 to 86400000, such as 3600000",
        ));
    }
    if !(judge.false_alerts_per_week > 0.0 && judge.false_alerts_per_week <= 1_000.0) {
        problems.push(source.problem(
            &["alerts", "judge", "false_alerts_per_week"],
            "a number of false alerts must be above 0 and at most 1000",
            "write 0.2 for one in five weeks",
        ));
    }
}

fn default_judge_window_ms() -> u64 {
    3_600_000
}

fn default_learn_windows() -> u32 {
    72
}

fn default_false_alerts_per_week() -> f64 {
    0.2
}

fn default_users_min() -> u32 {
    10
}
