//! One probe: connect, ask, look at the answer.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant as Clock};

use http::{HeaderValue, Method, header};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::UnixStream;
use monoio::time::{Instant, sleep, timeout_at};

use super::response::{Content, Final, Heads};
use super::{Cause, Target};
use crate::config::{Check, CheckKind, HttpCheck};
use crate::net::connect::{Address, connect_stream, is_backlog_full};
use crate::net::descriptors::is_exhaustion;
use crate::net::source::is_out_of_ports;

/// Bytes of one read.
const READ_BYTES: usize = 4 * 1024;
/// Between two tries to connect to a Unix socket whose backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);
const USER_AGENT: &str = concat!("ringlane/", env!("CARGO_PKG_VERSION"), " (health check)");

/// How a probe ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// [`Cause::ProbeOk`] or what is wrong with the server.
    pub(super) result: Cause,
    /// Up to the verdict, in microseconds.
    pub(super) took_us: u32,
}

/// How far a probe came at one address.
enum Reached {
    /// The address took the connection; whether it answered as it should.
    Server(Result<(), Cause>),
    /// There is no connection.
    Nobody(Cause),
}

/// Probes a server once, within the check's timeout, at the first of its addresses that takes a connection: where requests go. `first` is
/// the one to begin with; where no connection comes about, the next probe begins with the next. An error is ours (no file descriptor, no
/// memory, no port) and says nothing about the server.
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
            Ok(Reached::Server(answer)) => {
                result = Some(answer);
                break;
            }
            Ok(Reached::Nobody(cause)) => result = Some(Err(cause)),
            Err(error) => ours = Some(error),
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
) -> io::Result<Reached> {
    Ok(match address {
        address @ Address::Socket(_) => {
            let connect = connect_stream(&address, &target.connecting);
            match connected(deadline, connect).await? {
                Ok(stream) => {
                    Reached::Server(ask(stream, &check.kind, &target.host, deadline).await)
                }
                Err(cause) => Reached::Nobody(cause),
            }
        }
        Address::Unix(path) => match connected(deadline, connect_unix(&path)).await? {
            Ok(stream) => Reached::Server(ask(stream, &check.kind, &target.host, deadline).await),
            Err(cause) => Reached::Nobody(cause),
        },
    })
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if is_backlog_full(&error) => sleep(BACKLOG_PAUSE).await,
            connected => return connected,
        }
    }
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
    let mut connection = Connection { stream, deadline };
    connection.send(request(check, host)).await?;
    let response = connection.response(Heads::new(&check.method)).await?;
    if !check.expect.contains(response.status) {
        return Err(Cause::Status);
    }
    let content = Content::new(response.framing, check.body_limit_bytes);
    if let Some(text) = &check.body {
        return connection
            .find(text.as_bytes(), content, response.behind)
            .await;
    }
    // Closing with bytes unread would reset the connection, which some servers log as an error.
    monoio::spawn(connection.drain(content, response.behind));
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

/// A connection to the server.
struct Connection<S> {
    stream: S,
    deadline: Instant,
}

impl<S: AsyncReadRent + AsyncWriteRent> Connection<S> {
    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Cause> {
        match timeout_at(self.deadline, self.stream.write_all(bytes)).await {
            Err(_) => Err(Cause::Timeout),
            Ok((result, _)) => result.map(drop).map_err(|_| Cause::Closed),
        }
    }

    /// Reads once; no bytes at the end.
    async fn read(&mut self) -> Result<Vec<u8>, Cause> {
        let buffer = Vec::with_capacity(READ_BYTES);
        match timeout_at(self.deadline, self.stream.read(buffer)).await {
            Err(_) => Err(Cause::Timeout),
            Ok((result, received)) => result.map(|_| received).map_err(|_| Cause::Closed),
        }
    }

    /// The final response, up to its content.
    async fn response(&mut self, mut heads: Heads) -> Result<Final, Cause> {
        loop {
            let received = self.read().await?;
            if received.is_empty() {
                return Err(Cause::Closed);
            }
            if let Some(response) = heads.receive(&received)? {
                return Ok(response);
            }
        }
    }

    /// Looks for `text` in the content, of which `received` has come already.
    async fn find(
        mut self,
        text: &[u8],
        mut content: Content,
        mut received: Vec<u8>,
    ) -> Result<(), Cause> {
        let mut searched: usize = 0;
        loop {
            let outcome = content.receive(&received);
            // The text may have begun in what was searched before.
            let fresh = &content.bytes()[searched.saturating_sub(text.len())..];
            if memchr::memmem::find(fresh, text).is_some() {
                return Ok(());
            }
            searched = content.bytes().len();
            if content.is_over() {
                return Err(Cause::Body);
            }
            outcome?;
            received = self.read().await?;
            if received.is_empty() {
                return Err(if content.ends_with_connection() {
                    Cause::Body
                } else {
                    Cause::Closed
                });
            }
        }
    }

    /// Reads the content, of which `received` has come already, to its end or limit. Then closes.
    async fn drain(mut self, mut content: Content, mut received: Vec<u8>) {
        while content.receive(&received).is_ok() && !content.is_over() {
            match self.read().await {
                Ok(bytes) if !bytes.is_empty() => received = bytes,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
