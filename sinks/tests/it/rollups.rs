//! Coarser views merge what is stored, whenever it is corrected.

use weir_schemas::time::EventTime;

use crate::closing::{complete, seconds};
use crate::parts::{database, lines};
use crate::sample::{MARCH, layout, revenue, write};

#[tokio::test]
async fn hours_and_days_are_merged_from_minutes_and_follow_corrections() {
    let client = database().await;
    layout(revenue()).apply(&client).await.expect("created");
    let (hour, day) = (3_600, 86_400);
    write(
        &client,
        &[
            (MARCH, "eu", 1, 10),
            (MARCH + 60, "eu", 2, 20),
            (MARCH + hour, "eu", 4, 40),
            (MARCH + day - 60, "eu", 8, 80),
            (MARCH + day, "eu", 16, 160),
            (MARCH, "us", 32, 320),
        ],
        1,
    )
    .await;
    let hours =
        "SELECT window_start, orders, spend FROM {db}.revenue__by_hour WHERE tenant = 'eu' ORDER BY window_start";
    assert_eq!(
        lines(&client, hours).await,
        [
            "('2026-03-01 00:00:00',3,30)",
            "('2026-03-01 01:00:00',4,40)",
            "('2026-03-01 23:00:00',8,80)",
            "('2026-03-02 00:00:00',16,160)"
        ]
    );
    let days = "SELECT window_start, orders, spend, revision, is_closed, is_final FROM {db}.revenue__by_day WHERE tenant = 'eu' \
                ORDER BY window_start";
    assert_eq!(
        lines(&client, days).await,
        ["('2026-03-01',15,150,4,false,false)", "('2026-03-02',16,160,1,false,false)"]
    );
    // A day is closed when it has ended, not when the windows that are there have.
    complete(&client, "revenue", seconds(MARCH + day - 60), EventTime::MIN, 1).await;
    assert!(lines(&client, days).await[0].contains("false,false"));
    complete(&client, "revenue", seconds(MARCH + day), seconds(MARCH + day), 2).await;
    write(&client, &[(MARCH + 60, "eu", 3, 30)], 3).await;
    assert_eq!(
        lines(&client, days).await,
        ["('2026-03-01',16,160,4,true,true)", "('2026-03-02',16,160,1,false,false)"]
    );
    let whole =
        "SELECT tenant, sumMerge(spend_state), sum(orders) FROM {db}.revenue__by_day GROUP BY tenant ORDER BY tenant";
    assert_eq!(lines(&client, whole).await, ["('eu',320,32)", "('us',320,32)"]);
}

/// A range of days of the coarser view reads only those days of the minutes.
#[tokio::test]
async fn a_range_of_days_reaches_the_index() {
    let client = database().await;
    layout(revenue()).apply(&client).await.expect("created");
    let database = client.database();
    client
        .execute(&format!(
            "INSERT INTO {database}.revenue__rows (window_start, tenant, orders, _version) \
             SELECT toDateTime({MARCH}, 'UTC') + number % 44640 * 60, toString(intDiv(number, 44640)), 1, 1 \
             FROM numbers(892800)"
        ))
        .await
        .expect("filled");
    client.execute(&format!("OPTIMIZE TABLE {database}.revenue__rows FINAL")).await.expect("merged");
    let sql = "SELECT * FROM {db}.revenue__by_day WHERE window_start = '2026-03-10'";
    let plan = lines(&client, &format!("EXPLAIN indexes = 1 {sql}")).await;
    let granules = plan.iter().rev().find_map(|line| line.split_once("Granules: ")?.1.split_once('/'));
    let (read, of) = granules.expect("an index");
    let of = of.trim_end_matches(['\'', ')', ',']).parse::<u32>().expect("a number");
    assert!(of > 100 && read.parse::<u32>().expect("a number") * 10 <= of, "{read} of {of}");
    assert_eq!(lines(&client, &format!("SELECT sum(orders) FROM ({sql})")).await, ["(28800)"]);
}

/// Rows go one by one when their time is over; what is left of an hour or day would pass for all of it.
#[tokio::test]
async fn a_day_of_which_rows_may_have_gone_is_left_out() {
    let client = database().await;
    let mut view = revenue();
    let now = lines(&client, "SELECT toUnixTimestamp(now())").await;
    let now: i64 = now[0].trim_matches(['(', ')']).parse().expect("a time");
    let (minute, day) = (60, 86_400);
    view.table.retention_days = Some(3);
    layout(view).apply(&client).await.expect("created");
    // The oldest day, of which half has gone at noon, then whole ones; the hours of the oldest day that are kept.
    let today = now - now % day;
    let oldest = [(today - 3 * day + day - 1, "eu", 1, 10), (today - 2 * day, "eu", 2, 20), (today, "eu", 4, 40)];
    // What would go while this runs is not written.
    let is_kept = |at: i64| at > now - 3 * day + minute;
    let kept: Vec<_> = oldest.into_iter().filter(|row| is_kept(row.0)).collect();
    write(&client, &kept, 1).await;
    let days = "SELECT toUnixTimestamp(toDateTime(window_start, 'UTC')), orders FROM {db}.revenue__by_day ORDER BY window_start";
    let whole = [(today - 2 * day, 2), (today, 4)].into_iter().filter(|(start, _)| is_kept(*start));
    let expected: Vec<String> = whole.map(|(start, orders)| format!("({start},{orders})")).collect();
    assert_eq!(lines(&client, days).await, expected);
    let hours = "SELECT count() FROM {db}.revenue__by_hour";
    // An hour of which a part may have gone is left out, too.
    let whole = kept.iter().filter(|row| row.0 - row.0 % 3_600 > now - 3 * day).count();
    assert_eq!(lines(&client, hours).await, [format!("({whole})")]);
    let told = "SELECT comment FROM system.tables WHERE database = '{db}' AND name = 'revenue__by_day'";
    assert!(lines(&client, told).await[0].contains("Only days of which every row is kept: rows go after 3 days."));
}
