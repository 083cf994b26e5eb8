//! Integration tests of the operators, in one binary.

<<<<<<< HEAD
mod adaptor;
mod deduplicate;
mod detect;
mod events;
mod harness;
mod ledger;
mod script;
mod tables;
=======
mod states;
>>>>>>> 67a614e (Check every state against ClickHouse, both ways, and by bytes that it wrote)
mod window;
