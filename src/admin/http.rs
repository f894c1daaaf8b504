//! The little HTTP/1.1 that the status listener speaks: one request on each connection, with content if it is a POST.

use std::net::IpAddr;

use ::http::{StatusCode, Uri, uri::Authority};
use serde::Serialize;

use crate::telemetry::date::{Utc, unix_seconds};

/// Bytes of a request head.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Bytes of a request's content.
const CONTENT_BYTES_MAX: usize = 4 * 1024;

/// What a page of ours may load: its own parts and the figures, from here, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// As it stands.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// The field's value.
    pub authorization: Option<Vec<u8>>,
    /// The field's value.
    pub content_type: Option<String>,
    /// A browser says that a page of another site asks.
    pub foreign: bool,
    /// Of a POST only.
    pub content: Vec<u8>,
}

/// What follows a request's head. All zero for what is no POST: such content is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// Where the head ends.
    pub head_bytes: usize,
    /// Bytes of the content.
    pub content_bytes: usize,
    /// The client waits for 100 (Continue).
    pub expects_continue: bool,
}

/// What is answered, on a connection that closes after it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    content_type: &'static str,
    /// A field beside those that every answer has.
    field: Option<(&'static str, &'static str)>,
    body: String,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            field: None,
            body,
        }
    }

    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(super) fn with_field(self, name: &'static str, value: &'static str) -> Self {
        Self {
            field: Some((name, value)),
            ..self
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
        Self::text(405, "only GET and HEAD are allowed here\n").with_field("Allow", "GET, HEAD")
    }

    /// The bytes to send. A HEAD request gets the same fields and no content (RFC 9110 section 9.3.2).
    pub(super) fn to_bytes(&self, head_only: bool, now: std::time::SystemTime) -> Vec<u8> {
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Content-Security-Policy: {CONTENT_SECURITY_POLICY}\r\n",
            self.status,
            reason.unwrap_or(""),
            Utc::from_unix_seconds(unix_seconds(now)).http(),
            self.content_type,
            self.body.len(),
        );
        if let Some((name, value)) = self.field {
            out.extend([name, ": ", value, "\r\n"]);
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
pub enum Head {
    /// More bytes are needed.
    Partial,
    /// A request, its content still to be read.
    Request(Request, Framing),
    /// Not a request that we take.
    Refused(Answer),
}

/// Reads a request head. `loopback` says that the listener is for this machine only, so that a request for any other host is refused.
pub fn parse(bytes: &[u8], loopback: bool) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => match check(&request, head_bytes, loopback) {
            Ok((request, framing)) => Head::Request(request, framing),
            Err(answer) => Head::Refused(answer),
        },
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => Head::Partial,
        Ok(httparse::Status::Partial) => refused(431, "the request head exceeds 16 KiB\n"),
        Err(httparse::Error::TooManyHeaders) => refused(431, "more than 64 fields\n"),
        Err(httparse::Error::Version) => refused(505, "only HTTP/1.0 and 1.1 are spoken here\n"),
        Err(error) => refused(400, format!("not an HTTP/1.1 request: {error}\n")),
    }
}

/// Whether a request that begins with `bytes`, refused or not, is answered without content.
pub(super) fn is_head(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}

fn refused(status: u16, text: impl Into<String>) -> Head {
    Head::Refused(Answer::text(status, text))
}

fn check(
    request: &httparse::Request<'_, '_>,
    head_bytes: usize,
    loopback: bool,
) -> Result<(Request, Framing), Answer> {
    let bad = |text: &str| Answer::text(400, text);
    let target: Uri = request
        .path
        .unwrap_or_default()
        .parse()
        .map_err(|_| bad("bad request target\n"))?;
    if target
        .authority()
        .is_some_and(|host| !is_host_and_port(host))
    {
        return Err(bad("bad request target\n"));
    }
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
    let method = request.method.unwrap_or_default();
    let framing = match method {
        "POST" => framing(request, head_bytes)?,
        _ => Framing::default(),
    };
    let content_type = single(request, "content-type")?.map(String::from_utf8_lossy);
    let request = Request {
        method: method.into(),
        path: target.path().into(),
        authorization: single(request, "authorization")?.map(<[u8]>::to_vec),
        content_type: content_type.map(Into::into),
        foreign: is_foreign(request, target.authority().or(field.as_ref()))?,
        content: Vec::new(),
    };
    Ok((request, framing))
}

/// Whether the fields that browsers add, and pages cannot, tell of another site: Sec-Fetch-Site (Fetch Metadata), else Origin
/// (RFC 6454 section 7), which must name the host that is asked. Programs that are no browsers send neither.
fn is_foreign(
    request: &httparse::Request<'_, '_>,
    host: Option<&Authority>,
) -> Result<bool, Answer> {
    let site = single(request, "sec-fetch-site")?;
    let origin = single(request, "origin")?;
    let own_site = site.is_none_or(|site| site == b"same-origin" || site == b"none");
    let own_origin = origin.is_none_or(|origin| {
        let authority = origin
            .strip_prefix(b"http://")
            .or_else(|| origin.strip_prefix(b"https://"));
        host.is_some_and(|host| authority.is_some_and(|own| host.as_str().as_bytes() == own))
    });
    Ok(!(own_site && own_origin))
}

fn values<'h>(
    request: &httparse::Request<'h, '_>,
    name: &'static str,
) -> impl Iterator<Item = &'h [u8]> {
    let fields = request.headers.iter();
    fields
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value)
}

/// A field that may stand once.
fn single<'h>(
    request: &httparse::Request<'h, '_>,
    name: &'static str,
) -> Result<Option<&'h [u8]>, Answer> {
    let mut values = values(request, name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Answer::text(400, format!("more than one {name} field\n"))),
    }
}

/// RFC 9112 section 6: content has a length here. Chunked content is refused as section 6.3 allows, with 411.
fn framing(request: &httparse::Request<'_, '_>, head_bytes: usize) -> Result<Framing, Answer> {
    let length = single(request, "content-length")?;
    if values(request, "transfer-encoding").next().is_some() {
        return Err(match length {
            Some(_) => Answer::text(400, "both Content-Length and Transfer-Encoding\n"),
            None => Answer::text(411, "content needs a Content-Length here\n"),
        });
    }
    let expects_continue = match single(request, "expect")? {
        // HTTP/1.0 does not have it (RFC 9110 section 10.1.1).
        Some(expected) if expected.eq_ignore_ascii_case(b"100-continue") => {
            request.version != Some(0)
        }
        Some(_) => return Err(Answer::text(417, "only 100-continue can be expected\n")),
        None => false,
    };
    Ok(Framing {
        head_bytes,
        content_bytes: length.map_or(Ok(0), content_bytes)?,
        expects_continue,
    })
}

fn content_bytes(digits: &[u8]) -> Result<usize, Answer> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Answer::text(400, "bad Content-Length\n"));
    }
    let length = str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok());
    length
        .filter(|length| *length <= CONTENT_BYTES_MAX)
        .ok_or_else(|| Answer::text(413, "the content exceeds 4 KiB\n"))
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
            .filter(is_host_and_port)
            .map(Some)
            .ok_or_else(|| Answer::text(400, "bad Host field\n")),
        (None, _) if request.version == Some(0) => Ok(None),
        (None, _) => Err(Answer::text(400, "no Host field\n")),
        (Some(_), Some(_)) => Err(Answer::text(400, "more than one Host field\n")),
    }
}

/// Whether this is `host [ ":" port ]` (RFC 9110 section 7.2); the type lets more pass.
fn is_host_and_port(authority: &Authority) -> bool {
    match authority.as_str().strip_prefix(authority.host()) {
        Some("") => true,
        Some(port) => port
            .strip_prefix(':')
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit())),
        None => false,
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
            let request = Request {
                method: method.into(),
                path: path.into(),
                ..Request::default()
            };
            let head_bytes = bytes.trim_end_matches("abc").len();
            let framing = Framing {
                head_bytes,
                content_bytes: bytes.len() - head_bytes,
                expects_continue: false,
            };
            let framing = if method == "POST" {
                framing
            } else {
                Framing::default()
            };
            let expected = Head::Request(request, framing);
            let head = &bytes.as_bytes()[..head_bytes];
            assert_eq!(parse_in_steps(head, false), expected, "{bytes:?}");
            assert_eq!(parse(bytes.as_bytes(), false), expected, "{bytes:?}");
        }
    }

    #[test]
    fn content_is_framed_or_refused() {
        let cases = [
            ("", Ok((0, false))),
            ("Content-Length: 0", Ok((0, false))),
            (
                "Content-Length: 4096\r\nExpect: 100-Continue",
                Ok((4096, true)),
            ),
            ("Content-Length: 4097", Err(413)),
            ("Content-Length: 99999999999999999999999", Err(413)),
            ("Content-Length: +1", Err(400)),
            ("Content-Length: 1, 1", Err(400)),
            ("Content-Length:", Err(400)),
            ("Content-Length: 1\r\nContent-Length: 1", Err(400)),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked", Err(400)),
            ("Transfer-Encoding: chunked", Err(411)),
            ("Expect: miracles", Err(417)),
            ("Authorization: a\r\nAuthorization: b", Err(400)),
            ("Content-Type: a/b\r\nContent-Type: c/d", Err(400)),
        ];
        for (fields, expected) in cases {
            for minor in [1, 0] {
                let bytes = format!("POST / HTTP/1.{minor}\r\nHost: a\r\n{fields}\r\n\r\n");
                let bytes = bytes.replace("a\r\n\r\n\r\n", "a\r\n\r\n");
                let found = match parse(bytes.as_bytes(), false) {
                    Head::Request(_, framing) => {
                        Ok((framing.content_bytes, framing.expects_continue))
                    }
                    Head::Refused(answer) => Err(answer.status),
                    Head::Partial => panic!("{bytes:?} is whole"),
                };
                let expected = expected.map(|(bytes, expects)| (bytes, expects && minor > 0));
                assert_eq!(found, expected, "{bytes:?}");
            }
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
            ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", 400),
            ("GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
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
                matches!(parse(in_field.as_bytes(), true), Head::Request(..)),
                may,
                "{host:?}"
            );
            assert!(
                matches!(parse(in_field.as_bytes(), false), Head::Request(..)),
                "{host:?}"
            );
            if !host.is_empty() {
                let in_target = format!("GET http://{host}/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
                assert_eq!(
                    matches!(parse(in_target.as_bytes(), true), Head::Request(..)),
                    may,
                    "{host:?}"
                );
            }
        }
    }

    #[test]
    fn answers() {
        let answer = Answer::not_allowed();
        let head = format!(
            "HTTP/1.1 405 Method Not Allowed\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Length: 35\r\nConnection: close\r\nCache-Control: no-store\r\n\
            X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
            Content-Security-Policy: {CONTENT_SECURITY_POLICY}\r\nAllow: GET, HEAD\r\n\r\n"
        );
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
