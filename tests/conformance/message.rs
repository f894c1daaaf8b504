//! Messages in what was received, found by the strict reader.

use super::strict::{self, Chunked, Framing, Head};

/// Names and values, in order.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// A whole message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// `METHOD TARGET` or the status.
    pub(crate) start: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// As it came.
    pub(crate) raw: Vec<u8>,
}

/// What the start of some bytes is.
#[derive(Debug)]
pub(crate) enum Read {
    Whole(Message),
    /// All well so far; the head is there or not yet.
    Partial {
        head: bool,
    },
    Malformed(String),
}

/// Reads a request from the start of `bytes`.
pub(crate) fn request(bytes: &[u8]) -> Read {
    let Some(head_bytes) = head_bytes(bytes) else {
        return Read::Partial { head: false };
    };
    let Some(head) = strict::request(bytes) else {
        return Read::Malformed("not a request head".to_owned());
    };
    let hosts = head.values("host").len();
    if hosts > 1 || hosts == 0 && head.start[2] != b"HTTP/1.0" {
        return Read::Malformed("not one Host field".to_owned());
    }
    let Some(framing) = head.framing() else {
        return Read::Malformed("ambiguous framing".to_owned());
    };
    let start = format!("{} {}", lossy(head.start[0]), lossy(head.start[1]));
    body(start, &head, framing, bytes, head_bytes)
}

/// Reads an answer to `method` from the start of `bytes`. `ended` when no more bytes will come.
pub(crate) fn answer(bytes: &[u8], method: &str, ended: bool) -> Read {
    let Some(head_bytes) = head_bytes(bytes) else {
        return Read::Partial { head: false };
    };
    let Some(head) = strict::response(bytes) else {
        return Read::Malformed("not a response head".to_owned());
    };
    let Some(framing) = head.framing() else {
        return Read::Malformed("ambiguous framing".to_owned());
    };
    let start = lossy(head.start[1]);
    let bare = start.starts_with('1') || start == "204";
    if bare && framing != Framing::None {
        return Read::Malformed(format!("{start} with framing fields"));
    }
    if bare || start == "304" || method == "HEAD" {
        return body(start, &head, Framing::None, bytes, head_bytes);
    }
    if framing != Framing::None {
        return body(start, &head, framing, bytes, head_bytes);
    }
    if !ended {
        return Read::Partial { head: true };
    }
    let length = Framing::Length((bytes.len() - head_bytes) as u64);
    body(start, &head, length, bytes, head_bytes)
}

fn head_bytes(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(end + 4)
}

fn body(start: String, head: &Head<'_>, framing: Framing, bytes: &[u8], at: usize) -> Read {
    let rest = &bytes[at..];
    let (body, trailer, len) = match framing {
        Framing::None => (Vec::new(), &b""[..], 0),
        Framing::Length(length) => {
            let Some(body) = rest.get(..length as usize) else {
                return Read::Partial { head: true };
            };
            (body.to_vec(), &b""[..], body.len())
        }
        Framing::Chunked => match strict::chunked(rest) {
            Chunked::Incomplete(_) => return Read::Partial { head: true },
            Chunked::Invalid => return Read::Malformed("malformed chunked body".to_owned()),
            Chunked::Complete {
                data, trailer, len, ..
            } => (data, trailer, len),
        },
    };
    let Some(trailers) = trailer_fields(trailer) else {
        return Read::Malformed("malformed trailer section".to_owned());
    };
    Read::Whole(Message {
        start,
        fields: owned(&head.fields),
        body,
        trailers,
        raw: bytes[..at + len].to_vec(),
    })
}

fn trailer_fields(trailer: &[u8]) -> Option<Fields> {
    if trailer.is_empty() {
        return Some(Vec::new());
    }
    strict::fields(trailer).map(|(fields, _)| owned(&fields))
}

fn owned(fields: &[strict::Pair<'_>]) -> Fields {
    fields
        .iter()
        .map(|(name, value)| (lossy(name), value.to_vec()))
        .collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a connection carried, as far as it can be read.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    pub(crate) messages: Vec<Message>,
    /// What follows them.
    pub(crate) rest: Vec<u8>,
    /// Why the rest cannot be the start of a message.
    pub(crate) complaint: Option<String>,
}

/// Reads answers to requests with these methods, the last one standing for all that follow. Behind a 101 all is the tunnel's.
pub(crate) fn answers(bytes: &[u8], methods: &[&str], ended: bool) -> Conversation {
    let mut conversation = Conversation::default();
    let mut at = 0;
    let mut finals = 0;
    while at < bytes.len() {
        let method = methods.get(finals).copied().unwrap_or("GET");
        match answer(&bytes[at..], method, ended) {
            Read::Whole(message) => {
                at += message.raw.len();
                finals += usize::from(!message.start.starts_with('1'));
                let tunnel = message.start == "101";
                conversation.messages.push(message);
                if tunnel {
                    break;
                }
            }
            Read::Partial { .. } => break,
            Read::Malformed(complaint) => {
                conversation.complaint = Some(complaint);
                break;
            }
        }
    }
    conversation.rest = bytes[at..].to_vec();
    conversation
}
