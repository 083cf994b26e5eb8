//! Why the archive can't be used.

/// What went wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or an option of the pipeline file can't be used.
    #[error("{0}")]
    Settings(String),
    /// The store didn't answer, or refused.
    #[error("archive at {url}: {what}: {detail}")]
    Store {
        /// The archive's address.
        url: String,
        /// What was to be done, with the object's name.
        what: String,
        /// What the store said.
        detail: String,
    },
    /// An object that isn't what the manifest says, or a manifest that can't be read.
    #[error("{object}: {detail}")]
    Damaged {
        /// The object's name.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Somebody else has made the commit of this number: what was decided has to be decided again.
    #[error("somebody else wrote commit {number} of the archive's manifest; look again and decide anew")]
    Conflict {
        /// The number.
        number: u64,
    },
    /// Something that can't happen with the files that this crate writes.
    #[error("{0}; this is a bug")]
    Bug(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_retry(&self) -> bool {
        matches!(self, Error::Store { .. } | Error::Conflict { .. })
    }

    pub(crate) fn damaged(object: &str, detail: impl ToString) -> Error {
        Error::Damaged { object: object.to_owned(), detail: detail.to_string() }
    }
}
