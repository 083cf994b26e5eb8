//! Aggregate states against ClickHouse: by bytes that it wrote once, and by asking it.

mod calls;
mod corrupt;
mod deltas;
mod engine;
mod golden;
mod oracle;
mod values;
