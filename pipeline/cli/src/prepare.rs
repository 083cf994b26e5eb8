//! What several commands do first: connect, get the schemas, bind the pipeline file to them.

use std::path::Path;

use weir_pipeline::bind::{Bound, bind};
use weir_pipeline::config::Pipeline;
use weir_pipeline::{connect, readers};
use weir_sinks::clickhouse::Client;

use crate::{Outcome, runtime};

/// A pipeline file, bound, with a client of its ClickHouse.
pub(crate) struct Prepared {
    /// The plans.
    pub bound: Bound,
    /// The client.
    pub clickhouse: Client,
}

/// Prepares `pipeline`, read from `file`.
pub(crate) fn prepare(file: &Path, pipeline: &Pipeline) -> Result<Prepared, Outcome> {
    let registry = connect::registry(pipeline).map_err(|error| Outcome::of_error(&error))?;
    let clickhouse = connect::clickhouse(pipeline).map_err(|error| Outcome::of_error(&error))?;
    let readers =
        runtime()?.block_on(readers::choose(pipeline, Some(&registry))).map_err(|error| Outcome::of_error(&error))?;
    let bound = bind(&file.display().to_string(), pipeline, &readers.schemas)
        .map_err(|problems| Outcome::problems(&problems))?;
    Ok(Prepared { bound, clickhouse })
}
