//! Whether a client that waits for its answer is still there.
//!
//! A client that is gone should free its server's connection. A reset shows by itself. A FIN does not tell whether the client has only
//! finished sending, as it may (RFC 9112 section 9.6), or has closed the connection; the kernel of one that has closed resets it when
//! bytes come. So a client that has sent a FIN is sent an interim response, 100 (Continue), which a client discards that
//! did not ask for it (RFC 9110 section 15.2.1).

use std::cell::Cell;
use std::time::Duration;

use super::client::Client;
use super::lane::Lane;
use crate::net::deadline::{Slot, Ticks};
use crate::net::socket::Peer;

/// How long a closed client's kernel has for its reset before the client is looked at again.
const REPLY_FOR: Duration = Duration::from_millis(100);
const QUESTION: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a look at a client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody is there to answer.
    Gone,
    /// It may be there; it is time for another look after so long.
    There(Option<Ticks>),
}

/// The watch over a client. Its clock is the request slot, which is the upload's while a body is passed on.
#[derive(Debug, Default)]
pub struct Presence {
    watches: Cell<bool>,
    /// The client can be sent an interim response. It is sent one a request at most.
    may_ask: Cell<bool>,
}

impl Presence {
    /// A request of HTTP/1.`minor` has come. HTTP/1.0 does not know interim responses.
    #[inline]
    pub fn requested(&self, minor: u8) {
        self.watches.set(false);
        self.may_ask.set(minor > 0);
    }

    /// Begins to watch: the request slot is free.
    #[inline]
    pub fn begin(&self, lane: &Lane, client: &Client) {
        if let Some(every) = lane.timeouts.client_gone_check {
            self.watches.set(true);
            client.deadline.set(Slot::Request, every);
        }
    }

    /// Begins to watch unless the watch runs: attempts that follow one another in haste must not put the next look off.
    pub fn go_on(&self, lane: &Lane, client: &Client) {
        if !self.watches.get() {
            self.begin(lane, client);
        }
    }

    /// Ends the watch: something else needs the request slot.
    pub fn end(&self, client: &Client) {
        self.watches.set(false);
        client.deadline.clear(Slot::Request);
    }

    /// The final response is about to leave, so no interim one may follow.
    #[inline]
    pub fn answered(&self) {
        self.may_ask.set(false);
    }

    /// Nothing may be asked for now: an interim response is leaving. Gives what [`Self::release`] wants back.
    pub fn hold(&self) -> bool {
        self.may_ask.replace(false)
    }

    /// What was held is as it was.
    pub fn release(&self, held: bool) {
        self.may_ask.set(held);
    }

    /// Whether the client turns out to be gone. Call it when the task is woken: mostly it is not yet time to look.
    #[inline]
    pub fn is_gone(&self, lane: &Lane, client: &Client) -> bool {
        self.watches.get() && client.deadline.is_overdue(Slot::Request) && self.look(lane, client)
    }

    #[cold]
    fn look(&self, lane: &Lane, client: &Client) -> bool {
        match self.look_now(lane, client, true) {
            Look::Gone => return true,
            Look::There(Some(next)) => client.deadline.set(Slot::Request, next),
            Look::There(None) => {}
        }
        false
    }

    /// Looks at a client. `may_ask` tells that it may be sent something to see what comes of it: not while a body is passed on, of which a
    /// reset would take what is unread.
    pub fn look_now(&self, lane: &Lane, client: &Client, may_ask: bool) -> Look {
        match client.socket.peer() {
            Peer::Gone => Look::Gone,
            Peer::Finished if may_ask && self.ask(lane, client) => {
                Look::There(Some(Ticks::from(REPLY_FOR)))
            }
            Peer::Finished | Peer::There => Look::There(lane.timeouts.client_gone_check),
        }
    }

    /// Sends something that a closed client's kernel will not take. Not behind bytes that wait to be sent: it must go whole or not at all.
    fn ask(&self, lane: &Lane, client: &Client) -> bool {
        if !self.may_ask.get() || client.socket.has_unsent() {
            return false;
        }
        self.may_ask.set(false);
        let asked = client.socket.try_send(QUESTION);
        lane.counters
            .bytes_out
            .add(*asked.as_ref().unwrap_or(&0) as u64);
        asked.is_ok()
    }
}
