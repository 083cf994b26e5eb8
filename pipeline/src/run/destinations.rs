//! Where a pipeline's rows go: a destination for each table, and for each topic.

use std::sync::Arc;
use std::time::Duration;

use weir_schemas::registry::Registry;
use weir_schemas::rows::Table;
use weir_schemas::tables;
use weir_sinks::clickhouse::{Client, Layout, TableEncoder, TableSink};
use weir_sinks::kafka::{AlertEncoder, QuarantineEncoder, TAIL_MESSAGES, TopicSettings, TopicSink, alert};
use weir_sinks::{Deliver, Encode};

use crate::alerts;
use crate::config::Pipeline;
use crate::connect;
use crate::crash::{self, CrashPoint};
use crate::deliver::LaneKind;
use crate::engine::Destination;
use crate::error::Error;

/// Partitions of a topic that Weir makes.
const TOPIC_PARTITIONS: i32 = 1;

/// The destinations in ClickHouse.
pub(super) fn tables_of(pipeline: &Pipeline, layout: &Layout, client: &Client) -> Vec<Destination> {
    let all = layout.tables.iter().chain(layout.views.iter().map(|view| &view.table));
    let destination = |table: &Table| Destination {
        name: table.name.to_string(),
        tables: vec![table.name.clone()],
        encode: Arc::new(TableEncoder::new(table.clone())) as Arc<dyn Encode>,
        sink: Box::new(TableSink::new(client.clone(), table)) as Box<dyn Deliver>,
        every: Duration::from_millis(pipeline.clickhouse.insert_every_ms),
        kind: if *table.name == *tables::PROGRESS { LaneKind::Progress } else { LaneKind::Table },
    };
    all.map(destination).collect()
}

/// The destinations in Kafka.
pub(super) async fn topics_of(pipeline: &Pipeline, registry: &Registry) -> Result<Vec<Destination>, Error> {
    let mut destinations = Vec::new();
    let mut add = |table: &'static str, topic: &str, current_topic: Option<&String>, encode: Arc<dyn Encode>| {
        let name = format!("topic {topic}");
        let settings = TopicSettings {
            client: connect::kafka(pipeline),
            topic: topic.to_owned(),
            current_topic: current_topic.cloned(),
            transactional_id: format!("{}/{topic}", pipeline.name),
            partitions: TOPIC_PARTITIONS,
            topic_settings: Default::default(),
            tail_messages: TAIL_MESSAGES,
            within_transaction: || crash::pass(CrashPoint::WithinTransaction),
        };
        destinations.push(Destination {
            name,
            tables: vec![Arc::from(table)],
            encode,
            sink: Box::new(TopicSink::new(settings)),
            every: Duration::ZERO,
            kind: LaneKind::Topic,
        });
    };
    if let Some(topic) = &pipeline.quality.quarantine_topic {
        add(tables::QUARANTINE, topic, None, Arc::new(QuarantineEncoder));
    }
    if let Some(topic) = pipeline.alerts.topic.as_ref().filter(|_| pipeline.alerts.has_detector()) {
        let current_topic = pipeline.alerts.current_topic.as_ref();
        let id = alerts::register(pipeline, registry, topic, alert::SCHEMA).await?;
        if let Some(current) = current_topic {
            alerts::register(pipeline, registry, current, alert::SCHEMA).await?;
        }
        add(tables::ALERTS_HISTORY, topic, current_topic, Arc::new(AlertEncoder::new(id)));
    }
    Ok(destinations)
}
