//! One file per subcommand.

pub(crate) mod alerts;
pub(crate) mod archive;
pub(crate) mod check;
pub(crate) mod clickhouse;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod detect;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod init;
pub(crate) mod lineage;
pub(crate) mod plan;
pub(crate) mod produce;
pub(crate) mod quarantine;
pub(crate) mod query;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod swap;
pub(crate) mod tap;
pub(crate) mod test;
pub(crate) mod verify;
