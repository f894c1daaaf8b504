//! Moving bytes to and from a socket under a deadline.

use std::io;

use super::lane::Lane;
use super::pace::{Pace, TooSlow};
use crate::net::buffer::BufferPool;
use crate::net::deadline::{Deadline, Interrupt, Slot, Ticks};
use crate::net::socket::Socket;

/// Why bytes could not be moved.
#[derive(Debug)]
pub enum TransferError {
    /// The connection is closed or broken.
    Gone,
    /// The peer did not get on in time.
    Overdue,
    /// The client gets on, but below the least rate.
    TooSlow,
}

/// How long a peer may take nothing, and at what rate it must take what it gets.
#[derive(Clone, Copy, Debug)]
pub struct Patience<'a> {
    /// Without progress.
    pub stall: Ticks,
    /// The rate, where there is one.
    pub pace: Option<Pace<'a>>,
}

impl From<Ticks> for Patience<'_> {
    fn from(stall: Ticks) -> Self {
        Self { stall, pace: None }
    }
}

impl From<TooSlow> for TransferError {
    fn from(_: TooSlow) -> Self {
        Self::TooSlow
    }
}

impl From<Interrupt> for TransferError {
    fn from(_: Interrupt) -> Self {
        Self::Overdue
    }
}

impl From<io::Error> for TransferError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Sends all of `bytes`.
#[inline]
pub async fn send_all(
    socket: &Socket,
    bytes: &[u8],
    deadline: &Deadline,
    slot: Slot,
    patience: Patience<'_>,
) -> Result<(), TransferError> {
    match socket.try_send(bytes) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(sent) => Box::pin(send_rest(socket, &bytes[sent..], deadline, slot, patience)).await,
        Err(error) if is_temporary(&error) => {
            Box::pin(send_rest(socket, bytes, deadline, slot, patience)).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Sends all of `buffer`, together with what other tasks send in this loop turn where a ring allows it: peers that are woken in quick
/// succession sleep less in between. Gives the buffer back unless the peer was overdue.
#[inline]
pub async fn send_queued(
    lane: &Lane,
    socket: &Socket,
    buffer: Vec<u8>,
    deadline: &Deadline,
    slot: Slot,
    patience: Patience<'_>,
) -> (Result<(), TransferError>, Vec<u8>) {
    if !lane.queues_sends {
        let sent = send_all(socket, &buffer, deadline, slot, patience).await;
        return (sent, buffer);
    }
    deadline.set(slot, patience.stall);
    let Ok((sent, buffer)) = deadline.guard(slot, socket.send_queued(buffer)).await else {
        return (Err(TransferError::Overdue), Vec::new());
    };
    deadline.clear(slot);
    let sent = match sent {
        Ok(sent) if sent == buffer.len() => Ok(()),
        Ok(sent) => Box::pin(send_rest(socket, &buffer[sent..], deadline, slot, patience)).await,
        Err(error) if is_temporary(&error) => {
            Box::pin(send_rest(socket, &buffer, deadline, slot, patience)).await
        }
        Err(error) => Err(error.into()),
    };
    (sent, buffer)
}

#[cold]
async fn send_rest(
    socket: &Socket,
    mut bytes: &[u8],
    deadline: &Deadline,
    slot: Slot,
    patience: Patience<'_>,
) -> Result<(), TransferError> {
    if let Some(pace) = patience.pace {
        return send_paced(socket, bytes, deadline, slot, patience.stall, pace).await;
    }
    while !bytes.is_empty() {
        deadline.set(slot, patience.stall);
        deadline.guard(slot, socket.writable()).await??;
        match socket.try_send(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    deadline.clear(slot);
    Ok(())
}

/// Sends to a client that must keep a rate. What counts is what it acknowledges: a socket with a large buffer is writable again only when
/// much of it has drained, which takes an honest slow client longer than any grace.
#[cold]
async fn send_paced(
    socket: &Socket,
    mut bytes: &[u8],
    deadline: &Deadline,
    slot: Slot,
    stall: Ticks,
    pace: Pace<'_>,
) -> Result<(), TransferError> {
    let mut queued = socket.unsent();
    while !bytes.is_empty() {
        let since = deadline.now();
        deadline.set(slot, pace.patience(stall));
        let waited = deadline.guard(slot, socket.writable()).await;
        let left = socket.unsent();
        let taken = queued.saturating_sub(left);
        queued = left;
        pace.settle(Ticks::between(since, deadline.now()), taken)?;
        match waited {
            Ok(ready) => ready?,
            Err(_) if taken > 0 => continue,
            Err(overdue) => return Err(overdue.into()),
        }
        match socket.try_send(bytes) {
            Ok(sent) => {
                bytes = &bytes[sent..];
                queued += sent;
            }
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    deadline.clear(slot);
    Ok(())
}

/// Receives what is there without waiting; `None` when nothing is, 0 at the end of the stream.
#[inline]
pub fn recv_now(socket: &Socket, buffer: &mut Vec<u8>) -> Result<Option<usize>, TransferError> {
    match socket.try_recv(buffer) {
        Ok(received) => Ok(Some(received)),
        Err(error) if is_temporary(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Receives into a buffer of `pool`, waiting until the slot's deadline, which the caller has set. Empty at the end of the stream.
///
/// The buffer is taken when there is something to read, so that a wait holds none.
#[inline]
pub async fn recv(
    pool: &BufferPool,
    socket: &Socket,
    deadline: &Deadline,
    slot: Slot,
) -> Result<Vec<u8>, TransferError> {
    loop {
        deadline.guard(slot, socket.readable()).await??;
        let mut buffer = pool.take();
        if recv_now(socket, &mut buffer)?.is_some() {
            return Ok(buffer);
        }
        pool.give(buffer);
    }
}

/// Whether the operation is to be tried again when the socket is ready.
pub fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
