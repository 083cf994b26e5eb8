//! The metrics as the console needs them: totals by name and label, so that a page can tell rates from two snapshots.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_schemas::metric::Metric;

/// Totals since the pipeline's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Numbers {
    /// Records read, by source.
    pub(super) consumed: BTreeMap<String, f64>,
    /// Bytes read, by source.
    pub(super) consumed_bytes: BTreeMap<String, f64>,
    /// Records by fate, over all sources.
    pub(super) fates: BTreeMap<String, f64>,
    /// Rows that destinations have taken.
    pub(super) delivered_rows: BTreeMap<String, f64>,
    /// Bytes of them.
    pub(super) delivered_bytes: BTreeMap<String, f64>,
    /// Seconds of processor time, by operator.
    pub(super) operator_seconds: BTreeMap<String, f64>,
    /// How long commits took.
    pub(super) commits: Times,
    /// How long epochs took from commit to the last acknowledgement.
    pub(super) deliveries: Times,
    /// What the ledger found not to balance.
    pub(super) imbalances: f64,
}

/// A distribution of seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Times {
    /// How many.
    pub(super) count: f64,
    /// All together.
    pub(super) sum: f64,
    /// Upper bounds, and how many are below each; the last bound, infinity, is left out.
    pub(super) buckets: Vec<(f64, f64)>,
}

impl Numbers {
    /// Reads them from the text that Prometheus gets, whose names are [`Metric`]'s.
    pub(super) fn of(text: &str) -> Numbers {
        let mut numbers = Numbers::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            numbers.take(name, labels.trim_end_matches('}'), value);
        }
        numbers
    }

    fn take(&mut self, name: &str, labels: &str, value: f64) {
        let (by, label) = if name == Metric::RecordsConsumed.name() {
            (&mut self.consumed, "source")
        } else if name == Metric::BytesConsumed.name() {
            (&mut self.consumed_bytes, "source")
        } else if name == Metric::RecordsByFate.name() {
            (&mut self.fates, "fate")
        } else if name == Metric::RowsDelivered.name() {
            (&mut self.delivered_rows, "destination")
        } else if name == Metric::BytesDelivered.name() {
            (&mut self.delivered_bytes, "destination")
        } else if name == Metric::OperatorCpu.name() {
            (&mut self.operator_seconds, "operator")
        } else if name == Metric::LedgerImbalances.name() {
            self.imbalances = value;
            return;
        } else {
            if let Some(part) = name.strip_prefix(Metric::CommitSeconds.name()) {
                self.commits.take(part, labels, value);
            } else if let Some(part) = name.strip_prefix(Metric::DeliverySeconds.name()) {
                self.deliveries.take(part, labels, value);
            }
            return;
        };
        *by.entry(label_of(labels, label)).or_default() += value;
    }
}

impl Times {
    fn take(&mut self, part: &str, labels: &str, value: f64) {
        match part {
            "_count" => self.count = value,
            "_sum" => self.sum = value,
            "_bucket" => {
                if let Ok(bound) = label_of(labels, "le").parse::<f64>()
                    && bound.is_finite()
                {
                    self.buckets.push((bound, value));
                }
            }
            _ => {}
        }
    }
}

/// The value of a label; quotes and backslashes in it are escaped by a backslash.
fn label_of(labels: &str, name: &str) -> String {
    let mut rest = labels;
    while let Some((key, behind)) = rest.split_once("=\"") {
        let (mut value, mut escaped, mut end) = (String::new(), false, behind.len());
        for (at, c) in behind.char_indices() {
            match c {
                _ if escaped => {
                    value.push(if c == 'n' { '\n' } else { c });
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    end = at;
                    break;
                }
                c => value.push(c),
            }
        }
        if key == name {
            return value;
        }
        rest = behind.get(end + 1..).unwrap_or_default().trim_start_matches(',');
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::status::Status;

    #[test]
    fn what_is_counted_is_found_again_by_its_label() {
        let metrics = Metrics::default();
        metrics.took("a \"view\"", 5, 600);
        metrics.fetched("events", 70);
        metrics.committed(0.004);
        metrics.committed(0.02);
        let numbers = Numbers::of(&metrics.text(&Status::default()).expect("text"));
        assert_eq!(numbers.delivered_rows, BTreeMap::from([("a \"view\"".to_owned(), 5.0)]));
        assert_eq!(numbers.consumed_bytes, BTreeMap::from([("events".to_owned(), 70.0)]));
        assert_eq!(numbers.commits.count, 2.0);
        let below =
            |bound: f64| numbers.commits.buckets.iter().filter(|(of, _)| *of <= bound).map(|(_, n)| *n).next_back();
        assert_eq!((below(0.002), below(0.005), below(1.0)), (Some(0.0), Some(1.0), Some(2.0)));
        assert_eq!(numbers.deliveries.count, 0.0);
    }
}
