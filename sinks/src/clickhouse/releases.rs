//! The readers' view of releases: which were seen of whom, since when, how much they send and how much of it is refused.
//!
//! It counts the accepted events that are kept and the quarantine over the same days, when it is asked; so it goes
//! back as far as the events are kept, and sources that keep none aren't in it.

use weir_schemas::tables;

use super::reader::{Reader, Shown, shown};
use super::{base_table, identifier, literal};

/// The view's name.
pub const RELEASES: &str = "weir_releases";

/// A source whose accepted events are kept, and the columns that name releases in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEvents {
    /// The source; its events are in the table of this name.
    pub source: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// For how many days they are kept.
    pub days: u32,
    /// The column of the tenant.
    pub tenant: Option<String>,
    /// The columns of the SDK, its version and the app's.
    pub release: [Option<String>; 3],
}

/// The view over `kept`; `with_alerts` where the pipeline has detectors. None where no events are kept.
pub fn releases(database: &str, kept: &[KeptEvents], with_alerts: bool) -> Option<Reader> {
    if kept.is_empty() {
        return None;
    }
    let counted: Vec<String> = kept.iter().flat_map(|of| [accepted(database, of), refused(database, of)]).collect();
    let columns = columns(with_alerts);
    let alerts = if with_alerts { open_alerts(database) } else { String::new() };
    let select = format!(
        "SELECT\n    {}\nFROM\n(\n    SELECT source, tenant, sdk, sdk_version, app_version, min(first) AS first_seen_at, \
         max(last) AS last_seen_at, sum(accepted) AS events, sum(refused) AS refused\n    FROM\n    (\n        {}\n    )\n    \
         GROUP BY source, tenant, sdk, sdk_version, app_version\n) AS `seen`{alerts}",
        columns.iter().map(|of| shown(&of.name, &of.value)).collect::<Vec<_>>().join(",\n    "),
        counted.join("\n        UNION ALL\n        "),
    );
    Some(Reader {
        name: RELEASES.to_owned(),
        comment: "Releases that were seen, by source and tenant, as far back as accepted events are kept".to_owned(),
        columns: columns.into_iter().map(|of| (of.name, of.comment)).collect(),
        select,
    })
}

fn columns(with_alerts: bool) -> Vec<Shown> {
    let seen = |name: &str| format!("`seen`.{}", identifier(name));
    let all = |what: &str| format!("sum({what}) OVER (PARTITION BY `seen`.`source`, `seen`.`tenant`)");
    let plain = |name: &str, comment: &str| Shown::new(name, seen(name), comment);
    let consumed = "(`seen`.`events` + `seen`.`refused`)";
    vec![
        plain("source", "the source's name"),
        plain("tenant", "the tenant, empty where unknown"),
        plain("sdk", "the SDK, empty where unknown"),
        plain("sdk_version", "the SDK's version"),
        plain("app_version", "the app's version"),
        plain("first_seen_at", "event time of its first event that is kept (UTC)"),
        plain("last_seen_at", "event time of its last event (UTC)"),
        plain("events", "accepted events"),
        plain("refused", "refused records, those that were too late aside"),
        Shown::new("share", format!("{consumed} / {}", all(consumed)), "its share of the tenant's records, 0 to 1"),
        Shown::new("refused_share", format!("`seen`.`refused` / {consumed}"), "refused / (events + refused), 0 to 1"),
        Shown::new(
            "open_alerts",
            if with_alerts { "`told`.`open_alerts`" } else { "toUInt64(0)" },
            "open alerts of the tenant whose first bad release it is",
        ),
    ]
}

fn accepted(database: &str, of: &KeptEvents) -> String {
    let text = |column: &Option<String>| match column {
        Some(column) => format!("ifNull(toString({}), '')", identifier(column)),
        None => "''".to_owned(),
    };
    let [sdk, sdk_version, app_version] = &of.release;
    format!(
        "SELECT {} AS source, {} AS tenant, {} AS sdk, {} AS sdk_version, {} AS app_version, \
         min(_event_time) AS first, max(_event_time) AS last, count() AS accepted, toUInt64(0) AS refused FROM {}.{} \
         GROUP BY tenant, sdk, sdk_version, app_version SETTINGS prefer_column_name_to_alias = 0",
        literal(&of.source),
        text(&of.tenant),
        text(sdk),
        text(sdk_version),
        text(app_version),
        identifier(database),
        identifier(&of.source),
    )
}

fn refused(database: &str, of: &KeptEvents) -> String {
    let topics: Vec<String> = of.topics.iter().map(|topic| literal(topic)).collect();
    format!(
        "SELECT {} AS source, toString(tenant) AS tenant, toString(sdk) AS sdk, toString(sdk_version) AS sdk_version, \
         toString(app_version) AS app_version, min(ifNull(event_time, toDateTime64(kafka_time, 6, 'UTC'))) AS first, \
         max(ifNull(event_time, toDateTime64(kafka_time, 6, 'UTC'))) AS last, toUInt64(0) AS accepted, count() AS refused \
         FROM {}.{} WHERE topic IN ({}) AND NOT startsWith(reason, 'too_late') \
         AND ifNull(event_time, kafka_time) >= now() - toIntervalDay({}) GROUP BY tenant, sdk, sdk_version, app_version",
        literal(&of.source),
        identifier(database),
        identifier(tables::QUARANTINE),
        topics.join(", "),
        of.days,
    )
}

fn open_alerts(database: &str) -> String {
    format!(
        "\nLEFT JOIN\n(\n    SELECT source, tenant, sdk, sdk_version, app_version, count() AS open_alerts\n    \
         FROM {}.{} FINAL\n    ARRAY JOIN tenants AS tenant\n    WHERE status != 'resolved'\n    \
         GROUP BY source, tenant, sdk, sdk_version, app_version\n) AS `told` USING (source, tenant, sdk, sdk_version, app_version)",
        identifier(database),
        identifier(&base_table(tables::ALERTS)),
    )
}
