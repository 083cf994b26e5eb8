//! Writing a record as an event of a scenario file.

use apache_avro::Schema;
use apache_avro::types::Value;
use chrono::{DateTime, Days, NaiveDate};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use toml_edit::{Array, InlineTable, Value as Toml};
use weir_pipeline::config::Source;
use weir_pipeline::rules::is_sensitive;
use weir_pipeline::source::message::Message;

use weir_schemas::frame::FRAME_BYTES;

use super::scenario::EVENT_WORDS;
use crate::produce::convert::{Kind, kind_of};

/// Which values are masked, and by what.
pub(super) struct Masks<'a> {
    pub(super) sensitive: &'a [String],
    pub(super) secret: &'a Secret,
}

/// What makes pseudonyms, of which nobody can try out whose they are: HMAC-SHA-256 with a key that is drawn anew and kept
/// nowhere.
pub(super) struct Secret(PKey<Private>);

impl Secret {
    /// A key of 32 random bytes.
    ///
    /// # Errors
    /// When OpenSSL has no randomness.
    pub(super) fn draw() -> Result<Secret, ErrorStack> {
        let mut key = [0; 32];
        openssl::rand::rand_bytes(&mut key)?;
        Ok(Secret(PKey::hmac(&key)?))
    }

    /// The first 64 bits of the value's code.
    fn number(&self, value: &[u8]) -> Option<u64> {
        let code = Signer::new(MessageDigest::sha256(), &self.0).ok()?.sign_oneshot_to_vec(value).ok()?;
        code.first_chunk().map(|first| u64::from_be_bytes(*first))
    }
}

/// A record, and where it stands.
pub(super) struct Written<'a> {
    /// Its source, where it has to be said.
    pub(super) source: Option<&'a str>,
    pub(super) config: &'a Source,
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) message: &'a Message,
    /// The id that its schema has in the scenario, where that is its source's own.
    pub(super) schema_id: Option<u32>,
    /// When it was sent, as far as its partition shows: not before those that stand before it.
    pub(super) at_ms: i64,
    pub(super) start_ms: i64,
}

/// The record as an inline table; `None` where it isn't an event and its bytes may hold something sensitive.
pub(super) fn write(
    of: &Written<'_>,
    event: Option<&Value>,
    schema: Option<&Schema>,
    masks: &Masks<'_>,
) -> Option<String> {
    let mut table = InlineTable::new();
    let offset = |time_ms: i64| Toml::from(format!("{}ms", time_ms.saturating_sub(of.start_ms).max(0)));
    table.insert("at", offset(of.at_ms));
    if of.message.timestamp_ms() != of.at_ms {
        table.insert("kafka_time", offset(of.message.timestamp_ms()));
    }
    if let Some(source) = of.source {
        table.insert("source", source.into());
    }
    if of.config.topics.first().is_some_and(|first| first != of.topic) {
        table.insert("topic", of.topic.into());
    }
    if of.partition != 0 {
        table.insert("partition", i64::from(of.partition).into());
    }
    headers(of, &mut table, masks);
    let fields = event.zip(schema).and_then(|(event, schema)| {
        let (Value::Record(fields), Kind::Record(kinds)) = (event, kind_of(schema).ok()?) else { return None };
        let mut nulls = Array::new();
        let (mut written, mut apart) = (InlineTable::new(), InlineTable::new());
        for ((name, value), (_, kind, default)) in fields.iter().zip(&kinds) {
            match field(value, kind, name, masks)? {
                // What is left out is null by itself, unless the schema says something else.
                Toml::String(text) if text.value() == NULL_MARK => {
                    if default.as_ref().is_some_and(|default| !default.is_null()) {
                        nulls.push(name.as_str());
                    }
                }
                value if EVENT_WORDS.contains(&name.as_str()) => drop(apart.insert(name, value)),
                value => drop(written.insert(name, value)),
            }
        }
        if !apart.is_empty() {
            written.insert("fields", apart.into());
        }
        if !nulls.is_empty() {
            written.insert("null", nulls.into());
        }
        Some(written)
    });
    match (fields, of.message.value()) {
        (Some(fields), _) => table.extend(fields.into_iter().map(|(name, value)| (name.to_string(), value))),
        (None, None) => drop(table.insert("tombstone", true.into())),
        (None, Some(_)) if !masks.sensitive.is_empty() => return None,
        (None, Some(bytes)) => {
            let mut bytes = bytes.to_vec();
            if let (Some(id), Some(place)) = (of.schema_id, bytes.get_mut(1..FRAME_BYTES)) {
                place.copy_from_slice(&id.to_be_bytes());
            }
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            table.insert("raw", format!("hex:{hex}").into());
        }
    }
    table.fmt();
    Some(table.to_string().trim().to_owned())
}

/// What [`field`] gives for null.
const NULL_MARK: &str = "\u{0}null";

/// The headers that Weir reads; where nothing is sensitive, all that are text.
fn headers(of: &Written<'_>, table: &mut InlineTable, masks: &Masks<'_>) {
    let release = &of.config.release;
    let read = [&release.sdk, &release.sdk_version, &release.app_version, &of.config.tenant];
    let mut headers = InlineTable::new();
    of.message.headers(|name, value| {
        let (Ok(name), Some(Ok(value))) = (std::str::from_utf8(name), value.map(std::str::from_utf8)) else { return };
        let is_read = read.iter().any(|of| of.as_deref() == Some(name));
        if (masks.sensitive.is_empty() || is_read) && !is_sensitive(masks.sensitive, name) {
            headers.insert(name, value.into());
        }
    });
    if !headers.is_empty() {
        table.insert("headers", headers.into());
    }
    if let Some(key) = of.message.key().and_then(|key| std::str::from_utf8(key).ok()) {
        let key = if masks.sensitive.is_empty() { Some(key.to_owned()) } else { masks.pseudonym(key.as_bytes()) };
        if let Some(key) = key {
            table.insert("key", key.into());
        }
    }
}

impl Masks<'_> {
    fn hides(&self, path: &str) -> bool {
        is_sensitive(self.sensitive, path)
    }

    fn pseudonym(&self, bytes: &[u8]) -> Option<String> {
        self.secret.number(bytes).map(|number| format!("masked-{number:016x}"))
    }
}

/// A value as TOML; `None` where TOML or a scenario has no words for it.
fn field(value: &Value, kind: &Kind, path: &str, masks: &Masks<'_>) -> Option<Toml> {
    let hides = masks.hides(path);
    // So many bits of a pseudonym as a number has, so that few values fall together.
    let masked = |bytes: &[u8], bits: u32| masks.secret.number(bytes).map(|number| number >> (u64::BITS - bits));
    Some(match (value, kind) {
        (Value::Union(_, value), Kind::Nullable { kind, .. }) => field(value, kind, path, masks)?,
        (Value::Null, _) => NULL_MARK.into(),
        (Value::Boolean(value), _) => (*value && !hides).into(),
        (Value::Int(number), _) if hides => {
            let number = u32::try_from(masked(&number.to_le_bytes(), 32)?).ok()?;
            i64::from(number.cast_signed()).into()
        }
        (Value::Int(number), _) => i64::from(*number).into(),
        (Value::Long(number), _) if hides => masked(&number.to_le_bytes(), 64)?.cast_signed().into(),
        (Value::Long(number), _) => (*number).into(),
        (Value::Float(number), _) if hides => (masked(&number.to_le_bytes(), 24)? as f64).into(),
        (Value::Double(number), _) if hides => (masked(&number.to_le_bytes(), 53)? as f64).into(),
        (Value::Float(number), _) => {
            f64::from(*number).is_finite().then(|| number.to_string().parse::<f64>().ok())??.into()
        }
        (Value::Double(number), _) => number.is_finite().then_some(*number)?.into(),
        (Value::String(text), _) if hides => masks.pseudonym(text.as_bytes())?.into(),
        (Value::Enum(_, text), Kind::Enum(symbols)) if hides => symbols.first().unwrap_or(text).clone().into(),
        (Value::String(text) | Value::Enum(_, text), _) => text.as_str().into(),
        (Value::Bytes(bytes), _) if hides => masks.pseudonym(bytes)?.into(),
        (Value::Bytes(bytes), _) => std::str::from_utf8(bytes).ok()?.into(),
        (Value::Decimal(value), Kind::Decimal { precision, scale }) => {
            let bytes = Vec::<u8>::try_from(value).ok()?;
            let limit = 10u64.saturating_pow(u32::try_from(*precision).unwrap_or(u32::MAX));
            let unscaled = if hides { i128::from(masked(&bytes, 64)? % limit) } else { signed(&bytes)? };
            decimal_text(unscaled, *scale).into()
        }
        (Value::Date(days), _) => date(if hides { 0 } else { *days })?.into(),
        (Value::TimestampMillis(ms) | Value::LocalTimestampMillis(ms), _) => {
            DateTime::from_timestamp_millis(if hides { 0 } else { *ms })?.to_rfc3339().into()
        }
        (Value::TimestampMicros(us) | Value::LocalTimestampMicros(us), _) => {
            DateTime::from_timestamp_micros(if hides { 0 } else { *us })?.to_rfc3339().into()
        }
        (Value::Map(entries), Kind::Map(kind)) => {
            let mut sorted: Vec<(&String, &Value)> = entries.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            let mut table = InlineTable::new();
            for (name, value) in sorted {
                let shown = if hides { masks.pseudonym(name.as_bytes())? } else { name.clone() };
                let inner = if hides { path.to_owned() } else { format!("{path}['{name}']") };
                table.insert(&shown, field(value, kind, &inner, masks).filter(|value| !is_null(value))?);
            }
            table.into()
        }
        (Value::Array(items), Kind::Array(kind)) => {
            let items: Option<Array> =
                items.iter().map(|item| field(item, kind, path, masks).filter(|value| !is_null(value))).collect();
            items?.into()
        }
        (Value::Record(fields), Kind::Record(kinds)) => {
            let mut table = InlineTable::new();
            for ((name, value), (_, kind, _)) in fields.iter().zip(kinds) {
                match field(value, kind, &format!("{path}.{name}"), masks)? {
                    value if is_null(&value) => {}
                    value => drop(table.insert(name, value)),
                }
            }
            table.into()
        }
        _ => return None,
    })
}

fn is_null(value: &Toml) -> bool {
    value.as_str() == Some(NULL_MARK)
}

/// The number of a decimal's bytes.
fn signed(bytes: &[u8]) -> Option<i128> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let fill = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut whole = [fill; 16];
    whole[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(whole))
}

fn decimal_text(unscaled: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn date(days: i32) -> Option<String> {
    let of = Days::new(u64::from(days.unsigned_abs()));
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let date = if days < 0 { epoch.checked_sub_days(of) } else { epoch.checked_add_days(of) };
    date.map(|date| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_their_digits() {
        for (unscaled, scale, text) in [(-1050, 2, "-10.50"), (5, 2, "0.05"), (7, 0, "7"), (-1, 3, "-0.001")] {
            assert_eq!(decimal_text(unscaled, scale), text);
        }
        assert_eq!(signed(&[0xff]), Some(-1));
        assert_eq!(signed(&[0, 200]), Some(200));
        assert_eq!(signed(&[]), None);
    }

    #[test]
    fn a_pseudonym_is_the_same_for_the_same_value_and_secret_alone() {
        let (one, other) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        let masks = |secret| Masks { sensitive: &[], secret };
        assert!(masks(&one).pseudonym(b"ada").is_some_and(|name| name.len() == "masked-".len() + 16));
        assert_eq!(masks(&one).pseudonym(b"ada"), masks(&one).pseudonym(b"ada"));
        assert_ne!(masks(&one).pseudonym(b"ada"), masks(&one).pseudonym(b"bo"));
        assert_ne!(masks(&one).pseudonym(b"ada"), masks(&other).pseudonym(b"ada"));
    }

    #[test]
    fn a_code_is_hmac_sha_256() {
        // The second case of RFC 4231.
        let secret = Secret(PKey::hmac(b"Jefe").unwrap());
        assert_eq!(secret.number(b"what do ya want for nothing?"), Some(0x5bdc_c146_bf60_754e));
    }

    #[test]
    fn masked_numbers_stay_apart() {
        let secret = Secret::draw().unwrap();
        let (sensitive, count) = (["age".to_owned()], 2_000);
        let masks = Masks { sensitive: &sensitive, secret: &secret };
        let masked = |value: &Value, kind: &Kind| field(value, kind, "age", &masks).map(|shown| shown.to_string());
        let apart = |of: &dyn Fn(i32) -> Option<String>| {
            (0..count).filter_map(of).collect::<std::collections::BTreeSet<_>>().len()
        };
        // That more than one pair of so few falls together happens once in millions of runs, or where the range is short.
        assert!(apart(&|n| masked(&Value::Int(n), &Kind::Int)) >= 1_999);
        assert!(apart(&|n| masked(&Value::Long(n.into()), &Kind::Long)) == 2_000);
        assert!(apart(&|n| masked(&Value::Double(n.into()), &Kind::Double)) == 2_000);
        assert_ne!(masked(&Value::Long(7), &Kind::Long), Some("7".to_owned()));
    }
}
