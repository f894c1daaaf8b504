//! A connection after 101 (Switching Protocols): bytes both ways until both sides are done (RFC 9110 section 7.8).

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::client::Client;
use super::lane::Lane;
use super::transfer::{self, TransferError};
use crate::net::deadline::{Slot, Ticks};
use crate::net::socket::Socket;
use crate::telemetry::counters::{Counter, ServerCounters};

/// The deadline, which both directions have in common: what moves in one keeps the other one open.
const SLOT: Slot = Slot::Response;
/// How long a peer that is sent nothing more may take to close.
const LINGER_FOR: Duration = Duration::from_secs(2);

/// One end of a tunnel.
struct Side<'a> {
    socket: &'a Socket,
    /// The connection is broken, as a send has found. The kernel tells it once: to a receive it looks like the end of the stream.
    broken: Cell<bool>,
}

/// One direction of a tunnel.
struct Way<'a> {
    from: &'a Side<'a>,
    to: &'a Side<'a>,
    received: &'a Counter,
    sent: &'a Counter,
    phase: Cell<Phase>,
}

/// How far one direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// What comes is passed on.
    Carrying,
    /// Its receiver is gone: what still comes is dropped.
    Dropping,
    /// Nothing comes any more.
    Over,
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
    let [near, far] = [&client.socket, server].map(|socket| Side {
        socket,
        broken: Cell::new(false),
    });
    let up = Way {
        from: &near,
        to: &far,
        received: &lane.counters.bytes_in,
        sent: &counters.bytes_out,
        phase: Cell::new(Phase::Carrying),
    };
    let down = Way {
        from: &far,
        to: &near,
        received: &counters.bytes_in,
        sent: &lane.counters.bytes_out,
        phase: Cell::new(Phase::Carrying),
    };
    client.leave(lane);
    let pending = client.pending.take();
    let mut upward = pin!(copy(lane, client, &up, &pending));
    let mut downward = pin!(copy(lane, client, &down, early));
    let mut lingers = false;
    poll_fn(|cx| {
        for (way, copying) in [(&up, upward.as_mut()), (&down, downward.as_mut())] {
            if way.phase.get() != Phase::Over
                && let Poll::Ready(end) = copying.poll(cx)
            {
                way.phase.set(Phase::Over);
                if end != End::Finished {
                    return Poll::Ready(end == End::Idle && !lingers);
                }
            }
        }
        match (up.phase.get(), down.phase.get()) {
            (Phase::Over, Phase::Over) | (Phase::Dropping, Phase::Dropping) => {
                return Poll::Ready(false);
            }
            (Phase::Carrying, _) | (_, Phase::Carrying) => return Poll::Pending,
            _ => {}
        }
        if !lingers {
            lingers = true;
            client.deadline.set(SLOT, Ticks::from(LINGER_FOR));
        }
        Poll::Pending
    })
    .await
}

/// Why one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing comes any more; the other direction may go on.
    Finished,
    /// Its receiver's connection is broken.
    ReceiverGone,
    /// Its sender's connection is broken.
    SenderGone,
    /// Nothing was carried for too long.
    Idle,
}

async fn copy(lane: &Lane, client: &Client, way: &Way<'_>, early: &[u8]) -> End {
    let end = copy_until_end(lane, client, way, early).await;
    match end {
        End::Finished => way.to.socket.shutdown_write(),
        // It must not take what it got for whole.
        End::SenderGone => way.to.socket.reset_on_close(),
        End::ReceiverGone => {
            way.to.socket.reset_on_close();
            way.phase.set(Phase::Dropping);
            // What it sent before may still be there to be passed on.
            return drop_rest(lane, client, way).await;
        }
        End::Idle => {}
    }
    end
}

async fn copy_until_end(lane: &Lane, client: &Client, way: &Way<'_>, early: &[u8]) -> End {
    let deadline = &client.deadline;
    let patience = lane.timeouts.tunnel_idle;
    if let Err(end) = send(lane, client, way, early).await {
        return end;
    }
    loop {
        deadline.set(SLOT, patience);
        let ready = || deadline.guard(SLOT, way.from.socket.readable());
        let receive = |buffer: &mut Vec<u8>| transfer::recv_now(lane, way.from.socket, buffer);
        let buffer = match transfer::recv(lane, ready, receive).await {
            Ok(buffer) if buffer.is_empty() && way.from.broken.get() => return End::SenderGone,
            Ok(buffer) if buffer.is_empty() => return End::Finished,
            Ok(buffer) => buffer,
            Err(TransferError::Overdue) => return End::Idle,
            Err(_) => return End::SenderGone,
        };
        way.received.add(buffer.len() as u64);
        deadline.set(SLOT, patience);
        let sent = send(lane, client, way, &buffer).await;
        lane.bulk.give(buffer);
        if let Err(end) = sent {
            return end;
        }
    }
}

async fn send(lane: &Lane, client: &Client, way: &Way<'_>, bytes: &[u8]) -> Result<(), End> {
    let patience = lane.timeouts.tunnel_idle.into();
    let to = way.to;
    let sent = transfer::send_all(lane, to.socket, bytes, &client.deadline, SLOT, patience);
    sent.await.map_err(|error| match error {
        TransferError::Overdue | TransferError::TooSlow => End::Idle,
        TransferError::Gone => End::ReceiverGone,
        TransferError::Reset | TransferError::Refused => {
            to.broken.set(true);
            End::ReceiverGone
        }
    })?;
    way.sent.add(bytes.len() as u64);
    Ok(())
}

/// Drops what the sender still sends: a close with unread bytes would be a reset, which can take what the other direction has brought it.
async fn drop_rest(lane: &Lane, client: &Client, way: &Way<'_>) -> End {
    let deadline = &client.deadline;
    loop {
        match deadline.guard(SLOT, way.from.socket.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Finished,
            Err(_) => return End::Idle,
        }
        let received =
            lane.with_scratch(|scratch| transfer::recv_now(lane, way.from.socket, scratch));
        match received {
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => return End::Finished,
            Ok(Some(count)) => way.received.add(count as u64),
        }
    }
}
