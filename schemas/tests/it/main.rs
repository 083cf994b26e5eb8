//! The crate's integration tests, one binary.

mod cases;
mod cells;
mod codes;
mod encode;
mod evolve;
mod files;
mod generate;
mod logical;
mod mutate;
mod mutations;
mod reader;
mod registry;
mod write;

/// Keeps `apache-avro` from taking 512 MiB at the word of a mutated length. Its limit can be set once for the process,
/// before it reads anything, so every test that lets it read calls this first.
fn cap_the_oracle() {
    apache_avro::util::max_allocation_bytes(4 << 20);
}
