//! Which upstream a request goes to.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::config::{HostPattern, Route};
use crate::http1::target::{host_of, path_of};

/// All routes, the most specific first.
#[derive(Debug)]
pub struct Router {
    /// With the path as requests' paths are compared.
    routes: Vec<(Vec<u8>, Route)>,
    /// The one route that takes everything, when there is no other.
    only: bool,
}

impl Router {
    /// Puts the routes into the order of precedence: exact host, longest wildcard, any host; then the longest path.
    pub fn new(routes: &[Route]) -> Self {
        let mut routes = routes.to_vec();
        routes.sort_by_key(|route| {
            let host = match &route.host {
                HostPattern::Exact(_) | HostPattern::Address(_) => usize::MAX,
                HostPattern::Suffix(suffix) => suffix.len(),
                HostPattern::Any => 0,
            };
            std::cmp::Reverse((host, route.path.trim_end_matches('/').len()))
        });
        let only =
            matches!(&routes[..], [Route { host: HostPattern::Any, path, .. }] if path == "/");
        let with_path = |route: Route| (canonical(route.path.as_bytes()).into_owned(), route);
        Self {
            routes: routes.into_iter().map(with_path).collect(),
            only,
        }
    }

    /// The route of a request for `path_and_query` at `authority`.
    #[inline]
    pub fn find(&self, authority: &[u8], path_and_query: &[u8]) -> Option<&Route> {
        if self.only {
            self.routes.first().map(|(_, route)| route)
        } else {
            self.search(host_of(authority), path_of(path_and_query))
        }
    }

    fn search(&self, host: &[u8], path: &[u8]) -> Option<&Route> {
        let path = canonical(path);
        let host = host.strip_suffix(b".").unwrap_or(host);
        let address = ipv6(host);
        let takes_host = |pattern: &HostPattern| match pattern {
            HostPattern::Any => true,
            HostPattern::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            HostPattern::Address(own) => address == Some(*own),
            // At least one byte stands for the asterisk.
            HostPattern::Suffix(suffix) => {
                host.len() > suffix.len()
                    && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
            }
        };
        let mut routes = self.routes.iter();
        let found =
            routes.find(|(prefix, route)| takes_host(&route.host) && takes_path(prefix, &path));
        found.map(|(_, route)| route)
    }
}

/// The address in brackets, which has more than one form (RFC 4291 section 2.2).
fn ipv6(host: &[u8]) -> Option<Ipv6Addr> {
    let text = host.strip_prefix(b"[")?.strip_suffix(b"]")?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether `prefix` leads `path` and ends at a segment's end.
fn takes_path(prefix: &[u8], path: &[u8]) -> bool {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    path.strip_prefix(prefix)
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        || prefix.is_empty()
}

/// The path without `prefix`; `None` when it does not begin with it (it may be written in another way). Only the case of the digits of
/// escapes does not matter (RFC 3986 section 2.1).
pub fn strip<'a>(prefix: &str, path_and_query: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    if prefix.is_empty() {
        // It leads every path, and `*`, which is none.
        return Some(Cow::Borrowed(path_and_query));
    }
    let (start, rest) = path_and_query.split_at_checked(prefix.len())?;
    if start != prefix && !differ_in_escapes(start, prefix) {
        return None;
    }
    match rest.first() {
        Some(b'/') => Some(Cow::Borrowed(rest)),
        None | Some(b'?') => Some(Cow::Owned([b"/", rest].concat())),
        Some(_) => None,
    }
}

/// Whether nothing but the case of the digits of escapes differs.
fn differ_in_escapes(one: &[u8], other: &[u8]) -> bool {
    let mut digits = 0;
    one.iter().zip(other).all(|(one, other)| {
        let escaped = digits > 0;
        digits = if *one == b'%' { 2 } else { digits.max(1) - 1 };
        one == other || escaped && one.eq_ignore_ascii_case(other)
    })
}

/// The path as a server will understand it: percent-encoding taken off (but for slashes, whose is `%2F`), dot segments resolved, slashes
/// merged (RFC 3986 section 6.2.2). Routes are chosen by it, so that another way to write a path does not lead to another route.
fn canonical(path: &[u8]) -> Cow<'_, [u8]> {
    let plain = !path.contains(&b'%') && !path.windows(2).any(|pair| matches!(pair, b"//" | b"/."));
    if plain {
        return Cow::Borrowed(path);
    }
    let decoded = percent_decode(path);
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|&b| b == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut canonical = Vec::with_capacity(decoded.len());
    for segment in &segments {
        canonical.push(b'/');
        canonical.extend_from_slice(segment);
    }
    let last = decoded.rsplit(|&b| b == b'/').next().unwrap_or_default();
    if canonical.is_empty() || matches!(last, b"" | b"." | b"..") {
        canonical.push(b'/');
    }
    Cow::Owned(canonical)
}

fn percent_decode(path: &[u8]) -> Vec<u8> {
    let digit = |at: usize| path.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        match (path[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                match (high * 16 + low) as u8 {
                    // An encoded slash is data, not a separator (RFC 3986 section 2.2).
                    b'/' => decoded.extend_from_slice(b"%2F"),
                    byte => decoded.push(byte),
                }
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: HostPattern, path: &str, upstream: usize) -> Route {
        Route {
            host,
            path: path.to_owned(),
            upstream,
            strip_prefix: false,
        }
    }

    #[test]
    fn the_longest_match_wins() {
        let router = Router::new(&[
            route(HostPattern::Any, "/", 0),
            route(HostPattern::Any, "/api", 1),
            route(HostPattern::Any, "/api/v2/", 2),
            route(HostPattern::Suffix(".example.com".to_owned()), "/", 3),
            route(HostPattern::Suffix(".a.example.com".to_owned()), "/", 4),
            route(HostPattern::Exact("b.example.com".to_owned()), "/x", 5),
        ]);
        let cases: &[(&str, &str, usize)] = &[
            ("h", "/", 0),
            ("h", "/apix", 0),
            ("h", "/api", 1),
            ("h", "/api/v2", 2),
            ("h", "/api/v2/z", 2),
            ("h", "/api/v22", 1),
            ("h", "/api?/v2", 1),
            ("b.example.com:80", "/x?y", 5),
            ("z.EXAMPLE.com", "/api", 3),
            ("example.com", "/", 0),
            ("z.a.example.com.", "/", 4),
            ("B.example.com", "/x/y", 5),
            ("b.example.com", "/y", 3),
            ("h", "/x/../api/y", 1),
            ("h", "//api", 1),
            ("h", "/%61pi", 1),
            ("h", "/api%2fv2", 0),
            ("h", "/../..", 0),
            ("h", "*", 0),
        ];
        for (host, path, upstream) in cases {
            let found = router
                .find(host.as_bytes(), path.as_bytes())
                .map(|route| route.upstream);
            assert_eq!(found, Some(*upstream), "{host} {path}");
        }
        let escaped = Router::new(&[
            route(HostPattern::Any, "/a%20b", 0),
            route(HostPattern::Any, "/c%2fd", 1),
            route(HostPattern::Any, "/%c3%bc", 2),
        ]);
        for (path, upstream) in [
            ("/a%20b/x", 0),
            ("/c%2Fd", 1),
            ("/c%2fd", 1),
            ("/%C3%BC", 2),
        ] {
            let found = escaped.find(b"h", path.as_bytes());
            assert_eq!(found.map(|route| route.upstream), Some(upstream), "{path}");
        }
        assert!(escaped.find(b"h", b"/c/d").is_none());
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let address = HostPattern::Address(address);
        let address = Router::new(&[route(address, "/", 0)]);
        for host in ["[2001:db8::1]", "[2001:DB8::1]:80", "[2001:db8:0::0001]"] {
            assert!(address.find(host.as_bytes(), b"/").is_some(), "{host}");
        }
        assert!(address.find(b"[2001:db8::2]", b"/").is_none());
        let none = Router::new(&[route(HostPattern::Exact("h".to_owned()), "/a", 0)]);
        assert!(none.find(b"h", b"/b").is_none() && none.find(b"i", b"/a").is_none());
    }

    #[test]
    fn prefixes_are_stripped_at_segment_ends() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("/api", "/api/x?q", Some("/x?q")),
            ("/api/", "/api/x", Some("/x")),
            ("/api", "/api", Some("/")),
            ("/api", "/api?q", Some("/?q")),
            ("/", "/x", Some("/x")),
            ("/", "*", Some("*")),
            ("/api", "/%61pi", None),
            ("/api", "/Api/x", None),
            ("/api", "/ap", None),
            ("/%C3%BCab", "/%c3%bcab/x", Some("/x")),
            ("/a%2Fb", "/a%2fb?q", Some("/?q")),
            ("/%C3%BCab", "/%c3%bcAb/x", None),
            ("/%C3%BCab", "/%c3%bcab%", None),
        ];
        for (prefix, path, expected) in cases {
            assert_eq!(
                strip(prefix, path.as_bytes()).as_deref(),
                expected.map(str::as_bytes),
                "{prefix} {path}"
            );
        }
    }

    #[test]
    fn canonical_paths() {
        for (path, expected) in [
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a//", "/a/"),
            ("/.", "/"),
            ("/%2e%2E/a", "/a"),
            ("/a%zz", "/a%zz"),
            ("/a%2f..%2Fb", "/a%2F..%2Fb"),
        ] {
            assert_eq!(canonical(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }
}
