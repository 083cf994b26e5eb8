//! Connecting: the clients of Kafka, the registry and ClickHouse, made in one place and handed down.
//!
//! Not here: asking them anything; who owns a question asks it.

use rdkafka::ClientConfig;
use weir_schemas::registry::{Credentials, Registry, Settings};
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::{Client, Settings as ClickHouseSettings};

use crate::config::Pipeline;
use crate::error::Error;

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
/// When its address or its certificates can't be right.
pub fn clickhouse(pipeline: &Pipeline) -> Result<Client, Error> {
    let config = &pipeline.clickhouse;
    let authorities_pem = match &config.ca_file {
        Some(file) => Some(std::fs::read(file).map_err(|error| Error::Unreachable {
            part: format!("clickhouse at {}", config.url),
            detail: format!("{}: {error}", file.display()),
            remedy: "correct `clickhouse.ca_file`".to_owned(),
        })?),
        None => None,
    };
    let settings = ClickHouseSettings {
        url: config.url.clone(),
        database: config.database.clone(),
        user: config.user.clone(),
        password: config.password.clone(),
        authorities_pem,
    };
    Ok(Client::new(&settings)?)
}

/// What an error of the first statements means, which are sent once: nobody waits for a ClickHouse at start.
pub fn first_contact(pipeline: &Pipeline, error: weir_sinks::Error) -> Error {
    match error {
        weir_sinks::Error::Delivery(DeliveryError::Retriable { why }) => Error::Unreachable {
            part: format!("clickhouse at {}", pipeline.clickhouse.url),
            detail: why,
            remedy: "check `clickhouse.url` and `clickhouse.ca_file`, and that the server is up".to_owned(),
        },
        other => other.into(),
    }
}
