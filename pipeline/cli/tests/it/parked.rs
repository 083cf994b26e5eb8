//! A partition whose schema can't be had waits alone, visibly, and nothing of it is lost; a replay that gives way to the live
//! pipeline waits for it.

use std::process::Command;
use std::time::Duration;

use apache_avro::types::Value;
use weir_replay::parts::Part;

use crate::log::{Log, MORNING, SALE, Sale, SaleWriter, expected, files, ledger, live};
use crate::program::{Bench, parts, terminate, wait_until};
use crate::replay::{read_by, replay_of};

/// The partition that gets records of the schema that nobody can ask for.
const WAITS: i32 = 2;
const PARTITIONS: i32 = 4;

/// Sends `count` sales to each of `partitions`, a tenth of a second apart, with the numbers from `from` on.
fn sell(log: &mut Log, writer: &SaleWriter, partitions: &[i32], from: u64, count: u64, sold: &mut Vec<Sale>) {
    for number in from..from + count {
        for &partition in partitions {
            let at = MORNING + number as i64 * 100;
            let sale = Sale::of(number, at, &format!("shop{partition}"));
            log.send(partition, at, &writer.bytes(&sale, ""));
            sold.push(sale);
        }
    }
    log.flush();
}

/// A writer whose schema has one field more, called `field`: a schema id that Weir has never seen.
fn with_field(bench: &Bench, field: &str) -> SaleWriter {
    let more = format!(r#"{{"name": "{field}", "type": "string", "default": ""}}, {{"name": "note""#);
    let schema = SALE.replace(r#"{"name": "note""#, &more);
    SaleWriter::register(bench, &schema, vec![(field.to_owned(), Value::String("new".to_owned()))])
}

/// Waits until `/status` says that only [`WAITS`] is parked, and because of what.
#[track_caller]
fn await_parked(bench: &Bench) {
    let mut seen = String::new();
    wait_until("the partition waits for its schema", || {
        let Some(status) = bench.status() else { return false };
        seen = format!("{status:#?}");
        let source = &status.sources[0];
        let parked: Vec<_> = source.partitions.iter().filter(|of| of.status.state == "parked").collect();
        let is_named = parked.iter().any(|of| {
            of.status.partition == WAITS && of.status.detail.contains("the registry can't be asked for schema")
        });
        parked.len() == 1 && is_named && source.held_back_by.as_deref() == Some(&format!("{}/{WAITS}", bench.topic))
    });
    assert!(!seen.is_empty());
    let told = bench.weir(&["status", "pipeline.toml"]).fine().out;
    let line = told.lines().find(|line| line.contains(&format!("{}/{WAITS}", bench.topic))).unwrap();
    assert!(line.contains("parked") && line.contains("holds the watermark"), "{told}");
    assert!(told.contains("the registry can't be asked"), "{told}");
}

#[test]
fn a_partition_waits_while_the_registry_is_down_and_the_others_flow() {
    let bench = Bench::alone(&files(), "parked");
    let mut log = Log::make(&bench, PARTITIONS);
    let known = SaleWriter::register(&bench, SALE, vec![]);
    let (first_new, second_new) = (with_field(&bench, "channel"), with_field(&bench, "voucher"));
    let mut sold = Vec::new();
    sell(&mut log, &known, &[0, 1, 2, 3], 0, 300, &mut sold);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("everything is read", || bench.consumed() == 1_200);

    // The registry goes; then records come that need it, with known ones behind them on the same partition.
    parts().kill(Part::Registry).unwrap();
    sell(&mut log, &first_new, &[WAITS], 300, 50, &mut sold);
    sell(&mut log, &known, &[WAITS], 350, 50, &mut sold);
    await_parked(&bench);

    // The others flow on; what waits isn't consumed, and no window closes without it.
    sell(&mut log, &known, &[0, 1, 3], 300, 600, &mut sold);
    wait_until("the others are read", || bench.consumed() == 1_200 + 1_800);
    await_parked(&bench);
    let complete = "SELECT toUnixTimestamp(complete_through), held_back_by FROM weir_progress WHERE view = 'by_window'";
    let (through, by) = {
        let told = bench.ask(complete);
        let (through, by) = told.split_once('\t').unwrap();
        (through.parse::<i64>().unwrap(), by.to_owned())
    };
    assert!(through <= MORNING / 1_000 + 30, "{through} is beyond what the waiting partition has said");
    assert_eq!(by, format!("{}/{WAITS}", bench.topic));
    let of_waiting = format!("SELECT sum(consumed) FROM weir_ledger WHERE partition = {WAITS}");
    assert_eq!(bench.ask(&of_waiting), "300");

    // It comes back, and everything is taken without anybody's help.
    parts().restart(Part::Registry).unwrap();
    wait_until("what waited is read", || bench.consumed() == 3_100);
    wait_until("nothing waits", || {
        bench.status().is_some_and(|status| status.sources[0].partitions.iter().all(|of| of.status.state != "parked"))
    });

    // Once more, and this time Weir is stopped while a partition waits: the position stays before what waits.
    parts().kill(Part::Registry).unwrap();
    sell(&mut log, &second_new, &[WAITS], 400, 500, &mut sold);
    await_parked(&bench);
    terminate(&mut running);
    assert_eq!(bench.consumed(), 3_100);
    parts().restart(Part::Registry).unwrap();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();

    assert_eq!(live(&bench, "%"), expected(&sold));
    assert_eq!(ledger(&bench), "3600\t3600\t0\t0\t0\t0\t0");
    bench.weir(&["verify", "pipeline.toml"]).fine();
}

/// Records that the running pipeline is behind.
fn lag(bench: &Bench) -> i64 {
    let sources = bench.status().map(|status| status.sources).unwrap_or_default();
    let partitions = sources.iter().flat_map(|source| &source.partitions);
    partitions.map(|of| of.status.end_offset - of.status.next_offset).sum()
}

/// The lag is real: a partition of the live pipeline waits for the registry. The replay doesn't need it, since it reads the
/// archive.
#[test]
fn a_replay_waits_while_the_live_pipeline_is_behind() {
    let bench = Bench::alone(&files(), "behind");
    let file = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::write(bench.file(), file + "\n[archive]\nurl = \"archive\"\nroll_ms = 500\nmerge_after_ms = 0\n").unwrap();
    let mut log = Log::make(&bench, PARTITIONS);
    let (known, new) = (SaleWriter::register(&bench, SALE, vec![]), with_field(&bench, "channel"));
    let mut sold = Vec::new();
    // Three minutes, of which the first is final, since sales may be a hundred seconds late.
    sell(&mut log, &known, &[0, 1, 2, 3], 0, 1_800, &mut sold);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("everything is read", || bench.consumed() == 7_200);
    wait_until("everything is archived", || {
        let archive = bench.status().and_then(|status| status.archive);
        archive.is_some_and(|archive| archive.records == 7_200 && archive.lag_records == 0)
    });
    let is_final = "SELECT count() FROM weir_progress WHERE view = 'by_window' AND \
                    final_through >= toDateTime('2026-01-05 06:01:00', 'UTC')";
    wait_until("the first minute is final", || bench.ask(is_final) == "1");
    parts().kill(Part::Registry).unwrap();
    sell(&mut log, &new, &[WAITS], 1_800, 50, &mut sold);
    await_parked(&bench);
    wait_until("its end is known", || lag(&bench) == 50);

    let times = ["--from", "2026-01-05T06:00:00Z", "--to", "2026-01-05T06:01:00Z"];
    let how = ["--run", "patient", "--from-archive", "--while-lag-below", "1"];
    let mut replay = bench.start(&[&["replay", "pipeline.toml"], &times[..], &how[..]].concat());
    wait_until("it has tables", || read_by(&bench, "patient").is_some());
    // So much it reads in a fraction of a second, if it may.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(read_by(&bench, "patient"), Some(0));
    assert!(replay.try_wait().unwrap().is_none() && lag(&bench) == 50);
    // One that doesn't answer at all may be further behind than that.
    let tell = |signal: &str| Command::new("kill").args([signal, &running.id().to_string()]).status().unwrap();
    tell("-STOP");
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(read_by(&bench, "patient"), Some(0));
    tell("-CONT");

    parts().restart(Part::Registry).unwrap();
    wait_until("what waited is read", || bench.consumed() == 7_250);
    let mut ended = None;
    wait_until("the replay ends", || {
        ended = replay.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    let rows = bench.ask(&format!(
        "SELECT toUnixTimestamp(window_start), shop, sales, revenue, users FROM {}.by_window ORDER BY 1, 2",
        replay_of(&bench, "patient")
    ));
    assert_eq!(rows, expected(sold.iter().filter(|sale| sale.at < MORNING + 60_000)));
    terminate(&mut running);
}
