//! Integration tests of the operators, in one binary.

mod window;
