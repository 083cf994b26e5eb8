//! The HTTP interface as ClickHouse documents it.

use std::io::Write;

use crate::server::Server;

#[tokio::test]
async fn health_and_wrong_paths() {
    let server = Server::shared();
    for path in ["/ping", "/", "/replicas_status"] {
        let answer = reqwest::get(format!("{}{path}", server.address)).await.expect("an answer");
        assert_eq!(answer.text().await.expect("text"), "Ok.\n");
    }
    assert_eq!(reqwest::get(format!("{}/nothing", server.address)).await.expect("an answer").status(), 404);
}

#[tokio::test]
async fn errors_have_code_and_status() {
    let server = Server::shared();
    for (statement, code, status) in [
        ("SELECT * FROM nowhere", "60", 404),
        ("SELEC 1", "62", 400),
        ("nonsense", "62", 400),
        ("", "62", 400),
        ("SELECT 1; SELECT 2", "62", 400),
        ("SELECT nope", "47", 404),
        ("SELECT throwIf(1)", "395", 500),
        ("SELECT throwIf(1) FORMAT JSON", "395", 500),
        ("SELECT {x:UInt8}", "456", 400),
    ] {
        let answer = server.post(&[], statement).await;
        assert_eq!(
            (answer.header("x-clickhouse-exception-code"), answer.status),
            (code, status),
            "{statement}: {}",
            answer.text()
        );
        assert!(
            answer.text().starts_with(&format!("Code: {code}. DB::Exception: ")) && answer.text().ends_with("))\n"),
            "{}",
            answer.text()
        );
    }
    let answer = server.post(&[("nonsense_setting", "1")], "SELECT 1").await;
    assert_eq!((answer.header("x-clickhouse-exception-code"), answer.status), ("115", 404), "{}", answer.text());
    let answer = server.post(&[("database", "nowhere")], "SELECT 1").await;
    assert_eq!((answer.header("x-clickhouse-exception-code"), answer.status), ("81", 404));
}

#[tokio::test]
async fn parameters_settings_formats_and_headers() {
    let server = Server::shared();
    let answer = server
        .post(
            &[
                ("query", "SELECT {n:UInt64} + 1 AS n, {s:String} AS s, getSetting('max_threads')"),
                ("param_n", "41"),
                ("param_s", "it's\\t"),
                ("max_threads", "1"),
                ("query_id", "mine"),
                ("default_format", "JSONCompactEachRow"),
            ],
            "",
        )
        .await;
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&answer.body).ok(),
        Some(serde_json::json!([42, "it's\t", 1])),
        "{}",
        answer.text()
    );
    assert_eq!(
        (answer.header("x-clickhouse-query-id"), answer.header("x-clickhouse-format")),
        ("mine", "JSONCompactEachRow")
    );
    assert_eq!(answer.header("content-type"), "application/x-ndjson; charset=UTF-8");
    assert!(
        answer.header("x-clickhouse-summary").contains("\"result_rows\":\"1\""),
        "{}",
        answer.header("x-clickhouse-summary")
    );
    // Settings of one request are gone in the next.
    assert_eq!(server.ask("SELECT name FROM system.settings WHERE name = 'max_threads' AND changed").await, "");
}

/// Every way of joining pieces gives the document that the engine makes as a whole.
#[tokio::test]
async fn streamed_results_equal_whole_ones() {
    let server = Server::shared();
    for format in [
        "TSV",
        "TSVWithNames",
        "TSVWithNamesAndTypes",
        "TSVRaw",
        "CSV",
        "CSVWithNames",
        "CSVWithNamesAndTypes",
        "JSONEachRow",
        "JSONStringsEachRow",
        "JSONCompactEachRow",
        "JSONCompactEachRowWithNames",
        "JSONCompactEachRowWithNamesAndTypes",
        "RowBinary",
        "RowBinaryWithNames",
        "RowBinaryWithNamesAndTypes",
        "TSKV",
        "MsgPack",
        "LineAsString",
        "Native",
    ] {
        let columns =
            if format == "LineAsString" { "toString(number)" } else { "number, toString(number) AS `a\n\"b`" };
        let statement = format!("SELECT {columns} FROM numbers(200000) ORDER BY number");
        let streamed = server.post(&[], format!("{statement} FORMAT {format}")).await;
        // The word EXTREMES makes the front ask for the whole document, without changing the rows.
        let whole = server.post(&[], format!("{statement} FORMAT {format} SETTINGS extremes = 0")).await;
        assert_eq!((streamed.status, whole.status), (200, 200), "{format}: {}", whole.text());
        assert!(
            streamed.body == whole.body,
            "{format}: {} bytes streamed, {} whole",
            streamed.body.len(),
            whole.body.len()
        );
    }
    let json: serde_json::Value =
        serde_json::from_str(&server.ask("SELECT number FROM numbers(200000) FORMAT JSON").await)
            .expect("one document");
    assert_eq!(json["data"].as_array().map(Vec::len), Some(200_000));
    assert_eq!(
        server
            .ask(
                "SELECT number % 2 AS k, count() FROM numbers(10) GROUP BY k WITH TOTALS ORDER BY k FORMAT CSVWithNames"
            )
            .await
            .lines()
            .count(),
        5
    );
    assert_eq!(server.ask("SELECT count() FROM numbers(1000000) FORMAT Null").await, "");
    let rows = server
        .ask("SELECT number FROM numbers(200000) SETTINGS output_format_json_array_of_rows = 1 FORMAT JSONEachRow")
        .await;
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&rows).map(|rows| rows.len()).ok(), Some(200_000));
}

#[tokio::test]
async fn responses_are_compressed_as_asked() {
    let server = Server::shared();
    let statement = "SELECT number FROM numbers(300000)";
    let plain = server.post(&[], statement).await.body;
    for accept in ["lz4", "zstd", "gzip", "br"] {
        let response = reqwest::Client::new()
            .post(&server.address)
            .header("accept-encoding", accept)
            .body(statement)
            .send()
            .await
            .expect("an answer");
        let answer = crate::server::Answer::of(response).await;
        let data = match answer.header("content-encoding") {
            "lz4" => read(lz4_flex::frame::FrameDecoder::new(&answer.body[..])),
            "zstd" => read(zstd::stream::read::Decoder::new(&answer.body[..]).expect("a decoder")),
            "gzip" => read(flate2::read::GzDecoder::new(&answer.body[..])),
            _ => answer.body.clone(),
        };
        assert_eq!(answer.header("content-encoding"), if accept == "br" { "" } else { accept });
        assert!(data == plain, "{accept}");
    }
}

fn read(mut reader: impl std::io::Read) -> Vec<u8> {
    let mut data = Vec::new();
    reader.read_to_end(&mut data).expect("decompressed");
    data
}

#[tokio::test]
async fn requests_may_be_compressed() {
    let server = Server::shared();
    let database = server.new_database().await;
    server.ask(&format!("CREATE TABLE {database}.t (n UInt64) ENGINE = MergeTree ORDER BY n")).await;
    let rows: String = (0..50_000).map(|n| format!("{n}\n")).collect();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(rows.as_bytes()).expect("written");
        encoder.finish().expect("finished")
    };
    let lz4 = {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(rows.as_bytes()).expect("written");
        encoder.finish().expect("finished")
    };
    let zstd = zstd::encode_all(rows.as_bytes(), 1).expect("packed");
    for (encoding, body) in [("gzip", gzip), ("lz4", lz4), ("zstd", zstd)] {
        let url = server.url(&[("query", "INSERT INTO t FORMAT TSV"), ("database", &database)]);
        let response = reqwest::Client::new()
            .post(url)
            .header("content-encoding", encoding)
            .body(body)
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200, "{encoding}: {}", response.text().await.expect("text"));
    }
    assert_eq!(
        server.ask(&format!("SELECT count(), sum(n) FROM {database}.t")).await,
        format!("150000\t{}\n", 3u64 * 49_999 * 25_000)
    );
    let url = server.url(&[("query", &format!("INSERT INTO {database}.t FORMAT TSV"))]);
    let response = reqwest::Client::new()
        .post(url)
        .header("content-encoding", "gzip")
        .body("1\n")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        response.headers().get("x-clickhouse-exception-code").map(|code| code.as_bytes()),
        Some(b"271".as_slice())
    );
    assert_eq!(server.ask(&format!("SELECT count() FROM {database}.t")).await, "150000\n");
}

/// `chdb_query` would lose rows here: binary rows hold blank lines.
#[tokio::test]
async fn blank_lines_in_binary_rows_are_data() {
    let server = Server::shared();
    let database = server.new_database().await;
    server.ask(&format!("CREATE TABLE {database}.t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")).await;
    let mut rows = Vec::new();
    for n in 0..5_000u64 {
        rows.extend_from_slice(&(n * 0x0a0a).to_le_bytes());
        rows.extend_from_slice(b"\x04\n\n\n\n");
    }
    for (statement_in_url, table) in [(true, "t"), (false, "t")] {
        let insert = format!("INSERT INTO {database}.{table} FORMAT RowBinary");
        let answer = if statement_in_url {
            server.post(&[("query", &insert)], rows.clone()).await
        } else {
            server.post(&[], [insert.as_bytes(), b"\n", &rows].concat()).await
        };
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.header("x-clickhouse-summary").contains("\"written_rows\":\"5000\""),
            "{}",
            answer.header("x-clickhouse-summary")
        );
    }
    assert_eq!(
        server.ask(&format!("SELECT count(), countIf(s = '\\n\\n\\n\\n'), uniqExact(n) FROM {database}.t")).await,
        "10000\t10000\t5000\n"
    );
}

#[tokio::test]
async fn values_and_split_statements() {
    let server = Server::shared();
    let database = server.new_database().await;
    server.ask(&format!("CREATE TABLE {database}.t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")).await;
    server.ask(&format!("INSERT INTO {database}.t VALUES (1, 'a'), (2, 'b\n\nc')")).await;
    let answer = server.post(&[("query", &format!("INSERT INTO {database}.t")), ("x", "")], "VALUES (3, 'd')").await;
    assert_eq!(
        answer.header("x-clickhouse-exception-code"),
        "115",
        "an unknown setting comes first: {}",
        answer.text()
    );
    let answer = server.post(&[("query", &format!("INSERT INTO {database}.t"))], "VALUES (3, 'd')").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = server.post(&[("query", &format!("INSERT INTO {database}.t FORMAT CSV"))], "4,\"e\n\nf\"\n").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = server.post(&[("query", "SELECT count()")], format!("FROM {database}.t WHERE n > 1")).await;
    assert_eq!(answer.text(), "3\n");
    let answer = server.post(&[("query", &format!("INSERT INTO {database}.t FORMAT CSV"))], "five,g\n").await;
    assert_eq!((answer.header("x-clickhouse-exception-code"), answer.status), ("27", 400), "{}", answer.text());
    assert_eq!(server.ask(&format!("INSERT INTO {database}.t SELECT n + 10, s FROM {database}.t")).await, "");
    assert_eq!(server.ask(&format!("SELECT count(), sum(length(s)) FROM {database}.t")).await, "8\t20\n");
}

#[tokio::test]
async fn get_is_read_only() {
    let server = Server::shared();
    let folder = tempfile::tempdir().unwrap();
    let forbidden = folder.path().join("forbidden");
    let into_file = format!("SELECT 1 INTO OUTFILE '{}'", forbidden.display());
    assert_eq!(server.get(&[("query", "SELECT 1")]).await.text(), "1\n");
    for statement in ["CREATE DATABASE forbidden", "INSERT INTO t VALUES (1)", "KILL QUERY WHERE 1", &into_file] {
        let answer = server.get(&[("query", statement)]).await;
        assert_eq!(
            (answer.header("x-clickhouse-exception-code"), answer.status),
            ("164", 500),
            "{statement}: {}",
            answer.text()
        );
    }
    assert!(!forbidden.exists(), "it was written all the same");
}

#[tokio::test]
async fn sessions_keep_their_state_and_only_theirs() {
    let server = Server::shared();
    let session = [("session_id", "mine")];
    server.post(&session, "CREATE TEMPORARY TABLE numbers_of_mine (n UInt8)").await;
    server.post(&session, "INSERT INTO numbers_of_mine VALUES (1), (2)").await;
    assert_eq!(server.post(&session, "SELECT sum(n) FROM numbers_of_mine").await.text(), "3\n");
    assert_eq!(
        server.post(&[], "SELECT sum(n) FROM numbers_of_mine").await.header("x-clickhouse-exception-code"),
        "60"
    );
    // SET stays, a setting of one request doesn't.
    server.post(&session, "SET max_threads = 3").await;
    assert_eq!(
        server.post(&[("session_id", "mine"), ("max_threads", "1")], "SELECT getSetting('max_threads')").await.text(),
        "1\n"
    );
    assert_eq!(server.post(&session, "SELECT getSetting('max_threads')").await.text(), "3\n");
    // A failed document leaves nothing in the next answer.
    assert_eq!(server.post(&session, "SELECT throwIf(number = 3) FROM numbers(5) FORMAT JSON").await.status, 500);
    assert_eq!(server.post(&session, "SELECT 7").await.text(), "7\n");
    // Free again as soon as a failure is answered.
    for _ in 0..50 {
        assert_eq!(server.post(&session, "SELECT nope").await.status, 404);
    }
    // In use: locked at once.
    let (slow, locked) = tokio::join!(server.post(&session, "SELECT 'slow_session', sleep(3)"), async {
        let running = "SELECT count() FROM system.processes WHERE startsWith(query, 'SELECT \\'slow_session')";
        while server.ask(running).await != "1\n" {}
        server.post(&session, "SELECT 1").await
    });
    assert_eq!((slow.status, locked.header("x-clickhouse-exception-code"), locked.status), (200, "373", 423));
    server.post(&[("session_id", "mine"), ("close_session", "1")], "SELECT 1").await;
    let answer = server.post(&[("session_id", "mine"), ("session_check", "1")], "SELECT 1").await;
    assert_eq!(answer.header("x-clickhouse-exception-code"), "372");
}

#[tokio::test]
async fn forms_with_files_are_refused() {
    let server = Server::shared();
    let form = "--x\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {n:UInt8}\r\n--x\r\nContent-Disposition: form-data; name=\"param_n\"\r\n\r\n5\r\n--x--\r\n";
    let table =
        form.replace("--x--", "--x\r\nContent-Disposition: form-data; name=\"t\"; filename=\"t\"\r\n\r\n1\r\n--x--");
    for (form, text, status) in [(form.to_owned(), "5\n", 200), (table, "Code: 48", 501)] {
        let request = reqwest::Client::new()
            .post(&server.address)
            .header("content-type", "multipart/form-data; boundary=x")
            .body(form);
        let answer = crate::server::Answer::of(request.send().await.expect("an answer")).await;
        assert!(answer.status == status && answer.text().starts_with(text), "{}", answer.text());
    }
}
