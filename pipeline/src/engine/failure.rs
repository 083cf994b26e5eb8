//! The first failure: what stops a run is told, what follows from it isn't.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;

/// The first failure of any thread.
#[derive(Clone, Default)]
pub(super) struct FirstError(Arc<Mutex<Option<Error>>>);

impl FirstError {
    pub(super) fn set(&self, error: Error) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            tracing::error!(code = error.code(), %error, "stopping");
            *first = Some(error);
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
