//! Counts what is missing in the sequences of devices: loss in transit.
//!
//! An SDK numbers the events of a device one after the other. A number that hasn't come when the watermark has passed the
//! event behind it by the allowed lateness is missing. Events that a rule refused have come. What is out of order within the
//! allowed lateness is no gap, and a device that begins anew loses nothing by it: that is a restart.
//!
//! `Sequence` emits batches with the columns of [`sequence_schema`]: for each rule of the source, window, tenant and release
//! what was found since the last batch. Rows of one key are added up. Every row of a window comes before the watermark
//! that has passed the window's end by the allowed lateness, so that who judges windows then has seen all of it.
//! `missing` counts for the release, and in the window, of the event behind the gap.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};

/// Indices of the columns of [`sequence_schema`].
pub mod column {
    /// The tenant's key group, `key_group(tenant)` (`UInt16`), as in a profile's cells.
    pub const GROUP: usize = 0;
    /// The window's start in microseconds (`Int64`): windows are as wide as the operator was told (a judge's, where
    /// there is one).
    pub const WINDOW: usize = 1;
    /// The rule's id (`Binary`).
    pub const RULE: usize = 2;
    /// The tenant (`Binary`, '' where unknown).
    pub const TENANT: usize = 3;
    /// The SDK (`Binary`, '' where unknown).
    pub const SDK: usize = 4;
    /// Its version (`Binary`).
    pub const SDK_VERSION: usize = 5;
    /// The app's version (`Binary`).
    pub const APP_VERSION: usize = 6;
    /// Numbers that came, copies left out (`UInt64`).
    pub const RECEIVED: usize = 7;
    /// Numbers that didn't come (`UInt64`).
    pub const MISSING: usize = 8;
    /// Stretches of missing numbers (`UInt64`).
    pub const GAPS: usize = 9;
    /// Sequences that began anew (`UInt64`).
    pub const RESTARTS: usize = 10;
    /// The place of the event behind the first of the gaps: topic (`UInt16`), null where there is none.
    pub const TOPIC: usize = 11;
    /// Its partition (`Int32`, null as the topic).
    pub const PARTITION: usize = 12;
    /// Its offset (`Int64`, null as the topic).
    pub const OFFSET: usize = 13;
}

/// The columns of what `Sequence` emits; [`column`] has their indices.
pub fn sequence_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Binary, false);
    let count = |name: &str| Field::new(name, DataType::UInt64, false);
    Arc::new(Schema::new(vec![
        Field::new("_group", DataType::UInt16, false),
        Field::new("window", DataType::Int64, false),
        text("rule"),
        text("tenant"),
        text("sdk"),
        text("sdk_version"),
        text("app_version"),
        count("received"),
        count("missing"),
        count("gaps"),
        count("restarts"),
        Field::new("topic", DataType::UInt16, true),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
    ]))
}
