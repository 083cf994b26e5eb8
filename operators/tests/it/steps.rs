//! Scripts of a view's single properties: when rows leave, what a late event does, how a row vanishes, how big states
//! are held back.

use std::sync::Arc;

use arrow_array::RecordBatch;
use expect_test::{Expect, expect};
use weir_operators::combine::Combine;
use weir_operators::maintain::{CLOSING_BYTES, Keeping, Maintain, PROVISIONAL_BYTES};
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::script::Script;
use weir_operators::view::{Output, ViewPlan};
use weir_schemas::time::{Epoch, EventTime, Span};

use crate::events::{self, Event};
use crate::harness::Harness;
use crate::view::plan;

const SECOND: i64 = 1_000_000;

/// The view without its set of users, whose state is no text.
fn plain_plan(having: bool) -> Arc<ViewPlan> {
    let mut plan = plan(having).as_ref().clone();
    plan.measures.truncate(2);
    plan.outputs = vec![Output::Window, Output::Dimension(0), Output::Measure(0), Output::Measure(1)];
    Arc::new(plan)
}

/// A script over combine and maintain: events in, rows out.
struct View {
    plan: Arc<ViewPlan>,
    script: Script,
}

impl View {
    fn new(plan: Arc<ViewPlan>, provisional: bool, lateness_seconds: i64) -> View {
        View::keeping(plan, provisional, lateness_seconds, 0)
    }

    fn keeping(plan: Arc<ViewPlan>, provisional: bool, lateness_seconds: i64, retained_seconds: i64) -> View {
        View::closing(plan, provisional, lateness_seconds, retained_seconds, CLOSING_BYTES)
    }

    fn closing(
        plan: Arc<ViewPlan>,
        provisional: bool,
        lateness_seconds: i64,
        retained_seconds: i64,
        closing_bytes: usize,
    ) -> View {
        let keeping = Keeping {
            provisional,
            allowed_lateness: Span(lateness_seconds * SECOND),
            retained: Span(retained_seconds * SECOND),
            memory_bytes: 1,
            closing_bytes,
            provisional_bytes: PROVISIONAL_BYTES,
        };
        let kept = plan.clone();
        let script =
            Script::new(move |registry| Ok(Box::new(Maintain::new(kept.clone(), keeping, registry)?))).unwrap();
        View { plan, script }
    }

    /// Events of tenant `t`, each a time in seconds and an amount.
    fn events(&mut self, events: &[(i64, i64)]) {
        let events: Vec<Event> = events.iter().map(|(second, amount)| bought(*second, *amount, 1)).collect();
        self.input(&events);
    }

    fn input(&mut self, events: &[Event]) {
        partials(&self.plan, events).into_iter().for_each(|partials| self.script.input(partials).unwrap());
    }

    fn watermark(&mut self, second: i64) {
        self.script.watermark(EventTime(second.saturating_mul(SECOND))).unwrap();
    }

    /// Ends the epoch and compares the rows that it wrote.
    fn ends_with(&mut self, expected: Expect) {
        self.script.end_of_epoch().unwrap();
        expected.assert_eq(&self.script.take_output());
    }
}

/// The partial states of events.
fn partials(plan: &Arc<ViewPlan>, events: &[Event]) -> Vec<RecordBatch> {
    let mut effects = Effects::default();
    let mut combine = Combine::new(plan.clone(), 1 << 20).unwrap();
    let mut cx = Context::new(Epoch(1), EventTime::MIN, &mut effects);
    combine.on_batch(events::batch(events), &mut cx).unwrap();
    combine.end_of_epoch(&mut cx).unwrap();
    effects.emitted.into_iter().map(|(_, partials)| partials).collect()
}

fn bought(second: i64, amount: i64, user: u64) -> Event {
    Event {
        partition: 0,
        offset: 0,
        at: second * SECOND,
        tenant: "t",
        kind: "buy",
        amount: Some(amount),
        user,
        id: String::new(),
    }
}

#[test]
fn a_retried_event_corrects_its_final_window_until_what_is_kept_is_dropped() {
    let mut view = View::keeping(plain_plan(false), false, 0, 600);
    view.events(&[(10, 1), (50, 2)]);
    view.watermark(120);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     2       3        0
    "#]]);
    view.events(&[(30, 10)]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     3       13       1
    "#]]);
    // Long after it was final, and after a restart: what is stored is read back.
    view.watermark(500);
    view.ends_with(expect![[""]]);
    view.script.recover().unwrap();
    view.watermark(540);
    view.events(&[(31, 100)]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     4       113      2
    "#]]);
    // The kept time is over: the source lets nothing pass that is so old, and the state is gone.
    view.watermark(720);
    view.ends_with(expect![[""]]);
    let partials = partials(&view.plan, &[bought(32, 1, 1)]);
    let refused = partials.into_iter().try_for_each(|partials| view.script.input(partials));
    assert!(refused.unwrap_err().to_string().contains("came after its state was dropped"));
}

#[test]
fn windows_that_close_at_once_after_a_silence_leave_an_epoch_at_a_time_in_the_order_of_time() {
    let mut view = View::closing(plain_plan(false), false, 0, 0, 0);
    view.events(&[(10, 1), (70, 2), (130, 4), (190, 8)]);
    view.watermark(600);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     1       1        0
        left for later, done up to 60 s
    "#]]);
    // A restart goes on where it was.
    view.script.recover().unwrap();
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:01:00  't'     1       2        0
        left for later, done up to 120 s
    "#]]);
    // As does the end of a run, and one that isn't over.
    view.script.watermark(EventTime::MAX).unwrap();
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:02:00  't'     1       4        0
        left for later, done up to 180 s
    "#]]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:03:00  't'     1       8        0
    "#]]);
    view.ends_with(expect![[""]]);
}

#[test]
fn a_late_event_corrects_its_closed_window_until_lateness_has_passed() {
    let mut view = View::new(plain_plan(false), false, 60);
    view.events(&[(10, 1), (50, 2), (70, 4)]);
    view.ends_with(expect![[""]]);
    view.watermark(60);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     2       3        0
    "#]]);
    view.events(&[(30, 10)]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     3       13       1
    "#]]);
    // A new group of a closed window, after a restart that forgot everything that memory held.
    view.script.recover().unwrap();
    let other = Event { tenant: "u", ..bought(59, 5, 1) };
    view.input(&[other]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  'u'     1       5        1
    "#]]);
    // Lateness has passed, too: nothing is left, and the next window closes.
    view.watermark(120);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:01:00  't'     1       4        0
    "#]]);
    let too_late = partials(&view.plan, &[bought(20, 1, 1)]).remove(0);
    let error = view.script.input(too_late).unwrap_err().to_string();
    assert!(error.contains("after its state was dropped"), "{error}");
}

#[test]
fn provisional_rows_leave_each_epoch_and_close_without_being_written_again() {
    let mut view = View::new(plain_plan(false), true, 0);
    view.events(&[(10, 1)]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     1       1        0
    "#]]);
    view.events(&[(20, 2)]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     2       3        0
    "#]]);
    view.ends_with(expect![[""]]);
    view.watermark(60);
    view.ends_with(expect![[""]]);
}

#[test]
fn a_row_for_which_having_turns_false_vanishes_and_comes_back() {
    let mut view = View::new(plain_plan(true), true, 600);
    view.events(&[(10, 1)]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     1       1        0
    "#]]);
    view.events(&[(10, -5)]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          - 1970-01-01T00:00:00  't'     0       null     0
    "#]]);
    view.events(&[(10, -1)]);
    view.ends_with(expect![[""]]);
    view.script.recover().unwrap();
    view.watermark(60);
    view.ends_with(expect![[""]]);
    view.events(&[(10, 20)]);
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     4       15       1
    "#]]);
}

#[test]
fn the_last_windows_close_when_nothing_can_come_any_more() {
    let mut view = View::new(plain_plan(false), false, 3_600);
    view.events(&[(10, 1), (70, 2)]);
    view.ends_with(expect![[""]]);
    view.script.watermark(EventTime::MAX).unwrap();
    view.ends_with(expect![[r#"
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:00:00  't'     1       1        0
        written to revenue
            minute               tenant  events  revenue  revision
          + 1970-01-01T00:01:00  't'     1       2        0
    "#]]);
}

#[test]
fn big_states_of_open_windows_leave_in_turn_each_as_it_is_in_the_end_and_at_close() {
    // With memory for all of them, and with none.
    for memory_bytes in [1 << 30, 1] {
        let keeping = Keeping {
            provisional: true,
            allowed_lateness: Span(0),
            retained: Span(0),
            memory_bytes,
            closing_bytes: CLOSING_BYTES,
            provisional_bytes: 64 << 10,
        };
        let mut kept =
            Harness::new(1, None, move |registry| Box::new(Maintain::new(plan(false), keeping, registry).unwrap()));
        // Users of the window that begins at a second.
        let input = |kept: &mut Harness, start: i64, users: std::ops::Range<u64>| {
            let events: Vec<Event> = users.map(|user| bought(start, 1, user)).collect();
            partials(&plan(false), &events).into_iter().for_each(|partials| kept.input(partials));
        };
        let rows =
            |kept: &mut Harness| -> usize { kept.finish_epoch().iter().map(|changes| changes.rows.num_rows()).sum() };
        // In how many epochs of as many as are enough a row left, after how many without one.
        let leaves = |kept: &mut Harness| -> Vec<usize> { (0..60).filter(|_| rows(kept) > 0).collect() };
        input(&mut kept, 0, 0..40_000);
        assert_eq!(rows(&mut kept), 1, "the first has all of the epoch's bytes");
        // More than the bytes of one epoch left, so that the next waits; what is changed while it waits, leaves with it, and
        // nothing has to happen for that.
        input(&mut kept, 0, 40_000..40_010);
        assert_eq!(rows(&mut kept), 0);
        input(&mut kept, 0, 40_010..40_020);
        let left = leaves(&mut kept);
        assert!(left.len() == 1 && left[0] > 0, "{left:?}");
        // Of two that wait, each leaves once.
        input(&mut kept, 0, 40_020..40_021);
        input(&mut kept, 60, 0..40_000);
        let left = leaves(&mut kept);
        assert!(left.len() == 2 && left[1] > left[0] + 1, "{left:?}");
        // That one waits is known after a restart, and its window's close writes it, once.
        input(&mut kept, 0, 40_021..40_022);
        input(&mut kept, 60, 40_000..40_001);
        assert_eq!(rows(&mut kept), 1);
        kept.start(1);
        kept.raise(EventTime(120 * SECOND));
        assert_eq!(rows(&mut kept), 1);
        assert_eq!(leaves(&mut kept), Vec::<usize>::new());
    }
}
