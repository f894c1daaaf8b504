//! The key that a hash policy goes by.

use std::net::IpAddr;

use crate::balance::{hash, ip_hash};
use crate::config::HashKey;
use crate::http1::cookie;
use crate::http1::head::RequestHead;
use crate::http1::target::Target;
use crate::upstream::group::HashBy;

/// The request's key; `None` when it does not have the part that counts.
pub(super) fn of(
    by: &HashBy,
    client: IpAddr,
    target: &Target<'_>,
    head: &RequestHead,
    bytes: &[u8],
) -> Option<u64> {
    let part = match by {
        HashBy::Client { v6_prefix } => return Some(ip_hash::key(client, *v6_prefix)),
        HashBy::Part(HashKey::Path) => target.path(),
        HashBy::Part(HashKey::Uri) => &target.path_and_query,
        HashBy::Part(HashKey::Query(name)) => argument(target, name)?,
        HashBy::Part(HashKey::Header(name)) => fields(head, bytes, name).next()?,
        HashBy::Part(HashKey::Cookie(name)) => cookie::find(&head.fields, bytes, name.as_bytes())?,
    };
    Some(hash::key(part))
}

/// The values of the fields of this name.
fn fields<'a>(
    head: &'a RequestHead,
    bytes: &'a [u8],
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    head.fields
        .iter()
        .filter(move |field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))
        .map(move |field| field.value.of(bytes))
}

/// The first argument of this name in the query, as it was sent: `%41` and `A` are two keys.
fn argument<'a>(target: &'a Target<'_>, name: &str) -> Option<&'a [u8]> {
    let query = &target.path_and_query[target.path().len()..];
    let mut pairs = query.strip_prefix(b"?")?.split(|byte| *byte == b'&');
    pairs.find_map(|pair| value_of(pair, name))
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{Limits, Progress};

    const LIMITS: Limits = Limits {
        head_bytes: 4096,
        fields: 16,
        target_bytes: 1024,
    };

    /// The key of a request with this target and these fields.
    fn key(by: &HashKey, target: &str, fields: &str) -> Option<u64> {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        let parsed = head.parse(&bytes, &LIMITS);
        assert!(matches!(parsed, Ok(Progress::Complete(_))), "{parsed:?}");
        let target = Target::parse(b"GET", head.target.of(&bytes)).expect("a good target");
        let client = IpAddr::from([127, 0, 0, 1]);
        of(&HashBy::Part(by.clone()), client, &target, &head, &bytes)
    }

    #[test]
    fn the_part_that_was_asked_for_is_the_key() {
        let named = |make: fn(String) -> HashKey| make("id".to_owned());
        let query = || named(HashKey::Query);
        let header = || named(HashKey::Header);
        let cookie = || named(HashKey::Cookie);
        let cases: [(HashKey, &str, &str, Option<&str>); 18] = [
            (HashKey::Path, "/a/b?c", "", Some("/a/b")),
            (HashKey::Path, "http://h/a?c", "", Some("/a")),
            (HashKey::Uri, "/a/b?c", "", Some("/a/b?c")),
            (query(), "/?id=1&id=2", "", Some("1")),
            (query(), "/?x=0&id=a=b", "", Some("a=b")),
            (query(), "/?id=", "", Some("")),
            (query(), "/?id", "", None),
            (query(), "/?idx=1&ID=2", "", None),
            (query(), "/id=1", "", None),
            (header(), "/", "ID: 7\r\n", Some("7")),
            (header(), "/", "Id: 7\r\nid: 8\r\n", Some("7")),
            (header(), "/", "idx: 7\r\n", None),
            (cookie(), "/", "Cookie: id=7\r\n", Some("7")),
            (cookie(), "/", "cookie: a=b; id=7;c=d\r\n", Some("7")),
            (cookie(), "/", "Cookie: a=b\r\nCookie: id=7\r\n", Some("7")),
            (cookie(), "/", "Cookie: xid=7; ID=8\r\n", None),
            (cookie(), "/", "Set-Cookie: id=7\r\n", None),
            (cookie(), "/?id=7", "id: 7\r\n", None),
        ];
        for (by, target, fields, expected) in cases {
            let expected = expected.map(|part| hash::key(part.as_bytes()));
            assert_eq!(
                key(&by, target, fields),
                expected,
                "{by:?} {target} {fields:?}"
            );
        }
    }
}
