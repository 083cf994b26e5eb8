//! Reader schemas: which one each source reads with, and what its subject says of that.
//!
//! A source's reader schema is, in this order: the file in `schema_file`; the version in `schema_version`; the one that
//! the state was last run with; the subject's newest. So a version that somebody registers changes nothing by itself,
//! and people are told how to take it.
//!
//! Not here: whether a changed reader schema fits the state (`recovery`), and records whose schema it can't read, which
//! are refused one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_schemas::avro::{ReaderSchema, Schema, can_read};
use weir_schemas::registry::{Failure, Lookup, Registry};

use crate::config::{Pipeline, Source};
use crate::error::Error;
use crate::problem::Problem;
use crate::recovery;

/// How long the registry may take when it is asked beside reading.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// A reader schema as the state keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReader {
    /// Its text: Avro JSON.
    pub text: String,
    /// The texts of the schemas that it refers to, each behind those that it uses itself.
    #[serde(default)]
    pub referenced: Vec<String>,
    /// Its version in the subject; `None` where it came from a file.
    pub version: Option<u32>,
    /// Its id in the registry; `None` where it came from a file.
    pub id: Option<u32>,
}

/// The reader schemas of all sources, by name.
#[derive(Clone, Debug, Default)]
pub struct Readers {
    /// Parsed.
    pub schemas: BTreeMap<String, Arc<ReaderSchema>>,
    /// As the state shall keep them.
    pub kept: BTreeMap<String, KeptReader>,
}

/// What a subject says of a source's reader schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// That there is a newer version, and how to take it.
    pub newer: Option<String>,
    /// Each version whose records can't be read, and why.
    pub unreadable: Vec<String>,
}

/// The sources' reader schemas; without a registry, those for which none is needed.
///
/// # Errors
/// Every schema that can't be had or used, by name; a registry that can't be asked; a state that can't be read.
pub async fn choose(pipeline: &Pipeline, registry: Option<&Registry>) -> Result<Readers, Error> {
    let mut kept = recovery::kept_readers(&pipeline.state)?;
    let (mut readers, mut problems) = (Readers::default(), Vec::new());
    for (name, source) in &pipeline.sources {
        let place = place_of(source);
        let reader = match of_source(name, source, kept.remove(name), registry).await {
            Ok(reader) => reader,
            Err(Error::Config(found)) => {
                problems.extend(found);
                continue;
            }
            Err(error) => return Err(error),
        };
        match Schema::parse_with(&reader.text, &reader.referenced).and_then(ReaderSchema::new) {
            Ok(schema) => {
                readers.schemas.insert(name.clone(), Arc::new(schema));
                readers.kept.insert(name.clone(), reader);
            }
            Err(found) => problems.extend(found.0.iter().map(|problem| {
                let remedy = "change the schema, or read these records with a smaller one";
                Problem::of_file(&place, problem.to_string(), remedy)
            })),
        }
    }
    if problems.is_empty() { Ok(readers) } else { Err(Error::Config(problems)) }
}

/// The reader schema of one source.
async fn of_source(
    name: &str,
    source: &Source,
    kept: Option<KeptReader>,
    registry: Option<&Registry>,
) -> Result<KeptReader, Error> {
    let problem = |message: String, remedy: &str| {
        Error::Config(vec![Problem::of_file(&place_of(source), format!("source `{name}`: {message}"), remedy)])
    };
    if let Some(file) = &source.schema_file {
        let text = std::fs::read_to_string(file).map_err(|error| {
            problem(error.to_string(), "correct `schema_file`: the path starts at the pipeline file's folder")
        })?;
        return Ok(KeptReader { text, ..KeptReader::default() });
    }
    match kept {
        // A registry never changes what a version means.
        Some(kept) if source.schema_version.is_none_or(|wanted| kept.version == Some(wanted)) => return Ok(kept),
        _ => {}
    }
    let Some(registry) = registry else {
        return Err(problem(
            "it takes its schema from the registry".to_owned(),
            "name a `schema_file`, or leave --offline out",
        ));
    };
    let subject = subject_of(source);
    let versions = registry.versions(&subject).await.map_err(|failure| match failure {
        Failure::Unknown(_) => problem(
            "the registry has no such subject".to_owned(),
            "register the schema, or name its file in `schema_file`",
        ),
        other => unreachable_registry(registry, &other.to_string()),
    })?;
    let wanted = source.schema_version.or(versions.iter().max().copied());
    let Some(version) = wanted.filter(|wanted| versions.contains(wanted)) else {
        let there: Vec<String> = versions.iter().map(u32::to_string).collect();
        return Err(problem(
            "the subject has no version such as `schema_version` names".to_owned(),
            &format!("name one of {}", there.join(", ")),
        ));
    };
    match registry.version(&subject, version).await {
        Lookup::Found(schema) => Ok(KeptReader {
            text: schema.text,
            referenced: schema.referenced,
            version: Some(version),
            id: Some(schema.id),
        }),
        Lookup::Unknown => Err(problem(format!("version {version} was just deleted"), "start again")),
        Lookup::Unusable(why) => Err(problem(
            format!("version {version}: {why}"),
            "register a schema that Weir can read, or name its file in `schema_file`",
        )),
        Lookup::Unavailable(why) | Lookup::Refused(why) => Err(unreachable_registry(registry, &why)),
    }
}

/// Compares a source's reader schema with every version that its subject has: records of each may still be in the topic.
/// A subject that doesn't exist says nothing.
///
/// # Errors
/// When the registry can't be asked.
pub async fn compare(
    name: &str,
    source: &Source,
    schema: &ReaderSchema,
    kept: &KeptReader,
    registry: &Registry,
) -> Result<Findings, Error> {
    let subject = subject_of(source);
    let versions = match registry.versions(&subject).await {
        Ok(versions) => versions,
        Err(Failure::Unknown(_)) => return Ok(Findings::default()),
        Err(failure) => return Err(unreachable_registry(registry, &failure.to_string())),
    };
    let mut findings = Findings { newer: newer(name, &subject, kept, &versions), unreadable: Vec::new() };
    for version in versions {
        let why = match registry.version(&subject, version).await {
            Lookup::Found(writer) => match can_read(schema.schema(), &writer.schema) {
                Ok(()) => continue,
                Err(found) => {
                    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
                    format!(" (schema id {}): {}", writer.id, told.join("; "))
                }
            },
            Lookup::Unusable(why) => format!(": {why}"),
            Lookup::Unknown => continue,
            Lookup::Unavailable(why) | Lookup::Refused(why) => return Err(unreachable_registry(registry, &why)),
        };
        let what = format!("source `{name}` can't read version {version} of the subject {subject}");
        findings.unreadable.push(format!("{what}{why}"));
    }
    Ok(findings)
}

/// What is to be said of a newer version now; nothing while the registry can't be asked.
pub async fn look_for_newer(name: &str, subject: &str, kept: &KeptReader, registry: &Registry) -> Option<String> {
    kept.version?;
    let versions = tokio::time::timeout(ANSWER_WITHIN, registry.versions(subject)).await.ok()?.ok()?;
    newer(name, subject, kept, &versions)
}

fn newer(name: &str, subject: &str, kept: &KeptReader, versions: &[u32]) -> Option<String> {
    let (current, newest) = (kept.version?, *versions.iter().max()?);
    (newest > current).then(|| {
        format!(
            "source `{name}` reads with version {current} of the subject {subject}, and version {newest} is there: \
             `schema_version = {newest}` takes it at the next start"
        )
    })
}

/// The subject of a source's records.
pub fn subject_of(source: &Source) -> String {
    match (&source.subject, source.topics.first()) {
        (Some(subject), _) => subject.clone(),
        (None, Some(topic)) => format!("{topic}-value"),
        (None, None) => String::new(),
    }
}

/// Where a source's reader schema stands, for people.
fn place_of(source: &Source) -> String {
    match &source.schema_file {
        Some(file) => file.display().to_string(),
        None => format!("subject {}", subject_of(source)),
    }
}

fn unreachable_registry(registry: &Registry, detail: &str) -> Error {
    Error::Unreachable {
        part: format!("registry at {}", registry.settings().urls.join(", ")),
        detail: detail.to_owned(),
        remedy: "check [registry] and its credentials, and that it is up".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_that_came_later_is_newer_and_a_file_has_no_age() {
        let kept = |version| KeptReader { version, ..KeptReader::default() };
        assert_eq!(newer("e", "s", &kept(Some(3)), &[1, 2, 3]), None);
        assert_eq!(newer("e", "s", &kept(None), &[1, 2, 3]), None);
        let told = newer("e", "s", &kept(Some(2)), &[2, 5, 3]).expect("a newer one");
        assert!(told.contains("version 2 of the subject s") && told.contains("`schema_version = 5`"), "{told}");
    }
}
