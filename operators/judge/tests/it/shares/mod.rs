//! The proof of the alerts at the level of counts: labelled incidents in an invented world, held-out seeds.
//!
//! Parameters were tuned on seeds below 1000 only. `cargo test` runs a small part, `WEIR_PROOF=full` all of it;
//! `WEIR_JUDGE_SEEDS=1,2,3` runs these seeds and prints each miss.
//!
//! The goals: recall of 0.99 on incidents of the stated minimum size (`Incident::is_of_stated_size`), the right first bad
//! release in 0.95, a median delay of one window after close, at most one false alert per tenant and clean week.
//! On seeds 1000 to 1019 and, clean, 2000 to 2007 it was: 184 of 366 labelled incidents of the stated size, 0.946 of these
//! found, 0.989 with the right release, median delay one window, 0.33 false alerts per tenant and clean week. A look at one
//! of the misses (1003: an incident swallowed by another tenant's alert) then narrowed two links in `cause`, so those
//! seeds aren't held out any more; the full proof runs fresh ones. What is asserted of recall is that it doesn't fall
//! behind what was measured; the goal is printed beside it.

mod emit;
mod incidents;
mod random;
mod score;
mod world;

use self::score::{Scores, print, run, summary};

const RECALL_GOAL: f64 = 0.99;

fn measure(seeds: impl Iterator<Item = u64>, with_incidents: bool) -> Scores {
    let mut scores = Scores::default();
    for seed in seeds {
        run(seed, with_incidents, &mut scores);
    }
    scores
}

fn explain(scores: &Scores) {
    for one in &scores.scored {
        if one.incident.is_of_stated_size() && (one.delay.is_none() || !one.right_release || one.more > 0) {
            let i = &one.incident;
            println!(
                "seed {} {:?} {:?} size {:.2} {}..{} tenant {:?} platform {:?} sdk {:?} app {:?} type {:?} field {} users {:.0} first day {:.0}: delay {:?} right {} more {} | {}",
                one.seed,
                i.kind,
                i.breadth,
                i.size,
                i.start,
                i.end,
                i.tenant,
                i.platform,
                i.sdk_version,
                i.app_version,
                i.event_type,
                i.field,
                i.users,
                i.users_in_first_day,
                one.delay,
                one.right_release,
                one.more,
                one.told
            );
        }
    }
    for alert in &scores.false_alerts {
        println!("FALSE {alert}");
    }
}

#[test]
fn incidents_are_found_and_blamed_on_the_right_release() {
    if let Ok(seeds) = std::env::var("WEIR_JUDGE_SEEDS") {
        let seeds = || seeds.split(',').filter_map(|seed| seed.parse().ok());
        let scores = measure(seeds(), true);
        explain(&scores);
        print("chosen seeds, with incidents", &scores);
        let clean = measure(seeds(), false);
        explain(&clean);
        print("chosen seeds, clean", &clean);
        return;
    }
    let full = std::env::var("WEIR_PROOF").is_ok_and(|value| value == "full");
    let (runs, clean_runs) = if full { (20, 8) } else { (2, 1) };
    let first = if full { 3000 } else { 1000 };
    let scores = measure(first..first + runs, true);
    let clean = measure(first + 1000..first + 1000 + clean_runs, false);
    explain(&scores);
    explain(&clean);
    print("held-out seeds, with incidents", &scores);
    print("held-out seeds, clean", &clean);
    let stated = summary(scores.scored.iter().filter(|one| one.incident.is_of_stated_size()));
    println!("recall {:.3}; the goal is {RECALL_GOAL}", stated.recall());
    let (recall, right, false_rate) = if full { (0.94, 0.95, 1.0) } else { (0.9, 0.9, 1.0) };
    assert!(stated.recall() >= recall, "recall {}", stated.recall());
    assert!(stated.right_share() >= right, "right release {}", stated.right_share());
    assert!(stated.delay(0.5) <= 1, "median delay {}", stated.delay(0.5));
    assert!(clean.false_alerts.len() as f64 <= false_rate * clean.tenant_weeks, "{:#?}", clean.false_alerts);
}
