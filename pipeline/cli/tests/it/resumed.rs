//! A backfill that goes on live: `--until-end` over the first part of a log, then the rest, with events that are late for
//! windows that the end had closed, on real Kafka.

use crate::log::{Log, MORNING, SALE, Sale, SaleWriter, expected, files, ledger, live};
use crate::program::{Bench, terminate, wait_until};

/// A view that writes rows of closed windows only, and takes some back.
const IN_CREDIT: &str = "SELECT toStartOfInterval(at, INTERVAL 5 SECOND) AS window_start, shop, sum(amount) AS revenue \
                         FROM sales GROUP BY window_start, shop HAVING sum(amount) > 0";

fn in_credit(bench: &Bench) -> String {
    bench.ask("SELECT toUnixTimestamp(window_start), shop, revenue FROM in_credit ORDER BY 1, 2")
}

#[test]
fn a_state_that_was_run_to_the_end_goes_on_live_with_the_rows_of_one_run() {
    let mut bench = Bench::of(&files(), "resumed");
    let view = "[views.in_credit]\nfile = \"views/in_credit.sql\"\nprovisional = false\n\n[views.by_window]";
    bench.edit("[views.by_window]", view);
    std::fs::write(bench.folder.path().join("views/in_credit.sql"), IN_CREDIT).unwrap();
    let mut log = Log::make(&bench, 2);
    let writer = SaleWriter::register(&bench, SALE, vec![]);
    let mut sold: Vec<Sale> = Vec::new();
    let sell = |log: &mut Log, sold: &mut Vec<Sale>, partition: i32, at: i64, amount: i64| {
        let shop = if partition == 0 { "zero" } else { "one" };
        let sale = Sale { amount, ..Sale::of(sold.len() as u64, MORNING + at, shop) };
        log.send(partition, MORNING + at, &writer.bytes(&sale, ""));
        sold.push(sale);
    };

    // The last window, from second 20 on, is full by half when the first run ends.
    for at in (0..22_500).step_by(100) {
        sell(&mut log, &mut sold, 0, at, 1);
        sell(&mut log, &mut sold, 1, at, if at < 10_000 { 1 } else { -1 });
    }
    log.flush();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    assert_eq!(live(&bench, "%"), expected(&sold));
    assert_eq!(bench.ask("SELECT count() > 0, countIf(NOT is_closed) FROM by_window"), "1\t0");
    let final_windows = "SELECT countIf(is_final) FROM by_window";
    assert_eq!(bench.ask(final_windows), "0", "another run may still correct what the end closed");
    bench.weir(&["verify", "pipeline.toml"]).fine();
    let first = in_credit(&bench);
    assert!(first.contains("zero") && first.contains("one"), "{first}");

    // Late for windows that were closed: one goes out of credit, another comes into it.
    sell(&mut log, &mut sold, 0, 6_000, -1_000);
    sell(&mut log, &mut sold, 1, 16_000, 1_000);
    // A copy of an event of the first part is still known.
    log.send(1, sold[1].at, &writer.bytes(&sold[1], ""));
    for at in (22_500..40_000).step_by(100) {
        sell(&mut log, &mut sold, 0, at, 1);
        sell(&mut log, &mut sold, 1, at, 2);
    }
    log.flush();
    let consumed = sold.len() as u64 + 1;
    let mut running = bench.start(&["run", "pipeline.toml", "--workers", "1"]);
    wait_until("the rest is read", || bench.consumed() == consumed);
    let through = "SELECT toUnixTimestamp(complete_through) FROM weir_progress WHERE view = 'by_window'";
    wait_until("it is told again how far it is", || {
        bench.ask(through).parse::<i64>().unwrap() < MORNING / 1_000 + 3_600
    });
    wait_until("live rows are those of one run", || live(&bench, "%") == expected(&sold));
    terminate(&mut running);

    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    assert_eq!(live(&bench, "%"), expected(&sold));
    assert_eq!(ledger(&bench), format!("{consumed}\t{}\t0\t1\t0\t0\t0", consumed - 1));
    bench.weir(&["verify", "pipeline.toml"]).fine();
    let gone_on = in_credit(&bench);
    let second = (MORNING + 5_000) / 1_000;
    assert!(first.contains(&format!("{second}\tzero")) && !gone_on.contains(&format!("{second}\tzero")), "{gone_on}");

    // The same log in one run.
    bench.anew("resumed");
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    assert_eq!(live(&bench, "%"), expected(&sold));
    assert_eq!(in_credit(&bench), gone_on);
}
