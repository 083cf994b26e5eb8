//! Integration tests of the operators, in one binary.

mod adaptor;
mod deduplicate;
mod detect;
mod events;
mod harness;
mod ledger;
mod record;
mod script;
mod states;
mod steps;
mod tables;
mod view;
mod window;
