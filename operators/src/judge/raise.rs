//! Raises alerts: what the judges of all tenants found in a window becomes one alert per problem.
//!
//! Everything comes together in one key group, since a fault of a release shows in many tenants and is one problem. A window
//! is closed when the judges of all key groups have said that they are through with it. The watermark doesn't say so: judges
//! leave work for later epochs, and whoever goes on after a kill in between knows the watermark at once.
//!
//! State: the findings of windows that aren't closed yet, up to where each key group is judged, and the book of alerts, the
//! latter two written when they have changed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow_array::types::{Int64Type, UInt16Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::ArrowError;
use weir_judge::alert::{Alert as Judged, Change, Facts, Reason, Severity as Class, Symptom};
use weir_judge::book::{Book, Manners, WindowSignals};
use weir_judge::cause::CauseKind;
use weir_judge::tally::{Family, Place, Release};
use weir_schemas::time::EventTime;

use super::query::{Names, query};
use super::{Court, RAISING_GROUP};
use crate::account::TopicNames;
use crate::detect::alerts::{Alert, AlertRows, Severity, Status};
use crate::detect::policy::Policy;
use crate::error::Error;
use crate::operator::{Context, Operator};
use crate::profile::Spot;
use crate::route::GROUPS;
use crate::state::{ByteTable, KeyedTable, StateRegistry, Stored};
use crate::tally::{binary, primitive};
use crate::wanted::{Search, Wanted, shows};

/// Tables of the operator's state; the numbers are part of the keys on disk.
const FINDINGS_TABLE: u16 = 0;
const BOOK_TABLE: u16 = 1;
const JUDGED_TABLE: u16 = 2;
/// The detector's name in alerts.
const DETECTOR: &str = "judge";

/// The operator; its input is what [`Judge`](super::Judge) emits, by group.
pub struct Raise {
    court: Court,
    names: Names,
    manners: Manners,
    rows: AlertRows,
    /// Findings by window and tenant, encoded as they came.
    findings: KeyedTable<(i64, Vec<u8>), Vec<u8>>,
    windows: BTreeMap<i64, ()>,
    shelf: ByteTable,
    book: Book,
    /// Every window of a key group that ends here or before is judged, by group; on disk the same, in one value.
    judged: Vec<i64>,
    judged_table: ByteTable,
    /// Key groups of which all windows that there are were judged, since the run is over.
    ended: Vec<bool>,
    has_heard: bool,
    /// Whether this worker has the one key group.
    is_here: bool,
}

impl Raise {
    /// Goes on with what `registry` holds; the topics' numbers are the indices of `topics`.
    pub fn new(
        court: Court,
        names: Names,
        source: &str,
        policy: Policy,
        topics: Vec<TopicNames>,
        memory_bytes: usize,
        registry: &mut StateRegistry,
    ) -> Result<Raise, Error> {
        let mut findings: KeyedTable<(i64, Vec<u8>), Vec<u8>> = registry.keyed(FINDINGS_TABLE, memory_bytes)?;
        let mut windows = BTreeMap::new();
        findings.scan(|_, (window, _), _| {
            windows.insert(window, ());
            Ok(ControlFlow::Continue(()))
        })?;
        let shelf = registry.table(BOOK_TABLE)?;
        let is_here = registry.owned().contains(&RAISING_GROUP);
        let book = if is_here { read_book(&shelf)? } else { Book::default() };
        let judged_table = registry.table(JUDGED_TABLE)?;
        let judged = if is_here { read_judged(&judged_table)? } else { Vec::new() };
        let manners = Manners { source: source.to_owned(), ..Manners::default() };
        let rows = AlertRows::new(source.to_owned(), topics, policy);
        let has_heard = false;
        Ok(Raise {
            court,
            names,
            manners,
            rows,
            findings,
            windows,
            shelf,
            book,
            ended: vec![false; judged.len()],
            judged,
            judged_table,
            has_heard,
            is_here,
        })
    }

    /// Closes a window: all findings of it, as one.
    fn close(&mut self, start: i64) -> Result<Vec<Alert>, Error> {
        let (mut found, mut keys) = (Vec::new(), Vec::new());
        self.findings.scan_prefix(RAISING_GROUP, &start, |key: (i64, Vec<u8>), bytes| {
            found.push(WindowSignals::from_bytes(&bytes).ok_or_else(|| foreign("findings"))?);
            keys.push(key);
            Ok(ControlFlow::Continue(()))
        })?;
        for key in keys {
            self.findings.remove(RAISING_GROUP, &key)?;
        }
        let mut all = WindowSignals::default();
        for one in found {
            all.window = one.window;
            all.signals.extend(one.signals);
            all.releases.extend(one.releases);
            all.users.extend(one.users);
        }
        let counts: Counts = all.signals.iter().map(|signal| (signal.series(), (signal.hits, signal.trials))).collect();
        let changed = self.book.close(all, &self.manners, &NoFacts);
        Ok(changed.iter().map(|alert| self.told(alert, start, &counts)).collect())
    }

    /// An alert's step as its row says it.
    fn told(&self, alert: &Judged, window_start: i64, counts: &Counts) -> Alert {
        let width = self.court.window.0;
        let begins = |window: u32| i64::from(window).saturating_mul(width);
        let strongest = alert.symptoms.first();
        let names = |of: fn(&Symptom) -> &str| distinct(alert.symptoms.iter().map(of));
        let release = alert.first_bad.as_ref();
        let part = |of: Option<&String>| of.map(|text| text.clone().into_bytes()).unwrap_or_default();
        let (affected, records) = affected(alert, counts);
        let is_refusal = strongest.is_some_and(|symptom| symptom.indicator.family == Family::Refused);
        let label = || strongest.map(|symptom| symptom.label.clone()).unwrap_or_default();
        let of_rule = |symptom: &&Symptom| matches!(symptom.indicator.family, Family::Tagged | Family::Lost);
        let rule = strongest.filter(of_rule).map(|_| label());
        Alert {
            window_start,
            window_end: window_start.saturating_add(width),
            fingerprint: format!("{:016x}", alert.fingerprint),
            revision: alert.revision,
            status: match alert.change {
                Change::Opened => Status::Open,
                Change::Updated => Status::Update,
                Change::Resolved => Status::Resolved,
                Change::Reopened => Status::Reopened,
            },
            status_reason: match alert.reason {
                None => String::new(),
                Some(Reason::Recovered) => "all symptoms are back in order".to_owned(),
                Some(Reason::Vanished) => "the senders at fault aren't heard of any more".to_owned(),
                Some(Reason::PartOf(other)) => format!("part of alert {other:016x}"),
            },
            severity: match alert.severity {
                Class::Low => Severity::Info,
                Class::Minor | Class::Major => Severity::Warning,
                Class::Critical => Severity::Critical,
            },
            opened_at: begins(alert.opened_in),
            last_seen_at: begins(alert.last_seen).saturating_add(width),
            detector: DETECTOR,
            indicator: strongest.map_or("", |symptom| symptom.indicator.family.name()),
            cause_kind: alert.cause.kind.name(),
            cause: cause_of(alert).into_bytes(),
            tenants: alert.tenants.iter().map(|tenant| tenant.clone().into_bytes()).collect(),
            tenant_count: u64::from(alert.tenants_count),
            release: [
                part(release.map(|release| &release.sdk).or(alert.cause.scope.sdk.as_ref())),
                part(release.map(|release| &release.sdk_version)),
                part(release.map(|release| &release.app_version)),
            ],
            last_good: alert.last_good.as_ref().map(name_of).unwrap_or_default(),
            event_types: names(|symptom| &symptom.event_type),
            fields: names(|symptom| &symptom.field),
            rule: rule.unwrap_or_default().into_bytes(),
            reason: if is_refusal { "refused" } else { "" },
            detail: strongest.map(describe).unwrap_or_default().into_bytes(),
            affected_records: affected,
            records,
            affected_share: affected as f64 / records.max(1) as f64,
            affected_users: self.names.has_users.then(|| alert.users.round().max(0.0) as u64),
            seen: strongest.map_or(0.0, |symptom| symptom.share_now),
            expected: strongest.map(|symptom| symptom.expected),
            expected_lower: strongest.map(|symptom| symptom.lower),
            expected_upper: strongest.map(|symptom| symptom.upper),
            statistic: strongest.map(statistic).unwrap_or_default(),
            first_place: alert.first_place.map(spot),
            last_place: alert.last_place.map(spot),
            examples: alert.examples.iter().copied().map(spot).collect(),
            wanted: wanted(alert),
            query: query(&self.names, &self.manners.source, alert, begins(alert.since), width),
        }
    }
}

impl Operator for Raise {
    fn on_batch(&mut self, batch: RecordBatch, _: &mut Context<'_>) -> Result<(), Error> {
        let (windows, signals) = (primitive::<Int64Type>(&batch, 1)?, binary(&batch, 2)?);
        let (from, upto) = (primitive::<UInt16Type>(&batch, 3)?, primitive::<UInt16Type>(&batch, 4)?);
        for row in 0..batch.num_rows() {
            let window = windows.value(row);
            if signals.is_null(row) {
                let groups = usize::from(from.value(row))..usize::from(upto.value(row));
                if window == EventTime::MAX.0 {
                    self.ended.get_mut(groups).unwrap_or_default().fill(true);
                    continue;
                }
                let judged = self.judged.get_mut(groups).unwrap_or_default();
                judged.iter_mut().for_each(|through| *through = window.max(*through));
                self.has_heard = true;
                continue;
            }
            let bytes = signals.value(row);
            let of = WindowSignals::from_bytes(bytes).ok_or_else(|| foreign("findings"))?;
            let tenant = of.releases.into_keys().next().unwrap_or_default();
            self.windows.insert(window, ());
            self.findings.insert(RAISING_GROUP, &(window, tenant.into_bytes()), bytes.to_vec())?;
        }
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let judged = self.judged.iter().zip(&self.ended);
        let through = judged.map(|(through, has_ended)| if *has_ended { i64::MAX } else { *through }).min();
        let through = through.unwrap_or(i64::MIN);
        let mut told = Vec::new();
        let mut has_closed = false;
        while let Some(first) = self.windows.first_entry()
            && first.key().saturating_add(self.court.window.0) <= through
        {
            let (start, ()) = first.remove_entry();
            told.extend(self.close(start)?);
            has_closed = true;
        }
        if has_closed && self.is_here {
            self.shelf.put(RAISING_GROUP, &[], &self.book.to_bytes())?;
        }
        if std::mem::take(&mut self.has_heard) && self.is_here {
            let bytes: Vec<u8> = self.judged.iter().flat_map(|through| through.to_le_bytes()).collect();
            self.judged_table.put(RAISING_GROUP, &[], &bytes)?;
        }
        self.rows.write(&told, cx)
    }
}

/// Owners and suppressions are decided when a row is written, acknowledgements are people's and joined by readers.
struct NoFacts;

impl Facts for NoFacts {
    fn owner(&self, _: &Judged) -> String {
        String::new()
    }

    fn is_suppressed(&self, _: &Judged) -> bool {
        false
    }

    fn is_acknowledged(&self, _: u64) -> bool {
        false
    }
}

fn read_book(shelf: &ByteTable) -> Result<Book, Error> {
    let stored = shelf.get(RAISING_GROUP, &[])?;
    let Some(bytes) = stored.as_ref().and_then(Stored::whole) else { return Ok(Book::default()) };
    Book::from_bytes(bytes).ok_or_else(|| foreign("a book of alerts"))
}

/// Up to where each key group is judged.
fn read_judged(table: &ByteTable) -> Result<Vec<i64>, Error> {
    let stored = table.get(RAISING_GROUP, &[])?;
    let nothing = || vec![i64::MIN; usize::from(GROUPS)];
    let Some(bytes) = stored.as_ref().and_then(Stored::whole) else { return Ok(nothing()) };
    let judged: Vec<i64> = bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    if judged.len() == usize::from(GROUPS) { Ok(judged) } else { Err(foreign("up to where windows are judged")) }
}

fn foreign(what: &str) -> Error {
    Error::Arrow(ArrowError::SchemaError(format!("these bytes aren't {what} of this version")))
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        if !found.iter().any(|known| known == name.as_bytes()) {
            found.push(name.as_bytes().to_vec());
        }
    }
    found
}

fn spot(place: Place) -> Spot {
    Spot(place.topic, place.partition, place.offset)
}

/// Hits and trials in a window, by series.
type Counts = BTreeMap<u64, (u64, u64)>;

/// Events of the window that show what the strongest symptom does, with whichever senders, and of how many. Where too few
/// events show it, those that are missing.
fn affected(alert: &Judged, counts: &Counts) -> (u64, u64) {
    let Some(first) = alert.symptoms.first() else { return (0, 0) };
    let about = |symptom: &&Symptom| {
        symptom.indicator == first.indicator && symptom.field == first.field && symptom.event_type == first.event_type
    };
    let (mut affected, mut records) = (0, 0);
    for symptom in alert.symptoms.iter().filter(about) {
        let &(hits, trials) = counts.get(&symptom.series()).unwrap_or(&(0, 0));
        let missing = (symptom.expected * trials as f64 - hits as f64).max(0.0).round() as u64;
        affected += if symptom.share_seen >= symptom.expected { hits } else { missing };
        records += trials;
    }
    (affected, records)
}

/// A release as people write it.
fn name_of(release: &Release) -> String {
    let Release { sdk, sdk_version, app_version } = release;
    let name = [sdk.as_str(), sdk_version.as_str()].join(" ");
    if app_version.is_empty() { name } else { format!("{name} / {app_version}") }
}

/// What the alert wants to show: events that its strongest symptom counts, of the senders at fault.
fn wanted(alert: &Judged) -> Wanted {
    let mut fields: Vec<String> = Vec::new();
    for field in alert.symptoms.iter().map(|symptom| &symptom.field).filter(|field| !field.is_empty()) {
        if !fields.contains(field) {
            fields.push(field.clone());
        }
    }
    let strongest = alert.symptoms.iter().find(|symptom| shows(symptom.indicator));
    let search = strongest.zip(alert.first_place).map(|(symptom, first)| Search {
        from: spot(first),
        tenant: Some(symptom.tenant.clone()),
        release: [&symptom.scope.sdk, &symptom.scope.sdk_version, &symptom.scope.app_version].map(Clone::clone),
        event_type: symptom.event_type.clone(),
        field: symptom.field.clone(),
        indicator: (symptom.indicator.family as u8, symptom.indicator.code),
        holds: symptom.share_seen >= symptom.expected,
    });
    Wanted { places: alert.examples.iter().copied().map(spot).collect(), fields, search }
}

/// The value of the cause's kind.
fn cause_of(alert: &Judged) -> String {
    let scope = &alert.cause.scope;
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "any".to_owned());
    let first_bad = || alert.first_bad.as_ref();
    match alert.cause.kind {
        CauseKind::Release => first_bad().map(name_of).unwrap_or_default(),
        CauseKind::SdkVersion => {
            let version = first_bad().map_or_else(|| part(&scope.sdk_version), |release| release.sdk_version.clone());
            format!("{} {version}", part(&scope.sdk))
        }
        CauseKind::AppVersion => {
            first_bad().map_or_else(|| part(&scope.app_version), |release| release.app_version.clone())
        }
        CauseKind::Platform => part(&scope.sdk),
        CauseKind::Tenant => part(&alert.cause.tenant),
        CauseKind::Everything => "all tenants".to_owned(),
    }
}

/// A symptom in words: what, how much of it, and how much was expected.
fn describe(symptom: &Symptom) -> String {
    let of_type = |what: &str| match symptom.event_type.as_str() {
        "" => what.to_owned(),
        name => format!("{name} {what}"),
    };
    let (field, label) = (symptom.field.as_str(), symptom.label.as_str());
    let percent = |share: f64| match share * 100.0 {
        percent if percent < 10.0 => format!("{percent:.2} %"),
        percent => format!("{percent:.0} %"),
    };
    let (seen, expected) = (percent(symptom.share_seen), percent(symptom.expected));
    let events = of_type("events");
    let what = match symptom.indicator.family {
        Family::Volume => return format!("{seen} of the usual number of {events}"),
        Family::TypeShare => return format!("{} is {seen} of all events; {expected} expected", symptom.event_type),
        Family::Null => format!("{field} is null"),
        Family::Default => format!("{field} is empty or zero"),
        Family::Missing => format!("{field} is missing"),
        Family::Drift => format!("{field} is a number written as text"),
        Family::Category => format!("{field} has {label}"),
        Family::Number => format!("{field} is {label}"),
        Family::Refused => format!("refused ({label})"),
        Family::Tagged => format!("the rule {label} is broken"),
        Family::Duplicate => "sent before".to_owned(),
        Family::Late | Family::Skew => label.to_owned(),
        Family::Schema => format!("written with {label}"),
        Family::Lost => {
            return format!("{seen} of the numbers of {field} are lost in transit (rule {label}); {expected} expected");
        }
    };
    format!("{what} in {seen} of {events}; {expected} expected")
}

fn statistic(symptom: &Symptom) -> String {
    let decades = symptom.ln_e / std::f64::consts::LN_10;
    format!("e-detector 10^{decades:.1}, beta-binomial, against the other releases and the past")
}
