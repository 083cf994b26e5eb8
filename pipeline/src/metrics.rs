//! Metrics: counters that the threads raise, gauges that are filled when somebody asks.
//!
//! Names, kinds and sentences come from [`Metric`]; a test fails when one of them isn't exported. Here they only get
//! their labels. A gauge is never set where its fact changes: it is read from the [`Status`] that people get as well,
//! so that the two can't differ.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt8Type, UInt16Type, UInt64Type};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use weir_operators::account::TopicNames;
use weir_operators::effort::Efforts;
use weir_schemas::fate::Fate;
use weir_schemas::metric::{Kind, Metric};
use weir_schemas::rule::Mode;
use weir_schemas::stage::CONSUMED;
use weir_schemas::time::EventTime;

use crate::clock::thread_cpu_ns;
use crate::status::Status;

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// The metrics of one pipeline.
pub struct Metrics {
    registry: Registry,
    consumed: Family<Labels, Counter>,
    by_fate: Family<Labels, Counter>,
    rules_broken: Family<Labels, Counter>,
    consumed_bytes: Family<Labels, Counter>,
    delivered_rows: Family<Labels, Counter>,
    delivered_bytes: Family<Labels, Counter>,
    lineage_events: Family<Labels, Counter>,
    operator_cpu: Family<Labels, Counter<f64, AtomicU64>>,
    efforts: Arc<Efforts>,
    imbalances: Counter,
    found_imbalances: Arc<AtomicU64>,
    commit_seconds: Histogram,
    delivery_seconds: Histogram,
    gauges: BTreeMap<&'static str, Gauges>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let mut metrics = Metrics {
            registry: Registry::default(),
            consumed: Family::default(),
            by_fate: Family::default(),
            rules_broken: Family::default(),
            consumed_bytes: Family::default(),
            delivered_rows: Family::default(),
            delivered_bytes: Family::default(),
            lineage_events: Family::default(),
            operator_cpu: Family::default(),
            efforts: Arc::new(Efforts::new(thread_cpu_ns)),
            imbalances: Counter::default(),
            found_imbalances: Arc::default(),
            commit_seconds: seconds(),
            delivery_seconds: seconds(),
            gauges: BTreeMap::new(),
        };
        for metric in Metric::ALL {
            metrics.register(*metric);
        }
        metrics
    }
}

impl Metrics {
    fn register(&mut self, metric: Metric) {
        // The client adds the suffix of a counter and the full stop of a sentence by itself.
        let name = metric.name().trim_end_matches("_total");
        let help = metric.help().trim_end_matches('.');
        match metric {
            Metric::RecordsConsumed => self.registry.register(name, help, self.consumed.clone()),
            Metric::RecordsByFate => self.registry.register(name, help, self.by_fate.clone()),
            Metric::RulesBroken => self.registry.register(name, help, self.rules_broken.clone()),
            Metric::BytesConsumed => self.registry.register(name, help, self.consumed_bytes.clone()),
            Metric::RowsDelivered => self.registry.register(name, help, self.delivered_rows.clone()),
            Metric::BytesDelivered => self.registry.register(name, help, self.delivered_bytes.clone()),
            Metric::LineageEvents => self.registry.register(name, help, self.lineage_events.clone()),
            Metric::OperatorCpu => self.registry.register(name, help, self.operator_cpu.clone()),
            Metric::LedgerImbalances => self.registry.register(name, help, self.imbalances.clone()),
            Metric::CommitSeconds => self.registry.register(name, help, self.commit_seconds.clone()),
            Metric::DeliverySeconds => self.registry.register(name, help, self.delivery_seconds.clone()),
            other => {
                debug_assert_eq!(other.kind(), Kind::Gauge, "{} has no counter here", other.name());
                let gauges = Gauges::default();
                self.registry.register(name, help, gauges.clone());
                self.gauges.insert(metric.name(), gauges);
            }
        }
    }

    /// Counts a batch of tallies of `source`, which names its topics by number.
    pub fn count(&self, source: &str, topics: &[TopicNames], tallies: &RecordBatch) {
        let column = |name: &str| tallies.column_by_name(name);
        let (Some(topic), Some(partition), Some(fate), Some(count)) = (
            column("topic").and_then(|column| column.as_primitive_opt::<UInt16Type>()),
            column("partition").and_then(|column| column.as_primitive_opt::<Int32Type>()),
            column("fate").and_then(|column| column.as_primitive_opt::<UInt8Type>()),
            column("count").and_then(|column| column.as_primitive_opt::<UInt64Type>()),
        ) else {
            return;
        };
        let rows = topic.values().iter().zip(partition.values()).zip(fate.values()).zip(count.values());
        for (((topic, partition), fate), count) in rows {
            if *fate == CONSUMED {
                let topic = topics.get(usize::from(*topic)).map(|names| names.topic.to_string()).unwrap_or_default();
                let labels =
                    vec![("source", source.to_owned()), ("topic", topic), ("partition", partition.to_string())];
                self.consumed.get_or_create(&labels).inc_by(*count);
            } else if let Some(fate) = Fate::ALL.get(usize::from(*fate)) {
                let labels = vec![("source", source.to_owned()), ("fate", fate.name().to_owned())];
                self.by_fate.get_or_create(&labels).inc_by(*count);
            }
        }
    }

    /// Counts bytes that `source` fetched.
    pub fn fetched(&self, source: &str, bytes: u64) {
        self.consumed_bytes.get_or_create(&vec![("source", source.to_owned())]).inc_by(bytes);
    }

    /// Counts events in time that broke a rule of `source`.
    pub fn rule_broken(&self, source: &str, rule: &str, mode: Mode, count: u64) {
        let labels = vec![("source", source.to_owned()), ("rule", rule.to_owned()), ("mode", mode.name().to_owned())];
        self.rules_broken.get_or_create(&labels).inc_by(count);
    }

    /// Notes how long a commit took.
    pub fn committed(&self, seconds: f64) {
        self.commit_seconds.observe(seconds);
    }

    /// Notes how long an epoch took from its commit to its last acknowledgement.
    pub fn delivered(&self, seconds: f64) {
        self.delivery_seconds.observe(seconds);
    }

    /// Counts what `destination` has taken.
    pub fn took(&self, destination: &str, rows: u64, bytes: u64) {
        let labels = vec![("destination", destination.to_owned())];
        self.delivered_rows.get_or_create(&labels).inc_by(rows);
        self.delivered_bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// Rows and bytes that `destination` has taken.
    pub fn written(&self, destination: &str) -> (u64, u64) {
        let labels = vec![("destination", destination.to_owned())];
        (self.delivered_rows.get_or_create(&labels).get(), self.delivered_bytes.get_or_create(&labels).get())
    }

    /// Counts OpenLineage events of which a target has taken, or hasn't.
    pub fn lineage(&self, target: &str, outcome: &str, events: u64) {
        let labels = vec![("target", target.to_owned()), ("outcome", outcome.to_owned())];
        self.lineage_events.get_or_create(&labels).inc_by(events);
    }

    /// Where the ledger counts what does not balance.
    pub fn imbalances(&self) -> Arc<AtomicU64> {
        self.found_imbalances.clone()
    }

    /// Where operators note their CPU time.
    pub fn efforts(&self) -> Arc<Efforts> {
        self.efforts.clone()
    }

    /// Everything in Prometheus' text format, the gauges as `status` has them.
    pub fn text(&self, status: &Status) -> Result<String, fmt::Error> {
        self.fill(status);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn fill(&self, status: &Status) {
        let found = self.found_imbalances.load(Ordering::Relaxed);
        self.imbalances.inc_by(found.saturating_sub(self.imbalances.get()));
        for (operator, ns) in self.efforts.all() {
            let counter = self.operator_cpu.get_or_create(&vec![("operator", operator)]).clone();
            counter.inc_by((ns as f64 / 1e9 - counter.get()).max(0.0));
        }
        let set = |metric: Metric, labels: Labels, value: f64| {
            if let Some(gauges) = self.gauges.get(metric.name()) {
                gauges.get_or_create(&labels).set(value);
            }
        };
        set(Metric::OpenEpoch, Vec::new(), status.open_epoch as f64);
        set(Metric::CommittedEpoch, Vec::new(), status.committed_epoch as f64);
        set(Metric::DeliveredEpoch, Vec::new(), status.delivered_epoch as f64);
        set(Metric::InFlightBytes, Vec::new(), status.in_flight_bytes as f64);
        for destination in &status.destinations {
            let labels = vec![("destination", destination.name.clone())];
            set(Metric::OutboxRows, labels, destination.waiting_rows as f64);
        }
        let mut parked = 0;
        for source in &status.sources {
            let labels = vec![("source", source.name.clone())];
            if let Some(watermark) = source.watermark.filter(|watermark| *watermark < EventTime::MAX) {
                set(Metric::Watermark, labels, watermark.0 as f64 / 1e6);
            }
            for partition in &source.partitions {
                let of = &partition.status;
                parked += u64::from(of.state == "parked");
                let labels = vec![
                    ("source", source.name.clone()),
                    ("topic", of.topic.clone()),
                    ("partition", of.partition.to_string()),
                ];
                // A counter that is there from the beginning has a rate for what comes first, too.
                self.consumed.get_or_create(&labels).inc_by(0);
                set(Metric::LagRecords, labels, of.end_offset.saturating_sub(of.next_offset).max(0) as f64);
            }
            for fate in Fate::ALL {
                let labels = vec![("source", source.name.clone()), ("fate", fate.name().to_owned())];
                self.by_fate.get_or_create(&labels).inc_by(0);
            }
        }
        set(Metric::ParkedPartitions, Vec::new(), parked as f64);
        if let Some(archive) = &status.archive {
            set(Metric::ArchiveLag, Vec::new(), archive.lag_records as f64);
            set(Metric::ArchiveRecords, Vec::new(), archive.records as f64);
            set(Metric::ArchiveBytes, Vec::new(), archive.bytes as f64);
            set(Metric::ArchiveFailing, Vec::new(), f64::from(u8::from(archive.failing.is_some())));
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{BinaryArray, Int32Array, Int64Array, UInt8Array, UInt16Array, UInt64Array};
    use weir_schemas::stage::tally_schema;

    use super::*;
    use crate::source::PartitionStatus;
    use crate::status::{ArchiveStatus, DestinationStatus, SourceStatus};

    #[test]
    fn every_metric_is_exported_under_its_name() {
        let metrics = Metrics::default();
        let tallies = RecordBatch::try_new(
            tally_schema(),
            vec![
                Arc::new(UInt16Array::from(vec![0, 0])),
                Arc::new(Int32Array::from(vec![3, 3])),
                Arc::new(BinaryArray::from_vec(vec![b"t", b"t"])),
                Arc::new(Int64Array::from(vec![60, 60])),
                Arc::new(UInt8Array::from(vec![CONSUMED, Fate::TooLate as u8])),
                Arc::new(UInt64Array::from(vec![5, 2])),
            ],
        )
        .expect("tallies");
        let orders = TopicNames { source: Arc::from("events"), topic: Arc::from("orders") };
        metrics.count("events", &[orders], &tallies);
        metrics.imbalances().fetch_add(1, Ordering::Relaxed);
        metrics.fetched("events", 70);
        metrics.efforts().of("events/source").spend(|| ());
        metrics.rule_broken("events", "paid", Mode::Tag, 4);
        metrics.took("by_minute", 5, 600);
        metrics.took("by_minute", 2, 100);
        assert_eq!((metrics.written("by_minute"), metrics.written("other")), ((7, 700), (0, 0)));
        metrics.lineage("http", "dropped", 3);
        let partition = PartitionStatus {
            topic: "orders".to_owned(),
            partition: 3,
            next_offset: 40,
            end_offset: 47,
            watermark: EventTime(1),
            state: "parked".to_owned(),
            detail: String::new(),
        };
        let status = Status {
            sources: vec![SourceStatus::of("events", Some(EventTime(2_500_000)), vec![(0, partition)], Vec::new())],
            destinations: vec![DestinationStatus { waiting_rows: 9, ..DestinationStatus::default() }],
            archive: Some(ArchiveStatus { lag_records: 12, ..ArchiveStatus::default() }),
            ..Status::default()
        };
        let text = metrics.text(&status).expect("text");
        for metric in Metric::ALL {
            let name = metric.name().trim_end_matches("_total");
            assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing");
        }
        let expected = "weir_records_consumed_total{source=\"events\",topic=\"orders\",partition=\"3\"} 5";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("weir_records_total{source=\"events\",fate=\"too_late\"} 2"), "{text}");
        assert!(text.contains("weir_lag_records{source=\"events\",topic=\"orders\",partition=\"3\"} 7.0"), "{text}");
        assert!(text.contains("weir_watermark_seconds{source=\"events\"} 2.5"), "{text}");
        assert!(text.contains("weir_parked_partitions{} 1.0"), "{text}");
        assert!(text.contains("weir_archive_lag_records{} 12.0"), "{text}");
        assert!(text.contains("weir_operator_cpu_seconds_total{operator=\"events/source\"} "), "{text}");
        assert!(text.contains("weir_ledger_imbalances_total 1"), "{text}");
        let broken = "weir_rule_broken_total{source=\"events\",rule=\"paid\",mode=\"tag\"} 4";
        assert!(text.contains(broken), "{text}");
        assert!(text.contains("weir_delivered_rows_total{destination=\"by_minute\"} 7"), "{text}");
        assert!(text.contains("weir_lineage_events_total{target=\"http\",outcome=\"dropped\"} 3"), "{text}");
        assert!(text.contains("weir_consumed_bytes_total{source=\"events\"} 70"), "{text}");
    }
}
