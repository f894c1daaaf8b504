//! One client connection from accept to close.
//!
//! ```text
//!        ┌── idle: no buffer, no future but the outer one ◄──┐
//! accept ┘    │ bytes                                        │ nothing more is there
//!             ▼                                              │
//!          active: head ──> exchange ──> next head ... ──────┘
//!             │ close, error, timeout
//!             ▼
//!          linger ──> closed
//! ```

use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::exchange::attempt;
use crate::exchange::client::{After, Client};
use crate::exchange::conclusion;
use crate::exchange::lane::{Held, Lane};
use crate::exchange::rare::rare;
use crate::exchange::record::{self, Outcome};
use crate::exchange::request::{self, Rejection, Request};
use crate::http1::answer::{Answer, Form};
use crate::http1::head::{RequestHead, empty_lines};
use crate::net::deadline::{Interrupt, Slot, Ticks};
use crate::net::prefetch::prefetch;
use crate::net::socket::Peek;
use crate::telemetry::counters::TimeoutKind;

/// How long a closing connection waits for the client to have read the answer.
const LINGER_FOR: Duration = Duration::from_secs(2);
/// How long a connection without a request may still send one when the process drains.
const DRAIN_GRACE: Duration = Duration::from_millis(500);
/// Bytes that a closing connection reads and drops at most.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Room for the next bytes of a head that did not come whole.
const HEAD_STEP_BYTES: usize = 4 * 1024;
/// Pipelined requests of one connection that are served before others have their turn.
const TURN_REQUESTS: u64 = 16;

/// Serves a connection until it ends.
#[allow(clippy::manual_async_fn)] // an async function would hold its arguments twice, for every idle connection
pub fn run(lane: Rc<Lane>, client: Client) -> impl Future<Output = ()> {
    async move {
        client
            .deadline
            .set(Slot::Request, lane.timeouts.client_header);
        loop {
            // Waits for the first byte of a request.
            let readable = client.readable(&lane);
            let begun = match client.deadline.guard_idle(readable).await {
                Ok(ready) => ready.is_ok(),
                Err(why) => rare(begins_late(&lane, &client, why)).await,
            };
            if !begun {
                break;
            }
            // The active part is large; an idle connection must not hold the room for it.
            // It is written to its place: moved into a box, it would be copied whole, with all that is not yet set.
            let active = Box::write(Box::new_uninit(), active(&lane, &client));
            let state = &raw const *active;
            let mut active = Box::into_pin(active);
            // Each time it goes on, others have had the cache meanwhile.
            let after = poll_fn(move |cx| {
                prefetch(state);
                active.as_mut().poll(cx)
            })
            .await;
            if after != After::KeepAlive {
                return rare(close(&lane, &client, after)).await;
            }
        }
        count_end(&lane, &client);
        if lane.deadlines.draining() && client.socket.has_unsent() {
            // A request that crosses the close would have the kernel drop the rest of the last answer.
            rare(linger(&lane, &client)).await;
        }
    }
}

/// Whether a request begins after all: not when none came in time; but when the process drains, one that has arrived is served, and a
/// client that has just been accepted may send its first one.
async fn begins_late(lane: &Lane, client: &Client, why: Interrupt) -> bool {
    match why {
        Interrupt::Overdue => false,
        Interrupt::Drain if client.requests.get() > 0 => client.socket.peek() == Peek::Bytes,
        Interrupt::Drain => {
            client.deadline.set(Slot::Request, DRAIN_GRACE.into());
            let ready = client
                .deadline
                .guard(Slot::Request, client.socket.readable());
            let begun = matches!(ready.await, Ok(Ok(())));
            if begun {
                // The grace was for the first byte only.
                let patience = lane.timeouts.client_header;
                client.deadline.set(Slot::Request, patience);
            } else {
                // The drain ends it, and no timeout of the client's.
                client.deadline.clear(Slot::Request);
            }
            begun
        }
    }
}

/// Counts what ended a connection with nothing to do.
fn count_end(lane: &Lane, client: &Client) {
    if client.deadline.is_overdue(Slot::Request) {
        let first = client.requests.get() == 0;
        let kind = if first {
            TimeoutKind::ClientHeader
        } else {
            TimeoutKind::KeepAlive
        };
        lane.counters.timeout(kind).inc();
    }
}

/// Serves the requests that have come. [`After::KeepAlive`] when no byte of a further one is there.
#[allow(clippy::manual_async_fn)] // an async function would hold its arguments twice, for every exchange
fn active(lane: &Lane, client: &Client) -> impl Future<Output = After> {
    async move {
        loop {
            let after = {
                let _active = Held::new(&lane.counters.active);
                let mut request = None;
                let ended = match first(lane, client, &mut request) {
                    Ok(Step::Complete) => None,
                    Ok(Step::Nothing) => return unasked(lane, client),
                    read => rare(late(lane, client, read, &mut request)).await,
                };
                match (ended, &mut request) {
                    (None, Some(request)) => {
                        lane.counters.requests.inc();
                        client.requests.set(client.requests.get() + 1);
                        #[cfg(debug_assertions)]
                        crate::exchange::fault::provoke(lane, request);
                        let _in_flight = lane
                            .gate
                            .as_ref()
                            .map(|_| Held::new(&lane.counters.in_flight));
                        let after = attempt::run(lane, client, request).await;
                        client.deadline.set(Slot::Request, lane.timeouts.keep_alive);
                        after
                    }
                    (ended, _) => ended.unwrap_or(After::Close),
                }
            };
            if after != After::KeepAlive {
                return after;
            }
            if client.pending.borrow().is_empty() {
                return After::KeepAlive;
            }
            if client.requests.get().is_multiple_of(TURN_REQUESTS) {
                rare(give_way(lane, client)).await;
            }
        }
    }
}

/// Where a connection goes that sent nothing but empty lines: back to rest, and its time runs on. A drain waits for requests only.
#[cold]
fn unasked(lane: &Lane, client: &Client) -> After {
    match lane.deadlines.draining() {
        false => After::KeepAlive,
        true if client.socket.has_unsent() => After::Linger,
        true => After::Close,
    }
}

/// Lets the shard's other connections go on between pipelined requests: those that we answer ourselves wait for nobody. A wait for
/// room in the socket takes a loop turn, and room is needed anyway.
async fn give_way(lane: &Lane, client: &Client) {
    client.deadline.set(Slot::Response, lane.timeouts.write);
    let room = client.socket.writable();
    // What went wrong shows when the next answer is sent.
    let _ = client.deadline.guard(Slot::Response, room).await;
    client.deadline.clear(Slot::Response);
}

/// How far the reading of a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A request is there.
    Complete,
    /// A head has come in part.
    More,
    /// No head has begun.
    Nothing,
    /// The client is gone.
    Gone,
}

/// Reads what is there: pipelined bytes, else one receive. What does not belong to the request is kept pending.
fn first<'l>(
    lane: &'l Lane,
    client: &Client,
    request: &mut Option<Request<'l>>,
) -> Result<Step, Box<Rejection>> {
    let mut head = lane.request_head();
    if !client.pending.borrow().is_empty() {
        return from_pending(lane, client, &mut head, request);
    }
    lane.with_scratch(|scratch| {
        match client.receive(lane, scratch) {
            Ok(Some(0)) | Err(_) => return Ok(Step::Gone),
            Ok(None) => return Ok(Step::Nothing),
            Ok(Some(_)) => {}
        }
        let (step, taken) = read(lane, client, &mut head, scratch, request);
        if taken < scratch.len() {
            client
                .pending
                .borrow_mut()
                .extend_from_slice(&scratch[taken..]);
        }
        step
    })
}

fn from_pending<'l>(
    lane: &'l Lane,
    client: &Client,
    head: &mut RequestHead,
    request: &mut Option<Request<'l>>,
) -> Result<Step, Box<Rejection>> {
    let mut pending = client.pending.borrow_mut();
    let (step, taken) = read(lane, client, head, &pending, request);
    pending.drain(..taken);
    if pending.is_empty() {
        // An idle connection holds no buffer.
        *pending = Vec::new();
    }
    step
}

/// What `bytes` begin with, and how many of them it took. A request that is refused takes its bytes too: the next one follows them. Empty
/// lines before it are ignored; they are taken even when no head follows yet, so that nothing is pending then.
#[inline]
fn read<'l>(
    lane: &'l Lane,
    client: &Client,
    head: &mut RequestHead,
    bytes: &[u8],
    request: &mut Option<Request<'l>>,
) -> (Result<Step, Box<Rejection>>, usize) {
    let lines = empty_lines(bytes);
    let (step, taken) = match &bytes[lines..] {
        b"" => (Ok(Step::Nothing), 0),
        b"\r" => (Ok(Step::More), 0),
        rest => match request::read(lane, client, head, rest, request) {
            Ok(Some(taken)) => (Ok(Step::Complete), taken),
            Ok(None) => (Ok(Step::More), 0),
            Err(rejection) => {
                let taken = rejection.taken;
                (Err(rejection), taken)
            }
        },
    };
    (step, lines + taken)
}

/// Goes on where no request could be read at once. Gives what becomes of the connection when none comes after all.
async fn late<'l>(
    lane: &'l Lane,
    client: &Client,
    mut read: Result<Step, Box<Rejection>>,
    request: &mut Option<Request<'l>>,
) -> Option<After> {
    if matches!(read, Ok(Step::More)) {
        read = rest(lane, client, request).await;
    }
    match read {
        Ok(Step::Complete) => None,
        Ok(Step::Nothing) => Some(unasked(lane, client)),
        Ok(Step::More | Step::Gone) => Some(After::Close),
        Err(rejection) => Some(reject(lane, client, &rejection).await),
    }
}

/// Waits for the rest of a head. What has come of it is read once more, and from then on nothing twice.
async fn rest<'l>(
    lane: &'l Lane,
    client: &Client,
    request: &mut Option<Request<'l>>,
) -> Result<Step, Box<Rejection>> {
    let mut head = RequestHead::default();
    // The first request's time began with the connection.
    let mut timed = client.requests.get() == 0;
    loop {
        // Half of an empty line begins nothing: the connection is still at rest.
        let begun = *client.pending.borrow() != b"\r";
        if begun {
            check_memory(lane, client)?;
            if !std::mem::replace(&mut timed, true) {
                client
                    .deadline
                    .set(Slot::Request, lane.timeouts.client_header);
            }
        }
        let readable = client.readable(lane);
        let wait = if begun {
            client.deadline.guard(Slot::Request, readable)
        } else {
            client.deadline.guard_idle(readable)
        };
        match wait.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(Step::Gone),
            Err(_) if begun => return Err(Box::new(overdue(lane, client))),
            Err(_) => {
                client.pending.take();
                return Ok(Step::Nothing);
            }
        }
        if !receive_more(lane, client) {
            return Ok(Step::Gone);
        }
        match from_pending(lane, client, &mut head, request)? {
            Step::More => {}
            step => return Ok(step),
        }
    }
}

/// Adds what is there to what is pending. False when the connection is at its end.
fn receive_more(lane: &Lane, client: &Client) -> bool {
    let mut pending = client.pending.borrow_mut();
    pending.reserve(HEAD_STEP_BYTES);
    !matches!(client.receive(lane, &mut pending), Ok(Some(0)) | Err(_))
}

/// Refuses a head that has begun while memory is short: the rest of it would take more.
fn check_memory(lane: &Lane, client: &Client) -> Result<(), Box<Rejection>> {
    lane.memory.as_ref().map_or(Ok(()), |memory| {
        let admitted = memory.admit_more(lane);
        admitted.map_err(|answer| Box::new(Rejection::of_unread(answer, &client.pending.borrow())))
    })
}

/// The head did not come in time.
fn overdue(lane: &Lane, client: &Client) -> Rejection {
    lane.counters.timeout(TimeoutKind::ClientHeader).inc();
    let answer = Answer::new(408, "request head did not come in time");
    Rejection::of_unread(answer, &client.pending.borrow())
}

async fn reject(lane: &Lane, client: &Client, rejection: &Rejection) -> After {
    let started = Instant::now();
    lane.counters.requests.inc();
    client.requests.set(client.requests.get() + 1);
    let form = Form {
        json: rejection.json,
        to_head: rejection.to_head,
        persistent: rejection.persistent && !client.is_leaving(lane),
        minor: rejection.minor,
    };
    let (after, body_bytes_sent) =
        conclusion::send_answer(lane, client, rejection.answer, form).await;
    let outcome = Outcome {
        status: rejection.answer.status,
        body_bytes_sent,
        ..Outcome::default()
    };
    record::write(
        lane,
        rejection.client.unwrap_or(client.peer),
        rejection.record.as_deref(),
        &outcome,
        started,
    );
    client.deadline.set(Slot::Request, lane.timeouts.keep_alive);
    after
}

/// Ends a connection.
async fn close(lane: &Lane, client: &Client, after: After) {
    match after {
        After::Reset => client.socket.reset_on_close(),
        After::Linger => linger(lane, client).await,
        After::Close | After::KeepAlive => {}
    }
}

/// Says that no more comes, then reads until the client has closed too: a close with unread bytes is a reset, and a reset can take the
/// answer with it before the client has read it (RFC 9112 section 9.6).
async fn linger(lane: &Lane, client: &Client) {
    client.socket.shutdown_write();
    // Nobody reads it any more, and memory may be short.
    client.pending.take();
    client.deadline.set(Slot::Request, Ticks::from(LINGER_FOR));
    client.discard(lane, LINGER_BYTES_MAX).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function gives.
    const fn size_of_given<A, B, F>(_: &impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// What an idle connection keeps, and what it takes for each request. The allocator has a short way for blocks of up to a kilobyte.
    #[test]
    fn futures_stay_small() {
        let sizes = [size_of_given(&run), size_of_given(&active)];
        assert!(sizes[0] <= 336 && sizes[1] <= 1024, "{sizes:?}");
    }
}
