//! The real parts that every benchmark of the program runs on.

use std::path::Path;

use weir_replay::parts::{Parts, PartsOptions};

/// Starts Kafka, the registry and ClickHouse below `folder`.
pub(crate) fn started(folder: &Path) -> Parts {
    let options = PartsOptions {
        folder: folder.join("parts"),
        kafka: true,
        registry: true,
        clickhouse: true,
        front: vec![env!("CARGO_BIN_EXE_weir").into(), "clickhouse".into()],
        ..PartsOptions::default()
    };
    Parts::start(&options).unwrap()
}
