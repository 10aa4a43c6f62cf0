//! The program `limber`.

use std::process::ExitCode;

fn main() -> ExitCode {
    limber::cli::main()
}
