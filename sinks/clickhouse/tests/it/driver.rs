//! The official driver: RowBinary and Native inserts, typed reads, parameters, errors.

use clickhouse::{Client, Compression, Row};
use serde::{Deserialize, Serialize};

use crate::server::Server;

#[derive(Row, Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Event {
    id: u64,
    name: String,
    amount: Option<f64>,
    tags: Vec<String>,
}

fn events() -> Vec<Event> {
    (0..20_000u64)
        .map(|id| Event {
            id,
            name: format!("name\n\n{id}"),
            amount: (id % 3 != 0).then_some(id as f64 / 4.0),
            tags: vec!["a".into(); (id % 4) as usize],
        })
        .collect()
}

async fn client(compression: Compression) -> Client {
    let server = Server::shared();
    let database = server.new_database().await;
    let client = Client::default().with_url(&server.address).with_database(&database).with_compression(compression);
    client
        .query("CREATE TABLE events (id UInt64, name String, amount Nullable(Float64), tags Array(String)) ENGINE = MergeTree ORDER BY id")
        .execute()
        .await
        .expect("created");
    client
}

#[tokio::test]
async fn rows_go_in_and_come_back() {
    for compression in [Compression::None, Compression::Lz4] {
        for validation in [true, false] {
            let client = client(compression).await.with_validation(validation);
            let mut insert = client.insert::<Event>("events").await.expect("an insert");
            for event in events() {
                insert.write(&event).await.expect("written");
            }
            insert.end().await.expect("inserted");
            let back: Vec<Event> =
                client.query("SELECT ?fields FROM events ORDER BY id").fetch_all().await.expect("rows");
            assert!(back == events(), "{compression:?} {validation}");
            let found: Event = client
                .query("SELECT ?fields FROM events WHERE id = {id:UInt64} AND name = ?")
                .bind("name\n\n7")
                .param("id", 7)
                .fetch_one()
                .await
                .expect("a row");
            assert_eq!(found, events()[7]);
        }
    }
}

#[tokio::test]
async fn big_results_are_streamed() {
    let client = client(Compression::Lz4).await;
    let mut cursor = client
        .query("SELECT number, toString(number) FROM numbers(3000000)")
        .fetch::<(u64, String)>()
        .expect("a cursor");
    let mut expected = 0;
    while let Some((number, text)) = cursor.next().await.expect("a row") {
        assert!(number == expected && text == expected.to_string());
        expected += 1;
    }
    assert_eq!(expected, 3_000_000);
}

#[tokio::test]
async fn errors_reach_the_driver_at_once_and_midway() {
    for compression in [Compression::None, Compression::Lz4] {
        let client = client(compression).await;
        let error = client.query("SELECT nope").execute().await.expect_err("an error");
        assert!(error.to_string().contains("Code: 47."), "{error}");
        let mut cursor = client
            .query("SELECT number, toString(throwIf(number = 2500000)) FROM numbers(3000000) SETTINGS max_block_size = 10000")
            .fetch::<(u64, String)>()
            .expect("a cursor");
        let mut rows = 0u64;
        let error = loop {
            match cursor.next().await {
                Ok(Some(_)) => rows += 1,
                Ok(None) => panic!("{compression:?}: the result ended without its error after {rows} rows"),
                Err(error) => break error,
            }
        };
        assert!(
            rows > 1_000_000 && error.to_string().contains("Code: 395."),
            "{compression:?} after {rows} rows: {error}"
        );
    }
}

#[tokio::test]
async fn formatted_inserts() {
    let client = client(Compression::Lz4).await;
    let mut insert = client.insert_formatted_with("INSERT INTO events FORMAT JSONEachRow");
    insert.send(r#"{"id": 1, "name": "a\n\nb", "amount": null, "tags": []}"#.into()).await.expect("sent");
    insert.end().await.expect("inserted");
    assert_eq!(client.query("SELECT count() FROM events").fetch_one::<u64>().await.expect("a count"), 1);
}
