//! Which servers are healthy.
//!
//! One thread, the [`Monitor`], asks every server in its own rhythm (`probe`), hears from the shards which servers failed their
//! requests (`passive`), takes operators' orders (`steer`), draws its conclusions (`judge`) and writes them to the [`table`]. Shards
//! read the table without a lock and never wait for the monitor.

mod judge;
mod monitor;
pub mod overview;
mod passive;
mod probe;
pub mod response;
mod steer;
pub mod table;

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

pub use monitor::{Change, Clock, Monitor};
pub use passive::{Failure, Reporter};
pub use steer::{Helm, Order, Steer};

use crate::config::{Check, Passive};
use crate::net::connect::{Address, Options};

/// Health of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It gets requests.
    Up,
    /// Probes fail: it gets none.
    Down,
    /// Requests failed on it: it gets none for a time.
    Ejected,
}

impl State {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Ejected];

    /// Its name, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }

    /// The state with this number; a number that none has is down.
    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Up,
            2 => Self::Ejected,
            _ => Self::Down,
        }
    }
}

/// Why a server is in its state, or how a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// Nothing is known yet; taken to be healthy.
    Assumed,
    /// The probe was answered as it should be.
    ProbeOk,
    /// The server has no address: its name does not resolve.
    NoAddress,
    /// The probe could not connect.
    Connect,
    /// The probe was not answered in time.
    Timeout,
    /// The connection was closed before the answer was complete.
    Closed,
    /// The answer is not HTTP/1.
    NotHttp,
    /// The answer has a status that is not expected.
    Status,
    /// The answer's body does not have the expected text.
    Body,
    /// Requests failed: no connection.
    RequestsConnect,
    /// Requests failed: connection reset or closed early.
    RequestsReset,
    /// Requests failed: no answer in time.
    RequestsTimeout,
    /// Requests were answered with something else than HTTP/1.
    RequestsInvalid,
    /// Requests were answered with a status that counts as a failure.
    RequestsStatus,
    /// The ejection is over.
    EjectionOver,
}

impl Cause {
    const ALL: [Self; 15] = [
        Self::Assumed,
        Self::ProbeOk,
        Self::NoAddress,
        Self::Connect,
        Self::Timeout,
        Self::Closed,
        Self::NotHttp,
        Self::Status,
        Self::Body,
        Self::RequestsConnect,
        Self::RequestsReset,
        Self::RequestsTimeout,
        Self::RequestsInvalid,
        Self::RequestsStatus,
        Self::EjectionOver,
    ];

    #[cfg(all(test, not(loom)))]
    const COUNT: u8 = Self::ALL.len() as u8;

    fn from_code(code: u8) -> Self {
        Self::ALL
            .get(usize::from(code))
            .copied()
            .unwrap_or(Self::Assumed)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Assumed => "taken for up at the start",
            Self::ProbeOk => "the probe is answered as expected",
            Self::NoAddress => "the server's name has no address",
            Self::Connect => "the probe cannot connect",
            Self::Timeout => "the probe is not answered in time",
            Self::Closed => {
                "the server closes the probe's connection before the answer is complete"
            }
            Self::NotHttp => "the probe's answer is not HTTP/1",
            Self::Status => "the probe's answer has another status than expected",
            Self::Body => "the probe's answer lacks the expected text",
            Self::RequestsConnect => "requests cannot connect",
            Self::RequestsReset => "connections are closed before answers are complete",
            Self::RequestsTimeout => "requests are not answered in time",
            Self::RequestsInvalid => "requests are answered with something else than HTTP/1",
            Self::RequestsStatus => "requests are answered with a failure status",
            Self::EjectionOver => "the ejection is over",
        })
    }
}

/// Finds a server's addresses at the moment, in the order to try them; none while its name does not resolve.
pub type Locate = Arc<dyn Fn() -> Vec<Address> + Send + Sync>;

/// A server to watch.
#[derive(Clone)]
pub struct Target {
    /// Its upstream's name.
    pub upstream: String,
    /// Its own.
    pub name: String,
    /// Where it is.
    pub locate: Locate,
    /// The Host field of its probes, where the check does not say another.
    pub host: HeaderValue,
    /// How probes connect.
    pub connecting: Options,
    /// The configured weight.
    pub weight: u16,
}

/// The servers of one upstream. Servers are numbered over all groups, in order: that is their place in the table.
#[derive(Clone)]
pub struct Group {
    /// Its servers.
    pub servers: Vec<Target>,
    /// Active checks, if any.
    pub check: Option<Check>,
    /// Passive checks, if any.
    pub passive: Option<Passive>,
}
