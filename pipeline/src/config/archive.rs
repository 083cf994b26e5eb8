//! The archive, as the pipeline file has it: where raw records are kept, for how long, and in what pieces.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Pipeline;
use super::load::Source;
use crate::problem::Problem;
use crate::problem::nearest;

/// The section `[archive]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// A folder, or `file://`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
    pub url: String,
    /// Options of the store by object_store's names (`endpoint`, `allow_http`, `region`, ...), instead of the environment's.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Days that records are kept, by their Kafka timestamps; absent, for ever.
    pub keep_days: Option<u32>,
    /// What differs for single topics.
    #[serde(default)]
    pub topics: BTreeMap<String, ArchivedTopic>,
    /// How long records wait for others at most, before they are written, in milliseconds.
    #[serde(default = "default_roll_ms")]
    pub roll_ms: u64,
    /// Bytes of records that wait at most. The archive's memory is about that, what is read ahead (32 MiB), and while objects
    /// are merged the new one, which has `merge_to_bytes` at most.
    #[serde(default = "default_roll_bytes")]
    pub roll_bytes: u64,
    /// The size that the objects of an hour are merged to, in bytes; 0, they are left as they are.
    #[serde(default = "default_merge_to_bytes")]
    pub merge_to_bytes: u64,
    /// How long an hour is over before its objects are merged, in milliseconds.
    #[serde(default = "default_merge_after_ms")]
    pub merge_after_ms: u64,
    /// How long objects that were replaced or have expired are left to those who are reading them, in milliseconds.
    #[serde(default = "default_delete_after_ms")]
    pub delete_after_ms: u64,
}

/// What differs for a topic.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedTopic {
    /// Days that its records are kept, by their Kafka timestamps.
    pub keep_days: Option<u32>,
}

impl Archive {
    /// Days that a topic's records are kept; absent, for ever.
    pub fn keep_days_of(&self, topic: &str) -> Option<u32> {
        self.topics.get(topic).and_then(|of| of.keep_days).or(self.keep_days)
    }
}

fn default_roll_ms() -> u64 {
    60_000
}
fn default_roll_bytes() -> u64 {
    64 << 20
}
fn default_merge_to_bytes() -> u64 {
    128 << 20
}
fn default_merge_after_ms() -> u64 {
    2 * 3_600_000
}
fn default_delete_after_ms() -> u64 {
    600_000
}

/// Every problem of the section.
pub(super) fn validate(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let Some(archive) = &pipeline.archive else { return };
    let mut between = |path: &[&str], value: u64, least: u64, most: u64| {
        if !(least..=most).contains(&value) {
            let remedy = format!("take a number from {least} to {most}");
            problems.push(source.problem(path, format!("`{}` is {value}", path.join(".")), remedy));
        }
    };
    between(&["archive", "roll_ms"], archive.roll_ms, 100, 86_400_000);
    between(&["archive", "roll_bytes"], archive.roll_bytes, 1 << 20, 1 << 30);
    if archive.merge_to_bytes != 0 {
        between(&["archive", "merge_to_bytes"], archive.merge_to_bytes, 1 << 10, 1 << 30);
    }
    between(&["archive", "merge_after_ms"], archive.merge_after_ms, 0, 366 * 86_400_000);
    between(&["archive", "delete_after_ms"], archive.delete_after_ms, 0, 366 * 86_400_000);
    if let Some(days) = archive.keep_days {
        between(&["archive", "keep_days"], u64::from(days), 1, 100_000);
    }
    let known: Vec<String> = pipeline.sources.values().flat_map(super::Source::all_topics).collect();
    for (topic, of) in &archive.topics {
        if let Some(days) = of.keep_days {
            between(&["archive", "topics", topic, "keep_days"], u64::from(days), 1, 100_000);
        }
    }
    for topic in archive.topics.keys().filter(|topic| !known.contains(topic)) {
        let remedy = match nearest(topic, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "name a topic that a source reads: those are archived".to_owned(),
        };
        problems.push(source.problem(&["archive", "topics", topic], format!("no source reads `{topic}`"), remedy));
    }
    let schemes = ["file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"];
    if let Some((scheme, rest)) = archive.url.split_once("://") {
        let mut wrong = |message: String, remedy: &str| {
            let mut problem = source.problem(&["archive", "url"], message, remedy);
            // The address may hold a secret by mistake, so its line isn't told.
            problem.line = None;
            problems.push(problem);
        };
        if !schemes.contains(&scheme) {
            let message = format!("`{scheme}://` is no store that Weir knows");
            wrong(message, "write a folder, file://, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix");
        } else if !scheme.starts_with("ab") && rest.contains('@') {
            wrong(
                "`archive.url` holds a user".to_owned(),
                "give credentials in the environment or in [archive.options]",
            );
        }
    } else if archive.url.trim().is_empty() {
        problems.push(source.problem(&["archive", "url"], "`archive.url` is empty", "name a folder or a bucket"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load::read;
    use crate::problem::Problem;

    fn check(section: &str) -> Result<super::Archive, String> {
        let text = format!(
            "name = \"shop\"\nstate = \"state\"\n[kafka]\nbrokers = \"b:1\"\n[registry]\nurl = \"http://r\"\n[clickhouse]\n\
             url = \"http://c\"\n[sources.events]\ntopics = [\"events\"]\nevent_time = \"at\"\n[archive]\n{section}"
        );
        let told = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
        let secret = |name: &str| (name == "KEY").then(|| "secret".to_owned());
        read("p.toml", &text, Path::new("/srv"), &secret).map_err(told)?.archive.ok_or_else(|| "none".to_owned())
    }

    #[test]
    fn a_folder_starts_at_the_file_and_a_bucket_has_options() {
        let fine = check("url = \"archive\"\nkeep_days = 400\n[archive.topics.events]\nkeep_days = 30").unwrap();
        assert_eq!(
            (fine.url.as_str(), fine.keep_days_of("events"), fine.keep_days_of("x")),
            ("/srv/archive", Some(30), Some(400))
        );
        let fine = check("url = \"s3://b/p\"\n[archive.options]\nsecret_access_key = \"${KEY}\"").unwrap();
        assert_eq!((fine.url.as_str(), fine.options["secret_access_key"].as_str()), ("s3://b/p", "secret"));
    }

    #[test]
    fn what_is_wrong_is_told_with_a_remedy() {
        for (section, expected) in [
            ("url = \"ftp://host\"", "`ftp://` is no store"),
            ("url = \"s3://me:pw@bucket\"", "`archive.url` holds a user"),
            ("url = \"\"", "`archive.url` is empty"),
            ("url = \"a\"\nroll_bytes = 5", "`archive.roll_bytes` is 5"),
            ("url = \"a\"\nkeep_day = 5", "did you mean `keep_days`?"),
            ("url = \"a\"\nkeep_days = 0", "`archive.keep_days` is 0"),
            ("url = \"a\"\n[archive.topics.event]\nkeep_days = 1", "did you mean `events`?"),
        ] {
            let told = check(section).unwrap_err();
            assert!(told.contains(expected) && !told.contains("pw"), "{told}");
        }
    }
}
