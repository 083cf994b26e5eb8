//! Where a replay's records and schemas come from: the topics and the registry, the archive, or both.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;
use weir_archive::Archive;
use weir_pipeline::archive::archive_of;
use weir_pipeline::config::Pipeline;
use weir_pipeline::connect;
use weir_pipeline::engine::Inputs;
use weir_pipeline::error::Error;
use weir_pipeline::problem::Problem;
use weir_pipeline::recovery;
use weir_pipeline::source::kafka::KafkaLog;
use weir_pipeline::source::log::Log;
use weir_schemas::registry::{Registry, SchemaCache};

use super::archived::{ArchiveLog, ArchivedSchemas};
use super::record::ReadFrom;

/// An archive as it is read by a replay.
pub struct Reads {
    /// The log.
    pub log: Arc<ArchiveLog>,
    archive: Archive,
    registry: Option<Registry>,
}

/// What is read instead of the topics; `None` where those are.
///
/// # Errors
/// When the pipeline has no archive, or it can't be read.
pub fn of(reads: ReadFrom, pipeline: &Pipeline) -> Result<Option<Reads>, Error> {
    if reads == ReadFrom::Topic {
        return Ok(None);
    }
    let archive = archive_of(pipeline)?.ok_or_else(|| {
        Error::Config(vec![Problem::of_file(
            "the pipeline file",
            "there is no archive to read from",
            "add a section [archive], or leave the archive out with --source topic",
        )])
    })?;
    let (topics, registry): (Option<Arc<dyn Log>>, _) = match reads {
        ReadFrom::Both => (Some(Arc::new(KafkaLog::new(pipeline))), Some(connect::registry(pipeline)?)),
        ReadFrom::Topic | ReadFrom::Archive => (None, None),
    };
    let log = Arc::new(ArchiveLog::open(archive.clone(), topics)?);
    Ok(Some(Reads { log, archive, registry }))
}

impl Reads {
    /// Where schemas come from.
    pub fn schemas(&self) -> ArchivedSchemas {
        ArchivedSchemas::new(self.archive.clone(), self.registry.clone())
    }

    /// As a run takes them.
    pub fn inputs(&self, handle: &Handle) -> Inputs {
        Inputs { log: self.log.clone(), schemas: SchemaCache::new(self.schemas(), handle.clone()) }
    }
}

/// Gives each source the reader schema that the live state keeps as a file, so that no registry is asked for it. One that
/// refers to other schemas stays where it is.
///
/// # Errors
/// When the live state can't be read, or the file not be written.
pub fn keep_readers(live: &Pipeline, isolated: &mut Pipeline, file_of: impl Fn(&str) -> PathBuf) -> Result<(), Error> {
    let kept = recovery::kept_readers(&live.state)?;
    for (name, source) in isolated.sources.iter_mut().filter(|(_, source)| source.schema_file.is_none()) {
        let Some(reader) = kept.get(name).filter(|reader| reader.referenced.is_empty()) else { continue };
        if source.schema_version.is_some_and(|wanted| reader.version != Some(wanted)) {
            continue;
        }
        let file = file_of(&format!("{name}.avsc"));
        std::fs::write(&file, &reader.text).map_err(|error| Error::State {
            detail: format!("{}: {error}", file.display()),
            remedy: "see to the folder: space and rights".to_owned(),
        })?;
        (source.schema_file, source.schema_version) = (Some(file), None);
    }
    Ok(())
}
