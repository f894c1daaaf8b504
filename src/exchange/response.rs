//! A server's answer on its way to the client.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use super::client::Client;
use super::lane::Lane;
use super::pace::Debt;
use super::request::Traits;
use super::sticky;
use super::transfer::{self, TransferError};
use crate::config::Statuses;
use crate::http1::body::{Coding, Moved, Reader};
use crate::http1::forward::{Persistence, Response};
use crate::http1::framing::{self, Framing, Options};
use crate::http1::head::{Progress, ResponseHead};
use crate::http1::refusal::Refusal;
use crate::net::deadline::Slot;
use crate::net::socket::Socket;
use crate::telemetry::counters::FailureKind;
use crate::upstream::group::{Group, Server};

/// Interim responses that a server may send before the final one.
const INTERIMS_MAX: u32 = 64;

/// Why an answer could not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be had; nothing was sent.
    Connect(FailureKind),
    /// The server closed the connection before it sent a byte.
    NoAnswer,
    /// The server failed in another way before the client got anything.
    Server(FailureKind),
    /// The server answered with a status that another server may do better than; nothing has left. The answer is in
    /// [`Answering::unwanted`].
    Unwanted,
    /// The server failed when the client had got a part of the answer.
    Truncated {
        /// The client finds the end of the body by the connection's end.
        until_close: bool,
    },
    /// The client is gone.
    ClientGone,
    /// The client did not take its answer in time.
    ClientStalled,
    /// The client takes its answer too slowly.
    ClientSlow,
}

impl Failure {
    /// The same when bytes had come before it.
    fn after_bytes(self) -> Self {
        match self {
            Self::NoAnswer => Self::Server(FailureKind::Closed),
            other => other,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(_: Refusal) -> Self {
        Self::Server(FailureKind::BadResponse)
    }
}

/// A final response that has begun.
#[derive(Debug)]
pub struct Start {
    /// The head for the client and what has come of the body.
    pub(super) out: Vec<u8>,
    pub(super) reader: Reader,
    pub(super) coding: Coding,
    pub(super) finish: Finish,
}

impl Start {
    /// Whether the answer has been read to its end and leaves its connection fit for the next request.
    pub fn leaves_connection(&self) -> bool {
        self.reader.ended() && self.finish.reusable
    }

    /// Says that its connection must not carry another request, unless this is so.
    pub(super) fn forbid_reuse_unless(&mut self, is_sent: bool) {
        self.finish.reusable &= is_sent;
    }

    /// The buffer of an answer that nobody gets.
    pub fn into_buffer(self) -> Vec<u8> {
        self.out
    }
}

/// What came of an answer that was passed on whole.
#[derive(Debug)]
pub struct Finish {
    /// Its status.
    pub status: u16,
    /// The client's connection goes on.
    pub persistent: bool,
    /// The server's connection can be used again.
    pub reusable: bool,
    /// The connection has become a tunnel; these bytes came behind the head.
    pub tunnel: Option<Vec<u8>>,
    /// Bytes of body sent to the client.
    pub body_bytes: u64,
    /// Microseconds until the head had come.
    pub head_us: u64,
    /// The client's connection can wait for the rest of the request's body, which the server may still want.
    pub awaits_upload: bool,
}

/// What a client got of an answer that has begun to leave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivered {
    /// Its status; 0 before.
    pub status: u16,
    /// Bytes of body sent to the client.
    pub body_bytes: u64,
    /// Microseconds until the head had come.
    pub head_us: u64,
}

/// What received bytes turned out to be.
#[allow(clippy::large_enum_variant)] // the large variant is the usual one; a box for it would be an allocation for each response
enum Received {
    /// A part of a head.
    Partial,
    /// An interim response for the client, empty when it must not get it, and the bytes that it took.
    Interim(Vec<u8>, usize),
    /// The final response.
    Final(Start),
}

/// A complete head.
#[derive(Clone, Copy)]
struct Arrived<'a> {
    head: &'a ResponseHead,
    /// The bytes it was parsed from.
    bytes: &'a [u8],
    /// What its Connection field says.
    options: Options,
}

/// One attempt's answering side.
pub struct Answering<'x> {
    /// The shard's state.
    pub lane: &'x Lane,
    /// Who asked.
    pub client: &'x Client,
    /// Facts about the request.
    pub traits: Traits,
    /// The upstream.
    pub group: &'x Group,
    /// The server that answers, by index in the group.
    pub index: usize,
    /// The same.
    pub server: &'x Server,
    /// The request's body is still under way.
    pub uploading: Cell<bool>,
    /// The server has reset the connection, as a send has found.
    pub reset: Cell<bool>,
    /// The final head has come.
    pub head_seen: Cell<bool>,
    /// An interim response is being sent.
    pub interim_leaving: Cell<bool>,
    /// What the client has got.
    pub delivered: Cell<Delivered>,
    /// When the attempt began.
    pub started: Instant,
    /// Statuses of answers that are not to be passed on at once.
    pub unwanted_statuses: Option<&'x Statuses>,
    /// An answer with such a status.
    pub unwanted: Cell<Option<Box<Start>>>,
    /// What the client owes of the least rate.
    pub debt: Debt,
}

impl Answering<'_> {
    /// Passes the answer on. The deadline of the response slot is the caller's until the head has come.
    pub async fn run(&self, server: &Socket) -> Result<Finish, Failure> {
        let start = self.start(server).await?;
        if let Some(statuses) = self.unwanted_statuses
            && statuses.contains(start.finish.status)
            // With the rest of the request's body under way, neither can wait.
            && !self.uploading.get()
        {
            self.unwanted.set(Some(Box::new(start)));
            return Err(Failure::Unwanted);
        }
        self.pass_on(server, start).await
    }

    /// Waits for the final head. What it needs for that is not held while the answer leaves.
    #[inline]
    async fn start(&self, server: &Socket) -> Result<Start, Failure> {
        let mut head = self.lane.take_response_head();
        let mut pending = Vec::new();
        let mut received = None;
        // A long answer is received at once and in one piece by a call that has a large buffer, which a wait must not hold.
        if self.server.is_brief.get() && self.lane.receives_ahead() {
            received = self.receive_ahead(server, &mut head, &mut pending).await?;
        }
        let received = loop {
            if let Some(received) = received {
                break received;
            }
            self.readable(server).await?;
            received = self.receive(server, &mut head, &mut pending)?;
        };
        let start = match received {
            Received::Final(start) => start,
            // Boxed, like all rarer parts: what every exchange holds stays small.
            other => Box::pin(self.start_late(server, &mut head, pending, other)).await?,
        };
        self.lane.give_response_head(head);
        Ok(start)
    }

    /// Reads up to the final head, of which a part or an interim response has come; interim responses are passed on at once.
    async fn start_late(
        &self,
        server: &Socket,
        head: &mut ResponseHead,
        mut pending: Vec<u8>,
        mut received: Received,
    ) -> Result<Start, Failure> {
        let mut interims = 0;
        loop {
            match received {
                Received::Final(start) => return Ok(start),
                Received::Partial => {}
                Received::Interim(out, used) => {
                    interims += 1;
                    if interims > INTERIMS_MAX {
                        return Err(Failure::Server(FailureKind::BadResponse));
                    }
                    pending.drain(..used);
                    head.clear();
                    if !out.is_empty() {
                        self.send_interim(&out).await?;
                    }
                    self.lane.give(out);
                    if !pending.is_empty() {
                        received = self.read(head, &pending)?;
                        continue;
                    }
                }
            }
            received = loop {
                let ready = self.readable(server).await;
                let more = ready.and_then(|()| self.receive(server, head, &mut pending));
                if let Some(received) = more.map_err(Failure::after_bytes)? {
                    break received;
                }
            };
        }
    }

    /// Sends an interim response. How long the client takes for it is not the server's time, which goes on afterwards.
    async fn send_interim(&self, out: &[u8]) -> Result<(), Failure> {
        let deadline = &self.client.deadline;
        let left = deadline.left(Slot::Response);
        self.interim_leaving.set(true);
        self.send(out).await?;
        self.interim_leaving.set(false);
        // The request's body may have ended meanwhile, which sets the deadline, and the send have cleared it.
        let ended = || (!self.uploading.get()).then_some(self.group.response_header_ticks);
        if let Some(left) = left.or_else(ended) {
            deadline.set(Slot::Response, left);
        }
        Ok(())
    }

    /// Reads what has come. What is not a complete final head stays in `pending`.
    fn receive(
        &self,
        server: &Socket,
        head: &mut ResponseHead,
        pending: &mut Vec<u8>,
    ) -> Result<Option<Received>, Failure> {
        self.lane.with_scratch(|scratch| {
            let count = match transfer::recv_now(self.lane, server, scratch) {
                Ok(None) => return Ok(None),
                Err(TransferError::Refused) => return Err(self.refused()),
                Ok(Some(0)) | Err(_) if pending.is_empty() => return Err(Failure::NoAnswer),
                Ok(Some(0)) | Err(_) => return Err(Failure::Server(FailureKind::Closed)),
                Ok(Some(count)) => count,
            };
            self.lane.server(self.server.id).bytes_in.add(count as u64);
            if pending.is_empty() {
                return self.begin(head, pending, scratch).map(Some);
            }
            pending.extend_from_slice(scratch);
            self.read(head, pending).map(Some)
        })
    }

    /// Like [`Self::receive`] for the answer's first bytes, but waits for them with a buffer that the ring receives into.
    async fn receive_ahead(
        &self,
        server: &Socket,
        head: &mut ResponseHead,
        pending: &mut Vec<u8>,
    ) -> Result<Option<Received>, Failure> {
        let buffer = self.lane.take_for(0);
        let receiving = pin!(transfer::recv_queued(self.lane, server, buffer));
        let (received, buffer) = self.wait(receiving).await?;
        let received = match received {
            Ok(None) => Ok(None),
            Err(TransferError::Refused) => Err(self.refused()),
            Ok(Some(0)) | Err(_) => Err(Failure::NoAnswer),
            // Memory may have become short meanwhile, and the buffer that receives take turns with small.
            Ok(Some(count)) if !Lane::is_brief(count) && self.lane.receives_ahead() => {
                self.receive_behind(&buffer, server, head, pending)
            }
            Ok(Some(count)) => {
                self.lane.server(self.server.id).bytes_in.add(count as u64);
                self.begin(head, pending, &buffer).map(Some)
            }
        };
        self.lane.give(buffer);
        received
    }

    /// The server turns out not to take the connection.
    #[cold]
    fn refused(&self) -> Failure {
        self.group.failed(self.index, FailureKind::ConnectRefused);
        Failure::Connect(FailureKind::ConnectRefused)
    }

    /// Receives what has come behind `bytes`, so that both leave in one send.
    fn receive_behind(
        &self,
        bytes: &[u8],
        server: &Socket,
        head: &mut ResponseHead,
        pending: &mut Vec<u8>,
    ) -> Result<Option<Received>, Failure> {
        self.lane.with_scratch(|scratch| {
            scratch.extend_from_slice(bytes);
            let behind = transfer::recv_now(self.lane, server, scratch);
            let counters = self.lane.server(self.server.id);
            counters.bytes_in.add(scratch.len() as u64);
            let received = self.begin(head, pending, scratch)?;
            let is_whole = matches!(&received, Received::Final(start) if start.reader.ended());
            // An error is told once: to the next receive, a reset connection looks like one that has ended well.
            if behind.is_err() && !is_whole {
                return Err(Failure::Server(FailureKind::Closed));
            }
            Ok(Some(received))
        })
    }

    /// Reads the answer's first bytes.
    #[inline]
    fn begin(
        &self,
        head: &mut ResponseHead,
        pending: &mut Vec<u8>,
        bytes: &[u8],
    ) -> Result<Received, Failure> {
        self.server.is_brief.set(Lane::is_brief(bytes.len()));
        let received = self.read(head, bytes)?;
        if !matches!(received, Received::Final(_)) {
            pending.extend_from_slice(bytes);
        }
        Ok(received)
    }

    /// Waits until something has come from the server.
    pub(super) async fn readable(&self, server: &Socket) -> Result<(), Failure> {
        let ready = self.wait(pin!(server.readable())).await?;
        ready.map_err(|_| Failure::NoAnswer)
    }

    /// Waits for the server, now and then looking whether the client is still there.
    async fn wait<F: Future>(&self, wait: Pin<&mut F>) -> Result<F::Output, Failure> {
        let deadline = &self.client.deadline;
        let mut wait = pin!(deadline.guard(Slot::Response, wait));
        poll_fn(|cx| match wait.as_mut().poll(cx) {
            Poll::Ready(Ok(waited)) => Poll::Ready(Ok(waited)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::Server(FailureKind::ResponseTimeout))),
            Poll::Pending if self.client.presence.is_gone(self.lane, self.client) => {
                Poll::Ready(Err(Failure::ClientGone))
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Reads a head at the start of `bytes`; with a final one goes what has come of the body.
    fn read(&self, head: &mut ResponseHead, bytes: &[u8]) -> Result<Received, Failure> {
        let Progress::Complete(head_bytes) = head.parse(bytes, &self.lane.limits)? else {
            return Ok(Received::Partial);
        };
        let (bytes, rest) = bytes.split_at(head_bytes);
        let arrived = Arrived {
            head,
            bytes,
            options: framing::options(&head.fields, bytes),
        };
        if head.status < 200 && head.status != 101 {
            return Ok(Received::Interim(self.interim(arrived), head_bytes));
        }
        let framing = framing::response(head, bytes, self.traits.to_head)?;
        self.head_seen.set(true);
        self.client.deadline.clear(Slot::Response);
        let head_us = self.started.elapsed().as_micros() as u64;
        let counters = self.lane.server(self.server.id);
        counters.latency.record(head_us);
        self.group.answered(self.index, head.status, head_us);
        counters.responses.count(head.status);
        if self.group.sticky.is_some() {
            sticky::count(self.traits.bond, self.index, counters);
        }
        let mut start = if head.status == 101 {
            self.switch(arrived, rest)?
        } else {
            self.final_response(arrived, framing, rest)?
        };
        start.finish.head_us = head_us;
        Ok(Received::Final(start))
    }

    fn write_head(
        &self,
        arrived: Arrived<'_>,
        chunked: bool,
        persistence: Persistence,
        out: &mut Vec<u8>,
    ) {
        let Arrived {
            head,
            bytes,
            options,
        } = arrived;
        let cookie = self.cookie(head.status);
        self.lane.with_date(|date| {
            Response {
                head,
                bytes,
                options,
                chunked,
                persistence,
                date,
                via: self.lane.disclosure.via,
                served_by: self
                    .lane
                    .config
                    .forward
                    .served_by
                    .then_some(self.server.name.as_str()),
                cookie,
            }
            .write(out);
        });
    }

    /// The cookie that a final response sets.
    #[inline]
    fn cookie(&self, status: u16) -> Option<&str> {
        let sticky = self.group.sticky.as_ref()?;
        if status < 200 && status != 101 {
            return None;
        }
        sticky::cookie(sticky, self.traits.bond, self.index)
    }

    /// An interim response for the client (RFC 9110 section 15.2). HTTP/1.0 does not know them.
    fn interim(&self, arrived: Arrived<'_>) -> Vec<u8> {
        let mut out = self.lane.take_for(arrived.bytes.len());
        if self.traits.minor > 0 {
            self.write_head(arrived, false, Persistence::Implied, &mut out);
        }
        out
    }

    /// 101: only the client's own offer can be taken up, and only when the server has the whole request (RFC 9110 section 7.8).
    fn switch(&self, arrived: Arrived<'_>, early: &[u8]) -> Result<Start, Failure> {
        if !self.traits.upgrade || self.uploading.get() {
            return Err(Failure::Server(FailureKind::BadResponse));
        }
        let mut out = self.lane.take_for(arrived.bytes.len());
        self.write_head(arrived, false, Persistence::Upgrade, &mut out);
        let finish = Finish {
            status: 101,
            persistent: false,
            reusable: false,
            tunnel: Some(early.to_vec()),
            body_bytes: 0,
            head_us: 0,
            awaits_upload: false,
        };
        Ok(Start {
            out,
            reader: Reader::Ended,
            coding: Coding::Identity,
            finish,
        })
    }

    fn final_response(
        &self,
        arrived: Arrived<'_>,
        framing: Framing,
        rest: &[u8],
    ) -> Result<Start, Failure> {
        let Arrived {
            head,
            bytes,
            options,
        } = arrived;
        let coding = match framing {
            Framing::Chunked if self.traits.minor > 0 => Coding::chunked(options),
            // A body whose end only the connection marked gets an end of its own, and the client keeps its connection.
            Framing::UntilClose if self.traits.minor > 0 => Coding::Chunked,
            _ => Coding::Identity,
        };
        let until_close =
            coding == Coding::Identity && matches!(framing, Framing::Chunked | Framing::UntilClose);
        let server_persists = options.persistent(head.minor);
        let wants_rest = self.wants_rest(head.status);
        let persistent = !until_close
            && self.traits.persistent
            && (wants_rest && server_persists || !self.uploading.get())
            && !self.client.is_leaving(self.lane);
        let persistence = match (persistent, self.traits.minor) {
            (false, _) => Persistence::Close,
            (true, 0) => Persistence::KeepAlive,
            (true, _) => Persistence::Implied,
        };
        let mut out = self.lane.take_for(bytes.len() + rest.len());
        self.write_head(arrived, coding != Coding::Identity, persistence, &mut out);
        let mut reader = Reader::new(framing);
        let moved = if reader.ended() {
            Moved::default()
        } else {
            reader.transfer(rest, coding, &self.lane.limits, &mut out)?
        };
        let reusable = server_persists && framing != Framing::UntilClose
            // Bytes that nobody asked for would be taken for the next response.
            && moved.consumed == rest.len();
        let finish = Finish {
            status: head.status,
            persistent,
            reusable,
            tunnel: None,
            body_bytes: moved.data,
            head_us: 0,
            awaits_upload: wants_rest && !until_close,
        };
        Ok(Start {
            out,
            reader,
            coding,
            finish,
        })
    }

    /// Whether a server that answers with this status before it has the whole body may want the rest of it. A client that waits for
    /// 100 (Continue) will not send one.
    fn wants_rest(&self, status: u16) -> bool {
        status < 300 && !self.traits.expects_continue
    }
}
