//! What can go wrong on the way out, and whether trying again can help.

/// Why a sink could not be made, or a batch not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A batch does not have the columns that its table was declared with: a bug.
    #[error("rows of table {table} do not fit its declaration: {detail}")]
    Columns {
        /// The table.
        table: String,
        /// Which column, and how it differs.
        detail: String,
    },
    /// A setting that cannot work.
    #[error("{setting}: {detail}")]
    Setting {
        /// The setting's name in the pipeline file.
        setting: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// A table exists, but not as the pipeline needs it, and changing it could lose data.
    #[error("table {table}: {detail}; {remedy}")]
    Refused {
        /// The table, with its database.
        table: String,
        /// What differs.
        detail: String,
        /// What a person can do.
        remedy: String,
    },
    /// The destination could not be reached or refused.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

/// Why a delivery failed, by what helps: time, or a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The same delivery may succeed later: the destination is away, slow, or full for now.
    #[error("{why}")]
    Retriable {
        /// What the destination said.
        why: String,
    },
    /// The same delivery will fail again until somebody acts.
    #[error("{why}; {remedy}")]
    Fatal {
        /// What the destination said.
        why: String,
        /// What a person can do.
        remedy: String,
    },
}
