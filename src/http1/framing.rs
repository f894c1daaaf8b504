//! How long a message's body is (RFC 9112 section 6), and what its Connection field asks for.

use super::field::{Field, Fields, Name, list};
use super::head::{RequestHead, ResponseHead};
use super::refusal::Refusal;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// This many bytes.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
    /// All until the sender closes; responses only.
    UntilClose,
}

/// What the framing fields of a head say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Declared {
    length: Option<u64>,
    chunked: bool,
}

/// Reads Content-Length and Transfer-Encoding. `repeats` allows the same length to stand more than once (RFC 9110 section 8.6).
#[inline]
fn declared(fields: &Fields, bytes: &[u8], minor: u8, repeats: bool) -> Result<Declared, Refusal> {
    if fields.has(Name::ContentLength) || fields.has(Name::TransferEncoding) {
        declared_by(fields, bytes, minor, repeats)
    } else {
        Ok(Declared::default())
    }
}

fn declared_by(
    fields: &Fields,
    bytes: &[u8],
    minor: u8,
    repeats: bool,
) -> Result<Declared, Refusal> {
    let mut declared = Declared::default();
    for field in fields {
        match field.kind {
            Name::ContentLength => {
                let length = length(field.value.of(bytes))?;
                if declared
                    .length
                    .is_some_and(|first| !repeats || first != length)
                {
                    return Err(Refusal::ContentLength);
                }
                declared.length = Some(length);
            }
            Name::TransferEncoding => {
                // RFC 9112 section 6.1: HTTP/1.0 has no transfer codings, so its message framing would be faulty.
                if declared.chunked || minor == 0 {
                    return Err(Refusal::TransferEncoding);
                }
                declared.chunked = chunked(field.value.of(bytes))?;
            }
            _ => {}
        }
    }
    if declared.chunked && declared.length.is_some() {
        Err(Refusal::LengthAndEncoding)
    } else {
        Ok(declared)
    }
}

/// `1*DIGIT` below 10^18: more no body has, and sums of it never overflow.
fn length(value: &[u8]) -> Result<u64, Refusal> {
    const DIGITS_MAX: usize = 18;
    if value.is_empty() || value.len() > DIGITS_MAX {
        return Err(Refusal::ContentLength);
    }
    value.iter().try_fold(0, |sum, digit| match digit {
        b'0'..=b'9' => Ok(sum * 10 + u64::from(digit - b'0')),
        _ => Err(Refusal::ContentLength),
    })
}

/// One `chunked` and nothing else.
fn chunked(value: &[u8]) -> Result<bool, Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        Ok(true)
    } else {
        Err(refused_coding(value))
    }
}

/// What is wrong with another coding than `chunked`; one before it is one that we cannot take off.
#[cold]
fn refused_coding(value: &[u8]) -> Refusal {
    let mut codings = list(value);
    let last = codings.next_back();
    let ends_chunked = last.is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let mut before = codings.peekable();
    let is_known = |coding: &[u8]| {
        [
            &b"gzip"[..],
            b"x-gzip",
            b"deflate",
            b"compress",
            b"x-compress",
        ]
        .iter()
        .any(|name| coding.eq_ignore_ascii_case(name))
    };
    if ends_chunked && before.peek().is_some() && before.all(is_known) {
        Refusal::TransferCodingUnknown
    } else {
        Refusal::TransferEncoding
    }
}

/// The framing of a request's body (RFC 9112 section 6.3).
#[inline]
pub fn request(head: &RequestHead, bytes: &[u8]) -> Result<Framing, Refusal> {
    let declared = declared(&head.fields, bytes, head.minor, false)?;
    Ok(match declared {
        Declared { chunked: true, .. } => Framing::Chunked,
        Declared {
            length: None | Some(0),
            ..
        } => Framing::Empty,
        Declared {
            length: Some(length),
            ..
        } => Framing::Length(length),
    })
}

/// The framing of the body of a response to a request whose method was HEAD or not (RFC 9112 section 6.3).
#[inline]
pub fn response(head: &ResponseHead, bytes: &[u8], to_head: bool) -> Result<Framing, Refusal> {
    let declared = declared(&head.fields, bytes, head.minor, true)?;
    if to_head || head.status < 200 || matches!(head.status, 204 | 304) {
        return Ok(Framing::Empty);
    }
    Ok(match declared {
        Declared { chunked: true, .. } => Framing::Chunked,
        Declared {
            length: Some(0), ..
        } => Framing::Empty,
        Declared {
            length: Some(length),
            ..
        } => Framing::Length(length),
        Declared { length: None, .. } => Framing::UntilClose,
    })
}

/// What the Connection fields of a message ask for (RFC 9110 section 7.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is an option of its own on the wire
pub struct Options {
    /// `close`.
    pub close: bool,
    /// `keep-alive`.
    pub keep_alive: bool,
    /// `upgrade`.
    pub upgrade: bool,
    /// At least one other name: those fields do not travel on.
    pub names_fields: bool,
}

/// Reads all Connection fields.
#[inline]
pub fn options(fields: &Fields, bytes: &[u8]) -> Options {
    if !fields.has(Name::Connection) {
        return Options::default();
    }
    named_options(fields, bytes)
}

fn named_options(fields: &Fields, bytes: &[u8]) -> Options {
    let mut options = Options::default();
    for field in fields.named(Name::Connection) {
        match field.value.of(bytes) {
            // Most say just this.
            b"keep-alive" => options.keep_alive = true,
            value => list(value).for_each(|option| options.add(option)),
        }
    }
    options
}

impl Options {
    fn add(&mut self, option: &[u8]) {
        if option.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if !option.eq_ignore_ascii_case(b"te") {
            // TE never travels on, so naming it changes nothing.
            self.names_fields = true;
        }
    }

    /// Whether the connection may carry another message (RFC 9112 section 9.3).
    pub const fn persistent(self, minor: u8) -> bool {
        !self.close && (minor > 0 || self.keep_alive)
    }
}

/// Whether a Connection field names `name`.
pub fn connection_names(fields: &[Field], bytes: &[u8], name: &[u8]) -> bool {
    fields
        .iter()
        .filter(|field| field.kind == Name::Connection)
        .flat_map(|field| list(field.value.of(bytes)))
        .any(|option| option.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{Limits, Progress};

    const LIMITS: Limits = Limits {
        head_bytes: 1024,
        fields: 16,
        target_bytes: 100,
    };

    fn of_request(version: &str, fields: &str) -> Result<Framing, Refusal> {
        let bytes = format!("POST / {version}\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        assert_eq!(
            head.parse(&bytes, &LIMITS),
            Ok(Progress::Complete(bytes.len()))
        );
        request(&head, &bytes)
    }

    fn of_response(status: &str, fields: &str, to_head: bool) -> Result<Framing, Refusal> {
        let bytes = format!("HTTP/1.1 {status}\r\n{fields}\r\n").into_bytes();
        let mut head = ResponseHead::default();
        assert_eq!(
            head.parse(&bytes, &LIMITS),
            Ok(Progress::Complete(bytes.len()))
        );
        response(&head, &bytes, to_head)
    }

    #[test]
    fn requests() {
        let v = "HTTP/1.1";
        let cases = [
            ("", Ok(Framing::Empty)),
            ("Content-Length: 0\r\n", Ok(Framing::Empty)),
            ("Content-Length: 007\r\n", Ok(Framing::Length(7))),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            (
                "Content-Length: 5\r\nContent-Length: 6\r\n",
                Err(Refusal::ContentLength),
            ),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                Err(Refusal::ContentLength),
            ),
            ("Content-Length: 5, 5\r\n", Err(Refusal::ContentLength)),
            ("Content-Length: +5\r\n", Err(Refusal::ContentLength)),
            ("Content-Length: -1\r\n", Err(Refusal::ContentLength)),
            ("Content-Length: 0x5\r\n", Err(Refusal::ContentLength)),
            ("Content-Length:\r\n", Err(Refusal::ContentLength)),
            (
                "Content-Length: 99999999999999999999\r\n",
                Err(Refusal::ContentLength),
            ),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Err(Refusal::LengthAndEncoding),
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
                Err(Refusal::LengthAndEncoding),
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(Refusal::TransferEncoding),
            ),
            (
                "Transfer-Encoding: chunked, chunked\r\n",
                Err(Refusal::TransferEncoding),
            ),
            (
                "Transfer-Encoding: chunked, gzip\r\n",
                Err(Refusal::TransferEncoding),
            ),
            (
                "Transfer-Encoding: identity\r\n",
                Err(Refusal::TransferEncoding),
            ),
            (
                "Transfer-Encoding: xchunked\r\n",
                Err(Refusal::TransferEncoding),
            ),
            (
                "Transfer-Encoding: \"chunked\"\r\n",
                Err(Refusal::TransferEncoding),
            ),
            ("Transfer-Encoding:\r\n", Err(Refusal::TransferEncoding)),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                Err(Refusal::TransferCodingUnknown),
            ),
        ];
        for (fields, expected) in cases {
            assert_eq!(of_request(v, fields), expected, "{fields:?}");
        }
        assert_eq!(
            of_request("HTTP/1.0", "Transfer-Encoding: chunked\r\n"),
            Err(Refusal::TransferEncoding)
        );
        assert_eq!(
            of_request("HTTP/1.0", "Content-Length: 3\r\n"),
            Ok(Framing::Length(3))
        );
    }

    #[test]
    fn responses() {
        assert_eq!(of_response("200 OK", "", false), Ok(Framing::UntilClose));
        assert_eq!(
            of_response("200 OK", "Content-Length: 5\r\n", false),
            Ok(Framing::Length(5))
        );
        assert_eq!(
            of_response(
                "200 OK",
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                false
            ),
            Ok(Framing::Length(5))
        );
        assert_eq!(
            of_response("200 OK", "Content-Length: 5\r\n", true),
            Ok(Framing::Empty)
        );
        assert_eq!(
            of_response("304 Not Modified", "Content-Length: 5\r\n", false),
            Ok(Framing::Empty)
        );
        assert_eq!(
            of_response("204 No Content", "Transfer-Encoding: chunked\r\n", false),
            Ok(Framing::Empty)
        );
        assert_eq!(
            of_response("103 Early Hints", "", false),
            Ok(Framing::Empty)
        );
        let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(
            of_response("200 OK", both, true),
            Err(Refusal::LengthAndEncoding)
        );
    }

    #[test]
    fn connection_options() {
        let bytes = b"GET / HTTP/1.1\r\nConnection: Close, x\r\nConnection: UPGRADE,,\r\n\r\n";
        let mut head = RequestHead::default();
        head.parse(bytes, &LIMITS).expect("a valid head");
        let options = options(&head.fields, bytes);
        assert_eq!(
            options,
            Options {
                close: true,
                keep_alive: false,
                upgrade: true,
                names_fields: true
            }
        );
        assert!(!options.persistent(1));
        assert!(
            connection_names(&head.fields, bytes, b"X")
                && !connection_names(&head.fields, bytes, b"y")
        );
        assert!(
            Options {
                keep_alive: true,
                ..Options::default()
            }
            .persistent(0)
                && !Options::default().persistent(0)
        );
    }
}
