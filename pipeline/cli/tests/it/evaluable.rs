//! Events that a view can't be evaluated for: refused whole, each once; over the others ClickHouse's query has an answer,
//! and it is the live one.

use std::fmt::Write;
use std::path::Path;

use crate::program::Bench;

/// What is wrong with an event: kind, amount, day, score and price, and what the quarantine says of it, if it goes there.
const ODD: &[([&str; 5], &str)] = &[
    (["sale", "twelve apples", "", "1", "1"], "view amounts: toInt64(amount): the string can't be parsed as Int64"),
    (["ignored", "twelve apples", "", "1", "1"], ""),
    (["dated", "1", "never", "1", "1"], "view amounts: toDate(day): the string can't be parsed as Date"),
    (["sale", "1", "never", "1", "1"], ""),
    (["sale", "1", "", "high", "1"], "view scores: toFloat64(score): the string can't be parsed as Float64"),
    (
        ["sale", "1", "", "inf", "1"],
        "view scores: quantileDD: the value is out of the sketch's range; leave it out, for example by quantileDDIf",
    ),
    (["sale", "1", "", "nan", "1"], ""),
    (["sale", "1", "", "1", "99999999"], "view scores: (price * price): Decimal math overflow"),
    (["ruled", "1", "12", "1", "1"], ""),
    (
        ["ruled", "1", "never", "1", "1"],
        "rule ruled_days_are_numbers: toInt64(day): the string can't be parsed as Int64",
    ),
];

fn lines() -> String {
    let mut lines = String::new();
    let mut line = |id: usize, [kind, amount, day, score, price]: [&str; 5]| {
        writeln!(
            lines,
            r#"{{"event_id": "e{id}", "occurred_at": "2026-01-05T06:{:02}:00Z", "tenant": "t{}", "kind": "{kind}", "amount": "{amount}", "day": "{day}", "score": "{score}", "price": "{price}"}}"#,
            id % 1_000 / 40,
            id % 3,
        )
        .unwrap();
    };
    for id in 0..400 {
        let (amount, score) = (id.to_string(), format!("{}.5", id % 7));
        line(id, ["sale", &amount, "", &score, "1.25"]);
        if let Some((odd, _)) = ODD.get(id / 4).filter(|_| id % 4 == 0) {
            line(1_000 + id, *odd);
            // A copy of an accepted event is a duplicate, one of a refused event is refused as well.
            line(1_000 + id, *odd);
        }
    }
    lines
}

#[test]
fn events_that_a_view_cannot_be_evaluated_for_are_refused_whole_and_once() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/evaluable");
    let bench = Bench::of(&files, "evaluable");
    std::fs::write(bench.folder.path().join("events.json"), lines()).unwrap();
    let produce = ["produce", "--topic", &bench.topic, "--partitions", "3", "--json", "events.json"];
    let described = ["--schema", "event.avsc", "--time", "occurred_at", "--event-timestamps"];
    bench.weir(&[&produce[..], &described[..]].concat()).fine();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    bench.weir(&["verify", "pipeline.toml"]).fine();

    let refused = ODD.iter().filter(|(_, detail)| !detail.is_empty()).count();
    let accepted = 400 + ODD.len() - refused;
    let ledger = "SELECT sum(consumed), sum(accepted), sum(quarantined), sum(duplicate), \
                  countIf(consumed != accepted + quarantined + duplicate + duplicate_differing + too_late \
                  + too_late_after_idle + tombstone) FROM weir_ledger";
    let duplicates = ODD.len() - refused;
    assert_eq!(bench.ask(ledger), format!("{}\t{accepted}\t{}\t{duplicates}\t0", 400 + 2 * ODD.len(), 2 * refused));

    let mut details: Vec<&str> = ODD.iter().map(|(_, detail)| *detail).filter(|detail| !detail.is_empty()).collect();
    details.sort_unstable();
    let kept = bench.ask(
        "SELECT detail FROM weir_quarantine WHERE reason = 'not_evaluable' GROUP BY detail HAVING count() = 2 \
         AND uniqExact(topic, partition, offset) = 2 ORDER BY detail FORMAT TSVRaw",
    );
    assert_eq!(kept.lines().collect::<Vec<_>>(), details);
    let whole = bench.ask("SELECT countIf(position(value, 'twelve apples') > 0), count() FROM weir_quarantine");
    assert_eq!(whole, format!("2\t{}", 2 * refused), "one of the two events with that amount, and its bytes");
}
