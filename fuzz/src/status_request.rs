//! Requests to the status listener: what is taken is what the strict reader sees, and pages of other sites are told apart.

use std::net::IpAddr;

use ringlane::admin::http::{Framing, Head, Request, parse};

use super::head::behind_empty_lines;
use super::strict;

/// Bytes of content that the listener takes.
const CONTENT_BYTES_MAX: usize = 4096;

/// Reads `input` as it grows, for a listener on loopback and for another.
pub fn check(input: &[u8]) {
    for loopback in [true, false] {
        let whole = parse(input, loopback);
        let grown = (1..input.len())
            .map(|end| parse(&input[..end], loopback))
            .find(|head| *head != Head::Partial);
        match (&whole, grown) {
            // One that is refused early may be refused for another reason when more of it has come.
            (Head::Refused(_), Some(Head::Refused(_))) | (_, None) => {}
            (whole, Some(grown)) => assert_eq!(*whole, grown),
        }
        let Head::Request(request, framing) = whole else {
            continue;
        };
        let behind = behind_empty_lines(input);
        match strict::request(behind) {
            Some(strict) => {
                let skipped = input.len() - behind.len();
                agrees(&request, framing, &strict, skipped);
                let host = authority(&strict);
                assert!(
                    !loopback || host.is_empty() || is_local(host),
                    "another host is asked: {}",
                    host.escape_ascii()
                );
            }
            None => assert!(may_be_lenient(input), "the strict reader refuses it"),
        }
    }
}

/// Lines may end in LF alone there (RFC 9112 section 2.2), and a path may have bytes that a URI has not.
fn may_be_lenient(input: &[u8]) -> bool {
    let bare_lf = input
        .iter()
        .enumerate()
        .any(|(at, b)| *b == b'\n' && (at == 0 || input[at - 1] != b'\r'));
    let start = input.trim_ascii_start().split(|b| *b == b'\r').next();
    bare_lf || start.is_some_and(|start| start.iter().any(|b| !b.is_ascii() || *b == b'#'))
}

/// `skipped` bytes stood before the head.
fn agrees(request: &Request, framing: Framing, strict: &strict::Head, skipped: usize) {
    assert_eq!(request.method.as_bytes(), strict.start[0]);
    if strict.start[1].starts_with(b"/") {
        let path = strict.start[1].split(|b| *b == b'?').next();
        assert_eq!(Some(request.path.as_bytes()), path);
    }
    assert_eq!(
        request.authorization.as_deref(),
        only(strict, "authorization")
    );
    assert_eq!(request.foreign, is_foreign(strict));
    assert!(request.content.is_empty());
    if request.method == "POST" {
        let length = match strict.framing().expect("framing without doubt") {
            strict::Framing::None => 0,
            strict::Framing::Length(length) => length,
            strict::Framing::Chunked => panic!("chunked content is not taken"),
        };
        assert_eq!(framing.content_bytes as u64, length);
        assert!(framing.content_bytes <= CONTENT_BYTES_MAX);
        assert_eq!(framing.head_bytes, skipped + strict.len);
    } else {
        assert_eq!(framing, Framing::default());
    }
}

/// The value under `name`, which must not stand twice.
fn only<'a>(head: &strict::Head<'a>, name: &str) -> Option<&'a [u8]> {
    let values = head.values(name);
    assert!(values.len() <= 1, "{name} stands twice");
    values.first().copied()
}

/// The host and port that are asked: the target's, else that of Host (RFC 9112 section 3.2.2).
fn authority<'a>(head: &strict::Head<'a>) -> &'a [u8] {
    let target = head.start[1];
    if target.starts_with(b"/") || target == b"*" {
        return only(head, "host").unwrap_or_default();
    }
    let scheme = target.windows(3).position(|w| w == b"://");
    let rest = scheme.map_or(target, |at| &target[at + 3..]);
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?'));
    &rest[..end.unwrap_or(rest.len())]
}

/// Whether the browser that sent this says that a page of another site made it.
fn is_foreign(head: &strict::Head) -> bool {
    let own_site = matches!(
        only(head, "sec-fetch-site"),
        None | Some(b"same-origin" | b"none")
    );
    let host = authority(head);
    let own_origin = match only(head, "origin") {
        None => true,
        Some(origin) => {
            !host.is_empty()
                && [&b"http://"[..], b"https://"]
                    .iter()
                    .any(|scheme| origin == [scheme, host].concat())
        }
    };
    !(own_site && own_origin)
}

/// Whether only this machine has this name.
fn is_local(host: &[u8]) -> bool {
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => &host,
    };
    let name = name.trim_end_matches('.');
    let literal = name.trim_matches(['[', ']']);
    name.split('.').next_back() == Some("localhost") || literal.parse::<IpAddr>().is_ok()
}
