//! Tests of the judge, in one binary.

#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

mod detection;
mod generate;
mod nab;
mod scoring;
mod series;
