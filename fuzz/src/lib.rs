//! What must hold for any input of a parser. Each fuzz target calls one of these; `tests/fuzz_seeds.rs` calls them with the seeds.
//!
//! A check returns when all is well and panics when it is not.

pub mod body;
pub mod chunked;
pub mod config;
pub mod cookie;
pub mod foreign;
pub mod forward_request;
pub mod forward_response;
pub mod forwarded_for;
pub mod head;
pub mod strict;

use ringlane::http1::head::Limits;

/// Small, so that small inputs reach them.
pub const LIMITS: Limits = Limits {
    head_bytes: 2048,
    fields: 16,
    target_bytes: 256,
};

/// Ends of pieces to cut `input` into. They depend on its bytes alone, so that every run can be repeated.
fn cuts(input: &[u8]) -> Vec<usize> {
    // FNV-1a for the start, xorshift for the steps.
    let mut state = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    }) | 1;
    let mut ends = Vec::new();
    let mut at = 0;
    while at < input.len() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        at = (at + 1 + state as usize % 16).min(input.len());
        ends.push(at);
    }
    ends
}
