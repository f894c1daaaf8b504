//! How an exchange ends: what becomes of its connections, what is counted and logged, and answers of our own.

use super::client::{After, Client};
use super::lane::Lane;
use super::record::{self, Outcome};
use super::request::Request;
use super::response::{Failure, Finish, refuses_body};
use super::retry::{Course, Fault};
use super::transfer::{self, TransferError};
use crate::http1::answer::{Answer, Form};
use crate::net::deadline::Slot;
use crate::net::socket::Peek;
use crate::telemetry::counters::{FailureKind, TimeoutKind};
use crate::upstream::group::Server;
use crate::upstream::pool::Connection;

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
    // A client that asked for the close and has sent all it had sends no more: there is nothing to wait for. Some send an empty line behind
    // a body (RFC 9112 section 2.2): to close with that unread would reset what they have not got yet.
    let done = whole
        && !request.traits.persistent
        && client.pending.borrow().is_empty()
        && client.socket.peek() != Peek::Bytes;
    match (finish.tunnel.is_some(), whole, finish.persistent) {
        (true, ..) => After::Close,
        (false, true, true) => After::KeepAlive,
        _ if done => After::Close,
        _ => After::Linger,
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

/// Writes the access log.
pub(super) fn log(lane: &Lane, request: &Request<'_>, outcome: &Outcome<'_>, course: &Course) {
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
pub(super) fn count(
    lane: &Lane,
    client: &Client,
    request: &Request<'_>,
    index: usize,
    fault: &Fault,
    course: &Course,
) {
    let group = request.group;
    if let Some(kind) = fault.of_server() {
        lane.server(group.servers[index].id).failure(kind).inc();
        // A server may close an idle connection at any time; only on a new one does this tell that it is in trouble.
        let idle = course.reused && matches!(fault, Fault::Answer(Failure::NoAnswer));
        let connects = matches!(fault, Fault::Answer(Failure::Connect(_)));
        let got = course.partial.as_deref();
        let status = got.map_or(0, |got| got.status);
        let is_the_clients = is_the_clients(fault, status, client, request, lane.deadlines.now());
        // A request that has failed by its status is not counted again when the body breaks off.
        let is_told = got.is_some_and(|got| got.failed);
        if !idle && !connects && !is_the_clients && !is_told {
            group.failed(index, kind);
        }
    }
    if let Some(kind) = fault.timeout() {
        lane.counters.timeout(kind).inc();
    }
}

/// Whether the server, whose answer had this status or none yet, may have waited for a body that did not come, or for a client that read
/// nothing, or may have refused a body: if that counted, any client could have it taken out of service.
fn is_the_clients(
    fault: &Fault,
    status: u16,
    client: &Client,
    request: &Request<'_>,
    now: u32,
) -> bool {
    let upload = &request.upload;
    match fault {
        Fault::Answer(Failure::NoAnswer | Failure::Server(FailureKind::Closed)) => {
            upload.is_withheld(now)
        }
        // The close of a connection with unread bytes is a reset, which overtakes the answer that says why.
        Fault::Answer(Failure::Truncated { held_up, .. }) => {
            *held_up || upload.is_withheld(now) || refuses_body(status) && !upload.ended()
        }
        // Garbage is garbage, but a 101 may only be too early.
        Fault::Answer(Failure::Server(FailureKind::BadResponse)) => {
            request.traits.upgrade && !upload.ended()
        }
        Fault::Answer(Failure::Server(FailureKind::ResponseTimeout)) => {
            client.awaits_continue.get()
        }
        _ => false,
    }
}

/// Answers for the servers, of which `server` was the last that was asked.
pub(super) async fn own_answer(
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
    lane.counters.own_answer(answer.status, out.len());
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
    let after = match (&sent, form.persistent) {
        // What it has not taken yet would else stay with the kernel.
        (Err(TransferError::Overdue), _) => {
            lane.counters.timeout(TimeoutKind::Write).inc();
            After::Reset
        }
        (Err(_), _) => After::Close,
        (Ok(()), true) => After::KeepAlive,
        (Ok(()), false) => After::Linger,
    };
    (after, if sent.is_ok() { body_bytes as u64 } else { 0 })
}
