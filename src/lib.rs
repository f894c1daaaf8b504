//! Ringlane: an HTTP reverse proxy and load balancer for Linux, one shard per CPU core.

pub mod admin;
pub mod balance;
pub mod cli;
pub mod config;
pub mod downstream;
pub mod exchange;
pub mod http1;
pub mod net;
pub mod origin;
pub mod relay;
mod runtime;
pub mod server;
pub mod shard;
pub mod telemetry;
pub mod upstream;
