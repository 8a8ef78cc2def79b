//! The `creditstream` binary: parses the command line and delegates.

use std::process::ExitCode;

mod allocator;

fn main() -> ExitCode {
    allocator::keep_memory();
    creditstream::cli::main()
}
