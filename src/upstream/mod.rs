//! The servers' side: where they are, and the connections to them.

pub mod budget;
pub mod group;
pub mod load;
pub mod place;
pub mod pool;
pub mod queue;
pub mod resolve;
pub mod sticky;
pub mod watch;
