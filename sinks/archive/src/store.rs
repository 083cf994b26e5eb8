//! The object store: a folder, or a bucket of S3, Google Cloud or Azure, behind the few calls that an archive makes.
//!
//! Each call blocks its thread; the network is served by two threads of its own, so that a call may be made wherever no
//! async code runs. A call is tried again for a few seconds at most.
//!
//! Credentials come from the environment, under the names that each cloud's own tools use, and from `options`.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, RetryConfig,
};
use url::Url;

use crate::crypto::OpenSsl;
use crate::error::Error;

/// Objects that are written at the same time.
const PUTS: usize = 8;

/// How long a call is tried again for.
const RETRY_WITHIN: Duration = Duration::from_secs(10);

/// Where an archive is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A folder's path, or `file://`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
    pub url: String,
    /// Options of the store by the names of `object_store`: `endpoint`, `allow_http`, `region`, ...
    pub options: BTreeMap<String, String>,
    /// The pipeline that it belongs to.
    pub pipeline: String,
    /// Whether a folder that isn't there is made. Only who writes makes one: a reader would find a mistyped or unmounted
    /// folder empty.
    pub makes_folder: bool,
}

/// An object, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, below the archive's address.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was written.
    pub written_at: DateTime<Utc>,
}

/// The store of an archive.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    runtime: Arc<Threads>,
    url: Arc<str>,
}

/// The threads that serve the network. Ended without waiting, since waiting is forbidden where async code runs.
struct Threads(Option<tokio::runtime::Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store {
    /// Opens the store of `settings`; nothing is asked yet, but whether a folder is there.
    ///
    /// # Errors
    /// [`Error::Settings`] when the address or an option can't be right.
    pub fn open(settings: &Settings) -> Result<Store, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("archive-io")
            .enable_all()
            .build()
            .map_err(|error| Error::Settings(format!("threads for the archive: {error}")))?;
        let inner =
            open(settings).map_err(|detail| Error::Settings(format!("archive at {}: {detail}", settings.url)))?;
        Ok(Store { inner, runtime: Arc::new(Threads(Some(runtime))), url: settings.url.as_str().into() })
    }

    /// This store with another one behind it.
    #[cfg(test)]
    pub(crate) fn over(&self, inner: Arc<dyn ObjectStore>) -> Store {
        Store { inner, ..self.clone() }
    }

    /// The archive's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn call<T>(&self, what: &str, name: &str, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, Error> {
        let failed = |detail: String| Error::Store {
            url: self.url.to_string(),
            what: format!("{what} {name}").trim_end().to_owned(),
            detail,
        };
        match &self.runtime.0 {
            Some(runtime) => runtime.block_on(work).map_err(|error| failed(causes(&error))),
            None => Err(failed("the archive is closed".to_owned())),
        }
    }

    /// Writes an object, whatever was there.
    ///
    /// # Errors
    /// [`Error::Store`]; it is then there as a whole or not at all.
    pub fn put(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        self.call("write", name, async { self.inner.put(&Path::from(name), bytes.into()).await.map(|_| ()) })
    }

    /// Writes some objects, a few at a time, whatever was there.
    ///
    /// # Errors
    /// [`Error::Store`]; each of them is then there as a whole or not at all.
    pub fn put_all(&self, objects: &[(String, Bytes)]) -> Result<(), Error> {
        let put = |(name, bytes): (String, Bytes)| async move {
            self.inner.put(&Path::from(name), bytes.into()).await.map(|_| ())
        };
        // Bytes are shared, not copied.
        let puts = stream::iter(objects.to_vec()).map(put).buffer_unordered(PUTS);
        self.call("write", "objects with records", puts.try_collect::<()>())
    }

    /// Writes an object unless there is one of that name, and tells whether it did.
    ///
    /// # Errors
    /// [`Error::Store`]; then nobody knows whether it is there.
    pub fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool, Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.call("write", name, async {
            match self.inner.put_opts(&Path::from(name), bytes.into(), options).await {
                Ok(_) => Ok(true),
                Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// Reads an object; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        self.call("read", name, async {
            match self.inner.get(&Path::from(name)).await {
                Ok(found) => found.bytes().await.map(Some),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Reads an object piece by piece; false when there is none of that name.
    ///
    /// # Errors
    /// [`Error::Store`], also when `each` fails.
    pub fn read(&self, name: &str, mut each: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<bool, Error> {
        let kept = |error| StoreError::Generic { store: "a temporary file", source: Box::new(error) };
        self.call("read", name, async {
            let mut pieces = match self.inner.get(&Path::from(name)).await {
                Ok(found) => found.into_stream(),
                Err(StoreError::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(error),
            };
            while let Some(piece) = pieces.try_next().await? {
                each(&piece).map_err(kept)?;
            }
            Ok(true)
        })
    }

    /// When an object was written; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn written_at(&self, name: &str) -> Result<Option<DateTime<Utc>>, Error> {
        self.call("look at", name, async {
            match self.inner.head(&Path::from(name)).await {
                Ok(meta) => Ok(Some(meta.last_modified)),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// The objects below a folder, or all, in the order of their names.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>, Error> {
        let prefix = (!folder.is_empty()).then(|| Path::from(folder));
        let mut listed: Vec<Listed> = self.call("list", folder, async {
            let of = |meta: object_store::ObjectMeta| Listed {
                name: meta.location.to_string(),
                bytes: meta.size,
                written_at: meta.last_modified,
            };
            self.inner.list(prefix.as_ref()).map_ok(of).try_collect().await
        })?;
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    /// Deletes an object; that it is gone already is fine.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn delete(&self, name: &str) -> Result<(), Error> {
        self.call("delete", name, async {
            match self.inner.delete(&Path::from(name)).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

/// An error with everything behind it, in one line; the stores' own texts hold no secrets.
fn causes(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut behind = std::error::Error::source(error);
    while let Some(cause) = behind {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        behind = cause.source();
    }
    text.replace('\n', " ")
}

fn open(settings: &Settings) -> Result<Arc<dyn ObjectStore>, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let Some((scheme, rest)) = settings.url.split_once("://") else {
        return folder(FilePath::new(&settings.url), settings);
    };
    if scheme == "file" {
        return folder(FilePath::new(rest), settings);
    }
    let url = Url::parse(&settings.url).map_err(|error| said(&error))?;
    let (kind, prefix) = ObjectStoreScheme::parse(&url).map_err(|error| said(&error))?;
    let retry = RetryConfig { max_retries: 4, retry_timeout: RETRY_WITHIN, ..RetryConfig::default() };
    let crypto = Arc::new(OpenSsl);
    let store: Arc<dyn ObjectStore> = match kind {
        ObjectStoreScheme::AmazonS3 => {
            let mut builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry).with_crypto_provider(crypto);
            for (name, value) in &settings.options {
                builder = builder.with_config(known::<AmazonS3ConfigKey>(name)?, value);
            }
            Arc::new(builder.build().map_err(|error| said(&error))?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env();
            let mut builder = builder.with_url(url).with_retry(retry).with_crypto_provider(crypto);
            for (name, value) in &settings.options {
                builder = builder.with_config(known::<GoogleConfigKey>(name)?, value);
            }
            Arc::new(builder.build().map_err(|error| said(&error))?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env();
            let mut builder = builder.with_url(url).with_retry(retry).with_crypto_provider(crypto);
            for (name, value) in &settings.options {
                builder = builder.with_config(known::<AzureConfigKey>(name)?, value);
            }
            Arc::new(builder.build().map_err(|error| said(&error))?)
        }
        _ => return Err(format!("`{scheme}://` is no store that Weir knows; write a folder, s3://, gs:// or az://")),
    };
    Ok(if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) })
}

fn known<K: std::str::FromStr>(name: &str) -> Result<K, String> {
    name.parse().map_err(|_| format!("`{name}` is no option of this store; object_store's names are taken"))
}

fn folder(path: &FilePath, settings: &Settings) -> Result<Arc<dyn ObjectStore>, String> {
    if let Some(name) = settings.options.keys().next() {
        return Err(format!("a folder has no option `{name}`"));
    }
    if settings.makes_folder {
        std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
    } else if !path.is_dir() {
        let detail = "there is no archive: check the path and that its disk is there; the first `weir run` makes it";
        return Err(detail.to_owned());
    }
    // A commit names objects, so that they must be on the disk before it is.
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?;
    Ok(Arc::new(store.with_fsync(true)))
}
