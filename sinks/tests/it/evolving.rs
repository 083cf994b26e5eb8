//! Tables that are there already: left alone, extended, or refused by name before anything is changed.

use weir_schemas::stage::Column;
use weir_schemas::types::{ColumnType, Width};
use weir_sinks::clickhouse::{Client, Layout, ViewTable};

use crate::parts::{database, lines};
use crate::sample::{MARCH, layout, revenue, write};

async fn refused(client: &Client, layout: &Layout, parts: &[&str]) {
    let before =
        lines(client, "SELECT name, create_table_query FROM system.tables WHERE database = '{db}' ORDER BY name").await;
    let error = layout.apply(client).await.expect_err("is refused").to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    let after =
        lines(client, "SELECT name, create_table_query FROM system.tables WHERE database = '{db}' ORDER BY name").await;
    assert_eq!(before, after, "something was changed");
}

fn with_column(name: &str, column_type: ColumnType) -> ViewTable {
    let mut view = revenue();
    view.select.push(view.table.columns.len());
    view.table.columns.push(Column::new(name, column_type));
    view
}

#[tokio::test]
async fn applied_twice_changes_nothing_and_keeps_the_rows() {
    let client = database().await;
    let mut view = revenue();
    view.table.retention_days = Some(3_650);
    let statements = layout(view.clone()).apply(&client).await.expect("created");
    assert_eq!(statements.len(), 2, "{statements:?}");
    write(&client, &[(MARCH, "eu", 1, 10)], 1).await;
    assert_eq!(layout(view).apply(&client).await.expect("is there"), Vec::<String>::new());
    assert_eq!(lines(&client, "SELECT orders FROM {db}.revenue").await, ["(1)"]);
}

#[tokio::test]
async fn a_new_measure_is_added_and_older_rows_show_its_default() {
    let client = database().await;
    layout(revenue()).apply(&client).await.expect("created");
    write(&client, &[(MARCH, "eu", 1, 10)], 1).await;
    let state = with_column("buyers", ColumnType::AggregateState("uniqExact, String".to_owned()));
    let statements = layout(state.clone()).apply(&client).await.expect("a column is added");
    assert_eq!(statements.len(), 1, "{statements:?}");
    assert!(statements[0].contains("ADD COLUMN IF NOT EXISTS `buyers`"), "{statements:?}");
    // The encoder of the older table names its columns, so it still fits.
    write(&client, &[(MARCH, "us", 2, 10)], 2).await;
    let seen =
        "SELECT tenant, orders, buyers, uniqExactMerge(buyers_state) FROM {db}.revenue GROUP BY ALL ORDER BY ALL";
    assert_eq!(lines(&client, seen).await, ["('eu',1,0,0)", "('us',2,0,0)"]);
    assert_eq!(layout(state).apply(&client).await.expect("is there"), Vec::<String>::new());
}

#[tokio::test]
async fn what_could_lose_or_mix_rows_is_refused_by_name() {
    let client = database().await;
    layout(with_column("extra", ColumnType::Int(Width::W32))).apply(&client).await.expect("created");
    let other_type = with_column("extra", ColumnType::Int(Width::W64));
    refused(&client, &layout(other_type), &["revenue__rows", "column extra is Int32, needed is Int64", "RENAME TABLE"])
        .await;
    refused(&client, &layout(revenue()), &["column extra is there", "DROP COLUMN `extra`"]).await;

    let mut other_key = with_column("extra", ColumnType::Int(Width::W32));
    other_key.table.columns.swap(1, 5);
    refused(&client, &layout(other_key), &["its sorting key is", "needed is"]).await;

    let mut no_months = with_column("extra", ColumnType::Int(Width::W32));
    no_months.table.partition_by = None;
    refused(&client, &layout(no_months), &["its sorting key is"]).await;

    let mut appended = with_column("extra", ColumnType::Int(Width::W32));
    appended.table.kind = weir_schemas::rows::TableKind::Appended;
    refused(
        &client,
        &layout(appended),
        &["its engine is ReplacingMergeTree(_version, _is_deleted), needed is ReplacingMergeTree(_version)"],
    )
    .await;
}

#[tokio::test]
async fn what_weir_did_not_make_is_never_replaced() {
    for theirs in
        ["CREATE TABLE {db}.revenue (mine UInt8) ENGINE = Memory", "CREATE VIEW {db}.revenue AS SELECT 1 AS mine"]
    {
        let client = database().await;
        client.execute(&theirs.replace("{db}", client.database())).await.expect("created");
        refused(&client, &layout(revenue()), &["revenue", "that Weir did not make", "database of its own"]).await;
        lines(&client, "SELECT mine FROM {db}.revenue").await;
    }
}

#[tokio::test]
async fn a_column_that_clickhouse_fills_by_itself_is_left_alone() {
    let client = database().await;
    layout(revenue()).apply(&client).await.expect("created");
    let database = client.database();
    let add = format!("ALTER TABLE {database}.revenue__rows ADD COLUMN double_orders UInt64 MATERIALIZED orders * 2");
    client.execute(&add).await.expect("added");
    assert_eq!(layout(revenue()).apply(&client).await.expect("is there"), Vec::<String>::new());
    write(&client, &[(MARCH, "eu", 4, 10)], 1).await;
    assert_eq!(lines(&client, "SELECT double_orders FROM {db}.revenue__rows").await, ["(8)"]);
}

#[tokio::test]
async fn rows_are_kept_longer_at_once_and_shorter_only_by_hand() {
    let client = database().await;
    let kept = |days: Option<u32>| {
        let mut view = revenue();
        view.table.retention_days = days;
        layout(view)
    };
    kept(Some(3_650)).apply(&client).await.expect("created");
    let statements = kept(Some(7_300)).apply(&client).await.expect("longer");
    assert!(statements.len() == 1 && statements[0].contains("MODIFY TTL"), "{statements:?}");
    refused(&client, &kept(Some(30)), &["shrink to 30 days", "MODIFY TTL"]).await;
    let statements = kept(None).apply(&client).await.expect("for ever");
    assert!(statements.len() == 1 && statements[0].contains("REMOVE TTL"), "{statements:?}");
    refused(&client, &kept(Some(7_300)), &["shrink to 7300 days"]).await;
    assert_eq!(kept(None).apply(&client).await.expect("is there"), Vec::<String>::new());
}

/// The statements that `check` prints are the ones that run.
#[tokio::test]
async fn the_printed_statements_make_the_same_tables() {
    let client = database().await;
    for statement in layout(revenue()).create(client.database()).expect("statements") {
        client.execute(&statement).await.expect("runs");
    }
    assert_eq!(layout(revenue()).apply(&client).await.expect("is there"), Vec::<String>::new());
}

#[tokio::test]
async fn what_columns_are_is_told_in_the_database_and_brought_up_to_date() {
    let client = database().await;
    let told = |words: &str| {
        let mut view = revenue();
        view.table.comment = format!("Orders {words}");
        view.table.columns[2].comment = format!("how many, {words}");
        layout(view)
    };
    layout(revenue()).apply(&client).await.expect("created");
    for words in ["that's one", "that's another"] {
        let statements = told(words).apply(&client).await.expect("told");
        assert!(statements.len() == 1 && statements[0].contains("COMMENT COLUMN `orders`"), "{statements:?}");
        let seen = "SELECT table, comment FROM system.columns WHERE database = '{db}' AND name = 'orders' \
                    AND table IN ('revenue', 'revenue__rows', 'revenue__by_day') ORDER BY table";
        let comment = format!("how many, {}", words.replace('\'', "\\'"));
        let of = |table: &str| format!("('{table}','{comment}')");
        assert_eq!(lines(&client, seen).await, [of("revenue"), of("revenue__by_day"), of("revenue__rows")]);
        let table = "SELECT comment FROM system.tables WHERE database = '{db}' AND name = 'revenue'";
        let comment = format!("('Weir: Orders {} [", words.replace('\'', "\\'"));
        assert!(lines(&client, table).await[0].starts_with(&comment), "{comment}");
        assert_eq!(told(words).apply(&client).await.expect("is there"), Vec::<String>::new());
    }
    let silent = "SELECT table, name FROM system.columns WHERE database = '{db}' AND name IN ('is_closed', 'is_final', \
                  'spend_state', 'lag_ms', 'freshness_ms') AND comment = ''";
    assert_eq!(lines(&client, silent).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_readers_database_shows_the_same_and_nothing_else() {
    let client = database().await;
    let to = format!("{}_read", client.database());
    let layout = Layout { reader_database: Some(to.clone()), ..layout(revenue()) };
    let printed = layout.create(client.database()).expect("statements");
    assert!(printed.iter().any(|statement| statement.contains("SQL SECURITY DEFINER")), "{printed:?}");
    layout.apply(&client).await.expect("created");
    write(&client, &[(MARCH, "eu", 1, 10), (MARCH, "eu", 2, 20)], 1).await;
    let reader = client.in_database(&to);
    let seen = "SELECT tenant, orders, sumMerge(spend_state), is_closed FROM {db}.revenue GROUP BY ALL";
    assert_eq!(lines(&reader, seen).await, lines(&client, seen).await);
    let names = "SELECT name FROM system.tables WHERE database = '{db}' ORDER BY name";
    let expected = ["('revenue')", "('revenue__by_day')", "('revenue__by_hour')", "('weir_progress')"];
    assert_eq!(lines(&reader, names).await, expected);
    let comment =
        "SELECT comment FROM system.columns WHERE database = '{db}' AND table = 'revenue' AND name = 'is_closed'";
    assert_eq!(lines(&reader, comment).await, ["('whether every event of the window that isn\\'t late is in')"]);

    // What somebody else made there is left alone, too.
    let (replace, keep) =
        (format!("DROP VIEW {to}.revenue"), format!("CREATE TABLE {to}.revenue (x UInt8) ENGINE = Memory"));
    client.execute(&replace).await.expect("dropped");
    client.execute(&keep).await.expect("created");
    refused(&client, &layout, &["revenue", "that Weir did not make"]).await;
}

/// A view is replaced when it would be made by other statements, and then alone.
#[tokio::test]
async fn what_is_as_it_should_be_is_not_made_again() {
    let client = database().await;
    let to = format!("{}_read", client.database());
    let of = |view: ViewTable| Layout { reader_database: Some(to.clone()), ..layout(view) };
    let made = async || {
        let sql = format!(
            "SELECT database = '{{db}}', name, toString(uuid) FROM system.tables \
             WHERE database IN ('{{db}}', '{to}') AND engine = 'View' ORDER BY ALL"
        );
        lines(&client, &sql).await
    };
    of(revenue()).apply(&client).await.expect("created");
    let first = made().await;
    assert_eq!(first.len(), 8);
    assert!(first.iter().all(|view| !view.contains("00000000-0000-0000-0000")), "{first:?}");
    of(revenue()).apply(&client).await.expect("is there");
    assert_eq!(made().await, first);

    let mut told = revenue();
    told.table.columns[2].comment = "how many".to_owned();
    of(told.clone()).apply(&client).await.expect("told");
    let second = made().await;
    let is_same = |view: &String| first.contains(view);
    assert!(second.iter().all(|view| is_same(view) == view.contains("weir_progress")), "{first:?} {second:?}");

    // A view whose columns were never told of, since the connection broke, is made once more.
    client.execute(&format!("ALTER TABLE {to}.revenue MODIFY COMMENT 'Weir: '")).await.expect("told");
    of(told).apply(&client).await.expect("made");
    let third = made().await;
    assert_eq!(third.iter().filter(|view| !second.contains(view)).count(), 1, "{second:?} {third:?}");
}

#[tokio::test]
async fn what_is_offered_no_more_is_dropped_and_nothing_else() {
    let client = database().await;
    let to = format!("{}_read", client.database());
    let of = |view: ViewTable| Layout { reader_database: Some(to.clone()), ..layout(view) };
    of(revenue()).apply(&client).await.expect("created");
    for theirs in [
        format!("CREATE VIEW {to}.mine AS SELECT 1 AS x"),
        format!("CREATE VIEW {to}.other AS SELECT 1 AS x COMMENT 'Weir: of another database'"),
    ] {
        client.execute(&theirs).await.expect("created");
    }
    let mut renamed = revenue();
    renamed.table.name = std::sync::Arc::from("sales");
    renamed.rollups.clear();
    of(renamed).apply(&client).await.expect("renamed");
    let names = "SELECT name FROM system.tables WHERE database = '{db}' AND engine = 'View' ORDER BY name";
    assert_eq!(
        lines(&client.in_database(&to), names).await,
        ["('mine')", "('other')", "('sales')", "('weir_progress')"]
    );
    // The rows are still there, so their view is, too: in the database itself.
    let kept = ["('revenue')", "('revenue__by_day')", "('revenue__by_hour')", "('sales')", "('weir_progress')"];
    assert_eq!(lines(&client, names).await, kept);

    let mut flat = revenue();
    flat.rollups.clear();
    of(flat).apply(&client).await.expect("without coarser views");
    assert_eq!(lines(&client, names).await, ["('revenue')", "('sales')", "('weir_progress')"]);
}

#[tokio::test]
async fn the_bytes_of_refused_records_are_not_offered() {
    let client = database().await;
    let to = format!("{}_read", client.database());
    let mut layout = Layout { reader_database: Some(to.clone()), ..layout(revenue()) };
    layout.tables.push(weir_schemas::tables::quarantine(None));
    layout.apply(&client).await.expect("created");
    let columns = "SELECT name FROM system.columns WHERE database = '{db}' AND table = 'weir_quarantine' \
                   AND name IN ('key', 'value', 'reason', 'offset') ORDER BY name";
    let all = ["('key')", "('offset')", "('reason')", "('value')"];
    assert_eq!(lines(&client, columns).await, all);
    assert_eq!(lines(&client.in_database(&to), columns).await, ["('offset')", "('reason')"]);
    lines(&client.in_database(&to), "SELECT * FROM {db}.weir_quarantine").await;
}
