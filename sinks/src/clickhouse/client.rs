//! The one client of ClickHouse: the official crate over a connection of ours.
//!
//! The crate's own connector leaves Nagle's algorithm on, which costs 40 ms on every small insert; ours sets
//! `TCP_NODELAY` and bounds how long a connection may take.

use std::time::Duration;

use clickhouse::insert_formatted::InsertFormatted;
use hyper_tls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use native_tls::{Certificate, TlsConnector};
use serde::de::DeserializeOwned;

use super::{classify::classify, identifier, lines::Splitter, literal};
use crate::error::{DeliveryError, Error};

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may lie idle: less than the 3 seconds after which older servers hang up.
const IDLE_AT_MOST: Duration = Duration::from_secs(2);
/// How often the system probes a silent connection.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long one piece of an insert may wait for the socket.
const SEND_WITHIN: Duration = Duration::from_secs(30);
/// How long a statement, or the end of an insert, may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// Where ClickHouse is, and as whom to speak.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The HTTP address: `http://` or `https://`, host and port.
    pub url: String,
    /// Weir's database.
    pub database: String,
    /// The user; absent, the server's default.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// Certificates in PEM of authorities to trust beside the system's.
    pub authorities_pem: Option<Vec<u8>>,
}

/// A connection pool to one database.
#[derive(Clone)]
pub struct Client {
    /// Names no database, so that it can make one.
    server: clickhouse::Client,
    database: String,
}

impl Client {
    /// A client for `settings`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Setting`] when the address or the database's name cannot be right.
    pub fn new(settings: &Settings) -> Result<Client, Error> {
        check_url(&settings.url)?;
        if settings.database.is_empty() {
            return Err(setting("clickhouse.database", "is empty: name a database, such as weir"));
        }
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_keepalive(Some(KEEPALIVE));
        http.set_connect_timeout(Some(CONNECT_WITHIN));
        http.enforce_http(false);
        let pool = HyperClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_AT_MOST)
            .build(HttpsConnector::from((http, tls(settings)?.into())));
        let mut server = clickhouse::Client::with_http_client(pool)
            .with_url(&settings.url)
            .with_product_info("weir", env!("CARGO_PKG_VERSION"))
            // Rows that were acknowledged have to be there, whatever the user's profile says.
            .with_setting("async_insert", "0");
        if let Some(user) = &settings.user {
            server = server.with_user(user);
        }
        if let Some(password) = &settings.password {
            server = server.with_password(password);
        }
        Ok(Client { server, database: settings.database.clone() })
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The same server, another database.
    pub fn in_database(&self, database: &str) -> Client {
        Client { server: self.server.clone(), database: database.to_owned() }
    }

    /// A table or view of the database, as SQL writes it.
    pub fn qualified(&self, name: &str) -> String {
        format!("{}.{}", identifier(&self.database), identifier(name))
    }

    /// Makes the database if it isn't there.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn create_database(&self) -> Result<(), DeliveryError> {
        #[derive(serde::Deserialize)]
        struct Found {}
        // Asked first, because a user may have rights on a database without the right to make one.
        let ask = format!("SELECT name FROM system.databases WHERE name = {}", literal(&self.database));
        if self.select::<Found>(&ask).await?.is_empty() {
            self.execute(&format!("CREATE DATABASE IF NOT EXISTS {}", identifier(&self.database))).await?;
        }
        Ok(())
    }

    /// Whether the database has a table or view of this name.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn has_table(&self, name: &str) -> Result<bool, DeliveryError> {
        #[derive(serde::Deserialize)]
        struct Found {}
        let (database, name) = (literal(&self.database), literal(name));
        let ask = format!("SELECT name FROM system.tables WHERE database = {database} AND name = {name}");
        Ok(!self.select::<Found>(&ask).await?.is_empty())
    }

    /// Removes the database with everything in it.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn drop_database(&self) -> Result<(), DeliveryError> {
        self.execute(&format!("DROP DATABASE IF EXISTS {} SYNC", identifier(&self.database))).await
    }

    /// Runs a statement without a result. Names in it have to be qualified.
    ///
    /// # Errors
    /// What ClickHouse says, or that it takes too long.
    pub async fn execute(&self, sql: &str) -> Result<(), DeliveryError> {
        within(self.server.query_raw(sql).execute()).await
    }

    /// Runs a small query and reads its rows as JSON objects.
    ///
    /// # Errors
    /// What ClickHouse says, that it takes too long, or that the rows are not those asked for.
    pub async fn select<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, DeliveryError> {
        let bytes = within(async { self.server.query_raw(sql).fetch_bytes("JSONEachRow")?.collect().await }).await?;
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(serde_json::from_slice)
            .collect::<Result<_, _>>()
            .map_err(|error| DeliveryError::Retriable { why: format!("ClickHouse answered something else: {error}") })
    }

    /// Runs a query whose rows are read line by line as they come, in a format of one line per row. Names in it are
    /// looked up in the client's database, so that a view's own text can be run.
    ///
    /// # Errors
    /// What ClickHouse says at once; what it says later comes with the lines.
    pub fn lines(&self, sql: &str, format: &str) -> Result<Lines, DeliveryError> {
        let cursor = self.reading().query_raw(sql).fetch_bytes(format).map_err(|error| classify(&error))?;
        Ok(Lines { cursor, lines: Splitter::default() })
    }

    /// The official client, which looks names up in this database.
    pub(super) fn reading(&self) -> clickhouse::Client {
        self.server.clone().with_database(&self.database)
    }

    /// Begins `INSERT ... FORMAT ...`; what is sent is compressed with LZ4.
    pub(crate) fn insert(&self, sql: String) -> InsertFormatted {
        self.server
            .insert_formatted_with(sql)
            // Replaying years of history touches more months at once than the default allows.
            .with_setting("max_partitions_per_insert_block", "0")
            .with_timeouts(Some(SEND_WITHIN), Some(ANSWER_WITHIN))
    }
}

/// The lines of an answer, read as they come.
pub struct Lines {
    cursor: clickhouse::query::BytesCursor,
    lines: Splitter,
}

impl Lines {
    /// The next line without its end; `None` after the last.
    ///
    /// # Errors
    /// What ClickHouse says, even in the middle of the answer, or that it takes too long.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, DeliveryError> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            match within(self.cursor.next()).await? {
                Some(bytes) => self.lines.push(&bytes),
                None => return Ok(self.lines.rest()),
            }
        }
    }
}

async fn within<T>(answer: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, DeliveryError> {
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer.map_err(|error| classify(&error)),
        Err(_) => Err(DeliveryError::Retriable {
            why: format!("ClickHouse: no answer within {} seconds", ANSWER_WITHIN.as_secs()),
        }),
    }
}

/// TLS that trusts the system's authorities and those of `settings`.
fn tls(settings: &Settings) -> Result<TlsConnector, Error> {
    let refused = |error: native_tls::Error| setting("clickhouse.ca_file", error.to_string());
    let mut builder = TlsConnector::builder();
    if let Some(pem) = &settings.authorities_pem {
        let authorities = Certificate::stack_from_pem(pem).map_err(refused)?;
        if authorities.is_empty() {
            return Err(setting("clickhouse.ca_file", "holds no certificate: give a file in PEM"));
        }
        for authority in authorities {
            builder.add_root_certificate(authority);
        }
    }
    builder.build().map_err(refused)
}

fn setting(name: &str, detail: impl Into<String>) -> Error {
    Error::Setting { setting: name.to_owned(), detail: detail.into() }
}

fn check_url(url: &str) -> Result<(), Error> {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return Err(setting(
            "clickhouse.url",
            format!("{url} is no HTTP address: write http://host:8123 or https://host:8443"),
        ));
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(setting("clickhouse.url", format!("{url} names no host: write http://host:8123")));
    }
    if authority.contains('@') {
        return Err(setting("clickhouse.url", "has a user in it: use clickhouse.user and clickhouse.password"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str, database: &str) -> Result<Client, Error> {
        Client::new(&Settings {
            url: url.to_owned(),
            database: database.to_owned(),
            user: None,
            password: None,
            authorities_pem: None,
        })
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        for (url, database, expected) in [
            ("localhost:8123", "weir", "clickhouse.url: localhost:8123 is no HTTP address"),
            ("http://", "weir", "clickhouse.url: http:// names no host"),
            ("http://me:secret@host:8123", "weir", "clickhouse.url: has a user in it"),
            ("http://host:8123", "", "clickhouse.database: is empty"),
        ] {
            let error = client(url, database).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains("secret"));
        }
    }

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        let client = client("http://host:8123", "we`ir").expect("a good address");
        assert_eq!(client.qualified("a.b"), "`we\\`ir`.`a.b`");
    }
}
