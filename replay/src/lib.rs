//! Invented time, failure and input: local parts, made-up events, scenarios, the comparison of what Weir keeps with what
//! ClickHouse computes, and history that is run again.

pub mod compare;
pub mod diff;
pub mod parts;
pub mod produce;
pub mod rerun;
pub mod restore;
pub mod simulate;
pub mod swap;
pub mod verify;
