//! Faults put into the stream on purpose, the same for the same seed: disorder, duplicates, stragglers, bad bytes.
//!
//! Disorder: each record gets a random delay up to `disorder_ms` of event time and leaves in the order of event time
//! plus delay. So a record is never more than `disorder_ms` older than the newest one before it, if the input was in
//! order. A duplicate is a second copy of the same bytes with a delay of its own; a straggler's delay goes beyond the
//! bound, up to `straggler_ms`. Without event times only bad bytes and duplicates are possible, and nothing is moved.
//!
//! What waits for its turn is bounded: above [`HELD_BYTES_AT_MOST`] the next in order leaves early.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::AddAssign;

use fastrand::Rng;

use super::rows::Release;

/// Bound of what is held back for disorder.
const HELD_BYTES_AT_MOST: usize = 256 << 20;

/// Which faults, and how many.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Two runs with the same seed, input and settings send the same bytes in the same order.
    pub seed: u64,
    /// Disorder of event times, at most.
    pub disorder_ms: u32,
    /// The share of records that are sent twice, 0 to 1.
    pub duplicates: f64,
    /// The share that comes later than the disorder allows.
    pub stragglers: f64,
    /// How late those are at most.
    pub straggler_ms: u32,
    /// The share with bytes that don't decode.
    pub bad: f64,
}

/// A record, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its value: Confluent's frame with the datum.
    pub payload: Vec<u8>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its event time.
    pub time_ms: Option<i64>,
    /// Its sender, for the headers.
    pub release: Option<Release>,
}

/// What was put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Second copies.
    pub duplicates: u64,
    /// Records delayed beyond the bound of disorder.
    pub stragglers: u64,
    /// Records with broken bytes.
    pub bad: u64,
}

impl AddAssign for Injected {
    fn add_assign(&mut self, other: Injected) {
        self.duplicates += other.duplicates;
        self.stragglers += other.stragglers;
        self.bad += other.bad;
    }
}

/// A record with its turn; ordered by it.
struct Waiting {
    turn: (i64, u64),
    record: Encoded,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.turn == other.turn
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        self.turn.cmp(&other.turn)
    }
}

/// Takes records in the input's order and gives them in the order of sending.
pub struct FaultStage {
    faults: Faults,
    random: Rng,
    waiting: BinaryHeap<Reverse<Waiting>>,
    held_bytes: usize,
    newest_ms: i64,
    taken: u64,
    injected: Injected,
}

impl FaultStage {
    /// A stage with nothing in it.
    pub fn new(faults: Faults) -> FaultStage {
        let random = Rng::with_seed(faults.seed);
        FaultStage {
            faults,
            random,
            waiting: BinaryHeap::new(),
            held_bytes: 0,
            newest_ms: i64::MIN,
            taken: 0,
            injected: Injected::default(),
        }
    }

    /// What was put in so far.
    pub fn injected(&self) -> Injected {
        self.injected
    }

    /// Takes a record; with `is_spoiled` its bytes are broken in any case.
    pub fn take(&mut self, mut record: Encoded, is_spoiled: bool) {
        let is_bad = self.random.f64() < self.faults.bad || is_spoiled;
        if is_bad {
            spoil(&mut record.payload, &mut self.random);
            self.injected.bad += 1;
        }
        let is_copied = self.random.f64() < self.faults.duplicates;
        let is_late = self.random.f64() < self.faults.stragglers;
        let delay_ms = if is_late && record.time_ms.is_some() {
            self.injected.stragglers += 1;
            let least = self.faults.disorder_ms.saturating_add(1);
            self.random.u32(least..=self.faults.straggler_ms.max(least))
        } else {
            self.random.u32(0..=self.faults.disorder_ms)
        };
        if is_copied {
            self.injected.duplicates += 1;
            let delay_ms = self.random.u32(0..=self.faults.disorder_ms);
            self.hold(record.clone(), delay_ms);
        }
        self.hold(record, delay_ms);
    }

    fn hold(&mut self, record: Encoded, delay_ms: u32) {
        let time_ms = record.time_ms.unwrap_or(self.newest_ms.max(0));
        self.newest_ms = self.newest_ms.max(time_ms);
        let delay_ms = if record.time_ms.is_some() { i64::from(delay_ms) } else { 0 };
        self.held_bytes += record.payload.len() + size_of::<Waiting>();
        self.waiting.push(Reverse(Waiting { turn: (time_ms.saturating_add(delay_ms), self.taken), record }));
        self.taken += 1;
    }

    /// The next record whose turn has come; with `is_end`, all of them in order.
    pub fn next_due(&mut self, is_end: bool) -> Option<Encoded> {
        let Reverse(first) = self.waiting.peek()?;
        if !is_end && first.turn.0 > self.newest_ms && self.held_bytes <= HELD_BYTES_AT_MOST {
            return None;
        }
        let Reverse(first) = self.waiting.pop()?;
        self.held_bytes -= first.record.payload.len() + size_of::<Waiting>();
        Some(first.record)
    }
}

/// Breaks a frame in one of the ways that are seen in the field.
fn spoil(payload: &mut Vec<u8>, random: &mut Rng) {
    match random.u8(0..5) {
        0 => payload.truncate(payload.len() * 2 / 3),
        1 => *payload = b"{\"event\": \"sent as JSON\"}".to_vec(),
        2 => payload.truncate(random.usize(1..5)),
        3 => {
            // A length that reaches far beyond the record.
            payload.truncate(5);
            payload.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        }
        _ => payload.extend_from_slice(b"left over"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(faults: &Faults, count: i64) -> (Vec<Encoded>, Injected) {
        let mut stage = FaultStage::new(faults.clone());
        let mut sent = Vec::new();
        for number in 0..count {
            let payload = [&[0, 0, 0, 0, 1], number.to_be_bytes().as_slice()].concat();
            stage.take(Encoded { payload, key: None, time_ms: Some(number * 10), release: None }, false);
            sent.extend(std::iter::from_fn(|| stage.next_due(false)));
        }
        sent.extend(std::iter::from_fn(|| stage.next_due(true)));
        (sent, stage.injected())
    }

    /// How far each record is behind the newest before it.
    fn delays(sent: &[Encoded]) -> Vec<i64> {
        let mut newest = i64::MIN;
        let delay = |record: &Encoded| {
            let time = record.time_ms.expect("a time");
            newest = newest.max(time);
            newest - time
        };
        sent.iter().map(delay).collect()
    }

    #[test]
    fn disorder_stays_within_its_bound_and_loses_nothing() {
        let (sent, injected) = run(&Faults { seed: 3, disorder_ms: 5_000, ..Faults::default() }, 20_000);
        let delays = delays(&sent);
        assert!(delays.iter().all(|delay| *delay <= 5_000) && delays.iter().any(|delay| *delay > 4_000));
        let mut times: Vec<_> = sent.iter().map(|record| record.time_ms).collect();
        times.sort_unstable();
        assert!(times.iter().copied().eq((0..20_000).map(|number| Some(number * 10))));
        assert_eq!(injected, Injected::default());
    }

    #[test]
    fn shares_are_kept_and_counted() {
        let faults =
            Faults { seed: 4, disorder_ms: 100, duplicates: 0.02, stragglers: 0.01, straggler_ms: 60_000, bad: 0.005 };
        let (sent, injected) = run(&faults, 50_000);
        assert_eq!(sent.len() as u64, 50_000 + injected.duplicates);
        let near = |count: u64, expected: u64| count.abs_diff(expected) < expected / 4;
        assert!(
            near(injected.duplicates, 1_000) && near(injected.stragglers, 500) && near(injected.bad, 250),
            "{injected:?}"
        );
        let late = delays(&sent).iter().filter(|delay| **delay > 100).count() as u64;
        assert!(late <= injected.stragglers && late > injected.stragglers * 8 / 10, "{late}");
        assert_eq!(run(&faults, 50_000), (sent, injected));
    }

    #[test]
    fn without_faults_everything_passes_as_it_came() {
        let (sent, _) = run(&Faults::default(), 1_000);
        assert!(sent.iter().map(|record| record.time_ms).eq((0..1_000).map(|number| Some(number * 10))));
    }
}
