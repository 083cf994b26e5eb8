//! Lineage, as the pipeline file has it: how long it is known what epochs took.

use serde::Deserialize;

use super::load::Source;
use crate::problem::Problem;

/// The section `[lineage]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Days that `weir_epochs` is kept, which `weir explain row` needs.
    #[serde(default = "default_keep_epochs_days")]
    pub keep_epochs_days: u32,
}

impl Default for Lineage {
    fn default() -> Lineage {
        Lineage { keep_epochs_days: default_keep_epochs_days() }
    }
}

fn default_keep_epochs_days() -> u32 {
    90
}

/// Every problem of the section.
pub(super) fn validate(source: &Source<'_>, lineage: &Lineage, problems: &mut Vec<Problem>) {
    let days = lineage.keep_epochs_days;
    if !(1..=10_000).contains(&days) {
        let message = format!("`lineage.keep_epochs_days` is {days}");
        problems.push(source.problem(&["lineage", "keep_epochs_days"], message, "take a number from 1 to 10000"));
    }
}
