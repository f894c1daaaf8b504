//! Rare parts of an exchange.

use std::pin::Pin;

/// Puts a part of an exchange that is rare out of the way: into a box, so that what every exchange holds stays small, and behind a pointer
/// to its code, which the compiler would else merge into the code that runs for every request.
#[cold]
#[inline(never)]
pub fn rare<'x, T>(part: impl Future<Output = T> + 'x) -> Pin<Box<dyn Future<Output = T> + 'x>> {
    Box::pin(part)
}
