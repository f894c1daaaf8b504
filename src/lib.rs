//! Ringlane: an HTTP reverse proxy and load balancer for Linux, one shard per CPU core.
//!
//! # A request's journey
//!
//! ```text
//! cli ──> server ──> shard ──> downstream ──> exchange ──┬──> http1      what the bytes mean, and what is sent on
//!                                                        ├──> balance    whose turn it is
//!                                                        ├──> upstream   a connection to that server
//!                                                        └──> net        the kernel
//! ```
//!
//! 1. [`cli`] reads the command line and [`config`] the file; [`server`] opens the listeners and starts one [`shard`] on each CPU,
//!    a thread with its own ring. Nothing that follows leaves that thread.
//! 2. [`downstream::accept`] takes a connection; [`downstream::connection`] waits, without a buffer, until bytes come.
//! 3. [`exchange::request`] reads the head by the rules of [`http1`], finds the route and writes the head for the upstream.
//! 4. [`exchange::attempt`] has a server chosen ([`balance`]), takes or makes a connection ([`upstream`]), sends, and asks
//!    `exchange::retry` whether another attempt may follow. [`exchange::upload`] passes the rest of the body on while
//!    [`exchange::response`] passes the answer back; a 101 turns both into [`exchange::tunnel`].
//! 5. Waits, sockets, the ring and the clock are in [`net`], the only place with unsafe code. [`net::deadline`] has every timeout.
//! 6. What happened is counted in [`telemetry`] and shown by [`admin`].
//!
//! [`origin`] and [`relay`] stand beside the proxy: something to put behind it, and the floor to measure it against.

pub mod admin;
pub mod balance;
pub mod cli;
pub mod config;
pub mod downstream;
pub mod exchange;
pub mod health;
pub mod http1;
pub mod net;
pub mod origin;
pub mod relay;
mod runtime;
pub mod server;
pub mod shard;
pub mod telemetry;
pub mod upstream;
