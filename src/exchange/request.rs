//! A received request, checked, routed, and written for the upstream.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Instant;

use super::client::Client;
use super::hash_key;
use super::lane::Lane;
use super::record::RequestRecord;
use super::route;
use super::sticky;
use super::upload::Upload;
use crate::config::{HostPolicy, Underscores};
use crate::http1::answer::{Answer, prefers_json, prefers_json_unread};
use crate::http1::body::{Coding, Reader};
use crate::http1::client::forwarded_address;
use crate::http1::field::{Name, Span, list};
use crate::http1::forward::{Origin, Request as Forward};
use crate::http1::framing::{self, Framing, Options};
use crate::http1::head::{Limits, Progress, RequestHead};
use crate::http1::refusal::Refusal;
use crate::http1::target::{Target, is_authority};
use crate::upstream::group::{Group, Server};
use crate::upstream::sticky::Bond;

/// A request that is ready to be sent.
#[derive(Debug)]
pub struct Request<'l> {
    /// Where it goes.
    pub group: &'l Group,
    /// The head for the upstream and what has come of the body, as they are sent.
    pub outgoing: Vec<u8>,
    /// The place of the Host value in `outgoing`.
    host_at: Range<usize>,
    /// The rest of the body.
    pub upload: Upload,
    /// What the answer depends on.
    pub traits: Traits,
    /// The client's address, by the word of a trusted proxy or the connection's own.
    pub client: IpAddr,
    /// What its server is chosen by, where the policy asks for it.
    pub key: Option<u64>,
    /// For the access log, when it is on.
    pub record: Option<Box<RequestRecord>>,
    /// When its head was complete.
    pub started: Instant,
}

/// Facts about a request that its answer depends on.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent facts, each read on its own
pub struct Traits {
    /// The method is HEAD.
    pub to_head: bool,
    /// Doing it twice is the same as doing it once (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// 0 or 1, of HTTP/1.
    pub minor: u8,
    /// The client can take another response on this connection.
    pub persistent: bool,
    /// The client offers to change the protocol.
    pub upgrade: bool,
    /// The server that the client had before, where sessions are sticky.
    pub bond: Option<Bond>,
}

/// A request that gets an answer of our own, after which the connection closes unless it is whole.
#[derive(Debug)]
pub struct Rejection {
    /// The answer.
    pub answer: Answer,
    /// What the answer's form depends on.
    pub json: bool,
    /// The method is HEAD.
    pub to_head: bool,
    /// 0 or 1, of HTTP/1.
    pub minor: u8,
    /// The request was read to its end, and the connection may go on.
    pub persistent: bool,
    /// Bytes that the request took.
    pub taken: usize,
    /// The client's address, by the word of a trusted proxy in a head that came whole.
    pub client: Option<IpAddr>,
    /// For the access log, when it is on.
    pub record: Option<Box<RequestRecord>>,
}

impl Rejection {
    /// Answers a request whose head never came whole, but for `bytes`.
    pub fn of_unread(answer: Answer, bytes: &[u8]) -> Self {
        Self {
            answer,
            json: prefers_json_unread(bytes),
            to_head: false,
            minor: 1,
            persistent: false,
            taken: 0,
            client: None,
            record: None,
        }
    }

    /// Answers a message that breaks a rule, as far as its head could be read. `host` gives what the access log says of its host: empty
    /// where it is not known.
    fn of<'a>(
        refusal: Refusal,
        lane: &Lane,
        head: &RequestHead,
        bytes: &[u8],
        host: impl FnOnce() -> &'a [u8],
    ) -> Self {
        Self {
            answer: Answer::new(refusal.status(), refusal.as_str()),
            json: prefers_json_unread(bytes),
            to_head: head.method.of(bytes) == b"HEAD",
            minor: head.minor,
            persistent: false,
            taken: bytes.len(),
            client: None,
            record: lane
                .access_log()
                .map(|_| Box::new(RequestRecord::new(head, bytes, host()))),
        }
    }
}

/// Why a request is not sent on.
enum Stop {
    Refused(Refusal),
    Rejected(Box<Rejection>),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(Box::new(rejection))
    }
}

/// Reads a request from the start of `bytes` into `request`. Gives the number of bytes it took, or `None` when more are needed.
///
/// A request stays where it is read: it is too large to be handed on from function to function.
#[inline]
pub fn read<'l>(
    lane: &'l Lane,
    client: &Client,
    head: &mut RequestHead,
    bytes: &[u8],
    request: &mut Option<Request<'l>>,
) -> Result<Option<usize>, Box<Rejection>> {
    let head_bytes = match head.parse(bytes, &lane.limits) {
        Ok(Progress::Complete(length)) => length,
        Ok(Progress::Partial) => return Ok(None),
        // What was not read of it may name another client: this one stays unknown.
        Err(refusal) => return Err(Box::new(Rejection::of(refusal, lane, head, bytes, || b""))),
    };
    let reading = Reading {
        lane,
        client,
        head,
        bytes: &bytes[..head_bytes],
        options: framing::options(&head.fields, bytes),
        origin: if client.trusted {
            told_origin(lane, head, bytes)
        } else {
            None
        },
    };
    match reading.request_with(&bytes[head_bytes..], request) {
        Ok(taken) => Ok(Some(head_bytes + taken)),
        Err(Stop::Rejected(rejection)) => Err(rejection),
        Err(Stop::Refused(refusal)) => Err(Box::new(Rejection {
            client: reading.origin,
            ..Rejection::of(refusal, lane, head, bytes, || reading.told_host())
        })),
    }
}

/// The client's address when a trusted proxy tells it.
#[inline(never)] // merged into the caller, it has the address taken apart for every request
fn told_origin(lane: &Lane, head: &RequestHead, bytes: &[u8]) -> Option<IpAddr> {
    forwarded_address(&head.fields, bytes, |address| lane.trusts(address))
}

/// A complete head on its way to a [`Request`].
struct Reading<'l, 'a> {
    lane: &'l Lane,
    client: &'a Client,
    head: &'a RequestHead,
    bytes: &'a [u8],
    options: Options,
    /// The client's address when a trusted proxy tells it.
    origin: Option<IpAddr>,
}

impl<'l> Reading<'l, '_> {
    /// Reads the request, with what `rest` holds of its body. Gives how much that is.
    #[inline]
    fn request_with(&self, rest: &[u8], request: &mut Option<Request<'l>>) -> Result<usize, Stop> {
        let Request {
            upload, outgoing, ..
        } = self.request(request)?;
        let taken = upload.take_at_hand(self.lane, rest, outgoing)?;
        let awaits_continue = taken == 0 && !upload.ended() && self.expects_continue();
        self.client.awaits_continue.set(awaits_continue);
        Ok(taken)
    }

    fn request<'r>(
        &self,
        request: &'r mut Option<Request<'l>>,
    ) -> Result<&'r mut Request<'l>, Stop> {
        let (head, bytes) = (self.head, self.bytes);
        let method = head.method.of(bytes);
        let framing = framing::request(head, bytes)?;
        self.check_expectation()?;
        if self.lane.config.limits.underscores == Underscores::Refuse {
            self.check_names()?;
        }
        if method == b"CONNECT" {
            // What follows may be meant for a tunnel: it must never be read as a request.
            return Err(self.reject_and_close(framing, METHOD_NOT_ALLOWED).into());
        }
        self.check_length(framing)?;
        let target = Target::parse(method, head.target.of(bytes))?;
        let host = self.host(&target)?;
        let client = self.origin.unwrap_or(self.client.peer);
        if let Some(memory) = &self.lane.memory {
            memory
                .admit(self.lane)
                .map_err(|answer| self.reject_and_close(framing, answer))?;
        }
        if let Some(gate) = &self.lane.gate {
            gate.admit(client)
                .map_err(|answer| self.reject(framing, answer))?;
        }
        let Some(route) = self.lane.router.find(host, &target.path_and_query) else {
            return Err(self
                .reject(framing, Answer::new(404, "no route for this host and path"))
                .into());
        };
        let path_and_query = if route.strip_prefix {
            route::strip(&route.path, &target.path_and_query).ok_or(Refusal::Target)?
        } else {
            Cow::Borrowed(&*target.path_and_query)
        };
        let group = &self.lane.groups[route.upstream];
        let coding = self.coding(framing);
        let upgrade = self.upgrade();
        let mut outgoing = self.lane.take_for(self.bytes.len());
        let host_at = Forward {
            head,
            bytes,
            path_and_query: &path_and_query,
            host,
            upstream_host: match &group.host {
                HostPolicy::Keep => host,
                // The server is not chosen yet; its name is put in when it is.
                HostPolicy::Upstream => b"",
                HostPolicy::Fixed(host) => host.as_bytes(),
            },
            options: self.options,
            upgrade,
            coding,
            close: group.closes_connections(),
            drop_underscores: self.lane.config.limits.underscores == Underscores::Drop,
            origin: Origin {
                peer: self.client.peer_text.as_bytes(),
                trusted: self.client.trusted,
                client: self.origin,
                scheme: "http",
            },
        }
        .write(self.lane.disclosure, &mut outgoing);
        let key = group
            .hash_by
            .as_ref()
            .and_then(|by| hash_key::of(by, client, &target, head, bytes));
        Ok(request.insert(Request {
            group,
            outgoing,
            host_at,
            upload: Upload::new(
                Reader::new(framing),
                coding,
                self.lane.config.limits.body_bytes,
                group.retry_body_bytes,
            ),
            traits: self.traits(method, upgrade.is_some(), group),
            client,
            key,
            record: self.record(|| host),
            started: Instant::now(),
        }))
    }

    fn traits(&self, method: &[u8], upgrade: bool, group: &Group) -> Traits {
        Traits {
            to_head: method == b"HEAD",
            idempotent: matches!(
                method,
                b"GET" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE"
            ),
            minor: self.head.minor,
            persistent: self.options.persistent(self.head.minor),
            upgrade,
            bond: group
                .sticky
                .as_ref()
                .and_then(|sticky| sticky::bond(sticky, self.head, self.bytes)),
        }
    }

    /// How the body goes on. Where names with underscores must not, trailer fields stay behind, which is always allowed (RFC 9110
    /// section 6.5.1): they come when the head has left, so that refusing them would often come too late.
    fn coding(&self, framing: Framing) -> Coding {
        match (framing, self.lane.config.limits.underscores) {
            (Framing::Chunked, Underscores::Pass) => Coding::chunked(self.options),
            (Framing::Chunked, _) => Coding::Chunked,
            _ => Coding::Identity,
        }
    }

    /// HTTP/1.0 does not have it (RFC 9110 section 10.1.1).
    fn expects_continue(&self) -> bool {
        self.head.minor > 0 && self.head.fields.has(Name::Expect)
    }

    /// Only `100-continue` is known.
    fn check_expectation(&self) -> Result<(), Refusal> {
        let mut values = self
            .head
            .fields
            .named(Name::Expect)
            .map(|field| field.value.of(self.bytes));
        if values.all(|value| value.eq_ignore_ascii_case(b"100-continue")) {
            Ok(())
        } else {
            Err(Refusal::Expectation)
        }
    }

    #[cold]
    fn check_names(&self) -> Result<(), Refusal> {
        let mut names = self
            .head
            .fields
            .iter()
            .map(|field| field.name.of(self.bytes));
        if names.any(|name| name.contains(&b'_')) {
            Err(Refusal::Underscore)
        } else {
            Ok(())
        }
    }

    fn check_length(&self, framing: Framing) -> Result<(), Stop> {
        let method = self.head.method.of(self.bytes);
        let declared = self.head.fields.has(Name::ContentLength);
        // RFC 1945 section 8.3: every HTTP/1.0 POST states its length; without one its end cannot be found.
        if self.head.minor == 0 && framing == Framing::Empty && !declared && method == b"POST" {
            let answer = Answer::new(411, "an HTTP/1.0 POST needs a Content-Length");
            return Err(self.reject(Framing::UntilClose, answer).into());
        }
        match (framing, self.lane.config.limits.body_bytes) {
            (Framing::Length(length), Some(max)) if length > max => {
                Err(self.reject(framing, TOO_LARGE).into())
            }
            _ => Ok(()),
        }
    }

    /// The host asked for: the target's authority, else the one Host field (RFC 9112 section 3.2).
    fn host<'a>(&'a self, target: &Target<'a>) -> Result<&'a [u8], Refusal> {
        let mut hosts = self
            .head
            .fields
            .named(Name::Host)
            .map(|field| field.value.of(self.bytes));
        match (hosts.next(), hosts.next()) {
            (_, Some(_)) => Err(Refusal::Host),
            (None, None) if self.head.minor > 0 => Err(Refusal::Host),
            (Some(host), None) if !is_authority(host) => Err(Refusal::Host),
            (host, None) => Ok(target.authority.or(host).unwrap_or_default()),
        }
    }

    /// The Upgrade value to pass on. Not `h2c`: a tunnel of HTTP/2 would carry requests past every rule here.
    fn upgrade(&self) -> Option<Span> {
        if !self.options.upgrade || self.head.minor == 0 {
            return None;
        }
        let mut fields = self.head.fields.named(Name::Upgrade);
        let (field, more) = (fields.next()?, fields.next());
        let h2c = list(field.value.of(self.bytes))
            .any(|protocol| protocol.len() >= 3 && protocol[..3].eq_ignore_ascii_case(b"h2c"));
        (more.is_none() && !h2c && !field.value.of(self.bytes).is_empty()).then_some(field.value)
    }

    fn record<'b>(&self, host: impl FnOnce() -> &'b [u8]) -> Option<Box<RequestRecord>> {
        self.lane
            .access_log()
            .map(|_| Box::new(RequestRecord::new(self.head, self.bytes, host())))
    }

    fn reject_and_close(&self, framing: Framing, answer: Answer) -> Rejection {
        Rejection {
            persistent: false,
            ..self.reject(framing, answer)
        }
    }

    /// An answer to a well-formed request. The connection goes on when no body follows that would have to be read first.
    #[cold]
    fn reject(&self, framing: Framing, answer: Answer) -> Rejection {
        Rejection {
            answer,
            json: prefers_json(&self.head.fields, self.bytes),
            to_head: self.head.method.of(self.bytes) == b"HEAD",
            minor: self.head.minor,
            persistent: framing == Framing::Empty && self.options.persistent(self.head.minor),
            taken: self.bytes.len(),
            client: self.origin,
            record: self.record(|| self.told_host()),
        }
    }

    /// The host that a refused request asked for; empty where it is not known, as with several Host fields.
    #[cold]
    fn told_host(&self) -> &[u8] {
        let (method, target) = (self.head.method, self.head.target);
        let target = Target::parse(method.of(self.bytes), target.of(self.bytes));
        let authority = target.ok().and_then(|target| target.authority);
        let mut hosts = self.head.fields.named(Name::Host);
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.value.of(self.bytes),
            _ => b"",
        };
        authority.unwrap_or(host)
    }
}

/// RFC 9110 section 15.5.6: a 405 says what is allowed.
const METHOD_NOT_ALLOWED: Answer = Answer {
    status: 405,
    error: "CONNECT is not supported",
    field: Some((
        "Allow",
        "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE",
    )),
};
/// The answer to a body beyond the limit.
pub const TOO_LARGE: Answer = Answer::new(413, Refusal::BodyTooLarge.as_str());

impl Request<'_> {
    /// Whether an answer of ours is JSON: read again from the message for the upstream, which only a rare request has to pay for.
    pub fn wants_json(&self) -> bool {
        const ANY: Limits = Limits {
            head_bytes: usize::MAX,
            fields: usize::MAX,
            target_bytes: usize::MAX,
        };
        let mut head = RequestHead::default();
        // When the message is lost to a stalled server there are no fields, and JSON it is.
        let _ = head.parse(&self.outgoing, &ANY);
        prefers_json(&head.fields, &self.outgoing)
    }

    /// Puts the chosen server's own name into the Host field, where the configuration wants it there.
    pub fn set_host(&mut self, server: &Server) {
        if self.group.host == HostPolicy::Upstream {
            let end = self.host_at.start + server.host.len();
            self.outgoing
                .splice(self.host_at.clone(), server.host.bytes());
            self.host_at.end = end;
        }
    }
}
