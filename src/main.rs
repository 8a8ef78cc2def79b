//! The `creditstream` binary: parses the command line and delegates.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    creditstream::cli::main()
}
