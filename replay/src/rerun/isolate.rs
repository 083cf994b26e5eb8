//! The pipeline that a replay runs: the one of the file, with nothing left that could reach the live one.

use std::path::Path;

use weir_pipeline::config::Pipeline;

use super::part::narrow_to;
use super::record::Record;

/// `pipeline` as the replay of `record` runs it, with its state in `state`.
///
/// Its name is another one, so that consumer groups and transactions are; its database is the replay's; it has no topic to
/// write to and no address. Windows are written when they are closed, since nobody waits for them before.
pub fn isolated(pipeline: &Pipeline, record: &Record, state: &Path) -> Pipeline {
    let mut isolated = pipeline.clone();
    isolated.name = format!("{}-replay-{}", pipeline.name, record.run);
    isolated.state = state.to_owned();
    isolated.clickhouse.database.clone_from(&record.database);
    isolated.clickhouse.reader_database = None;
    isolated.http = None;
    isolated.quality.quarantine_topic = None;
    isolated.alerts.topic = None;
    isolated.alerts.current_topic = None;
    isolated.alerts.control_topic = None;
    isolated.lineage.url = None;
    isolated.lineage.topic = None;
    isolated.lineage.file = None;
    // What is replayed is in the archive already, or never was.
    isolated.archive = None;
    isolated.senders.clear();
    isolated.views.retain(|name, _| record.views.contains(name));
    isolated.views.values_mut().for_each(|view| view.provisional = false);
    for (name, source) in &mut isolated.sources {
        // The slice says where it begins.
        source.start = "earliest".to_owned();
        if source.schema_file.is_none() && source.schema_version.is_none() {
            source.schema_version = record.schema_versions.get(name).copied();
        }
    }
    narrow_to(&mut isolated, record);
    isolated
}
