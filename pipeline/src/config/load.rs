//! Reading a pipeline file: TOML in, a checked [`Pipeline`] or every problem out.
//!
//! `${NAME}` in any string is replaced from the environment, so that a secret never stands in the file. It
//! happens on values, not on text: a password may hold quotes.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml_edit::{Document, Item, TableLike};

use super::Pipeline;
use super::validate::validate;
use crate::problem::{Problem, nearest};

/// A pipeline file's text, for finding the place of a key.
pub struct Source<'a> {
    /// The file's name as it was given.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    document: Option<Document<String>>,
}

/// Reads and checks the pipeline file at `path`.
pub fn load(path: &Path) -> Result<Pipeline, Vec<Problem>> {
    load_with(path, &|name| std::env::var(name).ok())
}

/// The same, with secrets from elsewhere than the process's own environment.
///
/// # Errors
/// Every problem of the file.
pub fn load_with(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Pipeline, Vec<Problem>> {
    whole(look(path, environment))
}

/// The problems of the pipeline file at `path`, and what it says in spite of them: whoever looks for further ones goes on with
/// that, and nobody may run it. `None` where it can't be read as one at all.
pub fn load_with_problems(path: &Path) -> (Option<Pipeline>, Vec<Problem>) {
    look(path, &|name| std::env::var(name).ok())
}

fn whole((pipeline, problems): (Option<Pipeline>, Vec<Problem>)) -> Result<Pipeline, Vec<Problem>> {
    pipeline.filter(|_| problems.is_empty()).ok_or(problems)
}

fn look(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> (Option<Pipeline>, Vec<Problem>) {
    let file = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let what = format!("can't read the pipeline file: {error}");
            let remedy = "give the path of a pipeline file; `weir init` writes one to start from";
            return (None, vec![Problem::of_file(&file, what, remedy)]);
        }
    };
    let folder = std::path::absolute(path)
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf))
        .unwrap_or_else(|| PathBuf::from("."));
    read_in_spite(&file, &text, &folder, environment)
}

/// Reads a pipeline file's text; `folder` is where relative paths start, `environment` where secrets are.
pub fn read(
    file: &str,
    text: &str,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Pipeline, Vec<Problem>> {
    whole(read_in_spite(file, text, folder, environment))
}

fn read_in_spite(
    file: &str,
    text: &str,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> (Option<Pipeline>, Vec<Problem>) {
    let source = Source::new(file, text);
    let (known, mut problems) = without_unknown::<Pipeline>(&source);
    let Some(known) = known else { return (None, problems) };
    let mut table: toml::Table = match toml::from_str(&known) {
        Ok(table) => table,
        Err(error) => return (None, vec![from_toml(&source, text, &error)]),
    };
    for (key, value) in table.iter_mut() {
        substitute(&source, &mut vec![key.clone()], value, environment, &mut problems);
    }
    let mut pipeline: Pipeline = match table.try_into() {
        Ok(pipeline) => pipeline,
        Err(error) => {
            problems.push(from_toml(&source, text, &error));
            return (None, problems);
        }
    };
    make_absolute(&mut pipeline, folder);
    problems.extend(validate(&source, &pipeline));
    (Some(pipeline), problems)
}

/// Reads another TOML file of a pipeline's.
///
/// # Errors
/// Every unknown key, a wrong type, or wrong syntax, each at its place.
pub fn read_file<T: DeserializeOwned>(source: &Source<'_>) -> Result<T, Vec<Problem>> {
    let (_, problems) = without_unknown::<T>(source);
    if !problems.is_empty() {
        return Err(problems);
    }
    toml::from_str(source.text).map_err(|error| vec![from_toml(source, source.text, &error)])
}

impl<'a> Source<'a> {
    /// The text of `file`.
    pub fn new(file: &'a str, text: &'a str) -> Source<'a> {
        Source { file, text, document: text.parse::<Document<String>>().ok() }
    }

    /// A problem at the key of `path`, or at its nearest ancestor that stands in the file.
    pub fn problem(&self, path: &[&str], message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        match self.offset_of(path) {
            Some(offset) => Problem::at_offset(self.file, self.text, offset, message, remedy),
            None => Problem::of_file(self.file, message, remedy),
        }
    }

    /// Where the key of `path` stands; a number in it counts the entries of a list.
    fn offset_of(&self, path: &[&str]) -> Option<usize> {
        let document = self.document.as_ref()?;
        let (mut table, mut list): (&dyn TableLike, Option<&Item>) = (document.as_table(), None);
        let mut found = None;
        for name in path {
            if let Some((entry, span)) = list.take().and_then(|list| entry_of(list, name.parse().ok()?)) {
                found = span.map(|span| span.start).or(found);
                table = entry;
                continue;
            }
            let Some((key, next)) = table.get_key_value(name) else { break };
            found = key.span().map(|span| span.start).or(found);
            list = Some(next).filter(|next| next.is_array() || next.is_array_of_tables());
            match next.as_table_like() {
                Some(inner) => table = inner,
                None if list.is_some() => {}
                None => break,
            }
        }
        found
    }
}

/// An entry of a list of sections or of inline tables, and where it stands.
fn entry_of(list: &Item, at: usize) -> Option<(&dyn TableLike, Option<std::ops::Range<usize>>)> {
    if let Some(section) = list.as_array_of_tables().and_then(|tables| tables.get(at)) {
        return Some((section, section.span()));
    }
    let entry = list.as_array()?.get(at)?;
    Some((entry.as_inline_table()?, entry.span()))
}

/// Problems of form: syntax, unknown keys, wrong types. Unknown keys and sections are blanked out one after the other so
/// that all of them are found, and the text without them is given back; a wrong type or a missing key ends the search, as
/// what follows would be a guess.
fn without_unknown<T: DeserializeOwned>(source: &Source<'_>) -> (Option<String>, Vec<Problem>) {
    let mut text = source.text.to_owned();
    let mut problems: Vec<Problem> = Vec::new();
    loop {
        let Err(error) = toml::from_str::<T>(&text) else { return (Some(text), problems) };
        let problem = from_toml(source, &text, &error);
        // An unknown section that has sections of its own comes again, a header at a time.
        if !problems.iter().any(|known| known.message == problem.message && problem.message.starts_with("unknown")) {
            problems.push(problem);
        }
        let unknown = error.message().starts_with("unknown field");
        let Some(range) = error.span().filter(|_| unknown).and_then(|span| item_of_key(&text, span.start)) else {
            return (None, problems);
        };
        let blank: String = text[range.clone()].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        text.replace_range(range, &blank);
    }
}

/// The text range of what the key at `offset` names: `key = value`, or a section with its header up to the next one.
fn item_of_key(text: &str, offset: usize) -> Option<std::ops::Range<usize>> {
    fn search(item: &Item, offset: usize) -> Option<std::ops::Range<usize>> {
        if let Some(tables) = item.as_array_of_tables() {
            return tables.iter().find_map(|table| search_table(table, offset));
        }
        search_table(item.as_table_like()?, offset)
    }
    fn search_table(table: &dyn TableLike, offset: usize) -> Option<std::ops::Range<usize>> {
        table.iter().find_map(|(name, _)| {
            let (key, inner) = table.get_key_value(name)?;
            let is_it = key.span().is_some_and(|span| span.start == offset) && inner.is_value();
            if is_it { Some(offset..inner.span()?.end) } else { search(inner, offset) }
        })
    }
    let document = text.parse::<Document<String>>().ok()?;
    search(document.as_item(), offset).or_else(|| section_at(text, offset))
}

/// The text range of the section in whose header `offset` lies.
fn section_at(text: &str, offset: usize) -> Option<std::ops::Range<usize>> {
    let from = text.get(..offset)?.rfind('\n').map_or(0, |at| at + 1);
    if !text.get(from..)?.trim_start().starts_with('[') {
        return None;
    }
    let next = text.get(offset..)?.match_indices('\n').map(|(at, _)| offset + at + 1);
    let end = next.into_iter().find(|at| text[*at..].trim_start_matches([' ', '\t']).starts_with('['));
    Some(from..end.unwrap_or(text.len()))
}

/// Turns an error of the TOML reader into a problem; unknown keys get the nearest known one.
fn from_toml(source: &Source<'_>, text: &str, error: &toml::de::Error) -> Problem {
    let message = error.message();
    let (message, remedy) = match unknown_key(message) {
        Some(told) => told,
        None if message.starts_with("missing field") => {
            (message.replace("missing field", "missing key"), "add it; `weir init` writes a commented file".to_owned())
        }
        None => (message.to_owned(), "see `weir init` for a commented file".to_owned()),
    };
    match error.span() {
        Some(span) => {
            let mut problem = Problem::at_offset(source.file, text, span.start, message, remedy);
            // The line is shown as the person wrote it, not with other mistakes blanked out.
            problem.line = problem.at.and_then(|(line, _)| source.text.lines().nth(line - 1)).map(str::to_owned);
            problem
        }
        None => Problem::of_file(source.file, message, remedy),
    }
}

/// Message and remedy where serde says that a key is unknown.
pub fn unknown_key(message: &str) -> Option<(String, String)> {
    let mut names = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let written = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let remedy = match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("remove it; known here: {}", known.join(", ")),
    };
    Some((format!("unknown key `{written}`"), remedy))
}

/// Replaces `${NAME}` in every string below `value`.
fn substitute(
    source: &Source<'_>,
    path: &mut Vec<String>,
    value: &mut toml::Value,
    environment: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) {
    match value {
        toml::Value::String(text) => {
            let mut result = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once("${") {
                result.push_str(before);
                let Some((name, behind)) = after.split_once('}') else {
                    result.push_str("${");
                    rest = after;
                    continue;
                };
                match environment(name) {
                    Some(secret) => result.push_str(&secret),
                    None => problems.push(source.problem(
                        &path.iter().map(String::as_str).collect::<Vec<_>>(),
                        format!("the environment has no variable `{name}`"),
                        format!("export {name}=… before starting weir"),
                    )),
                }
                rest = behind;
            }
            result.push_str(rest);
            *text = result;
        }
        toml::Value::Array(items) => {
            for item in items {
                substitute(source, path, item, environment, problems);
            }
        }
        toml::Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                path.push(key.clone());
                substitute(source, path, value, environment, problems);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Relative paths start at the pipeline file's folder, wherever weir was started.
fn make_absolute(pipeline: &mut Pipeline, folder: &Path) {
    pipeline.state = folder.join(&pipeline.state);
    for file in [&mut pipeline.registry.ca_file, &mut pipeline.clickhouse.ca_file].into_iter().flatten() {
        *file = folder.join(&*file);
    }
    if let Some(archive) = pipeline.archive.as_mut().filter(|of| !of.url.contains("://") && !of.url.trim().is_empty()) {
        archive.url = folder.join(&archive.url).display().to_string();
    }
    if let Some(file) = &mut pipeline.lineage.file {
        *file = folder.join(&*file);
    }
    for source in pipeline.sources.values_mut() {
        if let Some(file) = &mut source.schema_file {
            *file = folder.join(&*file);
        }
        if let Some(plan) = &mut source.plan {
            plan.folder = folder.join(&plan.folder);
        }
    }
    for table in pipeline.quality.rules.values_mut().filter_map(|rule| rule.in_table.as_mut()) {
        table.file = folder.join(&table.file);
    }
    for view in pipeline.views.values_mut() {
        view.file = folder.join(&view.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "shop"
state = "state"
[kafka]
brokers = "127.0.0.1:9092"
[registry]
url = "http://127.0.0.1:8081"
password = "${SECRET}"
[clickhouse]
url = "http://127.0.0.1:8123"
[sources.events]
topics = ["events"]
event_time = "occurred_at"
"#;

    fn check(text: &str) -> Result<Pipeline, String> {
        read("p.toml", text, Path::new("/srv/shop"), &|name| (name == "SECRET").then(|| "a\"b".to_owned()))
            .map_err(|problems| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn secrets_come_from_the_environment_and_paths_from_the_files_folder() {
        let pipeline = check(GOOD).unwrap();
        assert_eq!(pipeline.registry.password.as_deref(), Some("a\"b"));
        assert_eq!(pipeline.state, Path::new("/srv/shop/state"));
        assert_eq!(pipeline.sources["events"].disorder_ms, 10_000);
    }

    #[test]
    fn every_unknown_key_is_reported_with_a_suggestion() {
        let text = GOOD
            .replace("state = \"state\"", "state = \"state\"\nworkes = 2")
            .replace("event_time = \"occurred_at\"", "event_time = \"occurred_at\"\nlateness = 5\nidle_after = 3");
        let message = check(&text).unwrap_err();
        assert!(message.contains("p.toml:4:1: unknown key `workes`"), "{message}");
        assert!(message.contains("did you mean `workers`?"), "{message}");
        assert!(message.contains("unknown key `lateness`"), "{message}");
        assert!(message.contains("unknown key `idle_after`"), "{message}");
        assert!(message.contains("did you mean `idle_after_ms`?"), "{message}");
    }

    #[test]
    fn an_unknown_key_hides_no_wrong_value() {
        let text = GOOD.replace("[sources.events]", "[sources.events]\nlateness = 5\ndisorder_ms = 999999999999");
        let message = check(&text.replace("\"events\"", "\"events\", \"events\"")).unwrap_err();
        assert!(message.contains("unknown key `lateness`"), "{message}");
        assert!(message.contains("`events` is read by source `events` already"), "{message}");
    }

    #[test]
    fn unknown_sections_and_keys_of_repeated_sections_hide_nothing_behind_them() {
        let more = "[kafak]\nx = 1\n[kafak.deep]\ny = 2\n[[alerts.routes]]\nto = []\nwehn = 1\n[sources.events.extra]\nz = 1\n\
                    [[alerts.routes]]\nto = []\nownr = 1\n";
        let message = check(&format!("{GOOD}{more}")).unwrap_err();
        for expected in ["`kafak`", "`wehn`", "`extra`", "`ownr`"] {
            assert_eq!(message.matches(&format!("unknown key {expected}")).count(), 1, "{expected}: {message}");
        }
    }

    #[test]
    fn a_topic_is_for_one_purpose() {
        for (more, expected) in [
            (
                "[sources.others]\ntopics = [\"events\"]\nevent_time = \"at\"\n",
                "`events` is read by source `events` already, and can't be read by source `others` as well",
            ),
            ("[quality]\nquarantine_topic = \"events\"\n", "`events` is read by source `events` already"),
            ("[alerts]\ntopic = \"events\"\n", "and can't be the topic of alerts as well"),
            (
                "[quality]\nquarantine_topic = \"bad\"\n[alerts]\ntopic = \"bad\"\n",
                "`bad` is the quarantine's topic already, and can't be the topic of alerts as well",
            ),
        ] {
            let message = check(&format!("{GOOD}{more}")).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let twice = check(&GOOD.replace("[\"events\"]", "[\"events\", \"events\"]")).unwrap_err();
        assert!(twice.contains("`events` is read by source `events` already"), "{twice}");
    }

    #[test]
    fn credentials_that_clash_and_certificates_that_cant_be_read_name_their_line() {
        let user_and_token = "password = \"${SECRET}\"\nuser = \"ada\"\ntoken = \"t\"\nca_file = \"absent.pem\"";
        let message = check(&GOOD.replace("password = \"${SECRET}\"", user_and_token)).unwrap_err();
        assert!(message.contains("p.toml:10:1: both a `user` and a `token`"), "{message}");
        assert!(message.contains("p.toml:11:1: /srv/shop/absent.pem: No such file"), "{message}");

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        let ca_file = format!("url = \"http://127.0.0.1:8123\"\nca_file = {:?}", file.path());
        let message = check(&GOOD.replace("url = \"http://127.0.0.1:8123\"", &ca_file)).unwrap_err();
        assert!(message.contains("p.toml:11:1: ") && message.contains("no certificate in it"), "{message}");
    }

    #[test]
    fn a_missing_secret_and_a_missing_key_name_their_place() {
        let message = check(&GOOD.replace("SECRET", "OTHER")).unwrap_err();
        assert!(message.contains("p.toml:8:1: the environment has no variable `OTHER`"), "{message}");
        let message = check(&GOOD.replace("brokers = \"127.0.0.1:9092\"", "")).unwrap_err();
        assert!(message.contains("missing key `brokers`"), "{message}");
    }
}
