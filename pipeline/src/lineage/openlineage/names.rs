//! Names of datasets as OpenLineage's conventions have them, so that what Weir tells and what others tell of the same topic
//! or table is about one dataset: `kafka://host:port` and the topic; `clickhouse://host:port` and `database.table`.
//!
//! Invariant: no user, password, path or query of an address is part of a name.

/// The namespace of a cluster's topics: its first bootstrap server.
pub(super) fn kafka(brokers: &str) -> String {
    format!("kafka://{}", host_and_port(brokers.split(',').next().unwrap_or_default().trim(), "9092"))
}

/// The namespace of a ClickHouse's tables.
pub(super) fn clickhouse(url: &str) -> String {
    let port = if url.starts_with("https:") { "8443" } else { "8123" };
    format!("clickhouse://{}", host_and_port(url, port))
}

fn host_and_port(address: &str, default_port: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let has_port = host.rsplit_once(':').is_some_and(|(before, port)| {
        // The colons of an IPv6 address stand between brackets.
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (!before.contains(':') || before.ends_with(']'))
    });
    if has_port { host.to_owned() } else { format!("{host}:{default_port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_host_and_port_and_nothing_else() {
        for (brokers, expected) in [
            ("b1:9093,b2:9093", "kafka://b1:9093"),
            ("broker", "kafka://broker:9092"),
            ("SASL_SSL://broker:1, x", "kafka://broker:1"),
            ("[2001:db8::1]:9094", "kafka://[2001:db8::1]:9094"),
            ("[2001:db8::1]", "kafka://[2001:db8::1]:9092"),
        ] {
            assert_eq!(kafka(brokers), expected);
        }
        for (url, expected) in [
            ("http://127.0.0.1:8124", "clickhouse://127.0.0.1:8124"),
            ("http://me:s3cret@host/path?password=x", "clickhouse://host:8123"),
            ("https://host/", "clickhouse://host:8443"),
        ] {
            assert_eq!(clickhouse(url), expected);
        }
    }
}
