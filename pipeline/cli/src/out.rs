//! The one way to standard output and standard error.
//!
//! Much of what is printed was sent by somebody: names, values, reasons. So control characters leave as `\u001b`, save line
//! breaks, tabs and the few colours of `paint`: what an event holds can't move the cursor, hide text or speak to the
//! terminal. In JSON the escapes mean what they stand for. [`printable`] is for single values, which have no line breaks.
//!
//! Invariant: a reader that has gone away, as `head` does, ends nothing and is no error; the rest is left unsaid.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::Write;

/// The escape sequences that `paint` writes.
const COLOURS: [&str; 5] = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m"];

/// Prints a line on standard output, as `println!` does.
macro_rules! say {
    ($($text:tt)*) => {{
        // Whoever prints many lines asks `line` whether somebody still reads them.
        let _ = $crate::out::line(format_args!($($text)*));
    }};
}

/// Prints a line on standard error, as `eprintln!` does.
macro_rules! complain {
    ($($text:tt)*) => { $crate::out::error_line(format_args!($($text)*)) };
}

pub(crate) use {complain, say};

/// Prints a line; false when nobody reads any more.
pub(crate) fn line(text: Arguments<'_>) -> bool {
    let text = text.to_string();
    writeln!(std::io::stdout().lock(), "{}", safe(&text)).is_ok()
}

/// Prints text as it is, which no sender has a part in; false when nobody reads any more.
pub(crate) fn text(text: &[u8]) -> bool {
    let mut output = std::io::stdout().lock();
    output.write_all(text).and_then(|()| output.flush()).is_ok()
}

/// Prints a line on standard error; that nobody reads it can't be told anywhere.
pub(crate) fn error_line(text: Arguments<'_>) {
    let text = text.to_string();
    let _ = writeln!(std::io::stderr().lock(), "{}", safe(&text));
}

/// A question on standard error, without a line break behind it.
pub(crate) fn ask(text: Arguments<'_>) {
    let text = text.to_string();
    let _ = write!(std::io::stderr().lock(), "{}", safe(&text));
}

/// Text of several lines and in colour, with everything escaped that could do more to a terminal.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    escaped(text, |rest, c| {
        if matches!(c, '\n' | '\t') {
            return c.len_utf8();
        }
        COLOURS.iter().find(|colour| rest.starts_with(**colour)).map_or(0, |colour| colour.len())
    })
}

/// A single value: neither line breaks nor colours.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |_, _| 0)
}

/// Escapes what a terminal would act upon, but for as many bytes as `passes` lets through at a place.
fn escaped(text: &str, passes: impl Fn(&str, char) -> usize) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let passed = if acts(c) { passes(rest, c) } else { c.len_utf8() };
        let (head, tail) = rest.split_at(passed.max(c.len_utf8()));
        match (passed, c) {
            (1.., _) => out.push_str(head),
            (0, '\n') => out.push_str("\\n"),
            (0, '\r') => out.push_str("\\r"),
            (0, '\t') => out.push_str("\\t"),
            (0, c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
        rest = tail;
    }
    Cow::Owned(out)
}

/// Whether a terminal may do something else with a character than show it: control characters, and those that turn the
/// direction of writing, behind which text can hide. All of them are written with four digits.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sender_wrote_cant_speak_to_the_terminal() {
        let hostile = "a\u{1b}[2Jb\u{1b}]0;title\u{7}c\u{9b}31md\u{202e}e\rf";
        assert_eq!(safe(hostile), "a\\u001b[2Jb\\u001b]0;title\\u0007c\\u009b31md\\u202ee\\rf");
        assert_eq!(printable("two\nlines\t\u{1b}[31m"), "two\\nlines\\t\\u001b[31m");
        let hidden = "\u{1b}[8mhidden";
        assert_eq!(safe(hidden), "\\u001b[8mhidden", "only our own colours pass");
    }

    #[test]
    fn our_own_text_passes_as_it_is() {
        let ours = "\u{1b}[31m\u{1b}[1mbad\u{1b}[0m\tname: Zoë 名\nnext";
        assert_eq!(safe(ours), ours);
        assert!(matches!(printable("plain, 'quoted' \\ and Zoë"), Cow::Borrowed(_)));
    }

    #[test]
    fn escapes_within_json_mean_the_same() {
        let json = serde_json::to_string("a\u{7f}b\u{9b}c").expect("JSON");
        assert_eq!(serde_json::from_str::<String>(&safe(&json)).expect("JSON still"), "a\u{7f}b\u{9b}c");
    }
}
