//! Integration tests of the operators, in one binary.

mod adaptor;
mod script;
mod tables;
mod window;
