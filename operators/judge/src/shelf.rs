//! The book of alerts as bytes, between windows, and a window's signals on their way to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::alert::{Alert, Change, Reason, Severity, Status, Symptom};
use crate::book::{Book, Held, WindowSignals};
use crate::cause::{Cause, CauseKind};
use crate::judge::Known;
use crate::signal::{Scope, Signal, State};
use crate::store::{Reader, Writer};
use crate::tally::{Family, Indicator, Place, Release};

const VERSION: u8 = 1;

impl Book {
    /// The book as bytes: a version, the live symptoms, the alerts, and each tenant's releases and users.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u64(self.crowded_out);
        list(&mut out, self.live.values(), signal);
        list(&mut out, &self.held, held);
        tenants(&mut out, &self.releases, &self.users);
        out.0
    }

    /// Nothing if the bytes are of another version or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Book> {
        let from = &mut Reader(bytes);
        if from.u8()? != VERSION {
            return None;
        }
        let crowded_out = from.u64()?;
        let live = read_list(from, read_signal)?;
        let held = read_list(from, read_held)?;
        let (releases, users) = read_tenants(from)?;
        let live = live.into_iter().map(|signal| (signal.series(), signal)).collect();
        from.0.is_empty().then_some(Book { live, held, releases, users, crowded_out })
    }
}

impl WindowSignals {
    /// What a window showed, as bytes, so that findings of several tenants can travel.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u32(self.window);
        list(&mut out, &self.signals, signal);
        tenants(&mut out, &self.releases, &self.users);
        out.0
    }

    /// Nothing if the bytes are of another version or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<WindowSignals> {
        let from = &mut Reader(bytes);
        if from.u8()? != VERSION {
            return None;
        }
        let window = from.u32()?;
        let signals = read_list(from, read_signal)?;
        let (releases, users) = read_tenants(from)?;
        from.0.is_empty().then_some(WindowSignals { window, signals, releases, users })
    }
}

type Tenants = (BTreeMap<String, Vec<Known>>, BTreeMap<String, f64>);

fn tenants(out: &mut Writer, releases: &BTreeMap<String, Vec<Known>>, users: &BTreeMap<String, f64>) {
    list(out, releases, |out, (tenant, releases)| {
        out.text(tenant);
        list(out, releases, |out, known| {
            release(out, &known.release);
            out.u32(known.first_seen);
            out.u32(known.last_seen);
        });
    });
    list(out, users, |out, (tenant, users)| {
        out.text(tenant);
        out.f64(*users);
    });
}

fn read_tenants(from: &mut Reader<'_>) -> Option<Tenants> {
    let releases = read_list(from, |from| {
        let known = |from: &mut Reader<'_>| {
            Some(Known { release: read_release(from)?, first_seen: from.u32()?, last_seen: from.u32()? })
        };
        Some((from.text()?, read_list(from, known)?))
    })?;
    let users = read_list(from, |from| Some((from.text()?, from.f64()?)))?;
    Some((BTreeMap::from_iter(releases), BTreeMap::from_iter(users)))
}

fn list<T>(
    out: &mut Writer,
    items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    write: fn(&mut Writer, T),
) {
    let items = items.into_iter();
    out.u32(items.len() as u32);
    items.for_each(|item| write(out, item));
}

/// Reads a list; a count that lies ends at the end of the bytes, and nothing is set aside by it.
fn read_list<T>(from: &mut Reader<'_>, read: impl Fn(&mut Reader<'_>) -> Option<T>) -> Option<Vec<T>> {
    let count = from.u32()?;
    (0..count).map(|_| read(from)).collect()
}

fn option<T>(out: &mut Writer, value: &Option<T>, write: fn(&mut Writer, &T)) {
    out.u8(u8::from(value.is_some()));
    if let Some(value) = value {
        write(out, value);
    }
}

fn read_option<T>(from: &mut Reader<'_>, read: fn(&mut Reader<'_>) -> Option<T>) -> Option<Option<T>> {
    if from.u8()? == 0 { Some(None) } else { read(from).map(Some) }
}

#[expect(clippy::ptr_arg, reason = "as `option` and `list` call it")]
fn text(out: &mut Writer, text: &String) {
    out.text(text);
}

fn release(out: &mut Writer, release: &Release) {
    [&release.sdk, &release.sdk_version, &release.app_version].into_iter().for_each(|part| out.text(part));
}

fn read_release(from: &mut Reader<'_>) -> Option<Release> {
    Some(Release { sdk: from.text()?, sdk_version: from.text()?, app_version: from.text()? })
}

fn scope(out: &mut Writer, scope: &Scope) {
    [&scope.sdk, &scope.sdk_version, &scope.app_version].into_iter().for_each(|part| option(out, part, text));
}

fn read_scope(from: &mut Reader<'_>) -> Option<Scope> {
    let part = |from: &mut Reader<'_>| read_option(from, |from| from.text());
    Some(Scope { sdk: part(from)?, sdk_version: part(from)?, app_version: part(from)? })
}

fn place(out: &mut Writer, place: &Place) {
    out.i16(place.topic as i16);
    out.u32(place.partition as u32);
    out.i64(place.offset);
}

fn read_place(from: &mut Reader<'_>) -> Option<Place> {
    Some(Place { topic: from.i16()? as u16, partition: from.u32()? as i32, offset: from.i64()? })
}

fn indicator(out: &mut Writer, indicator: Indicator) {
    out.u8(indicator.family as u8);
    out.u64(indicator.code);
}

fn read_indicator(from: &mut Reader<'_>) -> Option<Indicator> {
    Some(Indicator { family: Family::from_number(from.u8()?)?, code: from.u64()? })
}

fn signal(out: &mut Writer, signal: &Signal) {
    out.text(&signal.tenant);
    scope(out, &signal.scope);
    [&signal.event_type, &signal.field, &signal.label].into_iter().for_each(|part| out.text(part));
    indicator(out, signal.indicator);
    out.u8(u8::from(signal.state == State::Bad));
    [signal.since, signal.window].into_iter().for_each(|number| out.u32(number));
    let shares = [signal.share_now, signal.share_seen, signal.expected, signal.lower, signal.upper];
    shares
        .into_iter()
        .chain([signal.ln_e, signal.ln_threshold, signal.users, signal.users_all])
        .for_each(|n| out.f64(n));
    [signal.hits, signal.trials].into_iter().for_each(|count| out.u64(count));
    [&signal.first, &signal.last].into_iter().chain(&signal.examples).for_each(|at| option(out, at, place));
}

fn read_signal(from: &mut Reader<'_>) -> Option<Signal> {
    let (tenant, scope) = (from.text()?, read_scope(from)?);
    let (event_type, field, label) = (from.text()?, from.text()?, from.text()?);
    let indicator = read_indicator(from)?;
    let state = if from.u8()? == 1 { State::Bad } else { State::Recovered };
    let at = |from: &mut Reader<'_>| read_option(from, read_place);
    Some(Signal {
        tenant,
        scope,
        event_type,
        field,
        indicator,
        label,
        state,
        since: from.u32()?,
        window: from.u32()?,
        share_now: from.f64()?,
        share_seen: from.f64()?,
        expected: from.f64()?,
        lower: from.f64()?,
        upper: from.f64()?,
        ln_e: from.f64()?,
        ln_threshold: from.f64()?,
        users: from.f64()?,
        users_all: from.f64()?,
        hits: from.u64()?,
        trials: from.u64()?,
        first: at(from)?,
        last: at(from)?,
        examples: [at(from)?, at(from)?, at(from)?],
    })
}

fn symptom(out: &mut Writer, symptom: &Symptom) {
    out.text(&symptom.tenant);
    scope(out, &symptom.scope);
    [&symptom.event_type, &symptom.field, &symptom.label].into_iter().for_each(|part| out.text(part));
    indicator(out, symptom.indicator);
    let shares = [symptom.share_seen, symptom.share_now, symptom.expected, symptom.lower, symptom.upper];
    shares.into_iter().chain([symptom.ln_e]).for_each(|number| out.f64(number));
}

fn read_symptom(from: &mut Reader<'_>) -> Option<Symptom> {
    let (tenant, scope) = (from.text()?, read_scope(from)?);
    let (event_type, field, label) = (from.text()?, from.text()?, from.text()?);
    Some(Symptom {
        tenant,
        scope,
        event_type,
        field,
        label,
        indicator: read_indicator(from)?,
        share_seen: from.f64()?,
        share_now: from.f64()?,
        expected: from.f64()?,
        lower: from.f64()?,
        upper: from.f64()?,
        ln_e: from.f64()?,
    })
}

fn cause(out: &mut Writer, cause: &Cause) {
    out.u8(cause.kind as u8);
    scope(out, &cause.scope);
    [&cause.tenant, &cause.event_type, &cause.field].into_iter().for_each(|part| option(out, part, text));
}

fn read_cause(from: &mut Reader<'_>) -> Option<Cause> {
    use CauseKind::*;
    let kind = *[Release, SdkVersion, AppVersion, Platform, Tenant, Everything].get(usize::from(from.u8()?))?;
    let part = |from: &mut Reader<'_>| read_option(from, |from| from.text());
    Some(Cause { kind, scope: read_scope(from)?, tenant: part(from)?, event_type: part(from)?, field: part(from)? })
}

fn reason(out: &mut Writer, reason: &Reason) {
    let (number, other) = match reason {
        Reason::Recovered => (0, 0),
        Reason::Vanished => (1, 0),
        Reason::PartOf(other) => (2, *other),
    };
    out.u8(number);
    out.u64(other);
}

fn read_reason(from: &mut Reader<'_>) -> Option<Reason> {
    match (from.u8()?, from.u64()?) {
        (0, _) => Some(Reason::Recovered),
        (1, _) => Some(Reason::Vanished),
        (2, other) => Some(Reason::PartOf(other)),
        _ => None,
    }
}

fn held(out: &mut Writer, held: &Held) {
    list(out, &held.series, |out, series| out.u64(*series));
    out.f64(held.told_users);
    [held.told_in, held.resolved_in].into_iter().for_each(|number| out.u32(number));
    let alert = &held.alert;
    out.u64(alert.fingerprint);
    out.u32(alert.revision);
    let flags = [alert.status == Status::Open, alert.suppressed, alert.acknowledged];
    flags.into_iter().for_each(|flag| out.u8(u8::from(flag)));
    [alert.change as u8, alert.severity as u8].into_iter().for_each(|number| out.u8(number));
    option(out, &alert.reason, reason);
    out.text(&alert.owner);
    cause(out, &alert.cause);
    [&alert.first_bad, &alert.last_good].into_iter().for_each(|of| option(out, of, release));
    [&alert.first_place, &alert.last_place].into_iter().for_each(|at| option(out, at, place));
    list(out, &alert.examples, place);
    [alert.users, alert.users_share, alert.users_most].into_iter().for_each(|users| out.f64(users));
    list(out, &alert.symptoms, symptom);
    out.u32(alert.symptoms_count);
    list(out, &alert.tenants, text);
    [alert.tenants_count, alert.since, alert.opened_in, alert.last_seen].into_iter().for_each(|number| out.u32(number));
}

fn read_held(from: &mut Reader<'_>) -> Option<Held> {
    let series: BTreeSet<u64> = read_list(from, |from| from.u64())?.into_iter().collect();
    let (told_users, told_in, resolved_in) = (from.f64()?, from.u32()?, from.u32()?);
    let (fingerprint, revision) = (from.u64()?, from.u32()?);
    let flag = |from: &mut Reader<'_>| from.u8().map(|flag| flag == 1);
    let (open, suppressed, acknowledged) = (flag(from)?, flag(from)?, flag(from)?);
    let change = [Change::Opened, Change::Updated, Change::Resolved, Change::Reopened];
    let severity = [Severity::Low, Severity::Minor, Severity::Major, Severity::Critical];
    let alert = Alert {
        fingerprint,
        revision,
        status: if open { Status::Open } else { Status::Resolved },
        suppressed,
        acknowledged,
        change: *change.get(usize::from(from.u8()?))?,
        severity: *severity.get(usize::from(from.u8()?))?,
        reason: read_option(from, read_reason)?,
        owner: from.text()?,
        cause: read_cause(from)?,
        first_bad: read_option(from, read_release)?,
        last_good: read_option(from, read_release)?,
        first_place: read_option(from, read_place)?,
        last_place: read_option(from, read_place)?,
        examples: read_list(from, read_place)?,
        users: from.f64()?,
        users_share: from.f64()?,
        users_most: from.f64()?,
        symptoms: read_list(from, read_symptom)?,
        symptoms_count: from.u32()?,
        tenants: read_list(from, |from| from.text())?,
        tenants_count: from.u32()?,
        since: from.u32()?,
        opened_in: from.u32()?,
        last_seen: from.u32()?,
    };
    Some(Held { alert, series, told_users, told_in, resolved_in })
}
