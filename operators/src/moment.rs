//! The dataflow's timestamp: an epoch and a watermark, each moving forward on its own.
//!
//! Invariant: moments are ordered as a product. (3, 12:00) and (4, 11:59) stand beside each other, so a
//! frontier may hold several moments, and what is known of it is its meet: the least epoch, the least watermark.
//!
//! Not here: a scope within a scope. Timely's own `Product` cannot be the timestamp of a whole dataflow, which is
//! why this type exists; there is no feedback in the graph, so the only path summary is the identity.

use serde::{Deserialize, Serialize};
use timely::order::PartialOrder;
use timely::progress::Timestamp;
use timely::progress::timestamp::{PathSummary, Refines};
use weir_schemas::time::{Epoch, EventTime};

/// The timely timestamp of every edge.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Moment {
    /// The epoch that a batch belongs to; on a capability, the earliest that may still be sent in.
    pub epoch: Epoch,
    /// A lower bound on the event times still expected.
    pub watermark: EventTime,
}

impl Moment {
    /// The moment of `epoch` and `watermark`.
    pub fn new(epoch: Epoch, watermark: EventTime) -> Moment {
        Moment { epoch, watermark }
    }

    /// The greatest moment that is at or before all of `moments`: the least of each coordinate. `None` when
    /// there are none, which on a frontier means that nothing can come any more.
    pub fn meet<'a>(moments: impl IntoIterator<Item = &'a Moment>) -> Option<Moment> {
        moments
            .into_iter()
            .copied()
            .reduce(|a, b| Moment { epoch: a.epoch.min(b.epoch), watermark: a.watermark.min(b.watermark) })
    }
}

impl Default for Moment {
    fn default() -> Moment {
        Moment::new(Epoch(0), EventTime::MIN)
    }
}

impl PartialOrder for Moment {
    fn less_equal(&self, other: &Moment) -> bool {
        self.epoch <= other.epoch && self.watermark <= other.watermark
    }
}

impl Timestamp for Moment {
    type Summary = Unchanged;

    fn minimum() -> Moment {
        Moment::default()
    }
}

impl Refines<()> for Moment {
    fn to_inner(_: ()) -> Moment {
        Moment::minimum()
    }

    fn to_outer(self) {}

    fn summarize(_: Unchanged) {}
}

/// What a path through the dataflow does to a moment: nothing.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unchanged;

impl PartialOrder for Unchanged {
    fn less_equal(&self, _: &Unchanged) -> bool {
        true
    }
}

impl PathSummary<Moment> for Unchanged {
    fn results_in(&self, moment: &Moment) -> Option<Moment> {
        Some(*moment)
    }

    fn followed_by(&self, _: &Unchanged) -> Option<Unchanged> {
        Some(Unchanged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(epoch: u64, watermark: i64) -> Moment {
        Moment::new(Epoch(epoch), EventTime(watermark))
    }

    #[test]
    fn moments_of_a_later_epoch_and_an_earlier_watermark_stand_beside_each_other() {
        assert!(moment(1, 5).less_equal(&moment(2, 5)) && moment(1, 5).less_equal(&moment(1, 6)));
        assert!(!moment(2, 4).less_equal(&moment(1, 5)) && !moment(1, 5).less_equal(&moment(2, 4)));
    }

    #[test]
    fn the_meet_takes_the_least_of_each_coordinate() {
        assert_eq!(Moment::meet(&[moment(3, 10), moment(4, 7)]), Some(moment(3, 7)));
        assert_eq!(Moment::meet(&[]), None);
    }
}
