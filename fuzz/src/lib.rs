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
pub mod probe_response;
pub mod status_request;
pub mod strict;

use ringlane::http1::head::{Limits, Progress, RequestHead};

/// Small, so that small inputs reach them.
pub const LIMITS: Limits = Limits {
    head_bytes: 2048,
    fields: 16,
    target_bytes: 256,
};

/// A request with a field of this name for each value, and its head where that is valid.
fn request_with<'v>(
    name: &str,
    values: impl Iterator<Item = &'v [u8]>,
) -> Option<(Vec<u8>, RequestHead)> {
    let mut bytes = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    for value in values {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    let mut head = RequestHead::default();
    match head.parse(&bytes, &LIMITS) {
        Ok(Progress::Complete(_)) => Some((bytes, head)),
        _ => None,
    }
}

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
