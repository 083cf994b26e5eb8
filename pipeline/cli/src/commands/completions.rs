//! `weir completions`: completions for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Outcome;
use crate::args::Cli;

/// Prints the completions for `shell`.
pub(crate) fn run(shell: Shell) -> Outcome {
    clap_complete::generate(shell, &mut Cli::command(), "weir", &mut std::io::stdout());
    Outcome::done()
}
