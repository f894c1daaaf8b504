//! A request's body on its way to the server.

use std::io;

use super::client::Client;
use super::lane::Lane;
use super::pace::{Debt, Pace};
use super::presence::Look;
use super::response::Answering;
use super::transfer::{self, Hindrance, TransferError};
use crate::http1::body::{Coding, Moved, Reader};
use crate::http1::refusal::Refusal;
use crate::net::deadline::{Slot, Ticks};
use crate::net::socket::Socket;
use crate::telemetry::counters::Counter;

/// Why a body could not be passed on.
#[derive(Debug)]
pub enum UploadError {
    /// The client closed the connection in the middle of its body.
    ClientGone,
    /// The client stopped sending.
    ClientOverdue,
    /// The client sends too slowly.
    ClientSlow,
    /// The body is malformed or too large.
    Refused(Refusal),
    /// The server closed its connection; it may have answered first.
    ServerGone,
    /// The server reset its connection. It may have answered first, but an answer that ends with the connection is not whole.
    ServerReset,
    /// The same with an error that means, on a connection that was begun with its first bytes, that the server has not taken it.
    ServerRefused,
    /// The server stopped reading.
    ServerOverdue,
}

/// When the client has been waited for longer than this in all, the server may have given up on the body.
const WITHHELD_MAX: Ticks = Ticks::of(10);

/// The part of a request's body that has not been sent.
#[derive(Debug)]
pub struct Upload {
    reader: Reader,
    coding: Coding,
    /// Bytes of data that may still come.
    allowed: u64,
    /// Bytes of data that may still be kept for another attempt; `None` when only those are that came with the head.
    keep: Option<u64>,
    /// Bytes were taken from the client that are not kept for another attempt.
    spent: bool,
    /// What the client owes of the least rate.
    debt: Debt,
    /// Ticks for which the client has been waited for.
    waited: u64,
    /// Since when it is waited for.
    waits_since: Option<u32>,
    /// The flat index of the server that gets the rest.
    pub server: usize,
}

impl Upload {
    /// The whole body, of which at most `limit` bytes are taken. It is kept when it has at most `keep_max` bytes.
    pub fn new(reader: Reader, coding: Coding, limit: Option<u64>, keep_max: u64) -> Self {
        // One that is known to be longer need not be copied until then.
        let too_long = matches!(reader, Reader::Length(length) if length > keep_max);
        Self {
            reader,
            coding,
            allowed: limit.unwrap_or(u64::MAX),
            keep: (keep_max > 0 && !too_long).then_some(keep_max),
            spent: false,
            debt: Debt::default(),
            waited: 0,
            waits_since: None,
            server: 0,
        }
    }

    /// Whether everything has been taken from the client. A body that was refused has no end: what is behind it is lost.
    pub const fn ended(&self) -> bool {
        self.reader.ended()
    }

    /// Whether the client has kept back the body, or a part of it, for so long that a server may have given up on it.
    pub fn is_withheld(&self, now: u32) -> bool {
        let waits = self
            .waits_since
            .map_or(0, |since| Ticks::between(since, now).count());
        !self.ended() && Ticks::of(self.waited + waits) > WITHHELD_MAX
    }

    /// A new attempt begins: what its server does has nothing to do with earlier waits.
    pub const fn forget_waits(&mut self) {
        self.waited = 0;
        self.waits_since = None;
    }

    /// Whether a new attempt can send everything again that the last one was sent.
    pub const fn is_repeatable(&self) -> bool {
        !self.spent
    }

    /// Adds the body's bytes that came with the head to the outgoing message. Gives how many of `input` belong to the body.
    pub fn take_at_hand(
        &mut self,
        lane: &Lane,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, Refusal> {
        if self.ended() || input.is_empty() {
            return Ok(0);
        }
        let moved = self.transfer(lane, input, out)?;
        self.keep = self.keep.and_then(|keep| keep.checked_sub(moved.data));
        Ok(moved.consumed)
    }

    fn transfer(&mut self, lane: &Lane, input: &[u8], out: &mut Vec<u8>) -> Result<Moved, Refusal> {
        let moved = self
            .reader
            .transfer(input, self.coding, &lane.limits, out)
            .and_then(|moved| {
                let left = self.allowed.checked_sub(moved.data);
                self.allowed = left.ok_or(Refusal::BodyTooLarge)?;
                Ok(moved)
            });
        if moved.is_err() {
            // The reader may have got to the end of a body that is too large.
            self.reader = Reader::UntilClose;
            // A server that has begun its answer waits for the rest in vain.
            self.waits_since = Some(lane.deadlines.now());
        }
        moved
    }

    /// Passes the rest of the body on as it comes; what follows it stays pending with the client. `sent` is what the server got so
    /// far; a body that is small enough is added to it.
    pub async fn run(
        &mut self,
        answering: &Answering<'_>,
        server: &Socket,
        sent: &mut Vec<u8>,
    ) -> Result<(), UploadError> {
        let Answering { lane, client, .. } = *answering;
        while !self.ended() {
            let input = self.receive(answering).await?;
            let passed = self.pass(answering, server, &input, sent).await;
            lane.give(input);
            passed?;
        }
        client.deadline.clear(Slot::Request);
        Ok(())
    }

    /// The next bytes from the client. While it waits for 100 (Continue) its time stands still: the server's runs.
    async fn receive(&mut self, answering: &Answering<'_>) -> Result<Vec<u8>, UploadError> {
        let Answering { lane, client, .. } = *answering;
        let timeout = lane.timeouts.client_body;
        let rate = lane.timeouts.client_body_rate.as_ref();
        let pace = rate
            .filter(|_| !client.awaits_continue.get())
            .map(|rate| Pace {
                rate,
                debt: &self.debt,
            });
        let patience = pace.map_or(timeout, |pace| pace.patience(timeout));
        let since = lane.deadlines.now();
        if client.awaits_continue.get() {
            client.deadline.clear(Slot::Request);
        } else {
            client.deadline.set(Slot::Request, patience);
        }
        self.waits_since = Some(since);
        let received = client.recv(lane).await;
        let input = match received {
            Ok(input) if input.is_empty() => return Err(UploadError::ClientGone),
            Ok(input) => input,
            Err(TransferError::Overdue) if patience < timeout => {
                return Err(UploadError::ClientSlow);
            }
            Err(TransferError::Overdue) => return Err(UploadError::ClientOverdue),
            Err(_) => return Err(UploadError::ClientGone),
        };
        let waited = Ticks::between(since, lane.deadlines.now());
        if let Some(pace) = pace {
            pace.settle(waited, input.len())
                .map_err(|_| UploadError::ClientSlow)?;
        }
        self.waits_since = None;
        self.waited += waited.count();
        // It may begin without 100 (RFC 9110 section 10.1.1), which stops the server's time for its head.
        if client.awaits_continue.replace(false) && !answering.head_seen.get() {
            client.deadline.clear(Slot::Response);
        }
        Ok(input)
    }

    /// Passes on what of the body `input` holds.
    async fn pass(
        &mut self,
        answering: &Answering<'_>,
        server: &Socket,
        input: &[u8],
        sent: &mut Vec<u8>,
    ) -> Result<(), UploadError> {
        let Answering { lane, client, .. } = *answering;
        if self.reader.is_plain() {
            let taken = self.reader.take_plain(input.len());
            self.keep(lane, &input[..taken], taken as u64, sent);
            keep_rest(client, &input[taken..]);
            return self.send(answering, server, &input[..taken]).await;
        }
        let mut output = lane.take_for(input.len());
        let passed = match self.transfer(lane, input, &mut output) {
            Ok(moved) => {
                self.keep(lane, &output, moved.data, sent);
                keep_rest(client, &input[moved.consumed..]);
                self.send(answering, server, &output).await
            }
            Err(why) => Err(UploadError::Refused(why)),
        };
        lane.give(output);
        passed
    }

    async fn send(
        &self,
        answering: &Answering<'_>,
        server: &Socket,
        bytes: &[u8],
    ) -> Result<(), UploadError> {
        // A part of a chunk's line alone leaves nothing to send.
        if bytes.is_empty() {
            return Ok(());
        }
        let written = &answering.lane.server(self.server).bytes_out;
        match server.try_send(bytes) {
            Ok(sent) if sent == bytes.len() => {
                written.add(sent as u64);
                answering.taken.sent(sent, answering.client.deadline.now());
                Ok(())
            }
            sent => {
                let is_last = self.ended();
                let rest = send_rest(answering, server, written, bytes, sent, is_last);
                Box::pin(rest).await
            }
        }
    }

    /// Adds `bytes` to those `sent` that another attempt could send again, unless the body has become too long for that.
    fn keep(&mut self, lane: &Lane, bytes: &[u8], data: u64, sent: &mut Vec<u8>) {
        self.keep = self.keep.and_then(|keep| keep.checked_sub(data));
        if self.keep.is_none() || !lane.extend(sent, bytes) {
            self.keep = None;
            self.spent = true;
        }
    }
}

/// Waits for a server that takes nothing, now and then looking whether the client is still there. `sent` is what a first send gave;
/// `is_last` when no more follows from the client.
#[cold]
async fn send_rest(
    answering: &Answering<'_>,
    server: &Socket,
    written: &Counter,
    mut bytes: &[u8],
    sent: io::Result<usize>,
    is_last: bool,
) -> Result<(), UploadError> {
    let Answering { lane, client, .. } = *answering;
    let patience = lane.timeouts.write;
    let mut look_after = lane.timeouts.client_gone_check;
    let may_ask = is_last && look_after.is_some();
    let deadline = &client.deadline;
    let take = |bytes: &mut &[u8], sent| {
        let left = bytes.len();
        let hindrance = transfer::account(lane, bytes, sent).map_err(server_error)?;
        let count = left - bytes.len();
        written.add(count as u64);
        Ok((hindrance, count))
    };
    let (mut hindrance, _) = take(&mut bytes, sent)?;
    let progress = &answering.taken;
    progress.begin(server, deadline.now());
    while !bytes.is_empty() {
        if progress.is_overdue(patience, deadline.now()) {
            return Err(UploadError::ServerOverdue);
        }
        if hindrance == Hindrance::Shortage {
            deadline.next_turn().await;
        } else {
            let wait = progress.next_look(patience, deadline.now());
            let wait = look_after.map_or(wait, |look| look.min(wait));
            deadline.set(Slot::Request, wait);
            let waited = deadline.guard(Slot::Request, server.writable()).await;
            progress.look(server, deadline.now());
            match waited {
                Ok(Err(error)) => {
                    (hindrance, _) = take(&mut bytes, Err(error))?;
                    continue;
                }
                Ok(Ok(())) => {}
                Err(_) if look_after.is_none() => {}
                Err(_) => match client.presence.look_now(lane, client, may_ask) {
                    Look::Gone => return Err(UploadError::ClientGone),
                    Look::There(next) => look_after = next,
                },
            }
        }
        let sent = server.try_send(bytes);
        let (next, count) = take(&mut bytes, sent)?;
        hindrance = next;
        progress.sent(count, deadline.now());
    }
    Ok(())
}

fn server_error(error: io::Error) -> UploadError {
    match TransferError::from(error) {
        TransferError::Reset => UploadError::ServerReset,
        TransferError::Refused => UploadError::ServerRefused,
        _ => UploadError::ServerGone,
    }
}

/// Bytes behind the body are the next request's.
fn keep_rest(client: &Client, rest: &[u8]) {
    if !rest.is_empty() {
        client.pending.borrow_mut().extend_from_slice(rest);
    }
}
