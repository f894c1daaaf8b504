//! The clients' side: accepting connections, and one connection's life.

pub mod accept;
pub mod connection;
