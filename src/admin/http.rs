//! The little HTTP/1.1 that the status listener speaks: one request without content on each connection.

use std::net::IpAddr;

use ::http::{StatusCode, Uri, uri::Authority};
use serde::Serialize;

use crate::telemetry::date::{Utc, unix_seconds};

/// Bytes of a request head.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
}

/// What is answered, on a connection that closes after it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    content_type: &'static str,
    body: String,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            body,
        }
    }

    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    pub(super) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_string_pretty(value) {
            Ok(body) => Self::new(200, "application/json", body + "\n"),
            Err(error) => Self::text(500, format!("cannot be written as JSON: {error}\n")),
        }
    }

    pub(super) fn not_allowed() -> Self {
        Self::text(405, "only GET and HEAD are allowed here\n")
    }

    /// The bytes to send. A HEAD request gets the same fields and no content (RFC 9110 section 9.3.2).
    pub(super) fn to_bytes(&self, head_only: bool, now: std::time::SystemTime) -> Vec<u8> {
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            self.status,
            reason.unwrap_or(""),
            Utc::from_unix_seconds(unix_seconds(now)).http(),
            self.content_type,
            self.body.len(),
        );
        if self.status == 405 {
            out.push_str("Allow: GET, HEAD\r\n");
        }
        out.push_str("\r\n");
        if !head_only {
            out.push_str(&self.body);
        }
        out.into_bytes()
    }
}

/// What the bytes read so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// More bytes are needed.
    Partial,
    /// A request.
    Request(Request),
    /// Not a request that we take.
    Refused(Answer),
}

/// Reads a request head. `loopback` says that the listener is for this machine only; see [`host_may_ask`].
pub(super) fn parse(bytes: &[u8], loopback: bool) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {
            check(&request, loopback).map_or_else(Head::Refused, Head::Request)
        }
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => Head::Partial,
        Ok(httparse::Status::Partial) => refused(431, "the request head exceeds 16 KiB\n"),
        Err(httparse::Error::TooManyHeaders) => refused(431, "more than 64 fields\n"),
        Err(httparse::Error::Version) => refused(505, "only HTTP/1.0 and 1.1 are spoken here\n"),
        Err(error) => refused(400, format!("not an HTTP/1.1 request: {error}\n")),
    }
}

fn refused(status: u16, text: impl Into<String>) -> Head {
    Head::Refused(Answer::text(status, text))
}

fn check(request: &httparse::Request<'_, '_>, loopback: bool) -> Result<Request, Answer> {
    let bad = |text: &str| Answer::text(400, text);
    let target: Uri = request
        .path
        .unwrap_or_default()
        .parse()
        .map_err(|_| bad("bad request target\n"))?;
    let field = host_field(request)?;
    // RFC 9112 section 3.2.2: the authority of an absolute target replaces Host.
    if let Some(host) = target.authority().or(field.as_ref())
        && loopback
        && !host_may_ask(host.host())
    {
        return Err(Answer::text(
            421,
            "this listener is for this machine only: ask for an IP address or localhost\n",
        ));
    }
    Ok(Request {
        method: request.method.unwrap_or_default().into(),
        path: target.path().into(),
    })
}

/// The Host field. RFC 9112 section 3.2: HTTP/1.1 has exactly one, HTTP/1.0 at most one; an empty one names nothing.
fn host_field(request: &httparse::Request<'_, '_>) -> Result<Option<Authority>, Answer> {
    let mut fields = request
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("host"));
    match (fields.next(), fields.next()) {
        (Some(field), None) if field.value.is_empty() => Ok(None),
        (Some(field), None) => Authority::try_from(field.value)
            .ok()
            .filter(|host| !host.as_str().contains('@'))
            .map(Some)
            .ok_or_else(|| Answer::text(400, "bad Host field\n")),
        (None, _) if request.version == Some(0) => Ok(None),
        (None, _) => Err(Answer::text(400, "no Host field\n")),
        (Some(_), Some(_)) => Err(Answer::text(400, "more than one Host field\n")),
    }
}

/// Whether a request for this host may be answered by a listener on loopback.
///
/// A web page can have its own name resolve to 127.0.0.1 and then read us as if we were its own site (DNS rebinding). The
/// browser still sends that name in Host, so only addresses and the names that RFC 6761 section 6.3 ties to loopback pass.
fn host_may_ask(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    literal.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// Feeds the head byte by byte and checks that only the end is more than partial, or that it was refused early.
    fn parse_in_steps(bytes: &[u8], loopback: bool) -> Head {
        let whole = parse(bytes, loopback);
        for end in 0..bytes.len() {
            let partly = parse(&bytes[..end], loopback);
            assert!(
                matches!(partly, Head::Partial | Head::Refused(_)),
                "{end} bytes of {bytes:?}: {partly:?}"
            );
        }
        whole
    }

    #[test]
    fn requests() {
        let cases = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/"),
            (
                "HEAD /lb/status?x=/y HTTP/1.1\r\nhost: a:80\r\n\r\n",
                "HEAD",
                "/lb/status",
            ),
            ("GET /metrics HTTP/1.0\r\n\r\n", "GET", "/metrics"),
            (
                "GET http://a.example/metrics HTTP/1.1\r\nHost: b\r\n\r\n",
                "GET",
                "/metrics",
            ),
            (
                "POST / HTTP/1.1\r\nHost:\r\nContent-Length: 3\r\n\r\nabc",
                "POST",
                "/",
            ),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "*"),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/"),
        ];
        for (bytes, method, path) in cases {
            let expected = Head::Request(Request {
                method: method.into(),
                path: path.into(),
            });
            let head_bytes = bytes.trim_end_matches("abc").as_bytes();
            assert_eq!(parse_in_steps(head_bytes, false), expected, "{bytes:?}");
            assert_eq!(parse(bytes.as_bytes(), false), expected, "{bytes:?}");
        }
    }

    #[test]
    fn refusals() {
        let many_fields = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_BYTES_MAX));
        let cases = [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\\\"<> HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET /\r\n\r\n", 400),
            ("\x16\x03\x01\x02", 400),
            ("\0", 400),
            (&many_fields, 431),
            (&long, 431),
        ];
        for (bytes, status) in cases {
            match parse(bytes.as_bytes(), false) {
                Head::Refused(answer) => assert_eq!(answer.status, status, "{bytes:?}"),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn on_loopback_only_addresses_and_localhost_may_ask() {
        let cases = [
            ("127.0.0.1", true),
            ("127.0.0.1:9900", true),
            ("[::1]:9900", true),
            ("localhost:9900", true),
            ("LocalHost.", true),
            ("a.localhost", true),
            ("10.0.0.1", true),
            ("", true),
            ("example.com", false),
            ("example.com:9900", false),
            ("localhost.example.com", false),
            ("notlocalhost", false),
            ("127.0.0.1.example.com", false),
        ];
        for (host, may) in cases {
            let in_field = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(
                matches!(parse(in_field.as_bytes(), true), Head::Request(_)),
                may,
                "{host:?}"
            );
            assert!(
                matches!(parse(in_field.as_bytes(), false), Head::Request(_)),
                "{host:?}"
            );
            if !host.is_empty() {
                let in_target = format!("GET http://{host}/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
                assert_eq!(
                    matches!(parse(in_target.as_bytes(), true), Head::Request(_)),
                    may,
                    "{host:?}"
                );
            }
        }
    }

    #[test]
    fn answers() {
        let answer = Answer::not_allowed();
        let head = "HTTP/1.1 405 Method Not Allowed\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Length: 35\r\nConnection: close\r\nCache-Control: no-store\r\n\
            X-Content-Type-Options: nosniff\r\nAllow: GET, HEAD\r\n\r\n";
        let whole = format!("{head}only GET and HEAD are allowed here\n");
        assert_eq!(
            String::from_utf8_lossy(&answer.to_bytes(true, UNIX_EPOCH)),
            head
        );
        assert_eq!(
            String::from_utf8_lossy(&answer.to_bytes(false, UNIX_EPOCH)),
            whole
        );
    }
}
