//! Answers as bytes.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use http::StatusCode;

use super::request::Request;

/// Media type of the plain answers.
pub(super) const TEXT: &str = "text/plain";
/// Media type of server-sent events.
pub(super) const EVENTS: &str = "text/event-stream";
/// Media type of generated and echoed bodies.
pub(super) const BINARY: &str = "application/octet-stream";

/// Bytes to make bodies of: lines of 64, so that they are readable on a terminal.
pub(super) static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
    let line = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n";
    Bytes::from(line.repeat(BLOCK_BYTES as usize / line.len()))
});
/// Length of [`BLOCK`].
pub(super) const BLOCK_BYTES: u64 = 1 << 20;

/// How an answer tells its length.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    /// Content-Length.
    Known(u64),
    /// Chunked, or until the connection closes for a client that does not know it.
    Unknown,
}

/// An answer's head for `request`. It says so when the connection closes after it.
pub(super) fn head(
    status: StatusCode,
    media_type: &str,
    length: Length,
    request: &Request,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    let reason = status.canonical_reason().unwrap_or("");
    let mut push =
        |text: std::fmt::Arguments<'_>| head.write_fmt(text).expect("a Vec takes any write");
    push(format_args!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {media_type}\r\n",
        status.as_u16()
    ));
    if let Length::Known(length) = length {
        push(format_args!("Content-Length: {length}\r\n"));
    } else if request.knows_chunked {
        push(format_args!("Transfer-Encoding: chunked\r\n"));
    }
    if !request.keep_alive {
        push(format_args!("Connection: close\r\n"));
    }
    push(format_args!("\r\n"));
    head
}

/// A whole answer of known length: head, and body unless the request was HEAD.
pub(super) fn page(
    status: StatusCode,
    media_type: &str,
    body: &[u8],
    request: &Request,
) -> Vec<u8> {
    let mut page = head(
        status,
        media_type,
        Length::Known(body.len() as u64),
        request,
    );
    if !request.head_only {
        page.extend_from_slice(body);
    }
    page
}

/// An answer with this status and its name as text; 204, 205 and 304 have no body (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5).
pub(super) fn status(status: StatusCode, request: &Request) -> Vec<u8> {
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        let close = if request.keep_alive {
            ""
        } else {
            "Connection: close\r\n"
        };
        return format!("HTTP/1.1 {status}\r\n{close}\r\n").into_bytes();
    }
    if status == StatusCode::RESET_CONTENT {
        return page(status, TEXT, b"", request);
    }
    page(status, TEXT, format!("{status}\n").as_bytes(), request)
}

/// Adds a piece of a body, as one chunk if `chunked`. An empty chunk would end the body, so an empty piece adds nothing.
pub(super) fn push_piece(out: &mut Vec<u8>, piece: &[u8], chunked: bool) {
    if !chunked || piece.is_empty() {
        out.extend_from_slice(piece);
        return;
    }
    write!(out, "{:x}\r\n", piece.len()).expect("a Vec takes any write");
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}

/// Adds the end of a body.
pub(super) fn push_end(out: &mut Vec<u8>, chunked: bool) {
    if chunked {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

/// What one origin answers again and again, built once.
pub(super) struct Answers {
    body: String,
    /// `hello from NAME` for a client that stays.
    text: Bytes,
    /// The answer to the last `/bytes/N` that fits in one block: benches ask for the same one each time.
    last_bytes: RefCell<(u64, Bytes)>,
}

impl Answers {
    pub(super) fn new(name: &str) -> Self {
        let body = format!("hello from {name}\n");
        let text = page(StatusCode::OK, TEXT, body.as_bytes(), &Request::plain()).into();
        Self {
            body,
            text,
            last_bytes: RefCell::default(),
        }
    }

    /// The usual text.
    pub(super) fn text(&self, request: &Request) -> Bytes {
        if request.keep_alive && !request.head_only {
            return self.text.clone();
        }
        page(StatusCode::OK, TEXT, self.body.as_bytes(), request).into()
    }

    /// The whole answer to `/bytes/N` where N is at most [`BLOCK_BYTES`].
    pub(super) fn bytes(&self, length: u64, request: &Request) -> Bytes {
        let build = || {
            Bytes::from(page(
                StatusCode::OK,
                BINARY,
                &BLOCK[..length as usize],
                request,
            ))
        };
        if !request.keep_alive || request.head_only {
            return build();
        }
        let mut last = self.last_bytes.borrow_mut();
        if last.0 != length || last.1.is_empty() {
            *last = (length, build());
        }
        last.1.clone()
    }
}
