//! A connection after 101 (Switching Protocols): bytes both ways until both sides are done (RFC 9110 section 7.8).

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::client::Client;
use super::lane::Lane;
use super::transfer::{self, TransferError};
use crate::net::deadline::Slot;
use crate::net::socket::Socket;

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes to the server.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
    /// Nothing was carried for too long.
    pub idle: bool,
}

/// Runs a tunnel. `early` are bytes that the server sent behind its head; the client's early bytes are pending with it.
pub async fn run(lane: &Lane, client: &Client, server: &Socket, early: &[u8]) -> Carried {
    let mut carried = Carried::default();
    let pending = client.pending.take();
    let mut up = pin!(copy(
        lane,
        client,
        &client.socket,
        server,
        Slot::Request,
        &pending
    ));
    let mut down = pin!(copy(
        lane,
        client,
        server,
        &client.socket,
        Slot::Response,
        early
    ));
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(|cx| {
        if !up_done && let Poll::Ready((bytes, end)) = up.as_mut().poll(cx) {
            (up_done, carried.up) = (true, bytes);
            carried.idle |= end == End::Idle;
            down_done |= end != End::Finished;
        }
        if !down_done && let Poll::Ready((bytes, end)) = down.as_mut().poll(cx) {
            (down_done, carried.down) = (true, bytes);
            carried.idle |= end == End::Idle;
            up_done |= end != End::Finished;
        }
        if up_done && down_done {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    carried
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
            TransferError::Gone => Self::Gone,
            TransferError::Overdue | TransferError::TooSlow => Self::Idle,
        }
    }
}

async fn copy(
    lane: &Lane,
    client: &Client,
    from: &Socket,
    to: &Socket,
    slot: Slot,
    early: &[u8],
) -> (u64, End) {
    let mut bytes = 0;
    let end = copy_until_end(lane, client, from, to, slot, early, &mut bytes).await;
    if end == End::Finished {
        to.shutdown_write();
        client.deadline.clear(slot);
    }
    (bytes, end)
}

async fn copy_until_end(
    lane: &Lane,
    client: &Client,
    from: &Socket,
    to: &Socket,
    slot: Slot,
    early: &[u8],
    bytes: &mut u64,
) -> End {
    let deadline = &client.deadline;
    let patience = lane.timeouts.tunnel_idle;
    if let Err(error) = transfer::send_all(lane, to, early, deadline, slot, patience.into()).await {
        return error.into();
    }
    *bytes += early.len() as u64;
    loop {
        deadline.set(slot, patience);
        let buffer = match transfer::recv(lane, from, deadline, slot).await {
            Ok(buffer) if buffer.is_empty() => return End::Finished,
            Ok(buffer) => buffer,
            Err(error) => return error.into(),
        };
        // Life in one direction keeps the other one open.
        deadline.set(Slot::Request, patience);
        deadline.set(Slot::Response, patience);
        let sent = transfer::send_all(lane, to, &buffer, deadline, slot, patience.into()).await;
        *bytes += buffer.len() as u64;
        lane.bulk.give(buffer);
        if let Err(error) = sent {
            return error.into();
        }
    }
}
