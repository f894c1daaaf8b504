//! A connection after 101 (Switching Protocols): bytes both ways until both sides are done (RFC 9110 section 7.8).

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::client::Client;
use super::lane::Lane;
use super::transfer::{self, TransferError};
use crate::net::deadline::Slot;
use crate::net::socket::Socket;
use crate::telemetry::counters::{Counter, ServerCounters};

/// One direction of a tunnel.
struct Way<'a> {
    from: &'a Socket,
    to: &'a Socket,
    slot: Slot,
    received: &'a Counter,
    sent: &'a Counter,
}

/// Runs a tunnel. `early` are bytes that the server sent behind its head; the client's early bytes are pending with it. Gives whether
/// it ended because nothing was carried for too long.
pub async fn run(
    lane: &Lane,
    client: &Client,
    server: &Socket,
    counters: &ServerCounters,
    early: &[u8],
) -> bool {
    let up = Way {
        from: &client.socket,
        to: server,
        slot: Slot::Request,
        received: &lane.counters.bytes_in,
        sent: &counters.bytes_out,
    };
    let down = Way {
        from: server,
        to: &client.socket,
        slot: Slot::Response,
        received: &counters.bytes_in,
        sent: &lane.counters.bytes_out,
    };
    client.leave(lane);
    let pending = client.pending.take();
    let mut up = pin!(copy(lane, client, up, &pending));
    let mut down = pin!(copy(lane, client, down, early));
    let (mut up_done, mut down_done, mut idle) = (false, false, false);
    poll_fn(|cx| {
        if !up_done && let Poll::Ready(end) = up.as_mut().poll(cx) {
            up_done = true;
            idle |= end == End::Idle;
            down_done |= end != End::Finished;
        }
        if !down_done && let Poll::Ready(end) = down.as_mut().poll(cx) {
            down_done = true;
            idle |= end == End::Idle;
            up_done |= end != End::Finished;
        }
        if up_done && down_done {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    idle
}

/// Why one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its sender has finished; the other direction may go on.
    Finished,
    /// A connection is broken.
    Gone,
    /// Nothing was carried for too long.
    Idle,
}

impl From<TransferError> for End {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Gone | TransferError::Reset | TransferError::Refused => Self::Gone,
            TransferError::Overdue | TransferError::TooSlow => Self::Idle,
        }
    }
}

async fn copy(lane: &Lane, client: &Client, way: Way<'_>, early: &[u8]) -> End {
    let end = copy_until_end(lane, client, &way, early).await;
    if end == End::Finished {
        way.to.shutdown_write();
        client.deadline.clear(way.slot);
    }
    end
}

async fn copy_until_end(lane: &Lane, client: &Client, way: &Way<'_>, early: &[u8]) -> End {
    let deadline = &client.deadline;
    let patience = lane.timeouts.tunnel_idle;
    if let Err(error) = send(lane, client, way, early).await {
        return error.into();
    }
    loop {
        deadline.set(way.slot, patience);
        let ready = || deadline.guard(way.slot, way.from.readable());
        let receive = |buffer: &mut Vec<u8>| transfer::recv_now(lane, way.from, buffer);
        let buffer = match transfer::recv(lane, ready, receive).await {
            Ok(buffer) if buffer.is_empty() => return End::Finished,
            Ok(buffer) => buffer,
            Err(error) => return error.into(),
        };
        way.received.add(buffer.len() as u64);
        // Life in one direction keeps the other one open.
        deadline.set(Slot::Request, patience);
        deadline.set(Slot::Response, patience);
        let sent = send(lane, client, way, &buffer).await;
        lane.bulk.give(buffer);
        if let Err(error) = sent {
            return error.into();
        }
    }
}

async fn send(
    lane: &Lane,
    client: &Client,
    way: &Way<'_>,
    bytes: &[u8],
) -> Result<(), TransferError> {
    let patience = lane.timeouts.tunnel_idle.into();
    transfer::send_all(lane, way.to, bytes, &client.deadline, way.slot, patience).await?;
    way.sent.add(bytes.len() as u64);
    Ok(())
}
