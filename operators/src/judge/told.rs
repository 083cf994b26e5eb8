//! What a judge is told of a window: a tenant's cells as shares.
//!
//! Every slot of a cell becomes so many hits of so many trials, by the families that [`weir_judge`] knows. Refused records
//! and the shares of event types are told by release, over all types.

use std::collections::BTreeMap;

use weir_judge::tally::{Family, Indicator as Of, Place, Release, Row, Tally, Volume, Window, code_of};
use weir_schemas::fate::{Fate, Reason};
use xxhash_rust::xxh3::xxh3_64;

use crate::profile::{
    BUCKETS, Cell, CellKey, DELAY_FROM_MS, FieldSlots, Indicator, Kind, Layout, SCHEMAS, Spot, Spots, Users,
};
use crate::record::reason_of;

/// The code of records that came too late for their window, beside the buckets of delay.
const TOO_LATE: u64 = 100;

/// How the labels of a map's keys begin.
pub(super) const KEYS: &str = "keys";

/// Whether an indicator is told of a release over all event types, and not of each.
pub(super) fn is_of_release(indicator: Of) -> bool {
    matches!(indicator.family, Family::Refused | Family::Lost | Family::TypeShare | Family::Volume)
        || (indicator.family == Family::Late && indicator.code == TOO_LATE)
}

/// How the fields and rules of a source are told.
#[derive(Clone, Debug)]
pub struct Telling {
    /// What the slots count.
    pub layout: std::sync::Arc<Layout>,
    /// The ids of the rules that let events pass, by number.
    pub rules: Vec<String>,
}

/// The counts of a release over all event types.
#[derive(Default)]
struct Whole {
    events: u64,
    users: Users,
    types: BTreeMap<Vec<u8>, u64>,
    /// What is of no event type: refused records, and numbers of sequences.
    untyped: Cell,
    range: Option<(Spot, Spot)>,
}

/// A tally that is being written.
struct Writing<'a> {
    telling: &'a Telling,
    tally: Tally,
    texts: BTreeMap<String, u32>,
}

/// What all rows of a cell, or of a release, have in common.
#[derive(Clone, Copy)]
struct Common {
    release: u32,
    event_type: u32,
    range: (Spot, Spot),
}

impl Telling {
    /// A hash of what the slots mean, so that cells which were counted by others are known.
    pub(super) fn hash(&self) -> u64 {
        let fields = self.layout.fields().iter();
        let fields: Vec<String> =
            fields.map(|field| format!("{} {:?} {}", field.name, field.kind, field.first)).collect();
        xxh3_64(format!("{} {}", fields.join(","), self.rules.join(",")).as_bytes())
    }

    /// The tally of a tenant's cells of one window, in the order of their keys.
    pub fn tell(&self, tenant: &[u8], window: Window, cells: &BTreeMap<CellKey, Cell>) -> Tally {
        let tally = Tally {
            tenant: text(tenant),
            window,
            releases: Vec::new(),
            release_users: Vec::new(),
            texts: vec![String::new()],
            rows: Vec::new(),
            volumes: Vec::new(),
        };
        let mut writing = Writing { telling: self, tally, texts: BTreeMap::from([(String::new(), 0)]) };
        let mut wholes: BTreeMap<&[Vec<u8>; 3], Whole> = BTreeMap::new();
        let mut types: BTreeMap<&[u8], (u64, Users)> = BTreeMap::new();
        for (key, cell) in cells {
            let events = u64::from(cell.count(Layout::EVENTS));
            let whole = wholes.entry(&key.release).or_default();
            whole.events += events;
            whole.users.merge(&cell.users);
            cell.range.iter().for_each(|&(first, last)| whole.cover(first, last));
            if events > 0 {
                *whole.types.entry(key.event_type.clone()).or_default() += events;
                let (all, users) = types.entry(&key.event_type).or_default();
                *all += events;
                users.merge(&cell.users);
            }
            let (refused, sequences) = (cell.refused.clone(), cell.sequences.clone());
            whole.untyped.merge(Cell { refused, sequences, ..Cell::default() });
        }
        for (release, whole) in &wholes {
            let number = writing.release(release, whole);
            writing.whole(number, whole);
            for (key, cell) in cells.iter().filter(|(key, _)| key.release == **release) {
                writing.cell(number, &key.event_type, cell);
            }
        }
        for (event_type, (events, users)) in types {
            let event_type = writing.text(&text(event_type));
            writing.tally.volumes.push(Volume { event_type, events, users: about(users.estimate()) });
        }
        writing.tally
    }
}

impl Whole {
    fn cover(&mut self, first: Spot, last: Spot) {
        let (least, greatest) = self.range.unwrap_or((first, last));
        self.range = Some((least.min(first), greatest.max(last)));
    }
}

impl Writing<'_> {
    fn text(&mut self, text: &str) -> u32 {
        if let Some(&at) = self.texts.get(text) {
            return at;
        }
        let at = self.tally.texts.len() as u32;
        self.tally.texts.push(text.to_owned());
        self.texts.insert(text.to_owned(), at);
        at
    }

    fn release(&mut self, release: &[Vec<u8>; 3], whole: &Whole) -> u32 {
        let [sdk, sdk_version, app_version] = release.each_ref().map(|part| text(part));
        self.tally.releases.push(Release { sdk, sdk_version, app_version });
        self.tally.release_users.push(about(whole.users.estimate()));
        self.tally.releases.len() as u32 - 1
    }

    #[allow(clippy::too_many_arguments, reason = "one row's facts; a struct would be built for this call alone")]
    fn row(
        &mut self,
        of: Common,
        field: u32,
        family: Family,
        code: u64,
        label: u32,
        hits: u64,
        trials: u64,
        examples: Spots,
    ) {
        if trials == 0 {
            return;
        }
        self.tally.rows.push(Row {
            release: of.release,
            event_type: of.event_type,
            field,
            indicator: Of { family, code },
            label,
            hits: hits.min(trials),
            trials,
            users: 0,
            first: place(examples.iter().next().unwrap_or(of.range.0)),
            last: place(of.range.1),
            examples: examples.iter().map(place).collect(),
        });
    }

    /// What is told of a release over all of its types: what was refused, too late or lost, and the share of each type.
    fn whole(&mut self, release: u32, whole: &Whole) {
        let Some(range) = whole.range else { return };
        let of = Common { release, event_type: 0, range };
        let is_late = |reason: u8| reason_of(reason).is_ok_and(|reason: Reason| reason.fate() != Fate::Quarantined);
        let records = |late: bool| -> u64 {
            let some = whole.untyped.refused.iter().filter(|((reason, _), _)| is_late(*reason) == late);
            some.map(|(_, refusals)| refusals.records).sum()
        };
        let (late, refused) = (records(true), records(false));
        let trials = whole.events + refused;
        // A row without hits says that it was measured.
        self.row(of, 0, Family::Refused, 0, 0, 0, trials, Spots::default());
        for ((reason, bucket), refusals) in &whole.untyped.refused {
            let Ok(named) = reason_of(*reason) else { continue };
            if is_late(*reason) {
                continue;
            }
            let label = format!("{}: {}", named.name(), String::from_utf8_lossy(&refusals.detail));
            let label = self.text(label.trim_end_matches([':', ' ']));
            let code = u64::from(*reason) << 8 | u64::from(*bucket) | 1 << 16;
            let mut spots = Spots::default();
            spots.offer(refusals.spot);
            self.row(of, 0, Family::Refused, code, label, refusals.records, trials, spots);
        }
        let label = self.text("too late for its window");
        self.row(of, 0, Family::Late, TOO_LATE, label, late, whole.events + late, Spots::default());
        for ((rule, field), numbers) in &whole.untyped.sequences {
            let (rule, field) = (text(rule), text(field));
            let (code, label, field) = (code_of(&rule), self.text(&rule), self.text(&field));
            let trials = numbers.received.saturating_add(numbers.missing);
            self.row(of, field, Family::Lost, code, label, numbers.missing, trials, numbers.behind);
        }
        for (event_type, events) in &whole.types {
            let name = text(event_type);
            let label = self.text(&name);
            self.row(of, 0, Family::TypeShare, code_of(&name), label, *events, whole.events, Spots::default());
        }
    }

    /// What is told of a release's events of one type.
    fn cell(&mut self, release: u32, event_type: &[u8], cell: &Cell) {
        let events = u64::from(cell.count(Layout::EVENTS));
        let copies = u64::from(cell.count(Layout::COPIES));
        let Some(range) = cell.range.filter(|_| events + copies > 0) else { return };
        let event_type = self.text(&text(event_type));
        let of = Common { release, event_type, range };
        let examples = |slot: usize| cell.examples.get(&(slot as u32)).copied().unwrap_or_default();
        self.row(of, 0, Family::Duplicate, 0, 0, copies, events + copies, examples(Layout::COPIES));
        let telling = self.telling;
        for slot in Layout::DELAY..Layout::RULE + telling.rules.len() {
            let hits = u64::from(cell.count(slot));
            let example = examples(slot);
            match telling.layout.indicator(slot).1 {
                Indicator::Delay(bucket @ 0..=1) => {
                    let label = self.text(DELAYS[usize::from(bucket)]);
                    self.row(of, 0, Family::Skew, u64::from(bucket), label, hits, events, example);
                }
                // In time is no fault. A row without hits says that delays were looked at.
                Indicator::Delay(2) => {}
                Indicator::Delay(bucket) if hits > 0 || bucket == 3 => {
                    let label = self.text(DELAYS.get(usize::from(bucket)).copied().unwrap_or_default());
                    self.row(of, 0, Family::Late, u64::from(bucket), label, hits, events, example);
                }
                Indicator::Schema(bucket) if hits > 0 => {
                    let label = self.text(&format!("schema id modulo {SCHEMAS} = {bucket}"));
                    self.row(of, 0, Family::Schema, u64::from(bucket), label, hits, events, example);
                }
                Indicator::Rule(number) => {
                    let id = telling.rules.get(usize::from(number)).map_or("", String::as_str);
                    let (code, label) = (code_of(id), self.text(id));
                    self.row(of, 0, Family::Tagged, code, label, hits, events, example);
                }
                _ => {}
            }
        }
        for field in telling.layout.fields() {
            self.field(of, field, events, cell);
        }
    }

    fn field(&mut self, of: Common, slots: &FieldSlots, events: u64, cell: &Cell) {
        let field = self.text(&slots.name);
        let count = |slot: usize| u64::from(cell.count(slot));
        let (null, default, numeric) = (slots.first, slots.first + 1, slots.first + 2);
        let values = events.saturating_sub(count(null));
        // Places of these are found when somebody is told, by what the events hold.
        let none = Spots::default();
        self.row(of, field, Family::Null, 0, 0, count(null), events, none);
        self.row(of, field, Family::Default, 0, 0, count(default), events, none);
        let buckets = (0..usize::from(BUCKETS)).map(|bucket| (bucket, count(slots.first + FieldSlots::HEAD + bucket)));
        match slots.kind {
            Kind::Opaque => {}
            Kind::Text => {
                self.row(of, field, Family::Drift, 0, 0, count(numeric), values, none);
                for (bucket, hits) in buckets.filter(|(_, hits)| *hits > 0) {
                    let label = self.text(&format!("values with xxh3 modulo {BUCKETS} = {bucket}"));
                    self.row(of, field, Family::Category, bucket as u64 + 1, label, hits, values, none);
                }
            }
            Kind::Number => {
                for (bucket, hits) in buckets.filter(|(_, hits)| *hits > 0) {
                    let label = self.text(&magnitude_name(bucket));
                    self.row(of, field, Family::Number, bucket as u64 + 1, label, hits, values, none);
                }
            }
            Kind::Map => {
                // A row without hits says that keys were looked for, also where every map is empty.
                self.row(of, field, Family::Category, 0, 0, 0, values, none);
                for (bucket, hits) in buckets.filter(|(_, hits)| *hits > 0) {
                    let label = self.text(&format!("{KEYS} whose xxh3 modulo {BUCKETS} = {bucket}"));
                    self.row(of, field, Family::Category, bucket as u64 + 1, label, hits, values, none);
                }
            }
        }
    }
}

/// Names of the buckets of delay, by [`delay_bucket`](crate::profile::delay_bucket).
const DELAYS: [&str; 8] = [
    "an hour or more ahead of its record",
    "a minute or more ahead of its record",
    "within a minute of its record",
    "1 to 10 minutes late",
    "10 minutes to an hour late",
    "1 to 6 hours late",
    "6 hours to a day late",
    "a day or more late",
];

/// The name of a bucket of numbers, by [`magnitude`](crate::profile::magnitude).
fn magnitude_name(bucket: usize) -> String {
    match bucket {
        0 => "zero".to_owned(),
        1 => "negative".to_owned(),
        2 => format!("below {}", 0.25_f64.powi(3)),
        15 => "262144 or more, or not finite".to_owned(),
        step => {
            let least = 4_f64.powi(step as i32 - 6);
            format!("{least} to below {}", least * 4.0)
        }
    }
}

/// The condition of a bucket of delay in SQL, over a delay in milliseconds.
pub(super) fn range_of_delay(delay_ms: &str, code: u64) -> String {
    let bucket = usize::try_from(code).unwrap_or(usize::MAX);
    let least = bucket.checked_sub(1).and_then(|before| DELAY_FROM_MS.get(before));
    let least = least.map(|from| format!("{delay_ms} >= {from}"));
    let most = DELAY_FROM_MS.get(bucket).map(|next| format!("{delay_ms} < {next}"));
    least.into_iter().chain(most).collect::<Vec<_>>().join(" AND ")
}

/// The condition of a bucket of numbers in SQL, by the code that its row has.
pub(super) fn range_of_bucket(field: &str, code: u64) -> String {
    match code.saturating_sub(1) {
        0 => format!("{field} = 0"),
        1 => format!("{field} < 0"),
        2 => format!("{field} > 0 AND {field} < {}", 0.25_f64.powi(3)),
        15 => format!("{field} >= 262144 OR NOT isFinite(toFloat64({field}))"),
        step => {
            let least = 4_f64.powi(i32::try_from(step).unwrap_or(0) - 6);
            format!("{field} >= {least} AND {field} < {}", least * 4.0)
        }
    }
}

fn place(spot: Spot) -> Place {
    Place { topic: spot.0, partition: spot.1, offset: spot.2 }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn about(users: f64) -> u32 {
    users.round().clamp(0.0, f64::from(u32::MAX)) as u32
}
