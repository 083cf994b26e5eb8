//! The Numenta Anomaly Benchmark (Lavin and Ahmad 2015), where its data are at hand.
//!
//! Ignored, as the data aren't shipped: name a copy of the benchmark's repository by `WEIR_NAB`. One threshold for all
//! files, the best one, as the benchmark has it; and the product's own beside it.

use std::collections::BTreeMap;
use std::path::Path;

use weir_judge::series::Series;

use crate::scoring::{PROFILES, caught, judged, told};

/// Microseconds since 1970 of `2014-04-01 00:05:00`, with or without a fraction.
fn at_us(text: &str) -> i64 {
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // Days from the civil date, after Howard Hinnant's chrono algorithms.
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        365 * year_from_march + year_from_march / 4 - year_from_march / 100 + year_from_march / 400 + day_of_year
            - 719_468;
    ((days * 24 + number(11, 13)) * 60 + number(14, 16)) * 60_000_000 + number(17, 19) * 1_000_000
}

/// The windows of `combined_windows.json` by file: its strings are names of files and, below them, pairs of times.
fn windows(text: &str) -> BTreeMap<String, Vec<(i64, i64)>> {
    let mut windows: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut file = String::new();
    for word in text.split('"').skip(1).step_by(2) {
        if word.ends_with(".csv") {
            file = word.to_owned();
            windows.entry(file.clone()).or_default();
        } else {
            windows.get_mut(&file).unwrap().push(at_us(word));
        }
    }
    let pairs = |times: Vec<i64>| times.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    windows.into_iter().map(|(file, times)| (file, pairs(times))).collect()
}

/// A file of the benchmark: its name, rows and windows.
type File = (String, Vec<(i64, f64)>, Vec<(i64, i64)>);

fn read(folder: &Path) -> Vec<File> {
    let labels = std::fs::read_to_string(folder.join("labels/combined_windows.json")).unwrap();
    let rows = |file: &str| {
        let text = std::fs::read_to_string(folder.join("data").join(file)).unwrap();
        let parse =
            |line: &str| line.split_once(',').map(|(at, value)| (at_us(at), value.trim().parse().unwrap())).unwrap();
        text.lines().skip(1).map(parse).collect()
    };
    windows(&labels).into_iter().map(|(file, windows)| (file.clone(), rows(&file), windows)).collect()
}

#[test]
#[ignore = "needs a copy of the benchmark, named by WEIR_NAB"]
fn score_of_the_numenta_anomaly_benchmark() {
    let folder = std::env::var("WEIR_NAB").unwrap();
    let mut all = Vec::new();
    let mut count = 0;
    let mut files = Vec::new();
    for (file, rows, windows) in read(Path::new(&folder)) {
        let mut series = Series::new();
        let scores: Vec<f64> = rows.iter().map(|(at, value)| series.observe(*at, *value).score).collect();
        let judged = judged(&rows, &scores, &windows, count);
        if let Ok(into) = std::env::var("WEIR_NAB_OUT") {
            let text: String = rows.iter().zip(&scores).map(|(row, score)| format!("{},{score}\n", row.0)).collect();
            std::fs::write(Path::new(&into).join(file.replace('/', "__")), text).unwrap();
        }
        let caught = caught(&judged, count, windows.len());
        files.push(format!("{file:62} {caught}"));
        count += windows.len();
        all.extend(judged);
    }
    files.iter().for_each(|line| println!("{line}"));
    PROFILES.iter().for_each(|profile| println!("{}", told(profile, &all, count)));
}
