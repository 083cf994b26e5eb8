//! The registry client against canned answers, status by status, and the cache against a source whose answers the test
//! decides. Both meet a real registry in the tests of `weir-replay`.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use weir_schemas::avro::Schema;
use weir_schemas::registry::{
    Cached, Compatibility, Credentials, Failure, Lookup, ParsedSchema, Registry, SchemaCache, SchemaSource, Settings,
};

const EVENT: &str = r#"{"type":"record","name":"Event","fields":[{"name":"id","type":"long"}]}"#;

/// What a canned server answers: by the request's first line, its headers and its body.
type Answers = Arc<dyn Fn(&str) -> (u16, String) + Send + Sync>;

/// Serves canned answers on a free port of the loopback until the runtime ends.
async fn canned(answers: Answers) -> Registry {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answers = Arc::clone(&answers);
            tokio::spawn(async move {
                let mut request = vec![0; 65_536];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let (status, body) = answers(&String::from_utf8_lossy(&request[..read]));
                let head =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            });
        }
    });
    let mut settings = Settings::new(url);
    settings.timeout_ms = 2_000;
    Registry::new(settings).expect("settings")
}

fn schema_answer(text: &str, more: &str) -> (u16, String) {
    (200, format!(r#"{{"id": 1, "schema": {}{more}}}"#, serde_json::Value::String(text.to_owned())))
}

#[tokio::test]
async fn each_answer_is_told_apart_and_only_the_registrys_own_word_makes_a_schema_unknown() {
    let verdict = |status: u16, body: &str| {
        let body = body.to_owned();
        async move {
            let registry = canned(Arc::new(move |_: &str| (status, body.clone()))).await;
            match registry.by_id(7).await {
                Lookup::Found(_) => "found",
                Lookup::Unknown => "unknown",
                Lookup::Unusable(_) => "unusable",
                Lookup::Unavailable(_) => "unavailable",
                Lookup::Refused(_) => "refused",
            }
        }
    };
    assert_eq!(verdict(200, &schema_answer(EVENT, "").1).await, "found");
    assert_eq!(verdict(404, r#"{"error_code": 40403, "message": "Schema not found"}"#).await, "unknown");
    assert_eq!(verdict(404, "").await, "unavailable");
    assert_eq!(verdict(404, "<html>no such page</html>").await, "unavailable");
    assert_eq!(verdict(404, r#"{"error_code": 404, "message": "HTTP 404 Not Found"}"#).await, "unavailable");
    for status in [400, 409, 422] {
        let own = format!(r#"{{"error_code": {status}01, "message": "no"}}"#);
        assert_eq!(verdict(status, &own).await, "unusable", "{status}");
        assert_eq!(verdict(status, &format!(r#"{{"error_code": {status}, "message": "no"}}"#)).await, "unusable");
        assert_eq!(
            verdict(status, "<html>plain HTTP was sent to an HTTPS port</html>").await,
            "unavailable",
            "{status}"
        );
        assert_eq!(verdict(status, "{}").await, "unavailable", "{status}");
    }
    assert_eq!(verdict(401, r#"{"error_code": 401, "message": "Unauthorized"}"#).await, "refused");
    assert_eq!(verdict(403, "").await, "refused");
    for status in [408, 429, 500, 502, 503, 504] {
        assert_eq!(verdict(status, r#"{"error_code": 50001, "message": "store"}"#).await, "unavailable", "{status}");
    }
    assert_eq!(verdict(200, "<html>login</html>").await, "unavailable");
    assert_eq!(
        verdict(200, &schema_answer("syntax = \"proto3\";", r#", "schemaType": "PROTOBUF""#).1).await,
        "unusable"
    );
    assert_eq!(verdict(200, &schema_answer(r#"{"type": "record"}"#, "").1).await, "unusable");
    let nobody = Registry::new(Settings::new("http://127.0.0.1:9")).expect("settings");
    assert!(matches!(nobody.by_id(7).await, Lookup::Unavailable(_)));
}

#[tokio::test]
async fn references_are_fetched_once_and_put_in_the_order_in_which_they_can_be_parsed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let answers = move |request: &str| {
        counter.fetch_add(1, Ordering::SeqCst);
        let named = |name: &str, fields: &str| format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#);
        let refers = |subjects: &[&str]| {
            let all: Vec<String> =
                subjects.iter().map(|one| format!(r#"{{"name":"{one}","subject":"{one}","version":1}}"#)).collect();
            format!(r#", "references": [{}]"#, all.join(","))
        };
        match request.split(' ').nth(1).unwrap_or_default() {
            "/schemas/ids/7?deleted=true" => schema_answer(
                &named("Event", r#"{"name":"a","type":"A"},{"name":"b","type":"B"}"#),
                &refers(&["A", "B"]),
            ),
            "/subjects/A/versions/1" => schema_answer(&named("A", r#"{"name":"b","type":"B"}"#), &refers(&["B"])),
            "/subjects/B/versions/1" => schema_answer(&named("B", r#"{"name":"x","type":"int"}"#), ""),
            other => panic!("{other} wasn't to be asked"),
        }
    };
    let registry = canned(Arc::new(answers)).await;
    let Lookup::Found(schema) = registry.by_id(7).await else { panic!("it is there") };
    assert_eq!(schema.id, 7);
    assert_eq!(schema.referenced.len(), 2);
    assert!(schema.referenced[0].contains(r#""name":"B""#));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    // The encoder takes the same texts.
    weir_schemas::avro::Encoder::new(7, &schema.text, &schema.referenced).expect("apache-avro resolves them");
}

#[tokio::test]
async fn credentials_are_sent_and_never_printed() {
    let seen = Arc::new(Mutex::new(String::new()));
    for (credentials, expected) in [
        (Credentials::Basic { user: "key".into(), password: "hidden".into() }, "authorization: Basic a2V5OmhpZGRlbg=="),
        (Credentials::Bearer("hidden".into()), "authorization: Bearer hidden"),
    ] {
        let note = Arc::clone(&seen);
        let base = canned(Arc::new(move |request: &str| {
            *note.lock().expect("whole") = request.to_owned();
            if request.contains("/config") {
                (200, r#"{"compatibilityLevel": "FULL"}"#.into())
            } else {
                schema_answer(EVENT, "")
            }
        }))
        .await;
        let mut settings = base.settings().clone();
        settings.credentials = credentials;
        assert!(!format!("{settings:?}").contains("hidden"));
        let registry = Registry::new(settings).expect("settings");
        assert!(!format!("{registry:?}").contains("hidden"));
        assert!(matches!(registry.by_id(1).await, Lookup::Found(_)));
        assert!(seen.lock().expect("whole").contains(expected), "{seen:?}");
        assert_eq!(registry.compatibility_of("s").await, Ok(Compatibility::Full));
        assert!(seen.lock().expect("whole").contains(expected), "{seen:?}");
    }
    let mut settings = Settings::new("http://127.0.0.1:9");
    settings.authorities_pem = Some(b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n".to_vec());
    assert!(matches!(Registry::new(settings), Err(Failure::Invalid(_))));
}

#[tokio::test]
async fn a_subject_without_a_compatibility_of_its_own_has_the_registrys() {
    let registry = canned(Arc::new(|request: &str| match request.split(' ').nth(1).unwrap_or_default() {
        "/config/own%2Fsubject" => (200, r#"{"compatibilityLevel": "FORWARD_TRANSITIVE"}"#.into()),
        "/config" => (200, r#"{"compatibilityLevel": "NONE"}"#.into()),
        _ => (404, r#"{"error_code": 40408, "message": "no subject-level compatibility"}"#.into()),
    }))
    .await;
    assert_eq!(registry.compatibility_of("own/subject").await, Ok(Compatibility::ForwardTransitive));
    assert_eq!(registry.compatibility_of("other").await, Ok(Compatibility::None));
}

/// A level is set where there is none, and one that a person has set stays.
#[tokio::test]
async fn a_subject_is_held_to_a_level_unless_it_has_one() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&asked);
    let registry = canned(Arc::new(move |request: &str| {
        let line = request.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        note.lock().expect("whole").push(line.clone());
        match line.as_str() {
            "GET /config/new" => (404, r#"{"error_code": 40408, "message": "no subject-level compatibility"}"#.into()),
            "GET /config/old" => (200, r#"{"compatibilityLevel": "BACKWARD"}"#.into()),
            "GET /config/none" => (200, r#"{"compatibilityLevel": "NONE"}"#.into()),
            "PUT /config/new" | "PUT /config/none" => (200, r#"{"compatibility": "FULL_TRANSITIVE"}"#.into()),
            _ => (200, r#"{"id": 3}"#.into()),
        }
    }))
    .await;
    for subject in ["new", "old", "none"] {
        assert_eq!(registry.register_held(subject, EVENT, Compatibility::FullTransitive).await, Ok(3));
    }
    let asked = asked.lock().expect("whole").clone();
    assert_eq!(
        asked.iter().filter(|line| line.starts_with("PUT")).collect::<Vec<_>>(),
        ["PUT /config/new", "PUT /config/none"]
    );
    assert_eq!(asked.iter().filter(|line| line.starts_with("POST")).count(), 3);
}

#[tokio::test]
async fn a_schema_that_doesnt_fit_is_told_from_one_that_cant_be_sent() {
    let register = |status: u16, body: &'static str| async move {
        canned(Arc::new(move |_: &str| (status, body.to_owned()))).await.register("s", EVENT).await
    };
    assert_eq!(register(200, r#"{"id": 12}"#).await, Ok(12));
    assert!(matches!(register(409, r#"{"error_code": 409, "message": "no"}"#).await, Err(Failure::Incompatible(_))));
    assert!(matches!(register(422, r#"{"error_code": 42201, "message": "no"}"#).await, Err(Failure::Invalid(_))));
    assert!(matches!(register(500, "").await, Err(Failure::Unavailable(_))));
}

/// A source whose answers the test sets, and which answers only when the test lets it.
struct Scripted {
    answer: Mutex<Lookup<ParsedSchema>>,
    gate: Semaphore,
    asked: AtomicUsize,
    done: AtomicUsize,
}

struct Shared(Arc<Scripted>);

impl SchemaSource for Shared {
    fn look_up(&self, _id: u32) -> Pin<Box<dyn Future<Output = Lookup<ParsedSchema>> + Send + '_>> {
        Box::pin(async {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            self.0.gate.acquire().await.expect("open").forget();
            let answer = self.0.answer.lock().expect("whole").clone();
            self.0.done.fetch_add(1, Ordering::SeqCst);
            answer
        })
    }
}

fn scripted() -> (Arc<Scripted>, SchemaCache) {
    let source = Arc::new(Scripted {
        answer: Mutex::new(Lookup::Unknown),
        gate: Semaphore::new(0),
        asked: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
    });
    let cache = SchemaCache::new(Shared(Arc::clone(&source)), tokio::runtime::Handle::current());
    (source, cache)
}

/// Lets other tasks run until there is nothing left for them to do.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

impl Scripted {
    async fn answer(&self, answer: Lookup<ParsedSchema>) {
        *self.answer.lock().expect("whole") = answer;
        self.gate.add_permits(1);
        settle().await;
    }
}

fn parsed() -> ParsedSchema {
    ParsedSchema {
        id: 7,
        schema: Arc::new(Schema::parse(EVENT).expect("a schema")),
        text: EVENT.into(),
        referenced: vec![],
    }
}

#[tokio::test]
async fn the_cache_answers_at_once_keeps_schemas_and_never_an_error() {
    let (source, cache) = scripted();
    assert!(matches!(cache.get(7, 1_000), Cached::Pending));
    settle().await;
    assert!(matches!(cache.get(7, 1_100), Cached::Pending));
    assert_eq!(source.asked.load(Ordering::SeqCst), 1, "one request, however often it is looked for");

    // An outage, then an unknown id: the outage's time doesn't count against it.
    source.answer(Lookup::Unavailable("down".into())).await;
    assert!(matches!(cache.get(7, 1_200), Cached::Unavailable(why) if &*why == "down"));
    settle().await;
    assert_eq!(source.asked.load(Ordering::SeqCst), 1, "not before the backoff has passed");
    assert!(matches!(cache.get(7, 1_250), Cached::Unavailable(_)));
    source.answer(Lookup::Unknown).await;
    assert!(matches!(cache.get(7, 1_300), Cached::Unknown { first_asked_at_ms: 1_250 }));
    settle().await;
    assert_eq!(source.asked.load(Ordering::SeqCst), 2, "the second wait is twice as long");
    assert!(matches!(cache.get(7, 1_750), Cached::Unknown { first_asked_at_ms: 1_250 }));
    source.answer(Lookup::Refused("401".into())).await;
    assert!(matches!(cache.get(7, 10_000), Cached::Unavailable(why) if why.contains("credentials")));
    source.answer(Lookup::Unknown).await;
    assert!(matches!(cache.get(7, 30_000), Cached::Unknown { first_asked_at_ms: 1_250 }));

    // Registered at last; from then on nothing is asked.
    source.answer(Lookup::Found(parsed())).await;
    for now_ms in [30_001, 100_000, 10_000_000] {
        assert!(matches!(cache.get(7, now_ms), Cached::Ready(schema) if schema.id == 7));
    }
    settle().await;
    assert_eq!(source.asked.load(Ordering::SeqCst), source.done.load(Ordering::SeqCst));
    assert_eq!(source.done.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn the_cache_bounds_requests_and_the_ids_that_records_make_up() {
    let (source, cache) = scripted();
    for id in 0..10_000 {
        assert!(matches!(cache.get(id, 0), Cached::Pending));
    }
    settle().await;
    assert_eq!(source.asked.load(Ordering::SeqCst), 8);
    assert!(matches!(cache.get(10_000, 0), Cached::Unavailable(_)), "no room for one more made-up id");
    source.answer(Lookup::Found(parsed())).await;
    assert!(matches!(cache.get(10_000, 0), Cached::Pending), "a found schema makes room");
    settle().await;
    assert_eq!(source.asked.load(Ordering::SeqCst), 9);
    // Once the registry has said of all that it doesn't know them, those that nobody asks for any more make room.
    for id in 0..=10_000 {
        cache.get(id, 0);
        source.answer(Lookup::Unknown).await;
    }
    assert!(matches!(cache.get(10_001, 0), Cached::Unavailable(_)), "they may be asked for again");
    assert!(matches!(cache.get(10_001, 1_000), Cached::Pending), "nobody did");
}
