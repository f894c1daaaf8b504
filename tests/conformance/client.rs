//! The client's side of a case: sends its bytes, then finds out whether both sides still agree where messages begin.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::case::{Case, Outcome, Step};
use super::message::{self, Conversation};
use super::origin::{Origin, Seen};
use super::{PAUSE, PROBE_BODY};

/// How long an answer is waited for before the next step. Longer than any answer takes that comes at all.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the end of a connection is waited for: longer than the timeouts of the proxies.
const END: Duration = Duration::from_secs(4);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// All that was seen of one case.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) origin: Seen,
    /// Answers on the case's connection, without the probe's.
    pub(crate) answers: Conversation,
    pub(crate) end: Option<End>,
    /// The probe on the same connection was answered as it should.
    pub(crate) went_on: bool,
    /// What was wrong with the answer to the probe on a connection of its own.
    pub(crate) poisoned: Option<String>,
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    end: Option<End>,
}

impl Client {
    fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            end: None,
        })
    }

    /// Sends; a peer that takes no more will be seen when reading.
    fn send(&mut self, bytes: &[u8]) {
        self.stream.set_write_timeout(Some(END)).ok();
        self.stream.write_all(bytes).ok();
    }

    /// Reads until `done` or the end of the connection or of `patience`.
    fn read_until(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        let mut chunk = vec![0; 64 * 1024];
        while self.end.is_none() && !done(self) {
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            self.stream.set_read_timeout(Some(left)).ok();
            match self.stream.read(&mut chunk) {
                Ok(0) => self.end = Some(End::Fin),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.end = Some(End::Reset),
            }
        }
    }

    fn answers(&self, methods: &[&str]) -> Conversation {
        message::answers(&self.received, methods, self.end == Some(End::Fin))
    }
}

/// Methods of the requests, as far as the case names them.
fn methods(case: &Case) -> Vec<&str> {
    let start = |wanted: &'_ super::case::Wanted| -> usize { wanted.start.find(' ').unwrap_or(0) };
    case.got
        .iter()
        .map(|wanted| &wanted.start[..start(wanted)])
        .collect()
}

/// Plays a case against the proxy at `address`, behind which is `origin`.
pub(crate) fn play(case: &Case, address: SocketAddr, origin: &Origin) -> Result<Observed, String> {
    origin.begin(&case.origin);
    let mut client =
        Client::connect(address).map_err(|error| format!("cannot connect: {error}"))?;
    let methods = methods(case);
    for step in &case.client {
        take_step(step, &mut client, &methods);
    }
    let wanted = if case.outcomes.contains(&Outcome::Passed) {
        case.answers.len()
    } else {
        case.before + 1
    };
    client.read_until(SETTLE, |client| {
        client.answers(&methods).messages.len() >= wanted
    });
    if case.tunnel.is_some() {
        // What goes through a tunnel has no answer that could be waited for.
        std::thread::sleep(PAUSE);
    }
    if case.probe && client.end.is_none() {
        client.send(b"GET /probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    }
    if case.tunnel.is_some() {
        client.stream.shutdown(Shutdown::Write).ok();
    }
    client.read_until(END, |_| false);
    let mut answers = client.answers(&methods);
    let went_on = case.probe && take_probe(&mut answers);
    let end = client.end;
    // A client that is gone for good, so that the proxy does not go on with what is unfinished.
    socket2::SockRef::from(&client.stream)
        .set_linger(Some(Duration::ZERO))
        .ok();
    drop(client);
    let poisoned = probe(address).err();
    let observed = Observed {
        origin: origin.end(),
        answers,
        end,
        went_on,
        poisoned,
    };
    std::thread::sleep(PAUSE / 4);
    Ok(observed)
}

fn take_step(step: &Step, client: &mut Client, methods: &[&str]) {
    match step {
        Step::Send(bytes) => client.send(bytes),
        Step::Pause => std::thread::sleep(PAUSE),
        Step::Await(count) => client.read_until(END, |client| {
            client.answers(methods).messages.len() >= *count
        }),
        Step::Finish => {
            client.stream.shutdown(Shutdown::Write).ok();
        }
    }
}

/// Takes the probe's answer off the end.
fn take_probe(answers: &mut Conversation) -> bool {
    let is_probe = answers
        .messages
        .last()
        .is_some_and(|last| last.start == "200" && last.body == PROBE_BODY.as_bytes());
    if is_probe {
        answers.messages.pop();
    }
    is_probe
}

/// A request on a connection of its own: its answer must be its own. A second try where there is none: the proxy may have
/// taken a connection that was just being closed.
fn probe(address: SocketAddr) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..2 {
        let mut client =
            Client::connect(address).map_err(|error| format!("cannot connect: {error}"))?;
        client.send(b"GET /probe-new HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.read_until(END, |_| false);
        let mut answers = client.answers(&["GET"]);
        if answers.messages.len() == 1 && answers.rest.is_empty() && take_probe(&mut answers) {
            return Ok(());
        }
        last = super::text::show(&client.received);
        let unanswered = client.received.is_empty() || client.received.starts_with(b"HTTP/1.1 502");
        if !unanswered {
            break;
        }
    }
    Err(format!("another client's request was answered {last}"))
}
