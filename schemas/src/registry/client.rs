//! Calls to the registry, and what an answer means.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Client, ClientBuilder, Method, StatusCode};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_referenced_schema, get_schema_by_id, get_schema_by_subject_and_version, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{
    RawError, RegisteredReference, RegisteredSchema, SchemaType, SuppliedSchema,
};
use serde_json::Value;

use super::ParsedSchema;
use crate::avro::Schema;

/// Schemas that one schema may refer to, directly or not.
const REFERENCES_MAX: usize = 256;

/// How to reach a registry.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses such as `https://registry.example/apis/ccompat/v7`, tried in order; at least one.
    pub urls: Vec<String>,
    /// Who we are.
    pub credentials: Credentials,
    /// Certificates in PEM of authorities to trust beside the system's.
    pub authorities_pem: Option<Vec<u8>>,
    /// How long a call may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Settings {
    /// Settings for one address without credentials, with a timeout of 10 seconds.
    pub fn new(url: impl Into<String>) -> Settings {
        Settings { urls: vec![url.into()], credentials: Credentials::None, authorities_pem: None, timeout_ms: 10_000 }
    }
}

/// Who we are to the registry. `Debug` doesn't print secrets.
#[derive(Clone)]
pub enum Credentials {
    /// Nobody.
    None,
    /// A name and a password.
    Basic {
        /// The name, or the API key.
        user: String,
        /// The password, or the API secret.
        password: String,
    },
    /// A token.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::None => f.write_str("None"),
            Credentials::Basic { user, .. } => write!(f, "Basic({user})"),
            Credentials::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// What looking up a schema gave.
#[derive(Clone, Debug)]
pub enum Lookup<T> {
    /// It is there.
    Found(T),
    /// The registry answered that there is no such id, subject or version.
    Unknown,
    /// It is there, but isn't an Avro schema that Weir can parse; asking again won't change that.
    Unusable(String),
    /// The registry couldn't be asked, or failed; asking again may help.
    Unavailable(String),
    /// The registry doesn't let us: the credentials are wrong or their rights too few.
    Refused(String),
}

/// Why a call didn't succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The registry answered that there is no such id, subject or version.
    #[error("the registry knows no such schema or subject: {0}")]
    Unknown(String),
    /// The registry couldn't be asked, or failed; asking again may help.
    #[error("the schema registry can't be asked: {0}")]
    Unavailable(String),
    /// The credentials are wrong or their rights too few.
    #[error(
        "the schema registry refuses the credentials: {0}; check user, password or token in the pipeline file's [registry]"
    )]
    Refused(String),
    /// The registry takes the schema for incompatible with the subject's others.
    #[error("the registry takes the schema for incompatible with the subject's others: {0}")]
    Incompatible(String),
    /// The request itself is wrong, an invalid schema for one.
    #[error("the registry doesn't accept the request: {0}")]
    Invalid(String),
}

/// What a subject's new versions are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// Nothing: every compatibility check says yes.
    None,
    /// A new version reads what the last one wrote.
    Backward,
    /// A new version reads what any of the others wrote.
    BackwardTransitive,
    /// The last version reads what a new one writes.
    Forward,
    /// Any version reads what a new one writes.
    ForwardTransitive,
    /// Both ways, with the last version.
    Full,
    /// Both ways, with every version.
    FullTransitive,
}

/// Asks a registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    calls: SrSettings,
    client: Client,
    settings: Arc<Settings>,
}

impl Registry {
    /// A client with its own connections; nothing is asked yet.
    ///
    /// # Errors
    /// [`Failure::Invalid`] when there is no address, or a certificate can't be read.
    pub fn new(mut settings: Settings) -> Result<Registry, Failure> {
        let invalid = |error: &dyn fmt::Display| Failure::Invalid(error.to_string());
        for url in &mut settings.urls {
            url.truncate(url.trim_end_matches('/').len());
        }
        let Some((first, others)) = settings.urls.split_first() else {
            return Err(Failure::Invalid("the registry has no address".to_owned()));
        };
        let timeout = Duration::from_millis(settings.timeout_ms);
        let builder = || -> Result<ClientBuilder, Failure> {
            let mut builder = Client::builder().timeout(timeout).connect_timeout(timeout);
            if let Some(pem) = &settings.authorities_pem {
                let certificates = Certificate::from_pem_bundle(pem).map_err(|error| invalid(&error))?;
                builder = builder.tls_certs_merge(certificates);
            }
            Ok(builder)
        };
        let mut calls = SrSettings::new_builder(first.clone());
        for url in others {
            calls.add_url(url.clone());
        }
        match &settings.credentials {
            Credentials::None => {}
            Credentials::Basic { user, password } => {
                calls.set_basic_authorization(user, Some(password));
            }
            Credentials::Bearer(token) => {
                calls.set_token_authorization(token);
            }
        }
        calls.set_timeout(timeout);
        let calls = calls.build_with(builder()?).map_err(|error| invalid(&error))?;
        let client = builder()?.build().map_err(|error| invalid(&error))?;
        Ok(Registry { calls, client, settings: Arc::new(settings) })
    }

    /// How the registry is reached.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The schema of an id, the schemas that it refers to resolved.
    pub async fn by_id(&self, id: u32) -> Lookup<ParsedSchema> {
        self.parsed(get_schema_by_id(id, &self.calls).await).await
    }

    /// The newest version of a subject.
    pub async fn latest(&self, subject: &str) -> Lookup<ParsedSchema> {
        self.parsed(get_schema_by_subject_and_version(&self.calls, subject, None).await).await
    }

    /// The numbers of a subject's versions, deleted ones left out.
    ///
    /// # Errors
    /// [`Failure::Unknown`] when there is no such subject, and the others.
    pub async fn versions(&self, subject: &str) -> Result<Vec<u32>, Failure> {
        let path = format!("/subjects/{}/versions", escape(subject));
        let answer = self.call(&path, Method::GET, None).await?;
        serde_json::from_value(answer).map_err(|_| not_a_registry(&path))
    }

    /// The subjects that have the schema of an id, each with its version.
    ///
    /// # Errors
    /// [`Failure::Unknown`] when there is no such id, and the others.
    pub async fn versions_of(&self, id: u32) -> Result<Vec<(String, u32)>, Failure> {
        #[derive(serde::Deserialize)]
        struct Has {
            subject: String,
            version: u32,
        }
        let path = format!("/schemas/ids/{id}/versions");
        let answer = self.call(&path, Method::GET, None).await?;
        let has: Vec<Has> = serde_json::from_value(answer).map_err(|_| not_a_registry(&path))?;
        Ok(has.into_iter().map(|has| (has.subject, has.version)).collect())
    }

    /// One version of a subject.
    pub async fn version(&self, subject: &str, version: u32) -> Lookup<ParsedSchema> {
        self.parsed(get_schema_by_subject_and_version(&self.calls, subject, Some(version)).await).await
    }

    /// Registers an Avro schema and tells its id; one that is there already keeps its id.
    ///
    /// # Errors
    /// [`Failure::Incompatible`] when the subject's compatibility forbids it, and the others.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, Failure> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        post_schema(&self.calls, subject.to_owned(), supplied)
            .await
            .map(|schema| schema.id)
            .map_err(|error| failure(&error))
    }

    /// Whether the registry would take `schema` as the subject's next version. With [`Compatibility::None`] it takes
    /// everything: ask [`Registry::compatibility_of`] too.
    ///
    /// # Errors
    /// [`Failure::Unknown`] when the subject has no version yet and the registry says so, and the others.
    pub async fn is_compatible(&self, subject: &str, schema: &str) -> Result<bool, Failure> {
        let path = format!("/compatibility/subjects/{}/versions", escape(subject));
        let answer = self.call(&path, Method::POST, Some(&serde_json::json!({ "schema": schema }))).await?;
        answer.get("is_compatible").and_then(Value::as_bool).ok_or_else(|| not_a_registry(&path))
    }

    /// The compatibility that a subject's versions are held to: its own, or else the registry's default. Confluent's
    /// default is `BACKWARD`; other registries start with `NONE`.
    ///
    /// # Errors
    /// All but [`Failure::Incompatible`].
    pub async fn compatibility_of(&self, subject: &str) -> Result<Compatibility, Failure> {
        match self.config(&format!("/config/{}", escape(subject))).await {
            Err(Failure::Unknown(_)) => self.config("/config").await,
            other => other,
        }
    }

    /// Registers a schema whose subject is to be held to `level`, and tells its id. A level that somebody has set for the
    /// subject stays, save `NONE`: some registries answer so where nothing is set.
    ///
    /// # Errors
    /// As of [`Registry::register`].
    pub async fn register_held(&self, subject: &str, schema: &str, level: Compatibility) -> Result<u32, Failure> {
        let id = self.register(subject, schema).await?;
        let path = format!("/config/{}", escape(subject));
        match self.config(&path).await {
            Ok(Compatibility::None) | Err(Failure::Unknown(_)) => {}
            other => return other.map(|_| id),
        }
        let body = serde_json::json!({ "compatibility": level.name() });
        self.call(&path, Method::PUT, Some(&body)).await.map(|_| id)
    }

    async fn config(&self, path: &str) -> Result<Compatibility, Failure> {
        let answer = self.call(path, Method::GET, None).await?;
        let level = answer.get("compatibilityLevel").or_else(|| answer.get("compatibility"));
        level.and_then(Value::as_str).and_then(Compatibility::from_name).ok_or_else(|| not_a_registry(path))
    }

    /// A call that the crate doesn't have, or makes with a subject that isn't escaped: at each address in order, until
    /// one can be asked.
    async fn call(&self, path: &str, method: Method, body: Option<&Value>) -> Result<Value, Failure> {
        let mut last = Failure::Unavailable("the registry has no address".to_owned());
        for url in &self.settings.urls {
            match self.call_at(&format!("{url}{path}"), method.clone(), body).await {
                Err(Failure::Unavailable(why)) => last = Failure::Unavailable(why),
                other => return other,
            }
        }
        Err(last)
    }

    async fn call_at(&self, url: &str, method: Method, body: Option<&Value>) -> Result<Value, Failure> {
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            let kind = "application/vnd.schemaregistry.v1+json";
            request = request.header(CONTENT_TYPE, kind).body(body.to_string());
        }
        let request = match &self.settings.credentials {
            Credentials::None => request,
            Credentials::Basic { user, password } => request.basic_auth(user, Some(password)),
            Credentials::Bearer(token) => request.bearer_auth(token),
        };
        let unavailable = |error: reqwest::Error| Failure::Unavailable(causes(&error));
        let answer = request.send().await.map_err(unavailable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unavailable)?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let code = body.get("error_code").and_then(Value::as_u64).unwrap_or_default();
        let message = body.get("message").and_then(Value::as_str).unwrap_or_default();
        Err(classify(Some(status), code, format!("HTTP {status} {message}")))
    }

    async fn parsed(&self, found: Result<RegisteredSchema, SRCError>) -> Lookup<ParsedSchema> {
        let found = match found {
            Ok(found) => found,
            Err(error) => return failure(&error).into(),
        };
        if found.schema_type != SchemaType::Avro {
            return Lookup::Unusable(format!("schema {} is {:?}, not Avro", found.id, found.schema_type));
        }
        let referenced = match self.references(&found.references).await {
            Ok(referenced) => referenced,
            Err(Failure::Unknown(why)) => {
                return Lookup::Unavailable(format!("a schema that schema {} refers to isn't there: {why}", found.id));
            }
            Err(failure) => return failure.into(),
        };
        match Schema::parse_with(&found.schema, &referenced) {
            Ok(schema) => {
                Lookup::Found(ParsedSchema { id: found.id, schema: Arc::new(schema), text: found.schema, referenced })
            }
            Err(problems) => Lookup::Unusable(format!("schema {}: {problems}", found.id)),
        }
    }

    /// The texts that `roots` name, each behind those that it uses; each once, however often it is named.
    async fn references(&self, roots: &[RegisteredReference]) -> Result<Vec<String>, Failure> {
        enum Visit {
            Enter(RegisteredReference),
            Leave(String),
        }
        let mut seen: Vec<(String, u32)> = Vec::new();
        let mut texts = Vec::new();
        let mut stack: Vec<Visit> = roots.iter().rev().cloned().map(Visit::Enter).collect();
        while let Some(visit) = stack.pop() {
            let reference = match visit {
                Visit::Leave(text) => {
                    texts.push(text);
                    continue;
                }
                Visit::Enter(reference) => reference,
            };
            let name = (reference.subject.clone(), reference.version);
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            if seen.len() > REFERENCES_MAX {
                return Err(Failure::Invalid(format!("a schema refers to more than {REFERENCES_MAX} others")));
            }
            let found = get_referenced_schema(&self.calls, &reference).await.map_err(|error| failure(&error))?;
            stack.push(Visit::Leave(found.schema));
            stack.extend(found.references.into_iter().rev().map(Visit::Enter));
        }
        Ok(texts)
    }
}

impl<T> From<Failure> for Lookup<T> {
    fn from(failure: Failure) -> Lookup<T> {
        match failure {
            Failure::Unknown(_) => Lookup::Unknown,
            Failure::Unavailable(why) => Lookup::Unavailable(why),
            Failure::Refused(why) => Lookup::Refused(why),
            Failure::Incompatible(why) | Failure::Invalid(why) => Lookup::Unusable(why),
        }
    }
}

impl Compatibility {
    /// The registry's word for the level.
    pub fn name(self) -> &'static str {
        match self {
            Compatibility::None => "NONE",
            Compatibility::Backward => "BACKWARD",
            Compatibility::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Compatibility::Forward => "FORWARD",
            Compatibility::ForwardTransitive => "FORWARD_TRANSITIVE",
            Compatibility::Full => "FULL",
            Compatibility::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// The level of a registry's word.
    pub fn from_name(name: &str) -> Option<Compatibility> {
        Some(match name {
            "NONE" => Compatibility::None,
            "BACKWARD" => Compatibility::Backward,
            "BACKWARD_TRANSITIVE" => Compatibility::BackwardTransitive,
            "FORWARD" => Compatibility::Forward,
            "FORWARD_TRANSITIVE" => Compatibility::ForwardTransitive,
            "FULL" => Compatibility::Full,
            "FULL_TRANSITIVE" => Compatibility::FullTransitive,
            _ => return None,
        })
    }
}

fn not_a_registry(path: &str) -> Failure {
    Failure::Unavailable(format!("{path} was answered by something else; is the address a schema registry's?"))
}

/// What an error of the crate's means. It tells the HTTP status only in its text, so that is where it is read; a test
/// per status holds the crate to that.
fn failure(error: &SRCError) -> Failure {
    let raw = std::error::Error::source(error).and_then(|source| source.downcast_ref::<RawError>());
    let status = error
        .error
        .rsplit_once("failed with status ")
        .and_then(|(_, rest)| rest.split(' ').next().and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok()));
    let why = match raw {
        Some(raw) if raw.error_code != 0 => format!("{}: {} {}", error.error, raw.error_code, raw.message),
        _ => format!("{}: {}", error.error, std::error::Error::source(error).map_or(String::new(), causes)),
    };
    classify(status, raw.map_or(0, |raw| u64::from(raw.error_code)), why)
}

/// The one place that says which answers mean what. Only a registry's own code says something about a schema: a 400 or a
/// 404 without one comes from a wrong address or a proxy, and must not send records to quarantine. A registry's code is
/// the status itself or begins with it (409 and 40901, 422 and 42201).
fn classify(status: Option<StatusCode>, code: u64, why: String) -> Failure {
    let Some(status) = status.map(|status| status.as_u16()) else { return Failure::Unavailable(why) };
    let is_registrys = code == u64::from(status) || code / 100 == u64::from(status);
    match (status, code) {
        (404, 40_401..=40_408) => Failure::Unknown(why),
        (401 | 403, _) => Failure::Refused(why),
        (409, _) if is_registrys => Failure::Incompatible(why),
        (400 | 422, _) if is_registrys => Failure::Invalid(why),
        _ => Failure::Unavailable(why),
    }
}

/// An error with its causes: the innermost says what went wrong with the connection.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        told.push_str(": ");
        told.push_str(&cause.to_string());
        next = cause.source();
    }
    told
}

/// A subject as a part of a path.
fn escape(subject: &str) -> String {
    subject.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}
