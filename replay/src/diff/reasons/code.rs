//! What differs between the definitions that were in force on the two sides: SQL, reader schema, settings, Weir itself.
//!
//! Each epoch names the version of the pipeline that took it, so a window's rows are compared with those versions alone that
//! took events of it. Where one side's aren't known any more, nothing is said.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use weir_schemas::tables;
use weir_sinks::DeliveryError;
use weir_sinks::clickhouse::Client;

/// A version of a pipeline, as `weir_versions` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    /// Weir's version and commit.
    weir: String,
    /// Views, rules, schemas and settings.
    definition: Value,
}

/// The versions of a pipeline, by their ids.
pub(super) async fn known(client: &Client) -> Result<BTreeMap<String, Version>, DeliveryError> {
    #[derive(Deserialize)]
    struct Found {
        pipeline_version: String,
        weir_version: String,
        weir_commit: String,
        definition: String,
    }
    let sql = format!(
        "SELECT pipeline_version, weir_version, weir_commit, definition FROM {}",
        client.qualified(tables::VERSIONS)
    );
    let version = |of: Found| {
        let weir = format!("{} {}", of.weir_version, of.weir_commit).trim_end().to_owned();
        (of.pipeline_version, Version { weir, definition: serde_json::from_str(&of.definition).unwrap_or_default() })
    };
    Ok(client.select::<Found>(&sql).await?.into_iter().map(version).collect())
}

/// Which versions took the events of each spot, live and in the replay.
#[derive(Debug, Default)]
pub(super) struct Versions {
    spots: BTreeMap<usize, [Vec<Version>; 2]>,
}

impl Versions {
    pub(super) fn of(in_force: [BTreeMap<usize, Vec<String>>; 2], known: [BTreeMap<String, Version>; 2]) -> Versions {
        let mut spots: BTreeMap<usize, [Vec<Version>; 2]> = BTreeMap::new();
        for (side, (in_force, known)) in in_force.into_iter().zip(known).enumerate() {
            for (spot, ids) in in_force {
                spots.entry(spot).or_default()[side].extend(ids.iter().filter_map(|id| known.get(id).cloned()));
            }
        }
        Versions { spots }
    }

    /// What differs at a spot, in words.
    pub(super) fn differences(&self, spot: usize, view: &str, source: &str) -> Vec<String> {
        let Some(sides) = self.spots.get(&spot) else { return Vec::new() };
        let mut told = Vec::new();
        if let Some((live, replay)) = differing(sides, |version| version.definition["views"][view]["hash"].clone()) {
            let short = |hash: &String| hash.trim_matches('"').chars().take(8).collect::<String>();
            let all = |hashes: &BTreeSet<String>| hashes.iter().map(short).collect::<Vec<_>>().join(" and ");
            told.push(format!("the view's SQL is {} live and {} in the replay", all(&live), all(&replay)));
        }
        let schema = |version: &Version| version.definition["sources"][source]["reader_schema"]["hash"].clone();
        if differing(sides, schema).is_some() {
            let number = |version: &Version| version.definition["sources"][source]["reader_schema"]["version"].clone();
            let numbers = differing(sides, number).map(|(live, replay)| between(&live, &replay));
            let numbers = numbers.map(|numbers| format!(": version {numbers}")).unwrap_or_default();
            told.push(format!("the reader schema of `{source}` is another one in the replay{numbers}"));
        }
        let settings = |version: &Version| version.definition["sources"][source]["settings"].clone();
        let names: BTreeSet<String> = sides
            .iter()
            .flatten()
            .flat_map(|version| {
                settings(version).as_object().map(|all| all.keys().cloned().collect()).unwrap_or(Vec::new())
            })
            .collect();
        for name in names {
            if let Some((live, replay)) = differing(sides, |version| settings(version)[&name].clone()) {
                told.push(format!("`{name}` of `{source}` is {}", between(&live, &replay)));
            }
        }
        if let Some((live, replay)) = differing(sides, |version| Value::from(version.weir.clone())) {
            told.push(format!("Weir itself is {}", between(&live, &replay)));
        }
        told
    }

    /// Whether a rule is another one on the two sides, or there on one of them only.
    pub(super) fn rule_differs(&self, spot: usize, source: &str, rule: &str) -> bool {
        let hash = |version: &Version| version.definition["sources"][source]["rules"][rule]["hash"].clone();
        self.spots.get(&spot).is_some_and(|sides| differing(sides, hash).is_some())
    }
}

/// What a part of the definition is on either side, where both are known and differ.
fn differing(
    [live, replay]: &[Vec<Version>; 2],
    part: impl Fn(&Version) -> Value,
) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
    let all = |versions: &[Version]| -> BTreeSet<String> { versions.iter().map(|of| part(of).to_string()).collect() };
    let (live, replay) = (all(live), all(replay));
    (!live.is_empty() && !replay.is_empty() && live != replay).then_some((live, replay))
}

fn between(live: &BTreeSet<String>, replay: &BTreeSet<String>) -> String {
    let all = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(" and ");
    format!("{} live and {} in the replay", all(live), all(replay))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn version(sql: &str, lateness: u64, rule: Option<&str>, weir: &str) -> Version {
        let rules = rule.map_or(json!({}), |rule| json!({ "codes": { "hash": rule } }));
        let definition = json!({
            "views": { "v": { "hash": sql, "sql": "SELECT" } },
            "sources": { "events": {
                "rules": rules, "reader_schema": { "hash": "s", "version": 1 },
                "settings": { "allowed_lateness_ms": lateness, "tenant": "shop" },
            } },
        });
        Version { weir: weir.to_owned(), definition }
    }

    fn told(live: &[Version], replay: &[Version]) -> (Vec<String>, bool) {
        let named = |versions: &[Version]| -> BTreeMap<String, Version> {
            versions.iter().enumerate().map(|(at, version)| (at.to_string(), version.clone())).collect()
        };
        let force = |versions: &[Version]| {
            let ids: Vec<String> = (0..versions.len()).map(|at| at.to_string()).collect();
            BTreeMap::from([(1, ids)])
        };
        let versions = Versions::of([force(live), force(replay)], [named(live), named(replay)]);
        assert_eq!(versions.differences(2, "v", "events"), Vec::<String>::new(), "nothing is known of another window");
        (versions.differences(1, "v", "events"), versions.rule_differs(1, "events", "codes"))
    }

    #[test]
    fn what_differs_is_named_and_what_isnt_known_is_not() {
        let one = version("aaaaaaaaaa", 1, Some("r1"), "0.1.0");
        assert_eq!(told(std::slice::from_ref(&one), std::slice::from_ref(&one)), (vec![], false));
        assert_eq!(told(&[], std::slice::from_ref(&one)), (vec![], false));
        let other = version("bbbbbbbbbb", 2, None, "0.2.0");
        let expected = [
            "the view's SQL is aaaaaaaa live and bbbbbbbb in the replay",
            "`allowed_lateness_ms` of `events` is 1 live and 2 in the replay",
            "Weir itself is \"0.1.0\" live and \"0.2.0\" in the replay",
        ];
        assert_eq!(
            told(std::slice::from_ref(&one), std::slice::from_ref(&other)),
            (expected.map(str::to_owned).to_vec(), true)
        );
        let both = [one, version("cccccccccc", 1, Some("r1"), "0.1.0")];
        let mixed = told(&both, &both[1..]);
        assert_eq!(
            mixed,
            (vec!["the view's SQL is aaaaaaaa and cccccccc live and cccccccc in the replay".to_owned()], false)
        );
    }
}
