//! A schema that an operator makes of its input's: made once, as the batches of a stream share theirs.

use std::sync::Arc;

use arrow_schema::{Field, Fields, Schema, SchemaRef};

/// The newest input schema with what was made of it.
#[derive(Debug, Default)]
pub(crate) struct Derived(Option<(SchemaRef, SchemaRef)>);

impl Derived {
    /// The schema that `make` makes of the fields of `of`.
    pub(crate) fn of<F: Into<Fields>>(&mut self, of: SchemaRef, make: impl FnOnce(&Fields) -> F) -> SchemaRef {
        if let Some((known, made)) = &self.0
            && Arc::ptr_eq(known, &of)
        {
            return made.clone();
        }
        let made = Arc::new(Schema::new(make(of.fields())));
        self.0 = Some((of, made.clone()));
        made
    }

    /// The schema of the first `columns` of `of`.
    pub(crate) fn first(&mut self, of: SchemaRef, columns: usize) -> SchemaRef {
        self.of(of, |fields| fields.iter().take(columns).cloned().collect::<Fields>())
    }

    /// The schema of `of` with further columns behind its own.
    pub(crate) fn extended(&mut self, of: SchemaRef, further: impl FnOnce() -> [Field; 3]) -> SchemaRef {
        self.of(of, |fields| fields.iter().cloned().chain(further().map(Arc::new)).collect::<Fields>())
    }
}
