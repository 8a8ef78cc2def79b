//! The `creditstream` binary: parses the command line and delegates.

use std::process::ExitCode;

fn main() -> ExitCode {
    creditstream::cli::main()
}
