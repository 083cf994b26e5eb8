//! `weir archive`: what is in the archive, whether it is whole, and its records back into a topic.

mod compact;
mod list;
mod restore;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use weir_archive::{Archive as Store, Catalog};
use weir_pipeline::archive::archive_of;
use weir_pipeline::config::load::load;
use weir_pipeline::config::{Pipeline, archive};
use weir_pipeline::error::Error;

use crate::Outcome;
pub(crate) use list::retention;

/// Arguments of `weir archive`.
#[derive(Debug, Subcommand)]
pub(crate) enum Archive {
    /// What is in it, by topic, day and hour; gaps; how long records are kept where.
    #[command(
        after_help = "Examples:\n  weir archive list shop/pipeline.toml\n  weir archive list shop/pipeline.toml --topic events --json\n  weir archive list shop/pipeline.toml --objects"
    )]
    List(List),
    /// Read all of it: every object there and unaltered, every record once. Exit code 5 when not.
    #[command(after_help = "Example:\n  weir archive verify shop/pipeline.toml")]
    Verify {
        /// The pipeline file.
        file: PathBuf,
    },
    /// Write a topic's records back into a topic, byte for byte. Given again after a stop or a kill, it goes on.
    #[command(
        after_help = "Examples:\n  weir archive restore shop/pipeline.toml --topic events --to events-restored\n  weir archive restore shop/pipeline.toml --topic events --to events --append"
    )]
    Restore(Restore),
    /// Merge small objects, let go of old ones and delete what isn't needed, as `weir run` does by itself.
    ///
    /// Exit code 5 when an object is damaged: it isn't merged, all else is.
    #[command(after_help = "Example:\n  weir archive compact shop/pipeline.toml")]
    Compact {
        /// The pipeline file.
        file: PathBuf,
    },
}

/// Arguments of `weir archive list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The pipeline file.
    pub file: PathBuf,
    /// Only this topic.
    #[arg(long)]
    pub topic: Option<String>,
    /// The objects that count, one a line, instead of sums.
    #[arg(long)]
    pub objects: bool,
    /// One JSON object per line: an hour, or with --objects an object as the manifest has it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `weir archive restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The pipeline file.
    pub file: PathBuf,
    /// The topic that was archived.
    #[arg(long)]
    pub topic: String,
    /// The topic to write to; made if it isn't there.
    #[arg(long, value_name = "TOPIC")]
    pub to: String,
    /// Write behind what the topic holds already.
    #[arg(long)]
    pub append: bool,
}

/// Runs `weir archive`.
pub(crate) fn run(archive: &Archive) -> Outcome {
    let outcome = match archive {
        Archive::List(list) => list::run(list),
        Archive::Verify { file } => verify::run(file),
        Archive::Restore(restore) => restore::run(restore),
        Archive::Compact { file } => compact::run(file),
    };
    outcome.unwrap_or_else(|outcome| outcome)
}

/// A pipeline file, and what is in its archive.
struct Shelf {
    pipeline: Pipeline,
    config: archive::Archive,
    archive: Store,
    catalog: Catalog,
}

impl Shelf {
    fn open(file: &Path) -> Result<Shelf, Outcome> {
        let pipeline = load(file).map_err(|problems| Outcome::problems(&problems))?;
        let none = || {
            let remedy = "add a section [archive] with url = \"archive\", or an address such as s3://bucket/prefix";
            Outcome::refused(format!("{} has no archive", file.display()), remedy)
        };
        let archive = archive_of(&pipeline).map_err(|error| Outcome::of_error(&error))?.ok_or_else(none)?;
        let config = pipeline.archive.clone().ok_or_else(none)?;
        let catalog = archive.catalog().map_err(of_archive)?;
        Ok(Shelf { pipeline, config, archive, catalog })
    }
}

fn of_archive(error: weir_archive::Error) -> Outcome {
    Outcome::of_error(&Error::from(error))
}

/// Refuses a topic that the archive doesn't have.
fn hold_to_topics(catalog: &Catalog, topic: &str) -> Result<(), Outcome> {
    if catalog.topics.contains_key(topic) {
        return Ok(());
    }
    let remedy = match catalog.topics.keys().cloned().collect::<Vec<_>>().join(", ") {
        known if known.is_empty() => "nothing is archived yet; `weir run` does it".to_owned(),
        known => format!("name one of {known}"),
    };
    Err(Outcome::refused(format!("the archive has no topic {topic}"), remedy))
}
