//! Reading requests: head, route, and the body in either framing.

use std::io;
use std::mem::{self, MaybeUninit};
use std::time::Duration;

use http::StatusCode;
use httparse::Status;
use monoio::buf::IoBufMut;
use monoio::io::AsyncReadRent;
use monoio::net::TcpStream;

/// Bytes of a request head or of a chunk's framing, at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Fields of a request head, at most.
const FIELDS_MAX: usize = 128;
/// Room for the first read of a connection, and after it for each further one.
const READ_BYTES: usize = 4 * 1024;
/// Room for each read of a body that has filled [`READ_BYTES`].
const BODY_READ_BYTES: usize = 64 * 1024;
/// `/bytes/N` and `/chunked/N`, at most.
const BODY_BYTES_MAX: u64 = 100 << 30;
/// `/slow/MS`, at most.
const DELAY_MS_MAX: u64 = 10 * 60 * 1000;

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Text,
    Bytes(u64),
    Chunked(u64),
    Slow(Duration),
    Status(StatusCode),
    Echo,
    Headers,
    Events,
}

impl Route {
    /// The route of a request target; 400 for a number that is none or too large.
    fn of(target: &str) -> Result<Self, StatusCode> {
        let path = target.split('?').next().unwrap_or(target);
        let (name, argument) = match path[1.min(path.len())..].split_once('/') {
            Some((name, argument)) => (name, argument),
            None => (path.trim_start_matches('/'), ""),
        };
        let number = |max| match argument.parse() {
            Ok(number) if number <= max => Ok(number),
            _ => Err(StatusCode::BAD_REQUEST),
        };
        Ok(match name {
            "bytes" => Self::Bytes(number(BODY_BYTES_MAX)?),
            "chunked" => Self::Chunked(number(BODY_BYTES_MAX)?),
            "slow" => Self::Slow(Duration::from_millis(number(DELAY_MS_MAX)?)),
            "status" => match number(599)? {
                code @ 200.. => Self::Status(
                    StatusCode::from_u16(code as u16).map_err(|_| StatusCode::BAD_REQUEST)?,
                ),
                _ => return Err(StatusCode::BAD_REQUEST),
            },
            "echo" => Self::Echo,
            "headers" => Self::Headers,
            "events" => Self::Events,
            _ => Self::Text,
        })
    }
}

/// A request head, understood.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // four facts about a request, independent of each other
pub(super) struct Request {
    /// Bytes of the head, its empty line included.
    pub(super) head_bytes: usize,
    pub(super) route: Route,
    /// HEAD: the answer stops after its own head.
    pub(super) head_only: bool,
    /// The connection serves a further request after this one.
    pub(super) keep_alive: bool,
    /// The client knows chunked coding, which HTTP/1.0 does not.
    pub(super) knows_chunked: bool,
    pub(super) expects_continue: bool,
    pub(super) body: Body,
}

impl Request {
    /// The request of a client that stays and wants nothing in particular.
    pub(super) const fn plain() -> Self {
        Self {
            head_bytes: 0,
            route: Route::Text,
            head_only: false,
            keep_alive: true,
            knows_chunked: true,
            expects_continue: false,
            body: Body::Length(0),
        }
    }

    /// Reads a head from the start of `input`. `None`: it is not complete yet. An error is the status to refuse with.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Self>, StatusCode> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut head = httparse::Request::new(&mut []);
        let head_bytes = match head.parse_with_uninit_headers(input, &mut fields) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if input.len() < HEAD_BYTES_MAX => return Ok(None),
            Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            }
            Err(_) => return Err(StatusCode::BAD_REQUEST),
        };
        let http11 = head.version == Some(1);
        let mut request = Self {
            head_bytes,
            route: Route::of(head.path.unwrap_or("/"))?,
            head_only: head.method == Some("HEAD"),
            keep_alive: http11,
            knows_chunked: http11,
            ..Self::plain()
        };
        let mut lengths = 0;
        for field in head.headers.iter() {
            request.read_field(field)?;
            lengths += u32::from(field.name.eq_ignore_ascii_case("Content-Length"));
        }
        if lengths > 1 {
            return Err(StatusCode::BAD_REQUEST);
        }
        Ok(Some(request))
    }

    /// Takes note of a field that says where the message ends or what follows it.
    fn read_field(&mut self, field: &httparse::Header<'_>) -> Result<(), StatusCode> {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        // Few fields have these lengths: most are skipped without a comparison.
        match field.name.len() {
            // An HTTP/1.0 client knows no 100 (RFC 9110 section 10.1.1), as it knows no chunks.
            6 if is("Expect") => {
                self.expects_continue =
                    self.knows_chunked && field.value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if is("Connection") && lists(field.value, b"close") => self.keep_alive = false,
            14 if is("Content-Length") && !matches!(self.body, Body::Chunked(_)) => {
                self.body = Body::Length(decimal(field.value).ok_or(StatusCode::BAD_REQUEST)?);
            }
            17 if is("Transfer-Encoding") => {
                if !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(StatusCode::NOT_IMPLEMENTED);
                }
                self.body = Body::Chunked(Chunk::Size);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a comma-separated field value has this member.
fn lists(value: &[u8], member: &[u8]) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(member))
}

/// A number of digits only.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// A request body that is still to be read.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes are left of it.
    Length(u64),
    /// Chunked, and this comes next.
    Chunked(Chunk),
}

/// What comes next in a chunked body.
#[derive(Debug)]
pub(super) enum Chunk {
    /// A line with a chunk's size.
    Size,
    /// So many bytes are left of a chunk.
    Data(u64),
    /// The line end after a chunk's data.
    DataEnd,
    /// A trailer field or the empty line that ends the body.
    Trailer,
    /// Nothing.
    End,
}

impl Body {
    /// Waits until bytes of the body stand at the start of `input` and says how many; `None` at its end.
    pub(super) async fn ready(
        &mut self,
        input: &mut Input,
        stream: &mut TcpStream,
    ) -> io::Result<Option<usize>> {
        loop {
            let left = match self {
                Self::Length(left) | Self::Chunked(Chunk::Data(left)) => *left,
                Self::Chunked(chunk) => {
                    if !chunk.advance(input)? {
                        input.fill_or_fail(stream).await?;
                    }
                    if matches!(chunk, Chunk::End) {
                        return Ok(None);
                    }
                    continue;
                }
            };
            if left == 0 {
                return Ok(None); // a chunk of no bytes is the last one and never becomes `Data`
            }
            match input.unread().len() {
                0 => input.fill_or_fail(stream).await?,
                length => return Ok(Some((length as u64).min(left) as usize)),
            }
        }
    }

    /// Takes `length` bytes, of those that are ready, off the input.
    pub(super) fn used(&mut self, input: &mut Input, length: usize) {
        input.consume(length);
        match self {
            Self::Length(left) => *left -= length as u64,
            Self::Chunked(chunk @ Chunk::Data(_)) => chunk.used(length as u64),
            Self::Chunked(_) => debug_assert_eq!(length, 0, "only data is ever ready"),
        }
    }
}

impl Chunk {
    /// Reads framing from the input. `false`: it needs more bytes.
    fn advance(&mut self, input: &mut Input) -> io::Result<bool> {
        let bad = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        match self {
            Self::Size => match httparse::parse_chunk_size(input.unread()) {
                Ok(Status::Complete((length, size))) => {
                    input.consume(length);
                    *self = if size == 0 {
                        Self::Trailer
                    } else {
                        Self::Data(size)
                    };
                }
                Ok(Status::Partial) => return Ok(false),
                Err(_) => return bad("chunk size"),
            },
            Self::DataEnd => match input.unread() {
                [b'\r', b'\n', ..] => {
                    input.consume(2);
                    *self = Self::Size;
                }
                [] | [b'\r'] => return Ok(false),
                _ => return bad("end of chunk"),
            },
            Self::Trailer => {
                let Some(end) = input.unread().iter().position(|&byte| byte == b'\n') else {
                    return Ok(false);
                };
                if matches!(&input.unread()[..end], [] | [b'\r']) {
                    *self = Self::End;
                }
                input.consume(end + 1);
            }
            Self::Data(_) | Self::End => {}
        }
        Ok(true)
    }

    fn used(&mut self, length: u64) {
        if let Self::Data(left) = self {
            *left -= length;
            if *left == 0 {
                *self = Self::DataEnd;
            }
        }
    }
}

/// Bytes that have been read from a connection and not been used.
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Where the unused ones start.
    start: usize,
}

impl Input {
    pub(super) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
        }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn consume(&mut self, length: usize) {
        debug_assert!(length <= self.unread().len(), "used more than was read");
        self.start += length;
    }

    /// Reads once and says how many bytes came; 0 is the end of the stream.
    pub(super) async fn fill(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        let mut bytes = mem::take(&mut self.bytes);
        let full = bytes.len() == bytes.capacity() && !bytes.is_empty();
        bytes.drain(..self.start);
        self.start = 0;
        bytes.reserve(if full { BODY_READ_BYTES } else { READ_BYTES });
        let (from, to) = (bytes.len(), bytes.capacity());
        let (read, slice) = stream.read(bytes.slice_mut(from..to)).await;
        self.bytes = slice.into_inner();
        read
    }

    /// Reads once in the middle of a message, where the end of the stream is an error and the framing has a bound.
    async fn fill_or_fail(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        if self.unread().len() > HEAD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "chunk framing too long",
            ));
        }
        match self.fill(stream).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_choose_routes() {
        let cases = [
            ("/", Ok(Route::Text)),
            ("*", Ok(Route::Text)),
            ("/any/path?x=/bytes/1", Ok(Route::Text)),
            ("http://host/bytes/1", Ok(Route::Text)),
            ("/health", Ok(Route::Text)),
            ("/bytes/0", Ok(Route::Bytes(0))),
            ("/bytes/107374182400", Ok(Route::Bytes(100 << 30))),
            ("/bytes/107374182401", Err(StatusCode::BAD_REQUEST)),
            ("/bytes/-1", Err(StatusCode::BAD_REQUEST)),
            ("/bytes", Err(StatusCode::BAD_REQUEST)),
            ("/chunked/17?again", Ok(Route::Chunked(17))),
            ("/slow/250", Ok(Route::Slow(Duration::from_millis(250)))),
            ("/status/204", Ok(Route::Status(StatusCode::NO_CONTENT))),
            ("/status/101", Err(StatusCode::BAD_REQUEST)),
            ("/status/600", Err(StatusCode::BAD_REQUEST)),
            ("/echo", Ok(Route::Echo)),
            ("/headers?a=b", Ok(Route::Headers)),
            ("/events", Ok(Route::Events)),
        ];
        for (target, route) in cases {
            assert_eq!(Route::of(target), route, "{target}");
        }
    }

    #[test]
    fn a_head_is_read_only_when_complete() {
        let text = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\nhello";
        let head = text.len() - 5;
        for end in 0..head {
            assert!(
                Request::parse(&text[..end]).expect("a good head").is_none(),
                "{end} bytes"
            );
        }
        let request = Request::parse(text)
            .expect("a good head")
            .expect("a whole head");
        assert_eq!(request.head_bytes, head);
        assert_eq!(request.route, Route::Echo);
        assert!(!request.keep_alive);
        assert!(matches!(request.body, Body::Length(5)));
    }

    #[test]
    fn bad_heads_are_refused() {
        let long = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(HEAD_BYTES_MAX));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(FIELDS_MAX + 1)
        );
        let cases = [
            ("\0\u{1}\r\n\r\n", StatusCode::BAD_REQUEST),
            (
                "GET / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
                StatusCode::BAD_REQUEST,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                StatusCode::BAD_REQUEST,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\n",
                StatusCode::BAD_REQUEST,
            ),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
                StatusCode::NOT_IMPLEMENTED,
            ),
            (&long, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            (&many, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        ];
        for (head, status) in cases {
            assert_eq!(
                Request::parse(head.as_bytes()).map(|_| ()),
                Err(status),
                "{head:.60}"
            );
        }
    }
}
