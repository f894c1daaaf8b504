//! The servers' side: where they are, and the connections to them.

pub mod group;
pub mod load;
pub mod pool;
pub mod resolve;
pub mod sticky;
pub mod watch;
