//! A problem in something that a person wrote: where it stands, what is wrong, what to do.
//!
//! Configuration, SQL and schemas all report their problems in this one form, so that `weir check` can print
//! every one of them at once and in the same way.

use std::fmt;

/// One problem, with its place and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as it was given.
    pub file: String,
    /// Line and column, counted from 1; absent where the problem has no place in the text.
    pub at: Option<(usize, usize)>,
    /// The text of that line, for the caret.
    pub line: Option<String>,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem of a whole file.
    pub fn of_file(file: &str, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem { file: file.to_owned(), at: None, line: None, message: message.into(), remedy: remedy.into() }
    }

    /// A problem at the byte offset `offset` of `text`.
    pub fn at_offset(
        file: &str,
        text: &str,
        offset: usize,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Problem::at_line(file, text, (line, column), message, remedy)
    }

    /// A problem at line and column (from 1) of `text`.
    pub fn at_line(
        file: &str,
        text: &str,
        at: (usize, usize),
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        Problem {
            file: file.to_owned(),
            at: Some(at),
            line: text.lines().nth(at.0.saturating_sub(1)).map(str::to_owned),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => writeln!(f, "{}:{line}:{column}: {}", self.file, self.message)?,
            None => writeln!(f, "{}: {}", self.file, self.message)?,
        }
        if let (Some(text), Some((line, column))) = (&self.line, self.at) {
            let number = line.to_string();
            writeln!(f, "  {number} | {text}")?;
            writeln!(f, "  {:width$} | {:>column$}", "", "^", width = number.len())?;
        }
        write!(f, "  remedy: {}", self.remedy)
    }
}

/// The nearest of `known` to `written`, if it is near enough to be meant.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count() / 4)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_points_at_its_place() {
        let text = "a = 1\nworkes = 2\n";
        let problem = Problem::at_offset("p.toml", text, 6, "unknown key `workes`", "did you mean `workers`?");
        assert_eq!(
            problem.to_string(),
            "p.toml:2:1: unknown key `workes`\n  2 | workes = 2\n    | ^\n  remedy: did you mean `workers`?"
        );
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        assert_eq!(nearest("workes", ["workers", "state"]), Some("workers"));
        assert_eq!(nearest("colour", ["workers", "state"]), None);
    }
}
