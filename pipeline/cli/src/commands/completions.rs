//! `weir completions`: completions for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Outcome;
use crate::args::Cli;
use crate::out::text;

/// Prints the completions for `shell`.
pub(crate) fn run(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weir", &mut script);
    // Who closes the pipe has read enough.
    let _ = text(&script);
    Outcome::done()
}
