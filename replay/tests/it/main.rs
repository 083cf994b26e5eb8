//! Tests of what invents time, failure and input, on real parts and on invented ones.

#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

mod parts;
mod produce;
mod registry;
mod simulate;
