//! What the judge finds in invented series, by kind and size of incident, and how often it is wrong.

use std::collections::BTreeMap;

use weir_judge::series::{Series, THRESHOLD};

use crate::generate::{KINDS, SIZES, make};
use crate::scoring::{PROFILES, Row, judged, told};

/// Tuned on these seeds.
const TRAINING: std::ops::Range<u64> = 0..600;
/// Never tuned on these.
const HELD_OUT: std::ops::Range<u64> = 10_000..10_600;

#[derive(Default)]
struct Tally {
    windows: usize,
    rows: Vec<Row>,
    /// By kind and size: caught, of so many.
    cells: BTreeMap<(usize, usize), (usize, usize)>,
    /// By noise: false alarms, of so many rows.
    wrong: BTreeMap<&'static str, (usize, usize)>,
}

fn tally(seeds: std::ops::Range<u64>) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let made = make(seed);
        let mut series = Series::new();
        let scores: Vec<f64> = made.rows.iter().map(|(at, value)| series.observe(*at, *value).score).collect();
        let length = made.rows.len() / 10 / made.incidents.len().max(1);
        // As the benchmark has it, a window's middle is where its incident begins.
        let limits = |from: usize| (from.saturating_sub(length / 2), (from + length / 2).min(made.rows.len() - 1));
        let times = |(from, to): (usize, usize)| (made.rows[from].0, made.rows[to].0);
        let windows: Vec<(i64, i64)> = made.incidents.iter().map(|incident| times(limits(incident.from))).collect();
        let judged = judged(&made.rows, &scores, &windows, tally.windows);
        for incident in &made.incidents {
            let kind = KINDS.iter().position(|kind| *kind == incident.kind).unwrap();
            let size = SIZES.iter().position(|size| *size == incident.size).unwrap();
            let cell = tally.cells.entry((kind, size)).or_default();
            // Caught is who alarms once it has begun; what came before is luck.
            let since_it_began = &scores[incident.from..=limits(incident.from).1];
            cell.0 += usize::from(since_it_began.iter().any(|score| *score >= THRESHOLD));
            cell.1 += 1;
        }
        let wrong = tally.wrong.entry(made.noise).or_default();
        wrong.0 += judged.iter().filter(|row| row.window.is_none() && row.score >= THRESHOLD).count();
        wrong.1 += judged.iter().filter(|row| row.window.is_none()).count();
        tally.windows += windows.len();
        tally.rows.extend(judged);
    }
    tally
}

fn print(name: &str, tally: &Tally) {
    println!("\n{name}: incidents caught, by kind and size in standard deviations of the noise");
    println!("{:14} {:>10} {:>10} {:>10}", "", SIZES[0], SIZES[1], SIZES[2]);
    for (at, kind) in KINDS.iter().enumerate() {
        let cell = |size| tally.cells.get(&(at, size)).map_or("-".into(), |cell| format!("{}/{}", cell.0, cell.1));
        println!("{:14} {:>10} {:>10} {:>10}", format!("{kind:?}"), cell(0), cell(1), cell(2));
    }
    for (noise, (wrong, rows)) in &tally.wrong {
        println!(
            "{noise:14} {wrong:4} false alarms in {rows} rows: {:.2} per 1,000",
            *wrong as f64 * 1e3 / *rows as f64
        );
    }
    PROFILES.iter().for_each(|profile| println!("{}", told(profile, &tally.rows, tally.windows)));
}

#[test]
fn incidents_are_found_and_peace_is_kept() {
    for (name, seeds) in [("training seeds", TRAINING), ("held-out seeds", HELD_OUT)] {
        let tally = tally(seeds);
        print(name, &tally);
        let (caught, of) = tally.cells.values().fold((0, 0), |sum, cell| (sum.0 + cell.0, sum.1 + cell.1));
        let (wrong, rows) = tally.wrong.values().fold((0, 0), |sum, cell| (sum.0 + cell.0, sum.1 + cell.1));
        let large: (usize, usize) = tally
            .cells
            .iter()
            .filter(|((_, size), _)| SIZES[*size] == SIZES[2])
            .fold((0, 0), |sum, (_, cell)| (sum.0 + cell.0, sum.1 + cell.1));
        println!("caught {caught} of {of}, {} of {} of the largest; {wrong} false in {rows} rows", large.0, large.1);
        assert!(caught as f64 >= 0.57 * of as f64, "{caught} of {of} incidents");
        assert!(large.0 as f64 >= 0.69 * large.1 as f64, "{} of {} large incidents", large.0, large.1);
        assert!(wrong as f64 <= 0.8e-3 * rows as f64, "{wrong} false alarms in {rows} rows");
    }
}
