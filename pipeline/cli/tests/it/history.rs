//! Weeks of a generated storefront, hour by hour: shops, releases and a season of the day, with faults of releases that
//! begin and end at an hour. The same settings give the same events.

use std::collections::HashMap;
use std::ops::Range;

use apache_avro::types::Value;
use weir_replay::produce::faults::Faults;
use weir_replay::produce::rows::{Release, Row, Rows};
use weir_replay::produce::{Job, ProduceError, Target, produce};
use weir_schemas::registry::{Registry, Settings};

use crate::program::{Bench, block_on, parts};

/// 2026-01-05, a Monday.
pub(crate) const START_MS: i64 = 1_767_571_200_000;
const HOUR_MS: i64 = 3_600_000;

/// SDK, its version, app version, part of the events, first hour.
const RELEASES: [(&str, &str, &str, f64, usize); 8] = [
    ("web", "3.1.0", "2026.8", 0.25, 0),
    ("web", "3.2.0", "2026.9", 0.15, 0),
    ("ios", "5.0.2", "7.0", 0.15, 0),
    ("ios", "5.1.0", "7.1", 0.10, 0),
    ("android", "4.0.9", "6.9", 0.10, 0),
    ("android", "4.1.0", "7.0", 0.15, 0),
    ("android", "4.2.0", "7.1", 0.15, 96),
    ("android", "4.3.0", "7.2", 0.05, 192),
];

/// What a release does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Three of four purchases have no amount.
    NullAmount,
    /// Two of three purchases name a currency that there isn't.
    Currency,
    /// Purchases are never sent.
    NoPurchases,
    /// A fifth of the records doesn't decode.
    Bytes,
    /// A fifth of the events is numbered and doesn't arrive.
    Lost,
}

/// A fault: whose, of which release, in which hours.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub tenant: &'static str,
    pub release: usize,
    pub wrong: Wrong,
    pub hours: Range<usize>,
}

/// What is generated.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub tenants: Vec<&'static str>,
    pub hours: usize,
    /// Events of a tenant in an hour, on average over the day.
    pub per_hour: f64,
    pub faults: Vec<Fault>,
    pub seed: u64,
}

impl History {
    /// Sends all of it.
    pub(crate) fn send(self, bench: &Bench, partitions: i32, faults: Faults) {
        let random = fastrand::Rng::with_seed(self.seed);
        let job = Job {
            rows: Box::new(HistoryRows {
                history: self,
                hour: 0,
                waiting: Vec::new(),
                made: 0,
                numbers: HashMap::new(),
                random,
            }),
            target: Target {
                kafka: [("bootstrap.servers".to_owned(), parts().kafka())].into(),
                topic: bench.topic.clone(),
                partitions: Some(partitions),
                event_timestamps: true,
            },
            registry: Registry::new(Settings::new(parts().registry())).unwrap(),
            subject: None,
            rate: None,
            limit: None,
            faults,
        };
        block_on(produce(job, |_| true)).unwrap();
    }
}

struct HistoryRows {
    history: History,
    hour: usize,
    /// The rest of the hour's events, the latest first.
    waiting: Vec<(i64, &'static str, usize)>,
    made: u64,
    /// The last number of each device, in `props['n']` of its events.
    numbers: HashMap<String, u64>,
    random: fastrand::Rng,
}

impl HistoryRows {
    /// Lays out an hour: how many events each release of each tenant has, and when.
    fn lay_out(&mut self) {
        let day = self.hour as f64 / 24.0 * std::f64::consts::TAU;
        let season = 1.0 + 0.5 * (day - 2.0).sin();
        for &tenant in &self.history.tenants {
            for (release, of) in RELEASES.iter().enumerate().filter(|(_, of)| of.4 <= self.hour) {
                let mean = self.history.per_hour * of.3 * season;
                let count = (mean + (self.random.f64() - 0.5) * 2.0 * mean.sqrt()).round() as usize;
                let at = |random: &mut fastrand::Rng| START_MS + self.hour as i64 * HOUR_MS + random.i64(0..HOUR_MS);
                self.waiting.extend((0..count).map(|_| (at(&mut self.random), tenant, release)));
            }
        }
        self.waiting.sort_unstable();
        self.waiting.reverse();
        self.hour += 1;
    }

    fn wrong(&self, tenant: &str, release: usize, time_ms: i64) -> Option<Wrong> {
        let hour = ((time_ms - START_MS) / HOUR_MS) as usize;
        let is = |fault: &&Fault| fault.tenant == tenant && fault.release == release && fault.hours.contains(&hour);
        self.history.faults.iter().find(is).map(|fault| fault.wrong)
    }

    /// An event, unless the release's fault is that it isn't sent.
    fn event(&mut self, time_ms: i64, tenant: &'static str, release: usize) -> Option<Row> {
        let wrong = self.wrong(tenant, release, time_ms);
        let random = &mut self.random;
        let kind = [1, 1, 1, 1, 2, 2, 3, 3, 3, 3][random.usize(0..10)];
        let is_purchase = kind == 3;
        if is_purchase && wrong == Some(Wrong::NoPurchases) {
            return None;
        }
        let is_null = is_purchase && wrong == Some(Wrong::NullAmount) && random.u8(0..4) > 0;
        let is_odd = is_purchase && wrong == Some(Wrong::Currency) && random.u8(0..3) > 0;
        let user = format!("{tenant}-{:04}", random.u32(0..600));
        let amount = random.u32(199..20_000).to_be_bytes().to_vec();
        let currency = if is_odd { "EURO" } else { ["EUR", "EUR", "EUR", "USD", "GBP"][random.usize(0..5)] };
        let country = ["DE", "US", "GB", "FR"][random.usize(0..4)];
        let (sdk, sdk_version, app_version, _, _) = RELEASES[release];
        let device = format!("{tenant}-{release}-{}", self.made % 20);
        let number = self.numbers.entry(device.clone()).or_default();
        *number += 1;
        let number = number.to_string();
        self.made += 1;
        if wrong == Some(Wrong::Lost) && random.u8(0..5) == 0 {
            return None;
        }
        let text = |text: &str| Value::String(text.to_owned());
        let symbol = ["unknown", "page_view", "search", "purchase"][kind];
        let props = [("country", country), ("device", device.as_str()), ("n", number.as_str())];
        let maybe = |is_there: bool, value: Value| match is_there {
            true => Value::Union(1, Box::new(value)),
            false => Value::Union(0, Box::new(Value::Null)),
        };
        let fields = [
            ("event_id", text(&format!("{:016x}", self.made))),
            ("occurred_at", Value::TimestampMillis(time_ms)),
            ("tenant", text(tenant)),
            ("type", Value::Enum(kind as u32, symbol.to_owned())),
            ("user_id", text(&user)),
            ("email", maybe(random.bool(), text(&format!("{user}@example.org")))),
            ("amount", maybe(is_purchase && !is_null, Value::Decimal(amount.into()))),
            ("currency", text(currency)),
            ("sdk", text(sdk)),
            ("sdk_version", text(sdk_version)),
            ("app_version", text(app_version)),
            ("props", Value::Map(props.map(|(key, value)| (key.to_owned(), text(value))).into())),
        ];
        let sender = Release {
            tenant: tenant.to_owned(),
            sdk: sdk.to_owned(),
            sdk_version: sdk_version.to_owned(),
            app_version: app_version.to_owned(),
        };
        Some(Row {
            value: Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            time_ms: Some(time_ms),
            key: Some(user.into_bytes()),
            release: Some(sender),
            is_spoiled: wrong == Some(Wrong::Bytes) && self.random.u8(0..5) == 0,
        })
    }
}

impl Rows for HistoryRows {
    fn schema(&self) -> &str {
        include_str!("judged/event.avsc")
    }

    fn next_row(&mut self) -> Result<Option<Row>, ProduceError> {
        loop {
            while let Some((time_ms, tenant, release)) = self.waiting.pop() {
                if let Some(row) = self.event(time_ms, tenant, release) {
                    return Ok(Some(row));
                }
            }
            if self.hour == self.history.hours {
                return Ok(None);
            }
            self.lay_out();
        }
    }

    fn share_done(&self) -> Option<f64> {
        Some(self.hour as f64 / self.history.hours as f64)
    }
}
