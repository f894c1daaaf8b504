//! Ringlane: an HTTP reverse proxy and load balancer for Linux, one shard per CPU core.

pub mod config;
pub mod http1;
pub mod telemetry;
