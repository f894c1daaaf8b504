//! The heads that go on, written freshly from checked parts (RFC 9110 section 7.6).

use std::net::IpAddr;

use super::body::Coding;
use super::class::trim;
use super::client::AddressText;
use super::field::{Field, Fields, Name, Span, list};
use super::framing::{Options, connection_names};
use super::head::{RequestHead, ResponseHead};

/// Which fields tell the upstream about the client.
#[derive(Clone, Copy, Debug)]
pub struct Disclosure {
    /// X-Forwarded-For, -Proto and -Host, X-Real-IP.
    pub x_forwarded: bool,
    /// Forwarded (RFC 7239).
    pub forwarded: bool,
    /// Via (RFC 9110 section 7.6.3).
    pub via: bool,
}

/// Whom a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The connection's other end, as text.
    pub peer: &'a [u8],
    /// The peer is a trusted proxy: what it says about the client is kept and appended to.
    pub trusted: bool,
    /// The client's address when a trusted proxy names it, else the peer's.
    pub client: Option<IpAddr>,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// Everything that a request's new head is written from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The parsed head.
    pub head: &'a RequestHead,
    /// The bytes it was parsed from.
    pub bytes: &'a [u8],
    /// Path and query to send.
    pub path_and_query: &'a [u8],
    /// The Host that the client asked for.
    pub host: &'a [u8],
    /// The Host to send.
    pub upstream_host: &'a [u8],
    /// The Connection options of the client.
    pub options: Options,
    /// The Upgrade value to pass on.
    pub upgrade: Option<Span>,
    /// The body goes on in this coding.
    pub coding: Coding,
    /// The connection is to be closed after this exchange.
    pub close: bool,
    /// Fields whose names have underscores stay behind.
    pub drop_underscores: bool,
    /// Whom it comes from.
    pub origin: Origin<'a>,
}

impl Request<'_> {
    /// Writes the head that goes to the upstream. Gives the place of the Host value in `out`.
    pub fn write(&self, disclosure: Disclosure, out: &mut Vec<u8>) -> std::ops::Range<usize> {
        let (head, bytes) = (self.head, self.bytes);
        let method_and_space = Span {
            len: head.method.len + 1,
            ..head.method
        };
        out.extend_from_slice(method_and_space.of(bytes));
        out.extend_from_slice(self.path_and_query);
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        let host = out.len()..out.len() + self.upstream_host.len();
        out.extend_from_slice(self.upstream_host);
        out.extend_from_slice(b"\r\n");
        write_fields(&head.fields, bytes, out, |field| {
            self.passes(field, disclosure)
        });
        if self.coding != Coding::Identity {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        self.write_disclosure(disclosure, out);
        self.write_connection(out);
        out.extend_from_slice(b"\r\n");
        host
    }

    /// Whether a received field goes on as it is.
    #[inline]
    fn passes(&self, field: &Field, disclosure: Disclosure) -> bool {
        match field.kind {
            Name::Host | Name::Lookalike => false,
            Name::Trailer => self.coding == Coding::ChunkedTrailers,
            // An interim response is not for a client that does not know them (RFC 9110 section 10.1.1).
            // To others it does, even if Connection names it: the client waits for what the server says to it.
            Name::Expect => self.head.minor > 0,
            Name::XForwardedFor | Name::XForwardedHost | Name::XForwardedProto | Name::XRealIp => {
                self.origin.trusted && !disclosure.x_forwarded
            }
            Name::Forwarded => self.origin.trusted && !disclosure.forwarded,
            Name::Via => !disclosure.via,
            Name::ContentLength => true,
            kind if kind.is_hop_by_hop() => false,
            _ => {
                !((self.options.names_fields || self.drop_underscores) && self.stays_behind(field))
            }
        }
    }

    #[cold]
    fn stays_behind(&self, field: &Field) -> bool {
        let name = field.name.of(self.bytes);
        self.drop_underscores && name.contains(&b'_')
            || self.options.names_fields && connection_names(&self.head.fields, self.bytes, name)
    }

    fn write_disclosure(&self, disclosure: Disclosure, out: &mut Vec<u8>) {
        if disclosure.x_forwarded {
            self.write_x_forwarded(out);
        }
        if disclosure.forwarded {
            self.write_forwarded(out);
        }
        if disclosure.via {
            out.extend_from_slice(b"Via: ");
            self.write_received(Name::Via, out);
            write_via_member(self.head.minor, out);
        }
    }

    #[inline]
    fn write_x_forwarded(&self, out: &mut Vec<u8>) {
        if !self.origin.trusted {
            return self.write_peer(out);
        }
        out.extend_from_slice(b"X-Forwarded-For: ");
        self.write_received(Name::XForwardedFor, out);
        out.extend_from_slice(self.origin.peer);
        out.extend_from_slice(b"\r\n");
        self.write_kept_or(
            Name::XForwardedProto,
            b"X-Forwarded-Proto",
            self.origin.scheme.as_bytes(),
            out,
        );
        self.write_kept_or(Name::XForwardedHost, b"X-Forwarded-Host", self.host, out);
        match self.origin.client {
            Some(client) => self.write_kept_or(
                Name::XRealIp,
                b"X-Real-IP",
                AddressText::new(client).as_bytes(),
                out,
            ),
            None => self.write_kept_or(Name::XRealIp, b"X-Real-IP", self.origin.peer, out),
        }
    }

    /// The fields about a client that speaks for itself.
    #[inline]
    fn write_peer(&self, out: &mut Vec<u8>) {
        // Not in a loop over the parts: those whose length the compiler knows take a few stores each, and no call.
        out.extend_from_slice(b"X-Forwarded-For: ");
        out.extend_from_slice(self.origin.peer);
        out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
        out.extend_from_slice(self.origin.scheme.as_bytes());
        if !self.host.is_empty() {
            out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
            out.extend_from_slice(self.host);
        }
        out.extend_from_slice(b"\r\nX-Real-IP: ");
        out.extend_from_slice(self.origin.peer);
        out.extend_from_slice(b"\r\n");
    }

    /// What a trusted peer sent under this name, else `own`; nothing when both are empty.
    fn write_kept_or(&self, kind: Name, name: &[u8], own: &[u8], out: &mut Vec<u8>) {
        let value = self.received(kind).next().unwrap_or_default();
        let value = if value.is_empty() { own } else { value };
        if !value.is_empty() {
            write_field(name, value, out);
        }
    }

    /// `for=...;host=...;proto=...` after what a trusted peer sent (RFC 7239 section 4).
    fn write_forwarded(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Forwarded: ");
        if self.origin.trusted {
            self.write_received(Name::Forwarded, out);
        }
        // An IPv6 address has colons, so it is bracketed and quoted (RFC 7239 section 6).
        let (before, after): (&[u8], &[u8]) = if self.origin.peer.contains(&b':') {
            (b"for=\"[", b"]\"")
        } else {
            (b"for=", b"")
        };
        let (host_name, proto_name): (&[u8], &[u8]) = if self.host.is_empty() {
            (b"", b";proto=")
        } else {
            (b";host=\"", b"\";proto=")
        };
        for part in [
            before,
            self.origin.peer,
            after,
            host_name,
            self.host,
            proto_name,
            self.origin.scheme.as_bytes(),
            b"\r\n",
        ] {
            out.extend_from_slice(part);
        }
    }

    fn received(&self, kind: Name) -> impl Iterator<Item = &[u8]> {
        let fields = self.head.fields.named(kind);
        fields.map(|field| field.value.of(self.bytes))
    }

    /// The members received under this name, each with the comma that joins it to what follows.
    fn write_received(&self, kind: Name, out: &mut Vec<u8>) {
        for value in self
            .received(kind)
            .map(trim)
            .filter(|value| !value.is_empty())
        {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }

    fn write_connection(&self, out: &mut Vec<u8>) {
        if let Some(protocol) = self.upgrade {
            write_field(b"Upgrade", protocol.of(self.bytes), out);
            out.extend_from_slice(b"Connection: upgrade\r\n");
        } else if self.te_trailers() {
            out.extend_from_slice(b"TE: trailers\r\nConnection: TE");
            out.extend_from_slice(if self.close { b", close\r\n" } else { b"\r\n" });
        } else if self.close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
    }

    /// Whether the client takes trailer fields (RFC 9110 section 10.1.4).
    fn te_trailers(&self) -> bool {
        self.head.fields.has(Name::Te)
            && self
                .received(Name::Te)
                .flat_map(list)
                .any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
    }
}

/// How a response's new head ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The connection goes on and the client's version implies it.
    Implied,
    /// The connection goes on, which an HTTP/1.0 client must be told.
    KeepAlive,
    /// The connection ends after this message.
    Close,
    /// The connection becomes a tunnel (101).
    Upgrade,
}

/// Everything that a response's new head is written from.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The parsed head.
    pub head: &'a ResponseHead,
    /// The bytes it was parsed from.
    pub bytes: &'a [u8],
    /// The Connection options of the upstream.
    pub options: Options,
    /// The body goes on chunked.
    pub chunked: bool,
    /// What the client is told about its connection.
    pub persistence: Persistence,
    /// The date to add when the upstream sent none (RFC 9110 section 6.6.1).
    pub date: &'a [u8],
    /// Add Via.
    pub via: bool,
    /// The server's name, to add as X-Served-By.
    pub served_by: Option<&'a str>,
    /// A cookie to set, as Set-Cookie has it.
    pub cookie: Option<&'a str>,
}

impl Response<'_> {
    /// Writes the head that goes to the client.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (head, bytes) = (self.head, self.bytes);
        write_status_line(head.status, head.reason.of(bytes), out);
        let mut dated = head.status < 200;
        let mut measured = false;
        write_fields(&head.fields, bytes, out, |field| {
            if !self.passes(field) {
                return false;
            }
            dated |= field.kind == Name::Date;
            // An upstream may state its length twice; we must not (RFC 9110 section 5.3).
            field.kind != Name::ContentLength || !std::mem::replace(&mut measured, true)
        });
        if !dated {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(self.date);
            out.extend_from_slice(b"\r\n");
        }
        if self.chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if self.via {
            out.extend_from_slice(b"Via: ");
            write_via_member(head.minor, out);
        }
        if let Some(server) = self.served_by {
            write_field(b"X-Served-By", server.as_bytes(), out);
        }
        if let Some(cookie) = self.cookie {
            write_field(b"Set-Cookie", cookie.as_bytes(), out);
            // A shared cache would give one client's cookie to all (RFC 9111 section 5.2.2.7).
            write_field(b"Cache-Control", b"private", out);
        }
        // Whoever sends Upgrade names it in Connection (RFC 9110 section 7.8).
        let upgrade = head.status == 426 && head.fields.has(Name::Upgrade);
        out.extend_from_slice(match (self.persistence, upgrade) {
            (Persistence::Implied, false) => b"\r\n",
            (Persistence::KeepAlive, false) => b"Connection: keep-alive\r\n\r\n",
            (Persistence::Close, false) => b"Connection: close\r\n\r\n",
            (Persistence::KeepAlive, true) => b"Connection: keep-alive, upgrade\r\n\r\n",
            (Persistence::Close, true) => b"Connection: close, upgrade\r\n\r\n",
            (Persistence::Implied, true) | (Persistence::Upgrade, _) => {
                b"Connection: upgrade\r\n\r\n"
            }
        });
    }

    #[inline]
    fn passes(&self, field: &Field) -> bool {
        match field.kind {
            // RFC 9110 section 8.6: neither 1xx nor 204 has a Content-Length.
            Name::ContentLength => {
                !(self.chunked || self.head.status < 200 || self.head.status == 204)
            }
            Name::Trailer => self.chunked && !self.options.names_fields,
            Name::Upgrade => self.head.status == 101 || self.head.status == 426,
            Name::XServedBy => self.served_by.is_none(),
            kind if kind.is_hop_by_hop() => false,
            kind if kind.is_protected() => true,
            _ => {
                !(self.options.names_fields
                    && connection_names(&self.head.fields, self.bytes, field.name.of(self.bytes)))
            }
        }
    }
}

/// `HTTP/1.1 SP status SP reason`: a proxy says its own version (RFC 9110 section 2.5).
pub fn write_status_line(status: u16, reason: &[u8], out: &mut Vec<u8>) {
    let mut line = *b"HTTP/1.1 000 ";
    line[9] += (status / 100) as u8;
    line[10] += (status / 10 % 10) as u8;
    line[11] += (status % 10) as u8;
    out.extend_from_slice(&line);
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Writes those of the received fields that pass. Plain lines that stand side by side go on in one piece.
#[inline]
fn write_fields(
    fields: &Fields,
    bytes: &[u8],
    out: &mut Vec<u8>,
    mut passes: impl FnMut(&Field) -> bool,
) {
    let mut piece = 0..0;
    for field in fields.iter().filter(|field| passes(field)) {
        let line = field.line();
        if field.is_plain && line.start == piece.end {
            piece.end = line.end;
            continue;
        }
        out.extend_from_slice(&bytes[piece]);
        if field.is_plain {
            piece = line;
        } else {
            piece = 0..0;
            write_field(field.name.of(bytes), field.value.of(bytes), out);
        }
    }
    out.extend_from_slice(&bytes[piece]);
}

/// `name: value` and the line's end.
#[inline]
pub fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_via_member(minor: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(if minor == 0 {
        b"1.0 ringlane\r\n"
    } else {
        b"1.1 ringlane\r\n"
    });
}

/// A number in decimal.
pub fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::framing::options;
    use crate::http1::head::Limits;

    const LIMITS: Limits = Limits {
        head_bytes: 4096,
        fields: 32,
        target_bytes: 100,
    };
    const ALL: Disclosure = Disclosure {
        x_forwarded: true,
        forwarded: true,
        via: true,
    };
    const NONE: Disclosure = Disclosure {
        x_forwarded: false,
        forwarded: false,
        via: false,
    };
    const PLAIN: Disclosure = Disclosure {
        x_forwarded: true,
        forwarded: false,
        via: false,
    };

    fn request(fields: &str, trusted: bool, disclosure: Disclosure, coding: Coding) -> String {
        let bytes = format!("GET /p HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        head.parse(&bytes, &LIMITS).expect("a valid head");
        let request = Request {
            head: &head,
            bytes: &bytes,
            path_and_query: b"/p",
            host: b"h",
            upstream_host: b"up",
            options: options(&head.fields, &bytes),
            upgrade: None,
            coding,
            close: false,
            drop_underscores: false,
            origin: Origin {
                peer: b"9.9.9.9",
                trusted,
                client: None,
                scheme: "http",
            },
        };
        let mut out = Vec::new();
        let host = request.write(disclosure, &mut out);
        assert_eq!(&out[host], b"up");
        let text = String::from_utf8(out).expect("text");
        let rest = text
            .strip_prefix("GET /p HTTP/1.1\r\nHost: up\r\n")
            .expect("the request line and Host come first");
        rest.strip_suffix("\r\n")
            .expect("an empty line ends it")
            .replace("\r\n", "|")
    }

    #[test]
    fn hop_by_hop_fields_stay_behind() {
        let fields = "Connection: x-drop, Host, close\r\nKeep-Alive: 1\r\nX-Drop: a\r\nX-Keep:  b \r\nTE: gzip\r\nUpgrade: h2c\r\n\
                      Proxy-Connection: a\r\nProxy-Authorization: b\r\nTrailer: c\r\n";
        assert_eq!(request(fields, false, NONE, Coding::Identity), "X-Keep: b|");
        assert_eq!(
            request("TE: deflate, trailers\r\n", false, NONE, Coding::Identity),
            "TE: trailers|Connection: TE|"
        );
        let trailer = |coding| request("Trailer: c\r\n", false, NONE, coding);
        assert_eq!(
            request(
                "Connection: expect\r\nExpect: 100-continue\r\n",
                false,
                NONE,
                Coding::Identity
            ),
            "Expect: 100-continue|"
        );
        assert_eq!(
            trailer(Coding::ChunkedTrailers),
            "Trailer: c|Transfer-Encoding: chunked|"
        );
        assert_eq!(trailer(Coding::Chunked), "Transfer-Encoding: chunked|");
    }

    #[test]
    fn lines_go_on_as_one_writes_them_whatever_stands_between_them() {
        let fields = "A: 1\r\nb: 2\r\nC:3\r\nD: 4 \r\nE:  5\r\nF:\r\nG: \r\nH: 6\r\nKeep-Alive: 1\r\nI: 7\r\nJ:\t8\r\nK: 9\r\n";
        assert_eq!(
            request(fields, false, NONE, Coding::Identity),
            "A: 1|b: 2|C: 3|D: 4|E: 5|F: |G: |H: 6|I: 7|J: 8|K: 9|"
        );
    }

    #[test]
    fn forwarding_fields_of_a_stranger_are_replaced() {
        let fields = "X-Forwarded-For: 1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: e\r\nForwarded: for=1\r\n\
                      Connection: x-forwarded-for, x-real-ip\r\n";
        let own = "X-Forwarded-For: 9.9.9.9|X-Forwarded-Proto: http|X-Forwarded-Host: h|X-Real-IP: 9.9.9.9|";
        assert_eq!(request(fields, false, PLAIN, Coding::Identity), own);
        assert_eq!(request(fields, false, NONE, Coding::Identity), "");
    }

    #[test]
    fn forwarding_fields_of_a_trusted_peer_are_kept_and_appended_to() {
        let fields = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host:\r\n\
                      X-Real-IP: \r\nForwarded: for=1\r\nVia: 1.0 a\r\n";
        let expected = "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 9.9.9.9|X-Forwarded-Proto: https|X-Forwarded-Host: h|X-Real-IP: 9.9.9.9|\
                        Forwarded: for=1, for=9.9.9.9;host=\"h\";proto=http|Via: 1.0 a, 1.1 ringlane|";
        assert_eq!(request(fields, true, ALL, Coding::Identity), expected);
        assert_eq!(
            request(
                "X-Forwarded-For: 1.1.1.1\r\nVia: 1.0 a\r\n",
                true,
                NONE,
                Coding::Identity
            ),
            "X-Forwarded-For: 1.1.1.1|Via: 1.0 a|"
        );
    }

    #[test]
    fn responses() {
        let bytes = b"HTTP/1.0 200 Fine\r\nContent-Length: 5\r\nConnection: x-drop\r\nX-Drop: 1\r\nX-Served-By: them\r\nTransfer-Encoding: x\r\n\r\n";
        let mut head = ResponseHead::default();
        head.parse(bytes, &LIMITS).expect("a valid head");
        let response = Response {
            head: &head,
            bytes,
            options: options(&head.fields, bytes),
            chunked: false,
            persistence: Persistence::Close,
            date: b"today",
            via: true,
            served_by: Some("a"),
            cookie: Some("id=1; Path=/"),
        };
        let mut out = Vec::new();
        response.write(&mut out);
        let expected = "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nDate: today\r\nVia: 1.0 ringlane\r\nX-Served-By: a\r\nSet-Cookie: id=1; Path=/\r\n\
                        Cache-Control: private\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 200, u64::MAX] {
            let mut out = Vec::new();
            write_number(number, &mut out);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
