//! Field names that the proxy itself acts on, and where a field's parts stand.

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
            (2, b't') => (Self::Te, b"te"),
            (3, b'v') => (Self::Via, b"via"),
            (4, b'h') => (Self::Host, b"host"),
            (4, b'd') => (Self::Date, b"date"),
            (6, b'a') => (Self::Accept, b"accept"),
            (6, b'c') => (Self::Cookie, b"cookie"),
            (6, b'e') => (Self::Expect, b"expect"),
            (7, b'r') => (Self::Referer, b"referer"),
            (7, b't') => (Self::Trailer, b"trailer"),
            (7, b'u') => (Self::Upgrade, b"upgrade"),
            (9, b'f') => (Self::Forwarded, b"forwarded"),
            (9, b'x') => (Self::XRealIp, b"x-real-ip"),
            (10, b'c') => (Self::Connection, b"connection"),
            (10, b'k') => (Self::KeepAlive, b"keep-alive"),
            (10, b'u') => (Self::UserAgent, b"user-agent"),
            (11, b'x') => (Self::XServedBy, b"x-served-by"),
            (14, b'c') => (Self::ContentLength, b"content-length"),
            (15, b'x') => (Self::XForwardedFor, b"x-forwarded-for"),
            (16, b'x') => (Self::XForwardedHost, b"x-forwarded-host"),
            (16, b'p') => (Self::ProxyConnection, b"proxy-connection"),
            (17, b't') => (Self::TransferEncoding, b"transfer-encoding"),
            (17, b'x') => (Self::XForwardedProto, b"x-forwarded-proto"),
            (18, b'p') => (Self::ProxyAuthenticate, b"proxy-authenticate"),
            (19, b'p') => (Self::ProxyAuthorization, b"proxy-authorization"),
            _ => return Self::Other,
        };
        if bytes.eq_ignore_ascii_case(text) {
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
