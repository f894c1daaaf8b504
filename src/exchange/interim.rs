//! Interim responses (RFC 9110 section 15.2), and a final head that comes in pieces or behind them.

use super::lane::Lane;
use super::response::{Answering, Arrived, Failure, Received, Start};
use crate::http1::forward::Persistence;
use crate::http1::head::{INTERIMS_MAX, ResponseHead};
use crate::net::deadline::Slot;
use crate::net::socket::Socket;
use crate::telemetry::counters::FailureKind;

impl Answering<'_> {
    /// Reads up to the final head, before which [`Start::out`] has come; interim responses are passed on at once.
    pub(super) async fn start_late(
        &self,
        server: &Socket,
        start: &mut Start,
    ) -> Result<(), Failure> {
        let mut pending = std::mem::take(&mut start.out);
        let mut head = ResponseHead::default();
        let mut interims = 0;
        loop {
            match self.read(&mut head, &pending, start)? {
                Received::Final => return Ok(()),
                Received::Partial => self.receive_more(server, &mut pending).await?,
                Received::Interim(used) => {
                    interims += 1;
                    if interims > INTERIMS_MAX {
                        return Err(Failure::Server(FailureKind::BadResponse));
                    }
                    let out = self.interim(&head, &pending[..used]);
                    pending.drain(..used);
                    head.clear();
                    if !out.is_empty() {
                        self.send_interim(&out).await?;
                    }
                    self.lane.give(out);
                    if pending.is_empty() {
                        self.receive_more(server, &mut pending).await?;
                    }
                }
            }
        }
    }

    /// Sends an interim response. How long the client takes for it is not the server's time, which goes on afterwards.
    async fn send_interim(&self, out: &[u8]) -> Result<(), Failure> {
        let deadline = &self.client.deadline;
        let left = deadline.left(Slot::Response);
        let awaited = self.client.awaits_continue.get();
        let held = self.client.presence.hold();
        self.send(out).await?;
        self.client.presence.release(held);
        // The client may have begun its body meanwhile, without 100: the server's time has stopped.
        let left = left.filter(|_| awaited == self.client.awaits_continue.get());
        // The request's body may have ended or failed meanwhile, which sets the deadline, and the send have cleared it.
        let is_over = !self.uploading() || !self.wants_rest.get();
        let whole = || is_over.then_some(self.group.response_header_ticks);
        if let Some(left) = left.or_else(whole) {
            deadline.set(Slot::Response, left);
        }
        Ok(())
    }

    /// Waits for more bytes and adds them to those that are `pending`.
    async fn receive_more(&self, server: &Socket, pending: &mut Vec<u8>) -> Result<(), Failure> {
        let is_first = pending.is_empty();
        loop {
            let ready = self.readable(server).await;
            let received = self.lane.with_scratch(|scratch| {
                let received = ready.and_then(|()| self.receive_now(server, scratch));
                pending.extend_from_slice(scratch);
                received
            });
            // Something has come before, if only an interim response.
            if let Some(count) = received.map_err(Failure::after_bytes)? {
                if is_first {
                    self.server.is_brief.set(Lane::is_brief(count));
                }
                return Ok(());
            }
        }
    }

    /// An interim response for the client; empty for HTTP/1.0, which does not know them.
    fn interim(&self, head: &ResponseHead, bytes: &[u8]) -> Vec<u8> {
        let mut out = self.lane.take_for(bytes.len());
        if self.traits.minor > 0 {
            let arrived = Arrived::new(head, bytes);
            self.write_head(arrived, false, Persistence::Implied, &mut out);
            if head.status == 100 && self.client.awaits_continue.replace(false) && self.uploading()
            {
                // From here on it is the client that is waited for.
                let deadline = &self.client.deadline;
                deadline.clear(Slot::Response);
                deadline.set(Slot::Request, self.lane.timeouts.client_body);
            }
        }
        out
    }
}
