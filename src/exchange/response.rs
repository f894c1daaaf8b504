//! A server's answer on its way to the client.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use super::client::Client;
use super::lane::Lane;
use super::pace::Debt;
use super::rare::rare;
use super::request::{Request, Traits};
use super::spare::Spare;
use super::sticky;
use super::transfer::{self, TransferError};
use super::uptake::Uptake;
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

/// Whether a server that answers with this status before it has the whole body wants no more of it, as far as one can tell.
pub(super) fn refuses_body(status: u16) -> bool {
    status >= 300
}

/// Why an answer could not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be had; nothing was sent.
    Connect(FailureKind),
    /// The server closed the connection before it sent a byte.
    NoAnswer,
    /// The same with an error that means, on a connection that was begun with its first bytes, that the server has not taken it.
    Refused,
    /// The server failed in another way before the client got anything.
    Server(FailureKind),
    /// The server answered with a status that another server may do better than; nothing has left.
    Unwanted,
    /// The server failed when the client had got a part of the answer.
    Truncated {
        /// The client finds the end of the body by the connection's end.
        until_close: bool,
        /// The server may have waited for the client: to take the answer, or to send more of its body.
        held_up: bool,
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
    pub(super) fn after_bytes(self) -> Self {
        match self {
            Self::NoAnswer | Self::Refused => Self::Server(FailureKind::Closed),
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
#[derive(Debug, Default)]
pub struct Start {
    /// The head for the client and what has come of the body. Before a whole final head has come, what is to be read again.
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

    /// Whether the final head has come.
    pub(super) fn has_begun(&self) -> bool {
        self.finish.status > 0
    }

    /// The buffer of an answer that nobody gets.
    pub fn into_buffer(self) -> Vec<u8> {
        self.out
    }
}

/// What came of an answer that was passed on, or of as much of it as there was.
#[derive(Debug, Default)]
pub struct Finish {
    /// Its status.
    pub status: u16,
    /// That counts as a failure of the server.
    pub failed: bool,
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
}

/// What received bytes turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A part of a head.
    Partial,
    /// An interim response, whose head takes so many bytes.
    Interim(usize),
    /// The final response.
    Final,
}

/// What has come of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// Nothing yet.
    Nothing,
    /// A part of a head or an interim response; [`Start::out`] holds it.
    Early,
    /// The final response.
    Final,
}

/// A complete head.
#[derive(Clone, Copy)]
pub(super) struct Arrived<'a> {
    head: &'a ResponseHead,
    /// The bytes it was parsed from.
    bytes: &'a [u8],
    /// What its Connection field says.
    options: Options,
}

impl<'a> Arrived<'a> {
    #[inline]
    pub(super) fn new(head: &'a ResponseHead, bytes: &'a [u8]) -> Self {
        Self {
            head,
            bytes,
            options: framing::options(&head.fields, bytes),
        }
    }
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
    /// Microseconds from the start until the request's body had been sent; `None` while it is under way, or when it failed.
    pub uploaded_us: Cell<Option<u64>>,
    /// How the server takes what of that did not come with the head.
    pub taken: transfer::Progress,
    /// The server has reset the connection, as a send has found.
    pub reset: Cell<bool>,
    /// The final head has come.
    pub head_seen: Cell<bool>,
    /// How the client takes the answer, and interim responses.
    pub uptake: Uptake,
    /// The server is owed the rest of the request's body: before its final head has come, and after some. After others it gets what comes
    /// while it answers.
    pub wants_rest: Cell<bool>,
    /// After the answer the client's connection can wait for the rest of the request's body, which the server may still want.
    pub awaits_upload: Cell<bool>,
    /// When the attempt began.
    pub started: Instant,
    /// Statuses of answers that are not to be passed on at once.
    pub unwanted_statuses: Option<&'x Statuses>,
    /// What the client owes of the least rate.
    pub debt: Debt,
}

impl<'x> Answering<'x> {
    /// The answering side of an attempt that began at `started`, on the server with this index.
    pub(super) fn new(
        lane: &'x Lane,
        client: &'x Client,
        request: &Request<'x>,
        index: usize,
        started: Instant,
    ) -> Self {
        let uploading = !request.upload.ended();
        Self {
            lane,
            client,
            traits: request.traits,
            group: request.group,
            index,
            server: &request.group.servers[index],
            uploaded_us: Cell::new((!uploading).then_some(0)),
            taken: transfer::Progress::default(),
            reset: Cell::new(false),
            head_seen: Cell::new(false),
            uptake: Uptake::default(),
            wants_rest: Cell::new(true),
            awaits_upload: Cell::new(false),
            started,
            unwanted_statuses: None,
            debt: Debt::default(),
        }
    }
}

#[allow(clippy::manual_async_fn)] // an async function would hold its arguments twice, for every exchange
impl Answering<'_> {
    /// Passes the answer on. The deadline of the response slot is the caller's until the head has come.
    ///
    /// The answer is written to `start`, which is the caller's: it is too large to be handed on from function to function. One that has
    /// begun, and was put aside, goes on from there. It makes an earlier answer in `spare` needless.
    pub(super) fn run(
        &self,
        server: &Socket,
        start: &mut Start,
        spare: &mut Option<Box<Spare>>,
    ) -> impl Future<Output = Result<(), Failure>> {
        async move {
            let mut begun = if start.has_begun() {
                Begun::Final
            } else if self.server.is_brief.get() && self.lane.receives_ahead() {
                self.receive_ahead(server, start).await?
            } else {
                // A long answer is received at once and in one piece by a call that has a large buffer, which a wait must not hold.
                Begun::Nothing
            };
            while begun == Begun::Nothing {
                self.readable(server).await?;
                begun = self.receive(server, start)?;
            }
            if begun == Begun::Early {
                rare(self.start_late(server, start)).await?;
            }
            // With the rest of the request's body under way, neither can wait.
            if self.is_unwanted(start.finish.status) && !self.uploading() {
                return Err(Failure::Unwanted);
            }
            // Not when the answer has ended, which may take hours: the spare one holds a connection.
            if let Some(spare) = spare.take() {
                spare.discard(self.lane, self.group);
            }
            self.pass_on(server, start).await
        }
    }

    /// Tells that the server has got the request's body.
    pub(super) fn uploaded(&self) {
        self.uploaded_us.set(Some(self.elapsed_us()));
    }

    /// Whether the server has not got all of the request's body.
    #[inline]
    pub(super) fn uploading(&self) -> bool {
        self.uploaded_us.get().is_none()
    }

    /// Microseconds since the attempt began.
    fn elapsed_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Whether another server is to be asked after such an answer.
    #[inline]
    fn is_unwanted(&self, status: u16) -> bool {
        self.unwanted_statuses
            .is_some_and(|statuses| statuses.contains(status))
    }

    /// Receives what has come; `None` when nothing has.
    pub(super) fn receive_now(
        &self,
        server: &Socket,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<usize>, Failure> {
        match transfer::recv_now(self.lane, server, buffer) {
            Ok(None) => Ok(None),
            Err(TransferError::Refused) => Err(Failure::Refused),
            Ok(Some(0)) | Err(_) => Err(Failure::NoAnswer),
            Ok(Some(count)) => {
                self.lane.server(self.server.id).bytes_in.add(count as u64);
                Ok(Some(count))
            }
        }
    }

    /// Reads the answer's first bytes, if they have come.
    fn receive(&self, server: &Socket, start: &mut Start) -> Result<Begun, Failure> {
        self.lane.with_scratch(|scratch| {
            if self.receive_now(server, scratch)?.is_none() {
                return Ok(Begun::Nothing);
            }
            self.begin(scratch, start)
        })
    }

    /// Like [`Self::receive`], but waits for them with a buffer that the ring receives into.
    fn receive_ahead(
        &self,
        server: &Socket,
        start: &mut Start,
    ) -> impl Future<Output = Result<Begun, Failure>> {
        async move {
            let mut buffer = self.lane.take_for(0);
            let received = self.wait(pin!(server.recv_queued(&mut buffer))).await?;
            let begun = match transfer::received(self.lane, received) {
                Ok(None) => Ok(Begun::Nothing),
                Err(TransferError::Refused) => Err(Failure::Refused),
                Ok(Some(0)) | Err(_) => Err(Failure::NoAnswer),
                // Memory may have become short meanwhile, and the buffer that receives take turns with small.
                Ok(Some(count)) if !Lane::is_brief(count) && self.lane.receives_ahead() => {
                    self.receive_behind(&buffer, server, start)
                }
                Ok(Some(count)) => {
                    self.lane.server(self.server.id).bytes_in.add(count as u64);
                    self.begin(&buffer, start)
                }
            };
            self.lane.give(buffer);
            begun
        }
    }

    /// Receives what has come behind `bytes`, so that both leave in one send.
    fn receive_behind(
        &self,
        bytes: &[u8],
        server: &Socket,
        start: &mut Start,
    ) -> Result<Begun, Failure> {
        self.lane.with_scratch(|scratch| {
            scratch.extend_from_slice(bytes);
            let behind = transfer::recv_now(self.lane, server, scratch);
            let counters = self.lane.server(self.server.id);
            counters.bytes_in.add(scratch.len() as u64);
            let begun = self.begin(scratch, start)?;
            let is_whole = begun == Begun::Final && start.reader.ended();
            // An error is told once: to the next receive, a reset connection looks like one that has ended well.
            if behind.is_err() && !is_whole {
                return Err(Failure::Server(FailureKind::Closed));
            }
            Ok(begun)
        })
    }

    /// Reads the answer's first bytes. Where they have no whole final head, they are read again with what comes behind them.
    #[inline]
    fn begin(&self, bytes: &[u8], start: &mut Start) -> Result<Begun, Failure> {
        self.server.is_brief.set(Lane::is_brief(bytes.len()));
        let received = self.read(&mut self.lane.response_head(), bytes, start)?;
        if received == Received::Final {
            return Ok(Begun::Final);
        }
        start.out = bytes.to_vec();
        Ok(Begun::Early)
    }

    /// Waits until something has come from the server.
    pub(super) async fn readable(&self, server: &Socket) -> Result<(), Failure> {
        let ready = self.wait(pin!(server.readable())).await?;
        ready.map_err(|_| Failure::NoAnswer)
    }

    /// Waits for the server, now and then looking whether the client is still there.
    fn wait<F: Future>(
        &self,
        wait: Pin<&mut F>,
    ) -> impl Future<Output = Result<F::Output, Failure>> {
        let mut wait = self.client.deadline.guard(Slot::Response, wait);
        poll_fn(move |cx| match Pin::new(&mut wait).poll(cx) {
            Poll::Ready(Ok(waited)) => Poll::Ready(Ok(waited)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::Server(FailureKind::ResponseTimeout))),
            Poll::Pending if self.client.presence.is_gone(self.lane, self.client) => {
                Poll::Ready(Err(Failure::ClientGone))
            }
            Poll::Pending => Poll::Pending,
        })
    }

    /// Reads a head at the start of `bytes`; with a final one goes what has come of the body, both to `start`.
    pub(super) fn read(
        &self,
        head: &mut ResponseHead,
        bytes: &[u8],
        start: &mut Start,
    ) -> Result<Received, Failure> {
        let Progress::Complete(head_bytes) = head.parse(bytes, &self.lane.limits)? else {
            return Ok(Received::Partial);
        };
        if head.status < 200 && head.status != 101 {
            return Ok(Received::Interim(head_bytes));
        }
        let (bytes, rest) = bytes.split_at(head_bytes);
        let framing = framing::response(head, bytes, self.traits.to_head)?;
        self.head_seen.set(true);
        self.client.deadline.clear(Slot::Response);
        let arrived = Arrived::new(head, bytes);
        if head.status == 101 {
            self.switch(arrived, rest, start)?;
        } else {
            self.final_response(arrived, framing, rest, start)?;
        }
        // Not before: what is no answer after all counts as a failure.
        let head_us = self.elapsed_us();
        let counters = self.lane.server(self.server.id);
        counters.latency.record(head_us);
        // How long the client took for its body is not the server's latency.
        let latency_us = self
            .uploaded_us
            .get()
            .map(|sent_us| head_us.saturating_sub(sent_us));
        start.finish.failed = self.group.answered(self.index, head.status, latency_us);
        counters.responses.count(head.status);
        if self.group.sticky.is_some() {
            sticky::count(self.traits.bond, self.index, counters);
        }
        start.finish.status = head.status;
        start.finish.head_us = head_us;
        Ok(Received::Final)
    }

    pub(super) fn write_head(
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

    /// 101: only the client's own offer can be taken up, and only when the server has the whole request (RFC 9110 section 7.8).
    fn switch(&self, arrived: Arrived<'_>, early: &[u8], start: &mut Start) -> Result<(), Failure> {
        if !self.traits.upgrade || self.uploading() {
            return Err(Failure::Server(FailureKind::BadResponse));
        }
        start.out = self.lane.take_for(arrived.bytes.len());
        self.write_head(arrived, false, Persistence::Upgrade, &mut start.out);
        start.finish.tunnel = Some(early.to_vec());
        Ok(())
    }

    fn final_response(
        &self,
        arrived: Arrived<'_>,
        framing: Framing,
        rest: &[u8],
        start: &mut Start,
    ) -> Result<(), Failure> {
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
        let wants_rest = self.wants_rest.get() && self.may_want_rest(head.status);
        let persistent = !until_close
            && self.traits.persistent
            && (wants_rest && server_persists || !self.uploading())
            && !self.client.is_leaving(self.lane);
        let persistence = match (persistent, self.traits.minor) {
            (false, _) => Persistence::Close,
            (true, 0) => Persistence::KeepAlive,
            (true, _) => Persistence::Implied,
        };
        let Start {
            out,
            reader,
            finish,
            ..
        } = start;
        *out = self.lane.take_for(bytes.len() + rest.len());
        self.write_head(arrived, coding != Coding::Identity, persistence, out);
        *reader = Reader::new(framing);
        let moved = if reader.ended() {
            Moved::default()
        } else {
            reader.transfer(rest, coding, &self.lane.limits, out)?
        };
        finish.persistent = persistent;
        finish.reusable = server_persists && framing != Framing::UntilClose
            // Bytes that nobody asked for would be taken for the next response.
            && moved.consumed == rest.len();
        finish.body_bytes = moved.data;
        start.coding = coding;
        self.wants_rest.set(wants_rest);
        self.awaits_upload.set(wants_rest && !until_close);
        Ok(())
    }

    /// Whether a server that answers with this status before it has the whole body may want the rest of it. A client that still waits
    /// for 100 (Continue) will not send one.
    fn may_want_rest(&self, status: u16) -> bool {
        !refuses_body(status) && !self.client.awaits_continue.get()
    }

    /// Whether the client has taken nothing of an answer for half of the time that it has for that, while nobody has to have its body:
    /// some read only when they have sent everything.
    pub(super) fn is_unread(&self) -> bool {
        if !self.head_seen.get() || self.wants_rest.get() {
            return false;
        }
        let Some(rested) = self.uptake.rested(self.client.deadline.now()) else {
            return false;
        };
        let patience = self.patience();
        let left = patience.stall.saturating_sub(rested);
        rested > patience.pace.map_or(left, |pace| pace.patience(left))
    }
}
