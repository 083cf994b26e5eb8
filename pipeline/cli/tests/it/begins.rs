//! Where a pipeline without state begins: at a time, or at the log's end. And that Ctrl-C drains, and log lines are JSON where
//! that is asked for.

use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::log::{Log, MORNING, SALE, Sale, SaleWriter, expected, files, live};
use crate::program::{Bench, wait_until};

/// Sales before the pipeline is there, a second apart, in turn in two partitions.
const EARLIER: u64 = 100;
const LATER: u64 = 30;

#[test]
fn a_pipeline_begins_where_its_file_says() {
    let mut bench = Bench::of(&files(), "begins");
    let mut log = Log::make(&bench, 2);
    let writer = SaleWriter::register(&bench, SALE, vec![]);
    let mut sold = Vec::new();
    let mut sell = |log: &mut Log, number: u64| {
        let at = MORNING + number as i64 * 1_000;
        let sale = Sale::of(number, at, "shop");
        log.send((number % 2) as i32, at, &writer.bytes(&sale, ""));
        sold.push(sale);
    };
    (0..EARLIER).for_each(|number| sell(&mut log, number));
    log.flush();

    // At a time: what Kafka has recorded from then on.
    bench.edit("disorder_ms", "start = \"2026-01-05T06:00:40Z\"\ndisorder_ms");
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    assert_eq!(live(&bench, "shop"), expected(&sold[40..]));

    // At the end: what comes afterwards.
    bench.anew("begins");
    bench.edit("start = \"2026-01-05T06:00:40Z\"", "start = \"latest\"");
    let mut command = bench.command(&["run", "pipeline.toml", "--log-json"]);
    command.env("RUST_LOG", "info").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let begun = |bench: &Bench| {
        let status = bench.status()?;
        let partitions = &status.sources.first()?.partitions;
        let half = (EARLIER / 2) as i64;
        Some(partitions.len() == 2 && partitions.iter().all(|of| of.status.next_offset == half))
    };
    wait_until("both partitions are at their ends", || begun(&bench) == Some(true));
    let sell = |log: &mut Log, number: u64| {
        let at = MORNING + number as i64 * 1_000;
        log.send((number % 2) as i32, at, &writer.bytes(&Sale::of(number, at, "shop"), ""));
    };
    (EARLIER..EARLIER + LATER).for_each(|number| sell(&mut log, number));
    log.flush();
    wait_until("what came later is read", || bench.consumed() == LATER);

    // Ctrl-C is no loss and no failure.
    Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    let mut lines = String::new();
    running.stderr.take().unwrap().read_to_string(&mut lines).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0), "{lines}");
    assert_eq!(bench.consumed(), LATER);
    assert!(lines.lines().count() > 1, "{lines}");
    for line in lines.lines() {
        let told: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(told["level"].is_string() && told["fields"]["message"].is_string(), "{line}");
    }
}
