//! A diff for people.

use std::fmt::Write;

use weir_replay::diff::alerts::{AlertDiff, Opening};
use weir_replay::diff::{Example, Kind, Side, ViewDiff};
use weir_replay::rerun::range::shown;

use super::{Apart, Compared};
use crate::out::printable;
use crate::paint;

/// Values of a dimension that are printed.
const VALUES_SHOWN: usize = 8;

/// All of it.
pub(super) fn whole(compared: &Compared, diffs: &[ViewDiff], alerts: Option<&AlertDiff>) -> String {
    let record = &compared.record;
    let (from, to) = (shown(record.slice.from), shown(record.slice.to));
    let mut text = format!("{}  {from} to {to}\n\n", paint::bold(&record.run));
    if let Some(condition) = &record.condition {
        push(&mut text, &format!("of both sides the rows for which {}\n", printable(condition)));
    }
    if record.is_part {
        push(&mut text, &format!("{} it read a part of the partitions or offsets only\n", paint::bad("a part:")));
    }
    let mut table = paint::table(&["view", "rows live", "rows replayed", "added", "removed", "changed", "verdict"]);
    for diff in diffs {
        let verdict = if diff.is_equal() { paint::good("equal") } else { paint::bad("DIFFERENT") };
        let counts = [diff.live_rows, diff.replay_rows, diff.added, diff.removed, diff.changed].map(paint::count);
        table.add_row([vec![diff.view.clone()], counts.to_vec(), vec![verdict]].concat());
    }
    push(&mut text, &table.to_string());
    for Apart { view, why } in &compared.apart {
        push(
            &mut text,
            &match why {
                Some(why) => format!("{view} isn't compared: {why}"),
                None => format!("{view} is new: the live pipeline has no such view"),
            },
        );
    }
    diffs.iter().filter(|diff| !diff.is_equal()).for_each(|diff| view(&mut text, diff));
    alerts.into_iter().for_each(|alerts| opened(&mut text, alerts));
    text.truncate(text.trim_end().len());
    text
}

fn push(text: &mut String, line: &str) {
    // Writing to a text can't fail.
    let _ = writeln!(text, "{line}");
}

fn view(text: &mut String, diff: &ViewDiff) {
    push(text, &format!("\n{}", paint::bold(&diff.view)));
    for of in &diff.one_sided {
        let side = if of.side == Side::Replay { "in the replay" } else { "live" };
        push(text, &format!("  column {} is there {side} only", of.column));
    }
    let mut table = paint::table(&["measure", "cells changed", "sum live", "sum replayed", "difference"]);
    let number = |sum: Option<f64>| sum.map_or("-".to_owned(), |sum| format!("{sum:.2}"));
    for of in &diff.measures {
        let difference = of.live_sum.zip(of.replay_sum).map(|(live, replay)| replay - live);
        table.add_row([
            of.name.clone(),
            paint::count(of.changed),
            number(of.live_sum),
            number(of.replay_sum),
            number(difference),
        ]);
    }
    push(text, &table.to_string());
    for (dimension, values) in &diff.dimensions {
        let mut by_count: Vec<(&String, &u64)> = values.iter().collect();
        by_count.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let shown: Vec<String> = by_count
            .iter()
            .take(VALUES_SHOWN)
            .map(|(value, count)| format!("{} {}", printable(value), paint::count(**count)))
            .collect();
        let more = by_count.len().saturating_sub(VALUES_SHOWN);
        let more = if more > 0 { format!(", and {more} values more") } else { String::new() };
        push(text, &format!("  rows by {dimension}: {}{more}", shown.join(", ")));
    }
    diff.examples.iter().for_each(|of| example(text, of));
}

/// What opened where.
fn opened(text: &mut String, alerts: &AlertDiff) {
    let AlertDiff { both, only_live, only_replay, .. } = alerts;
    let verdict = if alerts.is_equal() { paint::good("equal") } else { paint::bad("DIFFERENT") };
    let [both, only_live, only_replay] = [*both, *only_live, *only_replay].map(paint::count);
    let counts = format!("{both} on both sides, {only_live} live only, {only_replay} in the replay only");
    push(text, &format!("\n{}  {counts}  {verdict}", paint::bold("alerts opened")));
    alerts.examples.iter().for_each(|of| opening(text, of));
}

fn opening(text: &mut String, of: &Opening) {
    let side = if of.is_live { paint::bad("live only") } else { paint::good("replay only") };
    let what = format!("{} {} {} {}", of.severity, of.detector, of.cause_kind, of.cause);
    let short: String = of.fingerprint.chars().take(12).collect();
    let tenants = of.tenants.join(", ");
    let was_open = if of.was_open { ", open live when the range began" } else { "" };
    let what = printable(&what);
    let line =
        format!("  {side} {} at {}  {what} ({})  {short}{was_open}", of.status, of.window_start, printable(&tenants));
    push(text, &line);
}

fn example(text: &mut String, example: &Example) {
    let key = serde_json::Value::from(example.key.clone()).to_string();
    let key = printable(&key);
    let kind = match example.kind {
        Kind::Removed => paint::bad("removed"),
        Kind::Added => paint::good("added"),
        Kind::Changed => "changed".to_owned(),
    };
    let cells = example.cells.iter().map(|cell| format!("{} {} → {}", cell.column, cell.live, cell.replay));
    let cells = cells.collect::<Vec<_>>().join(", ");
    push(text, format!("  {kind} {key}  {}", printable(&cells)).trim_end());
    if example.reasons.is_empty() {
        push(text, &format!("      {}", paint::dim("no reason is known")));
    }
    for reason in &example.reasons {
        push(
            text,
            &format!("      {} {}", paint::dim(&format!("{}:", reason.cause.name())), printable(&reason.detail)),
        );
    }
}
