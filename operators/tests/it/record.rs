//! Rows of single events have the columns that their tables declare, and the values that came.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use weir_operators::account::TopicNames;
use weir_operators::operator::{Context, Effects, Operator};
use weir_operators::record::{RecordEvents, RecordRefused, events_table};
use weir_schemas::fate::Reason;
use weir_schemas::rows::Changes;
use weir_schemas::stage::Column;
use weir_schemas::tables;
use weir_schemas::time::{Epoch, EventTime};

use crate::detect::{Record, refused};
use crate::events::{self, Event};

fn topics() -> Vec<TopicNames> {
    vec![TopicNames { source: "shop".into(), topic: "orders".into() }]
}

fn written(mut operator: impl Operator, batch: arrow_array::RecordBatch) -> Changes {
    let mut effects = Effects::default();
    operator.on_batch(batch, &mut Context::new(Epoch(1), EventTime::MIN, &mut effects)).unwrap();
    effects.changes.pop().unwrap()
}

fn assert_columns(changes: &Changes, columns: &[Column]) {
    assert_eq!(changes.rows.num_columns(), columns.len());
    for (column, field) in columns.iter().zip(changes.rows.schema().fields()) {
        assert_eq!((&column.name, &column.column_type.arrow()), (field.name(), field.data_type()));
    }
}

#[test]
fn accepted_events_keep_their_place_their_time_and_every_field() {
    let table = events_table("shop", &events::columns(), false, Some(7));
    let event = Event {
        partition: 2,
        offset: 41,
        at: 1_234_567,
        tenant: "acme",
        kind: "buy",
        amount: Some(-3),
        user: 9,
        id: "x".to_owned(),
    };
    let changes = written(RecordEvents::new(&table, topics(), Vec::new()), events::batch(&[event]));
    assert_eq!(&*changes.table, "shop");
    assert_columns(&changes, &table.columns);
    let rows = &changes.rows;
    assert_eq!(rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0), 1_234_567);
    assert_eq!(rows.column(1).as_binary::<i32>().value(0), b"orders");
    assert_eq!(rows.column(3).as_primitive::<Int64Type>().value(0), 41);
    assert_eq!(rows.column(8).as_primitive::<Int64Type>().value(0), -3);
}

#[test]
fn refused_records_say_where_and_why_in_words() {
    let record = Record { at: 5_000_000, release: "2.1", refused: Some((Reason::Malformed, "amount")), offset: 6 };
    let changes = written(RecordRefused::new(topics()), refused(&[record]));
    assert_eq!(&*changes.table, tables::QUARANTINE);
    assert_columns(&changes, &tables::quarantine(None).columns);
    let text = |column: usize| changes.rows.column(column).as_binary::<i32>().value(0);
    assert_eq!((text(1), text(6), text(7), text(10)), (&b"orders"[..], &b"malformed"[..], &b"amount"[..], &b"2.1"[..]));
}

#[test]
fn a_topic_that_the_pipeline_does_not_have_is_an_error() {
    let record = Record { at: 0, release: "", refused: Some((Reason::Rule, "")), offset: 0 };
    let mut effects = Effects::default();
    let mut cx = Context::new(Epoch(1), EventTime::MIN, &mut effects);
    let error = RecordRefused::new(Vec::new()).on_batch(refused(&[record]), &mut cx).unwrap_err();
    assert!(error.to_string().contains("topic number 0"), "{error}");
}
