//! A connection after 101 (Switching Protocols): bytes both ways until both sides are done (RFC 9110 section 7.8).

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::client::Client;
use super::lane::Lane;
use super::transfer::{self, Hindrance, TransferError};
use crate::net::deadline::{Deadline, Interrupt, Slot, Ticks};
use crate::net::socket::Socket;
use crate::telemetry::counters::{Counter, ServerCounters};

/// How long a peer that is sent nothing more may take to close.
const LINGER_FOR: Duration = Duration::from_secs(2);

/// One end of a tunnel.
struct Side<'a> {
    socket: &'a Socket,
    /// The connection is broken, as a send has found. The kernel tells it once: to a receive it looks like the end of the stream.
    broken: Cell<bool>,
    /// Bytes that its peer had not acknowledged at the last look.
    unsent: Cell<usize>,
}

/// Whether a tunnel is in use: what moves in one direction keeps the other one open.
struct Life<'a> {
    deadline: &'a Deadline,
    sides: [Side<'a>; 2],
    /// How long nothing may move.
    patience: Cell<Ticks>,
    /// When something last moved.
    moved_at: Cell<u32>,
}

impl Life<'_> {
    fn moved(&self) {
        self.moved_at.set(self.deadline.now());
    }

    /// Whether nothing has moved for too long. What a peer acknowledges moves: it may be long until the kernel takes more.
    fn is_over(&self) -> bool {
        for side in &self.sides {
            let unsent = side.socket.unsent();
            if unsent < side.unsent.replace(unsent) {
                self.moved();
            }
        }
        self.rested() > self.patience.get()
    }

    fn rested(&self) -> Ticks {
        Ticks::between(self.moved_at.get(), self.deadline.now())
    }

    /// Sets the deadline of the next look.
    fn set_look(&self, slot: Slot) {
        let wait = transfer::next_look(self.patience.get(), self.rested());
        self.deadline.set(slot, wait);
    }

    /// Waits for as long as the tunnel is in use.
    async fn wait<F>(&self, slot: Slot, wait: F) -> Result<F::Output, Interrupt>
    where
        F: Future<Output = io::Result<()>>,
    {
        let mut wait = pin!(wait);
        loop {
            self.set_look(slot);
            match self.deadline.guard(slot, wait.as_mut()).await {
                Err(_) if !self.is_over() => {}
                waited => return waited,
            }
        }
    }
}

/// One direction of a tunnel.
struct Way<'a> {
    life: &'a Life<'a>,
    from: &'a Side<'a>,
    to: &'a Side<'a>,
    slot: Slot,
    received: &'a Counter,
    sent: &'a Counter,
    /// Bytes that it has passed on.
    carried: Cell<u64>,
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

/// What came of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Bytes sent to the client.
    pub down: u64,
    /// It ended because nothing was carried for too long.
    pub idle: bool,
}

/// Runs a tunnel. `early` are bytes that the server sent behind its head; the client's early bytes are pending with it.
pub async fn run(
    lane: &Lane,
    client: &Client,
    server: &Socket,
    counters: &ServerCounters,
    early: &[u8],
) -> Carried {
    let life = Life {
        deadline: &client.deadline,
        sides: [&client.socket, server].map(|socket| Side {
            socket,
            broken: Cell::new(false),
            unsent: Cell::new(0),
        }),
        patience: Cell::new(lane.timeouts.tunnel_idle),
        moved_at: Cell::new(client.deadline.now()),
    };
    let [near, far] = &life.sides;
    let up = Way {
        life: &life,
        from: near,
        to: far,
        slot: Slot::Request,
        received: &lane.counters.bytes_in,
        sent: &counters.bytes_out,
        carried: Cell::new(0),
        phase: Cell::new(Phase::Carrying),
    };
    let down = Way {
        life: &life,
        from: far,
        to: near,
        slot: Slot::Response,
        received: &counters.bytes_in,
        sent: &lane.counters.bytes_out,
        carried: Cell::new(0),
        phase: Cell::new(Phase::Carrying),
    };
    client.leave(lane);
    let pending = client.pending.take();
    let mut upward = pin!(copy(lane, &up, &pending));
    let mut downward = pin!(copy(lane, &down, early));
    let mut lingers = false;
    let idle = poll_fn(|cx| {
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
            life.patience.set(Ticks::from(LINGER_FOR));
            life.moved();
            life.set_look(Slot::Request);
            life.set_look(Slot::Response);
        }
        Poll::Pending
    })
    .await;
    Carried {
        down: down.carried.get(),
        idle,
    }
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

async fn copy(lane: &Lane, way: &Way<'_>, early: &[u8]) -> End {
    let end = copy_until_end(lane, way, early).await;
    match end {
        End::Finished => way.to.socket.shutdown_write(),
        // It must not take what it got for whole.
        End::SenderGone => way.to.socket.reset_on_close(),
        End::ReceiverGone => {
            way.to.socket.reset_on_close();
            way.phase.set(Phase::Dropping);
            // What it sent before may still be there to be passed on.
            return drop_rest(lane, way).await;
        }
        End::Idle => {}
    }
    end
}

async fn copy_until_end(lane: &Lane, way: &Way<'_>, early: &[u8]) -> End {
    let from = way.from;
    if let Err(end) = send(lane, way, early).await {
        return end;
    }
    loop {
        let ready = || way.life.wait(way.slot, from.socket.readable());
        let receive = |buffer: &mut Vec<u8>| transfer::recv_now(lane, from.socket, buffer);
        let buffer = match transfer::recv(lane, ready, receive).await {
            Ok(buffer) if buffer.is_empty() && from.broken.get() => return End::SenderGone,
            Ok(buffer) if buffer.is_empty() => return End::Finished,
            Ok(buffer) => buffer,
            Err(TransferError::Overdue) => return End::Idle,
            Err(_) => return End::SenderGone,
        };
        way.received.add(buffer.len() as u64);
        way.life.moved();
        let sent = send(lane, way, &buffer).await;
        lane.bulk.give(buffer);
        if let Err(end) = sent {
            return end;
        }
    }
}

async fn send(lane: &Lane, way: &Way<'_>, bytes: &[u8]) -> Result<(), End> {
    send_all(lane, way, bytes)
        .await
        .map_err(|error| match error {
            TransferError::Overdue | TransferError::TooSlow => End::Idle,
            TransferError::Gone => End::ReceiverGone,
            TransferError::Reset | TransferError::Refused => {
                way.to.broken.set(true);
                End::ReceiverGone
            }
        })?;
    way.sent.add(bytes.len() as u64);
    way.carried.set(way.carried.get() + bytes.len() as u64);
    Ok(())
}

/// Sends all of `bytes`, for as long as the tunnel is in use: its receiver may well rest while it is only sending.
async fn send_all(lane: &Lane, way: &Way<'_>, mut bytes: &[u8]) -> Result<(), TransferError> {
    let (life, socket) = (way.life, way.to.socket);
    let mut sent = socket.try_send(bytes);
    while !matches!(sent, Ok(sent) if sent == bytes.len()) {
        let left = bytes.len();
        let hindrance = transfer::account(lane, &mut bytes, sent)?;
        if bytes.len() < left {
            life.moved();
        }
        match hindrance {
            Hindrance::Full => {
                if let Err(error) = life.wait(way.slot, socket.writable()).await? {
                    sent = Err(error);
                    continue;
                }
            }
            Hindrance::Shortage if life.is_over() => return Err(TransferError::Overdue),
            // Nobody tells when there is memory again.
            Hindrance::Shortage => life.deadline.next_turn().await,
        }
        sent = socket.try_send(bytes);
    }
    life.moved();
    Ok(())
}

/// Drops what the sender still sends: a close with unread bytes would be a reset, which can take what the other direction has brought it.
async fn drop_rest(lane: &Lane, way: &Way<'_>) -> End {
    let socket = way.from.socket;
    loop {
        match way.life.wait(way.slot, socket.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Finished,
            Err(_) => return End::Idle,
        }
        match lane.with_scratch(|scratch| transfer::recv_now(lane, socket, scratch)) {
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => return End::Finished,
            Ok(Some(count)) => way.received.add(count as u64),
        }
    }
}
