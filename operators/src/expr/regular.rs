//! `match`: regular expressions as ClickHouse runs them, by RE2 over UTF-8, where `.` takes a line break.
//!
//! The expression becomes one table-driven automaton: a match costs one step a byte, whatever the expression, and needs no
//! memory. RE2's dialect is checked first, since the automaton's builder knows another one: classes such as `\d` are
//! ASCII's, and what the two read differently is refused.
//!
//! Not here: flags other than `s` and `m` (`(?i)` folds letters beyond ASCII), classes by Unicode property, octal escapes.

use std::fmt;

use arrow_array::BooleanArray;
use arrow_buffer::BooleanBuffer;
use regex_automata::Input;
use regex_automata::dfa::{Automaton, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

use super::evaluate::Call;
use crate::error::Error;

/// Bytes that an automaton, and the work of building it, may take.
const BYTES_MAX: usize = 8 << 20;

/// A regular expression, ready to be matched.
#[derive(Clone)]
pub struct Regular {
    /// The expression as it was written.
    pub text: String,
    automaton: dense::DFA<Vec<u32>>,
}

impl Regular {
    /// Compiles an expression of RE2's dialect.
    ///
    /// # Errors
    /// What is wrong with it, or isn't supported.
    pub fn new(text: &str) -> Result<Regular, String> {
        let translated = translate(text)?;
        let automaton = dense::Builder::new()
            .configure(dense::Config::new().dfa_size_limit(Some(BYTES_MAX)).determinize_size_limit(Some(BYTES_MAX)))
            .syntax(syntax::Config::new().utf8(false).dot_matches_new_line(true))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(BYTES_MAX)))
            .build(&translated)
            .map_err(|error| {
                let mut cause: &dyn std::error::Error = &error;
                while let Some(source) = cause.source() {
                    cause = source;
                }
                let cause = cause.to_string();
                let last = cause.lines().last().unwrap_or_default().trim_start_matches("error: ").trim();
                format!("the regular expression can't be compiled: {last}")
            })?;
        Ok(Regular { text: text.to_owned(), automaton })
    }

    /// Whether the expression matches somewhere in `string`.
    pub fn is_match(&self, string: &[u8]) -> bool {
        // The automaton has no byte on which it gives up, so the search never fails.
        matches!(self.automaton.try_search_fwd(&Input::new(string).earliest(true)), Ok(Some(_)))
    }
}

impl fmt::Debug for Regular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regular({:?})", self.text)
    }
}

impl PartialEq for Regular {
    fn eq(&self, other: &Regular) -> bool {
        self.text == other.text
    }
}

/// From RE2's dialect to the builder's.
fn translate(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    let mut in_class = false;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        rest = after;
        match character {
            '\\' => rest = escape(after, in_class, &mut out)?,
            '[' if in_class => match after.starts_with(':') {
                true => rest = named_class(after, &mut out)?,
                false => out.push_str("\\["),
            },
            '[' => {
                in_class = true;
                out.push('[');
                if let Some(negated) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = negated;
                }
                // A bracket that comes first is one of the characters.
                if let Some(bracket) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = bracket;
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => out.extend(['\\', character]),
            '-' if in_class && after.starts_with('-') => out.push_str("\\-"),
            '(' if !in_class && after.starts_with('?') => rest = group(after, &mut out)?,
            '{' if !in_class && !is_repetition(after) => out.push_str("\\{"),
            other => out.push(other),
        }
    }
    if in_class { Err("a [ is not closed".to_owned()) } else { Ok(out) }
}

/// What follows a backslash; returns what follows that.
fn escape<'a>(after: &'a str, in_class: bool, out: &mut String) -> Result<&'a str, String> {
    let Some(escaped) = after.chars().next() else {
        return Err("the expression ends in a single backslash".to_owned());
    };
    let rest = &after[escaped.len_utf8()..];
    let class = match escaped.to_ascii_lowercase() {
        'd' => Some("0-9"),
        'w' => Some("0-9A-Za-z_"),
        's' => Some("\\t\\n\\f\\r "),
        _ => None,
    };
    match (escaped, class) {
        (_, Some(class)) if escaped.is_ascii_lowercase() && in_class => out.push_str(class),
        (_, Some(class)) if escaped.is_ascii_lowercase() => out.extend(["[", class, "]"]),
        (_, Some(class)) => out.extend(["[^", class, "]"]),
        ('b' | 'B', _) if !in_class => out.extend(["(?-u:\\", if escaped == 'b' { "b" } else { "B" }, ")"]),
        ('A' | 'z', _) if !in_class => out.extend(['\\', escaped]),
        ('x', _) if rest.starts_with('{') => {
            let end = rest.find('}').ok_or("\\x{ is not closed")?;
            out.extend(["\\x", &rest[..=end]]);
            return Ok(&rest[end + 1..]);
        }
        ('a' | 'f' | 't' | 'n' | 'r' | 'v' | 'x', _) => out.extend(['\\', escaped]),
        _ if escaped.is_ascii_punctuation() => out.extend(['\\', escaped]),
        _ => return Err(format!("\\{escaped} isn't supported in a regular expression")),
    }
    Ok(rest)
}

/// A class such as `[:alpha:]`, whose bracket is behind us.
fn named_class<'a>(after: &'a str, out: &mut String) -> Result<&'a str, String> {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
        "word", "xdigit",
    ];
    let end = after.find(":]").ok_or("[: is not closed by :]")?;
    let name = after.get(1..end).unwrap_or_default();
    if !NAMES.contains(&name.trim_start_matches('^')) {
        return Err(format!("there is no class [:{name}:]"));
    }
    out.extend(["[:", name, ":]"]);
    Ok(&after[end + 2..])
}

/// A group that begins with `(?`, whose parenthesis is behind us.
fn group<'a>(after: &'a str, out: &mut String) -> Result<&'a str, String> {
    let end = after.find([':', ')', '<']).ok_or("a group is not closed")?;
    let flags = &after[1..end];
    let is_name = after[end..].starts_with('<') && matches!(flags, "" | "P") && !after[end..].starts_with("<=");
    if !is_name && !flags.chars().all(|flag| matches!(flag, 's' | 'm' | '-')) {
        return Err(format!("(?{flags} isn't supported in a regular expression: the flags s and m are"));
    }
    out.push('(');
    out.push_str(&after[..=end]);
    Ok(&after[end + 1..])
}

/// Whether `after`, which follows a brace, is `n}`, `n,}` or `n,m}`; else RE2 takes the brace for itself.
fn is_repetition(after: &str) -> bool {
    let Some((inner, _)) = after.split_once('}') else { return false };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match inner.split_once(',') {
        None => digits(inner),
        Some((least, most)) => digits(least) && (most.is_empty() || digits(most)),
    }
}

/// `match(a, expression)` for every row.
pub(super) fn matches(call: &Call<'_>, regular: &Regular) -> Result<BooleanArray, Error> {
    let strings = call.value(0)?.bytes()?;
    let values = BooleanBuffer::collect_bool(call.rows, |row| regular.is_match(strings.at(row)));
    Ok(BooleanArray::new(values, call.nulls()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_differently_is_refused() {
        for (text, word) in [
            ("a\\", "backslash"),
            ("\\pL", "\\p"),
            ("(?i)a", "(?i"),
            ("[a", "closed"),
            ("(a", "unclosed"),
            ("\\1", "\\1"),
            ("[[:nope:]]", "nope"),
            ("a{1000}{1000}{1000}", "exceeded"),
        ] {
            let error = Regular::new(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
