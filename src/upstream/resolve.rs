//! Host names of servers. getaddrinfo(3) blocks, so each lookup has a thread of its own: a name whose name server is silent holds up nothing
//! but itself.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::place::{Place, Places};
use crate::config::{Config, ServerAddress};
use crate::net::connect::Address;

/// How soon a name that could not be resolved is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long the start waits for names: longer than resolv.conf(5) lets a dead name server take before the next one is asked. Places of the
/// others are filled in later.
const START_WAIT: Duration = Duration::from_secs(6);
/// Lookups at once.
const LOOKUPS_MAX: usize = 64;

type Answer = io::Result<Vec<SocketAddr>>;
/// Resolves a host name and a port.
type Lookup = fn(&str, u16) -> Answer;

/// What one lookup serves.
#[derive(Debug)]
struct Name {
    host: String,
    port: u16,
    every: Option<Duration>,
    /// Of all servers that have it.
    places: Vec<usize>,
    /// When it is looked up next; `None` while it is, and when it has its addresses for good.
    due: Option<Instant>,
    /// Whether there was an answer, be it an error.
    tried: bool,
}

/// Has names looked up when they are due.
#[derive(Debug)]
struct Resolver {
    names: Vec<Name>,
    places: Places,
    lookup: Lookup,
    under_way: usize,
    /// Lookups that have ended, by index of the name.
    answers: Receiver<(usize, Answer)>,
    /// Where lookups send them.
    answer: Sender<(usize, Answer)>,
}

/// Fills in the addresses that need no resolving, resolves the others once, waiting for a short time, and goes on resolving those that have
/// none yet and those whose upstream asks for it.
pub fn start(config: &Config) -> io::Result<Places> {
    let servers = || {
        config.upstreams.iter().flat_map(|upstream| {
            upstream
                .servers
                .iter()
                .map(move |server| (upstream, server))
        })
    };
    let places: Places = servers().map(|_| Place::default()).collect();
    let mut resolver = Resolver::new(Arc::clone(&places), look_up);
    for (index, (upstream, server)) in servers().enumerate() {
        match &server.address {
            ServerAddress::Socket(address) => {
                places[index].set(vec![Address::Socket(*address)]);
            }
            ServerAddress::Unix(path) => {
                places[index].set(vec![Address::Unix(path.clone())]);
            }
            ServerAddress::Name(host, port) => {
                resolver.add(host, *port, upstream.resolve, index);
            }
        }
    }
    resolver.start(START_WAIT)?;
    Ok(places)
}

fn look_up(host: &str, port: u16) -> Answer {
    (host, port).to_socket_addrs().map(each_once)
}

/// getaddrinfo(3) gives an address once for each line of hosts(5) that has it; tried again at once it would fail again.
fn each_once(answer: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in answer {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

impl Resolver {
    fn new(places: Places, lookup: Lookup) -> Self {
        let (answer, answers) = mpsc::channel();
        Self {
            names: Vec::new(),
            places,
            lookup,
            under_way: 0,
            answers,
            answer,
        }
    }

    fn add(&mut self, host: &str, port: u16, every: Option<Duration>, place: usize) {
        let is_same =
            |name: &&mut Name| (name.host.as_str(), name.port, name.every) == (host, port, every);
        if let Some(name) = self.names.iter_mut().find(is_same) {
            name.places.push(place);
        } else {
            self.names.push(Name {
                host: host.to_owned(),
                port,
                every,
                places: vec![place],
                due: Some(Instant::now()),
                tried: false,
            });
        }
    }

    /// Looks up all names, waits until each had an answer, at most for `wait`, and leaves what remains to a thread.
    fn start(mut self, wait: Duration) -> io::Result<()> {
        let until = Instant::now() + wait;
        while self.names.iter().any(|name| !name.tried) && Instant::now() < until {
            self.turn(until);
        }
        if self.has_more() {
            thread::Builder::new()
                .name("resolver".to_owned())
                .spawn(move || {
                    while self.has_more() {
                        self.turn(Instant::now() + RETRY);
                    }
                })?;
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.under_way > 0 || self.names.iter().any(|name| name.due.is_some())
    }

    /// Begins what is due and waits for the next answer, until another name is due or `until`.
    fn turn(&mut self, mut until: Instant) {
        while self.under_way < LOOKUPS_MAX {
            let due = self.names.iter().enumerate();
            let due = due.filter_map(|(index, name)| Some((name.due?, index)));
            match due.min() {
                Some((due, index)) if due <= Instant::now() => self.begin(index),
                Some((due, _)) => {
                    until = until.min(due);
                    break;
                }
                None => break,
            }
        }
        let wait = until.saturating_duration_since(Instant::now());
        // Without an answer it is time for the next turn.
        if let Ok((index, answer)) = self.answers.recv_timeout(wait) {
            self.under_way -= 1;
            self.names[index].answered(answer, &self.places);
        }
    }

    fn begin(&mut self, index: usize) {
        let name = &mut self.names[index];
        let (host, port) = (name.host.clone(), name.port);
        let (lookup, answer) = (self.lookup, self.answer.clone());
        let thread = thread::Builder::new().name("lookup".to_owned());
        // The receiver is gone only when the process is about to be.
        let spawned = thread.spawn(move || drop(answer.send((index, lookup(&host, port)))));
        match spawned {
            Ok(_) => {
                name.due = None;
                self.under_way += 1;
            }
            Err(error) => name.answered(Err(error), &self.places),
        }
    }
}

impl Name {
    fn answered(&mut self, answer: Answer, places: &Places) {
        self.tried = true;
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                let text = format!("{addresses:?}");
                let addresses: Vec<_> = addresses.into_iter().map(Address::Socket).collect();
                let mut is_new = false;
                for place in &self.places {
                    is_new |= places[*place].set(addresses.clone());
                }
                if is_new {
                    tracing::info!(host = %self.host, addresses = %text, "resolved");
                }
                // Without a setting to resolve again, a name is done once it has an address.
                self.due = self.every.map(|every| Instant::now() + every);
            }
            Ok(_) => self.failed("no addresses"),
            Err(error) => self.failed(&error.to_string()),
        }
    }

    /// The last known addresses stay in use.
    fn failed(&mut self, why: &str) {
        tracing::warn!(host = %self.host, error = why, "cannot be resolved; trying again");
        self.due = Some(Instant::now() + RETRY);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    use super::*;

    #[test]
    fn an_address_counts_once() {
        let all = [2, 2, 1, 2, 3].map(|last| SocketAddr::from(([127, 0, 0, last], 80)));
        assert_eq!(each_once(all.into_iter()), [all[0], all[2], all[4]]);
    }

    /// Where the names lead that have an answer; to nobody at 0.
    static LAST: AtomicU8 = AtomicU8::new(1);

    fn scripted(host: &str, port: u16) -> Answer {
        while host.starts_with("silent") || LAST.load(Relaxed) == 0 {
            thread::park();
        }
        look_up(&format!("127.0.0.{}", LAST.load(Relaxed)), port)
    }

    #[test]
    fn a_silent_name_server_holds_up_no_other_name() {
        let places: Places = (0..5).map(|_| Place::default()).collect();
        let mut resolver = Resolver::new(Arc::clone(&places), scripted);
        let every = Some(Duration::from_millis(10));
        for (place, host) in ["silent1", "silent2", "quick", "once", "quick"]
            .into_iter()
            .enumerate()
        {
            let every = if host == "once" { None } else { every };
            resolver.add(host, 80, every, place);
        }
        assert_eq!(resolver.names.len(), 4, "a name is looked up once");
        let leads_to = |place: usize| places[place].get().map(|all| all[0].clone());
        let address = |last| Some(Address::Socket(([127, 0, 0, last], 80).into()));
        let since = Instant::now();
        resolver.start(Duration::from_secs(1)).expect("a thread");
        assert!(since.elapsed() >= Duration::from_secs(1), "all are awaited");
        assert_eq!(
            [0, 1, 2, 3, 4].map(leads_to),
            [None, None, address(1), address(1), address(1)]
        );

        LAST.store(2, Relaxed);
        while [2, 4].map(leads_to) != [address(2), address(2)] {
            assert!(since.elapsed() < Duration::from_secs(60), "it has moved");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(leads_to(3), address(1), "not looked up again");
        // The resolver stays, and rests.
        LAST.store(0, Relaxed);
    }
}
