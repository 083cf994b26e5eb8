//! The attendants: a thread per source for what may wait for the network beside reading.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::{Core, FirstError};
use crate::commit::Positions;
use crate::epochs::Epochs;
use crate::error::Error;
use crate::shares::Shares;
use crate::source::{Attend, Leave};

/// Least time between two tellings of committed positions.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How often a source's log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a stop waits for the last telling: enough for an answer, not for a group that the cluster has yet to make.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

/// A source to attend.
pub(super) struct Attended {
    pub(super) name: String,
    pub(super) topics: Vec<String>,
    pub(super) shares: Arc<Shares>,
    pub(super) attend: Box<dyn Attend>,
}

/// The threads, until they are seen off.
#[derive(Default)]
pub(super) struct Attendants {
    /// Dropped to end them.
    stops: Vec<Sender<()>>,
    /// Disconnected when they have ended.
    ends: Vec<Receiver<()>>,
    leave: Leave,
}

impl Attendants {
    /// Starts a thread for each of `sources`.
    pub(super) fn start(sources: Vec<Attended>, positions: &Positions, core: &Core) -> Result<Attendants, Error> {
        let mut attendants = Attendants::default();
        for source in sources {
            let ((stop, stopped), (end, ended)) = (channel(), channel());
            let thread = Thread {
                source,
                positions: positions.clone(),
                epochs: core.epochs.clone(),
                error: core.error.clone(),
                stopped,
                leave: attendants.leave.clone(),
                _end: end,
            };
            std::thread::Builder::new()
                .name("attendant".to_owned())
                .spawn(move || thread.run())
                .map_err(|error| Error::Worker { detail: format!("an attendant's thread: {error}") })?;
            attendants.stops.push(stop);
            attendants.ends.push(ended);
        }
        Ok(attendants)
    }

    /// Lets every thread tell once more and end, without waiting for it.
    pub(super) fn dismiss(&mut self) {
        self.leave.by(Instant::now() + LEAVE_WITHIN);
        self.stops.clear();
    }

    /// Waits until the threads that were dismissed have ended. One that waits for the network for too long is left behind:
    /// what it had to tell is told at the next start.
    pub(super) fn see_off(self) {
        let deadline = Instant::now() + LEAVE_WITHIN;
        for ended in self.ends {
            // Nothing is ever sent: this returns when the thread has dropped its end, or at the deadline.
            let _ = ended.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

struct Thread {
    source: Attended,
    positions: Positions,
    epochs: Arc<Epochs>,
    error: FirstError,
    stopped: Receiver<()>,
    leave: Leave,
    _end: Sender<()>,
}

impl Thread {
    fn run(mut self) {
        let mut look_at = Instant::now();
        loop {
            if look_at <= Instant::now() {
                match self.source.attend.look() {
                    Ok(notes) => self.source.shares.tell_notes(notes),
                    Err(error) => {
                        self.error.set(error);
                        self.epochs.halt();
                    }
                }
                look_at = Instant::now() + LOOK_EVERY;
            }
            let is_last = !matches!(self.stopped.recv_timeout(TELL_EVERY), Err(RecvTimeoutError::Timeout));
            self.source.attend.tell(self.positions.of(&self.source.topics), &self.leave);
            if is_last {
                tracing::debug!(source = self.source.name, "an attendant leaves");
                return;
            }
        }
    }
}
