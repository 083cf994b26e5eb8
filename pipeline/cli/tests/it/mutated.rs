//! Mutated messages through Kafka, among good ones on the same partitions: each is accounted for by its place, each
//! refused one is kept byte for byte, and the good ones' rows are those of an independent count.

use std::fmt::Write;

use fastrand::Rng;

use crate::log::{Log, MORNING, SALE, Sale, SaleWriter, expected, files, live};
use crate::mutations::mutate;
use crate::program::{Bench, clickhouse, size};

const PARTITIONS: i32 = 4;

/// Loads what was sent into a table that Weir never sees: place, whether it was mutated, and the bytes.
fn load_sent(bench: &Bench, sent: &[(bool, Vec<u8>)], places: &[(i32, i64)]) {
    let create = "CREATE TABLE sent (partition Int32, offset Int64, mutated Bool, hex String, \
                  value String MATERIALIZED unhex(hex)) ENGINE = MergeTree ORDER BY (partition, offset)";
    clickhouse(&bench.database, create, &[]);
    for (sent, places) in sent.chunks(50_000).zip(places.chunks(50_000)) {
        let mut lines = String::new();
        for ((is_mutated, value), (partition, offset)) in sent.iter().zip(places) {
            write!(lines, "{partition}\t{offset}\t{is_mutated}\t").unwrap();
            value.iter().for_each(|byte| write!(lines, "{byte:02X}").unwrap());
            lines.push('\n');
        }
        let insert = "INSERT INTO sent FORMAT TSV";
        clickhouse(&bench.database, insert, lines.as_bytes());
    }
    assert_eq!(bench.ask("SELECT count() FROM sent"), sent.len().to_string());
}

#[test]
fn mutated_messages_are_accounted_for_and_their_neighbours_unharmed() {
    let mutated = size(30_000, 1_000_000);
    let bench = Bench::of(&files(), "mutated");
    // Ids that mutations make up aren't worth a wait.
    bench.edit("grace_ms = 1000", "grace_ms = 0");
    let mut log = Log::make(&bench, PARTITIONS);
    let writer = SaleWriter::register(&bench, SALE, vec![]);
    let mut random = Rng::with_seed(0x_bad);
    let (mut sent, mut good) = (Vec::new(), Vec::new());
    for number in 0..mutated {
        // A hundred sales a second of the log's time; records carry it as their Kafka timestamp, so that no mutated
        // event time can move the watermark beyond it.
        let at = MORNING + number as i64 * 10;
        let sale = Sale::of(number, at, "good");
        let bytes = writer.bytes(&sale, "");
        log.send((number % PARTITIONS as u64) as i32, at, &bytes);
        sent.push((false, bytes));
        good.push(sale);
        let pool: Vec<Vec<u8>> = (0..2)
            .map(|copy| {
                let note = "a note that gives mutations room";
                writer.bytes(&Sale::of(number * 2 + copy, at - 500, "mutant"), note)
            })
            .collect();
        let bytes = mutate(&pool, &mut random);
        log.send(random.i32(0..PARTITIONS), at, &bytes);
        sent.push((true, bytes));
    }
    let places = log.flush();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();

    // The good ones: every cell is what was sent, whatever became of their neighbours.
    assert_eq!(live(&bench, "good"), expected(&good));
    bench.weir(&["verify", "pipeline.toml"]).fine();

    // By place: every record is an event, or in the quarantine, or counted as a duplicate; none is two of these.
    load_sent(&bench, &sent, &places);
    let kept = "SELECT _partition AS partition, _offset AS offset, '' AS reason FROM sales";
    let refused = "SELECT partition, offset, toString(reason) FROM weir_quarantine";
    let fates = bench.ask(&format!(
        "SELECT count(), uniqExact(partition, offset), countIf(NOT mutated AND reason != ''), \
         countIf(reason LIKE 'too_late%'), countIf(reason = '') \
         FROM (SELECT * FROM sent INNER JOIN ({kept} UNION ALL {refused}) AS fate USING (partition, offset))"
    ));
    let fates: Vec<u64> = fates.split('\t').map(|count| count.parse().unwrap()).collect();
    let [found, places_found, good_refused, too_late, accepted] = fates[..] else { panic!("{fates:?}") };
    assert_eq!((found, good_refused), (places_found, 0));
    let duplicates = 2 * mutated - found;
    let counted = bench.ask(
        "SELECT sum(consumed), sum(accepted), sum(quarantined), sum(duplicate) + sum(duplicate_differing), \
         sum(too_late) + sum(too_late_after_idle), sum(tombstone), countIf(consumed != accepted + quarantined + duplicate \
         + duplicate_differing + too_late + too_late_after_idle + tombstone) FROM weir_ledger",
    );
    let quarantined = found - accepted - too_late;
    assert_eq!(counted, format!("{}\t{accepted}\t{quarantined}\t{duplicates}\t{too_late}\t0\t0", 2 * mutated));
    // Nothing is in either table that wasn't sent, and what is refused is kept as it came.
    assert_eq!(bench.ask(&format!("SELECT count() FROM ({kept} UNION ALL {refused})")), found.to_string());
    let bytes = "SELECT count(), countIf(sent.value != refused.value) FROM weir_quarantine AS refused \
                 INNER JOIN sent USING (partition, offset)";
    assert_eq!(bench.ask(bytes), format!("{}\t0", found - accepted));

    // The mutations reach every way of refusing: otherwise this shows less than it says.
    let reasons = bench.ask("SELECT reason, count() FROM weir_quarantine GROUP BY reason ORDER BY reason");
    println!("{mutated} mutated messages: {accepted} accepted in all, {duplicates} duplicates, refused:\n{reasons}");
    for reason in
        ["not_framed", "unknown_schema", "truncated", "trailing_bytes", "malformed", "future_event_time", "too_late"]
    {
        assert!(reasons.lines().any(|line| line.starts_with(&format!("{reason}\t"))), "{reason} in\n{reasons}");
    }
    assert!(quarantined > mutated / 2 && accepted > mutated + mutated / 50, "{fates:?}");
}
