//! What an exchange tells the access log.

use std::net::IpAddr;
use std::time::Instant;

use super::lane::Lane;
use crate::http1::field::{Name, Span};
use crate::http1::head::RequestHead;
use crate::telemetry::access_log::Record;

/// The request's part of an access log line, copied because the request's bytes are gone when the line is written.
#[derive(Debug, Default)]
pub struct RequestRecord {
    bytes: Vec<u8>,
    method: Span,
    target: Span,
    referer: Span,
    user_agent: Span,
    host: Span,
    minor: u8,
}

impl RequestRecord {
    /// Copies what the log needs of a head.
    pub fn new(head: &RequestHead, bytes: &[u8], host: &[u8]) -> Self {
        let mut record = Self {
            minor: head.minor,
            ..Self::default()
        };
        let field = |kind| {
            head.fields
                .iter()
                .find(|field| field.kind == kind)
                .map_or(&b""[..], |field| field.value.of(bytes))
        };
        record.method = record.keep(head.method.of(bytes));
        record.target = record.keep(head.target.of(bytes));
        record.referer = record.keep(field(Name::Referer));
        record.user_agent = record.keep(field(Name::UserAgent));
        record.host = record.keep(host);
        record
    }

    fn keep(&mut self, part: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(part);
        Span::new(start, self.bytes.len())
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome<'a> {
    /// The status that the client got; 0 when it got none.
    pub status: u16,
    /// Bytes of body sent to the client.
    pub body_bytes_sent: u64,
    /// The upstream's name; empty when none was chosen.
    pub upstream: &'a str,
    /// The name of the server of the last attempt; empty when there was none.
    pub server: &'a str,
    /// Microseconds until the server's response head.
    pub upstream_us: u64,
    /// Attempts after the first.
    pub retries: u32,
    /// The last attempt went over a pooled connection.
    pub reused: bool,
}

/// Writes one line, when the access log is on.
pub fn write(
    lane: &Lane,
    client: IpAddr,
    request: Option<&RequestRecord>,
    outcome: &Outcome<'_>,
    started: Instant,
) {
    let Some(log) = lane.access_log() else { return };
    let unread = RequestRecord::default();
    let request = request.unwrap_or(&unread);
    let part = |span: Span| span.of(&request.bytes);
    log.record(&Record {
        client,
        method: part(request.method),
        target: part(request.target),
        minor_version: request.minor,
        status: outcome.status,
        body_bytes_sent: outcome.body_bytes_sent,
        referer: part(request.referer),
        user_agent: part(request.user_agent),
        host: part(request.host),
        upstream: outcome.upstream,
        server: outcome.server,
        duration_us: started.elapsed().as_micros() as u64,
        upstream_us: outcome.upstream_us,
        retries: outcome.retries,
        reused: outcome.reused,
    });
}
