//! What readers are told of completeness and of partitions: the rows of `weir_progress` and `weir_partitions`.
//!
//! Invariants: a view's `complete_through` is the least watermark at which the workers left the epoch, so every
//! window that ends there or before was closed in that epoch or an earlier one; it is told after all rows of the
//! epoch were acknowledged (`deliver` sees to that). The end of a run closes everything and makes nothing final: a run
//! that goes on from there tells again how far it is. Offsets and watermarks of partitions are committed ones; what a
//! partition is doing and the end of its log are what its worker said last.

use std::collections::HashMap;
use std::sync::Arc;

use weir_operators::window::Windows;
use weir_schemas::rows::Changes;
use weir_schemas::time::{Epoch, EventTime, Span};
use weir_sinks::clickhouse::partitions::Partition;
use weir_sinks::clickhouse::progress::{Progress, changes};

use crate::gather::LeftAt;
use crate::shares::Shares;
use crate::source::PartitionPosition;
use crate::status::{SourceStatus, WorkerPartition};

/// A view, as far as its completeness goes.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The view's name.
    pub view: String,
    /// The index of its source.
    pub source: usize,
    /// Its windows, since completeness is told by their boundaries.
    pub windows: Windows,
    /// How long after its close a window is still corrected.
    pub allowed_lateness: Span,
}

/// The name of the operator that keeps a view.
pub fn maintaining(view: &str) -> String {
    format!("{view}/maintain")
}

/// Where the workers were when they left an epoch, for one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The least watermark of the workers; [`EventTime::MAX`] where their run ended.
    pub watermark: EventTime,
    /// The least watermark of their logs.
    pub log_watermark: EventTime,
    /// The partition with the least watermark among those that hold anything back, as `topic/partition`; '' where none does.
    pub held_back_by: String,
}

/// Combines what the workers reported of one source, of whose partitions `rests` says which hold nothing back. `None`
/// without a report.
pub fn combine<'a>(
    reports: impl Iterator<Item = &'a LeftAt>,
    rests: impl Fn(&PartitionPosition) -> bool,
) -> Option<Left> {
    let mut left: Option<Left> = None;
    let mut least: Option<&PartitionPosition> = None;
    for LeftAt { watermark, log_watermark, positions, .. } in reports {
        let so_far = left.as_ref().map_or((*watermark, *log_watermark), |left| {
            (left.watermark.min(*watermark), left.log_watermark.min(*log_watermark))
        });
        let holding = positions.iter().filter(|position| !rests(position));
        least = least.into_iter().chain(holding).min_by_key(|position| position.watermark);
        left = Some(Left { watermark: so_far.0, log_watermark: so_far.1, held_back_by: String::new() });
    }
    let held_back_by = least.map(|position| format!("{}/{}", position.topic, position.partition));
    left.map(|left| Left { held_back_by: held_back_by.unwrap_or_default(), ..left })
}

/// The rows that tell how far the views are after `epoch`; a view of whose source nothing is known yet has none. `behind` are
/// the operators that close windows in the next epochs that the watermark has passed in this one.
///
/// # Errors
/// None in practice: the columns are those of the table.
pub fn rows(
    watched: &[Watched],
    left: &[Option<Left>],
    behind: &[(Arc<str>, EventTime)],
    epoch: Epoch,
    committed_at: EventTime,
) -> Result<Changes, weir_sinks::Error> {
    let row = |watched: &Watched| {
        let left = left.get(watched.source)?.as_ref().filter(|left| left.watermark > EventTime::MIN)?;
        let operator = maintaining(&watched.view);
        let closed = behind.iter().filter(|(name, _)| **name == *operator).map(|(_, through)| *through);
        let closed = closed.min().unwrap_or(EventTime::MAX);
        Some(Progress {
            view: watched.view.clone(),
            complete_through: watched.windows.complete_through(left.watermark).min(closed),
            final_through: watched.windows.final_through(left.log_watermark, watched.allowed_lateness).min(closed),
            epoch,
            held_back_by: left.held_back_by.clone(),
            committed_at,
        })
    };
    changes(&watched.iter().filter_map(row).collect::<Vec<_>>())
}

/// The rows that tell where the partitions of a source are after `epoch`, which `positions` were committed with; a
/// partition of which its worker has said nothing yet has none.
pub fn partitions_of(
    source: &str,
    shares: &Shares,
    positions: &HashMap<(&str, i32), &PartitionPosition>,
) -> Vec<Partition> {
    let status = SourceStatus::of(source, None, shares.partitions(), Vec::new());
    let row = |of: &WorkerPartition| {
        let said = &of.status;
        let committed = positions.get(&(said.topic.as_str(), said.partition))?;
        let name = format!("{}/{}", said.topic, said.partition);
        Some(Partition {
            source: source.to_owned(),
            topic: said.topic.clone(),
            partition: said.partition,
            next_offset: committed.next_offset,
            end_offset: said.end_offset.max(committed.next_offset),
            watermark: committed.watermark,
            state: said.state.clone(),
            detail: said.detail.clone(),
            holds_back: status.held_back_by.as_ref() == Some(&name),
            worker: u32::try_from(of.worker).unwrap_or(u32::MAX),
        })
    };
    status.partitions.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::TimestampMicrosecondType;
    use weir_operators::view::{Width, Window};
    use weir_schemas::types::ColumnType;
    use weir_sinks::clickhouse::progress::LATEST;

    use super::*;
    use crate::source::PartitionStatus;

    const MINUTE: i64 = 60_000_000;

    fn position(partition: i32, watermark: i64) -> PartitionPosition {
        PartitionPosition { topic: "orders".to_owned(), partition, next_offset: 0, watermark: EventTime(watermark) }
    }

    #[test]
    fn the_slowest_worker_and_the_slowest_partition_are_told() {
        let (a, b) = (vec![position(0, 500), position(1, 300)], vec![position(2, 400)]);
        let report = |watermark, log_watermark, positions| LeftAt {
            source: 0,
            watermark: EventTime(watermark),
            log_watermark: EventTime(log_watermark),
            positions,
            retried: Vec::new(),
            consumed: Vec::new(),
        };
        let reports = [report(300, 300, a), report(250, 250, b), report(i64::MAX, 240, vec![])];
        let told = |by: &str| {
            Some(Left { watermark: EventTime(250), log_watermark: EventTime(240), held_back_by: by.to_owned() })
        };
        assert_eq!(combine(reports.iter(), |_| false), told("orders/1"));
        assert_eq!(
            combine(reports.iter(), |of| of.partition == 1),
            told("orders/2"),
            "an idle partition holds nothing back"
        );
        assert_eq!(combine(reports.iter(), |_| true), told(""));
        assert_eq!(combine(std::iter::empty(), |_| false), None);
    }

    #[test]
    fn a_partition_is_told_as_it_was_committed_with_what_its_worker_said_last() {
        let shares = Shares::of(2);
        let said = |partition, state: &str, watermark| PartitionStatus {
            topic: "orders".to_owned(),
            partition,
            next_offset: 70,
            end_offset: 90,
            watermark: EventTime(watermark),
            state: state.to_owned(),
            detail: String::new(),
        };
        shares.tell_partitions(0, vec![said(0, "idle", 1), said(2, "reading", 9)]);
        shares.tell_partitions(1, vec![said(1, "parked", 8), said(7, "reading", 10)]);
        let committed = [position(0, 1), position(1, 3), position(2, 4)];
        let committed = committed.iter().map(|of| ((of.topic.as_str(), of.partition), of)).collect();
        let rows = partitions_of("events", &shares, &committed);
        let told: Vec<_> = rows.iter().map(|of| (of.partition, of.worker, of.state.as_str(), of.watermark.0)).collect();
        assert_eq!(told, [(0, 0, "idle", 1), (2, 0, "reading", 4), (1, 1, "parked", 3)]);
        assert!(rows.iter().all(|of| of.next_offset == 0 && of.end_offset == 90));
        assert_eq!(rows.iter().map(|of| of.holds_back).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn completeness_is_told_by_the_windows_boundaries_and_final_comes_by_the_lateness_later() {
        let window = Window {
            name: "w".to_owned(),
            column_type: ColumnType::DateTime(None),
            width: Width::Fixed(Span(MINUTE)),
            zone: None,
        };
        let watched = |view: &str, source| Watched {
            view: view.to_owned(),
            source,
            windows: Windows::new(&window).expect("windows"),
            allowed_lateness: Span(90_000_000),
        };
        let log_ends_at = EventTime(10 * MINUTE + 7);
        let left = |watermark| {
            let watermark = EventTime(watermark);
            Some(Left { watermark, log_watermark: watermark.min(log_ends_at), held_back_by: String::new() })
        };
        let all = [watched("open", 0), watched("ended", 1), watched("unknown", 2), watched("silent", 3)];
        let at = [left(10 * MINUTE + 7), left(i64::MAX), left(i64::MIN), None];
        let told = rows(&all, &at, &[], Epoch(7), EventTime(5)).expect("rows").rows;
        let micros = |column: usize| told.column(column).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        assert_eq!(told.column(0).as_binary::<i32>().iter().flatten().collect::<Vec<_>>(), [&b"open"[..], b"ended"]);
        assert_eq!(micros(1), [10 * MINUTE, LATEST.0]);
        assert_eq!(micros(2), [8 * MINUTE, 8 * MINUTE]);

        // A view that closes in slices is complete as far as its slowest worker has come.
        let slow = |view: &str, minute| (Arc::from(maintaining(view)), EventTime(minute * MINUTE));
        let behind = [slow("ended", 9), slow("ended", 7), slow("other", 1)];
        let told = rows(&all, &at, &behind, Epoch(7), EventTime(5)).expect("rows").rows;
        let micros = |column: usize| told.column(column).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        assert_eq!(micros(1), [10 * MINUTE, 7 * MINUTE]);
        assert_eq!(micros(2), [8 * MINUTE, 7 * MINUTE]);
    }
}
