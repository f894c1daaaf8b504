//! The rest of a request's body and its answer, under way at the same time.
//!
//! An answer that has begun goes on to its end, whatever becomes of the body: it may well say why the server does not want that.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, ready};

use super::request::Request;
use super::response::{Answering, Failure, Start};
use super::retry::Fault;
use super::upload::UploadError;
use crate::net::deadline::Slot;
use crate::upstream::pool::Connection;

/// Sends the rest of the body and passes the answer on at the same time. The server gets what comes until it has answered, and after an
/// early answer the rest too where it may want that.
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
    client.presence.end(client);
    if client.awaits_continue.get() {
        // It is the server that is waited for.
        let patience = group.response_header_ticks;
        client.deadline.set(Slot::Response, patience);
    } else {
        client.deadline.clear(Slot::Response);
    }
    let uploading = async {
        let sent = upload.run(answering, &connection.socket, outgoing).await;
        (sent, upload.ended())
    };
    let mut upload = pin!(Some(uploading));
    // An answer is put aside only when the whole body has come.
    let mut spare = None;
    let mut answer = pin!(answering.run(&connection.socket, start, &mut spare));
    // What the server does not get any more is read all the same: the client may send all of it before it reads the answer. Behind the
    // body's end it would be the next request.
    let mut unwanted = pin!(None);
    let mut rest_is_unwanted = false;
    let mut answered = false;
    poll_fn(|cx| {
        if let Some(under_way) = upload.as_mut().as_pin_mut()
            && let Poll::Ready((sent, ended)) = under_way.poll(cx)
        {
            upload.set(None);
            let failed = sent.is_err();
            rest_is_unwanted = failed && !ended;
            match sent {
                Ok(()) => answering.uploaded(),
                // It wants no more of the body; its answer may say why.
                Err(UploadError::ServerGone) => {}
                // It is told once: the next receive would see an end.
                Err(UploadError::ServerRefused) if connection.may_be_refused() => {
                    return Poll::Ready(Err(Fault::Answer(Failure::Refused)));
                }
                Err(UploadError::ServerReset | UploadError::ServerRefused) => {
                    answering.reset.set(true);
                }
                Err(error) => {
                    let begun = answering.uptake.is_under_way();
                    let fault = Fault::Upload { error, begun };
                    if !answering.head_seen.get() {
                        return Poll::Ready(Err(fault));
                    }
                    if answering.wants_rest.get()
                        && let Some(kind) = fault.timeout()
                    {
                        lane.counters.timeout(kind).inc();
                    }
                }
            }
            if failed {
                answering.wants_rest.set(false);
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
            let answer = answer.as_mut().poll(cx);
            if upload.is_some() && answering.is_unread() {
                upload.set(None);
                rest_is_unwanted = true;
            }
            // Before the head, and behind one that is no answer after all, another attempt may want it.
            if rest_is_unwanted && answering.head_seen.get() && answer.is_pending() {
                rest_is_unwanted = false;
                // It has no deadline from now on: the answer's own end bounds it.
                client.presence.end(client);
                unwanted.set(Some(client.discard(lane, usize::MAX)));
            }
            if let Some(discarding) = unwanted.as_mut().as_pin_mut()
                && discarding.poll(cx).is_ready()
            {
                unwanted.set(None);
                client.presence.begin(lane, client);
            }
            ready!(answer).map_err(Fault::Answer)?;
            answered = true;
        }
        if upload.is_none() || !answering.awaits_upload.get() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}
