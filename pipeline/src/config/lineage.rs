//! Lineage, as the pipeline file has it: how long it is known what epochs took, and who is told as OpenLineage events.

use std::path::PathBuf;

use serde::Deserialize;

use super::Pipeline;
use super::load::Source;
use crate::problem::Problem;

/// The section `[lineage]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Days that `weir_epochs` is kept, which `weir explain row` needs.
    #[serde(default = "default_keep_epochs_days")]
    pub keep_epochs_days: u32,
    /// The address of an OpenLineage receiver, without `/api/v1/lineage`.
    pub url: Option<String>,
    /// Its bearer token.
    pub token: Option<String>,
    /// A topic of OpenLineage events, key = the job's name.
    pub topic: Option<String>,
    /// A file that they are appended to, a line each.
    pub file: Option<PathBuf>,
    /// The namespace of this pipeline's jobs.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Milliseconds between two events of a job while it runs.
    #[serde(default = "default_every_ms")]
    pub every_ms: u64,
}

impl Default for Lineage {
    fn default() -> Lineage {
        Lineage {
            keep_epochs_days: default_keep_epochs_days(),
            url: None,
            token: None,
            topic: None,
            file: None,
            namespace: default_namespace(),
            every_ms: default_every_ms(),
        }
    }
}

fn default_keep_epochs_days() -> u32 {
    90
}

fn default_namespace() -> String {
    "weir".to_owned()
}

fn default_every_ms() -> u64 {
    60_000
}

/// Every problem of the section.
pub(super) fn validate(source: &Source<'_>, pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let lineage = &pipeline.lineage;
    let mut wrong = |key: &str, message: String, remedy: &str| {
        let mut problem = source.problem(&["lineage", key], message, remedy);
        if key == "url" {
            // The address may hold a secret by mistake, so its line isn't told.
            problem.line = None;
        }
        problems.push(problem);
    };
    if !(1..=10_000).contains(&lineage.keep_epochs_days) {
        let message = format!("`lineage.keep_epochs_days` is {}", lineage.keep_epochs_days);
        wrong("keep_epochs_days", message, "take a number from 1 to 10000");
    }
    if !(100..=86_400_000).contains(&lineage.every_ms) {
        let message = format!("`lineage.every_ms` is {}", lineage.every_ms);
        wrong("every_ms", message, "take a number from 100 to 86400000");
    }
    if lineage.namespace.trim().is_empty() {
        wrong("namespace", "`lineage.namespace` is empty".to_owned(), "name it, such as weir, or leave it out");
    }
    if let Some(url) = &lineage.url {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if rest.is_none_or(|rest| rest.trim_start_matches('/').is_empty()) {
            let message = format!("the {} characters of `lineage.url` are no HTTP address", url.chars().count());
            wrong("url", message, "write http://host:port or https://host");
        } else if rest.is_some_and(|rest| rest.split('/').next().unwrap_or_default().contains('@')) {
            let remedy = "leave it out, and give a bearer token as token = \"${NAME}\"";
            wrong("url", "`lineage.url` holds a user".to_owned(), remedy);
        }
    }
    if lineage.token.is_some() && lineage.url.is_none() {
        wrong("token", "`lineage.token` is for `lineage.url`, which isn't there".to_owned(), "add the address");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load::read;
    use crate::problem::Problem;

    fn check(section: &str) -> Result<super::Lineage, String> {
        let text = format!(
            "name = \"shop\"\nstate = \"state\"\n[kafka]\nbrokers = \"b:1\"\n[registry]\nurl = \"http://r\"\n[clickhouse]\n\
             url = \"http://c\"\n[sources.events]\ntopics = [\"events\"]\nevent_time = \"at\"\n[lineage]\n{section}"
        );
        let token = |name: &str| (name == "TOKEN").then(|| "secret".to_owned());
        let told = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
        read("p.toml", &text, Path::new("/srv"), &token).map(|pipeline| pipeline.lineage).map_err(told)
    }

    #[test]
    fn targets_are_read_and_what_is_wrong_is_told_without_secrets() {
        let fine =
            check("url = \"https://host\"\ntoken = \"${TOKEN}\"\nfile = \"x.jsonl\"\ntopic = \"lineage\"").unwrap();
        assert_eq!((fine.token.as_deref(), fine.file.as_deref()), (Some("secret"), Some(Path::new("/srv/x.jsonl"))));
        assert_eq!((fine.namespace.as_str(), fine.every_ms), ("weir", 60_000));
        for (section, expected) in [
            ("url = \"host:80\"", "no HTTP address"),
            ("url = \"http://me:pw@host\"", "`lineage.url` holds a user"),
            ("token = \"x\"", "`lineage.token` is for `lineage.url`"),
            ("every_ms = 5", "`lineage.every_ms` is 5"),
            ("namespace = \" \"", "`lineage.namespace` is empty"),
            ("topic = \"events\"", "`events` is read by source `events` already"),
            ("keep_epochs_days = 0", "`lineage.keep_epochs_days` is 0"),
        ] {
            let told = check(section).unwrap_err();
            assert!(told.contains(expected) && told.contains("p.toml:13:1") && !told.contains("pw"), "{told}");
        }
    }
}
