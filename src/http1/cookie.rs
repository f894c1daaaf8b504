//! Cookies of a request (RFC 6265 section 4.2).

use memchr::memchr;

use super::class::trim;
use super::field::{Fields, Name};

/// The value of the first cookie of this name, in however many Cookie fields; quotes are a part of it. Names differ by case.
///
/// What is no `name=value` is passed over. It takes one look at each byte, of which the limits of a head allow so many.
pub fn find<'a>(fields: &Fields, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let cookies = fields.named(Name::Cookie);
    cookies
        .map(|field| field.value.of(bytes))
        .find_map(|value| in_value(value, name))
}

/// The same in one field's value. Pairs end at a semicolon; white space around them is not a part of them.
fn in_value<'a>(mut rest: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    loop {
        let end = memchr(b';', rest);
        let pair = trim(&rest[..end.unwrap_or(rest.len())]);
        let value = pair
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(b"="));
        if value.is_some() {
            return value;
        }
        rest = &rest[end? + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{Limits, RequestHead};

    const LIMITS: Limits = Limits {
        head_bytes: 4096,
        fields: 16,
        target_bytes: 100,
    };

    #[test]
    fn the_first_of_the_name_is_found() {
        let cases = [
            ("Cookie: id=7", Some("7")),
            ("cookie: a=b; id=7; id=8", Some("7")),
            ("Cookie: a=b\r\nCookie: c=d;id=7", Some("7")),
            ("Cookie: \tid=7 ;", Some("7")),
            ("Cookie: id=", Some("")),
            ("Cookie: id=a=b", Some("a=b")),
            ("Cookie: id=\"7\"", Some("\"7\"")),
            ("Cookie: ;;; id=7", Some("7")),
            ("Cookie: id=7, a=b", Some("7, a=b")),
            ("Cookie: xid=7; idx=7; ID=7; id", None),
            ("Cookie: id =7", None),
            ("Cookie: a=\"b; id=7\"", Some("7\"")),
            ("Cookie:", None),
            ("Cookie: ;", None),
            ("Set-Cookie: id=7\r\nCookie2: id=7\r\nX-Cookie: id=7", None),
        ];
        for (fields, expected) in cases {
            let bytes = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n").into_bytes();
            let mut head = RequestHead::default();
            head.parse(&bytes, &LIMITS).expect("a valid head");
            let found = find(&head.fields, &bytes, b"id");
            assert_eq!(found, expected.map(str::as_bytes), "{fields:?}");
        }
    }
}
