//! Field names that the proxy itself acts on, and where a field's parts stand.

use std::ops::Deref;

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

impl Name {
    /// Recognises a name without regard to case.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        // The length and the first letter leave one candidate, so that most fields cost no comparison.
        let Some(&first) = bytes.first() else {
            return Self::Other;
        };
        let (candidate, text): (Self, &[u8]) = match (bytes.len(), first | 0x20) {
            (2, b't') => (Self::Te, b"TE"),
            (3, b'v') => (Self::Via, b"Via"),
            (4, b'h') => (Self::Host, b"Host"),
            (4, b'd') => (Self::Date, b"Date"),
            (6, b'a') => (Self::Accept, b"Accept"),
            (6, b'c') => (Self::Cookie, b"Cookie"),
            (6, b'e') => (Self::Expect, b"Expect"),
            (7, b'r') => (Self::Referer, b"Referer"),
            (7, b't') => (Self::Trailer, b"Trailer"),
            (7, b'u') => (Self::Upgrade, b"Upgrade"),
            (9, b'f') => (Self::Forwarded, b"Forwarded"),
            (9, b'x') => (Self::XRealIp, b"X-Real-IP"),
            (10, b'c') => (Self::Connection, b"Connection"),
            (10, b'k') => (Self::KeepAlive, b"Keep-Alive"),
            (10, b'u') => (Self::UserAgent, b"User-Agent"),
            (11, b'x') => (Self::XServedBy, b"X-Served-By"),
            (14, b'c') => (Self::ContentLength, b"Content-Length"),
            (15, b'x') => (Self::XForwardedFor, b"X-Forwarded-For"),
            (16, b'x') => (Self::XForwardedHost, b"X-Forwarded-Host"),
            (16, b'p') => (Self::ProxyConnection, b"Proxy-Connection"),
            (17, b't') => (Self::TransferEncoding, b"Transfer-Encoding"),
            (17, b'x') => (Self::XForwardedProto, b"X-Forwarded-Proto"),
            (18, b'p') => (Self::ProxyAuthenticate, b"Proxy-Authenticate"),
            (19, b'p') => (Self::ProxyAuthorization, b"Proxy-Authorization"),
            _ => return Self::Other,
        };
        // Nearly all senders write a name as the RFCs do or in lower case.
        if bytes == text || bytes.eq_ignore_ascii_case(text) {
            candidate
        } else {
            Self::unlike(bytes, text)
        }
    }

    /// A name of the same length as `text` that differs from it.
    #[cold]
    fn unlike(bytes: &[u8], text: &[u8]) -> Self {
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
        &bytes[self.start as usize..(self.start + self.len) as usize]
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

    /// How many there is room for without another allocation.
    pub const fn capacity(&self) -> usize {
        self.all.capacity()
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
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
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
