//! SQL against ClickHouse itself, and what is refused at which place.

mod data;
mod facts;
mod generate;
mod lineage;
mod oracle;
mod prove;
mod refusals;
mod views;
