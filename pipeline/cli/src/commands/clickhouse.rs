//! `weir clickhouse`: the ClickHouse engine over HTTP.

use weir_clickhouse::Options;

use crate::args::Clickhouse;
use crate::{Outcome, runtime};

/// Serves until it is told to stop.
pub(crate) fn run(arguments: &Clickhouse) -> Outcome {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(outcome) => return outcome,
    };
    let mut options = Options { data: arguments.path.clone(), listen: arguments.listen.clone(), ..Options::default() };
    if let Some(library) = &arguments.library {
        options.library.clone_from(library);
    }
    options.parent = arguments.parent;
    options.account = arguments.user.clone().zip(arguments.password.clone());
    let served = runtime.block_on(weir_clickhouse::serve(options));
    // A statement that can't be killed keeps a thread; the process must end nevertheless.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match served {
        Ok(()) => Outcome::done(),
        Err(error) => Outcome::unreachable(error.to_string(), "see `weir clickhouse --help`"),
    }
}
