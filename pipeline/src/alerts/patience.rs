//! Trying again: what a sender does while something it needs doesn't answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::follow::{Decoder, Record, Undecoded};

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));
/// A stop is noticed within this time.
const STOP_WITHIN: Duration = Duration::from_millis(200);

/// Waits for others, for as long as the sender isn't stopped.
pub(super) struct Patience {
    pub(super) name: String,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) runtime: Runtime,
}

/// What became of a message.
pub(super) enum Decoded<T> {
    /// It says this.
    Value(T),
    /// It can never be decoded; a log line says so.
    Poisoned,
    /// The sender was stopped before the registry answered.
    Stopped,
}

impl Patience {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Decodes a message of `topic`, waiting for the registry if it has to.
    pub(super) fn decode<T: DeserializeOwned>(
        &self,
        decoder: &mut Decoder<T>,
        topic: &str,
        record: &Record,
    ) -> Decoded<T> {
        let mut attempts = 0;
        loop {
            match self.runtime.block_on(decoder.decode(&record.value)) {
                Ok(value) => return Decoded::Value(value),
                Err(Undecoded::Poisoned(why)) => {
                    self.skipped(topic, record, &why);
                    return Decoded::Poisoned;
                }
                Err(Undecoded::NotYet(why)) => {
                    attempts += 1;
                    if !self.pause(attempts, None, &format!("the registry: {why}")) {
                        return Decoded::Stopped;
                    }
                }
            }
        }
    }

    /// Tells that a message is left out.
    pub(super) fn skipped(&self, topic: &str, record: &Record, why: &str) {
        let place = format!("{topic}/{}@{}", record.partition, record.offset);
        tracing::error!(sender = self.name, place, error = why, "a message can never be told and is skipped");
    }

    /// Waits after `attempts` failures in a row, at least as long as the other side asked for. Returns false when the
    /// sender was stopped meanwhile.
    pub(super) fn pause(&self, attempts: u32, wait_ms: Option<u64>, why: &str) -> bool {
        let pause = pause_after(attempts).max(Duration::from_millis(wait_ms.unwrap_or_default()));
        tracing::warn!(
            sender = self.name,
            attempts,
            pause_ms = pause.as_millis() as u64,
            error = why,
            "an alert is not taken yet and will be told again"
        );
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.is_stopped() {
            std::thread::sleep(STOP_WITHIN.min(until.saturating_duration_since(Instant::now())));
        }
        !self.is_stopped()
    }
}

/// Twice as long each time, up to a bound.
fn pause_after(attempts: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(PAUSES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let pauses: Vec<u128> = [1, 2, 3, 9, 10, u32::MAX].map(|attempts| pause_after(attempts).as_millis()).to_vec();
        assert_eq!(pauses, [200, 400, 800, 51_200, 60_000, 60_000]);
    }
}
