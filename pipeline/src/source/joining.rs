//! Partitions that a topic gets while it is read: who looks at the topics brings them, who reads takes them.
//!
//! A new partition goes to the reader with the fewest. It begins where its log begins, since it holds only records that
//! nobody has read; what is committed from then on has its position, too, so a restart finds it as any other.
//!
//! Invariant: a partition is brought once, and taken by one reader.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::stream::Resume;

/// Between the one who looks and the readers of one source.
#[derive(Debug, Default)]
pub struct Joining {
    seats: Mutex<Vec<Seat>>,
    /// How many wait, so that a reader needs no lock to know that none does.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Seat {
    partitions: usize,
    waiting: Vec<Resume>,
}

impl Joining {
    /// A seat for one more reader, which has so many partitions.
    pub(super) fn sit(&self, partitions: usize) -> usize {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.push(Seat { partitions, waiting: Vec::new() });
        seats.len() - 1
    }

    /// Brings a partition; says whether there is a reader for it.
    pub fn bring(&self, resume: Resume) -> bool {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seat) = seats.iter_mut().min_by_key(|seat| seat.partitions) else { return false };
        seat.partitions += 1;
        seat.waiting.push(resume);
        self.waiting.fetch_add(1, Ordering::Release);
        true
    }

    /// What was brought for a seat since it was asked last.
    pub(super) fn take(&self, seat: usize) -> Vec<Resume> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.get_mut(seat).map(|seat| std::mem::take(&mut seat.waiting)).unwrap_or_default();
        self.waiting.fetch_sub(taken.len(), Ordering::Release);
        taken
    }
}

#[cfg(test)]
mod tests {
    use weir_schemas::place::{Partition, TopicId};
    use weir_schemas::time::EventTime;

    use super::*;

    fn resume(number: i32) -> Resume {
        Resume {
            topic: "events".to_owned(),
            partition: Partition { topic: TopicId(0), number },
            offset: 0,
            log_begins_at: 0,
            watermark: EventTime::MIN,
            end: None,
        }
    }

    #[test]
    fn each_new_partition_is_taken_once_by_the_reader_with_the_fewest() {
        let joining = Joining::default();
        assert!(!joining.bring(resume(0)), "nobody reads yet");
        let (first, second) = (joining.sit(2), joining.sit(1));
        assert!((3..6).all(|number| joining.bring(resume(number))));
        let numbers = |seat| joining.take(seat).iter().map(|of| of.partition.number).collect::<Vec<_>>();
        assert_eq!((numbers(first), numbers(second)), (vec![4], vec![3, 5]));
        assert_eq!((numbers(first), numbers(second)), (vec![], vec![]));
    }
}
