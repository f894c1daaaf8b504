//! What holds for every message, not only for those that somebody thought of.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::body::{Coding, Reader};
use super::chunked::{Decoder, write_size};
use super::field::{Field, Name};
use super::forward::{Disclosure, Origin, Request};
use super::framing::{Framing, options};
use super::head::{Limits, Progress, RequestHead, ResponseHead};

const LIMITS: Limits = Limits {
    head_bytes: 64 * 1024,
    fields: 128,
    target_bytes: 8 * 1024,
};
const PEER: &[u8] = b"203.0.113.7";

/// Names that the codec acts on, in an odd case here and there.
const KNOWN: [&str; 16] = [
    "Accept",
    "connection",
    "Expect",
    "Forwarded",
    "Keep-Alive",
    "Proxy-Authorization",
    "proxy-connection",
    "TE",
    "Trailer",
    "UPGRADE",
    "Via",
    "X-Forwarded-For",
    "x-forwarded-proto",
    "X-Real-IP",
    "X-Served-By",
    "User-Agent",
];

/// A name and a value without white space around it.
type Pair = (String, String);

fn token() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}"
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        select(&KNOWN[..]).prop_map(str::to_owned),
        // Host and the framing fields are for each test to add.
        token().prop_filter("a name of its own", |name| Name::of(name.as_bytes())
            == Name::Other),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[!-~]([ -~\t\u{80}-\u{ff}]{0,40}[!-~])?",
        // What a Connection field may hold.
        vec(
            prop_oneof![select(&KNOWN[..]).prop_map(str::to_owned), token()],
            1..4
        )
        .prop_map(|options| options.join(", ")),
    ]
}

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    vec((name(), value()), 0..12)
}

/// Field lines with the white space that is allowed around values.
fn lines(fields: &[Pair], padding: &str) -> String {
    let line = |(name, value): &Pair| format!("{name}:{padding}{value}{padding}\r\n");
    fields.iter().map(line).collect()
}

fn padding() -> impl Strategy<Value = String> {
    "[ \t]{0,3}"
}

fn coding() -> impl Strategy<Value = Coding> {
    select(&[Coding::Identity, Coding::Chunked, Coding::ChunkedTrailers][..])
}

/// Ends of the pieces that `len` bytes are cut into.
fn ends(cuts: &[Index], len: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
    ends.sort_unstable();
    ends.push(len);
    ends
}

fn read(fields: &[Field], bytes: &[u8]) -> Vec<Pair> {
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let pair = |field: &Field| (text(field.name.of(bytes)), text(field.value.of(bytes)));
    fields.iter().map(pair).collect()
}

fn parsed(bytes: &[u8]) -> RequestHead {
    let mut head = RequestHead::default();
    let progress = head.parse(bytes, &LIMITS);
    assert_eq!(progress, Ok(Progress::Complete(bytes.len())));
    head
}

proptest! {
    #[test]
    fn a_request_head_reads_the_same_however_it_is_cut(
        method in token(), target in "/[!-\"$-~]{0,40}", fields in pairs(), padding in padding(), body in any::<[u8; 4]>(),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let text = format!("{method} {target} HTTP/1.1\r\n{}\r\n", lines(&fields, &padding));
        let (len, bytes) = (text.len(), [text.as_bytes(), &body].concat());
        let mut head = RequestHead::default();
        for end in ends(&cuts, bytes.len()) {
            let expected = if end < len { Progress::Partial } else { Progress::Complete(len) };
            let progress = head.parse(&bytes[..end], &LIMITS);
            prop_assert_eq!(progress, Ok(expected), "at {}", end);
            if end >= len {
                break;
            }
        }
        prop_assert_eq!(head.method.of(&bytes), method.as_bytes());
        prop_assert_eq!(head.target.of(&bytes), target.as_bytes());
        prop_assert_eq!(read(&head.fields, &bytes), fields);
    }

    #[test]
    fn a_response_head_reads_the_same_however_it_is_cut(
        status in 100_u16..1000, reason in "[ -~]{0,20}", fields in pairs(), padding in padding(),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let text = format!("HTTP/1.0 {status} {reason}\r\n{}\r\n", lines(&fields, &padding));
        let bytes = text.as_bytes();
        let mut head = ResponseHead::default();
        for end in ends(&cuts, bytes.len()) {
            let complete = end == bytes.len();
            let expected = if complete { Progress::Complete(end) } else { Progress::Partial };
            prop_assert_eq!(head.parse(&bytes[..end], &LIMITS), Ok(expected), "at {}", end);
            if complete {
                break;
            }
        }
        prop_assert_eq!((head.minor, head.status), (0, status));
        prop_assert_eq!(head.reason.of(bytes), reason.as_bytes());
        prop_assert_eq!(read(&head.fields, bytes), fields);
    }

    #[test]
    fn what_is_chunked_comes_back(
        chunks in vec(vec(any::<u8>(), 1..300), 0..6), trailer in pairs(), cuts in vec(any::<Index>(), 0..12),
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            write_size(chunk.len(), &mut body);
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        let trailer = lines(&trailer, " ") + "\r\n";
        body.extend_from_slice(b"0\r\n");
        body.extend_from_slice(trailer.as_bytes());
        let len = body.len();
        body.extend_from_slice(b"next");
        let (mut decoder, mut data, mut at) = (Decoder::new(4096), Vec::new(), 0);
        let mut ended = false;
        for end in ends(&cuts, body.len()) {
            while at < end && !ended {
                let step = decoder.decode(&body[at..end]).expect("a well-formed body");
                at += step.consumed;
                data.extend_from_slice(&body[at - step.data..at]);
                ended = step.end;
            }
        }
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!((ended, at), (true, len));
        prop_assert_eq!(decoder.trailer(), trailer.as_bytes());
    }

    #[test]
    fn a_chunked_body_keeps_its_data_through_any_coding(data in vec(any::<u8>(), 0..600), cuts in vec(any::<Index>(), 0..6)) {
        let framing = Framing::Length(data.len().max(1) as u64);
        let (mut reader, mut chunked, mut at) = (Reader::new(framing), Vec::new(), 0);
        for end in ends(&cuts, data.len()) {
            if !reader.ended() {
                let moved = reader.transfer(&data[at..end], Coding::Chunked, &LIMITS, &mut chunked);
                at += moved.expect("data of any kind").consumed;
            }
        }
        let mut plain = Vec::new();
        let mut reader = Reader::new(Framing::Chunked);
        let moved = reader.transfer(&chunked, Coding::Identity, &LIMITS, &mut plain).expect("our own chunks");
        prop_assert_eq!(moved.consumed, chunked.len());
        prop_assert_eq!(reader.ended(), !data.is_empty());
        prop_assert_eq!(plain, data);
    }

    #[test]
    fn a_forwarded_request_keeps_its_end_to_end_fields(
        fields in pairs(), padding in padding(), coding in coding(), close in any::<bool>(),
        (x_forwarded, forwarded, via) in any::<(bool, bool, bool)>(), trusted in any::<bool>(),
    ) {
        let disclosure = Disclosure { x_forwarded, forwarded, via };
        let bytes = format!("PUT /p HTTP/1.1\r\nHost: h\r\n{}\r\n", lines(&fields, &padding)).into_bytes();
        let head = parsed(&bytes);
        let mut out = Vec::new();
        Request {
            head: &head,
            bytes: &bytes,
            path_and_query: b"/p",
            host: b"h",
            upstream_host: b"up",
            options: options(&head.fields, &bytes),
            upgrade: None,
            coding,
            close,
            drop_underscores: false,
            origin: Origin { peer: PEER, trusted, client: None, scheme: "http" },
        }
        .write(disclosure, &mut out);

        let written = parsed(&out);
        prop_assert_eq!((written.method.of(&out), written.target.of(&out)), (&b"PUT"[..], &b"/p"[..]));
        let written = read(&written.fields, &out);
        let passed: Vec<Pair> = fields.iter().filter(|(name, _)| travels(name, &fields, coding)).cloned().collect();
        prop_assert_eq!(&written[0], &("Host".to_owned(), "up".to_owned()));
        let untouched = written[1..].iter().filter(|(name, _)| !is_ours(name));
        prop_assert!(untouched.eq(passed.iter().filter(|(name, _)| !is_ours(name))));
        let codings = written.iter().filter(|(name, _)| Name::of(name.as_bytes()) == Name::TransferEncoding);
        prop_assert_eq!(codings.count(), usize::from(coding != Coding::Identity));
        if !trusted {
            let told = written.iter().filter(|(name, _)| Name::of(name.as_bytes()) == Name::XForwardedFor);
            let told: Vec<&[u8]> = told.map(|(_, value)| value.as_bytes()).collect();
            prop_assert_eq!(told, vec![PEER; usize::from(x_forwarded)]);
        }
    }
}

/// Whether the client's field of this name goes on: it is not hop-by-hop, and no Connection field names it, or may.
fn travels(name: &str, fields: &[Pair], coding: Coding) -> bool {
    let kind = Name::of(name.as_bytes());
    let named = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
        .flat_map(|(_, options)| options.split(','))
        .map(|option| option.trim().to_ascii_lowercase());
    let named: Vec<String> = named.filter(|option| !option.is_empty()).collect();
    let named = named.contains(&name.to_ascii_lowercase());
    match kind {
        Name::Trailer => coding == Coding::ChunkedTrailers,
        Name::Lookalike => false,
        Name::Expect => true,
        _ => !kind.is_hop_by_hop() && (kind.is_protected() || !named),
    }
}

/// Fields that the proxy writes or adds to by its settings.
fn is_ours(name: &str) -> bool {
    matches!(
        Name::of(name.as_bytes()),
        Name::Connection
            | Name::Forwarded
            | Name::Te
            | Name::TransferEncoding
            | Name::Via
            | Name::XForwardedFor
            | Name::XForwardedHost
            | Name::XForwardedProto
            | Name::XRealIp
    )
}
