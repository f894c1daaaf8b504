//! The rest of a server's answer on its way to the client: the mirror of [`upload`](super::upload).

use super::client::Client;
use super::pace::Pace;
use super::rare::rare;
use super::response::{Answering, Delivered, Failure, Finish, Start};
use super::transfer::{self, Patience, TransferError};
use crate::http1::body::{Coding, Reader};
use crate::net::deadline::Slot;
use crate::net::socket::Socket;
use crate::telemetry::counters::{FailureKind, TimeoutKind};

impl Answering<'_> {
    /// Passes on an answer that has begun.
    pub async fn pass_on(&self, server: &Socket, start: &mut Start) -> Result<(), Failure> {
        self.client.presence.answered();
        self.delivered.set(Delivered {
            status: start.finish.status,
            body_bytes: 0,
            head_us: start.finish.head_us,
        });
        self.send_queued(std::mem::take(&mut start.out)).await?;
        if !start.reader.ended() {
            self.count_body(&start.finish);
            rare(self.body(server, start)).await?;
        }
        Ok(())
    }

    /// Passes the rest of the body on as it comes.
    async fn body(&self, server: &Socket, start: &mut Start) -> Result<(), Failure> {
        let coding = start.coding;
        let until_close = !start.finish.persistent && matches!(coding, Coding::Identity);
        let truncated = Failure::Truncated { until_close };
        if until_close {
            // Also when it is the process that ends.
            self.client.socket.reset_on_close();
        }
        while !start.reader.ended() {
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
                self.end_of_stream(&start.reader, coding, truncated).await?;
                break;
            }
            self.lane
                .server(self.server.id)
                .bytes_in
                .add(input.len() as u64);
            let passed = self.pass(&input, start, truncated).await;
            self.lane.give(input);
            passed?;
            self.count_body(&start.finish);
        }
        if until_close {
            self.client.socket.finish_on_close();
        }
        self.client.deadline.clear(Slot::Response);
        Ok(())
    }

    /// Tells how much of the body the client has got, for when the rest does not follow.
    fn count_body(&self, finish: &Finish) {
        self.delivered.set(Delivered {
            body_bytes: finish.body_bytes,
            ..self.delivered.get()
        });
    }

    /// The next bytes of the body, empty at the end of the stream. The buffer is taken when there is something to read.
    async fn receive_body(&self, server: &Socket) -> Result<Vec<u8>, Failure> {
        loop {
            self.readable(server).await?;
            let mut buffer = self.lane.bulk.take();
            match transfer::recv_now(self.lane, server, &mut buffer) {
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
        if !matches!(reader, Reader::UntilClose) || self.reset.get() {
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

    pub(super) async fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.lane.counters.bytes_out.add(bytes.len() as u64);
        let deadline = &self.client.deadline;
        transfer::send_all(
            self.lane,
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
        TransferError::Gone | TransferError::Reset | TransferError::Refused => Failure::ClientGone,
        TransferError::Overdue => Failure::ClientStalled,
        TransferError::TooSlow => Failure::ClientSlow,
    }
}
