//! Reading a pipeline file.
