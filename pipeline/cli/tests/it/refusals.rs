//! What is wrong is told: where it stands, what to do, and an exit code that means something. Nothing is lost by it.

use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use crate::program::{Bench, WEIR, clickhouse, parts, wait_until};
use crate::shop::{sell, shop};

#[test]
fn every_problem_of_a_pipeline_file_is_told_at_its_place() {
    let bench = shop("refused_file");
    bench.edit("epoch_ms = 200", "epoch_ms = 200\nworkrs = 4");
    bench.edit("tenant = \"tenant\"", "tennant = \"tenant\"");
    let told = ["pipeline.toml:5:1: unknown key `workrs`", "did you mean `workers`?", "did you mean `tenant`?"];
    bench.weir(&["check", "pipeline.toml"]).refused(2, &told);
    bench.weir(&["run", "pipeline.toml"]).refused(2, &told);
    bench.weir(&["run", "nowhere.toml"]).refused(2, &["nowhere.toml", "weir init"]);
    // What is wrong beside the file is told with it: a field that the schema hasn't, a view's SQL.
    bench.edit("event_time = \"occurred_at\"", "event_time = \"ocurred_at\"");
    let view = bench.folder.path().join("views/by_minute.sql");
    let sql = std::fs::read_to_string(&view).unwrap();
    std::fs::write(&view, sql.replace("sumIf(amount", "sumIf(amuont")).unwrap();
    let beside = ["names the field `ocurred_at`", "did you mean `occurred_at`?", "by_minute.sql:6:", "amuont"];
    bench.weir(&["check", "pipeline.toml"]).refused(2, &[&told[..], &beside].concat());
}

#[test]
fn rows_that_expire_before_their_corrections_are_refused() {
    let bench = shop("refused_retention");
    bench.edit("allowed_lateness_ms = 30000", "allowed_lateness_ms = 129600000");
    bench.edit("file = \"views/by_minute.sql\"", "file = \"views/by_minute.sql\"\nretention_days = 1");
    let told = ["views.by_minute.retention_days is 1", "keep rows for 2 days at least", "`allowed_lateness_ms`"];
    bench.weir(&["check", "pipeline.toml", "--offline"]).refused(2, &told);
    bench.edit("retention_days = 1", "retention_days = 2");
    bench.weir(&["check", "pipeline.toml", "--offline"]).fine();
    bench.edit("insert_every_ms = 200", "insert_every_ms = 200\nreader_database = \"${DATABASE}\"");
    bench.weir(&["check", "pipeline.toml", "--offline"]).refused(2, &["the readers' database is Weir's own"]);
}

/// A coarser view of what HAVING kept would pass for one of everything.
#[test]
fn a_view_that_leaves_groups_out_has_no_coarser_ones() {
    let folder = tempfile::tempdir().unwrap();
    let weir = |arguments: &[&str]| {
        let output =
            Command::new(WEIR).args(arguments).current_dir(folder.path()).env("NO_COLOR", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    weir(&["init", "shop"]);
    let check = || weir(&["check", "shop/pipeline.toml", "--offline"]);
    assert!(check().contains("revenue_by_minute__by_hour"));
    let view = folder.path().join("shop/views/revenue_by_minute.sql");
    let text = std::fs::read_to_string(&view).unwrap();
    std::fs::write(&view, format!("{}\nHAVING orders > 10\n", text.trim_end())).unwrap();
    let told = check();
    assert!(!told.contains("revenue_by_minute__by_hour") && told.contains("visitors_by_hour__by_day"), "{told}");
    let comment =
        told.lines().find(|line| line.starts_with("COMMENT") && line.contains("per window_start, tenant, country"));
    assert!(comment.is_some_and(|comment| comment.contains(" having ")), "{told}");
}

#[test]
fn a_reader_that_has_gone_away_ends_nothing_and_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop");
    for arguments in [&["completions", "bash"][..], &["init", path.to_str().unwrap()]] {
        // As `| head` leaves it: the other end of the pipe is closed before a line is written.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Command::new(WEIR).args(arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    assert!(path.join("pipeline.toml").is_file(), "what it was to do is done");
}

#[test]
fn sql_and_fields_that_do_not_fit_are_told_at_their_place() {
    let bench = shop("refused_sql");
    let view = bench.folder.path().join("views/by_minute.sql");
    let text = std::fs::read_to_string(&view).unwrap();
    std::fs::write(
        &view,
        text.replace("uniqExact(user_id)", "uniqExat(user_id)").replace("sumIf(amount", "sumIf(amuont"),
    )
    .unwrap();
    bench
        .weir(&["check", "pipeline.toml"])
        .refused(2, &["by_minute.sql:7:5", "by_minute.sql:6:11", "uniqExact", "amount"]);
    std::fs::write(
        &view,
        text.replace(
            "GROUP BY window_start, tenant, country",
            "GROUP BY window_start, tenant, country ORDER BY events",
        ),
    )
    .unwrap();
    bench.weir(&["check", "pipeline.toml"]).refused(2, &["by_minute.sql:", "ORDER BY"]);
    std::fs::write(&view, text).unwrap();
    bench.edit("event_time = \"occurred_at\"", "event_time = \"happened_at\"");
    bench.weir(&["check", "pipeline.toml", "--offline"]).refused(2, &["happened_at", "event_time"]);
}

#[test]
fn parts_that_do_not_answer_are_named() {
    let bench = shop("refused_parts");
    // The topic is missing.
    bench.weir(&["run", "pipeline.toml"]).refused(3, &["there is no topic", &bench.topic]);
    sell(&bench, 10, 1, &[]);
    for (from, to, words) in [
        ("brokers = \"${BROKERS}\"", "brokers = \"127.0.0.1:1\"", ["kafka at 127.0.0.1:1", "kafka.brokers"]),
        ("url = \"${REGISTRY}\"", "url = \"http://127.0.0.1:1\"", ["registry", "127.0.0.1:1"]),
        ("url = \"${CLICKHOUSE}\"", "url = \"http://127.0.0.1:1\"", ["ClickHouse", "127.0.0.1:1"]),
    ] {
        bench.edit(from, to);
        bench.weir(&["run", "pipeline.toml"]).refused(3, &words[..1]);
        bench.weir(&["check", "pipeline.toml"]).refused(3, &words[1..]);
        bench.edit(to, from);
    }
}

#[test]
fn a_second_instance_and_a_changed_view_are_refused() {
    let bench = shop("refused_second");
    sell(&bench, 1_000, 1, &[]);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("it runs", || bench.folder.path().join("state").exists() && has_rows(&bench));
    bench.weir(&["run", "pipeline.toml"]).refused(4, &["state"]);
    running.kill().unwrap();
    running.wait().unwrap();

    let view = bench.folder.path().join("views/by_minute.sql");
    let text = std::fs::read_to_string(&view).unwrap();
    std::fs::write(&view, text.replace("'heartbeat'", "'search'")).unwrap();
    bench.weir(&["run", "pipeline.toml"]).refused(2, &["by_minute"]);
    // One measure more is refused before any table is changed, so that it can be taken back; `check` sees it, too.
    let one_more = text.replace("uniqExact(user_id) AS", "max(amount) AS dearest, uniqExact(user_id) AS");
    assert_ne!(one_more, text);
    std::fs::write(&view, one_more).unwrap();
    bench.weir(&["check", "pipeline.toml"]).refused(2, &["W005", "view by_minute"]);
    bench.weir(&["run", "pipeline.toml"]).refused(2, &["W005", "view by_minute"]);
    // Another comment or line break is no other query.
    std::fs::write(&view, format!("-- the same\n{text}\n")).unwrap();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
}

#[test]
fn offsets_that_expired_and_a_topic_made_anew_are_told() {
    let bench = shop("refused_log");
    sell(&bench, 2_000, 1, &[]);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("it runs", || has_rows(&bench));
    running.kill().unwrap();
    running.wait().unwrap();
    sell(&bench, 2_000, 2, &[]);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", parts().kafka()).create().unwrap();
    let mut expire = TopicPartitionList::new();
    for partition in 0..4 {
        expire.add_partition_offset(&bench.topic, partition, Offset::End).unwrap();
    }
    runtime.block_on(admin.delete_records(&expire, &AdminOptions::new())).unwrap();
    bench.weir(&["run", "pipeline.toml"]).refused(4, &["expired", &bench.topic, "state folder"]);

    runtime.block_on(admin.delete_topics(&[&bench.topic], &AdminOptions::new())).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let anew = NewTopic::new(&bench.topic, 4, TopicReplication::Fixed(1));
    wait_until("the topic is made anew", || {
        runtime.block_on(admin.create_topics([&anew], &AdminOptions::new())).unwrap()[0].is_ok()
    });
    bench.weir(&["run", "pipeline.toml"]).refused(4, &["made anew", &bench.topic]);
}

fn has_rows(bench: &Bench) -> bool {
    let there = format!("SELECT count() FROM tables WHERE database = '{}' AND name = 'weir_ledger'", bench.database);
    clickhouse("system", &there, &[]) == "1" && bench.ask("SELECT count() > 0 FROM weir_ledger") == "1"
}
