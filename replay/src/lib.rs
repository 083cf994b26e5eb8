//! Invented time, failure and input: local parts, made-up events, and the comparison of what Weir keeps with what
//! ClickHouse computes.

pub mod parts;
pub mod produce;
pub mod verify;
