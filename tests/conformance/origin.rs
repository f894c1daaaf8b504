//! The scripted origin: takes down all that it gets, and answers as the case says.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::case::{OriginEnd, Script};
use super::message::{self, Message, Read};
use super::{PAUSE, PROBE_BODY};

/// What the origin saw of one case.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Whole requests in the order in which they were complete, without probes.
    pub(crate) requests: Vec<Message>,
    /// Targets of the probes that came.
    pub(crate) probes: Vec<String>,
    /// Bytes behind the last whole request, for each connection that has any.
    pub(crate) unfinished: Vec<Vec<u8>>,
    /// What cannot be the start of a request.
    pub(crate) malformed: Vec<String>,
    /// What came through a tunnel.
    pub(crate) tunnel: Vec<u8>,
}

/// What is going on.
#[derive(Default)]
struct Scene {
    /// Counts cases, so that connections of an earlier one keep out of the record.
    number: u64,
    scripts: Vec<Script>,
    /// Scripts in use.
    begun: usize,
    seen: Seen,
    connections: Vec<TcpStream>,
}

/// One origin. It listens for as long as the process runs.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    scene: Arc<Mutex<Scene>>,
}

impl Origin {
    pub(crate) fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let origin = Self {
            address: listener.local_addr()?,
            scene: Arc::default(),
        };
        let scene = Arc::clone(&origin.scene);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accept(stream, &scene);
            }
        });
        Ok(origin)
    }

    /// Begins a case.
    pub(crate) fn begin(&self, scripts: &[Script]) {
        let mut scene = lock(&self.scene);
        scene.number += 1;
        scene.scripts = scripts.to_vec();
        scene.begun = 0;
        scene.seen = Seen::default();
    }

    /// Ends the case: all connections are closed. Gives what was seen.
    pub(crate) fn end(&self) -> Seen {
        let mut scene = lock(&self.scene);
        scene.number += 1;
        for connection in scene.connections.drain(..) {
            connection.shutdown(Shutdown::Both).ok();
        }
        std::mem::take(&mut scene.seen)
    }
}

fn lock(scene: &Mutex<Scene>) -> MutexGuard<'_, Scene> {
    scene.lock().expect("no panic while it is held")
}

fn accept(stream: TcpStream, scene: &Arc<Mutex<Scene>>) {
    stream.set_nodelay(true).ok();
    let mut held = lock(scene);
    let Ok(clone) = stream.try_clone() else {
        return;
    };
    held.connections.push(clone);
    let place = held.seen.unfinished.len();
    held.seen.unfinished.push(Vec::new());
    let connection = Connection {
        number: held.number,
        place,
        stream,
        scene: Arc::clone(scene),
        script: None,
        tunnel: false,
    };
    drop(held);
    std::thread::spawn(move || connection.run());
}

/// One connection of the proxy.
struct Connection {
    /// Of its case.
    number: u64,
    /// Of its unfinished bytes in the record.
    place: usize,
    stream: TcpStream,
    scene: Arc<Mutex<Scene>>,
    /// The script of the request that is coming in, once it has been answered early.
    script: Option<Script>,
    tunnel: bool,
}

impl Connection {
    fn run(mut self) {
        let mut unread = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = self.stream.read(&mut chunk) {
            unread.extend_from_slice(&chunk[..count]);
            if !self.take(&mut unread) {
                return;
            }
        }
        // The scene still holds the socket.
        self.stream.shutdown(Shutdown::Both).ok();
    }

    /// Takes all whole requests from the start of `unread`. False when the connection is at its end.
    fn take(&mut self, unread: &mut Vec<u8>) -> bool {
        loop {
            if self.tunnel {
                let bytes = std::mem::take(unread);
                return self.record(|seen, _| seen.tunnel.extend(bytes));
            }
            match message::request(unread) {
                Read::Whole(request) => {
                    unread.drain(..request.raw.len());
                    if !self.answer(request) {
                        return false;
                    }
                }
                Read::Partial { head } => {
                    let bytes = unread.clone();
                    return self.record(|seen, place| seen.unfinished[place] = bytes)
                        && (!head || self.answer_early());
                }
                Read::Malformed(complaint) => {
                    let text = format!("{complaint}: {}", super::text::show(unread));
                    self.record(|seen, _| seen.malformed.push(text));
                    self.stream.shutdown(Shutdown::Both).ok();
                    return false;
                }
            }
        }
    }

    /// Writes to the record, unless the case is over.
    fn record(&self, write: impl FnOnce(&mut Seen, usize)) -> bool {
        let mut scene = lock(&self.scene);
        let current = scene.number == self.number;
        if current {
            write(&mut scene.seen, self.place);
        }
        current
    }

    fn next_script(&self) -> Script {
        let mut scene = lock(&self.scene);
        let script = scene.scripts.get(scene.begun).cloned();
        scene.begun += 1;
        script.unwrap_or_else(|| Script {
            pieces: vec![b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()],
            ..Script::default()
        })
    }

    fn answer(&mut self, request: Message) -> bool {
        let target = request.start.split(' ').nth(1).unwrap_or_default();
        if target.starts_with("/probe") {
            let target = target.to_owned();
            return self.record(|seen, place| {
                seen.unfinished[place].clear();
                seen.probes.push(target);
            }) && self.stream.write_all(&probe_answer()).is_ok();
        }
        let current = self.record(|seen, place| {
            seen.unfinished[place].clear();
            seen.requests.push(request);
        });
        match self.script.take() {
            _ if !current => false,
            Some(early) => early.end.is_none(),
            None => {
                let script = self.next_script();
                self.play(&script)
            }
        }
    }

    /// Answers a request whose body is still to come, when its script says so.
    fn answer_early(&mut self) -> bool {
        if self.script.is_some() {
            return true;
        }
        let early = {
            let scene = lock(&self.scene);
            scene
                .scripts
                .get(scene.begun)
                .is_some_and(|script| script.early)
        };
        if !early {
            return true;
        }
        let script = self.next_script();
        let goes_on = self.play(&script);
        self.script = Some(script);
        goes_on
    }

    /// Sends the answer piece by piece. False when the connection is at its end.
    fn play(&mut self, script: &Script) -> bool {
        for (at, piece) in script.pieces.iter().enumerate() {
            if at > 0 {
                std::thread::sleep(PAUSE);
            }
            if self.stream.write_all(piece).is_err() {
                return false;
            }
            self.tunnel |= piece.starts_with(b"HTTP/1.1 101 ");
        }
        match script.end {
            None => return true,
            Some(OriginEnd::Close) => {
                self.stream.shutdown(Shutdown::Both).ok();
            }
            Some(OriginEnd::Reset) => {
                // What was sent must have been read before, or the reset takes it along.
                std::thread::sleep(PAUSE);
                let socket = socket2::SockRef::from(&self.stream);
                socket.set_linger(Some(Duration::ZERO)).ok();
                // The clone in the scene would keep the socket open.
                lock(&self.scene)
                    .connections
                    .retain(|other| other.peer_addr().ok() != self.stream.peer_addr().ok());
            }
        }
        false
    }
}

fn probe_answer() -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{PROBE_BODY}",
        PROBE_BODY.len()
    )
    .into_bytes()
}
