//! A team's own `weir`: every command of the program, and one more operator to name in the pipeline file.

fn main() -> std::process::ExitCode {
    weir::main(weir::OperatorRegistry::default().with("abandoned_carts", weir_example::describe))
}
