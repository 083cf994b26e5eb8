//! What a schema id means right now: a decoder, a reason to refuse its records, or a wait.
//!
//! Ids come from records that anybody may have written, so waiting for them is bounded in number and in time. While a
//! partition waits for one id, the ids that stand behind it are asked for, too, and their grace periods run at once. And
//! after a grace period that was waited out in vain the partition waits for no unknown id for [`RESTS`] further ones: the
//! registry's answer then counts at once. So made-up ids hold a partition up for a fifth of the time at most.
//!
//! Not here: asking the registry, which the cache does on threads of its own, and remembering its answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use weir_schemas::avro::Decoder;
use weir_schemas::fate::Reason;
use weir_schemas::frame::frame;
use weir_schemas::registry::{Cached, SchemaCache};
use weir_schemas::time::EventTime;

use super::intake::{Run, Sheets};
use super::judgement::{Judgement, Kind};
use super::message::Message;
use super::stream::Plan;

/// Grace periods for which a partition doesn't wait after one that it waited out in vain.
const RESTS: u64 = 4;
/// Ids behind the one that is waited for that are asked for at once.
const AHEAD_IDS: usize = 256;
/// How often those are looked for, in milliseconds.
const AHEAD_EVERY_MS: u64 = 20;
/// Ids that were asked for ahead and are remembered as answered.
const ANSWERED_MAX: usize = 16_384;

/// What a schema id means right now.
pub(super) enum Resolved {
    Ready(Arc<Decoder>),
    Park(String),
    Refuse(Reason, String),
}

impl Resolved {
    /// The registry doesn't know `id`, and nobody waits for it any more.
    pub(super) fn unknown(id: u32) -> Resolved {
        Resolved::Refuse(Reason::UnknownSchema, format!("the registry has no schema {id}"))
    }
}

/// How long a partition still waits for ids that the registry doesn't know.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// When the wait for the record in front is over, while there is one.
    waits_until_ms: Option<u64>,
    /// Until when nothing unknown is waited for.
    rests_until_ms: u64,
    /// When the ids behind the one in front were last asked for.
    asked_ahead_at_ms: Option<u64>,
    /// Those that have an answer, so that the further ones get their turn.
    answered: HashSet<u32>,
}

impl Patience {
    /// Whether the registry's word that it doesn't know an id, which it was first asked for at `first_asked_at_ms`, is
    /// taken for good.
    fn is_over(&mut self, now_ms: u64, first_asked_at_ms: u64, grace_ms: u64) -> bool {
        let is_old = now_ms.saturating_sub(first_asked_at_ms) >= grace_ms;
        if now_ms < self.rests_until_ms || (is_old && self.waits_until_ms.is_none()) {
            return true;
        }
        let until = *self.waits_until_ms.get_or_insert(now_ms.saturating_add(grace_ms));
        let is_over = is_old || now_ms >= until;
        if is_over {
            self.waits_until_ms = None;
            self.rests_until_ms = now_ms.saturating_add(grace_ms.saturating_mul(RESTS));
        }
        is_over
    }

    /// The record in front needs no wait, or no longer.
    fn found(&mut self) {
        self.waits_until_ms = None;
    }

    /// Whether it is time to ask for the ids behind the one in front.
    pub(super) fn asks_ahead(&mut self, now_ms: i64) -> bool {
        let now_ms = millis(now_ms);
        let is_due = self.asked_ahead_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= AHEAD_EVERY_MS);
        if is_due {
            self.asked_ahead_at_ms = Some(now_ms);
        }
        is_due
    }
}

/// The decoders of one worker, by writer schema.
#[derive(Default)]
pub(super) struct Decoders(HashMap<u32, Result<Arc<Decoder>, String>>);

impl Decoders {
    /// What `id` means for the record in front of a partition.
    pub(super) fn resolve(
        &mut self,
        plan: &Plan,
        schemas: &SchemaCache,
        id: u32,
        patience: &mut Patience,
        now_ms: i64,
    ) -> Resolved {
        let now = millis(now_ms);
        let known = match self.0.get(&id) {
            Some(known) => known.clone(),
            None => match schemas.get(id, now) {
                Cached::Ready(writer) => {
                    let reader = Arc::clone(&plan.reader);
                    let made = Decoder::with_codes(&writer.schema, reader, &plan.wanted, plan.codes.as_ref());
                    let made = made.map(Arc::new).map_err(|problems| {
                        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
                        format!("schema {id}: {}", told.join("; "))
                    });
                    self.0.insert(id, made.clone());
                    made
                }
                Cached::Unusable(why) => Err(format!("schema {id}: {why}")),
                Cached::Pending => return Resolved::Park(format!("asking the registry for schema {id}")),
                Cached::Unavailable(why) => {
                    return Resolved::Park(format!("the registry can't be asked for schema {id}: {why}"));
                }
                Cached::Unknown { first_asked_at_ms } => {
                    return match patience.is_over(now, first_asked_at_ms, plan.grace_ms) {
                        true => Resolved::unknown(id),
                        false => Resolved::Park(format!("the registry doesn't know schema {id} yet")),
                    };
                }
            },
        };
        patience.found();
        match known {
            Ok(decoder) => Resolved::Ready(decoder),
            Err(why) => Resolved::Refuse(Reason::IncompatibleSchema, why),
        }
    }

    /// Asks for ids of `waiting` that aren't known, so that each isn't waited for after the other.
    pub(super) fn ask_ahead<'a>(
        &self,
        schemas: &SchemaCache,
        waiting: impl Iterator<Item = &'a Message>,
        patience: &mut Patience,
        now_ms: i64,
    ) {
        if patience.answered.len() >= ANSWERED_MAX {
            patience.answered.clear();
        }
        let mut asked = HashSet::new();
        for message in waiting {
            let Some(Ok(framed)) = message.value().map(frame) else { continue };
            let id = framed.schema_id;
            if self.0.contains_key(&id) || patience.answered.contains(&id) || !asked.insert(id) {
                continue;
            }
            if !matches!(schemas.get(id, millis(now_ms)), Cached::Pending) {
                patience.answered.insert(id);
            }
            if asked.len() >= AHEAD_IDS {
                return;
            }
        }
    }
}

fn millis(now_ms: i64) -> u64 {
    u64::try_from(now_ms).unwrap_or(0)
}

/// Refuses the records of a run for their schema's sake.
pub(super) fn refuse_all(
    run: &Run<'_>,
    messages: &[Message],
    id: Option<u32>,
    reason: Reason,
    detail: &str,
    watermark: EventTime,
    sheets: &mut Sheets,
) {
    for message in messages {
        run.refuse(message, id, reason, detail, watermark, sheets);
    }
    // That the grace period is over was decided by the clock; that a schema is incompatible was not.
    if let (Reason::UnknownSchema, Some(first), Some(last)) = (reason, messages.first(), messages.last()) {
        sheets.judgements.add(&Judgement {
            judged_at_ms: run.now_ms,
            topic: run.topic,
            partition: run.partition.number,
            offset: first.offset(),
            last_offset: last.offset(),
            kind: Kind::UnknownSchema,
            epoch: run.epoch,
            watermark,
            detail: &format!("{} records, {detail}", messages.len()),
        });
    }
}

/// Takes records that name no schema: tombstones, and what has no frame.
pub(super) fn take_unframed(run: &Run<'_>, messages: &[Message], watermark: EventTime, sheets: &mut Sheets) {
    for message in messages {
        match message.value().map(frame) {
            None => run.tombstone(message, sheets),
            Some(Err((reason, detail))) => run.refuse(message, None, reason, &detail, watermark, sheets),
            Some(Ok(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE_MS: u64 = 1_000;

    #[test]
    fn ids_share_a_wait_and_after_one_in_vain_there_is_none_for_a_while() {
        let mut patience = Patience::default();
        assert!(!patience.is_over(10_000, 10_000, GRACE_MS));
        assert!(!patience.is_over(10_999, 10_000, GRACE_MS));
        assert!(patience.is_over(11_000, 10_000, GRACE_MS), "the first has had its time");
        assert!(
            patience.is_over(11_001, 11_001, GRACE_MS),
            "the second is refused as soon as the registry has answered"
        );
        assert!(patience.is_over(14_999, 14_999, GRACE_MS));
        assert!(!patience.is_over(15_000, 15_000, GRACE_MS), "after a while one is waited for again");
    }

    #[test]
    fn an_id_that_comes_to_be_known_costs_the_next_one_nothing() {
        let mut patience = Patience::default();
        assert!(!patience.is_over(10_000, 10_000, GRACE_MS));
        patience.found();
        assert!(!patience.is_over(10_900, 10_900, GRACE_MS));
        assert!(!patience.is_over(11_800, 10_900, GRACE_MS), "it has a grace period of its own");
        assert!(patience.is_over(11_900, 10_900, GRACE_MS));
    }

    #[test]
    fn an_id_that_was_refused_before_is_refused_without_a_wait_and_takes_no_patience() {
        let mut patience = Patience::default();
        assert!(patience.is_over(50_000, 10_000, GRACE_MS));
        assert!(!patience.is_over(50_001, 50_001, GRACE_MS), "another one is waited for");
    }
}
