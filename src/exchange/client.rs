//! The client of an exchange.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use super::lane::{Lane, RECEIVE_BYTES_MAX};
use super::presence::Presence;
use super::transfer::{self, TransferError};
use crate::http1::client::AddressText;
use crate::http1::head::empty_lines;
use crate::net::deadline::{Deadline, Slot};
use crate::net::socket::Socket;

/// A client's connection, as exchanges see it.
#[derive(Debug)]
pub struct Client {
    /// The deadlines of the connection's task.
    // Before the socket, which they know, so that they are dropped first: once that is closed, its number may be another's.
    pub deadline: Deadline,
    /// The socket.
    pub socket: Socket,
    /// The other end.
    pub peer: IpAddr,
    /// The other end's address as text.
    pub peer_text: AddressText,
    /// The other end is a trusted proxy.
    pub trusted: bool,
    /// Bytes received and not yet read: the rest of a head, a body, or pipelined requests.
    pub pending: RefCell<Vec<u8>>,
    /// It is among the shard's [arrivals](Lane::arrivals).
    entered: Cell<bool>,
    /// The last receive took all that had come: what comes later is an arrival.
    drained: Cell<bool>,
    /// Requests so far.
    pub requests: Cell<u64>,
    /// The watch over it while it waits for an answer.
    pub presence: Presence,
    /// It has announced a body, and sends none of it before 100 (Continue), which is the server's to send.
    pub awaits_continue: Cell<bool>,
}

impl Client {
    /// A connection that has just been accepted from `peer`.
    pub fn new(lane: &Lane, socket: Socket, peer: IpAddr) -> Self {
        let deadline = Deadline::new(&lane.deadlines, Some(socket.as_raw_fd()));
        let peer = peer.to_canonical();
        Self {
            socket,
            peer,
            peer_text: AddressText::new(peer),
            trusted: lane.trusts(peer),
            deadline,
            pending: RefCell::default(),
            entered: Cell::new(false),
            drained: Cell::new(false),
            requests: Cell::new(0),
            presence: Presence::default(),
            awaits_continue: Cell::new(false),
        }
    }

    /// Waits until a receive would not block. To be used under a guard of the client's deadlines.
    pub fn readable(&self, lane: &Lane) -> impl Future<Output = io::Result<()>> {
        let is_told = self.enter(lane);
        async move {
            if is_told {
                self.deadline.arrival().await;
                Ok(())
            } else {
                self.socket.readable().await
            }
        }
    }

    /// Enters the client among the shard's arrivals, if it waits a second time. Gives whether what comes next is told of as an arrival.
    fn enter(&self, lane: &Lane) -> bool {
        let Some(arrivals) = lane.arrivals.get() else {
            return false;
        };
        if !self.drained.get() || self.deadline.is_urgent() {
            return false;
        }
        if !self.entered.get() {
            let entered = arrivals.enter(&self.socket, &self.deadline);
            self.entered.set(entered.is_ok());
        }
        self.entered.get()
    }

    /// Takes the client out of the arrivals: it is waited for in another way from now on.
    pub fn leave(&self, lane: &Lane) {
        if let Some(arrivals) = lane.arrivals.get()
            && self.entered.take()
        {
            arrivals.leave(&self.socket);
        }
    }

    /// Receives what is there, as [`transfer::recv_now`] does, and remembers whether that was all.
    #[inline]
    pub fn receive(
        &self,
        lane: &Lane,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<usize>, TransferError> {
        let room = buffer.spare_capacity_mut().len().min(RECEIVE_BYTES_MAX);
        let received = self.socket.try_recv(buffer, RECEIVE_BYTES_MAX);
        self.drained.set(match &received {
            // A stream gives less than there is room for only when it has no more (epoll(7), questions and answers), or at urgent data.
            Ok(count) => *count < room,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        });
        let received = transfer::received(lane, received);
        if let Ok(Some(count)) = received {
            lane.counters.bytes_in.add(count as u64);
        }
        received
    }

    /// Receives into a bulk buffer, waiting until the request slot's deadline, if the caller has set one: see [`transfer::recv`].
    pub async fn recv(&self, lane: &Lane) -> Result<Vec<u8>, TransferError> {
        let ready = || self.deadline.guard(Slot::Request, self.readable(lane));
        transfer::recv(lane, ready, |buffer| self.receive(lane, buffer)).await
    }

    /// Receives what still comes and drops it: until the client has finished, the request slot's deadline is over, if one is set, or `max`
    /// bytes have come.
    pub async fn discard(&self, lane: &Lane, max: usize) {
        let mut dropped = 0;
        while dropped < max
            && let Ok(bytes) = self.recv(lane).await
            && !bytes.is_empty()
        {
            dropped += bytes.len();
            lane.give(bytes);
        }
    }

    /// Whether the answer under way is the connection's last: it has had its requests, or the process drains. Then requests that have
    /// come behind it are answered first; a part of a head is none.
    #[inline]
    pub fn is_leaving(&self, lane: &Lane) -> bool {
        let limit = lane.config.limits.requests_per_connection;
        limit.is_some_and(|max| self.requests.get() >= max)
            || lane.deadlines.draining() && !self.has_next_head()
    }

    #[cold]
    fn has_next_head(&self) -> bool {
        let pending = self.pending.borrow();
        let pending = &pending[empty_lines(&pending)..];
        pending.windows(4).any(|bytes| bytes == b"\r\n\r\n")
    }
}

/// What becomes of the client's connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It takes the next request.
    KeepAlive,
    /// It is closed once the client has had the chance to read the answer: bytes of its may still be under way (RFC 9112 section 9.6).
    Linger,
    /// It is closed at once.
    Close,
    /// It is reset: the client must not take what it got for whole.
    Reset,
}
