//! Host names of servers, resolved by a thread of their own: getaddrinfo(3) blocks.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::config::{Config, ServerAddress};
use crate::net::connect::Address;

/// Where a server is now. Shards read it when they connect; the resolver alone writes it.
#[derive(Debug, Default)]
pub struct Place(ArcSwapOption<Address>);

impl Place {
    /// The address; `None` while a name has not been resolved.
    pub fn get(&self) -> Option<Arc<Address>> {
        self.0.load_full()
    }

    fn set(&self, address: Address) -> bool {
        let changed = self.0.load().as_deref() != Some(&address);
        if changed {
            self.0.store(Some(Arc::new(address)));
        }
        changed
    }
}

/// The places of all servers, by flat server index.
pub type Places = Arc<[Place]>;

#[derive(Debug)]
struct Name {
    place: usize,
    host: String,
    port: u16,
    every: Option<Duration>,
    due: Instant,
}

/// Fills in the addresses that need no resolving, resolves the others once, and goes on resolving those whose upstream asks for it.
pub fn start(config: &Config) -> std::io::Result<Places> {
    let servers = || {
        config.upstreams.iter().flat_map(|upstream| {
            upstream
                .servers
                .iter()
                .map(move |server| (upstream, server))
        })
    };
    let places: Places = servers().map(|_| Place::default()).collect();
    let mut names = Vec::new();
    for (index, (upstream, server)) in servers().enumerate() {
        match &server.address {
            ServerAddress::Socket(address) => {
                places[index].set(Address::Socket(*address));
            }
            ServerAddress::Unix(path) => {
                places[index].set(Address::Unix(path.clone()));
            }
            ServerAddress::Name(host, port) => {
                names.push(Name {
                    place: index,
                    host: host.clone(),
                    port: *port,
                    every: upstream.resolve,
                    due: Instant::now(),
                });
            }
        }
    }
    for name in &mut names {
        name.resolve(&places);
    }
    names.retain(|name| name.every.is_some() || places[name.place].get().is_none());
    if !names.is_empty() {
        let places = Arc::clone(&places);
        std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || run(names, &places))?;
    }
    Ok(places)
}

impl Name {
    /// How soon a name that could not be resolved is tried again.
    const RETRY: Duration = Duration::from_secs(5);

    /// Keeps the present address when it is still among the answers, so that connections to it stay of use.
    fn resolve(&mut self, places: &Places) {
        let place = &places[self.place];
        let answer = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map(|addresses| addresses.map(Address::Socket).collect::<Vec<_>>());
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                let kept = place.get().filter(|present| addresses.contains(present));
                if kept.is_none() && place.set(addresses[0].clone()) {
                    tracing::info!(host = %self.host, address = ?addresses[0], "resolved");
                }
                self.due = Instant::now() + self.every.unwrap_or(Self::RETRY);
            }
            Ok(_) => self.failed("no addresses"),
            Err(error) => self.failed(&error.to_string()),
        }
    }

    /// The last known address stays in use.
    fn failed(&mut self, why: &str) {
        tracing::warn!(host = %self.host, error = why, "cannot be resolved; trying again");
        self.due = Instant::now() + Self::RETRY;
    }
}

fn run(mut names: Vec<Name>, places: &Places) {
    while !names.is_empty() {
        let next = names
            .iter()
            .map(|name| name.due)
            .min()
            .unwrap_or_else(Instant::now);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        for name in names.iter_mut().filter(|name| name.due <= Instant::now()) {
            name.resolve(places);
        }
        // Without a setting to resolve again, a name is done once it has an address.
        names.retain(|name| name.every.is_some() || places[name.place].get().is_none());
    }
}
