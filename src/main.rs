//! The command line.

use std::process::ExitCode;

// A sanitizer must see every allocation, so it brings its own allocator.
#[cfg(not(sanitizer))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringlane::cli::main()
}
