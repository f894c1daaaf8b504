//! The four forms of a request target (RFC 9112 section 3.2).

use std::borrow::Cow;

use super::class::after_name;
use super::refusal::Refusal;

/// A request target, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The authority of absolute-form; it replaces Host (RFC 9112 section 3.2.2).
    pub authority: Option<&'a [u8]>,
    /// Path and query as they go on: begins with `/`, or is `*`.
    pub path_and_query: Cow<'a, [u8]>,
}

impl<'a> Target<'a> {
    /// Reads the target of a request with `method`. Authority-form belongs to CONNECT, which has no path: it is for the caller to refuse first.
    pub fn parse(method: &[u8], target: &'a [u8]) -> Result<Self, Refusal> {
        match target {
            [b'/', ..] => Ok(Self {
                authority: None,
                path_and_query: Cow::Borrowed(target),
            }),
            b"*" if method == b"OPTIONS" => Ok(Self {
                authority: None,
                path_and_query: Cow::Borrowed(target),
            }),
            _ => Self::absolute(method, target),
        }
    }

    /// `http://authority/path?query`.
    #[cold]
    fn absolute(method: &[u8], target: &'a [u8]) -> Result<Self, Refusal> {
        let scheme_end = memchr::memmem::find(target, b"://").ok_or(Refusal::Target)?;
        let scheme = &target[..scheme_end];
        if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
            return Err(Refusal::Target);
        }
        let rest = &target[scheme_end + 3..];
        let authority_end = rest
            .iter()
            .position(|b| matches!(b, b'/' | b'?'))
            .unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_end);
        // An empty host and user information are both refused (RFC 9110 sections 4.2.1 and 4.2.4).
        if host_of(authority).is_empty() || !is_authority(authority) {
            return Err(Refusal::Target);
        }
        let path_and_query = match path.first() {
            Some(b'/') => Cow::Borrowed(path),
            // RFC 9112 section 3.2.1: an empty path is sent as `/`.
            Some(_) => Cow::Owned([b"/", path].concat()),
            // RFC 9112 section 3.2.4: an OPTIONS request without a path is about the server as a whole.
            None if method == b"OPTIONS" => Cow::Borrowed(&b"*"[..]),
            None => Cow::Borrowed(&b"/"[..]),
        };
        Ok(Self {
            authority: Some(authority),
            path_and_query,
        })
    }

    /// The path without its query.
    pub fn path(&self) -> &[u8] {
        path_of(&self.path_and_query)
    }
}

/// A path without its query.
pub fn path_of(path_and_query: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    &path_and_query[..end]
}

/// Whether `value` is `uri-host [":" port]` (RFC 9110 section 7.2). An empty one is: a URI without authority has it.
pub fn is_authority(value: &[u8]) -> bool {
    match after_host(value) {
        Some([]) => true,
        Some([b':', port @ ..]) => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// What follows the host that `value` begins with: a name, or an address in brackets.
fn after_host(value: &[u8]) -> Option<&[u8]> {
    let [b'[', rest @ ..] = value else {
        return Some(after_name(value));
    };
    let end = rest.iter().position(|b| *b == b']')?;
    let (address, rest) = rest.split_at(end);
    let is_address_byte = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
    let is_address = end > 0 && address.iter().all(is_address_byte);
    is_address.then(|| &rest[1..])
}

/// The host of an authority, its port left off; brackets of an IPv6 address are kept.
pub fn host_of(authority: &[u8]) -> &[u8] {
    let from = if authority.first() == Some(&b'[') {
        memchr::memchr(b']', authority).unwrap_or(0)
    } else {
        0
    };
    let end = memchr::memchr(b':', &authority[from..]).map_or(authority.len(), |at| from + at);
    &authority[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        // (method, target, authority, path and query)
        type Case<'a> = (&'a [u8], &'a [u8], Option<&'a [u8]>, &'a [u8]);
        let cases: &[Case<'_>] = &[
            (b"GET", b"/a?b", None, b"/a?b"),
            (b"OPTIONS", b"*", None, b"*"),
            (b"GET", b"http://h:8/p?q", Some(b"h:8"), b"/p?q"),
            (b"GET", b"HTTPS://h", Some(b"h"), b"/"),
            (b"OPTIONS", b"http://h", Some(b"h"), b"*"),
            (b"GET", b"http://h?q", Some(b"h"), b"/?q"),
            (b"GET", b"//h/p", None, b"//h/p"),
        ];
        for (method, target, authority, path_and_query) in cases {
            let expected = Target {
                authority: *authority,
                path_and_query: Cow::Borrowed(path_and_query),
            };
            assert_eq!(
                Target::parse(method, target),
                Ok(expected),
                "{}",
                target.escape_ascii()
            );
        }
        for bad in [
            &b"*"[..],
            b"h:80",
            b"ftp://h/",
            b"http:///p",
            b"http://:80/p",
            b"http://u@h/",
            b"a/b",
            b"http://[::1/",
        ] {
            assert_eq!(
                Target::parse(b"GET", bad),
                Err(Refusal::Target),
                "{}",
                bad.escape_ascii()
            );
        }
    }

    #[test]
    fn authorities() {
        for good in [
            &b""[..],
            b"h",
            b"h:",
            b"h:80",
            b"[::1]",
            b"[::1]:80",
            b"1.2.3.4:5",
            b"a_b-c.d",
        ] {
            assert!(is_authority(good), "{}", good.escape_ascii());
        }
        for bad in [
            &b"h:x"[..],
            b"h:80:80",
            b"[::1",
            b"[]",
            b"::1",
            b"a b",
            b"u@h",
            b"h/p",
            b"h:123456",
            b"[::1]x",
            b"a[b",
            b"h,i",
        ] {
            assert!(!is_authority(bad), "{}", bad.escape_ascii());
        }
        assert_eq!(host_of(b"[::1]:80"), b"[::1]");
        assert_eq!(host_of(b"h:80"), b"h");
    }
}
