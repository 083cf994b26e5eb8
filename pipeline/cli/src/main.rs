//! The `weir` program with the built-in operators.

fn main() -> std::process::ExitCode {
    weir::main(weir::OperatorRegistry::default())
}
