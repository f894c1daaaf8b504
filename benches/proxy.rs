//! The whole proxy over loopback: a client, one shard and an origin, all in this process.
//!
//! One request at a time shows the latency, 32 at once what the shard does when it always has work. For figures to compare with other
//! proxies see `scripts/compare`: here client, proxy and origin share the machine's cores as the kernel likes.

#![allow(missing_docs)] // criterion_group makes a public function

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlane::config::Config;
use ringlane::origin;
use ringlane::server::{Server, TERMINAL_SIGNALS};

/// A stuck exchange fails the bench instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts an origin and the proxy in front of it. They live as long as the process; a signal ends both.
fn start() -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let origin = origin::spawn(any, "a".to_owned(), None).expect("an origin");
    let config = format!(
        "shards = 1\npin = false\n[admin]\nenabled = false\n[[listen]]\naddress = \"{any}\"\n\
         [[upstream]]\nname = \"a\"\nserver = [ {{ address = \"{origin}\" }} ]\n"
    );
    let config = Config::parse(&config, "bench").expect("a valid configuration");
    let server = Server::start(config, &TERMINAL_SIGNALS).expect("a server");
    let proxy = server.listening()[0];
    std::thread::spawn(move || {
        server.wait();
        std::process::exit(130);
    });
    proxy
}

/// A keep-alive connection that asks for the same thing again and again.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
    /// Bytes of one answer, which are the same each time but for the date.
    answer_bytes: usize,
}

impl Connection {
    /// Connects and learns how long an answer is.
    fn open(proxy: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(proxy).expect("the proxy listens");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        let mut connection = Self {
            stream,
            request: format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes(),
            buffer: vec![0; 256 * 1024],
            answer_bytes: 0,
        };
        connection.send();
        connection.answer_bytes = connection.first_answer();
        connection
    }

    fn send(&mut self) {
        self.stream
            .write_all(&self.request)
            .expect("a request is sent");
    }

    fn receive(&mut self) {
        let answer = &mut self.buffer[..self.answer_bytes];
        self.stream.read_exact(answer).expect("a whole answer");
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
    }

    /// Reads an answer by its Content-Length.
    fn first_answer(&mut self) -> usize {
        let mut received = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[received..]);
            let read = read.expect("an answer");
            assert!(read > 0, "the proxy closed the connection");
            received += read;
            let text = String::from_utf8_lossy(&self.buffer[..received]);
            if let Some((head, _)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Content-Length: "));
                let length: usize = length.and_then(|text| text.parse().ok()).expect("a length");
                let whole = head.len() + 4 + length;
                self.stream
                    .read_exact(&mut self.buffer[received..whole])
                    .expect("the rest of the answer");
                return whole;
            }
        }
    }
}

/// Time for `requests` in all, one at a time on each of `connections`.
fn exchange(connections: &mut [Connection], requests: u64) -> Duration {
    let start = Instant::now();
    let mut left = requests;
    while left > 0 {
        let round = left.min(connections.len() as u64);
        let busy = &mut connections[..round as usize];
        busy.iter_mut().for_each(Connection::send);
        busy.iter_mut().for_each(Connection::receive);
        left -= round;
    }
    start.elapsed()
}

fn proxy(criterion: &mut Criterion) {
    let proxy = start();
    for (name, path, bytes) in [("small", "/", 0), ("16 KiB", "/bytes/16384", 16_384)] {
        let mut group = criterion.benchmark_group(format!("proxy/{name}"));
        group.measurement_time(Duration::from_secs(3));
        group.throughput(if bytes == 0 {
            Throughput::Elements(1)
        } else {
            Throughput::Bytes(bytes)
        });
        for count in [1, 32] {
            let mut connections: Vec<Connection> =
                (0..count).map(|_| Connection::open(proxy, path)).collect();
            group.bench_function(format!("{count} at once"), |bencher| {
                bencher.iter_custom(|requests| exchange(&mut connections, requests));
            });
        }
    }
}

criterion_group!(whole, proxy);
criterion_main!(whole);
