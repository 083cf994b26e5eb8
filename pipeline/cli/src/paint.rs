//! Colour and tables for people at a terminal.
//!
//! NO_COLOR (<https://no-color.org>) turns colour off wherever it is set to anything but nothing, and so does an output
//! that isn't a terminal.

use std::fmt;

use comfy_table::{ContentArrangement, presets};
use console::{Style, Term};

use crate::out::safe;

/// Decides once, at start, whether this process paints.
pub(crate) fn decide() {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    console::set_colors_enabled(!refused && Term::stdout().is_term());
    console::set_colors_enabled_stderr(!refused && Term::stderr().is_term());
}

/// What went well.
pub(crate) fn good(text: &str) -> String {
    Style::new().green().apply_to(text).to_string()
}

/// What went wrong.
pub(crate) fn bad(text: &str) -> String {
    Style::new().red().bold().apply_to(text).to_string()
}

/// What to look at.
pub(crate) fn bold(text: &str) -> String {
    Style::new().bold().apply_to(text).to_string()
}

/// What explains.
pub(crate) fn dim(text: &str) -> String {
    Style::new().dim().apply_to(text).to_string()
}

/// A table without frames whose columns line up, whatever stands in its cells.
pub(crate) struct Table(comfy_table::Table);

/// A table with these columns.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| bold(name)));
    Table(table)
}

impl Table {
    /// Sets a column's cells at its right, as numbers are.
    pub(crate) fn align_right(&mut self, column: usize) {
        if let Some(column) = self.0.column_mut(column) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }

    /// Adds a row. What a terminal would act upon is escaped before the columns are measured.
    pub(crate) fn add_row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.add_row(cells.into_iter().map(|cell| safe(cell.as_ref()).into_owned()));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A count with its thousands apart: `1 234 567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that leaves a whole number before the point.
pub(crate) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{number} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_bytes_have_a_unit() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(count(123), "123");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
    }
}
