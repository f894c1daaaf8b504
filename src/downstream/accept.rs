//! Accepting: several tasks a listener, each waiting for one connection at a time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::connection;
use crate::exchange::client::Client;
use crate::exchange::lane::Lane;
use crate::http1::answer::{Answer, Form};
use crate::net::deadline::Deadline;
use crate::net::descriptors::{self, is_exhaustion};
use crate::net::fence::{self, End};
use crate::net::listener::{self, Listener, Waiting, is_closed, is_one_clients};
use crate::net::socket::Socket;
use crate::telemetry::clients::Places;
use crate::telemetry::counters::AllCounters;

/// Pause after the system ran out of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Ticks of the sweeper that handshakes which have begun may take when the process drains.
const HANDSHAKE_TICKS: u32 = 2;

/// Accepts connections until the listener is shut down. The counters of all shards are for the limit of connections in all.
pub async fn run(lane: Rc<Lane>, listener: Rc<Listener>, all: AllCounters) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => admit(&lane, socket, peer, &all),
            Err(error) if lane.deadlines.draining() || is_closed(&error) => return,
            Err(error) => failed(&lane, &error).await,
        }
    }
}

/// Takes in clients that a shard left waiting when it died.
pub fn resume(lane: &Rc<Lane>, waiting: Vec<Waiting>, all: &AllCounters) {
    for (socket, peer) in waiting.into_iter().filter_map(|client| client.admit().ok()) {
        admit(lane, socket, peer, all);
    }
}

/// The open listeners of a shard, which close behind the last client that the kernel has let in.
#[derive(Default)]
pub struct Doors {
    listeners: Vec<Rc<Listener>>,
    /// Ticks until they close, once they are closing.
    left: Option<u32>,
}

impl Doors {
    /// One more that is open.
    pub fn add(&mut self, listener: Rc<Listener>) {
        self.listeners.push(listener);
    }

    /// Ends those that are still open of a shard that has died, and gives the clients that they had let in.
    pub fn salvage(self) -> Vec<Waiting> {
        let listeners = self.listeners.into_iter();
        listeners.flat_map(listener::salvage).collect()
    }

    /// Called when the process drains, then on each tick until it gives true: the listeners are closed.
    ///
    /// A listener that closes resets the connections in its backlog, and those that are about to get there. So first no handshake may
    /// begin, then those that have begun may end, and what waits is accepted.
    pub fn close(&mut self, ticks: u32, lane: &Rc<Lane>, all: &AllCounters) -> bool {
        let left = self.left.map(|left| left.saturating_sub(ticks));
        self.left = Some(left.unwrap_or(HANDSHAKE_TICKS));
        match left {
            None => {
                for listener in &self.listeners {
                    if let Err(error) = listener.refuse_new() {
                        tracing::debug!(%error, "cannot turn away new connections before the listener closes");
                    }
                }
            }
            Some(0) => {
                for listener in &self.listeners {
                    empty(lane, listener, all);
                    listener.shutdown();
                }
                self.listeners.clear();
            }
            Some(_) => {}
        }
        left == Some(0)
    }
}

/// Accepts what waits in the backlog.
fn empty(lane: &Rc<Lane>, listener: &Listener, all: &AllCounters) {
    loop {
        match listener.try_accept() {
            Ok((socket, peer)) => admit(lane, socket, peer, all),
            Err(error) if is_one_clients(&error) => {}
            Err(_) => return,
        }
    }
}

/// Counts a failure; a shortage is waited out.
async fn failed(lane: &Lane, error: &io::Error) {
    lane.counters.accept_errors.inc();
    if is_exhaustion(error) {
        if lane.counters.accept_backoffs.get() == 0 {
            tracing::warn!(%error, "cannot accept; raise the limit of open files or lower `connections`");
        }
        lane.counters.accept_backoffs.inc();
        Deadline::new(&lane.deadlines, None)
            .sleep(BACK_OFF.into())
            .await;
    }
}

/// Starts a connection's task, within the limits.
fn admit(lane: &Rc<Lane>, socket: Socket, peer: SocketAddr, all: &AllCounters) {
    lane.counters.accepted.inc();
    let limits = &lane.config.limits;
    let here = lane.counters.connections.get();
    let over = here >= limits.connections_per_shard as u64
        || limits.connections.is_some_and(|max| {
            all.iter().map(|shard| shard.connections.get()).sum::<u64>() >= max as u64
        });
    if over {
        return refuse(lane, &socket, FULL);
    }
    if descriptors::is_kept(socket.as_raw_fd()) {
        if lane.counters.refused_descriptors.get() == 0 {
            tracing::warn!(
                "descriptors run out; refusing clients, raise the limit of open files or lower `connections`"
            );
        }
        lane.counters.refused_descriptors.inc();
        return refuse(lane, &socket, FULL);
    }
    let places = lane.placement.as_ref().map(|all| all.of(peer.ip()));
    if places.is_some_and(|places| has_its_share(lane, places, all)) {
        lane.counters.refused_clients.inc();
        return refuse(lane, &socket, HAS_ITS_SHARE);
    }
    lane.counters.connections.inc();
    if let Some(places) = places {
        lane.counters.clients.inc(places);
    }
    let client = Client::new(lane, socket, peer.ip());
    let counters = Arc::clone(&lane.counters);
    let task = connection::run(Rc::clone(lane), client);
    monoio::spawn(fence::fenced(task, move |end| {
        counters.connections.dec();
        if let Some(places) = places {
            counters.clients.dec(places);
        }
        if end == End::Panicked {
            counters.panics.inc();
        }
    }));
}

/// Whether the address with these places has all the connections it may have. Shards that look at the same moment may each let one in.
fn has_its_share(lane: &Lane, places: Places, all: &AllCounters) -> bool {
    let open: u64 = all.iter().map(|shard| shard.clients.get(places)).sum();
    let max = lane.config.limits.connections_per_client;
    max.is_some_and(|max| open >= max as u64)
}

const FULL: Answer = Answer {
    status: 503,
    error: "too many connections",
    field: Some(("Retry-After", "1")),
};
const HAS_ITS_SHARE: Answer = Answer {
    status: 429,
    error: "too many connections from this address",
    field: Some(("Retry-After", "1")),
};

/// Tells a client that there is no room for it, if it takes that at once.
fn refuse(lane: &Lane, socket: &Socket, answer: Answer) {
    lane.counters.refused_connections.inc();
    let mut out = lane.take_for(0);
    let form = Form {
        json: true,
        to_head: false,
        persistent: false,
        minor: 1,
    };
    lane.with_date(|date| answer.write(form, date, &mut out));
    lane.counters.own_answer(answer.status, out.len());
    // It has room in an empty socket buffer, or the client is gone.
    let _ = socket.try_send(&out);
    lane.give(out);
    socket.shutdown_write();
}
