//! The program as a user runs it, on real Kafka, registry and ClickHouse engine; and the house's own rules.

#![allow(clippy::unwrap_used, reason = "a test or benchmark ends where it can't go on")]

mod ahead;
mod alerts;
mod alerts_killed;
mod analyst;
mod archive;
mod archive_replay;
mod begins;
mod browser;
mod clients;
mod console;
mod dashboards;
mod demo;
mod detect;
mod disk;
mod engineer;
mod evaluable;
mod followed;
mod history;
mod idle;
mod judged;
mod lineage;
mod log;
mod mutated;
#[path = "../../../../schemas/tests/it/mutations.rs"]
mod mutations;
mod openlineage;
mod parked;
mod plan;
mod precedents;
mod program;
mod quarantine;
mod reasons;
mod receivers;
mod refusals;
mod replay;
mod resumed;
mod retail;
mod retail_replay;
mod retail_rules;
mod rules;
mod scenario;
mod schema;
mod secured;
mod sequence;
mod shop;
mod swapped;
mod tidy;
mod topics;
mod unique;
