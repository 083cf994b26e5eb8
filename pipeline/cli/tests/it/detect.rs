//! `weir detect` as a user drives it: files, standard input, mistakes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::program::WEIR;

/// Four weeks of a value every half hour, with a day; three rows of it are wrong.
fn series() -> String {
    let mut random = fastrand::Rng::with_seed(1);
    let mut text = "timestamp,value\n".to_owned();
    for row in 0..1_344_i64 {
        let at = chrono::DateTime::from_timestamp(1_700_000_000 + row * 1_800, 0).unwrap();
        let day = (f64::from(row as i32 % 48) / 48.0 * std::f64::consts::TAU).sin();
        let wrong = if (1_000..1_003).contains(&row) { 60.0 } else { 0.0 };
        let value = 100.0 + 20.0 * day + 2.0 * random.f64() + wrong;
        text.push_str(&format!("{},{value}\n", at.format("%Y-%m-%d %H:%M:%S")));
    }
    text
}

fn detect(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(WEIR)
        .arg("detect")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // The program may have stopped reading at a mistake.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_file_and_standard_input_get_the_same_scores_and_the_wrong_rows_stand_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("series.csv");
    let text = series();
    std::fs::write(&path, &text).unwrap();
    let (code, from_file, _) = detect(&["--csv", path.to_str().unwrap()], "");
    let (_, from_input, _) = detect(&["--csv", "-"], &text);
    let (_, threshold, _) = detect(&["--threshold"], "");
    assert_eq!(code, 0);
    assert_eq!(from_file, from_input);
    let threshold: f64 = threshold.trim().parse().unwrap();
    let rows = |text: &str| text.lines().map(|line| line.split_once(',').unwrap().0.to_owned()).collect::<Vec<_>>();
    assert_eq!(rows(&text), rows(&from_file), "a row for each row, timestamps as they were");
    let score = |line: &str| line.split_once(',').unwrap().1.parse::<f64>().unwrap();
    let scores: Vec<f64> = from_file.lines().skip(1).map(score).collect();
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
    assert!(scores[1_000] >= threshold, "{}", scores[1_000]);
    let alarms = scores.iter().filter(|score| **score >= threshold).count();
    assert!(alarms <= 4, "{alarms} alarms");
}

#[test]
fn rows_from_standard_input_are_answered_at_once() {
    let mut child =
        Command::new(WEIR).args(["detect", "--csv", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin.write_all(b"timestamp,value\n2014-04-01 00:00:00,1\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "timestamp,anomaly_score");
    assert!(lines.next().unwrap().unwrap().starts_with("2014-04-01 00:00:00,"));
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn mistakes_are_told_with_line_and_remedy() {
    for (input, words) in [
        ("", ["standard input:1:", "timestamp,value"]),
        ("time,value\n1,2\n", ["standard input:1:", "timestamp,value"]),
        ("timestamp,value\n1,2\n2,two\n", ["standard input:3:", "`two`"]),
        ("timestamp,value\nsoon,2\n", ["standard input:2:", "`soon`"]),
    ] {
        let (code, _, error) = detect(&["--csv", "-"], input);
        assert_eq!(code, 2, "{error}");
        assert!(words.iter().all(|word| error.contains(word)) && error.contains("remedy"), "{error}");
    }
    let (code, _, error) = detect(&["--csv", "nowhere.csv"], "");
    assert!(code == 2 && error.contains("nowhere.csv"), "{error}");
    assert_eq!(detect(&[], "").0, 2, "neither a file nor --threshold");
}
