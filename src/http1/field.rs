//! Field names that the proxy itself acts on, and where a field's parts stand.

use std::ops::{Deref, Range};

/// A field that the proxy acts on, or [`Name::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the fields' own
pub enum Name {
    Accept,
    Connection,
    ContentLength,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRealIp,
    XServedBy,
    /// One of the names above with `_` for `-`: CGI and its like cannot tell them apart (RFC 3875 section 4.1.18).
    Lookalike,
    Other,
}

/// What a name of `N` bytes can only be, how the RFCs write that, and whether it is written so.
#[inline]
fn candidate<const N: usize>(
    name: Name,
    text: &'static [u8; N],
    bytes: &[u8],
) -> (Name, &'static [u8], bool) {
    // With a length that the compiler knows a comparison is a few instructions and no call.
    (name, text, bytes == text)
}

impl Name {
    /// Recognises a name without regard to case.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        // The length and the first letter leave one candidate, so that most fields cost no comparison.
        let Some(&first) = bytes.first() else {
            return Self::Other;
        };
        let (name, text, is_exact) = match (bytes.len(), first | 0x20) {
            (2, b't') => candidate(Self::Te, b"TE", bytes),
            (3, b'v') => candidate(Self::Via, b"Via", bytes),
            (4, b'h') => candidate(Self::Host, b"Host", bytes),
            (4, b'd') => candidate(Self::Date, b"Date", bytes),
            (6, b'a') => candidate(Self::Accept, b"Accept", bytes),
            (6, b'c') => candidate(Self::Cookie, b"Cookie", bytes),
            (6, b'e') => candidate(Self::Expect, b"Expect", bytes),
            (7, b'r') => candidate(Self::Referer, b"Referer", bytes),
            (7, b't') => candidate(Self::Trailer, b"Trailer", bytes),
            (7, b'u') => candidate(Self::Upgrade, b"Upgrade", bytes),
            (9, b'f') => candidate(Self::Forwarded, b"Forwarded", bytes),
            (9, b'x') => candidate(Self::XRealIp, b"X-Real-IP", bytes),
            (10, b'c') => candidate(Self::Connection, b"Connection", bytes),
            (10, b'k') => candidate(Self::KeepAlive, b"Keep-Alive", bytes),
            (10, b'u') => candidate(Self::UserAgent, b"User-Agent", bytes),
            (11, b'x') => candidate(Self::XServedBy, b"X-Served-By", bytes),
            (14, b'c') => candidate(Self::ContentLength, b"Content-Length", bytes),
            (15, b'x') => candidate(Self::XForwardedFor, b"X-Forwarded-For", bytes),
            (16, b'x') => candidate(Self::XForwardedHost, b"X-Forwarded-Host", bytes),
            (16, b'p') => candidate(Self::ProxyConnection, b"Proxy-Connection", bytes),
            (17, b't') => candidate(Self::TransferEncoding, b"Transfer-Encoding", bytes),
            (17, b'x') => candidate(Self::XForwardedProto, b"X-Forwarded-Proto", bytes),
            (18, b'p') => candidate(Self::ProxyAuthenticate, b"Proxy-Authenticate", bytes),
            (19, b'p') => candidate(Self::ProxyAuthorization, b"Proxy-Authorization", bytes),
            _ => return Self::Other,
        };
        if is_exact {
            return name;
        }
        name.written_as(bytes, text)
    }

    /// This name when `bytes` are `text` in other case; they have the same length.
    #[inline(never)] // its loops would keep registers busy that every field needs
    fn written_as(self, bytes: &[u8], text: &[u8]) -> Self {
        if bytes.eq_ignore_ascii_case(text) {
            return self;
        }
        let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-');
        if bytes.iter().zip(text).all(same) {
            Self::Lookalike
        } else {
            Self::Other
        }
    }

    /// Fields that a Connection field cannot take out: routing, framing, and those that say who the client is.
    pub const fn is_protected(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::ContentLength
                | Self::TransferEncoding
                | Self::Forwarded
                | Self::Via
                | Self::XForwardedFor
                | Self::XForwardedHost
                | Self::XForwardedProto
                | Self::XRealIp
        )
    }

    /// Fields that belong to one connection and never travel on as they came (RFC 9110 section 7.6.1).
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }
}

/// Where one part stands in the head's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The part from `start` to `end` (exclusive).
    #[inline]
    pub const fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            len: (end - start) as u32,
        }
    }

    /// The bytes it names in `bytes`.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end()]
    }

    /// Offset of the byte behind it.
    #[inline]
    pub const fn end(self) -> usize {
        // Not added up as they are: so that the compiler sees that it is no less than the start.
        self.start as usize + self.len as usize
    }
}

/// One field line: where its name and value stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Which field it is.
    pub kind: Name,
    /// Where the name stands.
    pub name: Span,
    /// Where the value stands, white space around it left off.
    pub value: Span,
    /// The line reads `name: value` without any other white space, as we write it.
    pub is_plain: bool,
}

impl Field {
    /// Where a plain line stands, with its end.
    #[inline]
    pub const fn line(&self) -> Range<usize> {
        self.name.start as usize..self.value.end() + 2
    }
}

/// The fields of a head in the order they came, and which names are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    all: Vec<Field>,
    /// One bit a [`Name`]: most names are looked for in vain, which must not cost a walk through a long head.
    seen: u32,
}

impl Fields {
    /// Adds one at the end.
    #[inline]
    pub fn push(&mut self, field: Field) {
        self.seen |= 1 << field.kind as u32;
        self.all.push(field);
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.all.clear();
        self.seen = 0;
    }

    /// Whether there is one with this name.
    #[inline]
    pub const fn has(&self, name: Name) -> bool {
        self.seen & 1 << name as u32 != 0
    }

    /// Those with this name.
    #[inline]
    pub fn named(&self, name: Name) -> impl DoubleEndedIterator<Item = &Field> {
        let all = if self.has(name) { &self.all[..] } else { &[] };
        all.iter().filter(move |field| field.kind == name)
    }
}

impl Deref for Fields {
    type Target = [Field];

    fn deref(&self) -> &[Field] {
        &self.all
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a Field;
    type IntoIter = std::slice::Iter<'a, Field>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), empty ones left out.
pub fn list(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(super::class::trim)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_lookalikes_are_not() {
        assert_eq!(Name::of(b"Content-Length"), Name::ContentLength);
        assert_eq!(Name::of(b"TRANSFER-ENCODING"), Name::TransferEncoding);
        assert_eq!(Name::of(b"x-Forwarded-For"), Name::XForwardedFor);
        for other in [
            &b""[..],
            b"Transfer-Encodin",
            b"Hosts",
            b"X-Forwarded-Foo",
            b"\x48\xc3\xb4st",
        ] {
            assert_eq!(Name::of(other), Name::Other, "{other:?}");
        }
    }

    #[test]
    fn underscores_do_not_hide_a_name() {
        for name in [
            &b"Content_Length"[..],
            b"x-forwarded_FOR",
            b"X_Real_IP",
            b"transfer_encoding",
        ] {
            assert_eq!(Name::of(name), Name::Lookalike, "{name:?}");
        }
        assert_eq!(Name::of(b"Content_Lengt_"), Name::Other);
    }

    #[test]
    fn lists_skip_empty_members() {
        let members: Vec<&[u8]> = list(b" a,, b\t, ,c").collect();
        assert_eq!(members, [&b"a"[..], b"b", b"c"]);
    }
}
