//! The command line.

use std::process::ExitCode;

use ringlane::net::heap::Counted;

#[cfg(not(sanitizer))]
#[global_allocator]
static ALLOCATOR: Counted<mimalloc::MiMalloc> = Counted(mimalloc::MiMalloc);

// A sanitizer must see every allocation: it stands behind the system's allocator.
#[cfg(sanitizer)]
#[global_allocator]
static ALLOCATOR: Counted<std::alloc::System> = Counted(std::alloc::System);

fn main() -> ExitCode {
    ringlane::cli::main()
}
