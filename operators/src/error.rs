//! The errors of operators. Each one stops the pipeline before the epoch's commit, so nothing is lost;
//! a bad *event* is never an error but a row with a reason.

/// Why an operator could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state's disk failed, is full, or holds something else than this program wrote.
    #[error("state of operator {operator}: {detail}")]
    State {
        /// The operator's name.
        operator: String,
        /// What happened, and where it is known, the remedy.
        detail: String,
    },
    /// Bytes of an aggregate state that no version of ClickHouse or Weir writes.
    #[error("aggregate state of {function}: {detail}")]
    AggregateState {
        /// The function's name, as in SQL.
        function: String,
        /// What is wrong with the bytes.
        detail: String,
    },
    /// An expression met a value that ClickHouse refuses at run time, too.
    #[error("expression {expression}: {detail}")]
    Evaluation {
        /// The expression's text.
        expression: String,
        /// What ClickHouse would say.
        detail: String,
    },
    /// A batch that does not have the columns that its stage type promises: a bug.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// A team's own operator failed.
    #[error("operator {operator}: {detail}")]
    Custom {
        /// The operator's name.
        operator: String,
        /// What it said.
        detail: String,
    },
}
