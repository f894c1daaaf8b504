//! A server's answer on its way to the client.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use super::client::Client;
use super::lane::Lane;
use super::pace::{Debt, Pace};
use super::request::Traits;
use super::sticky;
use super::transfer::{self, Patience, TransferError};
use crate::config::Statuses;
use crate::http1::body::{Coding, Moved, Reader};
use crate::http1::forward::{Persistence, Response};
use crate::http1::framing::{self, Framing};
use crate::http1::head::{Progress, ResponseHead};
use crate::http1::refusal::Refusal;
use crate::net::deadline::{Interrupt, Slot};
use crate::net::socket::Socket;
use crate::telemetry::counters::{FailureKind, TimeoutKind};
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

impl From<Refusal> for Failure {
    fn from(_: Refusal) -> Self {
        Self::Server(FailureKind::BadResponse)
    }
}

/// A final response that has begun.
#[derive(Debug)]
pub struct Start {
    /// The head for the client and what has come of the body.
    out: Vec<u8>,
    reader: Reader,
    coding: Coding,
    finish: Finish,
}

impl Start {
    /// Whether the answer has been read to its end and leaves its connection fit for the next request.
    pub fn leaves_connection(&self) -> bool {
        self.reader.ended() && self.finish.reusable
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
    /// The final head has come.
    pub head_seen: Cell<bool>,
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
        let mut head = self.lane.take_response_head();
        let start = self.start(server, &mut head).await;
        self.lane.give_response_head(head);
        let start = start?;
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

    /// Passes on an answer that has begun.
    pub async fn pass_on(&self, server: &Socket, start: Start) -> Result<Finish, Failure> {
        let Start {
            out,
            mut reader,
            coding,
            mut finish,
        } = start;
        self.client.presence.answered();
        self.send_queued(out).await?;
        if !reader.ended() {
            // Boxed, like all rarer parts: what every exchange holds stays small.
            Box::pin(self.body(server, &mut reader, coding, &mut finish)).await?;
        }
        Ok(finish)
    }

    /// Reads up to the final head; interim responses are passed on at once.
    async fn start(&self, server: &Socket, head: &mut ResponseHead) -> Result<Start, Failure> {
        let mut pending = Vec::new();
        let mut interims = 0;
        let mut received = self.receive(server, head, &mut pending).await?;
        loop {
            received = match received {
                Received::Final(start) => return Ok(start),
                Received::Partial => self.receive(server, head, &mut pending).await?,
                Received::Interim(out, used) => {
                    interims += 1;
                    if interims > INTERIMS_MAX {
                        return Err(Failure::Server(FailureKind::BadResponse));
                    }
                    pending.drain(..used);
                    head.clear();
                    if !out.is_empty() {
                        self.send(&out).await?;
                    }
                    self.lane.give(out);
                    if pending.is_empty() {
                        self.receive(server, head, &mut pending).await?
                    } else {
                        self.read(head, &pending)?
                    }
                }
            };
        }
    }

    /// Waits for bytes and reads them. What is not a complete final head stays in `pending`.
    async fn receive(
        &self,
        server: &Socket,
        head: &mut ResponseHead,
        pending: &mut Vec<u8>,
    ) -> Result<Received, Failure> {
        loop {
            self.readable(server).await?;
            let received = self.lane.with_scratch(|scratch| {
                let count = match transfer::recv_now(server, scratch) {
                    Ok(None) => return Ok(None),
                    Ok(Some(0)) | Err(_) if pending.is_empty() => return Err(Failure::NoAnswer),
                    Ok(Some(0)) | Err(_) => return Err(Failure::Server(FailureKind::Closed)),
                    Ok(Some(count)) => count,
                };
                self.lane.server(self.server.id).bytes_in.add(count as u64);
                if pending.is_empty() {
                    let received = self.read(head, scratch)?;
                    if !matches!(received, Received::Final(_)) {
                        pending.extend_from_slice(scratch);
                    }
                    return Ok(Some(received));
                }
                pending.extend_from_slice(scratch);
                self.read(head, pending).map(Some)
            })?;
            if let Some(received) = received {
                return Ok(received);
            }
        }
    }

    /// Waits for the server, now and then looking whether the client is still there.
    async fn readable(&self, server: &Socket) -> Result<(), Failure> {
        let deadline = &self.client.deadline;
        let mut wait = pin!(deadline.guard(Slot::Response, server.readable()));
        poll_fn(|cx| match wait.as_mut().poll(cx) {
            Poll::Ready(waited) => Poll::Ready(readiness(waited)),
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
        if head.status < 200 && head.status != 101 {
            return Ok(Received::Interim(
                self.interim(head, &bytes[..head_bytes]),
                head_bytes,
            ));
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
            self.switch(head, &bytes[..head_bytes], &bytes[head_bytes..])?
        } else {
            self.final_response(head, framing, &bytes[..head_bytes], &bytes[head_bytes..])?
        };
        start.finish.head_us = head_us;
        Ok(Received::Final(start))
    }

    fn write_head(
        &self,
        head: &ResponseHead,
        bytes: &[u8],
        chunked: bool,
        persistence: Persistence,
        out: &mut Vec<u8>,
    ) {
        let cookie = self.cookie(head.status);
        self.lane.with_date(|date| {
            Response {
                head,
                bytes,
                options: framing::options(&head.fields, bytes),
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
    fn interim(&self, head: &ResponseHead, bytes: &[u8]) -> Vec<u8> {
        let mut out = self.lane.take_for(bytes.len());
        if self.traits.minor > 0 {
            self.write_head(head, bytes, false, Persistence::Implied, &mut out);
        }
        out
    }

    /// 101: only the client's own offer can be taken up.
    fn switch(&self, head: &ResponseHead, bytes: &[u8], early: &[u8]) -> Result<Start, Failure> {
        if !self.traits.upgrade {
            return Err(Failure::Server(FailureKind::BadResponse));
        }
        let mut out = self.lane.take_for(bytes.len());
        self.write_head(head, bytes, false, Persistence::Upgrade, &mut out);
        let finish = Finish {
            status: 101,
            persistent: false,
            reusable: false,
            tunnel: Some(early.to_vec()),
            body_bytes: 0,
            head_us: 0,
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
        head: &ResponseHead,
        framing: Framing,
        bytes: &[u8],
        rest: &[u8],
    ) -> Result<Start, Failure> {
        let options = framing::options(&head.fields, bytes);
        let coding = match framing {
            Framing::Chunked if self.traits.minor > 0 => Coding::chunked(options),
            // A body whose end only the connection marked gets an end of its own, and the client keeps its connection.
            Framing::UntilClose if self.traits.minor > 0 => Coding::Chunked,
            _ => Coding::Identity,
        };
        let until_close =
            coding == Coding::Identity && matches!(framing, Framing::Chunked | Framing::UntilClose);
        let persistent = !until_close && self.keeps_client(head.status);
        let persistence = match (persistent, self.traits.minor) {
            (false, _) => Persistence::Close,
            (true, 0) => Persistence::KeepAlive,
            (true, _) => Persistence::Implied,
        };
        let mut out = self.lane.take_for(bytes.len() + rest.len());
        self.write_head(
            head,
            bytes,
            coding != Coding::Identity,
            persistence,
            &mut out,
        );
        let mut reader = Reader::new(framing);
        let moved = if reader.ended() {
            Moved::default()
        } else {
            reader.transfer(rest, coding, &self.lane.limits, &mut out)?
        };
        let reusable = options.persistent(head.minor) && framing != Framing::UntilClose
            // Bytes that nobody asked for would be taken for the next response.
            && moved.consumed == rest.len();
        let finish = Finish {
            status: head.status,
            persistent,
            reusable,
            tunnel: None,
            body_bytes: moved.data,
            head_us: 0,
        };
        Ok(Start {
            out,
            reader,
            coding,
            finish,
        })
    }

    /// Whether the client's connection can go on after a response with this status.
    fn keeps_client(&self, status: u16) -> bool {
        // A server that answers before it has the body mostly wants no more of it.
        let cut_short = self.uploading.get() && (status >= 300 || self.traits.expects_continue);
        self.traits.persistent && !cut_short && !self.client.is_leaving(self.lane)
    }

    /// Passes the rest of the body on as it comes.
    async fn body(
        &self,
        server: &Socket,
        reader: &mut Reader,
        coding: Coding,
        finish: &mut Finish,
    ) -> Result<(), Failure> {
        let truncated = Failure::Truncated {
            until_close: !finish.persistent && matches!(coding, Coding::Identity),
        };
        while !reader.ended() {
            self.client
                .deadline
                .set(Slot::Response, self.group.response_body_ticks);
            let input = self.receive_body(server).await.map_err(|why| match why {
                Failure::ClientGone => why,
                Failure::Server(FailureKind::ResponseTimeout) => {
                    self.lane.counters.timeout(TimeoutKind::ResponseBody).inc();
                    truncated
                }
                _ => truncated,
            })?;
            if input.is_empty() {
                return self.end_of_stream(reader, coding, truncated).await;
            }
            self.lane
                .server(self.server.id)
                .bytes_in
                .add(input.len() as u64);
            let passed = self.pass(&input, reader, coding, finish, truncated).await;
            self.lane.give(input);
            passed?;
        }
        self.client.deadline.clear(Slot::Response);
        Ok(())
    }

    /// The next bytes of the body, empty at the end of the stream. The buffer is taken when there is something to read.
    async fn receive_body(&self, server: &Socket) -> Result<Vec<u8>, Failure> {
        loop {
            self.readable(server).await?;
            let mut buffer = self.lane.bulk.take();
            match transfer::recv_now(server, &mut buffer) {
                Ok(Some(_)) => return Ok(buffer),
                Ok(None) => self.lane.bulk.give(buffer),
                Err(_) => return Err(Failure::NoAnswer),
            }
        }
    }

    /// Passes on what of the body `input` holds.
    async fn pass(
        &self,
        input: &[u8],
        reader: &mut Reader,
        coding: Coding,
        finish: &mut Finish,
        truncated: Failure,
    ) -> Result<(), Failure> {
        if reader.is_plain() && coding == Coding::Identity {
            let taken = reader.take_plain(input.len());
            finish.reusable &= taken == input.len();
            finish.body_bytes += taken as u64;
            return self.send(&input[..taken]).await;
        }
        let mut output = self.lane.take_for(input.len());
        let moved = reader
            .transfer(input, coding, &self.lane.limits, &mut output)
            .map_err(|_| truncated)?;
        finish.reusable &= moved.consumed == input.len();
        finish.body_bytes += moved.data;
        let sent = if output.is_empty() {
            Ok(())
        } else {
            self.send(&output).await
        };
        self.lane.give(output);
        sent
    }

    /// The server has closed: the end of a body without length, the truncation of any other.
    async fn end_of_stream(
        &self,
        reader: &Reader,
        coding: Coding,
        truncated: Failure,
    ) -> Result<(), Failure> {
        if !matches!(reader, Reader::UntilClose) {
            return Err(truncated);
        }
        if coding == Coding::Identity {
            Ok(())
        } else {
            self.send(b"0\r\n\r\n").await
        }
    }

    /// Sends a buffer and gives it back to its pool.
    async fn send_queued(&self, buffer: Vec<u8>) -> Result<(), Failure> {
        self.lane.counters.bytes_out.add(buffer.len() as u64);
        let Client {
            socket, deadline, ..
        } = self.client;
        let (sent, buffer) = transfer::send_queued(
            self.lane,
            socket,
            buffer,
            deadline,
            Slot::Response,
            self.patience(),
        )
        .await;
        self.lane.give(buffer);
        sent.map_err(client_failure)
    }

    /// With the client.
    #[inline]
    fn patience(&self) -> Patience<'_> {
        let rate = self.lane.timeouts.response_rate.as_ref();
        Patience {
            stall: self.lane.timeouts.write,
            pace: rate.map(|rate| Pace {
                rate,
                debt: &self.debt,
            }),
        }
    }

    async fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.lane.counters.bytes_out.add(bytes.len() as u64);
        let deadline = &self.client.deadline;
        transfer::send_all(
            &self.client.socket,
            bytes,
            deadline,
            Slot::Response,
            self.patience(),
        )
        .await
        .map_err(client_failure)
    }
}

#[allow(clippy::needless_pass_by_value)] // the form that map_err takes
fn client_failure(error: TransferError) -> Failure {
    match error {
        TransferError::Gone => Failure::ClientGone,
        TransferError::Overdue => Failure::ClientStalled,
        TransferError::TooSlow => Failure::ClientSlow,
    }
}

#[allow(clippy::needless_pass_by_value)] // it consumes what a wait gave
fn readiness(waited: Result<io::Result<()>, Interrupt>) -> Result<(), Failure> {
    match waited {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Failure::NoAnswer),
        Err(_) => Err(Failure::Server(FailureKind::ResponseTimeout)),
    }
}
