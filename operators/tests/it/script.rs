//! The script harness, on a small operator with timers and typed state.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{BinaryArray, BooleanArray, Int64Array, RecordBatch};
use expect_test::expect;
use weir_operators::error::Error;
use weir_operators::operator::{Context, Operator, Timer};
use weir_operators::route::key_group;
use weir_operators::script::Script;
use weir_operators::state::{KeyedTable, StateRegistry};
use weir_schemas::rows::Changes;
use weir_schemas::time::EventTime;

/// Counts each key; an hour after a key was first seen its count is written, and a marker deleted.
struct CountForAnHour {
    counts: KeyedTable<Vec<u8>, i64>,
}

const HOUR: i64 = 3_600_000_000;

impl CountForAnHour {
    fn build(state: &mut StateRegistry) -> Result<Box<dyn Operator>, Error> {
        Ok(Box::new(CountForAnHour { counts: state.keyed(0, 1 << 20)? }))
    }
}

impl Operator for CountForAnHour {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let keys = batch.column(0).as_binary::<i32>();
        let times = batch.column(1).as_primitive::<Int64Type>();
        for (key, at) in keys.iter().flatten().zip(times.values()) {
            let group = key_group(key);
            let mut count = self.counts.get_or_insert_with(group, &key.to_vec(), || 0)?;
            if *count == 0 {
                cx.set_timer(Timer { at: EventTime(at + HOUR), key: key.to_vec(), group });
            }
            *count += 1;
        }
        cx.emit(batch);
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut Context<'_>) -> Result<(), Error> {
        let count = self.counts.get(timer.group, &timer.key)?.map_or(0, |count| *count);
        self.counts.remove(timer.group, &timer.key)?;
        let rows = RecordBatch::try_from_iter([
            ("key", Arc::new(BinaryArray::from(vec![timer.key.as_slice(), b"\0"])) as _),
            ("at", Arc::new(Int64Array::from(vec![cx.watermark().0 / HOUR, 0])) as _),
            ("count", Arc::new(Int64Array::from(vec![Some(count), None])) as _),
        ])?;
        let deleted = Some(BooleanArray::from(vec![false, true]));
        cx.write(Changes { table: "counts".into(), rows, deleted });
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

fn seen(keys: &[(&str, i64)]) -> RecordBatch {
    let names: Vec<_> = keys.iter().map(|(key, _)| key.as_bytes()).collect();
    let times: Vec<_> = keys.iter().map(|(_, hours)| hours * HOUR).collect();
    RecordBatch::try_from_iter([
        ("key", Arc::new(BinaryArray::from(names)) as _),
        ("at", Arc::new(Int64Array::from(times)) as _),
    ])
    .unwrap()
}

#[test]
fn a_script_shows_what_was_emitted_and_written_and_recovers_what_was_committed() {
    let mut script = Script::new(CountForAnHour::build).unwrap();
    script.input(seen(&[("basket", 1), ("login", 2), ("basket", 1)])).unwrap();
    script.end_of_epoch().unwrap();
    expect![[r#"
        emitted on 0
          key       at
          'basket'  3600000000
          'login'   7200000000
          'basket'  3600000000
    "#]]
    .assert_eq(&script.take_output());

    // Not committed: it is lost with the process, and comes again.
    script.delay_commits();
    script.input(seen(&[("basket", 1)])).unwrap();
    script.watermark(EventTime(2 * HOUR)).unwrap();
    script.end_of_epoch().unwrap();
    let before = script.take_output();
    script.recover().unwrap();
    assert_eq!(script.epoch().0, 2);
    script.input(seen(&[("basket", 1)])).unwrap();
    script.watermark(EventTime(2 * HOUR)).unwrap();
    script.end_of_epoch().unwrap();
    script.commit().unwrap();
    let after = script.take_output();
    assert_eq!(before, after);
    expect![[r#"
        emitted on 0
          key       at
          'basket'  3600000000
        written to counts
            key       at  count
          + 'basket'  2   3
          - 0x00      0   null
    "#]]
    .assert_eq(&after);

    // The timer of 'login' was set before the recovery and fires once, with the state that goes with it.
    script.recover().unwrap();
    script.watermark(EventTime(5 * HOUR)).unwrap();
    script.watermark(EventTime(6 * HOUR)).unwrap();
    script.end_of_epoch().unwrap();
    expect![[r#"
        written to counts
            key      at  count
          + 'login'  5   1
          - 0x00     0   null
    "#]]
    .assert_eq(&script.take_output());
}

/// Sets timers and says in which order they fire.
struct FireInOrder;

impl Operator for FireInOrder {
    fn on_batch(&mut self, _: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        for (at, key) in [(5, "b"), (3, "z"), (5, "a"), (9, "later"), (4, "taken back"), (5, "a")] {
            cx.set_timer(Timer { at: EventTime(at), key: key.into(), group: 1 });
        }
        cx.cancel_timer(Timer { at: EventTime(4), key: "taken back".into(), group: 1 });
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut Context<'_>) -> Result<(), Error> {
        if timer.key == b"z" {
            // Due already: fires in the same rise, in its place.
            cx.set_timer(Timer { at: EventTime(5), key: "aa".into(), group: 1 });
        }
        cx.emit(RecordBatch::try_from_iter([("fired", Arc::new(BinaryArray::from(vec![timer.key.as_slice()])) as _)])?);
        Ok(())
    }

    fn on_watermark(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.emit(RecordBatch::try_from_iter([("risen to", Arc::new(Int64Array::from(vec![cx.watermark().0])) as _)])?);
        Ok(())
    }

    fn end_of_epoch(&mut self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn timers_fire_in_the_order_of_time_then_key_before_on_watermark() {
    let mut script = Script::new(|_| Ok(Box::new(FireInOrder))).unwrap();
    script.input(seen(&[("any", 0)])).unwrap();
    script.watermark(EventTime(2)).unwrap();
    script.end_of_epoch().unwrap();
    script.recover().unwrap();
    script.watermark(EventTime(5)).unwrap();
    let said = script.take_output();
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("emitted")).map(str::trim).collect();
    assert_eq!(
        said,
        ["risen to", "2", "fired", "'z'", "fired", "'a'", "fired", "'aa'", "fired", "'b'", "risen to", "5"]
    );
}
