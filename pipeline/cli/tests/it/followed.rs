//! A diff that is followed on real parts: the live pipeline corrects final windows, rows are changed behind Weir's back, a replay is
//! swapped in; what is told stays equal to a diff from nothing and to SQL of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::program::{Bench, terminate, wait_until};
use crate::quarantine::{bench, cause, mend};
use crate::replay::replay_of;

/// `weir diff --follow --json` that runs, and the newest line of each view.
struct Follower {
    child: Child,
    file: std::path::PathBuf,
}

impl Follower {
    fn of(bench: &Bench, run: &str, more: &[&str]) -> Follower {
        let file = bench.folder.path().join(format!("{run}.jsonl"));
        let arguments = [&["diff", "pipeline.toml", run, "--follow", "--json"], more].concat();
        let mut command = bench.command(&arguments);
        command.stdout(File::create(&file).unwrap()).stderr(Stdio::inherit());
        Follower { child: command.spawn().unwrap(), file }
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn newest(&self) -> BTreeMap<String, Value> {
        by_view(self.lines())
    }

    /// Waits until what is told is what a diff from nothing tells.
    #[track_caller]
    fn is_current(&self, bench: &Bench, run: &str) {
        wait_until("the followed diff is a fresh one", || {
            let fresh = fresh(bench, run);
            self.newest() == fresh && is_sql(bench, run, &fresh["by_minute"])
        });
    }
}

fn by_view(lines: Vec<Value>) -> BTreeMap<String, Value> {
    let mut views = BTreeMap::new();
    for mut line in lines {
        line.as_object_mut().unwrap().remove("at_ms");
        // Reasons are told as they stood when the difference changed.
        for example in line["examples"].as_array_mut().into_iter().flatten() {
            example.as_object_mut().unwrap().remove("reasons");
        }
        if let Some(view) = line["view"].as_str() {
            views.insert(view.to_owned(), line);
        }
    }
    views
}

fn fresh(bench: &Bench, run: &str) -> BTreeMap<String, Value> {
    let out = bench.weir(&["diff", "pipeline.toml", run, "--json"]).out;
    by_view(out.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// The windows that the newest replay is for, as a condition.
fn range(bench: &Bench) -> String {
    let shown = bench.weir(&["replay", "list", "pipeline.toml", "--json"]).fine().out;
    let record: Value = serde_json::from_str(shown.lines().next().unwrap()).unwrap();
    let time = |of: &str| format!("parseDateTimeBestEffort('{}', 'UTC')", record[of].as_str().unwrap());
    format!("window_start >= {} AND window_start < {}", time("from"), time("to"))
}

/// Whether counts and sums of `by_minute` are those of SQL that knows nothing of Weir's comparison.
#[track_caller]
fn is_sql(bench: &Bench, run: &str, told: &Value) -> bool {
    let range = range(bench);
    let side = |from: &str| {
        format!("(SELECT window_start, tenant, events, paid, regular_codes, 1 AS there FROM {from} WHERE {range})")
    };
    let (live, replay) = (side("by_minute"), side(&format!("{}.by_minute", replay_of(bench, run))));
    let joined = format!("{live} AS live FULL JOIN {replay} AS replay USING (window_start, tenant)");
    let near = "ifNull(abs(live.paid - replay.paid) <= 1e-9 * greatest(abs(live.paid), abs(replay.paid)), \
                isNull(live.paid) = isNull(replay.paid))";
    let both = "live.there = 1 AND replay.there = 1";
    let counts = bench.ask(&format!(
        "SELECT sum(live.there), sum(replay.there), countIf(live.there = 0), countIf(replay.there = 0), \
         countIf({both} AND (live.events != replay.events OR live.regular_codes != replay.regular_codes OR NOT {near})), \
         countIf({both} AND live.events != replay.events), countIf({both} AND NOT {near}), \
         countIf({both} AND live.regular_codes != replay.regular_codes), sum(live.events), sum(replay.events) FROM {joined}"
    ));
    let measure = |at: usize, of: &str| told["measures"][at][of].as_f64().unwrap() as u64;
    let mut of_told: Vec<u64> = ["live_rows", "replay_rows", "added", "removed", "changed"]
        .iter()
        .map(|of| told[*of].as_u64().unwrap())
        .collect();
    of_told.extend((0..3).map(|at| measure(at, "changed")));
    of_told.extend(["live_sum", "replay_sum"].map(|of| measure(0, of)));
    let of_sql: Vec<u64> = counts.split('\t').map(|count| count.parse().unwrap()).collect();
    let by_tenant = bench.ask(&format!(
        "SELECT if(live.there = 1, live.tenant, replay.tenant) AS of, count() FROM {joined} WHERE NOT ({both} AND \
         live.events = replay.events AND live.regular_codes = replay.regular_codes AND {near}) GROUP BY of ORDER BY of"
    ));
    let by_tenant: serde_json::Map<String, Value> = by_tenant
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(tenant, count)| (tenant.to_owned(), json!(count.parse::<u64>().unwrap())))
        .collect();
    let dimensions = if by_tenant.is_empty() { json!({}) } else { json!({ "tenant": by_tenant }) };
    of_told == of_sql && told["dimensions"] == dimensions
}

#[test]
fn a_followed_diff_stays_what_a_fresh_one_is_while_live_rows_are_corrected() {
    let bench = bench("followed", 1_200);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let mended = std::fs::read_to_string(bench.file()).unwrap().replace(r"'^[A-Z]{2}-\d+$'", r"'^[A-Za-z]{2}-\d+$'");
    std::fs::write(bench.folder.path().join("next.toml"), mended).unwrap();
    bench.weir(&["replay", "pipeline.toml", "--last", "1h", "--run", "mended", "--with", "next.toml"]).fine();

    let mut follower = Follower::of(&bench, "mended", &[]);
    wait_until("it has told both views", || follower.newest().len() == 2);
    follower.is_current(&bench, "mended");
    let first = follower.newest();
    assert!(first["by_minute"]["changed"].as_u64() > Some(20), "{first:#?}");
    assert!(first["few"]["removed"].as_u64() > Some(10), "rows that HAVING leaves out of the replay: {first:#?}");

    // The live pipeline corrects final windows: what was refused is retried, and the difference goes away.
    mend(&bench);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    let codes = cause(&bench, "codes").0;
    bench.weir(&["quarantine", "retry", "pipeline.toml", &codes, "--yes", "--wait", "0", "--by", "ada"]).fine();
    wait_until("the cause is retried", || cause(&bench, "codes").1 == 0);
    wait_until("nothing differs", || {
        follower.newest().values().all(|view| ["added", "removed", "changed"].iter().all(|of| view[*of] == 0))
    });
    follower.is_current(&bench, "mended");
    terminate(&mut running);

    changed_by_hand(&bench, &follower);
    // A reader's view that is replaced is read anew.
    bench.weir(&["swap", "pipeline.toml", "mended", "--by", "ada", "--why", "to see"]).fine();
    wait_until("the replay is its own equal", || follower.newest()["by_minute"]["changed"] == 0);
    follower.is_current(&bench, "mended");
    bench.weir(&["swap", "pipeline.toml", "mended", "--undo", "--by", "ada"]).fine();
    wait_until("the live rows are back", || follower.newest()["by_minute"]["changed"] != 0);
    follower.is_current(&bench, "mended");

    std::process::Command::new("kill").args(["-INT", &follower.child.id().to_string()]).status().unwrap();
    assert_eq!(follower.child.wait().unwrap().code(), Some(5), "what it ended with differs");
}

/// Rows changed, taken away and added in the live base table, each with the next version, as corrections are written.
fn changed_by_hand(bench: &Bench, follower: &Follower) {
    let (base, range) = (weir_sinks::clickhouse::base_table("by_minute"), range(bench));
    let some = |first: u64, count: u64| {
        format!("FROM {base} FINAL WHERE {range} ORDER BY window_start DESC, tenant LIMIT {first}, {count}")
    };
    let next = "(SELECT max(_version) FROM by_minute__rows) + 1 AS _version";
    let inject = |replaced: &str, from: &str| {
        bench.ask(&format!("INSERT INTO {base} SELECT * REPLACE ({next}, {replaced}) {from}"));
        follower.is_current(bench, "mended");
    };
    inject("events + 1 AS events", &some(0, 7));
    inject("events AS events", &some(0, 3));
    // Within the tolerance, and beyond it.
    inject("paid * 1.0000000001 AS paid", &some(5, 10));
    inject("paid + 0.5 AS paid", &some(5, 10));
    inject("1 AS _is_deleted", &some(20, 5));
    inject("concat('nobody-', tenant) AS tenant", &some(0, 4));
    inject("events - 1 AS events", &some(4, 7));
    let told = &follower.newest()["by_minute"];
    assert_eq!((&told["added"], &told["removed"]), (&json!(5), &json!(4)), "{told:#}");
}

#[test]
fn following_ends_when_nothing_differs_or_too_much_would_be_held() {
    let bench = bench("followed_ends", 600);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    bench.weir(&["replay", "pipeline.toml", "--last", "1h", "--run", "same"]).fine();
    let follow = ["diff", "pipeline.toml", "same", "--follow"];
    let told = bench.weir(&[&follow[..], &["--until-equal"]].concat()).fine().out;
    assert!(told.contains("equal") && told.contains("rows are held"), "{told}");
    bench.weir(&[&follow[..], &["--hold", "100"]].concat()).refused(2, &["more than 100 rows", "--hold"]);
    bench.weir(&["diff", "pipeline.toml", "same", "--until-equal"]).refused(2, &["--follow"]);

    // Somebody else's row in the live table makes them differ, until it is taken back.
    let (base, range) = (weir_sinks::clickhouse::base_table("by_minute"), range(&bench));
    let next = "(SELECT max(_version) FROM by_minute__rows) + 1 AS _version";
    let change = |by: &str| {
        bench.ask(&format!(
            "INSERT INTO {base} SELECT * REPLACE (events {by} AS events, {next}) FROM {base} FINAL \
             WHERE {range} ORDER BY window_start DESC, tenant LIMIT 1"
        ));
    };
    change("+ 1");
    let mut follower = Follower::of(&bench, "same", &["--until-equal", "--view", "by_minute"]);
    wait_until("it differs", || follower.newest().get("by_minute").is_some_and(|view| view["changed"] == 1));
    change("- 1");
    assert_eq!(follower.child.wait().unwrap().code(), Some(0));
    assert_eq!(follower.newest()["by_minute"]["changed"], 0);
}
