//! One probe: connect, ask, look at the answer.

use std::future::Future;
use std::io;
use std::time::Instant as Clock;

use http::{HeaderValue, Method, header};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::UnixStream;
use monoio::time::{Instant, timeout_at};

use super::{Cause, Target};
use crate::config::{Check, CheckKind, HttpCheck};
use crate::net::connect::{Address, connect_stream};
use crate::net::descriptors::is_exhaustion;
use crate::net::source::is_out_of_ports;

/// Bytes of a response head that are read, those of interim responses before it included.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Fields of a response head that are read.
const HEADERS_MAX: usize = 128;
/// Bytes of one read.
const READ_BYTES: usize = 4 * 1024;
const USER_AGENT: &str = concat!("ringlane/", env!("CARGO_PKG_VERSION"), " (health check)");

/// How a probe ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// [`Cause::ProbeOk`] or what is wrong with the server.
    pub(super) result: Cause,
    /// Up to the verdict, in microseconds.
    pub(super) took_us: u32,
}

/// Probes a server once, within the check's timeout, at the first of its addresses that takes a connection. `first` is the one to begin
/// with; where it does not answer, the next probe begins with the next. An error is ours (no file descriptor, no memory, no port) and says
/// nothing about the server.
pub(super) async fn probe(
    target: &Target,
    check: &Check,
    first: &mut usize,
) -> io::Result<Outcome> {
    let (started, deadline) = (Clock::now(), Instant::now() + check.timeout);
    let addresses = (target.locate)();
    let (mut result, mut ours) = (None, None);
    for _ in 0..addresses.len() {
        let address = addresses[*first % addresses.len()].clone();
        match probe_at(with_port(address, check.port), target, check, deadline).await {
            Ok(found) => result = Some(found),
            Err(error) => ours = Some(error),
        }
        if !matches!(result, None | Some(Err(Cause::Connect | Cause::Timeout))) {
            break;
        }
        *first = (*first + 1) % addresses.len();
        if result == Some(Err(Cause::Timeout)) {
            break;
        }
    }
    let result = match (result, ours) {
        (Some(result), _) => result,
        (None, Some(error)) => return Err(error),
        (None, None) => Err(Cause::NoAddress),
    };
    let took_us = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
    Ok(Outcome {
        result: result.err().unwrap_or(Cause::ProbeOk),
        took_us,
    })
}

async fn probe_at(
    address: Address,
    target: &Target,
    check: &Check,
    deadline: Instant,
) -> io::Result<Result<(), Cause>> {
    Ok(match address {
        address @ Address::Socket(_) => {
            let connect = connect_stream(&address, &target.connecting);
            match connected(deadline, connect).await? {
                Ok(stream) => ask(stream, &check.kind, &target.host, deadline).await,
                Err(cause) => Err(cause),
            }
        }
        Address::Unix(path) => match connected(deadline, UnixStream::connect(path)).await? {
            Ok(stream) => ask(stream, &check.kind, &target.host, deadline).await,
            Err(cause) => Err(cause),
        },
    })
}

fn with_port(address: Address, port: Option<u16>) -> Address {
    match (address, port) {
        (Address::Socket(mut address), Some(port)) => {
            address.set_port(port);
            Address::Socket(address)
        }
        (address, _) => address,
    }
}

async fn connected<S>(
    deadline: Instant,
    connect: impl Future<Output = io::Result<S>>,
) -> io::Result<Result<S, Cause>> {
    match timeout_at(deadline, connect).await {
        Err(_) => Ok(Err(Cause::Timeout)),
        Ok(Ok(stream)) => Ok(Ok(stream)),
        Ok(Err(error)) if is_exhaustion(&error) || is_out_of_ports(&error) => Err(error),
        Ok(Err(_)) => Ok(Err(Cause::Connect)),
    }
}

async fn ask<S>(
    stream: S,
    kind: &CheckKind,
    host: &HeaderValue,
    deadline: Instant,
) -> Result<(), Cause>
where
    S: AsyncReadRent + AsyncWriteRent + 'static,
{
    let CheckKind::Http(check) = kind else {
        return Ok(());
    };
    let mut answer = Answer {
        stream,
        received: Vec::new(),
        deadline,
    };
    answer.send(request(check, host)).await?;
    let (status, framing) = answer.head(&check.method).await?;
    if !check.expect.contains(status) {
        return Err(Cause::Status);
    }
    if let Some(text) = &check.body {
        return answer
            .find(text.as_bytes(), framing, check.body_limit_bytes)
            .await;
    }
    // Closing with bytes unread would reset the connection, which some servers log as an error.
    monoio::spawn(answer.drain(framing, check.body_limit_bytes));
    Ok(())
}

/// The request's bytes. The types of its parts hold no line break.
fn request(check: &HttpCheck, host: &HeaderValue) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", check.method, check.path).into_bytes();
    let mut field = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    };
    field("Host", check.host.as_ref().unwrap_or(host).as_bytes());
    for (name, ours) in [(header::USER_AGENT, USER_AGENT), (header::ACCEPT, "*/*")] {
        if !check.headers.iter().any(|(theirs, _)| *theirs == name) {
            field(name.as_str(), ours.as_bytes());
        }
    }
    field("Connection", b"close");
    // RFC 9110 section 8.6: a method that usually has content says so when it has none.
    if [Method::POST, Method::PUT, Method::PATCH].contains(&check.method) {
        field("Content-Length", b"0");
    }
    for (name, value) in &check.headers {
        field(name.as_str(), value.as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// How a body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// An answer on its way.
struct Answer<S> {
    stream: S,
    /// What has been read and not taken yet.
    received: Vec<u8>,
    deadline: Instant,
}

impl<S: AsyncReadRent + AsyncWriteRent> Answer<S> {
    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Cause> {
        match timeout_at(self.deadline, self.stream.write_all(bytes)).await {
            Err(_) => Err(Cause::Timeout),
            Ok((result, _)) => result.map(drop).map_err(|_| Cause::Closed),
        }
    }

    /// Reads once; how many bytes came, 0 at the end.
    async fn read(&mut self) -> Result<usize, Cause> {
        let buffer = Vec::with_capacity(READ_BYTES);
        match timeout_at(self.deadline, self.stream.read(buffer)).await {
            Err(_) => Err(Cause::Timeout),
            Ok((Err(_), _)) => Err(Cause::Closed),
            Ok((Ok(n), buffer)) => {
                self.received.extend_from_slice(&buffer[..n]);
                Ok(n)
            }
        }
    }

    /// The status of the final response and how its body ends. Takes the head off what has been received.
    async fn head(&mut self, method: &Method) -> Result<(u16, Framing), Cause> {
        let mut room = HEAD_BYTES_MAX;
        loop {
            // From the start each time, also for a byte: HEAD_BYTES_MAX keeps that to a few times what the reads cost.
            match parse_head(&self.received, method)? {
                // Reads that need not wait do not look at the deadline: interim responses without end would hold up the thread.
                Some((bytes, 100..=199, _)) => {
                    self.received.drain(..bytes);
                    room = room.checked_sub(bytes).ok_or(Cause::NotHttp)?;
                }
                Some((bytes, status, framing)) => {
                    self.received.drain(..bytes);
                    return Ok((status, framing));
                }
                None if self.received.len() >= room => return Err(Cause::NotHttp),
                None if self.read().await? == 0 => return Err(Cause::Closed),
                None => {}
            }
        }
    }

    /// Looks for `text` in the first `bytes_max` bytes of the body.
    async fn find(mut self, text: &[u8], framing: Framing, bytes_max: usize) -> Result<(), Cause> {
        let mut searched: usize = 0;
        loop {
            self.received.truncate(bytes_max);
            let (body, complete) = body_of(&self.received, framing)?;
            // The text may have begun in what was searched before.
            let fresh = &body[searched.saturating_sub(text.len())..];
            if text.is_empty() || fresh.windows(text.len()).any(|window| window == text) {
                return Ok(());
            }
            searched = body.len();
            if complete || self.received.len() >= bytes_max {
                return Err(Cause::Body);
            }
            if self.read().await? == 0 {
                return Err(if framing == Framing::UntilClose {
                    Cause::Body
                } else {
                    Cause::Closed
                });
            }
        }
    }

    /// Reads the body to its end or to `bytes_max`, then closes.
    async fn drain(mut self, framing: Framing, bytes_max: usize) {
        while matches!(body_of(&self.received, framing), Ok((_, false)))
            && self.received.len() < bytes_max
        {
            if !matches!(self.read().await, Ok(1..)) {
                return;
            }
        }
    }
}

/// Bytes of a head, its status and how the body ends; `None` while it is not complete.
fn parse_head(bytes: &[u8], method: &Method) -> Result<Option<(usize, u16, Framing)>, Cause> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Cause::NotHttp),
    };
    let status = response.code.ok_or(Cause::NotHttp)?;
    let framing = if *method == Method::HEAD || matches!(status, 204 | 304) {
        Framing::Length(0)
    } else {
        framing_of(response.headers)?
    };
    Ok(Some((length, status, framing)))
}

fn framing_of(headers: &[httparse::Header]) -> Result<Framing, Cause> {
    let value = |name: &str| {
        headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name))
            .map(|h| h.value.trim_ascii())
    };
    if let Some(codings) = value("transfer-encoding") {
        let chunked = codings.to_ascii_lowercase().ends_with(b"chunked");
        return Ok(if chunked {
            Framing::Chunked
        } else {
            Framing::UntilClose
        });
    }
    let Some(length) = value("content-length") else {
        return Ok(Framing::UntilClose);
    };
    let digits = length
        .iter()
        .all(u8::is_ascii_digit)
        .then(|| std::str::from_utf8(length).ok())
        .flatten();
    digits
        .and_then(|digits| digits.parse().ok())
        .map(Framing::Length)
        .ok_or(Cause::NotHttp)
}

/// The content in these bytes of a body, and whether it is complete.
fn body_of(bytes: &[u8], framing: Framing) -> Result<(Vec<u8>, bool), Cause> {
    match framing {
        Framing::UntilClose => Ok((bytes.to_vec(), false)),
        Framing::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            Ok((
                bytes[..bytes.len().min(length)].to_vec(),
                bytes.len() >= length,
            ))
        }
        Framing::Chunked => dechunk(bytes),
    }
}

fn dechunk(mut bytes: &[u8]) -> Result<(Vec<u8>, bool), Cause> {
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete((_, 0))) => return Ok((body, true)),
            Ok(httparse::Status::Complete((start, size))) => {
                (start, usize::try_from(size).unwrap_or(usize::MAX))
            }
            Ok(httparse::Status::Partial) => return Ok((body, false)),
            Err(_) => return Err(Cause::NotHttp),
        };
        let data = &bytes[start..];
        body.extend_from_slice(&data[..data.len().min(size)]);
        // A chunk ends with CRLF, then the next begins.
        match data.get(size..).and_then(|rest| rest.get(2..)) {
            Some(next) => bytes = next,
            None => return Ok((body, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_as_they_come() {
        let cases: [(&[u8], &[u8], bool); 5] = [
            (b"", b"", false),
            (b"5\r\nhel", b"hel", false),
            (b"5\r\nhello\r\n", b"hello", false),
            (b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello", true),
            (b"ffffffffffffffff\r\nx", b"x", false),
        ];
        for (bytes, body, complete) in cases {
            assert_eq!(
                dechunk(bytes),
                Ok((body.to_vec(), complete)),
                "{}",
                bytes.escape_ascii()
            );
        }
        assert_eq!(dechunk(b"zz\r\n"), Err(Cause::NotHttp));
    }

    #[test]
    fn the_request_is_whole_and_its_fields_can_be_replaced() {
        let agent = (header::USER_AGENT, "mine".parse().expect("a value"));
        let mut check = HttpCheck {
            method: Method::POST,
            path: "/health".parse().expect("a path"),
            host: None,
            headers: vec![agent],
            expect: "2xx".parse().expect("statuses"),
            body: None,
            body_limit_bytes: 0,
        };
        let host = HeaderValue::from_static("10.0.0.1:80");
        let expected = "POST /health HTTP/1.1\r\nHost: 10.0.0.1:80\r\naccept: */*\r\nConnection: close\r\n\
                        Content-Length: 0\r\nuser-agent: mine\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&request(&check, &host)), expected);
        check.host = Some(HeaderValue::from_static("app"));
        let with_host = expected.replace("10.0.0.1:80", "app");
        assert_eq!(String::from_utf8_lossy(&request(&check, &host)), with_host);
    }

    #[test]
    fn bodies_end_as_the_head_says() {
        let get = |fields: &str| {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            parse_head(head.as_bytes(), &Method::GET).map(|head| head.expect("complete").2)
        };
        let cases = [
            ("", Ok(Framing::UntilClose)),
            ("Content-Length: 12\r\n", Ok(Framing::Length(12))),
            (
                "Transfer-Encoding: gzip, Chunked\r\nContent-Length: 3\r\n",
                Ok(Framing::Chunked),
            ),
            ("Content-Length: -1\r\n", Err(Cause::NotHttp)),
            ("Content-Length:\r\n", Err(Cause::NotHttp)),
        ];
        for (fields, framing) in cases {
            assert_eq!(get(fields), framing, "{fields}");
        }
        let head = parse_head(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            &Method::HEAD,
        );
        assert_eq!(head, Ok(Some((38, 200, Framing::Length(0)))));
    }
}
