//! What Ringlane counts and how it says so: counters, latency histograms.
//!
//! Every word here has one writer, the shard that owns it. Readers add the shards up; nobody locks.

pub mod counters;
pub mod histogram;
