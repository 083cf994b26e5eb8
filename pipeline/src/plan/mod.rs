//! Tracking plans: what events of each type should be, in a folder with a TOML file for each version.
//!
//! An event is judged by the version that it claims. A version's file says of each event type which fields it has and what must
//! hold of them; from that come rules like any others ([`compile`]), with ids such as `plan/purchase/amount@2`: of version 2
//! and later ones, until one asks something else.
//!
//! Not here: how a batch is judged ([`weir_operators::plan`]).

pub mod compile;
pub mod concern;
pub mod diff;
pub mod field;
pub mod infer;
pub mod sample;
mod seen;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use weir_schemas::rule::{Mode, Severity};

use crate::config::Pipeline;
use crate::config::load::{self, Source};
use crate::problem::Problem;
use field::Field;

/// Bytes of a plan's file, at most.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Versions of a plan, at most.
const VERSIONS_MAX: usize = 200;

/// A plan with all of its versions.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The versions, the oldest first.
    pub versions: Vec<Version>,
}

/// A version of a plan.
#[derive(Clone, Debug)]
pub struct Version {
    /// What events claim: the file's name without `.toml`.
    pub name: String,
    /// The file.
    pub file: String,
    /// Its text, for the places of problems.
    pub text: String,
    /// What it says.
    pub plan: PlanFile,
}

/// What a version's file says. Owner, severity and mode hold for all that is below them and says nothing else.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// What it is about, for people.
    #[serde(default)]
    pub description: String,
    /// Whose plan it is.
    pub owner: Option<String>,
    /// How bad it is to break it; absent, warning.
    pub severity: Option<Severity>,
    /// What becomes of events that break it; absent, tag.
    pub mode: Option<Mode>,
    /// Whether events of other types are fine.
    #[serde(default)]
    pub other_types: bool,
    /// Whether events may have other properties, keys of the maps that the plan names; absent, they may.
    pub other_properties: Option<bool>,
    /// Fields of every event type.
    #[serde(default)]
    pub fields: BTreeMap<String, Field>,
    /// The event types.
    #[serde(default)]
    pub events: BTreeMap<String, EventType>,
}

/// What a plan says of an event type.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventType {
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
    /// Whose it is.
    pub owner: Option<String>,
    /// How bad it is to break what stands here.
    pub severity: Option<Severity>,
    /// What becomes of events that break it.
    pub mode: Option<Mode>,
    /// Whether such events may have other properties.
    pub other_properties: Option<bool>,
    /// Its fields.
    #[serde(default)]
    pub fields: BTreeMap<String, Field>,
}

/// A field of an event type as a version has it, with all that it has from above.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The event type that it is planned for; `*` where it is every one.
    pub of: &'a str,
    /// The field: a column, or a map's value.
    pub name: &'a str,
    /// What is asked of it.
    pub field: &'a Field,
    /// Whose it is; may be empty.
    pub owner: &'a str,
    /// How bad it is to break it.
    pub severity: Severity,
    /// What becomes of events that do.
    pub mode: Mode,
}

/// What stands in place of an event type where all are meant.
pub const EVERY_TYPE: &str = "*";

impl PlanFile {
    /// The fields of an event type: its own, and those of every type that it doesn't have itself.
    pub fn fields_of<'a>(&'a self, name: &'a str, event: &'a EventType) -> Vec<Planned<'a>> {
        let common = self.fields.iter().filter(|(name, _)| !event.fields.contains_key(*name));
        let common = common.map(|(name, field)| (EVERY_TYPE, name, field));
        let own = event.fields.iter().map(|(field, of)| (name, field, of));
        let planned = common.chain(own).map(|(of, name, field)| {
            let above = if of == EVERY_TYPE { None } else { Some(event) };
            let owner = field.owner.as_deref().or(above.and_then(|above| above.owner.as_deref()));
            Planned {
                of,
                name,
                field,
                owner: owner.or(self.owner.as_deref()).unwrap_or_default(),
                severity: field
                    .severity
                    .or(above.and_then(|above| above.severity))
                    .or(self.severity)
                    .unwrap_or_default(),
                mode: field.mode.or(above.and_then(|above| above.mode)).or(self.mode).unwrap_or(Mode::Tag),
            }
        });
        planned.collect()
    }

    /// Whether events of a type may have properties that aren't planned.
    pub fn allows_others(&self, event: &EventType) -> bool {
        event.other_properties.or(self.other_properties).unwrap_or(true)
    }
}

impl Version {
    /// A version called `name` from the text of its file.
    ///
    /// # Errors
    /// Every problem of its form, each at its place.
    pub fn parse(name: &str, text: &str) -> Result<Version, Vec<Problem>> {
        let file = format!("{name}.toml");
        let plan: PlanFile = load::read_file(&Source::new(&file, text))?;
        Ok(Version { name: name.to_owned(), file, text: text.to_owned(), plan })
    }

    /// A problem at the key of `path` in the version's file.
    pub fn problem(&self, path: &[&str], message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Source::new(&self.file, &self.text).problem(path, message, remedy)
    }

    /// Where a planned field stands in the file.
    pub fn path_of<'a>(planned: &Planned<'a>) -> Vec<&'a str> {
        match planned.of {
            EVERY_TYPE => vec!["fields", planned.name],
            of => vec!["events", of, "fields", planned.name],
        }
    }
}

/// Reads a version's file.
///
/// # Errors
/// Every problem of its form, each at its place.
pub fn read_version(path: &Path) -> Result<Version, Vec<Problem>> {
    let file = path.display().to_string();
    let unreadable = |message: String| {
        vec![Problem::of_file(&file, format!("can't read the plan: {message}"), "name a plan's file, TOML in UTF-8")]
    };
    let bytes = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(unreadable(format!("it has {bytes} bytes, and {FILE_BYTES_MAX} is the most")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let plan: PlanFile = load::read_file(&Source::new(&file, &text))?;
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Version { name, file, text, plan })
}

/// Reads every version in `folder`.
///
/// # Errors
/// Every problem of every file.
pub fn read_plan(folder: &Path) -> Result<Plan, Vec<Problem>> {
    let shown = folder.display().to_string();
    let unreadable = |error: std::io::Error| {
        vec![Problem::of_file(&shown, format!("can't read the folder: {error}"), "correct the plan's `folder`")]
    };
    let (mut plan, mut problems) = (Plan::default(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            match read_version(&path) {
                Ok(version) => plan.versions.push(version),
                Err(found) => problems.extend(found),
            }
        }
    }
    if problems.is_empty() && (plan.versions.is_empty() || plan.versions.len() > VERSIONS_MAX) {
        let message = format!("the plan has {} versions, and 1 to {VERSIONS_MAX} are wanted", plan.versions.len());
        problems.push(Problem::of_file(
            &shown,
            message,
            "a version is a file such as 1.toml; `weir plan infer` proposes one",
        ));
    }
    plan.versions.sort_by_key(|version| natural(&version.name));
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

/// The plans of a pipeline's sources, by the sources' names.
pub fn read_all(pipeline: &Pipeline, problems: &mut Vec<Problem>) -> BTreeMap<String, Plan> {
    let mut plans = BTreeMap::new();
    for (name, source) in &pipeline.sources {
        let Some(of) = &source.plan else { continue };
        match read_plan(&of.folder) {
            Ok(plan) => {
                plans.insert(name.clone(), plan);
            }
            Err(found) => problems.extend(found),
        }
    }
    plans
}

/// Sorts versions as people count them: 1.9 before 1.10.
fn natural(name: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = rest.get(..digits).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        rest = rest.get(digits..).unwrap_or_default();
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        parts.push((number, rest.get(..text).unwrap_or_default().to_owned()));
        rest = rest.get(text..).unwrap_or_default();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_in_which_people_count() {
        let mut names = ["10", "2", "1.10", "1.9", "v3", "2-beta"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["v3", "1.9", "1.10", "2", "2-beta", "10"]);
    }
}
