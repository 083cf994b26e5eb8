//! The storefront: invented events of several shops, SDKs and releases, the same for the same seed.
//!
//! Time is invented, too: the n-th event happens n / `events_per_second` after `start_at_ms`, so that an hour can be
//! made in a second, or, with a rate limit, live. Users are drawn log-uniformly, so that few are busy and many rare.
//! One release goes wrong at `wrong_from` of the way: a share of its events that grows to `WRONG_SHARE_AT_MOST` within
//! the same stretch again, broken as [`Wrong`] says.

use std::collections::HashMap;

use apache_avro::types::Value;
use fastrand::Rng;

use super::ProduceError;
use super::convert::decimal;
use super::rows::{Release, Row, Rows};

/// The schema of the events.
pub const SCHEMA: &str = include_str!("../../presets/storefront.avsc");

/// The share of its events that the bad release spoils in the end.
const WRONG_SHARE_AT_MOST: f64 = 0.6;

/// Shops with their share of the events in percent.
const TENANTS: [(&str, u32); 4] = [("alpine", 45), ("bazaar", 30), ("cobalt", 18), ("dune", 7)];
/// Releases (SDK, its version, app version) with their share in percent.
const RELEASES: [(&str, &str, &str, u32); 6] = [
    ("web", "3.1.0", "2026.8", 34),
    ("web", "3.2.0", "2026.9", 16),
    ("ios", "5.0.2", "7.0", 17),
    ("ios", "5.1.0", "7.1", 9),
    ("android", "4.1.0", "7.0", 13),
    ("android", "4.2.0", "7.1", 11),
];
/// The place in `RELEASES` of the one that goes wrong.
const BAD_RELEASE: usize = 5;
/// Event types with their place among the schema's symbols and their share in percent.
const TYPES: [(&str, u32, u32); 6] = [
    ("heartbeat", 1, 25),
    ("page_view", 2, 46),
    ("search", 3, 12),
    ("add_to_cart", 4, 9),
    ("purchase", 5, 6),
    ("refund", 6, 2),
];
const PURCHASE: usize = 4;
const COUNTRIES: [(&str, u32); 8] =
    [("DE", 24), ("US", 22), ("GB", 14), ("FR", 12), ("IN", 10), ("BR", 8), ("JP", 7), ("NZ", 3)];
const PATHS: [&str; 8] = ["/", "/sale", "/cart", "/checkout", "/account", "/p/chair", "/p/lamp", "/p/table"];

/// What the bad release does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Nothing.
    Nothing,
    /// Sends purchases with negative amounts.
    NegativeAmount,
    /// Sends bytes that don't decode.
    Undecodable,
}

/// How much of it, and of what.
#[derive(Clone, Debug)]
pub struct Storefront {
    /// Two generators with the same seed (and settings) give the same events.
    pub seed: u64,
    /// When the first event happens, in milliseconds since 1970.
    pub start_at_ms: i64,
    /// Events in a second of invented time.
    pub events_per_second: f64,
    /// How many; absent, without end.
    pub count: Option<u64>,
    /// How many users each shop has.
    pub users: u32,
    /// What the bad release does.
    pub wrong: Wrong,
    /// The event from which on it does so.
    pub wrong_from: u64,
    /// Send the release along in Kafka headers.
    pub headers: bool,
}

impl Default for Storefront {
    fn default() -> Storefront {
        Storefront {
            seed: 1,
            start_at_ms: 1_767_225_600_000,
            events_per_second: 1_000.0,
            count: None,
            users: 20_000,
            wrong: Wrong::NegativeAmount,
            wrong_from: 60_000,
            headers: true,
        }
    }
}

/// The generator's rows.
pub struct StorefrontRows {
    settings: Storefront,
    random: Rng,
    made: u64,
}

impl StorefrontRows {
    /// A generator at its first event.
    pub fn new(settings: Storefront) -> StorefrontRows {
        let random = Rng::with_seed(settings.seed);
        StorefrontRows { settings, random, made: 0 }
    }

    fn pick(&mut self, shares: impl Iterator<Item = u32>) -> usize {
        let mut left = self.random.u32(0..100);
        for (place, share) in shares.enumerate() {
            if left < share {
                return place;
            }
            left -= share;
        }
        0
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn time_ms(&self) -> i64 {
        self.settings.start_at_ms + (self.made as f64 * 1000.0 / self.settings.events_per_second) as i64
    }

    /// The share of its events that the bad release spoils now.
    #[allow(clippy::cast_precision_loss)]
    fn wrong_share(&self) -> f64 {
        let from = self.settings.wrong_from;
        match self.made.checked_sub(from) {
            None => 0.0,
            Some(since) => (since as f64 / from.max(1) as f64).min(1.0) * WRONG_SHARE_AT_MOST,
        }
    }

    /// `u-` and a number, log-uniform over the users.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn user(&mut self) -> String {
        let users = f64::from(self.settings.users.max(1));
        format!("u-{:06}", (users.powf(self.random.f64())) as u32)
    }

    fn amount(&mut self) -> i128 {
        // Mostly tens, seldom thousands.
        i128::from(self.random.u32(199..20_000)) * if self.random.u32(0..50) == 0 { 10 } else { 1 }
    }

    fn event(&mut self) -> Row {
        let time_ms = self.time_ms();
        let tenant = TENANTS[self.pick(TENANTS.iter().map(|(_, share)| *share))].0;
        let release = self.pick(RELEASES.iter().map(|(_, _, _, share)| *share));
        let (sdk, sdk_version, app_version, _) = RELEASES[release];
        let mut kind = self.pick(TYPES.iter().map(|(_, _, share)| *share));
        let is_wrong = release == BAD_RELEASE && self.random.f64() < self.wrong_share();
        let is_negative = is_wrong && self.settings.wrong == Wrong::NegativeAmount;
        if is_negative {
            kind = PURCHASE;
        }
        let (name, symbol, _) = TYPES[kind];
        let user = self.user();
        let is_anonymous = self.random.u32(0..100) < 5;
        let amount = if kind >= PURCHASE { Some(self.amount()) } else { None };
        let amount = amount.map(|amount| if is_negative { -amount } else { amount });
        let country = COUNTRIES[self.pick(COUNTRIES.iter().map(|(_, share)| *share))].0;
        let path = PATHS[self.random.usize(0..PATHS.len())];
        let event_id = format!("{:016x}{:08x}", self.random.u64(..), self.made);
        let text = |text: &str| Value::String(text.to_owned());
        let nullable = |value: Option<Value>| match value {
            Some(value) => Value::Union(1, Box::new(value)),
            None => Value::Union(0, Box::new(Value::Null)),
        };
        let props = HashMap::from([("country".to_owned(), text(country)), ("path".to_owned(), text(path))]);
        let fields = [
            ("event_id", Value::String(event_id)),
            ("occurred_at", Value::TimestampMillis(time_ms)),
            ("tenant", text(tenant)),
            ("type", Value::Enum(symbol, name.to_owned())),
            ("user_id", nullable((!is_anonymous).then(|| Value::String(user.clone())))),
            ("amount", nullable(amount.map(decimal))),
            ("sdk", text(sdk)),
            ("sdk_version", text(sdk_version)),
            ("app_version", text(app_version)),
            ("props", Value::Map(props)),
        ];
        let sender = Release {
            tenant: tenant.to_owned(),
            sdk: sdk.to_owned(),
            sdk_version: sdk_version.to_owned(),
            app_version: app_version.to_owned(),
        };
        Row {
            value: Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            time_ms: Some(time_ms),
            key: Some(user.into_bytes()),
            release: self.settings.headers.then_some(sender),
            is_spoiled: is_wrong && self.settings.wrong == Wrong::Undecodable,
        }
    }
}

impl Rows for StorefrontRows {
    fn schema(&self) -> &str {
        SCHEMA
    }

    fn next_row(&mut self) -> Result<Option<Row>, ProduceError> {
        if self.settings.count.is_some_and(|count| self.made >= count) {
            return Ok(None);
        }
        let row = self.event();
        self.made += 1;
        Ok(Some(row))
    }

    #[allow(clippy::cast_precision_loss)]
    fn share_done(&self) -> Option<f64> {
        self.settings.count.map(|count| self.made as f64 / count.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(settings: Storefront) -> Vec<Row> {
        let mut rows = StorefrontRows::new(settings);
        std::iter::from_fn(|| rows.next_row().expect("a row")).collect()
    }

    fn field<'row>(row: &'row Row, name: &str) -> &'row Value {
        let Value::Record(fields) = &row.value else { panic!("a record") };
        &fields.iter().find(|(field, _)| field == name).expect("a field").1
    }

    #[test]
    fn the_same_seed_gives_the_same_events_and_they_fit_the_schema() {
        let settings = Storefront { count: Some(3_000), ..Storefront::default() };
        let (first, again) = (rows(settings.clone()), rows(settings.clone()));
        let schema = apache_avro::Schema::parse_str(SCHEMA).expect("a schema");
        assert_eq!(first.len(), 3_000);
        for (one, two) in first.iter().zip(&again) {
            assert_eq!(one.value, two.value);
            assert!(one.value.validate(&schema), "{:?}", one.value);
        }
        assert_ne!(rows(Storefront { seed: 2, ..settings })[0].value, first[0].value);
        assert_eq!(first[2_999].time_ms, first[0].time_ms.map(|time| time + 2_999));
    }

    #[test]
    fn only_the_bad_release_goes_wrong_and_more_and_more() {
        let settings = Storefront { count: Some(60_000), wrong_from: 20_000, ..Storefront::default() };
        let is_negative = |row: &Row| {
            let Value::Union(1, amount) = field(row, "amount") else { return false };
            let Value::Decimal(amount) = &**amount else { panic!("a decimal") };
            Vec::<u8>::try_from(amount).expect("bytes")[0] & 0x80 != 0
        };
        let rows = rows(settings);
        let negative = |rows: &[Row]| rows.iter().filter(|row| is_negative(row)).count();
        let (early, middle, late) =
            (negative(&rows[..20_000]), negative(&rows[20_000..40_000]), negative(&rows[40_000..]));
        assert!(early == 0 && middle > 300 && late > middle, "{early} {middle} {late}");
        for row in rows.iter().filter(|row| is_negative(row)) {
            assert_eq!(row.release.as_ref().map(|release| release.sdk_version.as_str()), Some("4.2.0"));
        }
        let undecodable =
            Storefront { count: Some(60_000), wrong_from: 20_000, wrong: Wrong::Undecodable, ..Storefront::default() };
        assert!(self::rows(undecodable).iter().filter(|row| row.is_spoiled).count() > 1_000);
    }
}
