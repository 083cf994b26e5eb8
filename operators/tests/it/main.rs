//! Integration tests of the operators, in one binary.

mod adaptor;
mod deduplicate;
mod detect;
mod events;
mod harness;
mod ledger;
mod script;
mod states;
mod tables;
mod view;
mod window;
