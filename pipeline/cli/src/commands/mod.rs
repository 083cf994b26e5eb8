//! One file per subcommand.

pub mod check;
pub mod clickhouse;
pub mod completions;
pub mod demo;
pub mod init;
pub mod produce;
pub mod run;
pub mod status;
pub mod verify;
