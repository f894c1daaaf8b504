//! The HTTP/1.1 codec: bytes in, values out. It knows no socket, no clock and no configuration.
//!
//! ```text
//! received bytes ── head ──> RequestHead / ResponseHead ── framing ──> Framing ── body/chunked ──> data runs
//!                                   └──────────── forward ────────────> the head that goes on, written freshly
//! ```
//!
//! What is ambiguous is refused (RFC 9112 section 11): see [`refusal::Refusal`] for every reason.

pub mod answer;
pub mod body;
pub mod chunked;
pub mod class;
pub mod client;
pub mod cookie;
pub mod field;
pub mod forward;
pub mod framing;
pub mod head;
#[cfg(test)]
mod properties;
pub mod refusal;
pub mod target;
