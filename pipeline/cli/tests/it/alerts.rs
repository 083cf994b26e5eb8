//! Alerts from the detector to people: topics, tables, commands and senders, through outages and kills.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use weir_schemas::registry::{Compatibility, Failure, Registry, Settings};

use crate::program::{Bench, clickhouse, parts, terminate, wait_until};
use crate::receivers::{Http, Smtp};
use crate::shop::shop;

/// The shop with `further` lines in its pipeline file, and the alerts' topics.
fn shop_with(name: &str, further: &str) -> Bench {
    let bench = shop(name);
    let text = std::fs::read_to_string(bench.file()).unwrap();
    let topics = "topic = \"${TOPIC}-alerts\"\ncurrent_topic = \"${TOPIC}-current\"";
    let text = text.replace("topic = \"${TOPIC}-alerts\"", topics);
    std::fs::write(bench.file(), format!("{text}\n{further}\n")).unwrap();
    bench
}

/// Records that a tenant sends in each minute.
const EACH: u32 = 40;
/// Tenants; those from [`WEB`] on use the web's SDK, the others android's.
const TENANTS: usize = 10;
const WEB: usize = 8;

/// Sends [`EACH`] purchases of every tenant in each of `minutes`, as many of them with a negative amount as `bad` says.
fn purchases(bench: &Bench, minutes: Range<usize>, bad: impl Fn(usize, usize) -> u32) {
    purchases_of(bench, 0..TENANTS, minutes, bad);
}

/// Sends good purchases of a tenant without alerts, which close the windows before them.
fn close_windows_before(bench: &Bench, minute: usize) {
    purchases_of(bench, TENANTS..TENANTS + 1, minute..minute + 1, |_, _| 0);
}

/// One partition: of several that wake one after the other, the later ones would be too late.
fn purchases_of(bench: &Bench, tenants: Range<usize>, minutes: Range<usize>, bad: impl Fn(usize, usize) -> u32) {
    let mut lines = String::new();
    for minute in minutes.clone() {
        for tenant in tenants.clone() {
            let sdk = if tenant < WEB { "android" } else { "web" };
            for at in 0..EACH {
                let amount = if at < bad(tenant, minute) { "-1.00" } else { "5.00" };
                let line = serde_json::json!({
                    "event_id": format!("{tenant}/{minute}/{at}"),
                    "occurred_at": format!("2026-01-05T06:{minute:02}:{at:02}Z"),
                    "tenant": format!("t{tenant}"),
                    "type": "purchase",
                    "user_id": format!("u{at}"),
                    "amount": amount,
                    "sdk": sdk,
                    "sdk_version": "4.2.0",
                    "app_version": "7.1",
                    "props": {},
                });
                lines.push_str(&format!("{line}\n"));
            }
        }
    }
    let file = format!("purchases{}.jsonl", minutes.start);
    std::fs::write(bench.folder.path().join(&file), lines).unwrap();
    let mut arguments = vec!["produce", "--topic", &bench.topic, "--partitions", "1", "--json", &file];
    arguments.extend(["--schema", "event.avsc", "--key", "event_id", "--time", "occurred_at", "--event-timestamps"]);
    bench.weir(&arguments).fine();
}

/// Minutes in which every tenant's alert opens at 20 %, gets worse at 60 %, is resolved, and opens again.
fn opened_worse_resolved_opened(_: usize, minute: usize) -> u32 {
    [0, 8, 24, 0, 8].get(minute).copied().unwrap_or(0)
}

/// The committed messages of a topic of one partition: key, `weir_id`, value.
pub(crate) fn messages(topic: &str) -> Vec<(String, String, Vec<u8>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", parts().kafka())
        .set("group.id", "test")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let mut messages = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(20)).unwrap() {
            Err(KafkaError::PartitionEOF(_)) => return messages,
            Err(error) => println!("{error}"),
            Ok(message) => {
                let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                let id = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "weir_id"));
                let id = text(id.and_then(|header| header.value));
                messages.push((text(message.key()), id, message.payload().unwrap_or_default().to_vec()));
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn cleanup_policy(topic: &str) -> String {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", parts().kafka()).create().unwrap();
    let (topic, options) = (ResourceSpecifier::Topic(topic), AdminOptions::new());
    let answer = runtime().block_on(admin.describe_configs([&topic], &options)).unwrap().remove(0).unwrap();
    answer.get("cleanup.policy").unwrap().value.clone().unwrap()
}

/// The steps that `weir alerts tail` prints of the whole topic.
fn tail(bench: &Bench) -> Vec<Value> {
    let out = bench.weir(&["alerts", "tail", "pipeline.toml", "--from-beginning", "--until-end", "--json"]).fine().out;
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn key_of(step: &Value) -> String {
    let opened_at = chrono::DateTime::parse_from_rfc3339(text(step, "opened_at")).unwrap().timestamp_micros();
    format!("{}/{opened_at}/{}", text(step, "fingerprint"), step["revision"])
}

#[test]
fn alerts_stand_in_topics_and_tables_alike_and_people_find_them() {
    let bench = shop_with(
        "alerts_seen",
        r#"
[[alerts.owners]]
owner = "mobile"
when = { sdk = "android", rule = "amounts_*" }
[[alerts.suppressions]]
name = "quiet web"
reason = "known"
when = { sdk = "web" }
from = "2026-01-01T00:00:00Z"
until = "2026-02-01T00:00:00Z"
"#,
    );
    // The last opening is left out for every other tenant, so that some are resolved.
    purchases(&bench, 0..5, |tenant, minute| {
        if tenant % 2 == 0 && minute == 4 { 0 } else { opened_worse_resolved_opened(tenant, minute) }
    });
    bench.weir(&["check", "pipeline.toml"]).fine();
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();

    // The two topics and the two tables say the same.
    let steps: usize = bench.ask("SELECT count() FROM weir_alerts_history").parse().unwrap();
    assert_eq!(steps, TENANTS * 3 + TENANTS / 2);
    let history = messages(&format!("{}-alerts", bench.topic));
    assert_eq!(history.len(), steps);
    let newest = |messages: &[(String, String, Vec<u8>)]| -> BTreeMap<String, (String, Vec<u8>)> {
        messages.iter().map(|(key, id, value)| (key.clone(), (id.clone(), value.clone()))).collect()
    };
    let current = newest(&messages(&format!("{}-current", bench.topic)));
    assert_eq!(current, newest(&history));
    let rows = bench.ask(
        "SELECT fingerprint, concat(fingerprint, '/', leftPad(toString(toUInt64(toUnixTimestamp64Micro(window_start)) \
         + 9223372036854775808), 20, '0'), '/', leftPad(toString(revision), 10, '0')) FROM weir_alerts ORDER BY fingerprint",
    );
    let ids: Vec<String> = current.iter().map(|(key, (id, _))| format!("{key}\t{id}")).collect();
    assert_eq!(ids, rows.lines().collect::<Vec<_>>());
    assert_eq!(cleanup_policy(&format!("{}-alerts", bench.topic)), "delete");
    assert_eq!(cleanup_policy(&format!("{}-current", bench.topic)), "compact");
    let printed = tail(&bench);
    assert_eq!(printed.len(), steps);

    // The bad release's alert is whole: cause, places, owner, and a query that finds what it counts.
    let opening =
        printed.iter().find(|step| step["rule"] == "amounts_are_positive" && step["status"] == "open").unwrap();
    assert_eq!((text(opening, "cause"), text(opening, "owner")), ("android 4.2.0 / 7.1", "mobile"));
    assert_eq!(opening["tenant_count"], 1);
    for name in ["first_place", "last_place"] {
        assert!(text(opening, name).starts_with(&format!("{}/", bench.topic)), "{opening}");
    }
    let found = bench.ask(&format!("SELECT sum(records) FROM ({})", text(opening, "query")));
    assert_eq!(found, opening["affected_records"].to_string());
    // Suppressed alerts are kept and marked.
    let marked = "SELECT countIf(suppressed_by = 'quiet web'), countIf(sdk = 'web'), countIf(suppressed_by != '') FROM weir_alerts_history";
    assert_eq!(bench.ask(marked), "7\t7\t7");

    people_see_and_acknowledge(&bench);
    the_schema_evolves(&format!("{}-alerts-value", bench.topic));
}

fn people_see_and_acknowledge(bench: &Bench) {
    let all = bench.weir(&["alerts", "list", "pipeline.toml", "--all"]).fine().out;
    assert!(all.contains("fingerprint") && all.contains("android 4.2.0 / 7.1"), "{all}");
    let open = bench.weir(&["alerts", "list", "pipeline.toml", "--json"]).fine().out;
    let open: Vec<Value> = open.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(bench.ask("SELECT countIf(status != 'resolved') FROM weir_alerts"), open.len().to_string());
    let alert = open.iter().find(|alert| alert["sdk"] == "android").unwrap();
    let fingerprint = text(alert, "fingerprint");
    let shown = bench.weir(&["alerts", "show", "pipeline.toml", &fingerprint[..8]]).fine().out;
    for part in [fingerprint, "look further", "FROM weir_quarantine", "open", "last place"] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "colours are off where no terminal is");

    let note = "it's the proxy";
    bench.weir(&["alerts", "ack", "pipeline.toml", &fingerprint[..8], "--by", "ada", "--note", note]).fine();
    let who =
        format!("SELECT acknowledged_by, acknowledged_at IS NULL FROM weir_alerts WHERE fingerprint = '{fingerprint}'");
    assert_eq!(bench.ask(&who), "ada\t0");
    assert_eq!(bench.ask("SELECT count() FROM weir_alerts WHERE acknowledged_by = ''"), {
        let others: usize = bench.ask("SELECT count() FROM weir_alerts").parse().unwrap();
        (others - 1).to_string()
    });
    assert!(bench.weir(&["alerts", "list", "pipeline.toml"]).fine().out.contains("ada has it"));
    assert_eq!(messages(&format!("{}-control", bench.database)).len(), 1);
    assert_eq!(cleanup_policy(&format!("{}-control", bench.database)), "compact");
    // Once it has run out it counts no more.
    let opened_at = text(alert, "opened_at");
    bench.weir(&["alerts", "ack", "pipeline.toml", fingerprint, "--by", "bob", "--until", opened_at]).fine();
    assert_eq!(bench.ask(&who), "\t1");

    let resolved = bench.ask("SELECT any(fingerprint) FROM weir_alerts WHERE status = 'resolved'");
    for (arguments, words) in [
        (&["ack", "pipeline.toml", &resolved, "--by=ada"][..], ["is resolved", "remedy"]),
        (
            &["ack", "pipeline.toml", fingerprint, "--by=ada", "--until=tomorrow"],
            ["--until tomorrow", "2026-01-31T12:00:00Z"],
        ),
        (&["show", "pipeline.toml", ""], ["is no fingerprint", "weir alerts list"]),
        (&["show", "pipeline.toml", "feedfeedfeed"], ["no alert's fingerprint begins", "--all"]),
        (&["send", "pipeline.toml", "--to", "chat"], ["there is no sender `chat`", "[senders.chat]"]),
    ] {
        let arguments: Vec<&str> = std::iter::once("alerts").chain(arguments.iter().copied()).collect();
        bench.weir(&arguments).refused(2, &words);
    }
}

/// The subject takes a schema that readers of both ages can live with, and no other.
fn the_schema_evolves(subject: &str) {
    let registry = Registry::new(Settings::new(parts().registry())).unwrap();
    let runtime = runtime();
    assert_eq!(runtime.block_on(registry.compatibility_of(subject)), Ok(Compatibility::FullTransitive));
    let change = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut schema: Value = serde_json::from_str(weir_sinks::kafka::alert::SCHEMA).unwrap();
        change(schema["fields"].as_array_mut().unwrap());
        runtime.block_on(registry.register(subject, &schema.to_string()))
    };
    let field = serde_json::json!({"name": "ticket", "type": "string"});
    assert!(matches!(change(&|fields| fields.push(field.clone())), Err(Failure::Incompatible(_))), "no default");
    assert!(matches!(change(&|fields| fields[2]["type"] = "string".into()), Err(Failure::Incompatible(_))));
    assert!(matches!(change(&|fields| drop(fields.remove(1))), Err(Failure::Incompatible(_))));
    let with_default = serde_json::json!({"name": "ticket", "type": "string", "default": ""});
    change(&|fields| fields.push(with_default.clone())).unwrap();
    change(&|fields| fields.retain(|field| field["name"] != "samples")).unwrap();
}

/// The steps that a sender without `updates` tells of a log of steps: openings, worse severities, ends.
fn expected(steps: &[Value]) -> BTreeSet<String> {
    let mut worst: BTreeMap<&str, &str> = BTreeMap::new();
    let mut told = BTreeSet::new();
    for step in steps {
        let (fingerprint, severity) = (text(step, "fingerprint"), text(step, "severity"));
        let is_told = match text(step, "status") {
            "resolved" => worst.remove(fingerprint).is_some(),
            _ => match worst.get(fingerprint) {
                None => worst.insert(fingerprint, severity).is_none(),
                Some(known) => {
                    let is_worse = *known == "warning" && severity == "critical";
                    if is_worse {
                        worst.insert(fingerprint, severity);
                    }
                    is_worse
                }
            },
        };
        if is_told {
            told.insert(key_of(step));
        }
    }
    told
}

#[test]
fn senders_lose_nothing_through_kills_and_outages_and_hold_up_nobody() {
    // The hook is unwell at first, refuses one alert for good, and is unwell again in between.
    let hook = Http::start(|at, _| match at {
        0..3 => 503,
        5 => 422,
        7..9 => 429,
        _ => 200,
    });
    let chat = Http::start(|_, _| 200);
    let mail = Smtp::start(1);
    let bench = shop_with(
        "alerts_sent",
        &format!(
            r#"
[[alerts.owners]]
owner = "mobile"
when = {{ sdk = "android" }}
[senders.hook]
kind = "webhook"
url = "http://127.0.0.1:{}/alerts"
authorization = "Bearer secret"
[senders.chat]
kind = "slack"
url = "http://127.0.0.1:{}/services/x"
owners = ["mobile"]
[senders.mail]
kind = "email"
server = "127.0.0.1"
port = {}
encryption = "none"
from = "Weir <weir@example.com>"
to = "everybody@example.com"
addresses = {{ mobile = "mobile@example.com" }}
digest_every_ms = 1000
"#,
            hook.port, chat.port, mail.port
        ),
    );
    purchases(&bench, 0..5, opened_worse_resolved_opened);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let steps = tail(&bench);
    let expected = expected(&steps);
    assert_eq!(expected.len(), 4 * TENANTS);
    // Somebody's nonsense in the topic is left out.
    let topic = format!("{}-alerts", bench.topic);
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", parts().kafka()).create().unwrap();
    producer.send(BaseRecord::<str, str>::to(&topic).payload("nonsense")).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();

    // The hook is killed while it waits for the first time, and after a few.
    for count in [2, 7] {
        let mut running = bench.start(&["alerts", "send", "pipeline.toml", "--to", "hook", "--from-beginning"]);
        wait_until("the hook has been asked", || hook.seen.lock().unwrap().len() >= count);
        // Meanwhile the others aren't held up.
        if count == 2 {
            let sent = ["alerts", "send", "pipeline.toml", "--to", "chat", "--from-beginning", "--until-end"];
            let out = bench.weir(&sent).fine();
            assert!(out.out.contains("skipped 1") && out.err.contains("can never be told"), "{}{}", out.out, out.err);
        }
        running.kill().unwrap();
        running.wait().unwrap();
    }
    bench.weir(&["alerts", "send", "pipeline.toml", "--to", "hook", "--until-end"]).fine();

    let taken = hook.taken();
    let refused = hook.seen.lock().unwrap()[5].0.key.clone();
    let keys: BTreeSet<String> = taken.iter().map(|request| request.key.clone()).chain([refused]).collect();
    assert_eq!(keys, expected);
    println!("hook: {} requests taken for {} steps", taken.len(), expected.len());
    let mut by_key: BTreeMap<&str, &str> = BTreeMap::new();
    for request in &taken {
        assert_eq!((request.path.as_str(), request.authorization.as_str()), ("/alerts", "Bearer secret"));
        let known = by_key.entry(&request.key).or_insert(&request.body);
        assert_eq!(*known, request.body, "one key, one step");
        assert_eq!(key_of(&serde_json::from_str(&request.body).unwrap()), request.key);
    }

    let mobile: BTreeSet<String> = steps
        .iter()
        .filter(|step| step["owner"] == "mobile")
        .map(key_of)
        .filter(|key| expected.contains(key))
        .collect();
    let taken = chat.taken();
    assert_eq!(taken.iter().map(|request| request.key.clone()).collect::<BTreeSet<_>>(), mobile);
    assert!(taken.iter().all(|request| serde_json::from_str::<Value>(&request.body).unwrap()["blocks"].is_array()));

    digests_come_by_owner(&bench, &mail, &steps);
}

fn digests_come_by_owner(bench: &Bench, mail: &Smtp, steps: &[Value]) {
    let arguments = ["alerts", "send", "pipeline.toml", "--to", "mail", "--from-beginning", "--until-end"];
    bench.weir(&arguments).fine();
    assert_eq!(*mail.refusals.lock().unwrap(), 1, "the first one was tried again");
    let mails = mail.mails.lock().unwrap().clone();
    let to: Vec<&str> = mails.iter().map(|mail| mail.to.as_str()).collect();
    assert_eq!(to, ["everybody@example.com", "mobile@example.com"]);
    assert!(mails[1].subject.contains("for mobile"), "{}", mails[1].subject);
    // The newest told step of every alert stands in its owner's mail, and nowhere else.
    let told = expected(steps);
    let mut newest: BTreeMap<&str, &Value> = BTreeMap::new();
    for step in steps.iter().filter(|step| told.contains(&key_of(step))) {
        newest.insert(text(step, "fingerprint"), step);
    }
    for step in newest.into_values() {
        let is_mobile = step["owner"] == "mobile";
        for (mail, expected) in mails.iter().zip([!is_mobile, is_mobile]) {
            assert_eq!(mail.body.contains(&key_of(step)), expected, "{}\n{}", key_of(step), mail.body);
        }
    }
    // Nothing has come since, so nothing is sent.
    bench.weir(&arguments).fine();
    assert_eq!(mail.mails.lock().unwrap().len(), 2);
}

#[test]
fn an_acknowledged_alert_is_not_told_again() {
    let hook = Http::start(|_, _| 200);
    let bench = shop_with(
        "alerts_acknowledged",
        &format!("[senders.hook]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\nupdates = true", hook.port),
    );
    let steps_are = |count: usize| {
        let there =
            format!("SELECT count() FROM tables WHERE database = '{}' AND name = 'weir_alerts'", bench.database);
        clickhouse("system", &there, &[]) == "1"
            && bench.ask("SELECT count() FROM weir_alerts_history") == count.to_string()
    };
    purchases(&bench, 0..5, opened_worse_resolved_opened);
    close_windows_before(&bench, 9);
    let mut running = bench.start(&["run", "pipeline.toml"]);
    wait_until("all have opened, got worse, ended and opened", || steps_are(4 * TENANTS));
    let send = ["alerts", "send", "pipeline.toml", "--from-beginning", "--until-end"];
    bench.weir(&send).fine();
    let first = tail(&bench).len();
    assert_eq!(hook.taken().len(), first, "with `updates` every step is told");

    let open = bench.ask("SELECT fingerprint FROM weir_alerts WHERE status != 'resolved' ORDER BY fingerprint");
    let open: Vec<&str> = open.lines().collect();
    bench.weir(&["alerts", "ack", "pipeline.toml", open[0], "--by", "ada"]).fine();
    // Minutes later, as a silent pipeline's time goes on by the clock while these commands run.
    purchases(&bench, 19..22, |_, minute| [12, 0, 8][minute - 19]);
    close_windows_before(&bench, 29);
    wait_until("all go on, end and open again", || steps_are(7 * TENANTS));
    terminate(&mut running);
    bench.weir(&send).fine();
    let steps = tail(&bench);
    let opened_at: BTreeMap<&str, &str> =
        steps[..first].iter().map(|step| (text(step, "fingerprint"), text(step, "opened_at"))).collect();
    let is_silent = |step: &Value| {
        text(step, "fingerprint") == open[0]
            && step["status"] == "update"
            && text(step, "opened_at") == opened_at[open[0]]
    };
    let later = &steps[first..];
    assert!(later.iter().any(is_silent), "the alert goes on");
    let told: Vec<String> = hook.taken()[first..].iter().map(|request| request.key.clone()).collect();
    assert_eq!(told, later.iter().filter(|step| !is_silent(step)).map(key_of).collect::<Vec<_>>());
}
