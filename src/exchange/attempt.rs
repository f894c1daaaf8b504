//! Attempts at a request: which server, over which connection, and whether another one follows.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Instant;

use super::client::{After, Client};
use super::lane::{Held, Lane};
use super::pace::Debt;
use super::queue::{self, Unserved};
use super::rare::rare;
use super::record::{self, Outcome};
use super::request::Request;
use super::response::{Answering, Failure, Finish, Start};
use super::retry::{self, Course, Fault, may_act_twice};
use super::spare::Spare;
use super::transfer::{self, TransferError};
use super::tunnel;
use super::upload::UploadError;
use crate::balance::NoServer;
use crate::http1::answer::{Answer, Form};
use crate::net::deadline::Slot;
use crate::net::descriptors::is_exhaustion;
use crate::net::source::is_out_of_ports;
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
            Err(why) => rare(without_server(lane, client, request, why, &course)).await,
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
    count(lane, group, index, &fault, course.reused);
    let server = &group.servers[index];
    let Some((kind, next)) = another(lane, client, request, index, &fault, course).await else {
        return Err(give_up(lane, client, request, server, fault, course).await);
    };
    if let Fault::Status(spare) = fault
        && let Some(older) = course.spare.replace(spare)
    {
        older.discard(lane, group);
    }
    course.partial = None;
    course.retries += 1;
    course.fresh = kind == RetryKind::Reused;
    lane.counters.retries.inc();
    lane.server(server.id).retry(kind).inc();
    Ok(next)
}

/// Why and on which server the request is tried again, if it is.
async fn another(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    index: usize,
    fault: &Fault,
    course: &mut Course,
) -> Option<(RetryKind, usize)> {
    let group = request.group;
    let kind = course.retry(fault, request)?;
    let next = if kind == RetryKind::Reused {
        group.choose_again(index, request.key, &course.tried)
    } else {
        course.tried.push(index);
        group.choose(request.key, request.traits.bond, &course.tried)
    };
    let next = match (next, &group.queue) {
        // What never reached a server may wait like what has just come.
        (Err(NoServer::AllFull), Some(queue)) if kind == RetryKind::Connect => {
            let waited = queue::wait(lane, client, request, queue, &course.tried).await;
            waited.ok()?
        }
        (next, _) => next.ok()?,
    };
    // A request that never reached a server burdens the next one no more than if it had come there first.
    if kind != RetryKind::Connect && !group.may_retry() {
        lane.counters.upstreams[group.id].retries_refused.inc();
        return None;
    }
    Some((kind, next))
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
        return ended(lane, request, server, after, course);
    }
    let answer = fault.answer();
    let spare = match fault {
        Fault::Status(spare) => Some(spare),
        _ => course.spare.take(),
    };
    if let Some(older) = course.spare.take() {
        older.discard(lane, request.group);
    }
    match spare {
        Some(spare) => spare.deliver(lane, client, request, course).await,
        None => own_answer(lane, client, request, &server.name, answer, course).await,
    }
}

/// The client's connection ends without a whole answer.
pub(super) fn ended(
    lane: &Lane,
    request: &Request<'_>,
    server: &Server,
    after: After,
    course: &Course,
) -> After {
    let got = course.partial.as_deref();
    if let Some(got) = got {
        lane.counters.responses.count(got.status);
    }
    let outcome = Outcome {
        status: got.map_or(0, |got| got.status),
        body_bytes_sent: got.map_or(0, |got| got.body_bytes),
        server: &server.name,
        upstream_us: got.map_or(0, |got| got.head_us),
        ..Outcome::default()
    };
    log(lane, request, &outcome, course);
    after
}

/// The answering side of an attempt that began at `started`.
pub(super) fn answering<'x>(
    lane: &'x Lane,
    client: &'x Client,
    request: &Request<'x>,
    index: usize,
    started: Instant,
) -> Answering<'x> {
    Answering {
        lane,
        client,
        traits: request.traits,
        group: request.group,
        index,
        server: &request.group.servers[index],
        uploading: Cell::new(!request.upload.ended()),
        reset: Cell::new(false),
        head_seen: Cell::new(false),
        interim_leaving: Cell::new(false),
        awaits_upload: Cell::new(false),
        started,
        unwanted_statuses: None,
        debt: Debt::default(),
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
        let started = if course.retries == 0 {
            request.started
        } else {
            Instant::now()
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
        counters.bytes_out.add(request.outgoing.len() as u64);
        let outgoing = std::mem::take(&mut request.outgoing);
        let (sent, outgoing) = transfer::send_queued(
            lane,
            &connection.socket,
            outgoing,
            &client.deadline,
            Slot::Response,
            lane.timeouts.write.into(),
        )
        .await;
        // Kept for another attempt.
        request.outgoing = outgoing;
        if let Err(TransferError::Overdue) = sent {
            return Err(Fault::Answer(Failure::Server(FailureKind::ResponseTimeout)));
        }
        // When the send failed because the server has closed, it may still have answered first.
        let uploads = !request.upload.ended() && sent.is_ok();
        let mut answering = answering(lane, client, request, index, started);
        answering
            .reset
            .set(matches!(sent, Err(TransferError::Reset)));
        if course.retries_left > 0 && may_act_twice(request) {
            answering.unwanted_statuses = group.retry_statuses.as_ref();
        }
        let mut start = Start::default();
        let answered = if uploads {
            client.presence.end(client);
            client.deadline.clear(Slot::Response);
            rare(both(&answering, request, &connection, &mut start))
                .await
                .inspect_err(|fault| {
                    if matches!(fault, Fault::Upload { .. }) {
                        discard_unsent(&connection);
                    }
                })
        } else {
            client
                .deadline
                .set(Slot::Response, group.response_header_ticks);
            client.presence.begin(lane, client);
            answering
                .run(&connection.socket, &mut start)
                .await
                .map_err(Fault::Answer)
        };
        // What a server has not got of a request would be taken for the next one, or the next one for it.
        let is_sent = sent.is_ok() && !answering.uploading.get();
        start.finish.reusable &= is_sent;
        if let Err(fault) = answered {
            return Err(set_aside(fault, index, start, connection, course));
        }
        if !is_sent {
            discard_unsent(&connection);
        }
        let finish = &start.finish;
        if let Some(early) = &finish.tunnel {
            let _open = Held::new(&lane.counters.tunnels);
            let carrying = tunnel::run(lane, client, &connection.socket, counters, early);
            if rare(carrying).await {
                lane.counters.timeout(TimeoutKind::TunnelIdle).inc();
            }
        }
        if let Some(spare) = course.spare.take() {
            spare.discard(lane, group);
        }
        Ok(finished(
            lane, client, request, server, finish, connection, course,
        ))
    }
}

/// What a failed attempt leaves: an answer that another server may do better than, or what the client got of one.
#[cold]
fn set_aside(
    fault: Fault,
    index: usize,
    start: Start,
    connection: Box<Connection>,
    course: &mut Course,
) -> Fault {
    if let Fault::Answer(Failure::Unwanted) = fault {
        return Fault::Status(Box::new(Spare {
            index,
            start,
            connection,
        }));
    }
    if start.finish.status > 0 {
        course.partial = Some(Box::new(start.finish));
    }
    fault
}

/// A pooled connection.
#[inline]
fn pooled(lane: &Lane, server: &Server) -> Option<Box<Connection>> {
    let pooled = server.pool.take(lane.deadlines.now());
    lane.counters.stale_upstream.add(server.pool.take_stale());
    if pooled.is_some() {
        lane.counters.reused_upstream.inc();
    }
    pooled
}

/// A new connection.
async fn connect(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    index: usize,
) -> Result<Box<Connection>, Failure> {
    let group = request.group;
    let server = &group.servers[index];
    lane.counters.new_upstream.inc();
    client.deadline.set(Slot::Response, group.connect_ticks);
    client.presence.go_on(lane, client);
    let connecting = group.connect(index, lane.deadlines.now());
    let mut connecting = pin!(client.deadline.guard(Slot::Response, connecting));
    let connected = poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Ready(connected) => Poll::Ready(Ok(connected)),
        Poll::Pending if client.presence.is_gone(lane, client) => {
            Poll::Ready(Err(Failure::ClientGone))
        }
        Poll::Pending => Poll::Pending,
    })
    .await;
    client.deadline.clear(Slot::Response);
    match connected? {
        Ok(Ok(connection)) => {
            lane.server(server.id).connects.inc();
            Ok(connection)
        }
        Ok(Err(error)) => {
            tracing::debug!(upstream = %group.name, server = %server.name, %error, "cannot connect");
            let kind = connect_failure(&error);
            // That we are out of something says nothing about the server.
            if !matches!(kind, FailureKind::NoPort | FailureKind::Shortage) {
                group.failed(index, kind);
            }
            Err(Failure::Connect(kind))
        }
        Err(_) => {
            group.failed(index, FailureKind::ConnectTimeout);
            Err(Failure::Connect(FailureKind::ConnectTimeout))
        }
    }
}

fn connect_failure(error: &io::Error) -> FailureKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => FailureKind::ConnectRefused,
        _ if is_out_of_ports(error) => FailureKind::NoPort,
        _ if is_exhaustion(error) => FailureKind::Shortage,
        _ => FailureKind::ConnectError,
    }
}

/// Has what the server has not taken of a body that was cut off thrown away: else it would stay in the socket's buffer, and hold the
/// connection open, for as long as the server does not read.
#[cold]
fn discard_unsent(connection: &Connection) {
    if connection.socket.has_unsent() {
        connection.socket.reset_on_close();
    }
}

/// Sends the rest of the body and passes the answer on at the same time. After an answer that came early the server still gets the rest
/// where it may want it.
async fn both(
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

/// After a whole answer: what becomes of both connections.
pub(super) fn finished(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    server: &Server,
    finish: &Finish,
    connection: Box<Connection>,
    course: &Course,
) -> After {
    let whole = request.upload.ended();
    if finish.reusable && whole && !lane.deadlines.draining() {
        server.pool.put(connection, lane.deadlines.now());
    }
    lane.counters.responses.count(finish.status);
    let outcome = Outcome {
        status: finish.status,
        body_bytes_sent: finish.body_bytes,
        server: &server.name,
        upstream_us: finish.head_us,
        ..Outcome::default()
    };
    log(lane, request, &outcome, course);
    // A client that asked for the close and has sent all it had sends no more: there is nothing to wait for.
    let done = whole && !request.traits.persistent && client.pending.borrow().is_empty();
    match (finish.tunnel.is_some(), whole, finish.persistent) {
        (true, ..) => After::Close,
        (false, true, true) => After::KeepAlive,
        _ if done => After::Close,
        _ => After::Linger,
    }
}

fn log(lane: &Lane, request: &Request<'_>, outcome: &Outcome<'_>, course: &Course) {
    if request.record.is_some() {
        let outcome = Outcome {
            upstream: &request.group.name,
            retries: course.retries,
            reused: course.reused,
            ..*outcome
        };
        record::write(
            lane,
            request.client,
            request.record.as_deref(),
            &outcome,
            request.started,
        );
    }
}

/// Counts what went wrong, and tells of a server's failure. Those to connect have been told where the cause was known.
pub(super) fn count(lane: &Lane, group: &Group, index: usize, fault: &Fault, reused: bool) {
    if let Some(kind) = fault.of_server() {
        lane.server(group.servers[index].id).failure(kind).inc();
        // A server may close an idle connection at any time; only on a new one does this tell that it is in trouble.
        let idle = reused && matches!(fault, Fault::Answer(Failure::NoAnswer));
        let connects = matches!(fault, Fault::Answer(Failure::Connect(_)));
        if !idle && !connects {
            group.failed(index, kind);
        }
    }
    if let Some(kind) = fault.timeout() {
        lane.counters.timeout(kind).inc();
    }
}

async fn own_answer(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    server: &str,
    answer: Answer,
    course: &Course,
) -> After {
    let traits = request.traits;
    let form = Form {
        json: request.wants_json(),
        to_head: traits.to_head,
        persistent: traits.persistent && request.upload.ended() && !client.is_leaving(lane),
        minor: traits.minor,
    };
    let (after, body_bytes_sent) = send_answer(lane, client, answer, form).await;
    let outcome = Outcome {
        status: answer.status,
        body_bytes_sent,
        server,
        ..Outcome::default()
    };
    log(lane, request, &outcome, course);
    after
}

/// Sends an answer of ours. Gives what becomes of the connection, and the bytes of the answer's body.
pub async fn send_answer(lane: &Lane, client: &Client, answer: Answer, form: Form) -> (After, u64) {
    let mut out = lane.take_for(0);
    let body_bytes = lane.with_date(|date| answer.write(form, date, &mut out));
    lane.counters.responses.count(answer.status);
    lane.counters.own_answers.count(answer.status);
    lane.counters.bytes_out.add(out.len() as u64);
    let sent = transfer::send_all(
        lane,
        &client.socket,
        &out,
        &client.deadline,
        Slot::Response,
        lane.timeouts.write.into(),
    )
    .await;
    lane.give(out);
    let after = match (sent, form.persistent) {
        (Err(_), _) => After::Close,
        (Ok(()), true) => After::KeepAlive,
        (Ok(()), false) => After::Linger,
    };
    (after, body_bytes as u64)
}
