//! Start, end, and what is left behind.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::server::{self, Server};

fn wait(child: &mut std::process::Child, at_most: Duration) -> std::process::ExitStatus {
    let until = Instant::now() + at_most;
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return status;
        }
        assert!(Instant::now() < until, "it did not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(process: u32, signal: i32) {
    // SAFETY: a plain system call on a child of this test.
    assert_eq!(unsafe { libc::kill(process as libc::pid_t, signal) }, 0);
}

#[tokio::test]
async fn data_survives_end_and_kill() {
    let mut server = Server::start(&[]);
    server.ask("CREATE DATABASE d").await;
    server.ask("CREATE TABLE d.t (n UInt64) ENGINE = MergeTree ORDER BY n").await;
    server.ask("INSERT INTO d.t SELECT number FROM numbers(1000)").await;
    signal(server.child.id(), libc::SIGTERM);
    assert_eq!(wait(&mut server.child, Duration::from_secs(15)).code(), Some(0));
    let data = server.folder.path().join("data");
    let mut child = server::command(&data, &[]).spawn().expect("started");
    (server.address, _) = server::address_of(&mut child);
    server.child = child;
    assert_eq!(server.ask("SELECT count() FROM d.t").await, "1000\n");
    server.ask("INSERT INTO d.t VALUES (5)").await;
    signal(server.child.id(), libc::SIGKILL);
    wait(&mut server.child, Duration::from_secs(15));
    let mut child = server::command(&data, &[]).spawn().expect("started");
    (server.address, _) = server::address_of(&mut child);
    server.child = child;
    assert_eq!(server.ask("SELECT count() FROM d.t").await, "1001\n");
    // A second front on the same folder says what is wrong.
    let second = server::command(&data, &[]).stderr(Stdio::piped()).output().expect("run");
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && text.contains("cannot open the data folder"), "{text}");
}

#[tokio::test]
async fn sigterm_ends_a_running_query() {
    let mut server = Server::start(&[]);
    let url = server.url(&[]);
    let query = tokio::spawn(async move {
        reqwest::Client::new().post(url).body("SELECT sum(cityHash64(number)) FROM numbers(1000000000000)").send().await
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    signal(server.child.id(), libc::SIGTERM);
    let status =
        tokio::task::spawn_blocking(move || wait(&mut server.child, Duration::from_secs(25))).await.expect("waited");
    assert_eq!(status.code(), Some(0));
    let _ = query.await;
}

#[test]
fn it_ends_with_its_parent() {
    let mut parent = Command::new("sleep").arg("600").spawn().expect("started");
    let mut server = Server::start(&["--parent", &parent.id().to_string()]);
    assert!(server.child.try_wait().expect("a status").is_none());
    parent.kill().expect("killed");
    parent.wait().expect("ended");
    assert_eq!(wait(&mut server.child, Duration::from_secs(15)).code(), Some(0));
}

#[test]
fn a_missing_library_says_where_it_comes_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = server::command(folder.path(), &["--library", "/nowhere/libchdb.so"])
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for part in ["/nowhere/libchdb.so", "@chdb/lib-linux-x64-gnu@26.7.3-stable.1", "36ad4e99", "WEIR_LIBCHDB"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn the_account_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = server::command(&folder.path().join("data"), &[])
        .env("WEIR_CLICKHOUSE_USER", "ann")
        .env("WEIR_CLICKHOUSE_PASSWORD", "pass:word")
        .spawn()
        .expect("started");
    let (address, output) = server::address_of(&mut child);
    let post = |user: Option<(&str, &str)>| {
        let request = reqwest::Client::new().post(&address).body("SELECT 1");
        match user {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
        .send()
    };
    assert_eq!(post(Some(("ann", "pass:word"))).await.expect("an answer").status(), 200);
    assert_eq!(post(Some(("ann", "wrong"))).await.expect("an answer").status(), 401);
    let refused = post(None).await.expect("an answer");
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["x-clickhouse-exception-code"].as_bytes()),
        (401, b"516".as_slice())
    );
    child.kill().expect("killed");
    child.wait().expect("ended");
    drop(output);
}
