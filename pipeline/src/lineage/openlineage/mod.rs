//! OpenLineage: what reads and writes what, and which field reaches which column, told to whoever keeps such maps.
//!
//! ```text
//! pipeline file, plans ─▶ graph: jobs, datasets, columns ─▶ events ─▶ a bounded queue per target ─▶ HTTP, topic, file
//!                                                             ▲
//!              start of a run, every so often, its end ───────┘ with what was written by then
//! ```
//! Jobs are the pipeline itself (the parent of the others), one per view, one per source for the accepted events and one
//! for the quarantine, one for alerts and one per operator of a team's own.
//!
//! Invariants: nothing here can hold up, slow down or stop the pipeline: a target that is away, slow or silent costs its
//! events, which are counted (`weir_lineage_events_total`), and at the end of a run a wait of a few seconds at most. Memory is
//! bounded by the queues. No event holds a secret, an event's value or an error's text.
//!
//! Not here: lineage of rows (`explain`); what becomes of columns behind ClickHouse's tables.

pub mod columns;
mod emitter;
mod events;
mod graph;
mod names;
mod targets;

pub use emitter::{Emission, Emitter, Ended};
pub use events::static_events;
pub use graph::{Dataset, Graph, Job, Uses, Written, graph_of};
pub use targets::{Target, targets_of};
