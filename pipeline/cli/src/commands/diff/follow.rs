//! `weir diff --follow`: the difference again whenever the live side has changed it.
//!
//! Redrawn in place on a terminal. Elsewhere all of it once, then a line for each view that has changed; with `--json` the same
//! object as at first, with the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use console::Term;
use serde_json::{Value, json};
use weir_pipeline::clock::Clock;
use weir_replay::diff::ViewDiff;
use weir_replay::diff::alerts::AlertDiff;
use weir_replay::diff::follow::{FollowError, Followed};

use super::{Both, Compared, Diff, compared, explain, line, lines, outcome, print, unreadable};
use crate::commands::run::stop_on_signal;
use crate::out::{complain, line as print_line, safe};
use crate::{Outcome, paint, runtime};

/// How long between two looks at the live side.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often is looked meanwhile whether somebody wants it to end.
const STOP_EVERY: Duration = Duration::from_millis(100);

/// Follows until it is told to stop, or nobody reads any more.
pub(super) fn follow(arguments: &Diff) -> Result<Outcome, Outcome> {
    let compared = compared(&arguments.file, &arguments.run, &arguments.view)?;
    let alerts = compared.alerts(arguments.examples)?;
    let runtime = runtime()?;
    let stop = Arc::new(AtomicBool::new(false));
    runtime.spawn(stop_on_signal(Arc::clone(&stop)));
    let mut followed = Vec::new();
    for Both { sides, .. } in &compared.views {
        let begun = Followed::begin(sides.clone(), compared.range, arguments.options(), arguments.hold);
        followed.push(runtime.block_on(begun).map_err(|error| ended(&error))?);
    }
    let mut screen = Screen {
        compared: &compared,
        alerts: alerts.as_ref(),
        json: arguments.json,
        term: Term::stdout(),
        drawn: 0,
        told: Vec::new(),
    };
    let mut bare: Vec<ViewDiff> = followed.iter().map(Followed::told).collect();
    let explained = |diff: &ViewDiff, at: usize| {
        let mut diff = diff.clone();
        runtime.block_on(explain(&compared.views[at].known, &mut diff));
        diff
    };
    screen.told = bare.iter().enumerate().map(|(at, diff)| explained(diff, at)).collect();
    let mut is_read = screen.begin(rows(&followed));
    while is_read && !stop.load(Ordering::Acquire) {
        if arguments.until_equal && bare.iter().all(ViewDiff::are_rows_equal) {
            break;
        }
        runtime.block_on(pause(&stop));
        let mut trouble = None;
        for of in &mut followed {
            match runtime.block_on(of.look()) {
                Ok(()) => {}
                Err(error) if error.is_passing() => trouble = Some(error.to_string()),
                Err(error) => return Err(ended(&error)),
            }
        }
        let mut changed = Vec::new();
        for (at, of) in followed.iter().enumerate() {
            let now = of.told();
            if now != bare[at] {
                changed.push((at, explained(&now, at)));
                bare[at] = now;
            }
        }
        is_read = screen.draw(changed, rows(&followed), trouble.as_deref());
    }
    Ok(outcome(&compared, &bare, alerts.as_ref()))
}

fn rows(followed: &[Followed]) -> u64 {
    followed.iter().map(Followed::rows).sum()
}

async fn pause(stop: &AtomicBool) {
    let mut left = LOOK_EVERY;
    while !left.is_zero() && !stop.load(Ordering::Acquire) {
        tokio::time::sleep(STOP_EVERY).await;
        left = left.saturating_sub(STOP_EVERY);
    }
}

fn ended(error: &FollowError) -> Outcome {
    match error {
        FollowError::Asked(error) => unreadable(error),
        FollowError::TooMany { .. } => Outcome::refused(
            error.to_string(),
            "compare once without --follow, follow one --view, replay a shorter range, or raise --hold where there is memory",
        ),
    }
}

/// Where it is told.
struct Screen<'a> {
    compared: &'a Compared,
    alerts: Option<&'a AlertDiff>,
    json: bool,
    term: Term,
    /// Lines of the last picture.
    drawn: usize,
    /// What was told last.
    told: Vec<ViewDiff>,
}

impl Screen<'_> {
    /// Tells all of it; false when nobody reads any more.
    fn begin(&mut self, rows: u64) -> bool {
        if self.json {
            let mut lines = lines(self.compared, &self.told, self.alerts);
            return lines.all(|line| print_line(format_args!("{}", dated(line))));
        }
        if self.term.is_term() {
            return self.redraw(rows, None);
        }
        let whole = print::whole(self.compared, &self.told, self.alerts);
        print_line(format_args!("{whole}\n\nfollowed from here on; {} rows are held", paint::count(rows)))
    }

    /// Tells the views that have changed, by their places.
    fn draw(&mut self, changed: Vec<(usize, ViewDiff)>, rows: u64, trouble: Option<&str>) -> bool {
        let mut is_read = true;
        let is_drawn = !self.json && self.term.is_term();
        for (at, now) in changed {
            if self.json {
                is_read &= print_line(format_args!("{}", dated(line(&self.compared.record.run, &now))));
            } else if !is_drawn {
                is_read &= print_line(format_args!("{}", changes(&self.told[at], &now)));
            }
            self.told[at] = now;
        }
        if is_drawn {
            return self.redraw(rows, trouble);
        }
        if let Some(why) = trouble {
            complain!("{why}; looking again");
        }
        is_read
    }

    fn redraw(&mut self, rows: u64, trouble: Option<&str>) -> bool {
        let whole = print::whole(self.compared, &self.told, self.alerts);
        let held = format!("{}  {} rows are held; Ctrl-C ends", clock(), paint::count(rows));
        let mut text = format!("{whole}\n\n{}", paint::dim(&held));
        if let Some(why) = trouble {
            text.push_str(&format!("\n{} {why}; looking again", paint::bad("not current:")));
        }
        // A screen that can't be cleared is drawn below the last picture.
        let _ = self.term.clear_last_lines(self.drawn);
        let is_read = self.term.write_line(&safe(&text)).is_ok();
        self.drawn = text.lines().count();
        is_read
    }
}

/// A line for programs, with the time.
fn dated(mut line: Value) -> Value {
    line["at_ms"] = json!(Clock::default().now_ms());
    line
}

fn clock() -> String {
    let at = chrono::DateTime::<Utc>::from_timestamp_millis(Clock::default().now_ms());
    at.map(|at| at.format("%H:%M:%S").to_string()).unwrap_or_default()
}

/// A view's sums now, and by how much they have changed.
fn changes(before: &ViewDiff, now: &ViewDiff) -> String {
    let one = |name: &str, before: u64, now: u64| {
        let change = i128::from(now) - i128::from(before);
        let change = if change == 0 { String::new() } else { format!(" ({change:+})") };
        format!("{name} {}{change}", paint::count(now))
    };
    let mut sums = vec![
        one("rows live", before.live_rows, now.live_rows),
        one("added", before.added, now.added),
        one("removed", before.removed, now.removed),
        one("changed", before.changed, now.changed),
    ];
    let measures = before.measures.iter().zip(&now.measures).filter(|(before, now)| before.changed != now.changed);
    sums.extend(measures.map(|(before, now)| one(&format!("cells of {}", now.name), before.changed, now.changed)));
    let verdict = if now.is_equal() { paint::good("equal") } else { paint::bad("DIFFERENT") };
    format!("{}  {}  {}  {verdict}", clock(), paint::bold(&now.view), sums.join("  "))
}
