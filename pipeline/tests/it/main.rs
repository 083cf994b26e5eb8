//! The runtime against invented sources and destinations: real timely workers, real RocksDB, no network.

mod crash;
mod invented;
mod limits;
mod outbox;
mod pages;
mod recovery;
mod refusals;
mod straight;
