//! One request and its response: choose a server, send, pass the answer on, perhaps try again.
//!
//! ```text
//! request ──> route ──> attempt (choose, connect) ──> upload ─┐
//!                          ^        │                         ├─ both at once
//!                          └ retry ─┴──────────> response <───┘ ──> download, or tunnel when the answer is 101
//! ```

pub mod attempt;
pub mod client;
pub mod conclusion;
mod connection;
mod download;
mod duplex;
#[cfg(debug_assertions)]
pub mod fault;
pub mod gate;
mod hash_key;
mod interim;
pub mod lane;
pub mod memory;
pub mod pace;
pub mod presence;
mod queue;
pub mod rare;
pub mod rate;
pub mod record;
pub mod request;
pub mod response;
mod retry;
pub mod route;
mod spare;
mod sticky;
pub mod transfer;
pub mod tunnel;
pub mod upload;
mod uptake;
