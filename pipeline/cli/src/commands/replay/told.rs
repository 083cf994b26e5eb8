//! A plan, for people: what a replay would read, and what is known of it beforehand.

use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration};
use weir_replay::rerun::cost::{Cost, measured};
use weir_replay::rerun::plan::Planned;
use weir_replay::rerun::range::shown;
use weir_replay::rerun::record::{ReadFrom, Record};

use super::Start;
use crate::out::{printable, say};
use crate::{counted, paint};

/// Prints `planned`; `earlier` are the replays that are there, the newest first.
pub(super) fn print(planned: &Planned, start: &Start, earlier: &[Record]) {
    let (from, to) = planned.range.shown();
    say!("{}  {from} to {to}", paint::bold("event times"));
    if planned.range != planned.asked {
        let (from, to) = planned.asked.shown();
        say!("  widened to whole windows from {from} to {to}");
    }
    let reads = match planned.reads {
        ReadFrom::Topic => "the topics",
        ReadFrom::Archive => "the archive",
        ReadFrom::Both => "the archive as far as it goes, then the topics",
    };
    say!("{}  {reads}", paint::bold("read from"));
    if let Some(condition) = &start.condition {
        say!("{}  {}", paint::bold("events"), printable(condition));
    }
    say!("{}  {}\n", paint::bold("views"), planned.views.iter().cloned().collect::<Vec<_>>().join(", "));
    let mut table = paint::table(&["partition", "first offset", "next offset", "offsets", ""]);
    for of in &planned.survey.slice.stretches {
        let key = (of.topic.clone(), of.partition);
        let note = if planned.survey.by_log_time.contains(&key) { "by the log's timestamps" } else { "" };
        let partition = format!("{}/{}", of.topic, of.partition);
        let numbers = [of.first.to_string(), of.next.to_string(), paint::count(of.offsets())];
        table.add_row([vec![partition], numbers.to_vec(), vec![note.to_owned()]].concat());
    }
    say!("{table}");
    say!("{} offsets", paint::count(planned.survey.slice.offsets()));
    beside(planned);
    costs(&planned.cost, start, earlier);
    schemas_and_gaps(planned);
    refusals(planned, start);
    say!("");
}

/// How far what is read goes beyond the times, where that is known.
fn beside(planned: &Planned) {
    let Some((first, last)) = planned.cost.times else { return };
    let length = |micros: i64| HumanDuration(Duration::from_micros(u64::try_from(micros).unwrap_or(0)));
    let (before, behind) = (length(planned.range.from.0 - first.0), length(last.0 - planned.range.to.0));
    let copies = match planned.horizon_ms {
        0 => String::new(),
        ms => format!(", copies are looked for {} before", HumanDuration(Duration::from_millis(ms))),
    };
    let (first, last) = (shown(first), shown(last));
    say!(
        "{}  from {first}, {before} before, to {last}, {behind} behind: epochs are read whole, with what came late{copies}",
        paint::bold("events read")
    );
}

fn costs(cost: &Cost, start: &Start, earlier: &[Record]) {
    let records = paint::count(cost.records);
    match cost.is_counted {
        true => say!("{}  {records}, as the live pipeline counted them", paint::bold("records")),
        false => say!("{}  at most {records}", paint::bold("records")),
    }
    match cost.bytes {
        Some(bytes) => say!("{}  about {}, by a sample of the values", paint::bold("bytes"), HumanBytes(bytes)),
        None => say!("{}  not known: no record could be looked at", paint::bold("bytes")),
    }
    let time = |speed: u64| HumanDuration(Duration::from_secs(cost.records.div_ceil(speed.max(1))));
    let known = measured(earlier).map(|(run, speed)| (speed, format!("as `{run}` ran")));
    let known = known
        .or(cost.live_speed.map(|speed| (speed, "the live pipeline's best, as far as it was ever asked".to_owned())));
    let rate = start.rate.map(u64::from);
    match (known, rate) {
        (Some((speed, why)), rate) if rate.is_none_or(|rate| speed < rate) => {
            say!("{}  about {} at {}/s, {why}: an estimate", paint::bold("time"), time(speed), paint::count(speed));
        }
        (_, Some(rate)) => say!("{}  {} at {}/s, as asked", paint::bold("time"), time(rate), paint::count(rate)),
        (_, None) => say!("{}  not known: nothing was read yet that could tell", paint::bold("time")),
    }
    if start.while_lag_below.is_some() {
        say!("  longer by every pause for the live pipeline");
    }
    let records = counted(usize::try_from(cost.judged).unwrap_or(usize::MAX), "record");
    match (cost.judged, start.judge_anew) {
        (0, _) => {}
        (_, true) => say!("{}  {records} that the clock judged are judged anew", paint::bold("judgements")),
        (_, false) => say!("{}  {records} judged by the clock are judged the same again", paint::bold("judgements")),
    }
}

fn schemas_and_gaps(planned: &Planned) {
    let (resolved, missing): (Vec<_>, Vec<_>) = planned.survey.schemas.iter().partition(|(_, said)| said.is_none());
    let ids = resolved.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(", ");
    say!("schemas {} resolve", if ids.is_empty() { "(none known)" } else { ids.as_str() });
    for (id, said) in missing {
        let why = said.as_deref().unwrap_or_default();
        say!("{} {id}: {why}; its records would be refused", paint::bad("schema"));
    }
    for of in &planned.survey.forgotten {
        let (topic, partition, first, last) = (&of.topic, of.partition, of.first, of.next - 1);
        say!("{} {topic}/{partition}: offsets {first} to {last} are gone from the log", paint::bad("gap"));
    }
}

fn refusals(planned: &Planned, start: &Start) {
    if !planned.cost.refused.is_empty() {
        let reasons =
            planned.cost.refused.iter().map(|(reason, records)| format!("{reason} {}", paint::count(*records)));
        say!("{}  the live pipeline refused: {}", paint::bold("records"), reasons.collect::<Vec<_>>().join(", "));
        if start.with.is_some() {
            say!("  what the rules of --with refuse shows when it runs");
        }
    }
    if let Some(refusal) = planned.refusal(start.allow_gaps).filter(|_| start.plan) {
        say!("{} as it stands: {}", paint::bad("refused"), refusal.what);
        say!("  remedy: {}", refusal.remedy);
    }
}
