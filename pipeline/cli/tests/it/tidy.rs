//! The house's rules, as a test: which crate may use which, how long a file may be, what may not be left lying about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The only edges between Weir's crates, dev-dependencies aside.
const EDGES: &[(&str, &[&str])] = &[
    ("weir-schemas", &[]),
    ("weir-judge", &[]),
    ("weir-operators", &["weir-judge", "weir-schemas"]),
    ("weir-sinks", &["weir-schemas"]),
    ("weir-clickhouse", &[]),
    // A sink in a crate of its own: Parquet and the object stores' clients compile beside the rest, and whoever reads an
    // archive needs neither ClickHouse nor Kafka.
    ("weir-archive", &["weir-schemas"]),
    ("weir-pipeline", &["weir-judge", "weir-schemas", "weir-operators", "weir-sinks", "weir-archive"]),
    ("weir-replay", &["weir-schemas", "weir-operators", "weir-sinks", "weir-archive", "weir-pipeline"]),
    (
        "weir",
        &[
            "weir-judge",
            "weir-schemas",
            "weir-operators",
            "weir-sinks",
            "weir-clickhouse",
            "weir-archive",
            "weir-pipeline",
            "weir-replay",
        ],
    ),
    ("weir-example", &["weir", "weir-schemas", "weir-operators"]),
];

/// Lines that a file may have. Two rooms in one are found by their length.
const LINES_MAX: usize = 500;

/// Files that are longer, each with the reason.
const LONGER: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

#[test]
fn crates_use_only_the_crates_below_them() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let below = allowed.get(name).unwrap_or_else(|| panic!("crate {name} stands in no row of EDGES"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            if used.starts_with("weir") && dependency["kind"].is_null() {
                assert!(below.contains(&used), "{name} must not use {used}");
            }
        }
        seen += 1;
    }
    assert_eq!(seen, EDGES.len());
}

/// Every tracked file with one of `extensions`, with its text.
fn tracked(extensions: &[&str]) -> Vec<(String, String)> {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    let wanted = |name: &&str| extensions.iter().any(|extension| name.ends_with(extension));
    let read = |name: &str| Some((name.to_owned(), std::fs::read_to_string(root().join(name)).ok()?));
    names.lines().filter(wanted).filter_map(read).collect()
}

#[test]
fn files_are_short_enough_to_hold_one_thing() {
    let files = tracked(&[".rs"]);
    assert!(files.len() > 50, "git lists the files");
    let is_test = |name: &str| name.contains("/tests/") || name.contains("/benches/");
    let too_long: Vec<String> = files
        .iter()
        .filter(|(name, _)| !is_test(name) && !LONGER.iter().any(|(longer, _)| longer == name))
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert!(too_long.is_empty(), "{too_long:#?}");
}

#[test]
fn nothing_is_left_for_later_in_the_text() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut left = Vec::new();
    for (name, text) in tracked(&[".rs", ".toml", ".md", ".sql", ".sh"]) {
        for (at, line) in text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            if words.into_iter().any(|word| marks.contains(&word)) {
                left.push(format!("{name}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn the_code_is_formatted() {
    let output = Command::new(env!("CARGO")).args(["fmt", "--all", "--check"]).current_dir(root()).output().unwrap();
    let shown: String = String::from_utf8_lossy(&output.stdout).lines().take(20).collect::<Vec<_>>().join("\n");
    assert!(output.status.success(), "run `make format`\n{shown}");
}

/// A key that is told nowhere is found by nobody.
#[test]
fn every_key_of_a_pipeline_file_is_told_of() {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let files = |folder: &str| {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    let told: String = files("docs")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .chain([root().join("pipeline/cli/template/pipeline.toml")])
        .map(read)
        .collect();
    let is_told = |key: &str| told.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == key);
    let mut keys = 0;
    for path in files("pipeline/src/config") {
        let text = read(path.clone());
        let fields = text.split("#[cfg(test)]").next().unwrap().lines();
        let named = fields.filter_map(|line| Some(line.strip_prefix("    pub ")?.split_once(':')?.0));
        for key in named.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')) {
            assert!(is_told(key), "{}: `{key}` stands neither in the template nor in docs/", path.display());
            keys += 1;
        }
    }
    assert!(keys > 100, "{keys}");
}
