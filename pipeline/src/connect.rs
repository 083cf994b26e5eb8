//! Connecting: the clients of Kafka, the registry and ClickHouse, made in one place and handed down.
//!
//! Not here: asking them anything beyond reader schemas; who owns a question asks it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::ClientConfig;
use weir_schemas::avro::ReaderSchema;
use weir_schemas::registry::{Credentials, Lookup, Registry, Settings};
use weir_sinks::clickhouse::{Client, Settings as ClickHouseSettings};

use crate::config::Pipeline;
use crate::error::Error;
use crate::problem::Problem;

/// The cluster's settings for any Kafka client.
pub fn kafka(pipeline: &Pipeline) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &pipeline.kafka.brokers).set("client.id", "weir");
    for (name, value) in &pipeline.kafka.settings {
        config.set(name, value);
    }
    config
}

/// A client of the schema registry. Nothing is asked yet.
///
/// # Errors
/// When its address, credentials or certificates can't be right.
pub fn registry(pipeline: &Pipeline) -> Result<Registry, Error> {
    let config = &pipeline.registry;
    let unreachable = |detail: String| Error::Unreachable {
        part: format!("registry at {}", config.url),
        detail,
        remedy: "correct the [registry] section".to_owned(),
    };
    let credentials = match (&config.user, &config.token) {
        (Some(_), Some(_)) => return Err(unreachable("both a user and a token are given".to_owned())),
        (Some(user), None) => {
            Credentials::Basic { user: user.clone(), password: config.password.clone().unwrap_or_default() }
        }
        (None, Some(token)) => Credentials::Bearer(token.clone()),
        (None, None) => Credentials::None,
    };
    let mut settings = Settings { credentials, ..Settings::new(&config.url) };
    if let Some(file) = &config.ca_file {
        let pem = std::fs::read(file).map_err(|error| unreachable(format!("{}: {error}", file.display())))?;
        settings.authorities_pem = Some(pem);
    }
    Registry::new(settings).map_err(|error| unreachable(error.to_string()))
}

/// A client of ClickHouse. Nothing is asked yet.
///
/// # Errors
/// When its address can't be right.
pub fn clickhouse(pipeline: &Pipeline) -> Result<Client, Error> {
    let config = &pipeline.clickhouse;
    let settings = ClickHouseSettings {
        url: config.url.clone(),
        database: config.database.clone(),
        user: config.user.clone(),
        password: config.password.clone(),
    };
    Ok(Client::new(&settings)?)
}

/// The sources' reader schemas: from their files, else the newest of their subjects, if a registry is given.
///
/// # Errors
/// Every schema that can't be had or used, by name.
pub async fn readers(
    pipeline: &Pipeline,
    registry: Option<&Registry>,
) -> Result<BTreeMap<String, Arc<ReaderSchema>>, Vec<Problem>> {
    let mut readers = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, source) in &pipeline.sources {
        let subject = subject_of(source);
        let (place, text) = match (&source.schema_file, registry) {
            (Some(file), _) => {
                let place = file.display().to_string();
                let text = std::fs::read_to_string(file).map_err(|error| {
                    let remedy = "correct `schema_file`: the path starts at the pipeline file's folder";
                    Problem::of_file(&place, format!("source `{name}`: {error}"), remedy)
                });
                (place, text)
            }
            (None, Some(registry)) => {
                let place = format!("subject {subject}");
                let text = newest(registry, name, &subject).await;
                (place, text)
            }
            (None, None) => {
                let remedy = "name a `schema_file`, or leave --offline out";
                let problem =
                    Problem::of_file(&subject, format!("source `{name}` takes its schema from the registry"), remedy);
                (subject, Err(problem))
            }
        };
        match text.map(|text| ReaderSchema::parse(&text)) {
            Ok(Ok(reader)) => {
                readers.insert(name.clone(), Arc::new(reader));
            }
            Ok(Err(found)) => problems.extend(found.0.iter().map(|problem| {
                Problem::of_file(
                    &place,
                    problem.to_string(),
                    "change the schema, or read these records with a smaller one",
                )
            })),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(readers) } else { Err(problems) }
}

/// The subject of a source's records.
pub fn subject_of(source: &crate::config::Source) -> String {
    match (&source.subject, source.topics.first()) {
        (Some(subject), _) => subject.clone(),
        (None, Some(topic)) => format!("{topic}-value"),
        (None, None) => String::new(),
    }
}

async fn newest(registry: &Registry, source: &str, subject: &str) -> Result<String, Problem> {
    let (message, remedy) = match registry.latest(subject).await {
        Lookup::Found(schema) => return Ok(schema.text),
        Lookup::Unknown => {
            ("the registry has no such subject".to_owned(), "register the schema, or name its file in `schema_file`")
        }
        Lookup::Unavailable(why) => (why, "check [registry], and that it is up"),
        Lookup::Refused(why) => (why, "check the credentials in [registry]"),
        Lookup::Unusable(why) => (why, "register a schema that Weir can read, or name its file in `schema_file`"),
    };
    Err(Problem::of_file(&format!("subject {subject}"), format!("source `{source}`: {message}"), remedy))
}
