//! Places in the text, and the problems found at them.

use sqlparser::ast::Spanned;
use sqlparser::keywords::Keyword;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};
use weir_operators::expr::Refusal;

use crate::problem::Problem;

/// The problems of one text.
pub(super) struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Problems<'a> {
        Problems { file, text, found: Vec::new() }
    }

    pub(super) fn add(&mut self, at: Location, message: impl Into<String>, remedy: impl Into<String>) {
        let problem = Problem::at_line(self.file, self.text, position(at), message, remedy);
        if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    pub(super) fn refuse(&mut self, at: Location, refusal: Refusal) {
        self.add(at, refusal.message, refusal.remedy);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Why a text wasn't planned, in the order of the text. There is always a reason: a text that were refused without a
    /// word would be a view, a column or a rule that silently isn't there.
    pub(super) fn into_refusal(self) -> Vec<Problem> {
        let mut found = self.found;
        if found.is_empty() {
            let message = "this can't be planned, and the planner doesn't say why: that is a bug of Weir's";
            let remedy = "write it differently, and report the text";
            found.push(Problem::at_line(self.file, self.text, (1, 1), message, remedy));
        }
        found.sort_by_key(|problem| problem.at);
        found
    }

    /// A text that doesn't parse.
    pub(super) fn add_parser_error(&mut self, error: ParserError) {
        let (message, remedy) = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
                (message, "check the SQL at this place; it must be one SELECT of ClickHouse")
            }
            ParserError::RecursionLimitExceeded => {
                ("the expression is nested too deeply".to_owned(), "write it with fewer parentheses and calls")
            }
        };
        let (message, at) = split_place(&message);
        self.add(at, message, remedy);
    }
}

/// sqlparser writes the place at the end of the message.
fn split_place(message: &str) -> (String, Location) {
    let parsed = message.rsplit_once(" at Line: ").and_then(|(before, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((before.to_owned(), Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }))
    });
    parsed.unwrap_or_else(|| (message.to_owned(), Location { line: 1, column: 1 }))
}

fn position(at: Location) -> (usize, usize) {
    let whole = |number: u64| usize::try_from(number).unwrap_or(1).max(1);
    (whole(at.line), whole(at.column))
}

/// Where a node begins; `fallback` where the parser doesn't know.
pub(super) fn start(node: &impl Spanned, fallback: Location) -> Location {
    let span = node.span();
    if span == Span::empty() { fallback } else { span.start }
}

/// Where a keyword stands first.
pub(super) fn keyword(tokens: &[TokenWithSpan], wanted: Keyword) -> Location {
    tokens
        .iter()
        .find(|token| matches!(&token.token, Token::Word(word) if word.keyword == wanted))
        .map_or(Location { line: 1, column: 1 }, |token| token.span.start)
}
