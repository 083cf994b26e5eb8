//! The names of every metric, in one enum, so that a board, a page or a rule that names another one
//! fails a test.

/// A metric's kind, as Prometheus knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; its exported name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution, in seconds unless the name says otherwise.
    Histogram,
}

macro_rules! metrics {
    ($($variant:ident, $name:literal, $kind:ident, $help:literal;)*) => {
        /// A metric of Weir's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Metric { $(#[doc = $help] $variant,)* }

        impl Metric {
            /// Every metric.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant,)*];

            /// The exported name.
            pub fn name(self) -> &'static str { match self { $(Metric::$variant => $name,)* } }

            /// Its kind.
            pub fn kind(self) -> Kind { match self { $(Metric::$variant => Kind::$kind,)* } }

            /// One sentence on what it measures.
            pub fn help(self) -> &'static str { match self { $(Metric::$variant => $help,)* } }
        }
    };
}

metrics! {
    RecordsConsumed, "weir_records_consumed_total", Counter, "Records fetched, by source and partition.";
    RecordsByFate, "weir_records_total", Counter, "Records by source and fate.";
    RulesBroken, "weir_rule_broken_total", Counter, "Events in time that broke a rule, by source, rule and mode.";
    BytesConsumed, "weir_consumed_bytes_total", Counter, "Bytes of keys and values fetched, by source.";
    Watermark, "weir_watermark_seconds", Gauge, "Combined watermark of a source, in seconds since 1970.";
    LagRecords, "weir_lag_records", Gauge, "Records between the committed position and the end of a partition.";
    OpenEpoch, "weir_open_epoch", Gauge, "The epoch that is being read.";
    CommittedEpoch, "weir_committed_epoch", Gauge, "The newest committed epoch.";
    DeliveredEpoch, "weir_delivered_epoch", Gauge, "The newest epoch whose rows were all acknowledged.";
    InFlightBytes, "weir_in_flight_bytes", Gauge, "Bytes fetched and not yet committed.";
    RowsDelivered, "weir_delivered_rows_total", Counter, "Rows that a destination has taken, by destination; what is sent twice counts twice.";
    BytesDelivered, "weir_delivered_bytes_total", Counter, "Bytes of those rows, by destination.";
    LineageEvents, "weir_lineage_events_total", Counter, "OpenLineage events by target and outcome: taken or dropped.";
    OutboxRows, "weir_outbox_rows", Gauge, "Committed rows that wait for delivery.";
    CommitSeconds, "weir_commit_seconds", Histogram, "Time to write one epoch's commit.";
    DeliverySeconds, "weir_delivery_seconds", Histogram, "Time from an epoch's commit to its last acknowledgement.";
    ParkedPartitions, "weir_parked_partitions", Gauge, "Partitions that wait for the schema registry.";
    OperatorCpu, "weir_operator_cpu_seconds_total", Counter, "CPU time by operator; `<source>/source` fetches, decodes, judges time and rules.";
    ArchiveLag, "weir_archive_lag_records", Gauge, "Offsets that were committed and aren't archived yet.";
    ArchiveRecords, "weir_archive_records", Gauge, "Records in the archive.";
    ArchiveBytes, "weir_archive_bytes", Gauge, "Bytes of the objects in the archive.";
    ArchiveFailing, "weir_archive_failing", Gauge, "1 while the archive can't be written.";
    LedgerImbalances, "weir_ledger_imbalances_total", Counter, "Epochs whose ledger did not balance: always 0 unless there is a bug.";
}
