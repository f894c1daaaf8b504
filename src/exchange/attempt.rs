//! Attempts at a request: which server, over which connection, and whether another one follows.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use super::client::{After, Client};
use super::conclusion::{count, ended, finished, log, own_answer};
use super::connection::{connect, discard_unsent, pooled};
use super::duplex;
use super::lane::{Held, Lane};
use super::queue::{self, Unserved};
use super::rare::rare;
use super::record::Outcome;
use super::request::Request;
use super::response::{Answering, Failure, Start};
use super::retry::{self, Course, Fault, may_act_twice};
use super::spare::Spare;
use super::transfer::{self, TransferError};
use super::tunnel;
use crate::balance::NoServer;
use crate::net::deadline::Slot;
use crate::net::socket::Socket;
use crate::telemetry::counters::{FailureKind, RetryKind, TimeoutKind};
use crate::upstream::group::{Group, Server};
use crate::upstream::pool::Connection;

/// Sends a request and passes the answer on, trying again where that is safe (RFC 9110 section 9.2.2).
#[allow(clippy::manual_async_fn)] // an async function would hold its arguments twice, for every exchange
pub fn run(lane: &Lane, client: &Client, request: &mut Request<'_>) -> impl Future<Output = After> {
    async move {
        let group = request.group;
        client.presence.requested(request.traits.minor);
        let mut course = Course {
            // At most 16.
            retries_left: group.retries as u16,
            ..Course::default()
        };
        let mut next = match group.choose_first(request.key, request.traits.bond) {
            Err(why) => {
                course.queued = true;
                rare(without_server(lane, client, request, why, &course)).await
            }
            Ok(index) => Ok(index),
        };
        let after = loop {
            let index = match next {
                Ok(index) => index,
                Err(after) => break after,
            };
            match attempt(lane, client, request, index, &mut course).await {
                Ok(after) => break after,
                Err(fault) => {
                    let again = again(lane, client, request, index, fault, &mut course);
                    next = rare(again).await;
                    request.upload.forget_waits();
                }
            }
        };
        group.release();
        lane.give(std::mem::take(&mut request.outgoing));
        after
    }
}

/// A request for which there is no server right now: the one that it waited for, or what becomes of the client's connection.
async fn without_server(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    why: NoServer,
    course: &Course,
) -> Result<usize, After> {
    let served = match &request.group.queue {
        Some(queue) if why == NoServer::AllFull => {
            queue::wait(lane, client, request, queue, &[]).await
        }
        _ => Err(Unserved::NoServer(why)),
    };
    let answer = match served {
        Ok(index) => return Ok(index),
        Err(Unserved::NoServer(why)) => retry::unavailable(why),
        Err(Unserved::Overdue) => retry::OVERDUE,
        Err(Unserved::ClientGone) => {
            log(lane, request, &Outcome::default(), course);
            return Err(After::Close);
        }
    };
    Err(own_answer(lane, client, request, "", answer, course).await)
}

/// After a failed attempt: the server for another one, or what becomes of the client's connection.
async fn again(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    index: usize,
    fault: Fault,
    course: &mut Course,
) -> Result<usize, After> {
    let group = request.group;
    group.release();
    count(lane, client, request, index, &fault, course);
    let server = &group.servers[index];
    let (kind, next) = match another(lane, client, request, index, &fault, course).await {
        Ok(Some(again)) => again,
        Ok(None) => return Err(give_up(lane, client, request, server, fault, course).await),
        Err(fault) => return Err(give_up(lane, client, request, server, fault, course).await),
    };
    if let Fault::Status(spare) = fault
        && let Some(older) = course.spare.replace(spare)
    {
        older.discard(lane, group);
    }
    course.partial = None;
    course.retries += 1;
    lane.counters.retries.inc();
    lane.server(server.id).retry(kind).inc();
    Ok(next)
}

/// Why and on which server the request is tried again, if it is. Fails when the client has left meanwhile.
async fn another(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    index: usize,
    fault: &Fault,
    course: &mut Course,
) -> Result<Option<(RetryKind, usize)>, Fault> {
    let group = request.group;
    let Some(kind) = course.retry(fault, request) else {
        return Ok(None);
    };
    let next = if kind == RetryKind::Reused {
        group.choose_again(index, request.key, &course.tried)
    } else {
        course.tried.push(index);
        group.choose(request.key, request.traits.bond, &course.tried)
    };
    // Another server, or one that is waited for, may have no room but for a request over an idle connection.
    course.fresh = kind == RetryKind::Reused && next == Ok(index);
    // One that has an answer, if not a good one, need not wait for a better one.
    let may_wait = kind != RetryKind::Status && course.spare.is_none();
    let queue = group.queue.as_ref().filter(|_| may_wait);
    if next.is_err() && (next != Err(NoServer::AllFull) || queue.is_none()) {
        return Ok(None);
    }
    // A request that never reached a server burdens the next one no more than if it had come there first.
    if kind != RetryKind::Connect && !group.may_retry() {
        lane.counters.upstreams[group.id].retries_refused.inc();
        return Ok(None);
    }
    let next = match (next, queue) {
        (Err(_), Some(queue)) => queue::wait(lane, client, request, queue, &course.tried).await,
        (next, _) => next.map_err(Unserved::NoServer),
    };
    match next {
        Ok(next) => Ok(Some((kind, next))),
        Err(Unserved::ClientGone) => Err(Fault::Answer(Failure::ClientGone)),
        Err(Unserved::NoServer(_) | Unserved::Overdue) => Ok(None),
    }
}

/// After the last attempt: the client gets the last answer of a server, when there was one, or hears of the fault.
async fn give_up(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    server: &Server,
    fault: Fault,
    course: &mut Course,
) -> After {
    if let Some(after) = fault.end() {
        if let Some(spare) = course.spare.take() {
            spare.discard(lane, request.group);
        }
        return ended(lane, request, server, after, course);
    }
    let answer = fault.answer();
    let spare = match fault {
        Fault::Status(spare) => Some(spare),
        _ => course.spare.take(),
    };
    match spare {
        Some(spare) => spare.deliver(lane, client, request, course).await,
        None => own_answer(lane, client, request, &server.name, answer, course).await,
    }
}

/// Sends a request to a server and passes the answer on.
#[allow(clippy::manual_async_fn)] // an async function would hold its arguments twice, for every exchange
fn attempt(
    lane: &Lane,
    client: &Client,
    request: &mut Request<'_>,
    index: usize,
    course: &mut Course,
) -> impl Future<Output = Result<After, Fault>> {
    async move {
        let group = request.group;
        let server = &group.servers[index];
        let counters = lane.server(server.id);
        counters.requests.inc();
        let _running = Held::new(&counters.active);
        // What a request has waited for is not its server's latency.
        let started = if course.retries > 0 || course.queued {
            Instant::now()
        } else {
            request.started
        };
        let pooled = if course.fresh {
            None
        } else {
            pooled(lane, server)
        };
        course.reused = pooled.is_some();
        let mut connection = match pooled {
            Some(connection) => connection,
            None => rare(connect(lane, client, request, index))
                .await
                .map_err(Fault::Answer)?,
        };
        connection.count_request();
        request.set_host(server);
        // What was sent is kept for another attempt.
        let Some(sent) = send(lane, client, request, &connection.socket).await else {
            // What a ring has of it may still go.
            connection.socket.reset_on_close();
            let fault = Fault::Answer(Failure::ClientGone);
            return Err(unanswered(fault, group, index, &connection));
        };
        match sent {
            Ok(()) => counters.bytes_out.add(request.outgoing.len() as u64),
            Err(TransferError::Overdue) => {
                discard_unsent(&connection);
                let fault = Fault::Answer(Failure::Server(FailureKind::ResponseTimeout));
                return Err(unanswered(fault, group, index, &connection));
            }
            // Of a request that is longer than what the SYN takes.
            Err(TransferError::Refused) if connection.may_be_refused() => {
                let fault = Fault::Answer(Failure::Refused);
                return Err(unanswered(fault, group, index, &connection));
            }
            // How much of it has left is not known.
            Err(_) => {}
        }
        // When the send failed because the server has closed, it may still have answered first.
        let uploads = !request.upload.ended() && sent.is_ok();
        let mut answering = Answering::new(lane, client, request, index, started);
        answering.reset.set(matches!(
            sent,
            Err(TransferError::Reset | TransferError::Refused)
        ));
        answering.wants_rest.set(sent.is_ok());
        if course.retries_left > 0 && may_act_twice(request) {
            answering.unwanted_statuses = group.retry_statuses.as_ref();
        }
        let mut start = Start::default();
        let answered = if uploads {
            request.upload.server = server.id;
            let both = duplex::run(&answering, request, &connection, &mut start);
            rare(both).await.inspect_err(|fault| {
                if matches!(fault, Fault::Upload { .. }) {
                    discard_unsent(&connection);
                }
            })
        } else {
            client
                .deadline
                .set(Slot::Response, group.response_header_ticks);
            answering
                .run(&connection.socket, &mut start, &mut course.spare)
                .await
                .map_err(Fault::Answer)
        };
        // What a server has not got of a request would be taken for the next one, or the next one for it.
        let is_sent = sent.is_ok() && !answering.uploading();
        start.finish.reusable &= is_sent;
        if let Err(fault) = answered {
            return Err(set_aside(fault, &answering, start, connection, course));
        }
        if let Some(tried) = connection.promised.take() {
            group.connected(index, tried);
        }
        if !is_sent {
            discard_unsent(&connection);
        }
        let finish = &mut start.finish;
        if let Some(early) = &finish.tunnel {
            let _open = Held::new(&lane.counters.tunnels);
            let carrying = tunnel::run(lane, client, &connection.socket, counters, early);
            let carried = rare(carrying).await;
            finish.body_bytes = carried.down;
            if carried.idle {
                lane.counters.timeout(TimeoutKind::TunnelIdle).inc();
            }
        }
        Ok(finished(
            lane, client, request, server, finish, connection, course,
        ))
    }
}

/// Sends what a server gets of a request at once. `None` when the client has gone before the server had taken all of it.
#[allow(clippy::manual_async_fn)] // an async function would hold its arguments twice, for every exchange
fn send(
    lane: &Lane,
    client: &Client,
    request: &mut Request<'_>,
    server: &Socket,
) -> impl Future<Output = Option<Result<(), TransferError>>> {
    async move {
        client.presence.go_on(lane, client);
        // It may be time for a look already, and a server need not hear of who has gone.
        if client.presence.is_gone(lane, client) {
            return None;
        }
        let mut sending = pin!(transfer::send_queued(
            lane,
            server,
            &mut request.outgoing,
            &client.deadline,
            lane.timeouts.write,
        ));
        poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending if client.presence.is_gone(lane, client) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// What a failed attempt leaves: an answer that another server may do better than, or what the client got of one.
#[cold]
fn set_aside(
    fault: Fault,
    answering: &Answering<'_>,
    start: Start,
    mut connection: Box<Connection>,
    course: &mut Course,
) -> Fault {
    let Answering { group, index, .. } = *answering;
    if !start.has_begun() {
        return unanswered(fault, group, index, &connection);
    }
    if let Some(tried) = connection.promised.take() {
        group.connected(index, tried);
    }
    if let Fault::Answer(Failure::Unwanted) = fault {
        return Fault::Status(Box::new(Spare::new(answering, start, connection)));
    }
    course.partial = Some(Box::new(start.finish));
    fault
}

/// What an attempt has failed by that had no answer. Only a connection that was begun with its first bytes can still be refused: else the
/// request may have been acted on.
#[cold]
fn unanswered(fault: Fault, group: &Group, index: usize, connection: &Connection) -> Fault {
    let may_be_refused = connection.may_be_refused();
    match connection.promised {
        Some(tried) if !may_be_refused => group.connected(index, tried),
        Some(tried) if fault.of_server().is_some() => group.not_connected(index, tried),
        _ => {}
    }
    match fault {
        Fault::Answer(Failure::Refused) if may_be_refused => {
            group.failed(index, FailureKind::ConnectRefused);
            Fault::Answer(Failure::Connect(FailureKind::ConnectRefused))
        }
        Fault::Answer(Failure::Refused) => Fault::Answer(Failure::NoAnswer),
        fault => fault,
    }
}
