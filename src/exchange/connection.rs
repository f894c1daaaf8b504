//! A connection for an attempt: one of the pool, else a new one.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use super::client::Client;
use super::lane::Lane;
use super::request::Request;
use super::response::Failure;
use crate::net::deadline::Slot;
use crate::net::descriptors::is_exhaustion;
use crate::net::source::is_out_of_ports;
use crate::telemetry::counters::FailureKind;
use crate::upstream::group::Server;
use crate::upstream::pool::Connection;

/// A pooled connection.
#[inline]
pub(super) fn pooled(lane: &Lane, server: &Server) -> Option<Box<Connection>> {
    let pooled = server.pool.take(lane.deadlines.now());
    lane.counters.stale_upstream.add(server.pool.take_stale());
    if pooled.is_some() {
        lane.counters.reused_upstream.inc();
    }
    pooled
}

/// A new connection.
pub(super) async fn connect(
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
    let trying = Cell::new(None);
    let connecting = group.connect(index, &client.deadline, &trying);
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
            if let Some(tried) = trying.get() {
                group.not_connected(index, tried);
            }
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
pub(super) fn discard_unsent(connection: &Connection) {
    if connection.socket.has_unsent() {
        connection.socket.reset_on_close();
    }
}
