//! What is computed: the [`Operator`](operator::Operator) trait over timely, keyed state on RocksDB, and
//! every operator.
//!
//! Operators take facts and return decisions. There is no network, no clock and no thread in them: wall
//! time reaches them as data, event time is a column, and what they emit leaves through the
//! [`Context`](operator::Context). They know neither Kafka nor ClickHouse.

pub mod account;
pub mod adaptor;
pub mod aggregate;
pub mod combine;
mod content;
pub mod deduplicate;
mod derived;
pub mod detect;
mod drive;
pub mod effort;
pub mod error;
pub mod expr;
mod group_key;
pub mod judge;
pub mod leave_out;
pub mod maintain;
pub mod moment;
pub mod operator;
pub mod plan;
pub mod profile;
pub mod prove;
pub mod record;
pub mod refuse;
pub mod route;
pub mod rule;
pub mod script;
pub mod sequence;
pub mod state;
pub mod tally;
mod through;
mod timers;
pub mod unique;
pub mod view;
pub mod violations;
pub mod wanted;
pub mod window;
pub mod within;
