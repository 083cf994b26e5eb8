//! Official clients of other languages against the program's own ClickHouse engine, as against a server: only in `make proof`, since
//! they are fetched from PyPI and Maven Central and take a minute. The Rust client is used throughout.

use std::path::Path;
use std::process::Command;

use crate::program::{Done, parts, size, skipped};

#[test]
fn python_and_java_find_a_server() {
    if size(0, 1) == 0 {
        skipped("WEIR_PROOF=full runs the clients of Python and Java, which come from the net");
        return;
    }
    let address = parts().clickhouse();
    let (host, port) = address.trim_start_matches("http://").split_once(':').unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards/clients/clients.sh");
    let done = Done::of(Command::new(script).args([host, port]).output().unwrap()).fine();
    println!("{}", done.out);
    assert_eq!(done.out.lines().filter(|line| line.starts_with("ok  ")).count(), 19, "{}", done.out);
}
