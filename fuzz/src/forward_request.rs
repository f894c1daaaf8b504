//! What is accepted from a client and written for a server is one request with the same meaning to the strict reader.

use ringlane::http1::body::{Coding, Reader};
use ringlane::http1::field::{Name, Span};
use ringlane::http1::forward::{Disclosure, Origin, Request};
use ringlane::http1::framing::{self, Framing};
use ringlane::http1::head::{Progress, RequestHead};
use ringlane::http1::target::{Target, is_authority};

use super::body::check_trailer;
use super::head::behind_empty_lines;
use super::strict::{self, Chunked, Head, Pair};
use super::{LIMITS, cuts, foreign};

const PEER: &[u8] = b"2001:db8::9";
/// Fields that the proxy writes itself.
const OWN: [&str; 10] = [
    "connection",
    "forwarded",
    "te",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// One way to send a request on.
#[derive(Clone, Copy, Debug)]
struct Manner {
    trusted: bool,
    disclosure: Disclosure,
    close: bool,
    drop_underscores: bool,
    host: Option<&'static [u8]>,
}

const MANNERS: [Manner; 4] = [
    Manner {
        trusted: false,
        disclosure: disclosure(true, false, false),
        close: false,
        drop_underscores: false,
        host: None,
    },
    Manner {
        trusted: true,
        disclosure: disclosure(true, true, true),
        close: true,
        drop_underscores: true,
        host: Some(b"up.example:8080"),
    },
    Manner {
        trusted: true,
        disclosure: disclosure(false, false, false),
        close: false,
        drop_underscores: false,
        host: None,
    },
    Manner {
        trusted: false,
        disclosure: disclosure(false, true, true),
        close: true,
        drop_underscores: false,
        host: None,
    },
];

const fn disclosure(x_forwarded: bool, forwarded: bool, via: bool) -> Disclosure {
    Disclosure {
        x_forwarded,
        forwarded,
        via,
    }
}

/// A request that is accepted, with the parts that it is written from.
struct Accepted<'a> {
    head: &'a RequestHead,
    /// The bytes of the head.
    bytes: &'a [u8],
    /// What follows it.
    rest: &'a [u8],
    framing: Framing,
    target: Target<'a>,
    host: &'a [u8],
    upgrade: Option<Span>,
}

/// Sends the request at the start of `input` on in every manner.
pub fn check(input: &[u8]) {
    let input = behind_empty_lines(input);
    let mut head = RequestHead::default();
    let Ok(Progress::Complete(len)) = head.parse(input, &LIMITS) else {
        return;
    };
    let (bytes, rest) = input.split_at(len);
    if let Some(accepted) = Accepted::read(&head, bytes, rest) {
        for manner in MANNERS {
            accepted.check(manner);
        }
    }
}

impl<'a> Accepted<'a> {
    /// The rules by which an exchange takes a request, as far as the codec has them.
    fn read(head: &'a RequestHead, bytes: &'a [u8], rest: &'a [u8]) -> Option<Self> {
        let method = head.method.of(bytes);
        let framing = framing::request(head, bytes).ok()?;
        if method == b"CONNECT" {
            return None;
        }
        let target = Target::parse(method, head.target.of(bytes)).ok()?;
        let mut hosts = head.fields.iter().filter(|field| field.kind == Name::Host);
        let host = match (hosts.next(), hosts.next()) {
            (None, None) if head.minor == 0 => b"",
            (Some(host), None) => host.value.of(bytes),
            _ => return None,
        };
        if !is_authority(host) {
            return None;
        }
        let upgrade = head.fields.iter().find(|f| f.kind == Name::Upgrade);
        let options = framing::options(&head.fields, bytes);
        Some(Self {
            head,
            bytes,
            rest,
            framing,
            host: target.authority.unwrap_or(host),
            target,
            upgrade: upgrade.filter(|_| options.upgrade).map(|f| f.value),
        })
    }

    fn check(&self, manner: Manner) {
        let Some((out, ended)) = self.send(manner) else {
            return;
        };
        let written = strict::request(&out).expect("a well-formed head");
        foreign::request(&written, &out);
        let received = strict::request(self.bytes).expect("what was accepted is well formed");
        assert_eq!(written.start[0], received.start[0], "the method");
        assert_eq!(written.start[1], &*self.target.path_and_query, "the target");
        assert_eq!(written.start[2], b"HTTP/1.1");
        self.check_fields(&written, &received, manner);
        self.check_body(&written, &out[written.len..], ended, manner);
    }

    fn coding(&self, manner: Manner) -> Coding {
        match self.framing {
            Framing::Chunked if manner.drop_underscores => Coding::Chunked,
            Framing::Chunked => Coding::chunked(framing::options(&self.head.fields, self.bytes)),
            _ => Coding::Identity,
        }
    }

    /// The message for the server, and whether all of the body was there; `None` when the body is refused.
    fn send(&self, manner: Manner) -> Option<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        let coding = self.coding(manner);
        let host = Request {
            head: self.head,
            bytes: self.bytes,
            path_and_query: &self.target.path_and_query,
            host: self.host,
            upstream_host: self.upstream_host(manner),
            options: framing::options(&self.head.fields, self.bytes),
            upgrade: self.upgrade,
            coding,
            close: manner.close,
            drop_underscores: manner.drop_underscores,
            origin: Origin {
                peer: PEER,
                trusted: manner.trusted,
                client: None,
                scheme: "http",
            },
        }
        .write(manner.disclosure, &mut out);
        assert_eq!(&out[host], self.upstream_host(manner));
        let mut reader = Reader::new(self.framing);
        let mut at = 0;
        for end in cuts(self.rest) {
            if !reader.ended() {
                let piece = &self.rest[at..end];
                at += reader
                    .transfer(piece, coding, &LIMITS, &mut out)
                    .ok()?
                    .consumed;
            }
        }
        Some((out, reader.ended()))
    }

    fn upstream_host(&self, manner: Manner) -> &[u8] {
        manner.host.unwrap_or(self.host)
    }

    /// Host, then the client's fields that may travel, in their order, then the proxy's own, each once.
    fn check_fields(&self, written: &Head, received: &Head, manner: Manner) {
        let passing: Vec<&Pair> = received
            .fields
            .iter()
            .filter(|(name, _)| self.passes(&lower(name), received, manner))
            .collect();
        let (host, others) = written.fields.split_first().expect("a Host field");
        assert_eq!((host.0, host.1), (&b"Host"[..], self.upstream_host(manner)));
        assert!(others.len() >= passing.len(), "a field is missing");
        let (passed, own) = others.split_at(passing.len());
        assert!(
            passed.iter().eq(passing.iter().copied()),
            "{passed:?} for {passing:?}"
        );
        let mut names: Vec<String> = own.iter().map(|(name, _)| lower(name)).collect();
        assert!(
            names.iter().all(|name| OWN.contains(&name.as_str())),
            "{names:?}"
        );
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "a field of the proxy's own twice");
        self.check_own(written, manner);
    }

    fn passes(&self, name: &str, received: &Head, manner: Manner) -> bool {
        let Manner {
            trusted,
            disclosure,
            ..
        } = manner;
        match name {
            "host"
            | "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "x-served-by" => false,
            "trailer" => {
                self.framing == Framing::Chunked
                    && !names_fields(received)
                    && !manner.drop_underscores
            }
            "expect" => received.start[2] != b"HTTP/1.0",
            _ if is_lookalike(name) => false,
            _ if manner.drop_underscores && name.contains('_') => false,
            "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" | "x-real-ip" => {
                trusted && !disclosure.x_forwarded
            }
            "forwarded" => trusted && !disclosure.forwarded,
            "via" => !disclosure.via,
            "content-length" => true,
            _ => !received
                .members("connection")
                .iter()
                .any(|option| lower(option) == name),
        }
    }

    fn check_own(&self, written: &Head, manner: Manner) {
        let upgrades = self.upgrade.is_some();
        let connection = match (upgrades, written.values("te").is_empty(), manner.close) {
            (true, ..) => vec![&b"upgrade"[..]],
            (false, true, true) => vec![&b"close"[..]],
            (false, true, false) => vec![],
            (false, false, true) => vec![&b"TE"[..], b"close"],
            (false, false, false) => vec![&b"TE"[..]],
        };
        assert_eq!(written.members("connection"), connection);
        assert!(matches!(written.values("te")[..], [] | [b"trailers"]));
        assert_eq!(written.values("upgrade").len(), usize::from(upgrades));
        if manner.disclosure.x_forwarded {
            let members = written.members("x-forwarded-for");
            assert_eq!(members.last(), Some(&PEER));
            assert!(manner.trusted || members.len() == 1, "a stranger's word");
        }
    }

    /// The body is all that follows the head: not a byte is left for a second request.
    fn check_body(&self, written: &Head, body: &[u8], ended: bool, manner: Manner) {
        match (written.framing().expect("one framing"), self.framing) {
            (strict::Framing::None | strict::Framing::Length(0), Framing::Empty) => {
                assert!(body.is_empty() && ended);
            }
            (strict::Framing::Length(strict), Framing::Length(length)) => {
                assert_eq!(strict, length);
                assert!(body.len() as u64 <= length);
                assert_eq!(body.len() as u64 == length, ended);
                assert_eq!(body, &self.rest[..body.len()]);
            }
            (strict::Framing::Chunked, Framing::Chunked) => self.check_chunked(body, ended, manner),
            differing => panic!("framing: {differing:?}"),
        }
    }

    fn check_chunked(&self, body: &[u8], ended: bool, manner: Manner) {
        match (strict::chunked(body), strict::chunked(self.rest)) {
            (
                Chunked::Complete {
                    data,
                    trailer,
                    len,
                    extended,
                },
                Chunked::Complete { data: received, .. },
            ) => {
                assert!(ended && !extended);
                assert_eq!(len, body.len(), "bytes behind the body");
                assert_eq!(data, received);
                check_trailer(trailer, self.coding(manner));
            }
            (Chunked::Incomplete(data), Chunked::Incomplete(received)) => {
                assert!(!ended && received.starts_with(&data));
            }
            differing => panic!("written and received: {differing:?}"),
        }
    }
}

/// Whether Connection names a field that would otherwise go on.
pub fn names_fields(received: &Head) -> bool {
    let options = received.members("connection");
    options
        .iter()
        .any(|option| !["close", "keep-alive", "upgrade", "te"].contains(&lower(option).as_str()))
}

/// Whether underscores alone tell this name from one that the proxy acts on.
pub fn is_lookalike(name: &str) -> bool {
    const ACTED_ON: [&str; 12] = [
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "transfer-encoding",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-served-by",
    ];
    name.contains('_') && ACTED_ON.contains(&name.replace('_', "-").as_str())
}

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}
