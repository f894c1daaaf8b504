//! What Ringlane counts and how it says so: counters, latency histograms, the access log, Prometheus text.
//!
//! Every shared word here has one writer, the shard that owns it, but those of [`memory`], which change now and then. Readers add the
//! shards up; nobody locks.

mod access_format;
pub mod access_log;
mod access_sink;
pub mod clients;
pub mod counters;
pub mod date;
pub mod histogram;
pub mod memory;
pub mod process;
pub mod prometheus;
pub mod view;
