//! The head of a request or response: start line and fields (RFC 9112 sections 2 to 5).
//!
//! Parsing goes line by line and resumes where the last complete line ended, so that a head which trickles in costs no more than one that
//! comes whole. Parts are kept as spans of the received bytes; nothing is copied.

use super::class::{
    after_target, after_token, after_value, is_field_value, is_token, trim_end, trim_start,
};
use super::field::{Field, Fields, Name, Span};
use super::refusal::Refusal;

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole head.
    pub head_bytes: usize,
    /// Number of fields.
    pub fields: usize,
    /// Bytes of a request target.
    pub target_bytes: usize,
}

impl Limits {
    /// Those of the bytes that may belong to a head.
    #[inline]
    fn window<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[..bytes.len().min(self.head_bytes)]
    }
}

/// Interim responses that may come before a final one; more make a response malformed.
pub const INTERIMS_MAX: u32 = 64;

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is complete; it takes this many bytes.
    Complete(usize),
    /// More bytes are needed.
    Partial,
}

/// Where parsing stands.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// Start of the first line that is not parsed.
    next: usize,
    /// Bytes already searched for the end of that line; at least `next`.
    searched: usize,
    /// The start line is parsed.
    started: bool,
}

impl Cursor {
    /// Nothing has been looked at.
    const fn is_new(&self) -> bool {
        self.searched == 0
    }

    /// The start line takes so many bytes with its end.
    #[inline]
    const fn start(&mut self, length: usize) {
        *self = Self {
            next: length,
            searched: length,
            started: true,
        };
    }

    /// The next complete line without its CRLF, or `None` when more bytes are needed.
    fn line(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<Span>, Refusal> {
        let window = limits.window(bytes);
        let Some(found) = memchr::memchr(b'\n', &window[self.searched..]) else {
            return self.unfinished(window, limits).map(|_| None);
        };
        let end = self.searched + found;
        if end == self.next || bytes[end - 1] != b'\r' {
            return Err(Refusal::BareLf);
        }
        let line = Span::new(self.next, end - 1);
        self.next = end + 1;
        self.searched = self.next;
        Ok(Some(line))
    }

    /// Parses field lines up to the empty one.
    #[inline]
    fn fields(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        fields: &mut Fields,
    ) -> Result<Progress, Refusal> {
        let window = limits.window(bytes);
        // A line that trickles in is read when its end has come, not at each of its bytes.
        let is_new = self.searched <= self.next;
        if !is_new && memchr::memchr(b'\n', &window[self.searched..]).is_none() {
            return self.unfinished(window, limits);
        }
        let mut rest = &window[self.next..];
        while !rest.starts_with(b"\r\n") {
            match read_field(rest, window.len()) {
                Ok((field, next)) => {
                    fields.push(field);
                    rest = next;
                }
                // A line is judged when its end has come, however it came.
                Err(_) if memchr::memchr(b'\n', rest).is_none() => {
                    self.next = window.len() - rest.len();
                    return self.unfinished(window, limits);
                }
                Err(refusal) => return Err(refusal),
            }
            if fields.len() > limits.fields {
                return Err(Refusal::TooManyFields);
            }
        }
        self.next = window.len() - rest.len() + 2;
        Ok(Progress::Complete(self.next))
    }

    /// The next line has not come whole.
    #[cold]
    fn unfinished(&mut self, window: &[u8], limits: &Limits) -> Result<Progress, Refusal> {
        self.searched = window.len();
        if window.len() == limits.head_bytes {
            Err(Refusal::HeadTooLarge)
        } else {
            Ok(Progress::Partial)
        }
    }
}

/// Reads a field line (RFC 9112 section 5) from `text`, the rest of a head of which `end` bytes have come. Gives what follows it. What is
/// wrong with a line without its end may be just that.
#[inline]
fn read_field(text: &[u8], end: usize) -> Result<(Field, &[u8]), Refusal> {
    let after_token = after_token(text);
    let name = &text[..text.len() - after_token.len()];
    let ([b':', after_name @ ..], false) = (after_token, name.is_empty()) else {
        return Err(no_field(text));
    };
    let (value, one_space) = match after_name {
        [b' ', value @ ..] if !matches!(value, [b' ' | b'\t', ..]) => (value, true),
        _ => (trim_start(after_name), false),
    };
    let after_value = after_value(value);
    let next = match after_value {
        [b'\r', b'\n', next @ ..] => next,
        [b'\r', ..] => return Err(Refusal::BareCr),
        [b'\n', ..] => return Err(Refusal::BareLf),
        _ => return Err(Refusal::FieldValue),
    };
    let value_bytes = &value[..value.len() - after_value.len()];
    let (trimmed, is_plain) = match value_bytes {
        [.., b' ' | b'\t'] => (trim_end(value_bytes), false),
        _ => (value_bytes, one_space),
    };
    let (start, value_start) = (end - text.len(), end - value.len());
    let field = Field {
        kind: Name::of(name),
        name: Span::new(start, start + name.len()),
        value: Span::new(value_start, value_start + trimmed.len()),
        is_plain,
    };
    Ok((field, next))
}

/// A request line that fills the whole limit is a long target.
fn too_large(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::HeadTooLarge => Refusal::TargetTooLong,
        other => other,
    }
}

/// What is wrong with a line that does not begin with a token and a colon.
#[cold]
fn no_field(text: &[u8]) -> Refusal {
    match (text.first(), after_token(text).first()) {
        (Some(b' ' | b'\t'), _) => Refusal::Folding,
        (_, Some(b'\n')) => Refusal::BareLf,
        _ => Refusal::FieldName,
    }
}

/// The fields of a trailer section, whose bytes end in an empty line (RFC 9112 section 7.1.2).
pub fn trailer_fields(bytes: &[u8], limits: &Limits) -> Result<Fields, Refusal> {
    let mut fields = Fields::default();
    match Cursor::default().fields(bytes, limits, &mut fields)? {
        Progress::Complete(_) => Ok(fields),
        Progress::Partial => Err(Refusal::Trailer),
    }
}

/// Bytes of the empty lines that `bytes` begin with. Before a request line they are to be ignored (RFC 9112 section 2.2).
#[inline]
pub fn empty_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let [b'\r', b'\n', next @ ..] = rest {
        rest = next;
    }
    bytes.len() - rest.len()
}

/// The version of a message: `HTTP/1.` and a digit, of which only 0 makes a difference.
fn minor_version(version: &[u8]) -> Result<u8, Refusal> {
    match version {
        b"HTTP/1.0" => Ok(0),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major == b'1' {
                Ok(1)
            } else {
                Err(Refusal::VersionUnsupported)
            }
        }
        _ => Err(Refusal::Version),
    }
}

/// A request's head. One value is used again for request after request: [`RequestHead::clear`] starts the next.
#[derive(Debug, Default)]
pub struct RequestHead {
    /// Where the method stands.
    pub method: Span,
    /// Where the target stands.
    pub target: Span,
    /// 0 or 1.
    pub minor: u8,
    /// The fields in the order they came.
    pub fields: Fields,
    cursor: Cursor,
}

impl RequestHead {
    /// Forgets the last head.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.method = Span::default();
        self.target = Span::default();
        self.minor = 1;
        self.cursor = Cursor::default();
    }

    /// Parses as much of the head as `bytes` hold. Call again with the same bytes and more until it is complete. When a head is refused,
    /// what had been read of it stands: the method tells whether the answer may have content. [`empty_lines`] are no part of it.
    #[inline]
    pub fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<Progress, Refusal> {
        let started = self.cursor.started
            || self.cursor.is_new() && self.usual_line(limits.window(bytes), limits).is_some();
        if !started && self.any_line(bytes, limits)? == Progress::Partial {
            return Ok(Progress::Partial);
        }
        self.cursor.fields(bytes, limits, &mut self.fields)
    }

    /// Reads a request line as nearly all are, in one pass. `None` when it is another, or has not come whole.
    #[inline]
    fn usual_line(&mut self, window: &[u8], limits: &Limits) -> Option<()> {
        let after_method = after_token(window);
        let target = after_method.strip_prefix(b" ")?;
        let after_target = after_target(target);
        let fields = after_target.strip_prefix(b" HTTP/1.1\r\n")?;
        let method_bytes = window.len() - after_method.len();
        let target_bytes = target.len() - after_target.len();
        if method_bytes == 0 || target_bytes == 0 || target_bytes > limits.target_bytes {
            return None;
        }
        self.method = Span::new(0, method_bytes);
        self.target = Span::new(method_bytes + 1, method_bytes + 1 + target_bytes);
        self.minor = 1;
        self.cursor.start(window.len() - fields.len());
        Some(())
    }

    /// Reads any request line when it has come whole.
    #[cold]
    fn any_line(&mut self, bytes: &[u8], limits: &Limits) -> Result<Progress, Refusal> {
        let line = self.cursor.line(bytes, limits);
        let Some(line) = line.map_err(too_large)? else {
            return self.unfinished_start(bytes, limits);
        };
        self.request_line(line, bytes, limits)?;
        self.cursor.started = true;
        Ok(Progress::Complete(self.cursor.next))
    }

    /// Finds early what can never become a request line, so that its sender need not run into a timeout.
    #[cold]
    fn unfinished_start(&mut self, bytes: &[u8], limits: &Limits) -> Result<Progress, Refusal> {
        const METHOD_BYTES_MAX: usize = 64;
        if bytes.is_empty() {
            return Ok(Progress::Partial);
        }
        let method = bytes.split(|&b| b == b' ').next().unwrap_or_default();
        if !is_token(method) {
            return Err(Refusal::Method);
        }
        self.method = Span::new(0, method.len());
        if bytes.len() - method.len() > limits.target_bytes + METHOD_BYTES_MAX {
            return Err(Refusal::TargetTooLong);
        }
        Ok(Progress::Partial)
    }

    /// `method SP request-target SP HTTP-version` (RFC 9112 section 3).
    fn request_line(&mut self, line: Span, bytes: &[u8], limits: &Limits) -> Result<(), Refusal> {
        let text = line.of(bytes);
        let method_end = text.len() - after_token(text).len();
        if method_end == 0 || text.get(method_end) != Some(&b' ') {
            return Err(if text.contains(&b' ') {
                Refusal::Method
            } else {
                Refusal::RequestLine
            });
        }
        let rest = &text[method_end + 1..];
        let end = memchr::memrchr(b' ', rest).ok_or(Refusal::RequestLine)?;
        let (target, minor) = (&rest[..end], minor_version(&rest[end + 1..]));
        let start = line.start as usize;
        self.method = Span::new(start, start + method_end);
        if target.len() > limits.target_bytes {
            return Err(Refusal::TargetTooLong);
        }
        if target.is_empty() || !after_target(target).is_empty() {
            return Err(Refusal::Target);
        }
        self.minor = minor?;
        let target_start = start + method_end + 1;
        self.target = Span::new(target_start, target_start + target.len());
        Ok(())
    }
}

/// 100 to 999.
#[inline]
fn status_code(digits: [u8; 3]) -> Option<u16> {
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = digits else {
        return None;
    };
    Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
}

/// A response's head. One value is used again for response after response.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// 0 or 1.
    pub minor: u8,
    /// 100 to 999.
    pub status: u16,
    /// Where the reason phrase stands; may be empty.
    pub reason: Span,
    /// The fields in the order they came.
    pub fields: Fields,
    cursor: Cursor,
}

impl ResponseHead {
    /// Forgets the last head.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.cursor = Cursor::default();
    }

    /// Parses as much of the head as `bytes` hold. Call again with the same bytes and more until it is complete.
    #[inline]
    pub fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<Progress, Refusal> {
        let started = self.cursor.started
            || self.cursor.is_new() && self.usual_line(limits.window(bytes)).is_some();
        if !started && self.any_line(bytes, limits)? == Progress::Partial {
            return Ok(Progress::Partial);
        }
        self.cursor.fields(bytes, limits, &mut self.fields)
    }

    /// Reads a status line as nearly all are, in one pass. `None` when it is another, or has not come whole.
    #[inline]
    fn usual_line(&mut self, window: &[u8]) -> Option<()> {
        let (status, reason) = window.strip_prefix(b"HTTP/1.1 ")?.split_first_chunk()?;
        let status = status_code(*status)?;
        let reason = reason.strip_prefix(b" ")?;
        let after_reason = after_value(reason);
        let fields = after_reason.strip_prefix(b"\r\n")?;
        self.minor = 1;
        self.status = status;
        self.reason = Span::new(
            window.len() - reason.len(),
            window.len() - after_reason.len(),
        );
        self.cursor.start(window.len() - fields.len());
        Some(())
    }

    /// Reads any status line when it has come whole.
    #[cold]
    fn any_line(&mut self, bytes: &[u8], limits: &Limits) -> Result<Progress, Refusal> {
        let Some(line) = self.cursor.line(bytes, limits)? else {
            let begins_well = bytes.iter().zip(b"HTTP/").all(|(a, b)| a == b);
            return if begins_well {
                Ok(Progress::Partial)
            } else {
                Err(Refusal::StatusLine)
            };
        };
        self.status_line(line, bytes)?;
        self.cursor.started = true;
        Ok(Progress::Complete(self.cursor.next))
    }

    /// `HTTP-version SP status-code [SP reason-phrase]` (RFC 9112 section 4; some servers leave the second space off with the phrase).
    fn status_line(&mut self, line: Span, bytes: &[u8]) -> Result<(), Refusal> {
        let text = line.of(bytes);
        let (version, rest) = text.split_at_checked(8).ok_or(Refusal::StatusLine)?;
        self.minor = minor_version(version)?;
        let [b' ', a, b, c, reason @ ..] = rest else {
            return Err(Refusal::StatusLine);
        };
        let status = status_code([*a, *b, *c]).ok_or(Refusal::StatusLine)?;
        if !matches!(reason.first(), None | Some(b' ')) || !is_field_value(reason) {
            return Err(Refusal::StatusLine);
        }
        self.status = status;
        let end = line.end();
        self.reason = Span::new(end - reason.len().saturating_sub(1), end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head_bytes: 1024,
        fields: 8,
        target_bytes: 100,
    };

    fn request(bytes: &[u8]) -> Result<Progress, Refusal> {
        RequestHead::default().parse(bytes, &LIMITS)
    }

    fn response(bytes: &[u8]) -> Result<Progress, Refusal> {
        ResponseHead::default().parse(bytes, &LIMITS)
    }

    #[test]
    fn a_request_is_the_same_whole_and_byte_by_byte() {
        let bytes = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nX-Pad: \t v w\t \r\n\r\nbody";
        let mut head = RequestHead::default();
        for end in 0..bytes.len() - 4 {
            assert_eq!(
                head.parse(&bytes[..end], &LIMITS),
                Ok(Progress::Partial),
                "at {end}"
            );
        }
        assert_eq!(
            head.parse(bytes, &LIMITS),
            Ok(Progress::Complete(bytes.len() - 4))
        );
        let mut whole = RequestHead::default();
        assert_eq!(
            whole.parse(bytes, &LIMITS),
            Ok(Progress::Complete(bytes.len() - 4))
        );
        assert_eq!(whole.fields, head.fields);
        assert_eq!(
            (whole.method.of(bytes), whole.target.of(bytes), whole.minor),
            (&b"POST"[..], &b"/a?b=c"[..], 1)
        );
        let values: Vec<&[u8]> = whole.fields.iter().map(|f| f.value.of(bytes)).collect();
        assert_eq!(values, [&b"x"[..], b"", b"v w"]);
    }

    #[test]
    fn empty_lines_are_whole_and_at_the_start() {
        for (bytes, expected) in [
            (&b""[..], 0),
            (b"\r", 0),
            (b"\n\r\n", 0),
            (b"\r\n", 2),
            (b"\r\n\r\n\r", 4),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", 4),
            (b"GET / HTTP/1.1\r\n\r\n", 0),
        ] {
            assert_eq!(empty_lines(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn requests_that_are_refused() {
        let cases: &[(&[u8], Refusal)] = &[
            (b"GET / HTTP/1.1\n\n", Refusal::BareLf),
            (b"\n", Refusal::BareLf),
            (b"GET / HTTP/1.1\r\nHost: x\n\r\n", Refusal::BareLf),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Refusal::BareCr),
            (b"GET /\r\n\r\n", Refusal::RequestLine),
            (b"GET\r\n\r\n", Refusal::RequestLine),
            (b"GET  / HTTP/1.1\r\n\r\n", Refusal::Target),
            (b"GET / /x HTTP/1.1\r\n\r\n", Refusal::Target),
            (b"GET /\x00 HTTP/1.1\r\n\r\n", Refusal::Target),
            (b"GET /\xff HTTP/1.1\r\n\r\n", Refusal::Target),
            (b"GET /#a HTTP/1.1\r\n\r\n", Refusal::Target),
            (b"G@T / HTTP/1.1\r\n\r\n", Refusal::Method),
            (b" GET / HTTP/1.1\r\n\r\n", Refusal::Method),
            (b"\r\nGET / HTTP/1.1\r\n\r\n", Refusal::RequestLine),
            (b"\rGET", Refusal::Method),
            (b"GET / http/1.1\r\n\r\n", Refusal::Version),
            (b"GET / HTTP/1.10\r\n\r\n", Refusal::Version),
            (b"GET / HTTP/11\r\n\r\n", Refusal::Version),
            (b"PRI * HTTP/2.0\r\n\r\n", Refusal::VersionUnsupported),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", Refusal::FieldName),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", Refusal::FieldName),
            (b"GET / HTTP/1.1\r\nAb\r\n\r\n", Refusal::FieldName),
            (b"GET / HTTP/1.1\r\nA\x80: b\r\n\r\n", Refusal::FieldName),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Refusal::Folding),
            (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", Refusal::Folding),
            (b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", Refusal::FieldValue),
            (b"GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", Refusal::FieldValue),
            (b"\x16\x03\x01\x02\x00", Refusal::Method),
        ];
        for (bytes, refusal) in cases {
            assert_eq!(request(bytes), Err(*refusal), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn limits() {
        let long_target = [b"GET /".as_slice(), &[b'a'; 100], b" HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(request(&long_target), Err(Refusal::TargetTooLong));
        assert_eq!(
            request(&[b"GET /".as_slice(), &[b'a'; 300]].concat()),
            Err(Refusal::TargetTooLong)
        );
        let many = [
            b"GET / HTTP/1.1\r\n".as_slice(),
            &b"A: b\r\n".repeat(9),
            b"\r\n",
        ]
        .concat();
        assert_eq!(request(&many), Err(Refusal::TooManyFields));
        let large = [
            b"GET / HTTP/1.1\r\nA: ".as_slice(),
            &[b'a'; 1100],
            b"\r\n\r\n",
        ]
        .concat();
        assert_eq!(request(&large), Err(Refusal::HeadTooLarge));
        let fits = [
            b"GET / HTTP/1.1\r\nA: ".as_slice(),
            &[b'a'; 1024 - 23],
            b"\r\n\r\n",
        ]
        .concat();
        assert_eq!(
            (fits.len(), request(&fits)),
            (1024, Ok(Progress::Complete(1024)))
        );
    }

    #[test]
    fn responses() {
        let bytes = b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n";
        let mut head = ResponseHead::default();
        for end in 0..bytes.len() {
            assert_eq!(head.parse(&bytes[..end], &LIMITS), Ok(Progress::Partial));
        }
        assert_eq!(
            head.parse(bytes, &LIMITS),
            Ok(Progress::Complete(bytes.len()))
        );
        assert_eq!(
            (head.status, head.reason.of(bytes), head.minor),
            (404, &b"Not Found"[..], 1)
        );
        for fine in [
            &b"HTTP/1.0 200\r\n\r\n"[..],
            b"HTTP/1.1 200 \r\n\r\n",
            b"HTTP/1.1 200 \xe9t\xe9\r\n\r\n",
        ] {
            assert!(
                matches!(response(fine), Ok(Progress::Complete(_))),
                "{}",
                fine.escape_ascii()
            );
        }
        for bad in [
            &b"HTTP/1.1 20 OK\r\n\r\n"[..],
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"HTTP/1.1 200 O\x00K\r\n\r\n",
            b"ICY 200 OK",
            b"HTTX",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert_eq!(
                response(bad),
                Err(Refusal::StatusLine),
                "{}",
                bad.escape_ascii()
            );
        }
        assert_eq!(
            response(b"HTTP/2.0 200 OK\r\n\r\n"),
            Err(Refusal::VersionUnsupported)
        );
    }
}
