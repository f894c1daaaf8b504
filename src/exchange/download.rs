//! The rest of a server's answer on its way to the client: the mirror of [`upload`](super::upload).

use super::pace::Pace;
use super::rare::rare;
use super::response::{Answering, Failure, Start};
use super::transfer::{self, Patience, TransferError};
use crate::http1::body::{Coding, Reader};
use crate::net::deadline::{Slot, Ticks};
use crate::net::socket::Socket;
use crate::telemetry::counters::{FailureKind, TimeoutKind};

impl Answering<'_> {
    /// Passes on an answer that has begun.
    #[allow(clippy::manual_async_fn)] // an async function would hold its arguments twice, for every exchange
    pub(super) fn pass_on(
        &self,
        server: &Socket,
        start: &mut Start,
    ) -> impl Future<Output = Result<(), Failure>> {
        async move {
            self.client.presence.answered();
            self.lane.counters.bytes_out.add(start.out.len() as u64);
            self.uptake.begin(self.client.deadline.now());
            let sent = transfer::send_queued(
                self.lane,
                &self.client.socket,
                &mut start.out,
                &self.client.deadline,
                self.patience(),
            )
            .await;
            self.uptake.end(self.client.deadline.now());
            self.client.deadline.clear(Slot::Response);
            self.lane.give(std::mem::take(&mut start.out));
            sent.map_err(|why| {
                // How much of it has left is not known: none of it counts as delivered.
                start.finish.body_bytes = 0;
                client_failure(why)
            })?;
            if !start.reader.ended() {
                rare(self.body(server, start)).await?;
            }
            Ok(())
        }
    }

    /// Passes the rest of the body on as it comes.
    async fn body(&self, server: &Socket, start: &mut Start) -> Result<(), Failure> {
        let coding = start.coding;
        // A body with a length is seen to be cut off by it.
        let until_close = coding == Coding::Identity && !matches!(start.reader, Reader::Length(_));
        let truncated = Failure::Truncated {
            until_close,
            held_up: false,
        };
        if until_close {
            // Also when it is the process that ends.
            self.client.socket.reset_on_close();
        }
        while !start.reader.ended() {
            let broken_off = Failure::Truncated {
                until_close,
                held_up: self.uptake.has_held_up(),
            };
            let input = self.receive_body(server).await.map_err(|why| match why {
                Failure::ClientGone => why,
                Failure::Server(FailureKind::ResponseTimeout) => {
                    self.lane.counters.timeout(TimeoutKind::ResponseBody).inc();
                    // It may wait for more of the request's body.
                    let held_up = self.uploading() && !server.has_unsent();
                    Failure::Truncated {
                        until_close,
                        held_up,
                    }
                }
                _ => broken_off,
            })?;
            if input.is_empty() {
                self.end_of_stream(&start.reader, coding, broken_off)
                    .await?;
                break;
            }
            self.lane
                .server(self.server.id)
                .bytes_in
                .add(input.len() as u64);
            let passed = self.pass(&input, start, truncated).await;
            self.lane.give(input);
            passed?;
        }
        if until_close {
            self.client.socket.finish_on_close();
        }
        self.client.deadline.clear(Slot::Response);
        Ok(())
    }

    /// The next bytes of the body, empty at the end of the stream. The buffer is taken when there is something to read.
    async fn receive_body(&self, server: &Socket) -> Result<Vec<u8>, Failure> {
        let since = self.client.deadline.now();
        self.set_look(Ticks::of(0));
        loop {
            match self.readable(server).await {
                Ok(()) => {}
                Err(Failure::Server(FailureKind::ResponseTimeout))
                    if self.has_time(server, since) =>
                {
                    continue;
                }
                Err(why) => return Err(why),
            }
            let mut buffer = self.lane.bulk.take();
            let received = transfer::recv_now(self.lane, server, &mut buffer);
            if let Ok(Some(_)) = received {
                return Ok(buffer);
            }
            self.lane.bulk.give(buffer);
            received.map_err(|_| Failure::NoAnswer)?;
        }
    }

    /// Whether the server, which is waited for `since` then, has time left for more of its body, and until when. What it takes of the
    /// request's body starts that anew: it may end the one when it has read the other.
    #[cold]
    fn has_time(&self, server: &Socket, since: u32) -> bool {
        let now = self.client.deadline.now();
        self.taken.look(server, now);
        let rested = Ticks::between(since.max(self.taken.at()), now);
        self.set_look(rested);
        rested <= self.group.response_body_ticks
    }

    /// Sets the time for more of a server's body that has rested for so long, or until the next look at what it takes.
    fn set_look(&self, rested: Ticks) {
        let timeout = self.group.response_body_ticks;
        let wait = transfer::next_look(timeout, rested);
        self.client.deadline.set(Slot::Response, wait);
    }

    /// Passes on what of the body `input` holds.
    async fn pass(
        &self,
        input: &[u8],
        start: &mut Start,
        truncated: Failure,
    ) -> Result<(), Failure> {
        let Start {
            reader,
            coding,
            finish,
            ..
        } = start;
        let coding = *coding;
        if reader.is_plain() && coding == Coding::Identity {
            let taken = reader.take_plain(input.len());
            finish.reusable &= taken == input.len();
            self.send(&input[..taken]).await?;
            finish.body_bytes += taken as u64;
            return Ok(());
        }
        let mut output = self.lane.take_for(input.len());
        let moved = reader.transfer(input, coding, &self.lane.limits, &mut output);
        let sent = match moved {
            Err(_) => Err(truncated),
            Ok(_) if output.is_empty() => Ok(()),
            Ok(_) => self.send(&output).await,
        };
        self.lane.give(output);
        sent?;
        let moved = moved.map_err(|_| truncated)?;
        finish.reusable &= moved.consumed == input.len();
        finish.body_bytes += moved.data;
        Ok(())
    }

    /// The server has closed: the end of a body without length, the truncation of any other.
    async fn end_of_stream(
        &self,
        reader: &Reader,
        coding: Coding,
        truncated: Failure,
    ) -> Result<(), Failure> {
        if !matches!(reader, Reader::UntilClose) || self.reset.get() {
            return Err(truncated);
        }
        if coding == Coding::Identity {
            Ok(())
        } else {
            self.send(b"0\r\n\r\n").await
        }
    }

    /// With the client.
    #[inline]
    pub(super) fn patience(&self) -> Patience<'_> {
        let rate = self.lane.timeouts.response_rate.as_ref();
        Patience {
            stall: self.lane.timeouts.write,
            pace: rate.map(|rate| Pace {
                rate,
                debt: &self.debt,
            }),
            uptake: Some(&self.uptake),
        }
    }

    pub(super) async fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.lane.counters.bytes_out.add(bytes.len() as u64);
        let deadline = &self.client.deadline;
        self.uptake.begin(deadline.now());
        let sent = transfer::send_all(
            self.lane,
            &self.client.socket,
            bytes,
            deadline,
            Slot::Response,
            self.patience(),
        )
        .await;
        self.uptake.end(deadline.now());
        sent.map_err(client_failure)
    }
}

#[allow(clippy::needless_pass_by_value)] // the form that map_err takes
fn client_failure(error: TransferError) -> Failure {
    match error {
        TransferError::Gone | TransferError::Reset | TransferError::Refused => Failure::ClientGone,
        TransferError::Overdue => Failure::ClientStalled,
        TransferError::TooSlow => Failure::ClientSlow,
    }
}
