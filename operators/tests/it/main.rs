//! Integration tests of the operators, in one binary.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

mod adaptor;
mod codes;
mod deduplicate;
mod detect;
mod events;
mod harness;
mod judge;
mod judge_signals;
mod ledger;
mod plan;
mod profile;
mod record;
mod script;
mod sequence;
mod states;
mod steps;
mod tables;
mod unique;
mod view;
mod window;
