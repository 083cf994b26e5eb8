//! What a name stands for: a column of the events and the aliases of the SELECT, or, in HAVING, the SELECT's columns.

use std::collections::BTreeMap;

use sqlparser::ast;
use weir_operators::expr::Expr;
use weir_operators::view::{Dimension, Measure};
use weir_schemas::stage::{Column, system};

use super::SourceColumns;

/// Where an expression stands.
pub(super) enum Scope<'a> {
    /// Over the events.
    Events {
        /// The source.
        source: &'a SourceColumns,
        /// The names that may stand before a column and a dot.
        qualifiers: Vec<String>,
        /// The aliases of the SELECT.
        aliases: BTreeMap<String, &'a ast::Expr>,
    },
    /// Over the SELECT's own columns, in HAVING.
    Outputs {
        /// The columns in their order.
        columns: Vec<Column>,
        /// The dimensions, with their index among the columns.
        dimensions: Vec<(usize, &'a Dimension)>,
        /// The measures, with their index among the columns.
        measures: Vec<(usize, &'a Measure)>,
        /// The scope of what the measures aggregate.
        events: Box<Scope<'a>>,
    },
}

impl Scope<'_> {
    /// The column of that name.
    pub(super) fn column(&self, name: &str) -> Option<Expr> {
        let (columns, first) = match self {
            Scope::Events { source, .. } => (&source.columns, system::COUNT),
            Scope::Outputs { columns, .. } => (columns, 0),
        };
        let at = columns.iter().position(|column| column.name == name)?;
        Some(Expr::Column {
            index: first + at,
            name: name.to_owned(),
            column_type: columns.get(at)?.column_type.clone(),
        })
    }

    /// Every name that would be known.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Scope::Events { source, aliases, .. } => source
                .columns
                .iter()
                .map(|column| column.name.as_str())
                .chain(aliases.keys().map(String::as_str))
                .collect(),
            Scope::Outputs { columns, .. } => columns.iter().map(|column| column.name.as_str()).collect(),
        }
    }
}
