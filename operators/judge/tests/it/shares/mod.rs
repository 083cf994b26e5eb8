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

mod catalog;
mod emit;
mod incidents;
mod oracle;
mod random;
mod score;
mod world;
mod wrong;

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
        let wrong = one.delay.is_none() || !one.right_release || one.more > 0;
        if (one.incident.is_of_stated_size && wrong) || std::env::var("WEIR_JUDGE_ALL").is_ok() {
            let i = &one.incident;
            println!(
                "seed {} {:?} {:?} size {:.2} {}..{} tenant {:?} platform {:?} sdk {:?} app {:?} type {:?} field {} users {:.0} evidence {:.1} x: {:.0} ({:.0}) nats {:.4}->{:.4} open {:.2}: delay {:?} right {} more {} stated {} | {}",
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
                i.ratio,
                i.known.nats,
                i.known.nats_without_one,
                i.known.usual,
                i.known.share,
                i.known.open.sqrt(),
                one.delay,
                one.right_release,
                one.more,
                i.is_of_stated_size,
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
    let chosen = |name: &str| -> Option<Vec<u64>> {
        let seeds = std::env::var(name).ok()?;
        Some(seeds.split(',').filter_map(|seed| seed.parse().ok()).collect())
    };
    let (seeds, clean_seeds) = (chosen("WEIR_JUDGE_SEEDS"), chosen("WEIR_JUDGE_CLEAN_SEEDS"));
    if seeds.is_some() || clean_seeds.is_some() {
        for (title, seeds, with_incidents) in [("with incidents", seeds, true), ("clean", clean_seeds, false)] {
            let scores = measure(seeds.into_iter().flatten(), with_incidents);
            explain(&scores);
            print(title, &scores);
        }
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
    let stated = summary(scores.scored.iter().filter(|one| one.incident.is_of_stated_size));
    println!("recall {:.3}; the goal is {RECALL_GOAL}", stated.recall());
    let (recall, right, false_rate) = if full { (0.94, 0.95, 1.0) } else { (0.9, 0.9, 1.0) };
    assert!(stated.recall() >= recall, "recall {}", stated.recall());
    assert!(stated.right_share() >= right, "right release {}", stated.right_share());
    assert!(stated.delay(0.5) <= 1, "median delay {}", stated.delay(0.5));
    assert!(clean.false_alerts.len() as f64 <= false_rate * clean.tenant_weeks, "{:#?}", clean.false_alerts);
}
