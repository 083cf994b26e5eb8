//! The retail proof: a year of a real shop through Kafka, and every cell equal to ClickHouse's own answer over an
//! independently loaded table of the CSV file.
//!
//! Data: UCI Online Retail (doi:10.24432/C5BW33), CC BY 4.0. It isn't kept in this repository: the environment variable
//! WEIR_RETAIL names the file, or it lies beside the checkout.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use crate::program::{Bench, clickhouse, skipped, wait_until};

const ROWS: u64 = 541_909;

/// The data file, if it is there. In continuous integration it has to be.
pub(crate) fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/retail/retail.csv.gz");
    let path = std::env::var_os("WEIR_RETAIL").map_or(beside, PathBuf::from);
    if path.is_file() {
        return Some(path);
    }
    assert!(std::env::var_os("WEIR_REQUIRE_RETAIL").is_none(), "{} is missing", path.display());
    skipped(&format!("no retail data at {}: WEIR_RETAIL names the file", path.display()));
    None
}

/// A bench with the shop's pipeline and its reader schema.
pub(crate) fn shop(name: &str) -> Bench {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bench = Bench::of(&folder.join("tests/it/retail"), name);
    let avsc = bench.folder.path().join("retail.avsc");
    std::fs::copy(folder.join("../../replay/presets/retail.avsc"), avsc).unwrap();
    bench
}

/// The oracle: the CSV as ClickHouse itself reads it, in a table that Weir never sees, under the views' own name.
pub(crate) fn load_oracle(database: &str, path: &Path) {
    clickhouse("default", &format!("CREATE DATABASE {database}"), &[]);
    let columns = "InvoiceNo String, StockCode String, Description Nullable(String), Quantity Int32, \
                   InvoiceDate DateTime64(3, 'UTC'), UnitPrice Decimal(10, 3), CustomerID Nullable(String), Country String";
    let create = format!("CREATE TABLE sales ({columns}) ENGINE = MergeTree ORDER BY InvoiceDate");
    clickhouse(database, &create, &[]);
    let mut csv = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut csv).unwrap();
    let insert = "INSERT INTO sales SETTINGS date_time_input_format = 'best_effort', \
                  input_format_csv_empty_as_default = 1, input_format_null_as_default = 0 FORMAT CSVWithNames";
    clickhouse(database, insert, &csv);
    assert_eq!(clickhouse(database, "SELECT count() FROM sales", &[]), ROWS.to_string());
}

const VIEWS: [(&str, &str); 4] = [
    ("revenue_by_hour", "mean_quantity"),
    ("customers_by_day", ""),
    ("products_by_day", ""),
    ("cancellations", "value"),
];

/// Compares a view with the same text over the oracle: rows and cells that differ. The column `of_floats` is a mean or a
/// sum of Float64, which may differ by rounding; everything else must be the same to the last digit.
fn differing(bench: &Bench, oracle: &str, view: &str, of_floats: &str) -> String {
    let text = std::fs::read_to_string(bench.folder.path().join(format!("views/{view}.sql"))).unwrap();
    let described = clickhouse(oracle, &format!("DESCRIBE ({text})"), &[]);
    let names: Vec<&str> = described.lines().filter_map(|line| line.split('\t').next()).collect();
    let exact: Vec<String> =
        names.iter().filter(|name| **name != of_floats).map(|name| format!("toString({name})")).collect();
    let exact = exact.join(", ");
    let floats = if of_floats.is_empty() { "0.".to_owned() } else { of_floats.to_owned() };
    let side = |from: &str| format!("SELECT tuple({exact}) AS cells, {floats} AS f FROM {from}");
    let expected = side(&format!("({text})"));
    let live = side(&format!("{}.{view}", bench.database));
    clickhouse(
        oracle,
        &format!(
            "SELECT count(), countIf(n != 2), countIf(abs(high - low) > 1e-9 * greatest(abs(high), abs(low))) FROM (\
             SELECT cells, count() AS n, max(f) AS high, min(f) AS low FROM ({expected} UNION ALL {live}) GROUP BY cells)"
        ),
        &[],
    )
}

#[track_caller]
fn assert_equal(bench: &Bench, oracle: &str, how: &str) {
    for (view, of_floats) in VIEWS {
        let found = differing(bench, oracle, view, of_floats);
        let mut counts = found.split('\t').map(|count| count.parse::<u64>().unwrap());
        let rows = counts.next().unwrap();
        assert!(rows > 100, "{how}, {view}: only {rows} rows");
        assert_eq!(counts.collect::<Vec<_>>(), [0, 0], "{how}, {view}: rows on one side only, floats that differ");
    }
    let unbalanced = "SELECT countIf(consumed != accepted + quarantined + duplicate + duplicate_differing + too_late \
                      + too_late_after_idle + tombstone), sum(accepted), sum(consumed) - sum(accepted) - sum(duplicate) \
                      FROM weir_ledger";
    assert_eq!(bench.ask(unbalanced), format!("0\t{ROWS}\t0"), "{how}: the ledger");
}

#[test]
fn a_year_of_retail_equals_clickhouse_with_any_workers_and_through_a_kill() {
    let Some(path) = data() else { return };
    let mut bench = shop("retail");
    let oracle = weir_replay::parts::unique("retail_oracle");
    let csv = path.display().to_string();
    let topic = bench.topic.clone();
    let produce = [
        "produce",
        "--topic",
        &topic,
        "--partitions",
        "4",
        "--csv",
        &csv,
        "--retail",
        "--disorder-ms",
        "3600000",
        "--duplicates",
        "0.01",
        "--seed",
        "7",
    ];
    let said = bench.weir(&produce).fine().out;
    assert!(said.contains("541 909 rows"), "{said}");
    load_oracle(&oracle, &path);

    for workers in ["1", "2", "4"] {
        bench.anew("retail");
        bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", workers]).fine();
        assert_equal(&bench, &oracle, &format!("{workers} workers"));
    }
    let verified = bench.weir(&["verify", "pipeline.toml"]).fine().out;
    assert_eq!(verified.matches("equal").count(), VIEWS.len(), "{verified}");

    // Killed in the middle, three times, and resumed with another number of workers.
    bench.anew("retail");
    let mut killed = 0;
    for (workers, least) in [("2", 50_000), ("1", 200_000), ("4", 350_000)] {
        let mut running = bench.start(&["run", "pipeline.toml", "--until-end", "--workers", workers]);
        wait_until("some rows", || {
            let exists = clickhouse(
                "system",
                &format!("SELECT count() FROM tables WHERE database = '{}' AND name = 'weir_ledger'", bench.database),
                &[],
            );
            running.try_wait().unwrap().is_some()
                || (exists == "1"
                    && bench.ask("SELECT sum(consumed) FROM weir_ledger").parse::<u64>().unwrap_or(0) >= least)
        });
        running.kill().unwrap();
        // Unless it was at its end before: a fast machine may be.
        killed += u32::from(running.wait().unwrap().signal() == Some(libc::SIGKILL));
    }
    assert!(killed > 0, "no run was killed in its middle");
    bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", "2"]).fine();
    assert_equal(&bench, &oracle, &format!("killed {killed} times"));
}
