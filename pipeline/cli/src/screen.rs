//! The demo's live screen: how the pipeline is, what it wrote, what is wrong with whom.
//!
//! Redrawn in place on a terminal; elsewhere one line is printed now and then, so that a log stays readable.

use console::Term;
use serde::Deserialize;
use weir_pipeline::status::Status;
use weir_sinks::clickhouse::Client;

use crate::commands::status::time;
use crate::out::{safe, say};
use crate::paint;

/// Counts of the ledger, over everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Ledger {
    /// Records fetched.
    pub consumed: u64,
    /// Became events.
    pub accepted: u64,
    /// Were refused.
    pub quarantined: u64,
    /// Came again.
    pub duplicate: u64,
    /// Came too late.
    pub late: u64,
    /// Minutes whose books don't balance.
    pub unbalanced: u64,
}

/// A row of a view, as the screen shows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Newest {
    window: String,
    tenant: String,
    country: String,
    orders: u64,
    revenue: String,
    users: u64,
    closed: bool,
}

/// An open alert.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct OpenAlert {
    tenant: String,
    release: String,
    share: f64,
    refused: u64,
    reason: String,
    since: String,
}

/// Everything that one picture shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    /// What the pipeline says of itself.
    pub status: Status,
    /// Records per second since the last picture.
    pub rate: f64,
    /// The ledger.
    pub ledger: Ledger,
    /// The newest rows of a view.
    pub newest: Vec<Newest>,
    /// Open alerts.
    pub alerts: Vec<OpenAlert>,
}

/// The screen.
pub(crate) struct Screen {
    term: Term,
    drawn: usize,
}

impl Screen {
    /// A screen on standard output.
    pub(crate) fn new() -> Screen {
        Screen { term: Term::stdout(), drawn: 0 }
    }

    /// Whether pictures are redrawn in place.
    pub(crate) fn is_live(&self) -> bool {
        self.term.is_term()
    }

    /// Draws a picture over the last one; elsewhere than on a terminal one line.
    pub(crate) fn draw(&mut self, picture: &Picture) {
        if !self.is_live() {
            say!("{}", one_line(picture));
            return;
        }
        let text = render(picture);
        // A screen that can't be cleared is drawn below the last picture.
        let _ = self.term.clear_last_lines(self.drawn);
        let _ = self.term.write_line(&safe(&text));
        self.drawn = text.lines().count();
    }
}

/// Asks ClickHouse for what the screen shows; what can't be had yet stays empty.
pub(crate) async fn look(client: &Client, picture: &mut Picture) {
    let database = client.database().to_owned();
    let of = |name: &str| client.qualified(name);
    let ledger = format!(
        "SELECT toUInt64(sum(consumed)) AS consumed, toUInt64(sum(accepted)) AS accepted, \
         toUInt64(sum(quarantined)) AS quarantined, toUInt64(sum(duplicate + duplicate_differing)) AS duplicate, \
         toUInt64(sum(too_late + too_late_after_idle)) AS late, \
         toUInt64(countIf(consumed != accepted + quarantined + duplicate + duplicate_differing + too_late \
         + too_late_after_idle + tombstone)) AS unbalanced \
         FROM {} SETTINGS output_format_json_quote_64bit_integers = 0, prefer_column_name_to_alias = 1",
        of("weir_ledger")
    );
    if let Ok(rows) = client.select::<Ledger>(&ledger).await {
        picture.ledger = rows.into_iter().next().unwrap_or_default();
    }
    let newest = format!(
        "SELECT toString(window_start) AS window, tenant, country, orders, toString(ifNull(revenue, 0)) AS revenue, users, \
         is_closed AS closed FROM {} ORDER BY window_start DESC, orders DESC LIMIT 8 \
         SETTINGS output_format_json_quote_64bit_integers = 0",
        of("revenue_by_minute")
    );
    if let Ok(rows) = client.select::<Newest>(&newest).await {
        picture.newest = rows;
    }
    let alerts = format!(
        "SELECT arrayStringConcat(tenants, ', ') AS tenant, concat(sdk, ' ', sdk_version, ' / app ', app_version) AS release, \
         affected_share AS share, affected_records AS refused, reason, toString(toDateTime(opened_at)) AS since \
         FROM {} WHERE status != 'resolved' ORDER BY share DESC LIMIT 6 \
         SETTINGS output_format_json_quote_64bit_integers = 0",
        of("weir_alerts")
    );
    if let Ok(rows) = client.select::<OpenAlert>(&alerts).await {
        picture.alerts = rows;
    }
    tracing::trace!(database, "looked");
}

fn one_line(picture: &Picture) -> String {
    let ledger = &picture.ledger;
    format!(
        "{} events/s  accepted {}  quarantined {}  duplicate {}  late {}  lag {}  open alerts {}",
        picture.rate.round(),
        ledger.accepted,
        ledger.quarantined,
        ledger.duplicate,
        ledger.late,
        lag(&picture.status),
        picture.alerts.len()
    )
}

fn lag(status: &Status) -> u64 {
    let partitions = status.sources.iter().flat_map(|source| &source.partitions);
    partitions.map(|of| u64::try_from(of.status.end_offset - of.status.next_offset).unwrap_or(0)).sum()
}

fn render(picture: &Picture) -> String {
    let status = &picture.status;
    let ledger = &picture.ledger;
    let watermark = status.sources.first().and_then(|source| source.watermark);
    let mut text = format!(
        "{}  {} events/s   watermark {}   lag {}   epoch {} ({} delivered)\n",
        paint::bold("weir demo"),
        paint::good(&paint::count(picture.rate.round() as u64)),
        time(watermark),
        paint::count(lag(status)),
        status.open_epoch,
        status.delivered_epoch
    );
    let balance = if ledger.unbalanced == 0 { paint::good("balanced") } else { paint::bad("NOT BALANCED") };
    text.push_str(&format!(
        "consumed {}  =  accepted {} + quarantined {} + duplicate {} + late {}   {balance}\n",
        paint::count(ledger.consumed),
        paint::count(ledger.accepted),
        paint::count(ledger.quarantined),
        paint::count(ledger.duplicate),
        paint::count(ledger.late),
    ));
    if let Some(why) = &status.waits_for {
        text.push_str(&format!("{} {why}\n", paint::bad("waits:")));
    }
    let mut newest = paint::table(&["window_start", "tenant", "country", "orders", "revenue", "users", ""]);
    for row in &picture.newest {
        let closed = if row.closed { "closed" } else { "provisional" };
        newest.add_row([
            &row.window,
            &row.tenant,
            &row.country,
            &row.orders.to_string(),
            &row.revenue,
            &row.users.to_string(),
            &paint::dim(closed),
        ]);
    }
    text.push_str(&format!("\n{}\n{newest}\n", paint::dim("revenue_by_minute, newest rows")));
    if picture.alerts.is_empty() {
        text.push_str(&format!("\n{}", paint::dim("no open alert")));
    } else {
        let mut alerts = paint::table(&["open alert", "release", "refused", "share", "reason", "since"]);
        for alert in &picture.alerts {
            alerts.add_row([
                paint::bad(&alert.tenant),
                alert.release.clone(),
                alert.refused.to_string(),
                format!("{:.1} %", alert.share * 100.0),
                alert.reason.clone(),
                alert.since.clone(),
            ]);
        }
        text.push_str(&format!("\n{alerts}"));
    }
    text
}
