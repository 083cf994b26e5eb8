//! Which reader schema a pipeline reads with, on a real registry: a version that somebody registers changes nothing by
//! itself.

use serde_json::{Value, json};

use crate::program::{Bench, parts, terminate, wait_until};
use crate::shop::{sell, shop};
use crate::topics::serve_status;

/// Registers a changed version of the shop's schema under the subject of its topic.
fn register(bench: &Bench, change: impl FnOnce(&mut Vec<Value>)) {
    let text = std::fs::read_to_string(bench.folder.path().join("event.avsc")).unwrap();
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    change(schema["fields"].as_array_mut().unwrap());
    let url = format!("{}/subjects/{}-value/versions", parts().registry(), bench.topic);
    let body = json!({ "schema": schema.to_string() }).to_string();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let kind = "application/vnd.schemaregistry.v1+json";
        let answer = reqwest::Client::new().post(url).header("content-type", kind).body(body).send().await.unwrap();
        let (is_fine, text) = (answer.status().is_success(), answer.text().await.unwrap());
        assert!(is_fine, "{text}");
    });
}

fn with_loyalty(fields: &mut Vec<Value>) {
    fields.push(json!({ "name": "loyalty", "type": ["null", "string"], "default": null }));
}

#[test]
fn a_newer_version_changes_nothing_until_the_pipeline_file_takes_it() {
    let bench = shop("schema_newer");
    serve_status(&bench);
    bench.edit("schema_file = \"event.avsc\"\n", "");
    sell(&bench, 2_000, 1, &[]);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("it reads with version 1", || bench.consumed() == 2_000);
    register(&bench, with_loyalty);
    let newer = "version 2 is there: `schema_version = 2` takes it";
    wait_until("the running pipeline says so", || {
        let said = bench.weir(&["status", "pipeline.toml"]);
        said.code == 0 && said.out.contains(newer)
    });
    // While it runs, and after.
    for _ in 0..2 {
        let checked = bench.weir(&["check", "pipeline.toml"]).fine().out;
        assert!(checked.contains(newer) && !checked.contains("loyalty"), "{checked}");
        if running.try_wait().unwrap().is_none() {
            terminate(&mut running);
        }
    }

    bench.edit("topics = ", "schema_version = 2\ntopics = ");
    let checked = bench.weir(&["check", "pipeline.toml"]).fine().out;
    assert!(checked.contains("loyalty") && !checked.contains("is there"), "{checked}");
    sell(&bench, 2_000, 2, &[]);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("it reads with version 2", || bench.consumed() == 4_000);
    terminate(&mut running);
    bench.edit("schema_version = 2\n", "");
    let checked = bench.weir(&["check", "pipeline.toml"]).fine().out;
    assert!(checked.contains("loyalty"), "what was taken is kept: {checked}");

    bench.edit("topics = ", "schema_version = 9\ntopics = ");
    bench.weir(&["run", "pipeline.toml"]).refused(2, &["schema_version", "name one of 1, 2"]);
    bench.edit("schema_version = 9\n", "schema_version = 1\n");
    // The way back would lose a column that the table has.
    bench.weir(&["run", "pipeline.toml"]).refused(2, &["pipeline file and its state differ", "loyalty"]);
}

#[test]
fn every_version_that_cannot_be_read_is_named_not_the_newest_alone() {
    let bench = shop("schema_unreadable");
    sell(&bench, 2_000, 1, &[]);
    register(&bench, |fields| {
        let amount = fields.iter_mut().find(|field| field["name"] == "amount").unwrap();
        *amount = json!({ "name": "amount", "type": "boolean" });
    });
    register(&bench, with_loyalty);
    bench.weir(&["check", "pipeline.toml"]).refused(2, &["can't read version 2", "amount", "1 problem found"]);
    // A start isn't refused: each record is judged by itself.
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    assert_eq!(bench.consumed(), 2_000);
}
