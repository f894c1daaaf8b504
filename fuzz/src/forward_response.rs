//! What is accepted from a server and written for a client is one response with the same meaning to the strict reader.

use ringlane::http1::body::{Coding, Reader};
use ringlane::http1::forward::{Persistence, Response};
use ringlane::http1::framing::{self, Framing};
use ringlane::http1::head::{Progress, ResponseHead};

use super::body::check_trailer;
use super::strict::{self, Chunked, Head};
use super::{LIMITS, cuts, foreign};

/// Who asked, and how.
#[derive(Clone, Copy, Debug)]
struct Client {
    /// The request was HEAD.
    to_head: bool,
    /// 0 or 1, of HTTP/1.
    minor: u8,
    served_by: Option<&'static str>,
}

const CLIENTS: [Client; 3] = [
    Client {
        to_head: false,
        minor: 1,
        served_by: None,
    },
    Client {
        to_head: true,
        minor: 1,
        served_by: Some("a"),
    },
    Client {
        to_head: false,
        minor: 0,
        served_by: None,
    },
];

/// A response as it was received and as it is sent on.
struct Sent<'a> {
    client: Client,
    received: Head<'a>,
    rest: &'a [u8],
    status: u16,
    framing: Framing,
    coding: Coding,
    until_close: bool,
    out: Vec<u8>,
    ended: bool,
}

/// Sends the response at the start of `input` on to each kind of client.
pub fn check(input: &[u8]) {
    let mut head = ResponseHead::default();
    let Ok(Progress::Complete(len)) = head.parse(input, &LIMITS) else {
        return;
    };
    let (bytes, rest) = input.split_at(len);
    for client in CLIENTS {
        if let Some(sent) = send(&head, bytes, rest, client) {
            sent.check();
        }
    }
}

/// What the client gets; `None` when the response is refused.
fn send<'a>(
    head: &ResponseHead,
    bytes: &'a [u8],
    rest: &'a [u8],
    client: Client,
) -> Option<Sent<'a>> {
    let framing = framing::response(head, bytes, client.to_head).ok()?;
    let coding = match framing {
        Framing::Chunked if client.minor > 0 => {
            Coding::chunked(framing::options(&head.fields, bytes))
        }
        Framing::UntilClose if client.minor > 0 => Coding::Chunked,
        _ => Coding::Identity,
    };
    let until_close =
        coding == Coding::Identity && matches!(framing, Framing::Chunked | Framing::UntilClose);
    let mut out = Vec::new();
    Response {
        head,
        bytes,
        options: framing::options(&head.fields, bytes),
        chunked: coding != Coding::Identity,
        persistence: match (head.status, until_close, client.minor) {
            (101, ..) => Persistence::Upgrade,
            (_, true, _) => Persistence::Close,
            (_, false, 0) => Persistence::KeepAlive,
            (_, false, _) => Persistence::Implied,
        },
        date: b"Thu, 01 Jan 1970 00:00:00 GMT",
        via: client.to_head,
        served_by: client.served_by,
        cookie: None,
    }
    .write(&mut out);
    let mut reader = Reader::new(framing);
    let mut at = 0;
    for end in cuts(rest) {
        if !reader.ended() {
            let piece = &rest[at..end];
            at += reader
                .transfer(piece, coding, &LIMITS, &mut out)
                .ok()?
                .consumed;
        }
    }
    Some(Sent {
        client,
        received: strict::response(bytes).expect("what was accepted is well formed"),
        rest,
        status: head.status,
        framing,
        coding,
        until_close,
        out,
        ended: reader.ended(),
    })
}

impl Sent<'_> {
    fn check(&self) {
        let written = strict::response(&self.out).expect("a well-formed head");
        foreign::response(&written, &self.out);
        assert_eq!(written.start[0], b"HTTP/1.1");
        assert_eq!(written.start[1], self.received.start[1], "the status");
        let reason = |head: &Head| head.start.get(2).copied().unwrap_or_default().to_vec();
        assert_eq!(reason(&written), reason(&self.received));
        self.check_fields(&written);
        let body = &self.out[written.len..];
        let bodiless = self.client.to_head || self.status < 200 || matches!(self.status, 204 | 304);
        if bodiless {
            assert!(body.is_empty(), "a body where none can be");
        } else {
            self.check_body(&written, body);
        }
    }

    fn check_fields(&self, written: &Head) {
        for absent in ["keep-alive", "proxy-authenticate", "proxy-connection", "te"] {
            assert!(written.values(absent).is_empty(), "{absent}");
        }
        assert!(written.values("connection").len() <= 1);
        if self.status < 200 || self.status == 204 {
            assert!(written.values("content-length").is_empty());
            assert!(written.values("transfer-encoding").is_empty());
        } else {
            assert!(!written.values("date").is_empty());
        }
        if let Some(name) = self.client.served_by {
            assert_eq!(written.values("x-served-by"), [name.as_bytes()]);
        }
        for option in self.received.members("connection") {
            let option = String::from_utf8_lossy(option).to_ascii_lowercase();
            let own = ["date", "upgrade", "connection", "x-served-by"].contains(&option.as_str());
            let kept = [
                "content-length",
                "transfer-encoding",
                "host",
                "via",
                "forwarded",
                "trailer",
            ];
            let kept = kept.contains(&option.as_str()) || option.starts_with("x-");
            assert!(
                own || kept || written.values(&option).is_empty(),
                "{option}"
            );
        }
    }

    fn check_body(&self, written: &Head, body: &[u8]) {
        match written.framing().expect("one framing") {
            strict::Framing::Length(length) => {
                assert!(matches!(self.framing, Framing::Length(_) | Framing::Empty));
                assert!(body.len() as u64 <= length);
                assert_eq!(body.len() as u64 == length, self.ended);
                assert_eq!(body, &self.rest[..body.len()]);
            }
            strict::Framing::Chunked => self.check_chunked(body),
            strict::Framing::None => {
                assert!(self.until_close, "nothing marks the body's end");
                assert_eq!(written.values("connection"), [b"close"]);
            }
        }
    }

    fn check_chunked(&self, body: &[u8]) {
        match strict::chunked(body) {
            Chunked::Complete {
                trailer,
                len,
                extended,
                ..
            } => {
                assert!(self.ended && !extended);
                assert_eq!(len, body.len(), "bytes behind the body");
                check_trailer(trailer, self.coding);
            }
            Chunked::Incomplete(_) => assert!(!self.ended),
            Chunked::Invalid => panic!("malformed: {}", body.escape_ascii()),
        }
    }
}
