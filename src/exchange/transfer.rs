//! Moving bytes to and from a socket under a deadline.

use std::cell::Cell;
use std::io;

use super::lane::{Lane, RECEIVE_BYTES_MAX};
use super::pace::{Pace, TooSlow};
use super::rare::rare;
use super::uptake::Uptake;
use crate::net::deadline::{Deadline, Interrupt, Slot, Ticks};
use crate::net::descriptors::is_exhaustion;
use crate::net::socket::Socket;

/// Why bytes could not be moved.
#[derive(Debug)]
pub enum TransferError {
    /// The connection is closed.
    Gone,
    /// The peer has reset the connection, or cannot be reached any more. The kernel tells it once: to the next receive it looks like an end
    /// of the stream.
    Reset,
    /// With TCP Fast Open, after the first send: the peer takes no connection. Else what [`Self::Reset`] says: the kernel gives the last ICMP
    /// error in place of a timeout (tcp(7)).
    Refused,
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
    /// Who wants to know when it takes something.
    pub uptake: Option<&'a Uptake>,
}

impl From<Ticks> for Patience<'_> {
    fn from(stall: Ticks) -> Self {
        Self {
            stall,
            pace: None,
            uptake: None,
        }
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
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => Self::Reset,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Gone,
        }
    }
}

/// Sends all of `bytes`.
#[inline]
pub async fn send_all(
    lane: &Lane,
    socket: &Socket,
    bytes: &[u8],
    deadline: &Deadline,
    slot: Slot,
    patience: Patience<'_>,
) -> Result<(), TransferError> {
    match socket.try_send(bytes) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        sent => {
            rare(send_rest(
                lane, socket, bytes, sent, deadline, slot, patience,
            ))
            .await
        }
    }
}

/// Sends all of `buffer`, together with what other tasks send in this loop turn where a ring allows it: peers that are woken in quick
/// succession sleep less in between. The buffer is lost when the peer is overdue while the kernel has it. The deadline is that of the
/// response slot, which may still be set afterwards.
#[allow(clippy::manual_async_fn)] // an async function would hold its arguments twice, for every exchange
#[inline]
pub fn send_queued<'x>(
    lane: &'x Lane,
    socket: &'x Socket,
    buffer: &'x mut Vec<u8>,
    deadline: &'x Deadline,
    patience: impl Into<Patience<'x>>,
) -> impl Future<Output = Result<(), TransferError>> {
    const SLOT: Slot = Slot::Response;
    let patience = patience.into();
    async move {
        let sent = if lane.on_ring {
            deadline.set(SLOT, patience.stall);
            deadline.guard(SLOT, socket.send_queued(buffer)).await?
        } else {
            socket.try_send(buffer)
        };
        match sent {
            Ok(sent) if sent == buffer.len() => Ok(()),
            sent => {
                rare(send_rest(
                    lane, socket, buffer, sent, deadline, SLOT, patience,
                ))
                .await
            }
        }
    }
}

/// What the rest of a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Room in the socket's buffer.
    Full,
    /// Memory of the machine, descriptors or watches.
    Shortage,
}

/// Takes off `bytes` what a send took, and counts what kept it from taking all.
#[cold]
pub fn account(lane: &Lane, bytes: &mut &[u8], sent: io::Result<usize>) -> io::Result<Hindrance> {
    match sent {
        Ok(sent) => {
            *bytes = &bytes[sent..];
            if !bytes.is_empty() {
                lane.counters.short_writes.inc();
            }
            Ok(Hindrance::Full)
        }
        Err(error) if is_temporary(lane, &error) => Ok(Hindrance::Full),
        Err(error) if is_exhaustion(&error) => {
            lane.counters.send_shortages.inc();
            Ok(Hindrance::Shortage)
        }
        Err(error) => Err(error),
    }
}

/// How a peer gets on that is sent more than its socket's buffer holds. What it acknowledges counts as well as what the buffer takes: a
/// large buffer has room again only when much of it has drained, which takes an honest slow peer longer than any timeout.
#[derive(Debug, Default)]
pub struct Progress {
    /// When it last got on.
    at: Cell<u32>,
    /// What it had not acknowledged at the last look, and what the buffer took since.
    unsent: Cell<u32>,
}

impl Progress {
    /// It counts from now on.
    pub fn begin(&self, socket: &Socket, now: u32) {
        self.at.set(now);
        self.unsent.set(unsent(socket));
    }

    /// Notes what the peer has acknowledged since the last look, and gives how much.
    pub fn look(&self, socket: &Socket, now: u32) -> usize {
        let unsent = unsent(socket);
        let taken = self.unsent.replace(unsent).saturating_sub(unsent);
        if taken > 0 {
            self.at.set(now);
        }
        taken as usize
    }

    /// Notes what the buffer took.
    pub fn sent(&self, count: usize, now: u32) {
        self.unsent
            .set(self.unsent.get().saturating_add(count as u32));
        if count > 0 {
            self.at.set(now);
        }
    }

    /// When there was some last.
    pub fn at(&self) -> u32 {
        self.at.get()
    }

    /// Whether there was none for longer than `stall`.
    pub fn is_overdue(&self, stall: Ticks, now: u32) -> bool {
        Ticks::between(self.at(), now) > stall
    }

    /// How long to wait until the next look.
    pub fn next_look(&self, stall: Ticks, now: u32) -> Ticks {
        next_look(stall, Ticks::between(self.at(), now))
    }
}

/// What a peer has not acknowledged. A small type: every exchange holds one.
fn unsent(socket: &Socket) -> u32 {
    u32::try_from(socket.unsent()).unwrap_or(u32::MAX)
}

/// How long to wait until the next look at a peer that has taken nothing for `rested` and may for `stall`. Not all that is left: the time
/// of an acknowledgement is that of the look that finds it.
pub fn next_look(stall: Ticks, rested: Ticks) -> Ticks {
    let often = Ticks::of((stall.count() / 8).max(1));
    stall.saturating_sub(rested).min(often)
}

/// Sends what is left of `bytes` after a first send that gave `sent`.
#[cold]
async fn send_rest(
    lane: &Lane,
    socket: &Socket,
    mut bytes: &[u8],
    sent: io::Result<usize>,
    deadline: &Deadline,
    slot: Slot,
    Patience {
        stall,
        pace,
        uptake,
    }: Patience<'_>,
) -> Result<(), TransferError> {
    let mut hindrance = account(lane, &mut bytes, sent)?;
    let progress = Progress::default();
    progress.begin(socket, deadline.now());
    while !bytes.is_empty() {
        if let Some(uptake) = uptake {
            uptake.took(progress.at());
        }
        if hindrance == Hindrance::Shortage {
            if progress.is_overdue(stall, deadline.now()) {
                return Err(TransferError::Overdue);
            }
            // Nobody tells when there is memory again.
            deadline.next_turn().await;
        } else {
            let since = deadline.now();
            let wait = progress.next_look(stall, since);
            deadline.set(slot, pace.map_or(wait, |pace| pace.patience(wait)));
            let waited = deadline.guard(slot, socket.writable()).await;
            let now = deadline.now();
            let taken = progress.look(socket, now);
            if let Some(pace) = pace {
                pace.settle(Ticks::between(since, now), taken)?;
            }
            match waited {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    hindrance = account(lane, &mut bytes, Err(error))?;
                    continue;
                }
                Err(overdue) if progress.is_overdue(stall, now) => return Err(overdue.into()),
                Err(_) => continue,
            }
        }
        let left = bytes.len();
        let sent = socket.try_send(bytes);
        hindrance = account(lane, &mut bytes, sent)?;
        progress.sent(left - bytes.len(), deadline.now());
    }
    deadline.clear(slot);
    Ok(())
}

/// Receives what is there without waiting; `None` when nothing is, 0 at the end of the stream.
#[inline]
pub fn recv_now(
    lane: &Lane,
    socket: &Socket,
    buffer: &mut Vec<u8>,
) -> Result<Option<usize>, TransferError> {
    received(lane, socket.try_recv(buffer, RECEIVE_BYTES_MAX))
}

/// What a receive has brought: see [`recv_now`].
#[inline]
pub fn received(lane: &Lane, received: io::Result<usize>) -> Result<Option<usize>, TransferError> {
    match received {
        Ok(received) => Ok(Some(received)),
        Err(error) if is_temporary(lane, &error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Receives into a bulk buffer, as `receive` does when `ready` is over; the caller has set that wait's deadline. Empty at the end of the
/// stream.
///
/// The buffer is taken when there is something to read, so that a wait holds none.
#[inline]
pub async fn recv<R>(
    lane: &Lane,
    ready: impl Fn() -> R,
    receive: impl Fn(&mut Vec<u8>) -> Result<Option<usize>, TransferError>,
) -> Result<Vec<u8>, TransferError>
where
    R: Future<Output = Result<io::Result<()>, Interrupt>>,
{
    loop {
        ready().await??;
        let mut buffer = lane.bulk.take();
        let received = receive(&mut buffer);
        if let Ok(Some(_)) = received {
            return Ok(buffer);
        }
        lane.bulk.give(buffer);
        received?;
    }
}

/// Whether the operation is to be tried again when the socket is ready; counts those that a signal interrupted.
#[inline]
fn is_temporary(lane: &Lane, error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::WouldBlock => true,
        io::ErrorKind::Interrupted => {
            lane.counters.interrupted_calls.inc();
            true
        }
        _ => false,
    }
}
