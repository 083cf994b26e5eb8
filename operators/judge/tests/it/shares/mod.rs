//! The proof of the alerts at the level of counts: labelled incidents in an invented world, held-out seeds.
//!
//! Parameters are tuned on seeds below 1000 only; seeds 1000 to 1019 and 2000 to 2007 were looked at once and count as
//! training since. `cargo test` runs a small part of the latter, `WEIR_PROOF=full` seeds 3000 to 3019 and, clean, 4000 to
//! 4007. These were held out until the judge of 81a6b3c was measured with them, once: of 355 labelled incidents 213 have
//! the stated size, 0.995 of these were found, all with the right release, median delay one window, 0.06 false alerts per
//! tenant and clean week. Whoever tunes anything after that needs fresh ones.
//!
//! `WEIR_JUDGE_SEEDS=1,2,3` runs these with incidents, `WEIR_JUDGE_CLEAN_SEEDS` without; `WEIR_JUDGE_ALL` prints every
//! incident with what could be known of it, `WEIR_JUDGE_ALERTS` every step of every alert.
//!
//! The goals: recall of 0.99 on incidents of the stated minimum size, the right first bad release in 0.95, a median delay of
//! one window after close, at most one false alert per tenant and clean week. The stated minimum size is what an oracle
//! could know at three times what the budget of false alarms asks for (see [`oracle`]); it was fixed before the judge was
//! measured with it. An incident counts as found when an alert opens for it, or when an open one of a fault that looks
//! alike is told anew with a symptom of it; then the right release is that of the alert, as of the incident's end.

mod catalog;
mod emit;
mod incidents;
mod oracle;
mod random;
mod score;
mod world;
mod wrong;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::score::{Scores, print, run, summary};

const RECALL_GOAL: f64 = 0.99;

/// Runs seeds, as many at a time as there are cores; the scores are in the order of the seeds.
fn measure(seeds: &[u64], with_incidents: bool) -> Scores {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut scores = Scores::default();
            run(seed, with_incidents, &mut scores);
            done.lock().unwrap().insert(seed, scores);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| (0..cores.min(seeds.len())).for_each(|_| drop(scope.spawn(work))));
    done.into_inner().unwrap().into_values().fold(Scores::default(), Scores::and)
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
            let scores = measure(&seeds.unwrap_or_default(), with_incidents);
            explain(&scores);
            print(title, &scores);
        }
        return;
    }
    let full = std::env::var("WEIR_PROOF").is_ok_and(|value| value == "full");
    let (runs, clean_runs) = if full { (20, 8) } else { (2, 1) };
    let first = if full { 3000 } else { 1000 };
    let seeds = |first: u64, count: u64| -> Vec<u64> { (first..first + count).collect() };
    let scores = measure(&seeds(first, runs), true);
    let clean = measure(&seeds(first + 1000, clean_runs), false);
    explain(&scores);
    explain(&clean);
    print("held-out seeds, with incidents", &scores);
    print("held-out seeds, clean", &clean);
    let stated = summary(scores.scored.iter().filter(|one| one.incident.is_of_stated_size));
    println!("recall {:.3}; the goal is {RECALL_GOAL}", stated.recall());
    // What was reached, less one incident of the small part, or two of the full one.
    let (recall, right, false_rate) = if full { (0.99, 0.99, 0.5) } else { (0.96, 0.96, 0.5) };
    assert!(stated.recall() >= recall, "recall {}", stated.recall());
    assert!(stated.right_share() >= right, "right release {}", stated.right_share());
    assert!(stated.delay(0.5) <= 1, "median delay {}", stated.delay(0.5));
    assert!(clean.false_alerts.len() as f64 <= false_rate * clean.tenant_weeks, "{:#?}", clean.false_alerts);
}
