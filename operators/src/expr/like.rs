//! LIKE, as ClickHouse matches it: by an RE2 expression over UTF-8.
//!
//! A `%` at an end of the pattern leaves that end open and passes over any bytes. A `%` between other characters and a
//! `_` match whole characters of UTF-8 only, so a byte that begins none stops them. RE2's idea of a character is
//! used: a lead byte with as many continuation bytes as it announces, overlong forms and surrogates included.

use arrow_array::BooleanArray;
use arrow_buffer::BooleanBuffer;

use super::evaluate::Call;
use super::function::{Pattern, PatternToken};
use crate::error::Error;

impl Pattern {
    /// Takes a pattern apart: `%` any characters, `_` one character, `\%`, `\_` and `\\` themselves, another `\` a backslash.
    ///
    /// # Errors
    /// The reason, if the pattern ends in a single backslash (ClickHouse refuses it when it runs), or if letter case is to be
    /// ignored beyond ASCII.
    pub fn new(text: &str, ignore_case: bool) -> Result<Pattern, String> {
        if ignore_case && !text.is_ascii() {
            return Err("ILIKE with letters beyond ASCII isn't supported".into());
        }
        let mut segments: Vec<Vec<PatternToken>> = vec![Vec::new()];
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            let token = match byte {
                b'%' => {
                    segments.push(Vec::new());
                    continue;
                }
                b'_' => PatternToken::AnyCharacter,
                b'\\' => match bytes.clone().next() {
                    None => return Err("the pattern ends in a single backslash".into()),
                    Some(escaped @ (b'%' | b'_' | b'\\')) => {
                        bytes.next();
                        PatternToken::Byte(escaped)
                    }
                    Some(_) => PatternToken::Byte(b'\\'),
                },
                other if ignore_case => PatternToken::Byte(other.to_ascii_lowercase()),
                other => PatternToken::Byte(other),
            };
            if let Some(segment) = segments.last_mut() {
                segment.push(token);
            }
        }
        let open_start = segments.len() > 1 && segments.first().is_some_and(Vec::is_empty);
        let open_end = segments.len() > 1 && segments.last().is_some_and(Vec::is_empty);
        segments.retain(|segment| !segment.is_empty());
        // ClickHouse runs `%text%` as a search for a substring, everything else as an RE2 expression, which also folds
        // the long s to s and the Kelvin sign to k.
        let substring = open_start && open_end && segments.len() == 1 && !text.contains('_');
        let folds_unicode = ignore_case && !substring;
        Ok(Pattern { text: text.to_owned(), ignore_case, folds_unicode, open_start, open_end, segments })
    }

    /// Whether the whole of `string` matches.
    pub fn matches(&self, string: &[u8]) -> bool {
        if self.segments.is_empty() {
            return self.open_start || string.is_empty();
        }
        if !self.open_start {
            return matches!(self.matches_from(string, 0, false), Attempt::Matched);
        }
        let mut from = 0;
        loop {
            match self.matches_from(string, from, true) {
                Attempt::Matched => return true,
                Attempt::Failed => return false,
                // No start up to that byte can pass it; one behind it may match.
                Attempt::StoppedAt(byte) => from = byte + 1,
            }
        }
    }

    /// Lays the segments one after the other, each as early as possible: an earlier end leaves more to the next ones.
    fn matches_from(&self, string: &[u8], from: usize, search: bool) -> Attempt {
        let last = self.segments.len() - 1;
        let mut at = from;
        for (index, segment) in self.segments.iter().enumerate() {
            let any_start = if index == 0 { search } else { true };
            let over_bytes = index == 0;
            let must_end = index == last && !self.open_end;
            loop {
                match self.segment_end(string, at, segment) {
                    Some(end) if !must_end || end == string.len() => {
                        at = end;
                        break;
                    }
                    _ if !any_start || at >= string.len() => return Attempt::Failed,
                    _ if over_bytes => at += 1,
                    _ => match character(string, at) {
                        Some(length) => at += length,
                        None => return Attempt::StoppedAt(at),
                    },
                }
            }
        }
        Attempt::Matched
    }

    fn segment_end(&self, string: &[u8], mut at: usize, segment: &[PatternToken]) -> Option<usize> {
        for token in segment {
            match token {
                PatternToken::AnyCharacter => at += character(string, at)?,
                PatternToken::Byte(byte) => {
                    let found = *string.get(at)?;
                    let found = if self.ignore_case { found.to_ascii_lowercase() } else { found };
                    if found == *byte {
                        at += 1;
                        continue;
                    }
                    let other: &[u8] = match byte {
                        b's' if self.folds_unicode => "\u{17f}".as_bytes(),
                        b'k' if self.folds_unicode => "\u{212a}".as_bytes(),
                        _ => return None,
                    };
                    if !string.get(at..)?.starts_with(other) {
                        return None;
                    }
                    at += other.len();
                }
            }
        }
        Some(at)
    }
}

enum Attempt {
    Matched,
    Failed,
    StoppedAt(usize),
}

/// The length of the character that begins at `at`, as RE2 sees characters.
fn character(string: &[u8], at: usize) -> Option<usize> {
    let length = match *string.get(at)? {
        0x00..=0x7f => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let continued = string.get(at + 1..at + length)?.iter().all(|byte| (0x80..=0xbf).contains(byte));
    continued.then_some(length)
}

/// `a LIKE pattern` for every row.
pub(super) fn matches(call: &Call<'_>, pattern: &Pattern, negated: bool) -> Result<BooleanArray, Error> {
    let strings = call.value(0)?.bytes()?;
    let values = BooleanBuffer::collect_bool(call.rows, |row| pattern.matches(strings.at(row)) != negated);
    Ok(BooleanArray::new(values, call.nulls()))
}
