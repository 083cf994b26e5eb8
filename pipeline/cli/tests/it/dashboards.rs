//! What stands in `dashboards`: every question of the cookbook against other SQL, every panel's SQL on the engine, every PromQL
//! and rule in a real Prometheus that scrapes a running Weir, and no name in any of them that isn't there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use weir_schemas::metric::{Kind, Metric};

use crate::program::{Bench, Done, block_on, clickhouse, escaped, parts, terminate, wait_until};

/// Events, from 2026-01-05 22:00 on for not quite three hours, so that they lie on two days.
const EVENTS: &str = "30000";
const PARTITIONS: i32 = 4;
const FROM: &str = "2026-01-05 21:00:00";
const TO: &str = "2026-01-06 03:00:00";

fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards")
}

/// The pipeline of `weir init`, which is the demo's, with topics and a database of its own.
fn storefront(name: &str) -> Bench {
    let bench = Bench::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("template"), name);
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../replay/presets/storefront.avsc");
    std::fs::copy(schema, bench.folder.path().join("event.avsc")).unwrap();
    for (from, to) in [
        ("127.0.0.1:9092", "${BROKERS}"),
        ("http://127.0.0.1:8081", "${REGISTRY}"),
        ("http://127.0.0.1:8123", "${CLICKHOUSE}"),
        ("127.0.0.1:9464", "127.0.0.1:${HTTP_PORT}"),
        ("name = \"storefront\"            #", "name = \"${TOPIC}\" #"),
        ("database = \"weir\"", "database = \"${DATABASE}\"\nreader_database = \"${DATABASE}_read\""),
        ("topics = [\"events\"]", "topics = [\"${TOPIC}\"]"),
        ("\"events-quarantine\"", "\"${TOPIC}-quarantine\""),
        ("topic = \"weir-alerts\"", "topic = \"${TOPIC}-alerts\""),
        ("current_topic = \"weir-alerts-current\"", "current_topic = \"${TOPIC}-current\""),
        // The invented events are older than a demo's, and fewer in a minute.
        ("keep_events_days = 7 ", "keep_events_days = 10000 "),
        (
            "silent_windows = 30            # resolves after this many windows in a row with fewer records\nwindow_ms = 60000",
            "silent_windows = 30\nwindow_ms = 600000",
        ),
    ] {
        bench.edit(from, to);
    }
    bench
}

fn sell(bench: &Bench, from: &str, count: &str, seed: &str) {
    let mut arguments = vec!["produce", "--topic", &bench.topic, "--partitions", "4", "--storefront"];
    arguments.extend([
        "--from",
        from,
        "--events-per-second",
        "3",
        "--event-timestamps",
        "--count",
        count,
        "--seed",
        seed,
    ]);
    arguments.extend([
        "--disorder-ms",
        "3000",
        "--duplicates",
        "0.02",
        "--stragglers",
        "0.02",
        "--straggler-ms",
        "120000",
    ]);
    arguments.extend(["--bad", "0.01"]);
    bench.weir(&arguments).fine();
}

/// The topic as it is, in a table `raw` of the bench's database: what the oracles count, read without any code of Weir's.
fn load_raw(bench: &Bench) {
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", parts().kafka())
        .set("group.id", &bench.topic)
        .create()
        .unwrap();
    let mut all = rdkafka::TopicPartitionList::new();
    let mut left = 0;
    for partition in 0..PARTITIONS {
        all.add_partition_offset(&bench.topic, partition, rdkafka::Offset::Beginning).unwrap();
        let (first, end) =
            consumer.fetch_watermarks(&bench.topic, partition, std::time::Duration::from_secs(10)).unwrap();
        left += end - first;
    }
    consumer.assign(&all).unwrap();
    let mut rows = String::new();
    while left > 0 {
        let Some(message) = consumer.poll(std::time::Duration::from_secs(10)) else {
            panic!("{left} records don't come")
        };
        let message = message.unwrap();
        let kafka_time = message.timestamp().to_millis().unwrap();
        let fields = first_fields(message.payload().unwrap_or_default());
        let (occurred_at, tenant) = fields.unwrap_or((kafka_time, String::new()));
        rows += &format!(
            "{}\t{}\t{}.{:03}\t{}.{:03}\t{tenant}\n",
            message.partition(),
            message.offset(),
            kafka_time / 1000,
            kafka_time % 1000,
            occurred_at / 1000,
            occurred_at % 1000,
        );
        left -= 1;
    }
    bench.ask(
        "CREATE TABLE raw (partition Int32, offset Int64, kafka_time DateTime64(3, 'UTC'), occurred_at DateTime64(3, 'UTC'), \
         tenant String) ENGINE = MergeTree ORDER BY (partition, offset)",
    );
    clickhouse(&bench.database, "INSERT INTO raw FORMAT TSV", rows.as_bytes());
}

/// `occurred_at` and `tenant` of a framed record: behind five bytes, the second and third field of the Avro record.
fn first_fields(value: &[u8]) -> Option<(i64, String)> {
    let mut rest = value.get(5..)?;
    let id_length = usize::try_from(long(&mut rest)?).ok()?;
    rest = rest.get(id_length..)?;
    let occurred_at = long(&mut rest)?;
    let length = usize::try_from(long(&mut rest)?).ok()?;
    let tenant = std::str::from_utf8(rest.get(..length)?).ok()?;
    let is_plain = tenant.chars().all(|c| c.is_ascii_alphanumeric())
        && (1_000_000_000_000..4_000_000_000_000).contains(&occurred_at);
    is_plain.then(|| (occurred_at, tenant.to_owned()))
}

fn long(rest: &mut &[u8]) -> Option<i64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
        shift += 7;
    }
}

/// What an oracle says beside its SQL.
struct Oracle {
    sql: String,
    from: String,
    to: String,
    columns: String,
    only: String,
}

fn oracle(name: &str) -> Oracle {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cookbook").join(format!("{name}.sql"));
    let sql = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let line = |begin: &str| sql.lines().find_map(|line| line.strip_prefix(begin)).map(str::to_owned);
    let from = line("-- from=").unwrap_or_else(|| FROM.to_owned());
    let to = line("-- to=").unwrap_or_else(|| TO.to_owned());
    let columns = line("-- columns ").unwrap_or_else(|| "*".to_owned());
    let only = line("-- only ").map(|only| format!("WHERE {only}")).unwrap_or_default();
    Oracle { sql, from, to, columns, only }
}

/// The answer of a cookbook entry by `weir query` of a pipeline file, as an oracle wants to see it.
fn answer(bench: &Bench, file: &str, name: &str, oracle: &Oracle) -> Done {
    let text = std::fs::read_to_string(dashboards().join(format!("cookbook/{name}.sql"))).unwrap();
    let is_whole = oracle.columns == "*" && oracle.only.is_empty();
    let mut arguments: Vec<String> = ["query", file].map(str::to_owned).to_vec();
    if is_whole {
        arguments.extend(["--cookbook".to_owned(), name.to_owned()]);
    } else {
        let sql = format!("SELECT {} FROM ({text}) {}", oracle.columns, oracle.only);
        std::fs::write(bench.folder.path().join(format!("{name}.sql")), sql).unwrap();
        arguments.push(format!("{name}.sql"));
    }
    arguments.extend(["--format".to_owned(), "csv".to_owned()]);
    for (parameter, value) in [("from", &oracle.from), ("to", &oracle.to)] {
        if text.contains(&format!("{{{parameter}:")) {
            arguments.extend(["--param".to_owned(), format!("{parameter}={value}")]);
        }
    }
    // What is no question of the cookbook any more doesn't know its defaults.
    if !is_whole {
        for line in text.lines().filter_map(|line| line.strip_prefix("-- {")) {
            let (declared, default) = line.split_once("} =").unwrap();
            let parameter = declared.split(':').next().unwrap();
            if !["from", "to"].contains(&parameter) {
                arguments.extend(["--param".to_owned(), format!("{parameter}={}", default.trim())]);
            }
        }
    }
    bench.weir(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn entries() -> Vec<String> {
    let files = std::fs::read_dir(dashboards().join("cookbook")).unwrap();
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().file_name().to_string_lossy().trim_end_matches(".sql").to_owned()).collect();
    names.sort();
    names
}

#[test]
fn cookbook_boards_and_rules_tell_the_truth_of_a_run() {
    let bench = storefront("dashboards");
    sell(&bench, "2026-01-05T22:00:00Z", EVENTS, "7");
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    // The end of that run closed every window; what comes now corrects the last of them.
    sell(&bench, "2026-01-06T00:46:40Z", "900", "9");
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    load_raw(&bench);
    cookbook(&bench);
    readers(&bench);
    panels(&bench);
    comments(&bench);
    queries(&bench);
    names(&bench);
    prometheus(&bench);
}

/// Every entry gives what other SQL gives over the accepted events, the topic and the base tables.
fn cookbook(bench: &Bench) {
    let mut wrong = Vec::new();
    let names = entries();
    assert!(names.len() >= 30, "{}", names.len());
    for name in &names {
        let oracle = oracle(name);
        let done = answer(bench, "pipeline.toml", name, &oracle);
        let expected = bench.ask(&format!("{} FORMAT CSV", oracle.sql));
        let (header, told) = done.out.split_once('\n').unwrap_or(("", ""));
        if done.code != 0 || told.trim_end() != expected || expected.is_empty() {
            let first = |text: &str| text.lines().take(4).collect::<Vec<_>>().join("\n");
            wrong.push(format!("{name}: {header}\n{}{}\nexpected\n{}", first(told), done.err, first(&expected)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n\n{}", wrong.len(), names.len(), wrong.join("\n\n"));
}

/// What a server needs to let people read the readers' database who may read nothing else, as far as an engine without grants
/// can show it: each object is a view that reads with its maker's rights, and only Weir's own one of its name. Nothing in the
/// cookbook needs another database, but for what ClickHouse tells of itself.
fn readers(bench: &Bench) {
    let database = format!("{}_read", bench.database);
    let list = |database: &str| {
        bench.ask(&format!(
            "SELECT name FROM system.tables WHERE database = '{database}' AND engine = 'View' AND NOT is_temporary ORDER BY name"
        ))
    };
    assert_eq!(list(&database), list(&bench.database), "all that people see is there");
    let made = bench.ask(&format!(
        "SELECT name, engine, create_table_query LIKE '% DEFINER = % SQL SECURITY DEFINER%', \
         endsWith(as_select, concat('FROM {}.', name)) FROM system.tables WHERE database = '{database}'",
        bench.database
    ));
    assert!(made.lines().count() > 20, "{made}");
    for of in made.lines() {
        assert!(of.ends_with("\tView\t1\t1"), "{of}");
    }
    let hidden = format!("SELECT hasColumnInTable('{database}', 'weir_quarantine', 'value')");
    assert_eq!(bench.ask(&hidden), "0", "nobody knows what refused records hold");

    let text = std::fs::read_to_string(bench.file()).unwrap();
    let text = text.replace("reader_database = \"${DATABASE}_read\"", "");
    let text = text.replace("database = \"${DATABASE}\"", &format!("database = \"{database}\""));
    std::fs::write(bench.folder.path().join("readers.toml"), text).unwrap();
    for name in entries() {
        let oracle = oracle(&name);
        let (own, read) =
            (answer(bench, "pipeline.toml", &name, &oracle), answer(bench, "readers.toml", &name, &oracle));
        let asks_server = name == "table_sizes";
        assert!(
            asks_server || (read.code == 0 && read.out == own.out),
            "{name}:\n{}\n{}{}",
            own.out,
            read.out,
            read.err
        );
    }
}

/// Every board that is there, by its file's name: one that is added is tested without being named here.
fn boards() -> Vec<(String, String)> {
    let files = std::fs::read_dir(dashboards().join("grafana")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|of| of == "json")).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    let of = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.file_stem().unwrap().to_string_lossy().into_owned(), text)
    };
    files.into_iter().map(of).collect()
}

/// Every target of every panel, and of every variable that asks.
fn targets(kind: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (board, text) in boards() {
        let board_json: Value = serde_json::from_str(&text).unwrap();
        for panel in board_json["panels"].as_array().unwrap() {
            let name = format!("{board}: {}", panel["title"].as_str().unwrap());
            assert!(
                panel["description"].as_str().is_some_and(|question| question.contains('?')),
                "{name} asks nothing"
            );
            for target in panel["targets"].as_array().unwrap() {
                found.extend(target[kind].as_str().map(|text| (name.clone(), text.to_owned())));
            }
        }
        let variables = board_json["templating"]["list"].as_array().unwrap();
        let asked = variables.iter().filter(|_| kind == "rawSql").filter(|of| of["type"] == "query");
        found.extend(asked.map(|of| (format!("{board}: variable"), of["query"].as_str().unwrap().to_owned())));
    }
    found
}

/// The SQL of panels that show one number.
fn stats() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(dashboards().join("grafana/analyst.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let stats = board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "stat");
    let of = |panel: &Value| {
        let sql = panel["targets"][0]["rawSql"].as_str().unwrap();
        (panel["title"].as_str().unwrap().to_owned(), sql.to_owned())
    };
    let found: Vec<_> = stats.map(of).collect();
    assert_eq!(found.len(), 4);
    found
}

/// SQL as the data source sends it, for the whole range of the events: its macros as its documentation has them.
fn expanded(sql: &str) -> String {
    let time = |text: &str| format!("toDateTime('{text}', 'UTC')");
    let mut sql = sql
        .replace("$__fromTime", &time(FROM))
        .replace("$__toTime", &time(TO))
        .replace("${tenant:singlequote}", "'alpine','bazaar','cobalt','dune',''");
    for (macro_name, left) in [("$__timeFilter(", true), ("$__timeInterval(", false)] {
        while let Some(at) = sql.find(macro_name) {
            let end = at + sql[at..].find(')').unwrap();
            let column = &sql[at + macro_name.len()..end];
            let text = if left {
                format!("{column} >= {} AND {column} <= {}", time(FROM), time(TO))
            } else {
                format!("toStartOfInterval(toDateTime({column}), INTERVAL 300 second)")
            };
            sql.replace_range(at..=end, &text);
        }
    }
    assert!(!sql.contains('$'), "{sql}");
    sql
}

fn panels(bench: &Bench) {
    let all = targets("rawSql");
    assert!(all.len() >= 20, "{}", all.len());
    for (panel, sql) in all {
        let told = bench.ask(&expanded(&sql));
        assert!(!told.is_empty(), "{panel} shows nothing:\n{sql}");
    }
    // One number is shown of numbers alone, and of these events hardly any is nothing.
    for (panel, sql) in stats() {
        let sql = expanded(&sql);
        for told in bench.ask(&format!("DESCRIBE TABLE ({sql})")).lines() {
            let kind = told.split('\t').nth(1).unwrap_or_default().trim_start_matches("Nullable(");
            let is_number = ["Int", "UInt", "Float", "Decimal"].iter().any(|number| kind.starts_with(number));
            assert!(is_number, "{panel} shows no number: {told}");
        }
        let number: f64 = bench.ask(&sql).trim().parse().unwrap_or_else(|error| panic!("{panel}: {error}"));
        // The run that ended has closed everything.
        let is_nothing_due = panel == "Behind" && number == 0.0;
        assert!(number > 0.0 || is_nothing_due, "{panel} shows {number}");
    }
    let complete_to = "SELECT toUnixTimestamp64Milli(argMax(complete_through, _version)) FROM weir_progress__rows WHERE view = 'revenue_by_minute'";
    // What stands first on the analyst's board is what other SQL says.
    let of = |name: &str| {
        let (_, sql) = targets("rawSql").into_iter().find(|(panel, _)| panel == name).unwrap();
        bench.ask(&expanded(&sql))
    };
    assert_eq!(of("analyst: Complete to"), bench.ask(complete_to));
    assert_eq!(
        of("analyst: Revenue").lines().next(),
        bench.ask("SELECT sum(amount) FROM events WHERE type = 'purchase'").lines().next()
    );
    let people =
        "SELECT count() FROM (SELECT DISTINCT user_id FROM events WHERE type != 'heartbeat' AND user_id IS NOT NULL)";
    assert_eq!(of("analyst: Shoppers"), bench.ask(people));
}

/// Whatever people see says what it is, in Weir's database and in the readers' one; what is counted or measured, in what.
fn comments(bench: &Bench) {
    let ours = format!("database IN ('{0}', '{0}_read')", bench.database);
    let silent = format!("SELECT database, name FROM system.tables WHERE {ours} AND comment = '' AND name != 'raw'");
    assert_eq!(bench.ask(&silent), "");
    let columns = bench.ask(&format!(
        "SELECT database, table, name, type, comment FROM system.columns WHERE {ours} AND table != 'raw'"
    ));
    let columns = columns.replace("\\'", "'");
    let mut seen = BTreeSet::new();
    for column in columns.lines() {
        let [database, _, name, kind, comment] = column.split('\t').collect::<Vec<_>>()[..] else { panic!("{column}") };
        assert!(!comment.is_empty(), "{column}");
        for (promise, words) in promises(name, kind, comment) {
            assert!(!words.is_empty() && comment.contains(words), "{promise}: {words:?} isn't said of {column}");
            seen.insert((promise, database != bench.database));
        }
    }
    for promise in ["milliseconds", "a share", "a time", "events", "distinct", "a measure"] {
        assert!(seen.contains(&(promise, false)) && seen.contains(&(promise, true)), "{promise}: {seen:?}");
    }
    let of = |column: &str| {
        bench.ask(&format!(
            "SELECT comment FROM system.columns WHERE database = currentDatabase() AND table = 'revenue_by_minute' AND name = '{column}'"
        ))
    };
    assert_eq!(of("window_start"), "start of the window of 1 minute (UTC); view revenue_by_minute");
    let revenue = of("revenue");
    assert!(
        revenue.starts_with("sumIf(amount, ")
            && revenue.contains(", in the unit of amount; view revenue_by_minute; amount: Of purchases"),
        "{revenue}"
    );
}

/// What a column's name, type or SQL promises, each with the words of its unit, which its comment has to have.
fn promises<'a>(name: &str, kind: &'a str, comment: &str) -> Vec<(&'static str, &'a str)> {
    let mut found = Vec::new();
    for (end, promise, words) in
        [("_ms", "milliseconds", "millisecond"), ("_s", "seconds", "second"), ("_bytes", "bytes", "byte")]
    {
        found.extend(name.ends_with(end).then_some((promise, words)));
    }
    found.extend((name.ends_with("share") && kind.starts_with("Float")).then_some(("a share", "0 to 1")));
    // One whose type names no zone would be shown by the server's, which nobody sees: then the words are missing.
    let is_time = kind.trim_start_matches("Nullable(").starts_with("DateTime");
    found.extend(is_time.then(|| ("a time", kind.split('\'').nth(1).unwrap_or_default())));
    let function = comment.split('(').next().unwrap_or_default().trim_end_matches("If");
    let is_of_view = comment.contains("; view ");
    found.extend(match function {
        "count" if is_of_view => Some(("events", ", in events")),
        "uniqExact" | "uniqCombined64" if is_of_view => Some(("distinct", ", in distinct values of ")),
        "sum" | "min" | "max" | "avg" | "quantileDD" if is_of_view => Some(("a measure", ", in the unit of ")),
        _ => None,
    });
    found
}

/// `weir query` in its three formats, with parameters, and what it says when it can't.
fn queries(bench: &Bench) {
    let ask = |arguments: &[&str]| bench.weir(&[&["query", "pipeline.toml"], arguments].concat());
    let table = ask(&["SELECT number AS n, 'x\ty' AS text FROM numbers(3)"]).fine().out;
    assert_eq!(
        table.lines().map(str::trim_end).collect::<Vec<_>>(),
        [" n  text", " 0  x\\ty", " 1  x\\ty", " 2  x\\ty", "3 rows"]
    );
    let odd = "a\\b\tc\nd'e\"f`g";
    let given = format!("a={odd}");
    let answered = ask(&["SELECT {a:String} AS a", "--param", &given, "--format", "json"]).fine().out;
    assert_eq!(serde_json::from_str::<Value>(&answered).unwrap()["a"], odd);
    let list = ask(&["SELECT {a:Array(String)} AS a", "--param", r"a=['it\'s','\t\\']", "--format", "json"]).fine().out;
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap()["a"], serde_json::json!(["it's", "\t\\"]));
    let csv = ask(&["SELECT {a:String} AS a", "--param", "a=it's, so", "--format", "csv"]).fine().out;
    assert_eq!(csv, "\"a\"\n\"it's, so\"\n");
    let json = ask(&["SELECT toUInt64(18446744073709551615) AS n;", "--format", "json"]).fine().out;
    assert_eq!(json, "{\"n\":18446744073709551615}\n");
    let many = ask(&["SELECT number FROM numbers(3000000)", "--format", "csv"]).fine().out;
    assert_eq!((many.lines().count(), many.lines().last()), (3_000_001, Some("2999999")));
    let cut = ask(&["SELECT number FROM numbers(3000000)", "--rows", "5"]).fine().out;
    assert_eq!(cut.lines().count(), 7);
    ask(&["SELECT 1\nFRM x"]).refused(2, &["statement:2:", "Code: 62. DB::Exception: Syntax error", "| FRM x", "^"]);
    ask(&["SELECT * FROM nowhere"]).refused(2, &["Code: 60. DB::Exception", "SHOW TABLES"]);
    ask(&["INSERT INTO raw VALUES (1, 1, 0, 0, '')"]).refused(2, &["Code: 164", "only reads"]);
    ask(&["DROP TABLE raw"]).refused(2, &["Code: 164"]);
    ask(&["SELECT sleepEachRow(1) FROM numbers(30) SETTINGS max_block_size = 1", "--seconds", "1"])
        .refused(2, &["Code: 159", "--seconds"]);
    // A failure in the middle of an answer comes behind what was printed.
    let late = ask(&["SELECT throwIf(number = 2000000) FROM numbers(3000000)", "--format", "csv"]);
    assert!(late.code == 2 && late.err.contains("Code: 395"), "{}", late.err);
    ask(&["--cookbook", "revenue_by_dy"]).refused(2, &["did you mean `revenue_by_day`"]);
    ask(&["--cookbook", "revenue_by_day", "--param", "tenent=x"])
        .refused(2, &["no parameter `tenent`", "from, to, tenant"]);
    let list = ask(&["--cookbook"]).fine().out;
    assert_eq!(list.lines().count(), 1 + entries().len());
}

/// Names of tables, columns behind a table's name, and metrics: all that are written are there.
fn names(bench: &Bench) {
    let there: BTreeSet<String> = bench
        .ask("SELECT name FROM system.tables WHERE database = currentDatabase()")
        .lines()
        .map(str::to_owned)
        .collect();
    let sql: Vec<(String, String)> = entries()
        .into_iter()
        .map(|name| (name.clone(), std::fs::read_to_string(dashboards().join(format!("cookbook/{name}.sql"))).unwrap()))
        .chain(targets("rawSql"))
        .collect();
    for (place, text) in &sql {
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| ["FROM", "JOIN"].contains(&pair[0]) && !pair[1].starts_with('(')) {
            let table = pair[1].trim_end_matches([')', ',']);
            assert!(there.contains(table) || table.starts_with("system."), "{place}: unknown table {table}");
        }
        let told = text.lines().find_map(|line| line.strip_prefix("-- reads "));
        for table in told.into_iter().flat_map(|told| told.split(", ")) {
            assert!(text.matches(table).count() > 1, "{place} doesn't read {table}");
        }
    }
    let mut known = BTreeSet::new();
    for metric in Metric::ALL {
        let name = metric.name();
        known.insert(name.to_owned());
        if metric.kind() == Kind::Histogram {
            known.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
    }
    let rules = std::fs::read_to_string(dashboards().join("prometheus/weir.rules.yml")).unwrap();
    for (place, text) in targets("expr").into_iter().chain([("rules".to_owned(), rules)]) {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        let unknown: Vec<&str> = words
            .filter(|word| word.starts_with("weir_") && !known.contains(*word))
            .filter(|word| !["weir_objectives", "weir_burn_rates", "weir_states"].contains(word))
            .collect();
        assert!(unknown.is_empty(), "{place}: unknown metrics {unknown:?}");
    }
}

/// A Prometheus, ended with the test.
struct Prometheus {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Scrapes `target` every second, with the rules of this repository.
    fn start(programs: &Path, target: &str, port: u16) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let rules = std::fs::read_to_string(dashboards().join("prometheus/weir.rules.yml")).unwrap();
        std::fs::write(folder.path().join("weir.rules.yml"), rules.replace("interval: 30s", "interval: 1s")).unwrap();
        let config = std::fs::read_to_string(dashboards().join("prometheus/prometheus.yml")).unwrap();
        let config = config.replace("127.0.0.1:9464", target);
        let config = config.replace("scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s");
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(programs.join("prometheus"))
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Prometheus { process, address, _folder: folder }
    }

    /// The answer's `data`; nothing while it doesn't answer.
    fn get(&self, path: &str) -> Option<Value> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let text = block_on(async { reqwest::get(url).await.ok()?.text().await.ok() });
        let answer: Value = serde_json::from_str(&text?).ok()?;
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        Some(answer["data"].clone())
    }

    /// Whether an expression has a value now.
    fn has(&self, expression: &str) -> bool {
        let data = self.get(&format!("query?query={}", escaped(expression)));
        data.is_some_and(|data| data["result"].as_array().is_some_and(|all| !all.is_empty()))
    }
}

fn programs() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../replay/parts/prometheus.sh");
    let output = Command::new(script).arg("fetch").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end().lines().last().unwrap_or_default())
}

/// Every PromQL of the boards and every rule, in a Prometheus that scrapes the pipeline while it runs.
fn prometheus(bench: &Bench) {
    let programs = programs();
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("it answers", || bench.status().is_some());
    let target = bench.page("").trim_start_matches("http://").to_owned();
    let ports = tempfile::tempdir().unwrap();
    let port = weir_replay::parts::Ports::of_folder(ports.path()).unwrap().registry;
    let prometheus = Prometheus::start(&programs, &target, port);
    wait_until("it scrapes", || prometheus.has("up == 1"));
    sell(bench, "2026-01-06T01:00:00Z", "6000", "8");
    let all: Vec<(String, String)> =
        targets("expr").into_iter().map(|(panel, text)| (panel, text.replace("$__rate_interval", "30s"))).collect();
    assert!(all.len() >= 20, "{}", all.len());
    let shows = |text: &str| prometheus.has(text);
    wait_until("every panel shows something", || all.iter().all(|(_, text)| shows(text)));
    for record in [
        "weir:stale:bool",
        "weir:stale:ratio_5m",
        "weir:stale:ratio_3d",
        "weir:late:ratio_rate5m",
        "weir:late:ratio_rate3d",
    ] {
        wait_until(record, || shows(record));
    }
    // The invented events are long past, so the watermark is, and the alert says so.
    wait_until("the page for freshness", || shows("ALERTS{alertname=\"WeirFreshnessPage\",alertstate=\"firing\"}"));
    let groups = prometheus.get("rules").unwrap();
    let rules: Vec<&Value> =
        groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() >= 20 && rules.iter().all(|rule| rule["health"] == "ok"), "{groups}");
    let firing: Vec<&str> =
        rules.iter().filter(|rule| rule["state"] == "firing").filter_map(|rule| rule["name"].as_str()).collect();
    assert!(!firing.contains(&"WeirLedgerImbalance") && !firing.contains(&"WeirStuck"), "{firing:?}");
    drop(prometheus);
    terminate(&mut running);
}

#[test]
fn promtool_takes_the_rules_and_their_tests() {
    let promtool = programs().join("promtool");
    let folder = dashboards().join("prometheus");
    for arguments in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "weir.rules.yml"],
        &["test", "rules", "weir.rules.test.yml"],
    ] {
        let done = Done::of(Command::new(&promtool).args(arguments).current_dir(&folder).output().unwrap()).fine();
        assert!(done.out.contains("SUCCESS") || done.err.contains("SUCCESS"), "{}{}", done.out, done.err);
    }
}
