//! Attempts at a request: which server, over which connection, and whether another one follows.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use super::client::{After, Client};
use super::lane::{Held, Lane};
use super::record::{self, Outcome};
use super::request::Request;
use super::response::{Answering, Failure, Finish};
use super::transfer::{self, TransferError};
use super::tunnel;
use super::upload::UploadError;
use crate::balance::NoServer;
use crate::http1::answer::{Answer, Form};
use crate::net::deadline::Slot;
use crate::net::listener::is_exhaustion;
use crate::telemetry::counters::{FailureKind, TimeoutKind};
use crate::upstream::group::{Group, Server};
use crate::upstream::pool::Connection;

/// Why an attempt did not end with a whole answer.
#[derive(Debug)]
enum Fault {
    /// On the answering side.
    Answer(Failure),
    /// On the side of the request's body; `begun` when the client had got a part of the answer.
    Upload { error: UploadError, begun: bool },
}

impl Fault {
    /// How the server failed, when it was the server.
    fn of_server(&self) -> Option<FailureKind> {
        match self {
            Self::Answer(Failure::Connect(kind) | Failure::Server(kind)) => Some(*kind),
            Self::Answer(Failure::NoAnswer) => Some(FailureKind::Closed),
            Self::Answer(Failure::Truncated { .. }) => Some(FailureKind::Truncated),
            Self::Upload {
                error: UploadError::ServerOverdue,
                ..
            } => Some(FailureKind::ResponseTimeout),
            Self::Answer(Failure::ClientGone | Failure::ClientStalled) | Self::Upload { .. } => {
                None
            }
        }
    }

    /// The timeout that was over, when it was one.
    fn timeout(&self) -> Option<TimeoutKind> {
        match self {
            Self::Answer(Failure::Connect(FailureKind::ConnectTimeout)) => {
                Some(TimeoutKind::Connect)
            }
            Self::Answer(Failure::Server(FailureKind::ResponseTimeout)) => {
                Some(TimeoutKind::ResponseHeader)
            }
            Self::Answer(Failure::ClientStalled)
            | Self::Upload {
                error: UploadError::ServerOverdue,
                ..
            } => Some(TimeoutKind::Write),
            Self::Upload {
                error: UploadError::ClientOverdue,
                ..
            } => Some(TimeoutKind::ClientBody),
            Self::Answer(_) | Self::Upload { .. } => None,
        }
    }
}

/// What follows a failed attempt.
enum Next {
    /// The same server, over a new connection.
    SameServer,
    /// Another server.
    OtherServer,
    /// Nothing: the client gets this answer.
    Answer(Answer),
    /// Nothing: the client's connection ends.
    End(After),
}

/// What attempts have in common and add up to.
#[derive(Debug, Default)]
struct Course {
    /// Servers that failed it, by index in the group.
    tried: Vec<usize>,
    /// Attempts after the first.
    retries: u32,
    /// Attempts that may still follow one whose request a server may have seen.
    retries_left: u32,
    /// The last attempt went over a pooled connection.
    reused: bool,
}

/// Sends a request and passes the answer on, trying again where that is safe (RFC 9110 section 9.2.2).
pub async fn run(lane: &Lane, client: &Client, request: &mut Request<'_>) -> After {
    let group = request.group;
    let mut course = Course {
        retries_left: group.retries,
        ..Course::default()
    };
    let mut server = group.choose(request.key, request.traits.bond, &course.tried);
    let mut answer = None;
    let mut fresh = false;
    let after = loop {
        let index = match server {
            Ok(index) => index,
            Err(why) => {
                let answer = answer.unwrap_or_else(|| unavailable(why));
                break Box::pin(own_answer(lane, client, request, answer, &course)).await;
            }
        };
        let chosen = &group.servers[index];
        let fault = match attempt(lane, client, request, index, fresh, &mut course).await {
            Ok((finish, connection)) => {
                break finished(lane, client, request, chosen, &finish, connection, &course);
            }
            Err(fault) => fault,
        };
        count(lane, group, index, &fault, course.reused);
        match next(&fault, request, &mut course) {
            Next::SameServer => fresh = true,
            Next::OtherServer => {
                course.tried.push(index);
                server = group.choose(request.key, request.traits.bond, &course.tried);
                fresh = false;
                answer = Some(own(&fault));
            }
            Next::Answer(answer) => {
                break Box::pin(own_answer(lane, client, request, answer, &course)).await;
            }
            Next::End(after) => {
                log(
                    lane,
                    request,
                    &Outcome {
                        server: &chosen.name,
                        ..Outcome::default()
                    },
                    &course,
                );
                break after;
            }
        }
        course.retries += 1;
        lane.counters.retries.inc();
    };
    lane.give(std::mem::take(&mut request.outgoing));
    after
}

async fn attempt(
    lane: &Lane,
    client: &Client,
    request: &mut Request<'_>,
    index: usize,
    fresh: bool,
    course: &mut Course,
) -> Result<(Finish, Connection), Fault> {
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
    let pooled = if fresh { None } else { pooled(lane, server) };
    let mut connection = match pooled {
        Some(connection) => connection,
        None => Box::pin(connect(lane, client, request, index))
            .await
            .map_err(Fault::Answer)?,
    };
    course.reused = connection.is_reused();
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
    )
    .await;
    // Kept for another attempt.
    request.outgoing = outgoing;
    if let Err(TransferError::Overdue) = sent {
        return Err(Fault::Answer(Failure::Server(FailureKind::ResponseTimeout)));
    }
    // When the send failed because the server has closed, it may still have answered first.
    let uploads = !request.upload.ended() && sent.is_ok();
    let answering = Answering {
        lane,
        client,
        traits: request.traits,
        group,
        index,
        server,
        uploading: Cell::new(!request.upload.ended()),
        head_seen: Cell::new(false),
        started,
    };
    let finish = if uploads {
        Box::pin(both(&answering, request, &connection)).await?
    } else {
        client
            .deadline
            .set(Slot::Response, group.response_header_ticks);
        answering
            .run(&connection.socket)
            .await
            .map_err(Fault::Answer)?
    };
    if let Some(early) = &finish.tunnel {
        let _open = Held::new(&lane.counters.tunnels);
        Box::pin(tunnel(lane, client, server, &connection, early)).await;
    }
    Ok((finish, connection))
}

async fn tunnel(
    lane: &Lane,
    client: &Client,
    server: &Server,
    connection: &Connection,
    early: &[u8],
) {
    let carried = tunnel::run(lane, client, &connection.socket, early).await;
    lane.counters.bytes_in.add(carried.up);
    lane.server(server.id).bytes_out.add(carried.up);
    lane.server(server.id).bytes_in.add(carried.down);
    lane.counters.bytes_out.add(carried.down);
    if carried.idle {
        lane.counters.timeout(TimeoutKind::TunnelIdle).inc();
    }
}

/// A pooled connection.
#[inline]
fn pooled(lane: &Lane, server: &Server) -> Option<Connection> {
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
) -> Result<Connection, Failure> {
    let group = request.group;
    let server = &group.servers[index];
    lane.counters.new_upstream.inc();
    client.deadline.set(Slot::Response, group.connect_ticks);
    let connected = client
        .deadline
        .guard(Slot::Response, group.connect(index, lane.deadlines.now()))
        .await;
    client.deadline.clear(Slot::Response);
    match connected {
        Ok(Ok(connection)) => {
            lane.server(server.id).connects.inc();
            Ok(connection)
        }
        Ok(Err(error)) => {
            let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
            tracing::debug!(upstream = %group.name, server = %server.name, %error, "cannot connect");
            let kind = if refused {
                FailureKind::ConnectRefused
            } else {
                FailureKind::ConnectError
            };
            // That we are out of descriptors or memory says nothing about the server.
            if !is_exhaustion(&error) {
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

/// Sends the rest of the body and passes the answer on at the same time.
async fn both(
    answering: &Answering<'_>,
    request: &mut Request<'_>,
    connection: &Connection,
) -> Result<Finish, Fault> {
    let Answering {
        lane,
        client,
        group,
        ..
    } = *answering;
    let mut upload = pin!(request.upload.run(lane, client, &connection.socket));
    let mut answer = pin!(answering.run(&connection.socket));
    let mut ended = false;
    poll_fn(|cx| {
        if !ended && let Poll::Ready(result) = upload.as_mut().poll(cx) {
            ended = true;
            let begun = answering.head_seen.get();
            match result {
                Ok(()) => answering.uploading.set(false),
                // It wants no more of the body; its answer may say why.
                Err(UploadError::ServerGone) => {}
                Err(error) => return Poll::Ready(Err(Fault::Upload { error, begun })),
            }
            if !begun {
                client
                    .deadline
                    .set(Slot::Response, group.response_header_ticks);
            }
        }
        answer.as_mut().poll(cx).map_err(Fault::Answer)
    })
    .await
}

/// After a whole answer: what becomes of both connections.
fn finished(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    server: &Server,
    finish: &Finish,
    connection: Connection,
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
fn count(lane: &Lane, group: &Group, index: usize, fault: &Fault, reused: bool) {
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

/// Whether and where the request is tried again.
fn next(fault: &Fault, request: &Request<'_>, course: &mut Course) -> Next {
    let repeatable = request.upload.is_repeatable();
    match fault {
        // Nothing was sent, so nothing can happen twice.
        Fault::Answer(Failure::Connect(_)) if repeatable && request.group.retries > 0 => {
            Next::OtherServer
        }
        Fault::Answer(Failure::NoAnswer) if repeatable && request.traits.idempotent => {
            if course.reused {
                return Next::SameServer;
            }
            if course.retries_left == 0 {
                return Next::Answer(own(fault));
            }
            course.retries_left -= 1;
            Next::OtherServer
        }
        Fault::Answer(Failure::Truncated { until_close: true }) => Next::End(After::Reset),
        Fault::Answer(Failure::Truncated { .. } | Failure::ClientGone | Failure::ClientStalled)
        | Fault::Upload {
            error: UploadError::ClientGone,
            ..
        } => Next::End(After::Close),
        Fault::Upload { begun: true, .. } => Next::End(After::Reset),
        Fault::Answer(_) | Fault::Upload { .. } => Next::Answer(own(fault)),
    }
}

const UNREACHABLE: Answer = Answer::new(502, "upstream cannot be reached");

/// The answer when there is no server to try.
fn unavailable(why: NoServer) -> Answer {
    match why {
        NoServer::NoneHealthy => Answer::new(503, "no healthy upstream"),
        NoServer::AllFull => Answer {
            field: Some(("Retry-After", "1")),
            ..Answer::new(503, "all servers are busy")
        },
        NoServer::AllTried => UNREACHABLE,
    }
}

/// The answer that tells a client of a fault.
fn own(fault: &Fault) -> Answer {
    match fault {
        Fault::Answer(Failure::Connect(FailureKind::ConnectTimeout)) => {
            Answer::new(504, "upstream cannot be reached in time")
        }
        Fault::Answer(Failure::Connect(_)) => UNREACHABLE,
        Fault::Answer(Failure::Server(FailureKind::ResponseTimeout))
        | Fault::Upload {
            error: UploadError::ServerOverdue,
            ..
        } => Answer::new(504, "upstream did not answer in time"),
        Fault::Answer(Failure::Server(FailureKind::BadResponse)) => {
            Answer::new(502, "upstream sent an invalid response")
        }
        Fault::Upload {
            error: UploadError::ClientOverdue,
            ..
        } => Answer::new(408, "request body did not come in time"),
        Fault::Upload {
            error: UploadError::Refused(refusal),
            ..
        } => Answer::new(refusal.status(), refusal.as_str()),
        Fault::Answer(_) | Fault::Upload { .. } => {
            Answer::new(502, "upstream closed the connection without an answer")
        }
    }
}

async fn own_answer(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    answer: Answer,
    course: &Course,
) -> After {
    let traits = request.traits;
    let form = Form {
        json: request.wants_json(),
        to_head: traits.to_head,
        persistent: traits.persistent && request.upload.ended() && !lane.deadlines.draining(),
        minor: traits.minor,
    };
    let (after, body_bytes_sent) = send_answer(lane, client, answer, form).await;
    let outcome = Outcome {
        status: answer.status,
        body_bytes_sent,
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
        &client.socket,
        &out,
        &client.deadline,
        Slot::Response,
        lane.timeouts.write,
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
