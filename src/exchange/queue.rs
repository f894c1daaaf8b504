//! A request's wait for a server with room.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use super::client::Client;
use super::lane::{Held, Lane};
use super::request::Request;
use crate::balance::NoServer;
use crate::net::deadline::Slot;
use crate::net::socket::Peer;
use crate::telemetry::counters::UpstreamCounters;
use crate::upstream::queue::{Call, Queue, Turn};

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

/// Waits for a server that can take the request, none of those `tried`.
pub(super) async fn wait(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    queue: &Queue,
    tried: &[usize],
) -> Result<usize, Unserved> {
    let counters = &lane.counters.upstreams[request.group.id];
    let own = request.traits.bond.map(|bond| bond.server as usize);
    let Some(turn) = queue.join(tried, own) else {
        counters.queue_full.inc();
        return Err(Unserved::NoServer(NoServer::AllFull));
    };
    let _queued = Held::new(&counters.queued);
    let started = Instant::now();
    client.deadline.set(Slot::Response, queue.patience);
    let served = serve(lane, client, request, &turn, tried).await;
    client.deadline.clear(Slot::Response);
    client.presence.end(client);
    let waited = started.elapsed().as_micros() as u64;
    // Together, so that their quotient is a mean of whole waits.
    counters.queue_waits.inc();
    counters.queue_wait_us.add(waited);
    count(counters, served);
    served
}

async fn serve(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    turn: &Turn<'_>,
    tried: &[usize],
) -> Result<usize, Unserved> {
    client.presence.begin(lane, client);
    loop {
        let mut called = pin!(client.deadline.guard(Slot::Response, turn.called()));
        let called = poll_fn(|cx| match called.as_mut().poll(cx) {
            Poll::Ready(called) => Poll::Ready(called.map_err(|_| Unserved::Overdue)),
            Poll::Pending if client.presence.is_gone(lane, client) => {
                Poll::Ready(Err(Unserved::ClientGone))
            }
            Poll::Pending => Poll::Pending,
        });
        let (group, bond) = (request.group, request.traits.bond);
        let chosen = match called.await? {
            Call::Any => group.choose(request.key, bond, tried),
            Call::Own => group.choose_own(bond, tried),
        };
        match chosen {
            Err(NoServer::AllFull) => {}
            Ok(_) if client.socket.peer() == Peer::Gone => return Err(Unserved::ClientGone),
            chosen => return chosen.map_err(Unserved::NoServer),
        }
    }
}

fn count(counters: &UpstreamCounters, served: Result<usize, Unserved>) {
    match served {
        Err(Unserved::Overdue) => counters.queue_timeouts.inc(),
        Err(Unserved::ClientGone) => counters.queue_left.inc(),
        Ok(_) | Err(Unserved::NoServer(_)) => {}
    }
}
