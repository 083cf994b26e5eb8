//! Tests of the judge, in one binary.

#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

mod alerts;
mod detection;
mod generate;
mod judging;
mod metrics;
mod nab;
mod scoring;
mod series;
mod shares;
mod types;
