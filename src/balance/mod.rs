//! Balancing policies: who gets the next request. They know no socket, no clock and no configuration file.

pub mod round_robin;
