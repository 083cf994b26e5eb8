//! Attending a stream: what happens beside reading it, on a thread of its own that may wait for the network.
//!
//! - Committed positions are told to the source's consumer group, for displays of lag. Nothing reads them back: a
//!   restart goes on from the state. The group has no members, since partitions are assigned by Weir.
//! - The topics are looked at now and then: partitions that were added are handed to the readers, or, where a run reads to
//!   ends that it noted, wait for a restart, which people are told; a topic that was made anew stops the pipeline.
//! - What the state keeps of the log for replays is let go of where the log has forgotten it, about once an hour.
//!
//! Invariant: what the group is told was committed in the state before.
//!
//! Not here: the thread (`engine`), and how the log is compared with the state at start (`open`).

use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::describe::{Topic, describe};
use super::open::check_identity;
use super::{Attend, Leave, PartitionPosition};
use crate::error::Error;

/// How long the cluster may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// For how long tellings may fail before people are told: a cluster takes seconds to make its first group.
const TROUBLE_AFTER: Duration = Duration::from_secs(30);

/// How long one look at the commit's answer waits.
const LOOK_WITHIN: Duration = Duration::from_millis(50);

/// After how long unchanged positions are told again: a cluster forgets a group that is silent for days.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(3_600);

/// How often it is asked where the logs begin now.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// Lets go of what is kept of a partition, by its topic, before the first offset that its log still has.
pub type Forget = Box<dyn FnMut(&str, i32, i64) -> Result<(), Error> + Send>;

/// What else people should know of a source, asked whenever its log is looked at. It may wait for a few seconds.
pub type News = Box<dyn FnMut() -> Vec<String> + Send>;

/// Takes a new partition of a topic, whose log begins at this offset; says whether somebody reads it from now on.
pub type Admit = Box<dyn FnMut(&str, i32, i64) -> bool + Send>;

/// Attends one stream.
pub struct Attendant {
    source: String,
    group: String,
    consumer: ManuallyDrop<BaseConsumer<Answers>>,
    /// Whether a commit was asked for that nobody waits for any more.
    is_owed_an_answer: bool,
    /// The topics with the partitions that are read.
    topics: Vec<Topic>,
    admit: Option<Admit>,
    told: Vec<PartitionPosition>,
    told_at: Option<Instant>,
    trouble: Option<Trouble>,
    news: News,
    notes: Vec<String>,
    forget: Forget,
    forgot_at: Instant,
    forgets_every: Duration,
}

/// Tellings that have failed, one after the other.
struct Trouble {
    since: Instant,
    is_told: bool,
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
            consumer: ManuallyDrop::new(config.create_with_context(Answers::default())?),
            is_owed_an_answer: false,
            topics,
            admit: None,
            told: Vec::new(),
            told_at: None,
            trouble: None,
            news,
            notes: Vec::new(),
            forget: Box::new(|_, _, _| Ok(())),
            forgot_at: Instant::now(),
            forgets_every: FORGET_EVERY,
        })
    }

    /// The same, with what to let go of when the log has forgotten it.
    #[must_use]
    pub fn forgetting(mut self, forget: Forget) -> Attendant {
        self.forget = forget;
        self
    }

    /// The same, with who takes partitions that are new.
    #[must_use]
    pub fn admitting(mut self, admit: Option<Admit>) -> Attendant {
        self.admit = admit;
        self
    }

    /// Hands new partitions to the readers. One whose log can't be asked now is handed over after the next look.
    fn admit(&mut self, now: &[Topic]) {
        let Attendant { topics, admit: Some(admit), consumer, source, .. } = self else { return };
        for (known, now) in topics.iter_mut().zip(now) {
            for &number in &now.partitions {
                if known.partitions.contains(&number) {
                    continue;
                }
                let Ok((low, _)) = consumer.fetch_watermarks(&now.name, number, ANSWER_WITHIN) else { continue };
                if admit(&now.name, number, low) {
                    tracing::info!(source, topic = now.name, partition = number, "a new partition is read");
                    known.partitions.push(number);
                }
            }
        }
    }

    /// Lets go of what lies before the logs' beginnings. A cluster that doesn't answer is asked an hour later.
    fn forget(&mut self) -> Result<(), Error> {
        self.forgot_at = Instant::now();
        for topic in &self.topics {
            for &partition in &topic.partitions {
                if let Ok((low, _)) = self.consumer.fetch_watermarks(&topic.name, partition, ANSWER_WITHIN) {
                    (self.forget)(&topic.name, partition, low)?;
                }
            }
        }
        Ok(())
    }

    /// Commits offsets to the group and waits for the answer; `None` when it was time to leave before there was one.
    fn commit(&mut self, positions: &[PartitionPosition], leave: &Leave) -> Option<Result<(), String>> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        let context = Arc::clone(self.consumer.client().context());
        let answer = || context.0.lock().unwrap_or_else(PoisonError::into_inner);
        *answer() = None;
        let asked = positions
            .iter()
            .try_for_each(|of| list.add_partition_offset(&of.topic, of.partition, Offset::Offset(of.next_offset)))
            .and_then(|()| self.consumer.commit(&list, CommitMode::Async));
        if let Err(error) = asked {
            return Some(Err(error.to_string()));
        }
        let asked_at = Instant::now();
        self.is_owed_an_answer = true;
        loop {
            // Serves the answer, and whatever else the client has to say, which librdkafka itself gets over.
            drop(self.consumer.poll(LOOK_WITHIN));
            if let Some(answer) = answer().take() {
                self.is_owed_an_answer = false;
                return Some(answer.map_err(|error| error.to_string()));
            }
            if leave.is_due() {
                return None;
            }
            if asked_at.elapsed() >= ANSWER_WITHIN {
                return Some(Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())));
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

impl Drop for Attendant {
    fn drop(&mut self) {
        // Closing a client waits for the answers that it is owed, for most of a minute where a group can't be made. An
        // attendant leaves when its program ends, which ends the client as well.
        if !self.is_owed_an_answer {
            // SAFETY: dropped here and nowhere else, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.consumer) }
        }
    }
}

impl Attend for Attendant {
    fn tell(&mut self, committed: Vec<PartitionPosition>, leave: &Leave) {
        let is_fresh = self.told_at.is_some_and(|at| at.elapsed() < TELL_AGAIN_AFTER);
        if committed.is_empty() || (is_fresh && committed == self.told) {
            return;
        }
        match self.commit(&committed, leave) {
            Some(Ok(())) => {
                self.trouble = None;
                self.told = committed;
                self.told_at = Some(Instant::now());
            }
            Some(Err(error)) => {
                let trouble = self.trouble.get_or_insert(Trouble { since: Instant::now(), is_told: false });
                if !trouble.is_told && trouble.since.elapsed() >= TROUBLE_AFTER && !leave.is_wanted() {
                    trouble.is_told = true;
                    let (source, group) = (&self.source, &self.group);
                    tracing::warn!(source, group, error, "displays of lag aren't told: offsets can't be committed");
                }
            }
            None => tracing::debug!(source = self.source, "left before the group had taken the last positions"),
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
            self.admit(&now);
            notes.extend(self.added(&now));
        }
        if self.forgot_at.elapsed() >= self.forgets_every {
            self.forget()?;
        }
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            tracing::warn!(source = self.source, "{note}");
        }
        self.notes = notes;
        Ok(self.notes.clone())
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use weir_schemas::time::EventTime;

    use super::*;

    fn attendant(brokers: &str) -> Attendant {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "weir-shop-events");
        Attendant::new(&config, "events", Vec::new(), Box::new(Vec::new)).expect("a client")
    }

    fn position() -> PartitionPosition {
        PartitionPosition { topic: "events".to_owned(), partition: 0, next_offset: 7, watermark: EventTime(0) }
    }

    #[test]
    fn who_is_asked_to_leave_does_not_wait_for_a_group_that_does_not_answer() {
        // Takes connections and never says a word.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut attendant = attendant(&silent.local_addr().expect("its address").to_string());
        let leave = Leave::default();
        let began = Instant::now();
        leave.by(began + Duration::from_millis(200));
        attendant.tell(vec![position()], &leave);
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(200), "it didn't try: {waited:?}");
        assert!(waited < ANSWER_WITHIN, "{waited:?}");
        assert!(
            attendant.trouble.is_none() && attendant.told.is_empty(),
            "leaving is no trouble, and nothing was told"
        );
        drop(attendant);
        assert!(began.elapsed() < ANSWER_WITHIN, "its end waits for the answer: {:?}", began.elapsed());
    }

    #[test]
    fn what_the_log_has_forgotten_is_let_go_of_while_weir_runs() {
        let cluster = MockCluster::new(1).expect("brokers");
        cluster.create_topic("events", 2, 1).expect("a topic");
        let attendant = attendant(&cluster.bootstrap_servers());
        let (tell, told) = std::sync::mpsc::channel();
        let mut attendant = attendant.forgetting(Box::new(move |topic, partition, low| {
            tell.send((topic.to_owned(), partition, low)).expect("somebody listens");
            Ok(())
        }));
        attendant.topics = vec![Topic { name: "events".to_owned(), id: None, partitions: vec![0, 1] }];
        attendant.look().expect("a look");
        assert!(told.try_iter().next().is_none(), "an hour isn't over");
        attendant.forgets_every = Duration::ZERO;
        attendant.look().expect("a look");
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told, [("events".to_owned(), 0, 0), ("events".to_owned(), 1, 0)]);
    }

    #[test]
    fn a_telling_without_an_answer_is_trouble_that_people_hear_of_later() {
        let mut attendant = attendant("127.0.0.1:1");
        attendant.tell(vec![position()], &Leave::default());
        let trouble = attendant.trouble.as_ref().expect("trouble");
        assert!(!trouble.is_told, "a cluster that makes its first group takes as long");
    }
}
