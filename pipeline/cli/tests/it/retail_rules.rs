//! A pack of rules for the real shop's faults: missing customers, cancellations, negative and zero prices, odd codes. Each
//! count equals that of independent SQL over the CSV as ClickHouse reads it.

use crate::program::{Bench, clickhouse};
use crate::retail::{data, load_oracle, shop};

/// Each rule, the lines that break it by other means than the rule's own, and how many there are.
const BROKEN: &[(&str, &str, u64)] = &[
    ("prices_are_given", "toFloat64(UnitPrice) = 0", 2_515),
    ("customers_are_known", "empty(ifNull(CustomerID, ''))", 135_078),
    ("customers_are_numbers", "CustomerID != '' AND NOT match(CustomerID, '^[0-9]+[.]0$')", 0),
    ("invoices_are_numbered", "length(InvoiceNo) != 6 + startsWith(InvoiceNo, 'C') OR startsWith(InvoiceNo, 'A')", 1),
    ("invoices_are_no_cancellations", "startsWith(InvoiceNo, 'C')", 9_288),
    ("cancellations_take_back", "startsWith(InvoiceNo, 'C') AND Quantity >= 0", 0),
    ("returns_are_cancellations", "Quantity < 1 AND NOT startsWith(InvoiceNo, 'C')", 1_336),
    ("quantities_are_plausible", "abs(Quantity) > 10000", 5),
    ("codes_are_articles", "empty(extract(StockCode, '^([0-9]{5})[a-zA-Z]?[a-zA-Z]?$'))", 2_993),
    ("code_lengths", "lengthUTF8(StockCode) < 5 OR lengthUTF8(StockCode) > 7", 2_993),
    ("articles_are_described", "empty(ifNull(Description, ''))", 1_454),
    ("countries_exist", "Country IN ('Unspecified', 'European Community', 'RSA', 'EIRE', 'Channel Islands')", 9_519),
];

/// A small shop is judged by the day.
const JUDGE: &str = "\n[alerts.judge]\nwindow_ms = 86400000\nlearn_windows = 28\n";

/// What the judge says of the shop: each alert has a sentence, an owner's question to ask, and blames no release, since the
/// shop names none.
fn alerts_read_sensibly(bench: &Bench) {
    let told = bench.ask(
        "SELECT toDate(window_start), status, severity, cause_kind, cause, tenant_count, rule, detail, affected_records, \
         records FROM weir_alerts_history WHERE status IN ('open', 'reopened') ORDER BY window_start, fingerprint",
    );
    println!("retail, alerts as they open:\n{told}");
    assert_eq!(bench.ask("SELECT countIf(detail = '' OR query = '') FROM weir_alerts_history"), "0");
    let queries = bench.ask("SELECT DISTINCT query FROM weir_alerts_history FORMAT TSVRaw");
    for query in queries.lines().filter(|query| !query.is_empty()) {
        assert_ne!(bench.ask(&format!("SELECT count() FROM ({query})")), "0", "{query}");
    }
}

#[test]
fn a_pack_of_rules_finds_the_faults_of_a_real_shop() {
    let Some(path) = data() else { return };
    let bench = shop("retail_rules");
    let rules = std::fs::read_to_string(bench.folder.path().join("rules.toml")).unwrap();
    let pipeline = std::fs::read_to_string(bench.file()).unwrap();
    std::fs::write(bench.file(), pipeline + &rules + JUDGE).unwrap();
    let csv = path.display().to_string();
    let produce = ["produce", "--topic", &bench.topic, "--partitions", "4", "--csv", &csv, "--retail"];
    bench.weir(&[&produce[..], &["--duplicates", "0.01", "--seed", "7"]].concat()).fine();
    let oracle = weir_replay::parts::unique("retail_rules_oracle");
    load_oracle(&oracle, &path);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();

    let mut told = Vec::new();
    for (rule, broken, known) in BROKEN {
        let lines = format!("SELECT count() FROM sales WHERE UnitPrice >= 0 AND ({broken})");
        let expected = clickhouse(&oracle, &lines, &[]);
        assert_eq!(expected, known.to_string(), "{rule}: the oracle itself");
        assert_eq!(
            bench.ask(&format!("SELECT count() FROM weir_violations WHERE rule = '{rule}'")),
            expected,
            "{rule}"
        );
        let tagged = format!("SELECT countIf(has(weir_broken_rules, '{rule}')) FROM sales");
        assert_eq!(bench.ask(&tagged), expected, "{rule}: tags");
        told.push(format!("{rule}: {expected}"));
    }
    let negative = "SELECT count() >= 2, uniqExact(found), any(found), any(expected), any(severity), any(owner), \
                    uniqExact(extract(value, 'Adjust bad debt')) FROM weir_quarantine \
                    WHERE rule = 'prices_are_not_negative'";
    assert_eq!(bench.ask(negative), "1\t1\t-11062.06\tUnitPrice >= 0\tcritical\tledger\t1");
    let refused = clickhouse(&oracle, "SELECT count() FROM sales WHERE UnitPrice < 0", &[]);
    assert_eq!(bench.ask("SELECT 541909 - sum(accepted) FROM weir_ledger"), refused);
    alerts_read_sensibly(&bench);
    println!("retail, lines by broken rule, all as ClickHouse counts them: {}", told.join(", "));
}
