//! Attending a stream: what happens beside reading it, on a thread of its own that may wait for the network.
//!
//! - Committed positions are told to the source's consumer group, for displays of lag. Nothing reads them back: a
//!   restart goes on from the state. The group has no members, since partitions are assigned by Weir.
//! - The topics are looked at now and then: partitions that were added wait for a restart, which people are told; a
//!   topic that was made anew stops the pipeline.
//!
//! Invariant: what the group is told was committed in the state before.
//!
//! Not here: the thread (`engine`), and how the log is compared with the state at start (`open`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::describe::{Topic, describe};
use super::open::check_identity;
use super::{Attend, PartitionPosition};
use crate::error::Error;

/// How long the cluster may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long one look at the commit's answer waits.
const LOOK_WITHIN: Duration = Duration::from_millis(50);

/// After how long unchanged positions are told again: a cluster forgets a group that is silent for days.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(3_600);

/// What else people should know of a source, asked whenever its log is looked at. It may wait for a few seconds.
pub type News = Box<dyn FnMut() -> Vec<String> + Send>;

/// Attends one stream.
pub struct Attendant {
    source: String,
    group: String,
    consumer: BaseConsumer<Answers>,
    /// The topics as they were when the source was opened.
    topics: Vec<Topic>,
    told: Vec<PartitionPosition>,
    told_at: Option<Instant>,
    is_failing: bool,
    news: News,
    notes: Vec<String>,
}

/// What became of the last commit of offsets.
#[derive(Default)]
struct Answers(Mutex<Option<KafkaResult<()>>>);

impl ClientContext for Answers {}

impl ConsumerContext for Answers {
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let of_partition = offsets.elements().iter().find_map(|of| of.error().err());
        let result = result.and(of_partition.map_or(Ok(()), Err));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }
}

impl Attendant {
    /// Attends the source of this name, which reads `topics` as they are described; `config` names the group.
    ///
    /// # Errors
    /// What librdkafka says of wrong settings.
    pub fn new(config: &ClientConfig, source: &str, topics: Vec<Topic>, news: News) -> Result<Attendant, KafkaError> {
        Ok(Attendant {
            source: source.to_owned(),
            group: config.get("group.id").unwrap_or_default().to_owned(),
            consumer: config.create_with_context(Answers::default())?,
            topics,
            told: Vec::new(),
            told_at: None,
            is_failing: false,
            news,
            notes: Vec::new(),
        })
    }

    /// Commits offsets to the group and waits for the answer.
    fn commit(&self, positions: &[PartitionPosition]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for of in positions {
            list.add_partition_offset(&of.topic, of.partition, Offset::Offset(of.next_offset))?;
        }
        let answer = || self.consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner);
        *answer() = None;
        self.consumer.commit(&list, CommitMode::Async)?;
        let asked_at = Instant::now();
        loop {
            // Serves the answer, and whatever else the client has to say, which librdkafka itself gets over.
            drop(self.consumer.poll(LOOK_WITHIN));
            if let Some(answer) = answer().take() {
                return answer;
            }
            if asked_at.elapsed() >= ANSWER_WITHIN {
                return Err(KafkaError::Canceled);
            }
        }
    }

    /// Partitions that a topic has beyond those that are read.
    fn added(&self, now: &[Topic]) -> Vec<String> {
        let added = |(before, now): (&Topic, &Topic)| {
            let new = now.partitions.iter().filter(|number| !before.partitions.contains(number)).count();
            (new > 0).then(|| {
                format!("{new} new partition(s) of topic {} are not read yet: a restart takes them in", now.name)
            })
        };
        self.topics.iter().zip(now).filter_map(added).collect()
    }
}

impl Attend for Attendant {
    fn tell(&mut self, committed: Vec<PartitionPosition>) {
        let is_fresh = self.told_at.is_some_and(|at| at.elapsed() < TELL_AGAIN_AFTER);
        if committed.is_empty() || (is_fresh && committed == self.told) {
            return;
        }
        match self.commit(&committed) {
            Ok(()) => {
                self.is_failing = false;
                self.told = committed;
                self.told_at = Some(Instant::now());
            }
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                let (source, group) = (&self.source, &self.group);
                tracing::warn!(source, group, %error, "displays of lag aren't told: offsets can't be committed to the group");
            }
            Err(_) => {}
        }
    }

    fn look(&mut self) -> Result<Vec<String>, Error> {
        let names: Vec<String> = self.topics.iter().map(|topic| topic.name.clone()).collect();
        let mut notes = (self.news)();
        // A cluster that doesn't answer now is asked again; reading tells of it.
        if let Ok(now) = describe(&self.consumer, &names, ANSWER_WITHIN) {
            for (before, now) in self.topics.iter().zip(&now) {
                check_identity(now, before.id.as_deref())?;
            }
            notes.extend(self.added(&now));
        }
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            tracing::warn!(source = self.source, "{note}");
        }
        self.notes = notes;
        Ok(self.notes.clone())
    }
}
