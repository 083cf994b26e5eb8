//! Tests of what invents time, failure and input, on real parts.

mod parts;
mod produce;
mod registry;
