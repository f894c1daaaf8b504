//! A request's wait for a server with room.

use std::time::Instant;

use super::client::Client;
use super::lane::{Held, Lane};
use super::request::Request;
use super::response::CLIENT_LOOK_EVERY;
use crate::balance::NoServer;
use crate::net::deadline::Slot;
use crate::net::socket::Peek;
use crate::telemetry::counters::UpstreamCounters;
use crate::upstream::queue::{Queue, Turn};

/// Why a request that waited gets no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unserved {
    /// There is none for it, or too many wait already.
    NoServer(NoServer),
    /// None had room in time.
    Overdue,
    /// The client has left.
    ClientGone,
}

/// Waits for a server that can take the request.
pub(super) async fn wait(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    queue: &Queue,
) -> Result<usize, Unserved> {
    let counters = &lane.counters.upstreams[request.group.id];
    let Some(turn) = queue.join() else {
        counters.queue_full.inc();
        return Err(Unserved::NoServer(NoServer::AllFull));
    };
    counters.queue_waits.inc();
    let _queued = Held::new(&counters.queued);
    let started = Instant::now();
    client.deadline.set(Slot::Response, queue.patience);
    let served = serve(client, request, &turn).await;
    client.deadline.clear(Slot::Response);
    client.deadline.clear(Slot::Request);
    let waited = started.elapsed().as_micros() as u64;
    counters.queue_wait_us.add(waited);
    count(counters, served);
    served
}

async fn serve(client: &Client, request: &Request<'_>, turn: &Turn<'_>) -> Result<usize, Unserved> {
    loop {
        client.deadline.set(Slot::Request, CLIENT_LOOK_EVERY.into());
        let called = client.deadline.guard_both(turn.called()).await;
        if has_left(client) {
            return Err(Unserved::ClientGone);
        }
        if called.is_ok() {
            match request.group.choose(request.key, request.traits.bond, &[]) {
                Err(NoServer::AllFull) => {}
                chosen => return chosen.map_err(Unserved::NoServer),
            }
        }
        if client.deadline.is_overdue(Slot::Response) {
            return Err(Unserved::Overdue);
        }
    }
}

/// A client that has finished sending counts as gone, though it could still read: most such have left, and a server with work to
/// spare is what the others wait for.
fn has_left(client: &Client) -> bool {
    client.socket.is_broken() || client.socket.peek() == Peek::Closed
}

fn count(counters: &UpstreamCounters, served: Result<usize, Unserved>) {
    match served {
        Err(Unserved::Overdue) => counters.queue_timeouts.inc(),
        Err(Unserved::ClientGone) => counters.queue_left.inc(),
        Ok(_) | Err(Unserved::NoServer(_)) => {}
    }
}
