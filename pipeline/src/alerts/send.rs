//! A sender: reads the alert topic, decides what is told, and tells it until it is taken.
//!
//! Invariants: a position is kept only when everything before it was taken, skipped as poisoned, or isn't told; so a sender
//! that is killed tells its last steps again, with the same idempotency keys, and loses none. Each sender has positions of
//! its own, so that one whose receiver is away holds nobody up.
//!
//! A sender that has never run begins at the topic's end, unless told to begin with what is there. Two that run under one
//! name both tell everything: run one.
//!
//! Bounds: one message at a time; a digest holds at most [`DIGEST_STEPS`] steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use weir_sinks::kafka::acknowledgement::{self, Acknowledgement};
use weir_sinks::kafka::read::Alert;
use weir_sinks::kafka::{Cleanup, alert, create_topic};
use weir_sinks::notify::{Email, EmailSettings, NotTaken, Protection, Webhook, WebhookFormat};

use super::follow::{Decoder, GRACE, Polled, Record, Topic};
use super::patience::{Decoded, Patience};
use super::teller::Teller;
use crate::config::Pipeline;
use crate::config::alerts::{Encryption, Sender, SenderKind};
use crate::connect;
use crate::error::Error;
use crate::problem::Problem;

/// How long one look for a message takes: a stop is noticed within it.
const LOOK_WITHIN: Duration = Duration::from_millis(200);
/// Steps that a digest holds at most; with more it leaves early.
const DIGEST_STEPS: usize = 1_000;

/// How a sender runs.
#[derive(Clone, Debug, Default)]
pub struct Sending {
    /// Tell what the topic holds now, and end.
    pub until_end: bool,
    /// Where it has never run: begin with the topic's first message.
    pub from_beginning: bool,
    /// Ends it when set.
    pub stop: Arc<AtomicBool>,
}

/// What a sender did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Steps that were told.
    pub told: u64,
    /// Messages and steps that can never be told.
    pub skipped: u64,
}

/// Runs the sender `name` until it is stopped, or at the topic's end.
///
/// # Errors
/// What is wrong with its settings, or which part can't be used.
pub fn send(pipeline: &Pipeline, name: &str, sending: &Sending) -> Result<Sent, Error> {
    let sender = pipeline.senders.get(name).ok_or_else(|| unknown(pipeline, name))?;
    let topic = pipeline.alerts.topic.as_deref().ok_or_else(no_topic)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Worker { detail: format!("a thread for sender {name}: {error}") })?;
    let registry = connect::registry(pipeline)?;
    let group = |of: &str| format!("weir-{}-{of}-{name}", pipeline.name);
    let channel = Channel::new(name, sender)?;
    let kafka = connect::kafka(pipeline);
    let control = pipeline.control_topic();
    // Made here where the pipeline hasn't yet, so that the first alert finds a sender that waits for it.
    for (topic, cleanup) in [(topic, Cleanup::Delete), (control.as_str(), Cleanup::Compact)] {
        runtime.block_on(create_topic(&kafka, topic, cleanup)).map_err(weir_sinks::Error::from)?;
    }
    let mut running = Running {
        sending,
        patience: Patience { name: name.to_owned(), stop: Arc::clone(&sending.stop), runtime },
        teller: Teller::new(name, sender),
        alerts: Topic::open(pipeline, kafka.clone(), &group("sender"), topic)?,
        control: Topic::open(pipeline, kafka, &group("control"), &control)?,
        decode_alert: Decoder::new(registry.clone(), alert::SCHEMA)?,
        decode_control: Decoder::new(registry, acknowledgement::SCHEMA)?,
        channel,
        positions: BTreeMap::new(),
        kept: BTreeMap::new(),
        sent: Sent::default(),
    };
    // What was decided in an earlier run isn't waited for again.
    running.decode_alert.set_grace(Duration::ZERO);
    running.begin()?;
    running.decode_alert.set_grace(GRACE);
    running.run()?;
    Ok(running.sent)
}

fn unknown(pipeline: &Pipeline, name: &str) -> Error {
    let known: Vec<&str> = pipeline.senders.keys().map(String::as_str).collect();
    let remedy = match crate::problem::nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("add a section [senders.{name}]"),
        None => format!("name one of {}", known.join(", ")),
    };
    Error::Config(vec![Problem::of_file("the pipeline file", format!("there is no sender `{name}`"), remedy)])
}

fn no_topic() -> Error {
    let message = "[alerts] has no `topic`, which senders read";
    Error::Config(vec![Problem::of_file("the pipeline file", message, "add one, such as topic = \"weir-alerts\"")])
}

/// What a sender speaks.
enum Channel {
    Webhook(Webhook),
    Email(Digests),
}

/// Steps that wait for their digests.
struct Digests {
    email: Arc<Email>,
    to: Option<String>,
    addresses: BTreeMap<String, String>,
    every: Duration,
    waiting: Vec<Alert>,
    /// When the oldest of them came.
    since: Instant,
}

impl Channel {
    fn new(name: &str, sender: &Sender) -> Result<Channel, Error> {
        let setting = format!("senders.{name}");
        let format = match sender.kind {
            SenderKind::Webhook => WebhookFormat::Alert,
            SenderKind::Slack => WebhookFormat::Slack,
            SenderKind::Email => return Ok(Channel::Email(Digests::new(&setting, sender)?)),
        };
        let url = sender.url.as_deref().unwrap_or_default();
        Ok(Channel::Webhook(Webhook::new(&setting, url, sender.authorization.as_deref(), format)?))
    }
}

impl Digests {
    fn new(setting: &str, sender: &Sender) -> Result<Digests, Error> {
        let login = sender.user.clone().map(|user| (user, sender.password.clone().unwrap_or_default()));
        let email = Email::new(&EmailSettings {
            setting: setting.to_owned(),
            server: sender.server.clone().unwrap_or_default(),
            port: sender.port,
            protection: match sender.encryption {
                Encryption::Starttls => Protection::Starttls,
                Encryption::Tls => Protection::Tls,
                Encryption::None => Protection::None,
            },
            login,
            from: sender.from.clone().unwrap_or_default(),
        })?;
        Ok(Digests {
            email: Arc::new(email),
            to: sender.to.clone(),
            addresses: sender.addresses.clone(),
            every: Duration::from_millis(sender.digest_every_ms),
            waiting: Vec::new(),
            since: Instant::now(),
        })
    }

    fn is_due(&self) -> bool {
        !self.waiting.is_empty() && (self.since.elapsed() >= self.every || self.waiting.len() >= DIGEST_STEPS)
    }

    /// Owners with their addresses and steps.
    fn by_owner(&self) -> BTreeMap<&str, (Option<&String>, Vec<Alert>)> {
        let mut owners: BTreeMap<&str, (Option<&String>, Vec<Alert>)> = BTreeMap::new();
        for alert in &self.waiting {
            let to = self.addresses.get(&alert.owner).or(self.to.as_ref());
            owners.entry(&alert.owner).or_insert_with(|| (to, Vec::new())).1.push(alert.clone());
        }
        owners
    }
}

struct Running<'a> {
    sending: &'a Sending,
    patience: Patience,
    teller: Teller,
    alerts: Topic,
    control: Topic,
    decode_alert: Decoder<Alert>,
    decode_control: Decoder<Acknowledgement>,
    channel: Channel,
    /// Offsets that are read next.
    positions: BTreeMap<i32, i64>,
    /// The same as the brokers know them.
    kept: BTreeMap<i32, i64>,
    sent: Sent,
}

impl Running<'_> {
    /// Takes the acknowledgements, finds the positions, and remembers what was told before them.
    fn begin(&mut self) -> Result<(), Error> {
        let Running { sending, patience, teller, alerts, control, decode_alert, decode_control, .. } = self;
        let bounds = control.bounds()?;
        let starts = bounds.iter().map(|(partition, (low, _))| (*partition, *low)).collect();
        let ends = bounds.iter().map(|(partition, (_, high))| (*partition, *high)).collect();
        control.read_through(&starts, &ends, |record| {
            acknowledge(patience, decode_control, control.name(), teller, record);
            Ok(())
        })?;
        control.assign(&ends)?;

        let bounds = alerts.bounds()?;
        self.kept = alerts.kept()?;
        for (partition, (low, high)) in &bounds {
            let start = if sending.from_beginning { *low } else { *high };
            // Offsets below the lowest have expired.
            self.positions.insert(*partition, self.kept.get(partition).copied().unwrap_or(start).max(*low));
        }
        let starts = bounds.iter().map(|(partition, (low, _))| (*partition, *low)).collect();
        alerts.read_through(&starts, &self.positions, |record| {
            if let Decoded::Value(alert) = patience.decode(decode_alert, alerts.name(), record) {
                teller.tells(&alert);
            }
            Ok(())
        })?;
        alerts.assign(&self.positions)?;
        self.keep()
    }

    fn run(&mut self) -> Result<(), Error> {
        let mut ended = BTreeSet::new();
        while !self.patience.is_stopped() {
            match self.alerts.poll(LOOK_WITHIN)? {
                Polled::Record(record) => {
                    self.acknowledgements()?;
                    ended.remove(&record.partition);
                    if !self.take(&record)? {
                        return Ok(());
                    }
                }
                Polled::End(partition) => {
                    ended.insert(partition);
                }
                Polled::Nothing => {}
            }
            let is_at_end = self.positions.keys().all(|partition| ended.contains(partition));
            let is_last = self.sending.until_end && is_at_end;
            let is_due = matches!(&self.channel, Channel::Email(digests) if digests.is_due() || is_last);
            if is_due && !self.send_digests() {
                return Ok(());
            }
            let waits = matches!(&self.channel, Channel::Email(digests) if !digests.waiting.is_empty());
            if !waits {
                self.keep()?;
            }
            if is_last {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Deals with a message. Returns false when it was stopped before that was done.
    fn take(&mut self, record: &Record) -> Result<bool, Error> {
        match self.patience.decode(&mut self.decode_alert, self.alerts.name(), record) {
            Decoded::Value(alert) => {
                if self.teller.tells(&alert) && !self.tell(record, alert) {
                    return Ok(false);
                }
            }
            Decoded::Poisoned => self.sent.skipped += 1,
            Decoded::Stopped => return Ok(false),
        }
        self.positions.insert(record.partition, record.offset + 1);
        Ok(true)
    }

    /// Tells a step now, or puts it into the next digest. Returns false when it was stopped before.
    fn tell(&mut self, record: &Record, alert: Alert) -> bool {
        let webhook = match &mut self.channel {
            Channel::Email(digests) => {
                if digests.waiting.is_empty() {
                    digests.since = Instant::now();
                }
                digests.waiting.push(alert);
                return true;
            }
            Channel::Webhook(webhook) => webhook.clone(),
        };
        let mut attempts = 0;
        loop {
            match self.patience.runtime.block_on(webhook.post(&alert)) {
                Ok(()) => {
                    self.sent.told += 1;
                    return true;
                }
                Err(NotTaken::Poisoned { why }) => {
                    self.patience.skipped(self.alerts.name(), record, &why);
                    self.sent.skipped += 1;
                    return true;
                }
                Err(NotTaken::NotYet { why, wait_ms }) => {
                    attempts += 1;
                    if !self.patience.pause(attempts, wait_ms, &why) {
                        return false;
                    }
                }
            }
        }
    }

    /// Sends a digest to each owner. Returns false when it was stopped before all were taken.
    fn send_digests(&mut self) -> bool {
        let Channel::Email(digests) = &mut self.channel else { return true };
        let email = Arc::clone(&digests.email);
        let owners: Vec<(String, Option<String>, Vec<Alert>)> = digests
            .by_owner()
            .into_iter()
            .map(|(owner, (to, alerts))| (owner.to_owned(), to.cloned(), alerts))
            .collect();
        for (owner, to, alerts) in owners {
            let Some(to) = to else {
                tracing::warn!(
                    sender = self.patience.name,
                    owner,
                    steps = alerts.len(),
                    "nobody's address is given for an owner"
                );
                self.sent.skipped += alerts.len() as u64;
                continue;
            };
            let mut attempts = 0;
            loop {
                match email.send(&to, &owner, &alerts) {
                    Ok(()) => self.sent.told += alerts.len() as u64,
                    Err(NotTaken::Poisoned { why }) => {
                        tracing::error!(sender = self.patience.name, owner, error = why, "a digest is skipped");
                        self.sent.skipped += alerts.len() as u64;
                    }
                    Err(NotTaken::NotYet { why, wait_ms }) => {
                        attempts += 1;
                        if !self.patience.pause(attempts, wait_ms, &why) {
                            return false;
                        }
                        continue;
                    }
                }
                break;
            }
        }
        if let Channel::Email(digests) = &mut self.channel {
            digests.waiting.clear();
        }
        true
    }

    /// Takes the acknowledgements that have come.
    fn acknowledgements(&mut self) -> Result<(), Error> {
        loop {
            match self.control.poll(Duration::ZERO)? {
                Polled::Record(record) => {
                    let Running { patience, control, decode_control, teller, .. } = self;
                    acknowledge(patience, decode_control, control.name(), teller, &record);
                }
                Polled::End(_) => {}
                Polled::Nothing => return Ok(()),
            }
        }
    }

    /// Tells the brokers the positions, where they have changed.
    fn keep(&mut self) -> Result<(), Error> {
        if self.kept != self.positions {
            self.alerts.keep(&self.positions)?;
            self.kept.clone_from(&self.positions);
        }
        Ok(())
    }
}

fn acknowledge(
    patience: &Patience,
    decoder: &mut Decoder<Acknowledgement>,
    topic: &str,
    teller: &mut Teller,
    record: &Record,
) {
    // A tombstone takes nothing back.
    if !record.value.is_empty()
        && let Decoded::Value(acknowledgement) = patience.decode(decoder, topic, record)
    {
        teller.acknowledge(acknowledgement);
    }
}
