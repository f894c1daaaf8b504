//! A second reader of HTTP/1.1 messages, as strict as RFC 9112 allows and written without a look at the proxy's own.
//!
//! It reads whole messages only and cares for nothing but being plainly right: every line is found by its CRLF, every byte is checked.

/// A name and its value without the white space around it.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A start line and the fields behind it.
#[derive(Debug)]
pub struct Head<'a> {
    pub start: Vec<&'a [u8]>,
    pub fields: Vec<Pair<'a>>,
    /// Bytes of the head, its empty line included.
    pub len: usize,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// A chunked body.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunked<'a> {
    Complete {
        data: Vec<u8>,
        /// The trailer section with its empty line, as it stands.
        trailer: &'a [u8],
        len: usize,
        extended: bool,
    },
    /// All well so far, but not all there.
    Incomplete(Vec<u8>),
    Invalid,
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|w| w == wanted)
}

/// The line at the start of `bytes` and what follows its CRLF; `None` without one or with a CR or LF inside.
fn line(bytes: &[u8]) -> Option<Pair<'_>> {
    let end = find(bytes, b"\r\n")?;
    let text = &bytes[..end];
    (!text.iter().any(|b| matches!(b, b'\r' | b'\n'))).then_some((text, &bytes[end + 2..]))
}

fn is_tchar(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| is_tchar(*b))
}

fn is_text(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|b| matches!(b, b'\t' | 0x20..=0x7e | 0x80..=0xff))
}

fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let Some(first) = bytes.iter().position(|b| !blank(b)) else {
        return b"";
    };
    let last = bytes.iter().rposition(|b| !blank(b)).unwrap_or(first);
    &bytes[first..=last]
}

/// Field lines up to the empty one, and what follows it.
pub fn fields(mut bytes: &[u8]) -> Option<(Vec<Pair<'_>>, &[u8])> {
    let mut fields = Vec::new();
    loop {
        let (text, rest) = line(bytes)?;
        if text.is_empty() {
            return Some((fields, rest));
        }
        let colon = text.iter().position(|b| *b == b':')?;
        let (name, value) = (&text[..colon], trim(&text[colon + 1..]));
        if !is_token(name) || !is_text(value) {
            return None;
        }
        fields.push((name, value));
        bytes = rest;
    }
}

/// A request's head: `[method, target, version]` and fields.
pub fn request(bytes: &[u8]) -> Option<Head<'_>> {
    let (start, rest) = line(bytes)?;
    let start: Vec<&[u8]> = start.split(|b| *b == b' ').collect();
    let [method, target, version] = start[..] else {
        return None;
    };
    let visible = |b: &u8| matches!(b, 0x21..=0x7e) && *b != b'#';
    if !is_token(method) || target.is_empty() || !target.iter().all(visible) || !is_version(version)
    {
        return None;
    }
    head(start, rest, bytes.len())
}

/// A response's head: `[version, status, reason]` and fields.
pub fn response(bytes: &[u8]) -> Option<Head<'_>> {
    let (start, rest) = line(bytes)?;
    let start: Vec<&[u8]> = start.splitn(3, |b| *b == b' ').collect();
    let (version, status) = (*start.first()?, *start.get(1)?);
    let status_fits = matches!(status, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']);
    if !is_version(version) || !status_fits || !start.iter().all(|part| is_text(part)) {
        return None;
    }
    head(start, rest, bytes.len())
}

fn is_version(version: &[u8]) -> bool {
    matches!(version, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit())
}

fn head<'a>(start: Vec<&'a [u8]>, rest: &'a [u8], whole: usize) -> Option<Head<'a>> {
    let (fields, body) = fields(rest)?;
    Some(Head {
        start,
        fields,
        len: whole - body.len(),
    })
}

impl<'a> Head<'a> {
    /// The values under `name`, which is in lower case.
    pub fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let same = |(n, _): &&Pair| n.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(same).map(|(_, v)| *v).collect()
    }

    /// The members of all lists under `name`.
    pub fn members(&self, name: &str) -> Vec<&'a [u8]> {
        self.values(name)
            .into_iter()
            .flat_map(|value| value.split(|b| *b == b','))
            .map(trim)
            .filter(|member| !member.is_empty())
            .collect()
    }

    /// What the framing fields say; `None` when there is the least doubt (RFC 9112 section 6.3).
    pub fn framing(&self) -> Option<Framing> {
        let lengths = self.values("content-length");
        let codings = self.values("transfer-encoding");
        match (&lengths[..], &codings[..]) {
            ([], []) => Some(Framing::None),
            ([length], []) if length.iter().all(u8::is_ascii_digit) => {
                let length = std::str::from_utf8(length).ok()?.parse().ok()?;
                Some(Framing::Length(length))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Some(Framing::Chunked),
            _ => None,
        }
    }
}

/// Reads a chunked body to its end (RFC 9112 section 7.1).
pub fn chunked(bytes: &[u8]) -> Chunked<'_> {
    let (mut rest, mut data, mut extended) = (bytes, Vec::new(), false);
    loop {
        if find(rest, b"\r\n").is_none() {
            return Chunked::Incomplete(data);
        }
        let Some((size, has_extension, after)) = line(rest).and_then(size_line) else {
            return Chunked::Invalid;
        };
        extended |= has_extension;
        if size == 0 {
            return match trailer(after) {
                Trailer::Complete(trailer) => Chunked::Complete {
                    data,
                    trailer,
                    len: bytes.len() - after.len() + trailer.len(),
                    extended,
                },
                Trailer::Incomplete => Chunked::Incomplete(data),
                Trailer::Invalid => Chunked::Invalid,
            };
        }
        let there = usize::try_from(size).map_or(after.len(), |size| size.min(after.len()));
        data.extend_from_slice(&after[..there]);
        if (there as u64) < size || after.len() < there + 2 {
            return Chunked::Incomplete(data);
        }
        if &after[there..there + 2] != b"\r\n" {
            return Chunked::Invalid;
        }
        rest = &after[there + 2..];
    }
}

/// `1*HEXDIG [*WSP ";" extension]`: the size, whether there is an extension, and what follows the line.
fn size_line((text, rest): Pair<'_>) -> Option<(u64, bool, &[u8])> {
    let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, extension) = text.split_at(digits);
    if digits == 0 || digits > 16 {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
    let fits = extension.is_empty() || trim(extension).first() == Some(&b';') && is_text(extension);
    fits.then_some((size, !extension.is_empty(), rest))
}

enum Trailer<'a> {
    Complete(&'a [u8]),
    Incomplete,
    Invalid,
}

/// Lines up to the empty one. What stands in them is for the caller to check.
fn trailer(bytes: &[u8]) -> Trailer<'_> {
    let end = if bytes.starts_with(b"\r\n") {
        Some(2)
    } else {
        find(bytes, b"\r\n\r\n").map(|at| at + 4)
    };
    let section = &bytes[..end.unwrap_or(bytes.len())];
    let bare = section
        .iter()
        .enumerate()
        .any(|(at, b)| *b == b'\n' && (at == 0 || section[at - 1] != b'\r'));
    match (bare, end) {
        (true, _) => Trailer::Invalid,
        (false, Some(end)) => Trailer::Complete(&bytes[..end]),
        (false, None) => Trailer::Incomplete,
    }
}
