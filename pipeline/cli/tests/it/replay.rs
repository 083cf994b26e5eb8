//! Replays on real parts: history that is run again gives the live rows, disturbs nothing, differs by what was changed and by
//! nothing else, and stands in the place of live rows while readers look.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use weir_replay::rerun::range::parse_time;

use crate::program::{Bench, size, wait_until};
use crate::shop::{FAULTS, sell, shop};
use crate::swapped::{
    is_completed_after_any_kill, is_not_in_place_when_clickhouse_refuses, is_taken_out_without_the_file_of_the_replay,
};

/// Each of three stretches of ten minutes of the same day, one right behind the other; the last is none of the replays' business.
pub(crate) const EVENTS: u64 = 60_000;
pub(crate) const FROM: &str = "2026-01-05T06:12:00Z";
pub(crate) const TO: &str = "2026-01-05T06:25:00Z";
pub(crate) const RANGE: &str = "window_start >= toDateTime('2026-01-05 06:12:00', 'UTC') AND \
                     window_start < toDateTime('2026-01-05 06:25:00', 'UTC')";

/// A shop that has read its log to the end, three times.
pub(crate) fn lived(name: &str) -> Bench {
    let bench = shop(name);
    live_through(&bench);
    bench
}

/// Sells three stretches, each read to its end.
fn live_through(bench: &Bench) {
    for seed in 1..=3 {
        sell(bench, EVENTS, seed, FAULTS);
        bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    }
}

/// Everything that readers see of the live side, and how far its logs are.
fn live(bench: &Bench) -> String {
    // How old what progress says is changes by itself.
    let progress = "(SELECT * EXCEPT (lag_ms, freshness_ms) FROM weir_progress)";
    let tables = ["by_minute", "weir_ledger", "weir_quarantine", "weir_alerts_history", progress, "weir_partitions"];
    let sums = tables.map(|table| bench.ask(&format!("SELECT count(), sum(cityHash64(*)) FROM {table}")));
    format!("{sums:?} {:?}", crate::alerts::messages(&format!("{}-alerts", bench.topic)).len())
}

pub(crate) fn replay_of(bench: &Bench, run: &str) -> String {
    format!("{}_replay_{run}", bench.database)
}

/// How many records a replay has committed; none while it has no tables.
pub(crate) fn read_by(bench: &Bench, run: &str) -> Option<u64> {
    let database = replay_of(bench, run);
    let there = format!("SELECT count() FROM system.tables WHERE database = '{database}' AND name = 'weir_ledger'");
    if bench.ask(&there) == "0" {
        return None;
    }
    bench.ask(&format!("SELECT sum(consumed) FROM {database}.weir_ledger")).parse().ok()
}

const COLUMNS: &str = "window_start, tenant, country, events, revenue, users";

/// Rows that only one of two sides has.
pub(crate) fn one_sided(bench: &Bench, first: &str, second: &str) -> String {
    bench.ask(&format!(
        "SELECT count() FROM (SELECT {COLUMNS}, count() AS n FROM (SELECT {COLUMNS} FROM {first} WHERE {RANGE} \
         UNION ALL SELECT {COLUMNS} FROM {second} WHERE {RANGE}) GROUP BY ALL HAVING n != 2)"
    ))
}

#[test]
fn a_replay_gives_the_live_rows_and_touches_nothing() {
    let bench = lived("replay_same");
    let before = live(&bench);
    let arguments = ["replay", "pipeline.toml", "--from", FROM, "--to", TO];
    let planned = bench.weir(&[&arguments[..], &["--plan"]].concat()).fine().out;
    assert!(planned.contains("offsets") && planned.contains("resolve") && !planned.contains("gap"), "{planned}");
    for told in ["by a sample of the values", "the live pipeline's best", "the live pipeline refused: "] {
        assert!(planned.contains(told), "{told} is missing in {planned}");
    }
    let counted = planned.lines().find(|line| line.ends_with("as the live pipeline counted them")).unwrap().to_owned();
    let counted: String = counted.chars().filter(char::is_ascii_digit).collect();
    let times = planned.lines().find(|line| line.starts_with("events read")).unwrap().to_owned();
    assert!(!bench.folder.path().join("state.replays").exists());

    for (run, workers) in [("one", "1"), ("three", "3")] {
        bench.weir(&[&arguments[..], &["--run", run, "--workers", workers]].concat()).fine();
        assert_eq!(one_sided(&bench, "by_minute", &format!("{}.by_minute", replay_of(&bench, run))), "0");
        let outside = format!("SELECT countIf(NOT ({RANGE})), count() > 100 FROM {}.by_minute", replay_of(&bench, run));
        assert_eq!(bench.ask(&outside), "0\t1", "rows of other windows");
        bench.weir(&["diff", "pipeline.toml", run]).fine();
    }
    assert_eq!(live(&bench), before);
    assert_eq!(alerts_of(&bench, "one"), alerts_of(&bench, "three"));
    assert!(alerts_of(&bench, "one").contains("\topen\t"), "the shop's bad release opens alerts in these minutes");
    // Not all of the log was read again.
    let read = |database: &str| -> u64 {
        bench.ask(&format!("SELECT sum(consumed) FROM {database}.weir_ledger")).parse().unwrap()
    };
    let (replayed, all) = (read(&replay_of(&bench, "one")), read(&bench.database));
    assert!(replayed * 4 < all * 3, "{replayed} of {all}");
    assert_eq!(replayed.to_string(), counted, "as the plan said");
    let spans = bench.ask(&format!(
        "SELECT toUnixTimestamp64Micro(min(least_event_time)), toUnixTimestamp64Micro(max(greatest_event_time)) \
         FROM {}.weir_epochs",
        replay_of(&bench, "one")
    ));
    let told = times.split([' ', ',']).filter_map(|word| parse_time(word).ok()).map(|time| time.0.to_string());
    assert_eq!(told.collect::<Vec<_>>().join("\t"), spans, "{times}");
    let planned = bench.weir(&[&arguments[..], &["--plan"]].concat()).fine().out;
    assert!(planned.contains("as `three` ran"), "{planned}");
    // Of a replay that is there nothing is planned, and nothing that it can't take is ignored.
    let of_known = |more: &[&str]| bench.weir(&[&["replay", "pipeline.toml", "--run", "one"], more].concat());
    of_known(&["--plan"]).refused(2, &["replay `one` already", "weir replay show pipeline.toml one"]);
    of_known(&["--from-archive"]).refused(2, &["--from-archive", "another name"]);
    of_known(&["--allow-gaps", "--judge-anew"]).refused(2, &["--allow-gaps, --judge-anew"]);

    let listed = bench.weir(&["replay", "list", "pipeline.toml"]).fine().out;
    assert!(listed.contains("one") && listed.contains("three") && listed.contains("complete"), "{listed}");
    bench.weir(&["replay", "drop", "pipeline.toml", "three"]).fine();
    bench.weir(&["diff", "pipeline.toml", "three"]).refused(2, &["no replay `three`", "one"]);
    let there = format!("SELECT count() FROM system.databases WHERE name = '{}'", replay_of(&bench, "three"));
    assert_eq!(bench.ask(&there), "0");
}

/// Every step of a replay's alerts.
fn alerts_of(bench: &Bench, run: &str) -> String {
    bench.ask(&format!(
        "SELECT * FROM {}.weir_alerts_history ORDER BY window_start, fingerprint, revision",
        replay_of(bench, run)
    ))
}

/// Whether every thread of a process has the least priority.
fn gives_way(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    // The nice value is the seventeenth number behind the name, which is in parentheses.
    let nice = |stat: String| stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().to_owned();
    let nice: Vec<String> = stats.map(nice).collect();
    nice.len() > 5 && nice.iter().all(|nice| nice == "19")
}

#[test]
fn a_killed_replay_goes_on_and_ends_equal() {
    let bench = lived("replay_killed");
    let begin = ["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--run", "slow", "--rate", "20000"];
    let goes_on = ["replay", "pipeline.toml", "--run", "slow", "--rate", "20000"];
    let mut running = bench.start(&begin);
    wait_until("it gives way to everything else", || gives_way(running.id()));
    for kill in 0..3_u64 {
        wait_until("a part is read", || read_by(&bench, "slow") > Some(4_000 + kill * 12_000));
        running.kill().unwrap();
        running.wait().unwrap();
        if kill == 0 {
            let listed = bench.weir(&["replay", "list", "pipeline.toml"]).fine().out;
            assert!(listed.contains("interrupted"), "{listed}");
        }
        running = bench.start(&goes_on);
    }
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert_eq!(one_sided(&bench, "by_minute", &format!("{}.by_minute", replay_of(&bench, "slow"))), "0");
    bench.weir(&["diff", "pipeline.toml", "slow"]).fine();

    // One that is cancelled ends, and is dropped.
    let begin = ["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--run", "unwanted", "--rate", "1000"];
    let mut running = bench.start(&begin);
    wait_until("it runs", || bench.weir(&["replay", "list", "pipeline.toml"]).fine().out.contains("running"));
    bench.weir(&["replay", "drop", "pipeline.toml", "unwanted"]).refused(4, &["run by another process", "cancel"]);
    bench.weir(&["replay", "cancel", "pipeline.toml", "unwanted"]).fine();
    assert_eq!(running.wait().unwrap().code(), Some(0));
    bench.weir(&["replay", "drop", "pipeline.toml", "unwanted"]).fine();

    two_run_at_once(&bench);
    one_is_held_to_what_it_began_with(&bench);
}

/// Paced, so that neither can end before both run.
fn two_run_at_once(bench: &Bench) {
    let begin = |run: &str| {
        let arguments = ["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--rate", "10000", "--run", run];
        bench.start(&arguments)
    };
    let mut both = ["left", "right"].map(|run| (run, begin(run)));
    wait_until("both run", || {
        let listed = bench.weir(&["replay", "list", "pipeline.toml"]).fine().out;
        listed.lines().filter(|line| line.contains("running")).count() == 2
    });
    for (run, running) in &mut both {
        assert_eq!(running.wait().unwrap().code(), Some(0), "{run}");
        assert_eq!(one_sided(bench, "by_minute", &format!("{}.by_minute", replay_of(bench, run))), "0", "{run}");
        bench.weir(&["diff", "pipeline.toml", run]).fine();
    }
}

/// What its file says decides its rows: a change between a kill and going on is refused, and named.
fn one_is_held_to_what_it_began_with(bench: &Bench) {
    let folder = bench.folder.path();
    let (file, view) = (folder.join("next.toml"), folder.join("views/next.sql"));
    let next = std::fs::read_to_string(bench.file()).unwrap().replace("views/by_minute.sql", "views/next.sql");
    let sql = std::fs::read_to_string(folder.join("views/by_minute.sql")).unwrap();
    std::fs::write(&file, &next).unwrap();
    std::fs::write(&view, &sql).unwrap();
    let begin = ["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--with", "next.toml", "--run", "held"];
    let mut running = bench.start(&[&begin[..], &["--rate", "10000"]].concat());
    wait_until("a part is read", || read_by(bench, "held") > Some(4_000));
    running.kill().unwrap();
    running.wait().unwrap();

    let goes_on = ["replay", "pipeline.toml", "--run", "held"];
    let refused = |what: &str| bench.weir(&goes_on).refused(2, &[what, "since the replay began", "another name"]);
    let changed = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    std::fs::write(&file, changed(&next, "amount >= 0", "amount >= 20")).unwrap();
    refused("rule amounts_are_positive of source events");
    let rule = "\n[quality.rules.users_are_known]\nsource = \"events\"\nrequire = \"user_id != ''\"\n";
    std::fs::write(&file, format!("{next}{rule}")).unwrap();
    refused("rules of source events");
    std::fs::write(&file, changed(&next, "disorder_ms = 5000", "disorder_ms = 6000")).unwrap();
    refused("settings of source events");
    std::fs::write(&file, changed(&next, "[views.by_minute]", "[views.by_day]")).unwrap();
    refused("names of the views");
    std::fs::write(&file, changed(&next, "open_at = 0.05", "open_at = 0.06")).unwrap();
    refused("refused_share of the alerts");
    let plan =
        "event_time = \"occurred_at\"\nevent_type = \"type\"\nplan = { folder = \"plan\", version = \"app_version\" }";
    std::fs::write(&file, changed(&next, "event_time = \"occurred_at\"", plan)).unwrap();
    std::fs::create_dir(folder.join("plan")).unwrap();
    std::fs::write(folder.join("plan/1.toml"), "owner = \"web\"\n").unwrap();
    refused("plan of source events");
    std::fs::write(&file, &next).unwrap();
    std::fs::write(&view, changed(&sql, "type != 'heartbeat'", "type = 'purchase'")).unwrap();
    refused("query of view by_minute");

    std::fs::write(&view, &sql).unwrap();
    bench.weir(&goes_on).fine();
    assert_eq!(one_sided(bench, "by_minute", &format!("{}.by_minute", replay_of(bench, "held"))), "0");
}

#[test]
fn a_changed_view_and_rule_differ_as_sql_says_and_are_swapped_in_and_out() {
    let bench = lived("replay_changed");
    let folder = bench.folder.path();
    let file = std::fs::read_to_string(bench.file()).unwrap();
    let changed = file
        .replace("views/by_minute.sql", "views/next.sql")
        .replace("require = \"type != 'purchase' OR amount >= 0\"", "require = \"type != 'purchase' OR amount >= 20\"");
    std::fs::write(folder.join("next.toml"), changed).unwrap();
    let sql = std::fs::read_to_string(folder.join("views/by_minute.sql")).unwrap();
    let next = sql.replace("WHERE type != 'heartbeat'", "WHERE type != 'heartbeat' AND props['country'] != 'DE'");
    assert_ne!(sql, next);
    std::fs::write(folder.join("views/next.sql"), &next).unwrap();
    let arguments = ["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--with", "next.toml", "--run", "next"];
    bench.weir(&arguments).fine();

    // What the change does by SQL of its own over the accepted events: a tighter rule takes events away, the view a country.
    let expected = next.replace("FROM events\nWHERE", "FROM events\nWHERE (type != 'purchase' OR amount >= 20) AND");
    assert_ne!(expected, next);
    bench.ask(&format!("CREATE VIEW expected AS {expected}"));
    let replayed = format!("{}.by_minute", replay_of(&bench, "next"));
    assert_eq!(one_sided(&bench, "expected", &replayed), "0");
    let said = bench.weir(&["diff", "pipeline.toml", "next"]);
    assert_eq!(said.code, 5, "{}{}", said.out, said.err);
    let count = |condition: &str| {
        bench.ask(&format!(
            "SELECT countIf({condition}) FROM (SELECT *, 1 AS there FROM by_minute WHERE {RANGE}) AS live \
             FULL JOIN (SELECT *, 1 AS there FROM expected WHERE {RANGE}) AS next \
             USING (window_start, tenant, country)"
        ))
    };
    let removed = count("next.there = 0");
    let differs = "abs(live.revenue - next.revenue) > 1e-9 * abs(live.revenue)";
    let changed = count(&format!(
        "live.there = 1 AND next.there = 1 AND (live.events != next.events OR live.users != next.users OR {differs})"
    ));
    assert!(removed.parse::<u64>().unwrap() > 10 && changed.parse::<u64>().unwrap() > 10, "{removed} {changed}");
    let line = said.out.lines().find(|line| line.trim_start().starts_with("by_minute")).unwrap();
    let cells: Vec<String> =
        line.split("  ").map(|cell| cell.trim().replace(' ', "")).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells[3..6], ["0".to_owned(), removed, changed], "{}", said.out);

    swapped_in_and_out(&bench, &replayed);
    is_completed_after_any_kill(&bench, &replayed);
    is_not_in_place_when_clickhouse_refuses(&bench);
    is_taken_out_without_the_file_of_the_replay(&bench, "next.toml");
    bench.weir(&["replay", "drop", "pipeline.toml", "next"]).fine();
}

/// A reader that asks without pause sees the old rows or the new ones.
fn swapped_in_and_out(bench: &Bench, replayed: &str) {
    let sum = |from: &str| format!("SELECT count(), sum(events), sum(users) FROM {from} WHERE {RANGE}");
    let (old, new) = (bench.ask(&sum("by_minute")), bench.ask(&sum(replayed)));
    assert_ne!(old, new);
    let outside = format!("SELECT count(), sum(cityHash64(*)) FROM by_minute WHERE NOT ({RANGE})");
    let before = bench.ask(&outside);
    let (is_over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                let seen = bench.ask(&sum("by_minute"));
                assert!(seen == old || seen == new, "a mixture: {seen}");
                asked.fetch_add(1, Ordering::AcqRel);
            }
        });
        for _ in 0..size(3, 50) {
            bench.weir(&["swap", "pipeline.toml", "next", "--by", "ada", "--why", "a country too many"]).fine();
            assert_eq!(bench.ask(&sum("by_minute")), new);
            bench.weir(&["swap", "pipeline.toml", "next", "--undo", "--by", "ada"]).fine();
            assert_eq!(bench.ask(&sum("by_minute")), old);
            std::thread::sleep(Duration::from_millis(20));
        }
        is_over.store(true, Ordering::Release);
    });
    assert!(asked.load(Ordering::Acquire) > 10);

    bench.weir(&["swap", "pipeline.toml", "next", "--by", "ada", "--why", "for good"]).fine();
    assert_eq!(bench.ask(&outside), before, "live rows before and behind are seen as ever");
    bench.weir(&["replay", "drop", "pipeline.toml", "next"]).refused(2, &["stands in the place", "--undo"]);
    // A start of the pipeline makes the readers' views anew, and keeps what is in place.
    sell(bench, 2_000, 4, &[]);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    assert_eq!(bench.ask(&sum("by_minute")), new);
    let audit = "SELECT action, by, why FROM weir_swaps ORDER BY at DESC LIMIT 2";
    assert_eq!(bench.ask(audit), "swap\tada\tfor good\nundo\tada");
    bench.weir(&["swap", "pipeline.toml", "next", "--from", "2026-01-05T06:12:30Z"]).refused(2, &["cuts a window"]);
    bench.weir(&["swap", "pipeline.toml", "next", "--undo"]).fine();
    a_part_of_the_time_is_swapped_in_and_out(bench, replayed);
}

/// Begins and ends with the live rows in place.
fn a_part_of_the_time_is_swapped_in_and_out(bench: &Bench, replayed: &str) {
    let within = "window_start >= toDateTime('2026-01-05 06:15:00', 'UTC') AND \
                  window_start < toDateTime('2026-01-05 06:20:00', 'UTC')";
    let rows = |from: &str, condition: &str| {
        // A tuple's text has a hash where one of its columns is NULL, too.
        let hashes = format!("sum(cityHash64(toString(tuple({COLUMNS}))))");
        bench.ask(&format!("SELECT count(), countIf({RANGE}), {hashes} FROM {from} WHERE {condition}"))
    };
    let outside = format!("NOT ({within})");
    let (live, beside) = (rows("by_minute", within), rows("by_minute", &outside));
    let replay = rows(replayed, within);
    assert_ne!(live, replay);
    // The replay differs beside these times, too: what isn't swapped would show.
    let in_rest = format!("{RANGE} AND {outside}");
    assert_ne!(rows("by_minute", &in_rest), rows(replayed, &in_rest));
    let times = ["--from", "2026-01-05T06:15:00Z", "--to", "2026-01-05T06:20:00Z"];
    bench.weir(&[&["swap", "pipeline.toml", "next", "--by", "ada"], &times[..]].concat()).fine();
    assert_eq!((rows("by_minute", within), rows("by_minute", &outside)), (replay, beside.clone()));
    bench.weir(&["swap", "pipeline.toml", "next", "--undo", "--by", "ada"]).fine();
    assert_eq!((rows("by_minute", within), rows("by_minute", &outside)), (live, beside));
}

/// Cells that are changed behind Weir's back, rows that are taken away, and rows that are added.
const CHANGED: u64 = 1_000;
const MISSING: u64 = 100;
const EXTRA: u64 = 100;

/// Puts differences into a replay's table behind Weir's back: `diff` has to find these and no others.
#[test]
fn injected_differences_are_found_exactly() {
    let bench = shop("replay_injected");
    // The shop's four tenants and eight countries have 32 rows a minute. Of windows of ten seconds the range holds 78, and of
    // their 2,496 rows only few of the smallest tenant and country have no event.
    bench.edit("[views.by_minute]", "[views.by_slot]\nfile = \"views/by_slot.sql\"\n\n[views.by_minute]");
    let views = bench.folder.path().join("views");
    let minute = std::fs::read_to_string(views.join("by_minute.sql")).unwrap();
    let slot = minute.replace("toStartOfMinute(occurred_at)", "toStartOfInterval(occurred_at, INTERVAL 10 SECOND)");
    assert_ne!(minute, slot);
    std::fs::write(views.join("by_slot.sql"), slot).unwrap();
    live_through(&bench);
    bench.weir(&["replay", "pipeline.toml", "--from", FROM, "--to", TO, "--run", "spoiled"]).fine();
    bench.weir(&["diff", "pipeline.toml", "spoiled"]).fine();
    let rows = format!("{}.{}", replay_of(&bench, "spoiled"), weir_sinks::clickhouse::base_table("by_slot"));
    let all: u64 = bench.ask(&format!("SELECT count() FROM {rows} FINAL WHERE {RANGE}")).parse().unwrap();
    assert!(all >= CHANGED + MISSING + 200, "{all} rows are too few");
    let some = |first: u64, count: u64| {
        format!(
            "FROM {rows} FINAL WHERE {RANGE} ORDER BY cityHash64(window_start, tenant, country) LIMIT {first}, {count}"
        )
    };
    let inject = |replaced: &str, from: &str| {
        bench.ask(&format!("INSERT INTO {rows} SELECT * REPLACE ({replaced}) {from}"));
    };
    // Of the changed rows each has one cell that differs.
    inject("_version + 1 AS _version, events + 1 AS events", &some(0, CHANGED / 2));
    inject(
        "_version + 1 AS _version, ifNull(revenue, toDecimal64('0', 2)) + toDecimal64('0.01', 2) AS revenue",
        &some(CHANGED / 2, CHANGED / 2),
    );
    inject("_version + 1 AS _version, 1 AS _is_deleted", &some(CHANGED, MISSING));
    inject("concat('nobody-', tenant) AS tenant", &some(0, EXTRA));
    let said = bench.weir(&["diff", "pipeline.toml", "spoiled"]);
    assert_eq!(said.code, 5, "{}{}", said.out, said.err);
    let counts = |view: &str| cells_of(&said.out, view)[1..6].to_vec();
    let found = [all, all - MISSING + EXTRA, EXTRA, MISSING, CHANGED].map(|n| n.to_string());
    assert_eq!(counts("by_slot"), found, "{}", said.out);
    assert_eq!(counts("by_minute")[2..], ["0", "0", "0"], "{}", said.out);
    // Only the measures of the view that differs are told.
    let cells = ["events", "revenue", "users"].map(|measure| cells_of(&said.out, measure)[1].clone());
    assert_eq!(cells, [CHANGED / 2, CHANGED / 2, 0].map(|n| n.to_string()), "{}", said.out);
}

/// The cells of the line of a table that begins with `first`.
fn cells_of(out: &str, first: &str) -> Vec<String> {
    let cells = |line: &str| -> Vec<String> {
        line.split("  ").map(|cell| cell.trim().replace(' ', "")).filter(|cell| !cell.is_empty()).collect()
    };
    out.lines().map(cells).find(|cells| cells.len() > 1 && cells[0] == first).unwrap_or_default()
}

#[test]
fn a_part_of_the_events_is_replayed_and_held_against_their_rows_alone() {
    let bench = lived("replay_part");
    let tenant =
        bench.ask(&format!("SELECT tenant FROM by_minute WHERE {RANGE} GROUP BY tenant ORDER BY tenant LIMIT 1"));
    let condition = format!("tenant = '{tenant}'");
    let arguments = ["replay", "pipeline.toml", "--from", FROM, "--to", TO];
    bench.weir(&[&arguments[..], &["--where", &condition, "--run", "one_tenant"]].concat()).fine();
    let replayed = format!("{}.by_minute", replay_of(&bench, "one_tenant"));
    let sums = |from: &str| {
        bench.ask(&format!("SELECT count(), sum(events), sum(users) FROM {from} WHERE {RANGE} AND {condition}"))
    };
    assert_eq!(sums("by_minute"), sums(&replayed));
    assert_eq!(bench.ask(&format!("SELECT uniqExact(tenant) FROM {replayed}")), "1");
    let said = bench.weir(&["diff", "pipeline.toml", "one_tenant"]).fine().out;
    assert!(said.contains(&condition) && cells_of(&said, "by_minute")[1] == cells_of(&said, "by_minute")[2], "{said}");
    bench.weir(&["swap", "pipeline.toml", "one_tenant"]).refused(2, &["rows of a condition", "without --where"]);

    // What cuts through rows isn't compared, and says why.
    bench.weir(&[&arguments[..], &["--where", "type = 'purchase'", "--run", "purchases"]].concat()).fine();
    let of_purchases = format!("SELECT sum(events) FROM {}.by_minute", replay_of(&bench, "purchases"));
    let times = RANGE.replace("window_start", "occurred_at");
    let expected = bench.ask(&format!("SELECT count() FROM events WHERE {times} AND type = 'purchase'"));
    assert_eq!(bench.ask(&of_purchases), expected);
    let said = bench.weir(&["diff", "pipeline.toml", "purchases"]).fine().out;
    assert!(said.contains("by_minute isn't compared") && said.contains("`type`"), "{said}");

    let place = format!("{}/0", bench.topic);
    bench.weir(&[&arguments[..], &["--only", &place, "--run", "one_partition"]].concat()).fine();
    let read = format!("SELECT DISTINCT partition FROM {}.weir_ledger", replay_of(&bench, "one_partition"));
    assert_eq!(bench.ask(&read), "0");
    bench.weir(&["swap", "pipeline.toml", "one_partition"]).refused(2, &["parts of rows", "without --only"]);

    let refused = |more: &[&str], words: &[&str]| bench.weir(&[&arguments[..], more].concat()).refused(2, words);
    refused(&["--where", "tenent = 'x'"], &["--where", "tenent", "tenant"]);
    refused(&["--where", "toInt64(tenant) > 3"], &["--where", "OrNull"]);
    refused(&["--only", "events@3"], &["topic/partition"]);
}

#[test]
fn what_cannot_be_replayed_is_refused_with_a_remedy() {
    let bench = lived("replay_refused");
    let replay = |arguments: &[&str]| bench.weir(&[&["replay", "pipeline.toml"], arguments].concat());
    replay(&[]).refused(2, &["--from", "--last"]);
    replay(&["--from", TO, "--to", FROM]).refused(2, &["not after"]);
    replay(&["--from", "yesterday", "--to", TO]).refused(2, &["2026-01-31"]);
    replay(&["--from", FROM, "--to", TO, "--view", "by_hour"]).refused(2, &["no view `by_hour`", "by_minute"]);
    replay(&["--from", FROM, "--to", "2026-01-05T07:00:00Z"]).refused(2, &["final", "replay to"]);
    replay(&["--from", "2025-01-01", "--to", "2025-01-02"]).refused(2, &["no partition holds events"]);
    replay(&["--from", FROM, "--to", TO, "--run", "Not-A-Name"]).refused(2, &["lower-case"]);
    bench.weir(&["swap", "pipeline.toml", "nobody"]).refused(2, &["no replay `nobody`"]);

    // A view that the live pipeline lacks has nothing to be compared with or swapped into; the others stay as they are until
    // they are asked for by name.
    let more = "[views.anew]\nfile = \"views/by_minute.sql\"\n\n[views.by_minute]";
    let file = std::fs::read_to_string(bench.file()).unwrap().replace("[views.by_minute]", more);
    std::fs::write(bench.folder.path().join("more.toml"), file).unwrap();
    replay(&["--from", FROM, "--to", TO, "--with", "more.toml", "--run", "more"]).fine();
    let said = bench.weir(&["diff", "pipeline.toml", "more"]);
    assert!(said.code == 5 && said.out.contains("anew is new"), "{}{}", said.out, said.err);
    let swap = |more: &[&str]| bench.weir(&[&["swap", "pipeline.toml", "more"], more].concat());
    swap(&[]).refused(2, &["`anew`", "the live pipeline has no such view", "add it to the live pipeline's file"]);
    swap(&["--undo"]).refused(2, &["in no view's place"]);
    swap(&["--view", "by_minute"]).fine();
    swap(&["--undo"]).fine();
}
