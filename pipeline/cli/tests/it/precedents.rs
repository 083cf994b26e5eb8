//! What only the clock could judge, replayed: as the live run kept it, so that the rows are the live ones; or anew, so that
//! they differ by just those records. What a partition's own log had made late is late again, wherever the replay begins.

use apache_avro::types::Value;
use weir_schemas::avro::Encoder;
use weir_schemas::registry::{Registry, Settings};

use crate::log::{Log, MORNING, SALE, Sale, SaleWriter, expected, files, live};
use crate::program::{Bench, block_on, parts, terminate, wait_until};
use crate::replay::replay_of;

const SECOND: i64 = 1_000;

/// Everything but the last sales, which are there to make the rest final.
const ALL: [&str; 4] = ["--from", "2026-01-05T06:00:00Z", "--to", "2026-01-05T06:12:00Z"];
/// Begins behind the record that makes others late.
const LATER: [&str; 4] = ["--from", "2026-01-05T06:09:55Z", "--to", "2026-01-05T06:10:45Z"];

/// Numbers sales, sends them, and keeps those that count.
struct Shop {
    log: Log,
    writer: SaleWriter,
    sold: Vec<Sale>,
    number: u64,
}

impl Shop {
    fn sale(&mut self, at_s: i64) -> Sale {
        self.number += 1;
        Sale::of(self.number, MORNING + at_s * SECOND, "shop")
    }

    fn sell(&mut self, partition: i32, at_s: i64) -> Sale {
        let sale = self.sale(at_s);
        self.log.send(partition, sale.at, &self.writer.bytes(&sale, ""));
        sale
    }

    fn sells(&mut self, partition: i32, at_s: i64) {
        let sale = self.sell(partition, at_s);
        self.sold.push(sale);
    }
}

/// A schema that the registry doesn't have yet, and the id that it will get: the one after the newest.
struct Unregistered {
    subject: String,
    schema: String,
    id: u32,
    encoder: Encoder,
}

impl Unregistered {
    fn next(bench: &Bench) -> Unregistered {
        let schema = |field: &str| {
            let more = format!(r#"{{"name": "{field}", "type": "string", "default": ""}}, {{"name": "note""#);
            SALE.replace(r#"{"name": "note""#, &more)
        };
        let subject = format!("{}-value", bench.topic);
        let newest = block_on(registry().register(&subject, &schema("first"))).unwrap();
        let (schema, id) = (schema("second"), newest + 1);
        Unregistered { encoder: Encoder::new(id, &schema, &[]).unwrap(), subject, schema, id }
    }

    fn bytes(&self, sale: &Sale) -> Vec<u8> {
        let text = |text: &str| Value::String(text.to_owned());
        let fields = [
            ("id", text(&sale.id)),
            ("at", Value::TimestampMillis(sale.at)),
            ("shop", text(&sale.shop)),
            ("user", text(&sale.user)),
            ("amount", Value::Long(sale.amount)),
            ("second", text("")),
            ("note", text("")),
        ];
        let mut bytes = Vec::new();
        let fields = fields.map(|(name, value)| (name.to_owned(), value)).to_vec();
        self.encoder.writer().unwrap().write(&Value::Record(fields), &mut bytes).unwrap();
        bytes
    }

    fn register(&self) {
        assert_eq!(block_on(registry().register(&self.subject, &self.schema)).unwrap(), self.id);
    }
}

fn registry() -> Registry {
    Registry::new(Settings::new(parts().registry())).unwrap()
}

/// The rows of the windows from one second of the morning to before another.
fn rows(bench: &Bench, database: &str, from_s: i64, to_s: i64) -> String {
    let (from, to) = (MORNING / SECOND + from_s, MORNING / SECOND + to_s);
    bench.ask(&format!(
        "SELECT toUnixTimestamp(window_start), shop, sales, revenue, users FROM {database}.by_window \
         WHERE toUnixTimestamp(window_start) >= {from} AND toUnixTimestamp(window_start) < {to} ORDER BY 1, 2"
    ))
}

fn refused(bench: &Bench, database: &str) -> String {
    bench.ask(&format!("SELECT partition, offset, reason FROM {database}.weir_quarantine ORDER BY ALL"))
}

#[test]
fn what_the_clock_judged_is_judged_the_same_again_or_anew() {
    // Alone, since the next id of the registry has to be its.
    let bench = Bench::alone(&files(), "precedents");
    bench.edit("event_id = \"id\"", "event_id = \"id\"\ndedup_horizon_ms = 0");
    let (log, writer) = (Log::make(&bench, 2), SaleWriter::register(&bench, SALE, vec![]));
    let mut shop = Shop { log, writer, sold: Vec::new(), number: 0 };
    let unknown = Unregistered::next(&bench);

    for at in 0..10 {
        shop.sells(0, at);
        shop.sells(1, at);
    }
    shop.log.flush();
    let mut running = bench.start(&["run", "pipeline.toml", "--workers", "2"]);
    wait_until("both are read", || bench.consumed() == 20);
    // Partition 1 is silent until windows have closed without it; then it says what is too late by the clock alone.
    (10..=600).for_each(|at| shop.sells(0, at));
    shop.log.flush();
    let closed = format!(
        "SELECT max(toUnixTimestamp(window_start)) >= {} FROM by_window WHERE is_closed",
        MORNING / SECOND + 590
    );
    wait_until("windows close without it", || bench.ask(&closed) == "1");
    let mut judged = vec![shop.sell(1, 50), shop.sell(1, 60)];
    shop.sells(1, 590);
    shop.log.flush();
    wait_until("it is read", || bench.consumed() == 611 + 3);
    shop.sells(1, 700);
    shop.log.flush();
    wait_until("it is read", || bench.consumed() == 611 + 4);
    // In later epochs: one that is too late by the log before it, among others in time.
    shop.sells(1, 640);
    shop.sell(1, 598);
    shop.sells(1, 641);
    shop.log.flush();
    wait_until("it is read", || bench.consumed() == 611 + 7);
    // A schema that comes too late, with a known one among its records.
    for at in [690, 691] {
        let sale = shop.sale(at);
        shop.log.send(0, sale.at, &unknown.bytes(&sale));
        judged.push(sale);
    }
    shop.sells(0, 692);
    shop.log.flush();
    wait_until("it is refused", || bench.consumed() == 611 + 10);
    terminate(&mut running);
    unknown.register();
    let sale = shop.sale(693);
    shop.log.send(0, sale.at, &unknown.bytes(&sale));
    shop.sold.push(sale);
    shop.log.flush();
    shop.sells(0, 900);
    shop.sells(1, 900);
    shop.log.flush();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();

    assert_eq!(live(&bench, "%"), expected(&shop.sold));
    let live_refused = refused(&bench, &bench.database);
    let reasons: Vec<&str> = live_refused.lines().filter_map(|line| line.split('\t').nth(2)).collect();
    let of_idle = "too_late_after_idle";
    assert_eq!(reasons, ["unknown_schema", "unknown_schema", of_idle, of_idle, "too_late"], "{live_refused}");

    let replay = |range: &[&str], more: &[&str]| bench.weir(&[&["replay", "pipeline.toml"], range, more].concat());
    let planned = replay(&ALL, &["--plan"]).fine().out;
    assert!(planned.contains("4 records judged by the clock are judged the same again"), "{planned}");
    for (run, workers) in [("same", "1"), ("again", "3")] {
        replay(&ALL, &["--run", run, "--workers", workers]).fine();
        let replayed = replay_of(&bench, run);
        assert_eq!(rows(&bench, &replayed, 0, 720), rows(&bench, &bench.database, 0, 720));
        assert_eq!(refused(&bench, &replayed), live_refused);
        bench.weir(&["diff", "pipeline.toml", run]).fine();
    }

    // Anew, what was late by the clock is in time, and the schema is known; what its own log made late is late.
    replay(&ALL, &["--run", "anew", "--judge-anew"]).fine();
    let within = |sale: &&Sale| sale.at < MORNING + 720 * SECOND;
    let all: Vec<&Sale> = shop.sold.iter().chain(&judged).filter(within).collect();
    let replayed = replay_of(&bench, "anew");
    assert_eq!(rows(&bench, &replayed, 0, 720), expected(all.iter().copied()));
    assert_eq!(refused(&bench, &replayed).lines().count(), 1);
    assert_eq!(bench.weir(&["diff", "pipeline.toml", "anew"]).code, 5);

    // What made a record late lies before the stretch, and is known all the same.
    replay(&LATER, &["--run", "later"]).fine();
    let replayed = replay_of(&bench, "later");
    assert_eq!(rows(&bench, &replayed, 595, 645), rows(&bench, &bench.database, 595, 645));
    assert_eq!(refused(&bench, &replayed).split('\t').nth(2), Some("too_late"), "{}", refused(&bench, &replayed));
    let read = |database: &str| bench.ask(&format!("SELECT sum(consumed) FROM {database}.weir_ledger"));
    let (read_later, read_all) = (read(&replayed), read(&bench.database));
    assert!(read_later.parse::<u64>().unwrap() < read_all.parse::<u64>().unwrap(), "{read_later} of {read_all}");
}
