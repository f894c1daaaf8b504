//! The rest of a request's body and its answer, under way at the same time.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, ready};

use super::request::Request;
use super::response::{Answering, Start};
use super::retry::Fault;
use super::upload::UploadError;
use crate::net::deadline::Slot;
use crate::upstream::pool::Connection;

/// Sends the rest of the body and passes the answer on at the same time. After an answer that came early the server still gets the rest
/// where it may want it.
pub(super) async fn run(
    answering: &Answering<'_>,
    request: &mut Request<'_>,
    connection: &Connection,
    start: &mut Start,
) -> Result<(), Fault> {
    let Answering {
        lane,
        client,
        group,
        ..
    } = *answering;
    let Request {
        upload, outgoing, ..
    } = request;
    let mut upload = pin!(upload.run(lane, client, &connection.socket, outgoing));
    let mut answer = pin!(answering.run(&connection.socket, start));
    let (mut ended, mut answered) = (false, false);
    poll_fn(|cx| {
        if !ended && let Poll::Ready(result) = upload.as_mut().poll(cx) {
            ended = true;
            match result {
                Ok(()) => answering.uploading.set(false),
                // It wants no more of the body; its answer may say why.
                Err(UploadError::ServerGone) => {}
                Err(UploadError::ServerReset) => answering.reset.set(true),
                Err(error) => {
                    let begun = answering.head_seen.get() || answering.interim_leaving.get();
                    let fault = Fault::Upload { error, begun };
                    if !answered {
                        return Poll::Ready(Err(fault));
                    }
                    // The client has its whole answer.
                    if let Some(kind) = fault.timeout() {
                        lane.counters.timeout(kind).inc();
                    }
                }
            }
            if !answering.head_seen.get() {
                client
                    .deadline
                    .set(Slot::Response, group.response_header_ticks);
            }
            if !answered {
                client.presence.begin(lane, client);
            }
        }
        if !answered {
            ready!(answer.as_mut().poll(cx)).map_err(Fault::Answer)?;
            answered = true;
        }
        if ended || !answering.awaits_upload.get() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}
