//! Just enough lexing of ClickHouse SQL to know where an INSERT's data starts, which FORMAT a
//! query names and whether its result can be sent piece by piece.
//!
//! It never decides what a statement means: the engine parses it again. Quotes, comments and
//! brackets are skipped, so that a word inside them is never taken for a keyword.

/// An INSERT that takes its rows from data rather than from a SELECT.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Insert {
    /// The statement up to its FORMAT clause or VALUES.
    pub(crate) head: String,
    /// The format of the data; `Values` when the statement names none.
    pub(crate) format: String,
    /// Offset of the data's first byte in the text that was lexed.
    pub(crate) data_at: usize,
    /// False when the text ended before FORMAT or VALUES came.
    pub(crate) complete: bool,
}

/// What a statement that isn't such an INSERT shows of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Its first keyword in capitals; empty when the text holds none.
    pub(crate) first: String,
    /// The output format that it names itself.
    pub(crate) format: Option<String>,
    /// It mentions totals or extremes, rows of another kind behind the result's rows.
    pub(crate) has_totals: bool,
}

/// Words outside quotes and comments, as byte ranges with their depth of brackets.
struct Words<'text> {
    text: &'text [u8],
    at: usize,
    depth: usize,
}

struct Word<'text> {
    start: usize,
    end: usize,
    depth: usize,
    text: &'text [u8],
}

impl Word<'_> {
    fn is(&self, keyword: &str) -> bool {
        self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    fn is_one_of(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(keyword))
    }

    fn to_text(&self) -> String {
        String::from_utf8_lossy(self.text).into_owned()
    }
}

fn words(text: &[u8]) -> Words<'_> {
    Words { text, at: 0, depth: 0 }
}

fn belongs_to_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

impl<'text> Words<'text> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn skip_while(&mut self, keep: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&keep) {
            self.at += 1;
        }
    }

    fn skip_block_comment(&mut self) {
        self.at += 2;
        while self.at < self.text.len() && !self.text[self.at..].starts_with(b"*/") {
            self.at += 1;
        }
        self.at = (self.at + 2).min(self.text.len());
    }

    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            if byte == quote {
                break;
            }
            self.at += if byte == b'\\' { 2 } else { 1 };
        }
        self.at = (self.at + 1).min(self.text.len());
    }

    fn word(&self, start: usize) -> Word<'text> {
        Word { start, end: self.at, depth: self.depth, text: &self.text[start..self.at] }
    }
}

impl<'text> Iterator for Words<'text> {
    type Item = Word<'text>;

    fn next(&mut self) -> Option<Word<'text>> {
        while let Some(byte) = self.peek(0) {
            let start = self.at;
            match (byte, self.peek(1)) {
                (b'-', Some(b'-')) | (b'#', Some(b' ' | b'!')) => self.skip_while(|byte| byte != b'\n'),
                (b'/', Some(b'*')) => self.skip_block_comment(),
                (b'\'', _) => self.skip_quoted(byte),
                (b'"' | b'`', _) => {
                    self.skip_quoted(byte);
                    return Some(self.word(start));
                }
                (b'(' | b'[' | b'{', _) => {
                    self.depth += 1;
                    self.at += 1;
                }
                (b')' | b']' | b'}', _) => {
                    self.depth = self.depth.saturating_sub(1);
                    self.at += 1;
                }
                _ if belongs_to_word(byte) => {
                    self.skip_while(belongs_to_word);
                    return Some(self.word(start));
                }
                _ => self.at += 1,
            }
        }
        None
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `Some` when `text` is, or begins with, an INSERT that takes its rows from data.
pub(crate) fn insert_of(text: &[u8]) -> Option<Insert> {
    let mut words = words(text).filter(|word| word.depth == 0);
    if !words.next()?.is("INSERT") {
        return None;
    }
    let mut named = false;
    while let Some(word) = words.next() {
        if !named {
            named = !word.is_one_of(&["INTO", "TABLE", "FUNCTION"]);
            continue;
        }
        if word.is_one_of(&["SELECT", "WITH", "FROM", "WATCH"]) {
            return None;
        }
        if word.is("VALUES") {
            return Some(Insert {
                head: text_of(&text[..word.start]),
                format: "Values".into(),
                data_at: word.end,
                complete: true,
            });
        }
        if word.is("FORMAT") {
            let Some(format) = words.next() else { break };
            return Some(Insert {
                head: text_of(&text[..word.start]),
                format: format.to_text(),
                data_at: after_one_line_feed(text, format.end),
                complete: true,
            });
        }
    }
    let head = text_of(text);
    let head = head.trim_end().trim_end_matches(';').to_owned();
    Some(Insert { head, format: "Values".into(), data_at: text.len(), complete: false })
}

/// A server skips blanks and one line end behind the name of the format; the next byte is data.
fn after_one_line_feed(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | 0x0c)) {
        at += 1;
    }
    if matches!(text.get(at), Some(b';')) {
        at += 1;
    }
    if matches!(text.get(at), Some(b'\r')) {
        at += 1;
    }
    if matches!(text.get(at), Some(b'\n')) {
        at += 1;
    }
    at
}

/// First keyword, output format and totals of a statement.
pub(crate) fn shape_of(text: &[u8]) -> Shape {
    let mut shape = Shape::default();
    let mut after_format = false;
    for word in words(text) {
        if shape.first.is_empty() {
            shape.first = word.to_text().to_ascii_uppercase();
        }
        shape.has_totals |= word.is_one_of(&["TOTALS", "EXTREMES"]);
        if word.depth == 0 {
            if after_format {
                shape.format = Some(word.to_text());
            }
            after_format = word.is("FORMAT");
        }
    }
    shape
}

/// `name` in backquotes, so that it can't be anything but a name.
pub(crate) fn quoted_name(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// `text` as a string literal.
pub(crate) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_insert(text: &str, format: &str, data: &str) {
        let insert = insert_of(text.as_bytes()).expect("an INSERT with data");
        assert_eq!((insert.format.as_str(), &text[insert.data_at..]), (format, data), "{text}");
    }

    #[test]
    fn data_starts_behind_the_format() {
        check_insert(
            "/*c*/ insert into a.`FORMAT` (x, `values`) SETTINGS a='FORMAT b' FORMAT RowBinary\n\n\n1",
            "RowBinary",
            "\n\n1",
        );
        check_insert("INSERT INTO t FORMAT CSV \r\n1,2", "CSV", "1,2");
        check_insert("INSERT INTO t VALUES (1)", "Values", " (1)");
        check_insert("INSERT INTO FUNCTION null('x UInt8') -- FORMAT x\n FORMAT TSV\n1", "TSV", "1");
    }

    #[test]
    fn rows_of_a_select_are_not_data() {
        assert_eq!(insert_of(b"INSERT INTO t SELECT 1 FORMAT CSV"), None);
        assert_eq!(insert_of(b"INSERT INTO t (a) WITH 1 AS x SELECT x"), None);
        assert_eq!(insert_of(b"SELECT 'INSERT INTO t VALUES'"), None);
    }

    #[test]
    fn a_head_without_format_is_incomplete() {
        let insert = insert_of(b"INSERT INTO t (a, b);").expect("an INSERT");
        assert_eq!((insert.head.as_str(), insert.complete), ("INSERT INTO t (a, b)", false));
    }

    #[test]
    fn shapes() {
        let shape = shape_of(b"select 'FORMAT x' format JSON settings a=1");
        assert_eq!((shape.first.as_str(), shape.format.as_deref(), shape.has_totals), ("SELECT", Some("JSON"), false));
        assert_eq!(shape_of(b"(SELECT 1 FORMAT x) UNION ALL SELECT 2").format, None);
        assert!(shape_of(b"SELECT * FROM (SELECT 1) GROUP BY x WITH totals").has_totals);
        assert_eq!(shape_of(b" /* only a comment"), Shape::default());
    }

    #[test]
    fn unfinished_text_ends_the_words() {
        for text in ["'", "\\", "'\\", "`a", "/*", "INSERT INTO t FORMAT", "--", "((("] {
            let _ = (insert_of(text.as_bytes()), shape_of(text.as_bytes()));
        }
    }

    #[test]
    fn quoting() {
        assert_eq!(quoted_name("a`b\\"), "`a\\`b\\\\`");
        assert_eq!(quoted_text("it's\\"), "'it\\'s\\\\'");
    }
}
