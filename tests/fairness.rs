//! Nobody has a shard for itself: peers that are always ready leave the others their turns.

mod support;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Config, Mode, Origin, Proxy, Wire, in_each_mode, ok};

in_each_mode!(pipelined_requests_that_are_refused, an_answer_without_end,);

/// How long a peer is always ready: not for ever, so that a shard that serves nobody else fails the test instead of hanging it.
const BUSY: Duration = Duration::from_secs(8);
/// A request of somebody else takes at most this long: turns of the one who is always ready take milliseconds, a second or two on a
/// machine that is busy itself.
const TURN: Duration = Duration::from_secs(4);

/// While `busy` goes on, others are served, and served soon.
fn expect_turns(proxy: &Proxy, busy: impl FnOnce(&AtomicBool) + Send) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| busy(&over));
        thread::sleep(support::QUIET);
        let slowest = (0..5).map(|_| {
            let start = Instant::now();
            assert_eq!(proxy.get("/a").status, 200);
            start.elapsed()
        });
        let slowest = slowest.max().expect("five of them");
        over.store(true, Ordering::SeqCst);
        assert!(slowest < TURN, "{slowest:?}");
    });
}

/// Sends `bytes` again and again and reads all that comes.
fn exchange_for_ever(wire: &Wire, bytes: &[u8], over: &AtomicBool) {
    let (mut sending, mut receiving) = (wire.socket(), wire.socket());
    let end = Instant::now() + BUSY;
    let goes_on = || !over.load(Ordering::SeqCst) && Instant::now() < end;
    thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on() && sending.write_all(bytes).is_ok() {}
            let _ = wire.socket().shutdown(std::net::Shutdown::Both);
        });
        let mut buffer = vec![0; 1 << 20];
        while matches!(receiving.read(&mut buffer), Ok(1..)) {}
    });
}

fn pipelined_requests_that_are_refused(mode: Mode) {
    let served = Origin::bind().serve(|request| ok(&request.target));
    let proxy = Config::new(mode)
        .key("shards = 1")
        .named_upstream("app", &[&served.address], "")
        .tables("[[route]]\npath = \"/a\"\nupstream = \"app\"")
        .start();
    let client = proxy.connect();
    let requests = "GET /none HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
    expect_turns(&proxy, |over| {
        exchange_for_ever(&client, requests.as_bytes(), over);
    });
}

fn an_answer_without_end(mode: Mode) {
    let origin = Origin::bind();
    let served = Origin::bind().serve(|request| ok(&request.target));
    let proxy = Config::new(mode)
        .key("shards = 1")
        .named_upstream("app", &[&served.address], "")
        .named_upstream("busy", &[&origin.address], "")
        .tables("[[route]]\npath = \"/a\"\nupstream = \"app\"\n[[route]]\nupstream = \"busy\"")
        .start();
    let mut client = proxy.connect();
    client.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut sending = origin.accept();
    sending.request();
    sending.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunks = "1\r\nx\r\n".repeat(20_000);
    let mut reading = client.socket();
    expect_turns(&proxy, |over| {
        thread::scope(|scope| {
            scope.spawn(|| exchange_for_ever(&sending, chunks.as_bytes(), over));
            let mut buffer = vec![0; 1 << 20];
            while matches!(reading.read(&mut buffer), Ok(1..)) {}
        });
    });
}
