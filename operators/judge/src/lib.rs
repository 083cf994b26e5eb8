//! What is normal and what is not: judging the counts of closed windows, without I/O, clock or threads.
//!
//! Numbers in, judgements out. Two things are judged: a *series* (one number per window, against its own past by hour of
//! week) and a *share* (so many of so many, of a release against the other releases at the same time). Everything is
//! online and in one pass, with constant memory per series, so that the same log gives the same judgements.
//!
//! Not here: how counts are taken from events (`weir-operators`), where state is kept, where alerts go.

pub mod series;
mod tails;
