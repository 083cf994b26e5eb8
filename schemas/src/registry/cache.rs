//! Schemas by id for worker threads: an answer at once, the asking in the background.
//!
//! A worker that meets a new id gets [`Cached::Pending`] and parks the partition; by the time it looks again the schema
//! is there, or the reason why not. A found schema stays for ever. Nothing else does: an id that the registry doesn't
//! know is asked again for as long as workers ask for it (a producer may be registering it just now), and so is
//! everything after a failure, both no more often than the backoff allows.
//!
//! Invariants: [`SchemaCache::get`] never waits for the network; at most 8 requests are under way; at most 10,000 ids
//! that have no schema are remembered, since ids come from records that anybody may have written. When that many are,
//! those that the registry doesn't know and that nobody has asked for lately make room for new ones.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use super::ParsedSchema;
use super::client::{Lookup, Registry};

/// Requests under way at once.
const REQUESTS_MAX: usize = 8;
/// Ids without a schema that are remembered at once.
const ENTRIES_MAX: usize = 10_000;
/// The first wait before an id is asked for again, in milliseconds; each further one is twice as long.
const BACKOFF_MS: u64 = 250;
/// The longest wait, in milliseconds.
const BACKOFF_MAX_MS: u64 = 10_000;

/// What is known of an id.
#[derive(Clone, Debug)]
pub enum Cached {
    /// Its schema.
    Ready(Arc<ParsedSchema>),
    /// It is being asked for, or will be when there is room.
    Pending,
    /// The registry has answered that it doesn't know the id.
    Unknown {
        /// When it was first asked of those times that it answered so, in milliseconds of the workers' clock: the time
        /// of an outage before that doesn't count against the id.
        first_asked_at_ms: u64,
    },
    /// The registry has a schema of that id that can't be used, and why; for ever.
    Unusable(Arc<str>),
    /// The registry can't be asked, and why, its refusal of our credentials included.
    Unavailable(Arc<str>),
}

/// Where a cache gets schemas from: a registry, or a test's stand-in for one.
pub trait SchemaSource: Send + Sync + 'static {
    /// Looks up the schema of an id.
    fn look_up(&self, id: u32) -> Pin<Box<dyn Future<Output = Lookup<ParsedSchema>> + Send + '_>>;
}

impl SchemaSource for Registry {
    fn look_up(&self, id: u32) -> Pin<Box<dyn Future<Output = Lookup<ParsedSchema>> + Send + '_>> {
        Box::pin(self.by_id(id))
    }
}

/// Schemas by id, shared by all workers. Cheap to clone.
#[derive(Clone)]
pub struct SchemaCache {
    source: Arc<dyn SchemaSource>,
    handle: Handle,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    entries: HashMap<u32, Entry>,
    requests: usize,
    /// Entries that aren't settled.
    open: usize,
}

struct Entry {
    answer: Answer,
    asking: bool,
    failures: u32,
    first_unknown_at_ms: Option<u64>,
    /// Not asked again before this time of the workers' clock.
    ask_at_ms: u64,
}

impl State {
    /// Forgets the ids that the registry doesn't know and that would be asked again by now if anybody wanted them.
    fn make_room(&mut self, now_ms: u64) {
        self.entries
            .retain(|_, entry| entry.asking || !matches!(entry.answer, Answer::Unknown) || now_ms < entry.ask_at_ms);
        self.open = self.entries.values().filter(|entry| !entry.answer.is_settled()).count();
    }
}

#[derive(Clone)]
enum Answer {
    Nothing,
    Ready(Arc<ParsedSchema>),
    Unusable(Arc<str>),
    Unknown,
    Unavailable(Arc<str>),
}

impl Answer {
    /// Whether it holds for ever.
    fn is_settled(&self) -> bool {
        matches!(self, Answer::Ready(_) | Answer::Unusable(_))
    }
}

impl SchemaCache {
    /// An empty cache that asks `source` on the runtime of `handle`.
    pub fn new(source: impl SchemaSource, handle: Handle) -> SchemaCache {
        SchemaCache { source: Arc::new(source), handle, state: Arc::default() }
    }

    /// What is known of `id` now; asks in the background when that isn't its schema and enough time has passed.
    /// `now_ms` is any clock in milliseconds that doesn't go back, the same for all callers.
    pub fn get(&self, id: u32, now_ms: u64) -> Cached {
        let mut state = self.lock();
        let room = state.requests < REQUESTS_MAX;
        if !state.entries.contains_key(&id) {
            if state.open >= ENTRIES_MAX {
                state.make_room(now_ms);
            }
            if state.open >= ENTRIES_MAX {
                return Cached::Unavailable("too many unknown schema ids are asked for at once".into());
            }
            state.open += 1;
        }
        let entry = state.entries.entry(id).or_insert(Entry {
            answer: Answer::Nothing,
            asking: false,
            failures: 0,
            first_unknown_at_ms: None,
            ask_at_ms: now_ms,
        });
        let answer = match &entry.answer {
            Answer::Ready(schema) => return Cached::Ready(Arc::clone(schema)),
            Answer::Unusable(why) => return Cached::Unusable(Arc::clone(why)),
            Answer::Nothing => Cached::Pending,
            Answer::Unknown => Cached::Unknown { first_asked_at_ms: entry.first_unknown_at_ms.unwrap_or(now_ms) },
            Answer::Unavailable(why) => Cached::Unavailable(Arc::clone(why)),
        };
        if room && !entry.asking && now_ms >= entry.ask_at_ms {
            entry.asking = true;
            state.requests += 1;
            self.ask(id, now_ms);
        }
        answer
    }

    /// Whether an answer is under way. Who invents time waits for it: an answer comes in real time.
    pub fn is_asking(&self) -> bool {
        self.lock().requests > 0
    }

    fn ask(&self, id: u32, asked_at_ms: u64) {
        let cache = self.clone();
        self.handle.spawn(async move {
            // A request that panics or is cancelled still gives its place back.
            let mut place =
                Place { cache, id, asked_at_ms, answer: Answer::Unavailable("the request was cut off".into()) };
            let source = Arc::clone(&place.cache.source);
            place.answer = match source.look_up(id).await {
                Lookup::Found(schema) => Answer::Ready(Arc::new(schema)),
                Lookup::Unusable(why) => Answer::Unusable(why.into()),
                Lookup::Unknown => Answer::Unknown,
                Lookup::Unavailable(why) => Answer::Unavailable(why.into()),
                Lookup::Refused(why) => {
                    Answer::Unavailable(format!("the registry refuses our credentials: {why}").into())
                }
            };
        });
    }

    /// The state stays whole even if a thread panicked while it held it: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request under way.
struct Place {
    cache: SchemaCache,
    id: u32,
    asked_at_ms: u64,
    answer: Answer,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        state.requests = state.requests.saturating_sub(1);
        let settled = self.answer.is_settled();
        if let Some(entry) = state.entries.get_mut(&self.id) {
            entry.asking = false;
            entry.ask_at_ms =
                self.asked_at_ms.saturating_add((BACKOFF_MS << entry.failures.min(16)).min(BACKOFF_MAX_MS));
            entry.failures = entry.failures.saturating_add(1);
            if matches!(self.answer, Answer::Unknown) {
                entry.first_unknown_at_ms.get_or_insert(self.asked_at_ms);
            }
            entry.answer = self.answer.clone();
        }
        if settled {
            state.open = state.open.saturating_sub(1);
        }
    }
}
