//! The servers' side: where they are, and the connections to them.

pub mod group;
pub mod pool;
pub mod resolve;
