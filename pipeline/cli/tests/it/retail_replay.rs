//! Three months of a real shop's year once more: from the topic and from the archive the rows are the live ones, and with a
//! changed view and a changed rule the difference is the one that ClickHouse finds over the CSV.

use std::path::Path;

use serde_json::Value;

use crate::program::{Bench, clickhouse};
use crate::replay::replay_of;
use crate::retail::{data, load_oracle, shop};

/// Days of London and of UTC are the same then.
const RANGE: [&str; 4] = ["--from", "2010-12-15T00:00:00Z", "--to", "2011-03-15T00:00:00Z"];
/// Each view, its window and other key columns, and a column of floats whose last digit may differ, if it has one.
const VIEWS: [(&str, &str, &str, Option<&str>); 4] = [
    ("revenue_by_hour", "hour", "hour, Country", None),
    ("customers_by_day", "day", "day", None),
    ("products_by_day", "day", "day, product", None),
    ("cancellations", "hour", "hour, market", Some("value")),
];
const RULE: &str = "\n[quality.rules.quantities_are_plausible]\nsource = \"sales\"\nrequire = \"Quantity > -100000\"\n\
                    mode = \"quarantine\"\n[archive]\nurl = \"archive\"\n";

fn within(window: &str) -> String {
    format!("toDate({window}) >= '2010-12-15' AND toDate({window}) < '2011-03-15'")
}

/// A year of the shop, live to its end, with everything in the archive.
fn lived(path: &Path) -> Bench {
    let bench = shop("retail_replay");
    let file = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::write(bench.file(), file + RULE).unwrap();
    let csv = path.display().to_string();
    let produce = ["produce", "--topic", &bench.topic, "--partitions", "4", "--csv", &csv, "--retail"];
    bench.weir(&[&produce[..], &["--disorder-ms", "3600000", "--seed", "7"]].concat()).fine();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    bench
}

/// What readers see of a view within the range, as a count and a sum of hashes.
fn sum(bench: &Bench, database: &str, (view, window, _, floats): (&str, &str, &str, Option<&str>)) -> String {
    let left_out = floats.map_or("revision".to_owned(), |floats| format!("revision, {floats}"));
    let range = within(window);
    bench.ask(&format!(
        "SELECT count() > 50, count(), sum(cityHash64(*)) FROM (SELECT * EXCEPT ({left_out}) FROM {database}.{view} WHERE {range})"
    ))
}

/// Rows that a change adds, removes and changes, by ClickHouse over the CSV.
fn expected(oracle: &str, (_, window, keys, _): (&str, &str, &str, Option<&str>), old: &str, new: &str) -> [u64; 3] {
    let range = within(window);
    let side = |side: u8, text: &str| {
        format!(
            "SELECT tuple({keys}) AS key, {side} AS side, tuple(* EXCEPT ({keys})) AS cells FROM ({text}) WHERE {range}"
        )
    };
    let (old, new) = (side(0, old), side(1, new));
    let counts = clickhouse(
        oracle,
        &format!(
            "SELECT countIf(before = 0), countIf(after = 0), countIf(before AND after AND kinds = 2) FROM (SELECT key, \
             max(side = 0) AS before, max(side = 1) AS after, uniqExact(toString(cells)) AS kinds \
             FROM ({old} UNION ALL {new}) GROUP BY key)"
        ),
        &[],
    );
    let counts: Vec<u64> = counts.split('\t').map(|count| count.parse().unwrap()).collect();
    counts.try_into().unwrap()
}

#[test]
fn three_months_of_a_real_shop_come_again_from_topic_and_archive_and_differ_by_what_was_changed() {
    let Some(path) = data() else { return };
    let bench = lived(&path);
    let replay = |run: &str, more: &[&str]| {
        bench.weir(&[&["replay", "pipeline.toml", "--run", run], &RANGE[..], more].concat()).fine();
    };
    for (run, more) in [("topic", &[][..]), ("archive", &["--from-archive"])] {
        replay(run, more);
        bench.weir(&["diff", "pipeline.toml", run]).fine();
    }
    for view in VIEWS {
        let live = sum(&bench, &bench.database, view);
        assert!(live.starts_with("1\t"), "{view:?}: {live}");
        assert_eq!(sum(&bench, &replay_of(&bench, "topic"), view), live, "{view:?}: from the topic");
        assert_eq!(sum(&bench, &replay_of(&bench, "archive"), view), live, "{view:?}: from the archive");
    }

    // Of the view a product goes, of all of them what took back.
    let folder = bench.folder.path();
    let text_of = |view: &str| std::fs::read_to_string(folder.join(format!("views/{view}.sql"))).unwrap();
    let without = "FROM sales WHERE StockCode != '85123A'";
    let next = text_of("revenue_by_hour").replace("FROM sales", without);
    std::fs::write(folder.join("views/next.sql"), &next).unwrap();
    let file = std::fs::read_to_string(bench.file()).unwrap();
    let changed = file.replace("views/revenue_by_hour.sql", "views/next.sql").replace("> -100000", "> 0");
    assert!(next.contains(without) && changed.contains("Quantity > 0") && changed.contains("next.sql"));
    std::fs::write(folder.join("next.toml"), changed).unwrap();
    replay("next", &["--with", "next.toml"]);

    let oracle = weir_replay::parts::unique("retail_replay_oracle");
    load_oracle(&oracle, &path);
    let said = bench.weir(&["diff", "pipeline.toml", "next", "--json"]);
    assert_eq!(said.code, 5, "{}{}", said.out, said.err);
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut told = Vec::new();
    for view in VIEWS {
        let old = text_of(view.0);
        let new = if view.0 == "revenue_by_hour" { next.clone() } else { old.clone() };
        let new = new.replace("FROM sales", "FROM (SELECT * FROM sales WHERE Quantity > 0) AS sales");
        let expected = expected(&oracle, view, &old, &new);
        let line = lines.iter().find(|line| line["view"] == view.0).unwrap();
        let found = ["added", "removed", "changed"].map(|name| line[name].as_u64().unwrap());
        assert_eq!(found, expected, "{view:?}");
        assert!(expected.iter().sum::<u64>() > 20, "{view:?}: {expected:?}");
        told.push(format!("{}: {found:?}", view.0));
    }
    println!("retail, three months with a changed view and rule: rows added, removed, changed: {}", told.join(", "));
}
