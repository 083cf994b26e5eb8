//! What a sample shows of one field: enough to say what held for all of it, in memory that doesn't grow with the sample.

use std::collections::BTreeMap;

use super::field::{Kind, TIME, UUID};
use weir_operators::expr::Regular;

/// Distinct values that are remembered, at most: a field with more of them has no list of allowed ones.
const VALUES_MAX: usize = 12;
/// Bytes of a value that is remembered.
const VALUE_BYTES_MAX: usize = 100;

/// Forms that a text may have, with the expressions that ClickHouse's `match` reads, too. The narrower ones come first.
const FORMS: &[(&str, &str)] = &[
    ("country code", "^[A-Z]{2}$"),
    ("locale", "^[a-z]{2}[-_][A-Z]{2}$"),
    ("currency code", "^[A-Z]{3}$"),
    ("hash in hexadecimal", "^([0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})$"),
    ("version", r"^\d+\.\d+\.\d+([-+][0-9A-Za-z.-]+)?$"),
    ("address of e-mail", r"^[^@\s]+@[^@\s]+\.[^@\s]+$"),
    ("address on the web", r"^https?://\S+$"),
    ("path", r"^/\S*$"),
    ("code of letters and digits", r"^[A-Z]{2,6}-\d+$"),
];

/// The expressions behind [`FORMS`], those of times and UUIDs before them.
pub(super) struct Forms(Vec<Regular>);

impl Forms {
    pub(super) fn new() -> Result<Forms, String> {
        let expressions = [TIME, UUID].into_iter().chain(FORMS.iter().map(|(_, expression)| *expression));
        Ok(Forms(expressions.map(Regular::new).collect::<Result<_, _>>()?))
    }
}

/// What was seen of a field.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Events that had it.
    pub(super) present: u64,
    /// Its values, with how often each came; none once there were too many.
    pub(super) values: Option<BTreeMap<String, u64>>,
    /// The least and the greatest, while all were numbers.
    pub(super) numbers: Option<(f64, f64)>,
    integers: bool,
    booleans: bool,
    /// Which forms all had.
    forms: Vec<bool>,
    /// The least and the greatest length in bytes.
    pub(super) lengths: (u64, u64),
}

impl Seen {
    pub(super) fn new(forms: &Forms) -> Seen {
        Seen {
            present: 0,
            values: Some(BTreeMap::new()),
            numbers: Some((f64::INFINITY, f64::NEG_INFINITY)),
            integers: true,
            booleans: true,
            forms: vec![true; forms.0.len()],
            lengths: (u64::MAX, 0),
        }
    }

    /// Notes a value that is there.
    pub(super) fn note(&mut self, value: &[u8], forms: &Forms) {
        self.present += 1;
        self.lengths = (self.lengths.0.min(value.len() as u64), self.lengths.1.max(value.len() as u64));
        self.numbers = match (self.numbers, number(value)) {
            (Some((least, most)), Some((number, is_whole))) => {
                self.integers &= is_whole;
                Some((least.min(number), most.max(number)))
            }
            _ => None,
        };
        self.booleans &= matches!(value, b"true" | b"false");
        for (is_so, form) in self.forms.iter_mut().zip(&forms.0) {
            *is_so = *is_so && form.is_match(value);
        }
        if let Some(values) = &mut self.values {
            match std::str::from_utf8(value) {
                Ok(text) if value.len() <= VALUE_BYTES_MAX => {
                    match values.get_mut(text) {
                        Some(count) => *count += 1,
                        None => {
                            values.insert(text.to_owned(), 1);
                        }
                    }
                    if values.len() > VALUES_MAX {
                        self.values = None;
                    }
                }
                _ => self.values = None,
            }
        }
    }

    /// What all values were, as texts.
    pub(super) fn kind(&self) -> Option<Kind> {
        match (self.booleans, self.numbers, self.integers, self.forms.as_slice()) {
            (true, ..) => Some(Kind::Boolean),
            (_, Some(_), true, _) => Some(Kind::Integer),
            (_, Some(_), false, _) => Some(Kind::Number),
            (.., [true, ..]) => Some(Kind::Time),
            (.., [_, true, ..]) => Some(Kind::Uuid),
            _ => None,
        }
    }

    /// The narrowest form that all values had: what it is called, and its expression.
    pub(super) fn form(&self) -> Option<(&'static str, &'static str)> {
        FORMS.iter().zip(self.forms.iter().skip(2)).find(|(_, is_so)| **is_so).map(|(form, _)| *form)
    }
}

/// The number that a text is, and whether it is a whole one; only forms that ClickHouse reads as well.
fn number(text: &[u8]) -> Option<(f64, bool)> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_whole = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
    let first = digits.first().is_some_and(u8::is_ascii_digit) && digits.last().is_some_and(u8::is_ascii_digit);
    let is_plain = first
        && digits.len() <= 40
        && digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && digits.iter().filter(|byte| **byte == b'.').count() <= 1;
    if !is_whole && !is_plain {
        return None;
    }
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    number.is_finite().then_some((number, is_whole))
}
