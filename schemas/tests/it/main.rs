//! The crate's integration tests, one binary.

mod cases;
mod cells;
mod evolve;
mod files;
mod generate;
mod logical;
mod mutate;
mod reader;
mod registry;
