//! Where a server is: the addresses that its name leads to, and which of them a shard connects to.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::pool::Pool;
use crate::net::connect::Address;

/// Where a server is now. Shards read it when they connect; the resolver alone writes it.
#[derive(Debug, Default)]
pub struct Place(ArcSwapOption<Vec<Address>>);

/// The places of all servers, by flat server index.
pub type Places = Arc<[Place]>;

impl Place {
    /// The addresses, at least one, in the order to try them; `None` while a name has not been resolved.
    pub fn get(&self) -> Option<Arc<Vec<Address>>> {
        self.0.load_full()
    }

    /// Replaces the addresses, of which there is at least one, unless these are the same in another order. Gives whether it did.
    pub(super) fn set(&self, addresses: Vec<Address>) -> bool {
        let is_same = self.0.load().as_deref().is_some_and(|present| {
            addresses.iter().all(|one| present.contains(one))
                && present.iter().all(|one| addresses.contains(one))
        });
        if !is_same {
            self.0.store(Some(Arc::new(addresses)));
        }
        !is_same
    }
}

/// One shard's choice among a server's addresses: the one that took the last connection goes on being tried first, and after one that took
/// none, the next.
#[derive(Debug, Default)]
pub struct Choice {
    addresses: RefCell<Option<Arc<Vec<Address>>>>,
    first: Cell<usize>,
    /// Connections that have come about.
    taken: Cell<u64>,
    /// Addresses that connections of the pool may lead to.
    used: RefCell<Vec<Address>>,
}

/// A connection on its way to one of a server's addresses.
#[derive(Debug)]
pub struct Attempt {
    addresses: Arc<Vec<Address>>,
    index: usize,
    /// [`Choice::taken`] when it began.
    since: u64,
}

impl Choice {
    /// The addresses as they are now. When one is no more that was used, connections of the pool are not used again.
    pub fn update(&self, place: &Place, pool: &Pool) -> Option<Arc<Vec<Address>>> {
        let now = place.get();
        let is_there = |one: &Address| now.iter().any(|all| all.contains(one));
        let mut used = self.used.borrow_mut();
        if !used.iter().all(is_there) {
            pool.renew();
            used.clear();
        }
        let before = self.addresses.replace(now.clone());
        if before != now {
            let first = before.as_ref().and_then(|all| all.get(self.first.get()));
            let at = now
                .iter()
                .flat_map(|all| all.iter())
                .position(|one| Some(one) == first);
            self.first.set(at.unwrap_or(0));
        }
        now
    }

    /// The indices of `count` addresses, in the order to try them.
    pub fn order(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.first.get();
        (0..count).map(move |turn| (first + turn) % count)
    }

    /// Begins to try one of the addresses.
    pub fn begin(&self, addresses: &Arc<Vec<Address>>, index: usize) -> Attempt {
        // Before the connection is there: the addresses may change meanwhile, and this one be no more.
        let mut used = self.used.borrow_mut();
        if !used.contains(&addresses[index]) {
            used.push(addresses[index].clone());
        }
        Attempt {
            addresses: Arc::clone(addresses),
            index,
            since: self.taken.get(),
        }
    }

    /// The connection has come about.
    pub fn succeeded(&self, attempt: &Attempt) {
        self.taken.update(|taken| taken + 1);
        if self.knows(attempt) {
            self.first.set(attempt.index);
        }
    }

    /// It has not, and that is the server's doing. Where others have come about meanwhile, this one was an exception.
    pub fn failed(&self, attempt: &Attempt) {
        let is_first = self.first.get() == attempt.index && self.taken.get() == attempt.since;
        if is_first && self.knows(attempt) {
            self.first
                .set((attempt.index + 1) % attempt.addresses.len());
        }
    }

    /// Whether the addresses are still those of the attempt.
    fn knows(&self, attempt: &Attempt) -> bool {
        let addresses = self.addresses.borrow();
        addresses
            .as_ref()
            .is_some_and(|all| Arc::ptr_eq(all, &attempt.addresses))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;

    fn address(last: u8) -> Address {
        Address::Socket(([127, 0, 0, last], 80).into())
    }

    fn order(choice: &Choice, addresses: &[Address]) -> Vec<usize> {
        choice.order(addresses.len()).collect()
    }

    #[test]
    fn what_took_the_last_connection_is_tried_first() {
        let pool = Pool::new(&config::Pool {
            max_idle: 1,
            idle_timeout: Duration::from_secs(1),
            max_age: None,
            max_requests: None,
        });
        let (place, choice) = (Place::default(), Choice::default());
        assert_eq!(choice.update(&place, &pool), None);
        assert!(place.set([1, 2, 3].map(address).into()));
        let all = choice.update(&place, &pool).expect("three");
        assert_eq!(order(&choice, &all), [0, 1, 2]);
        let (lost, other) = (choice.begin(&all, 0), choice.begin(&all, 0));
        choice.succeeded(&other);
        choice.failed(&lost);
        assert_eq!(order(&choice, &all), [0, 1, 2], "an exception");
        let failures = [(); 2].map(|()| choice.begin(&all, 0));
        for failure in &failures {
            choice.failed(failure);
        }
        assert_eq!(order(&choice, &all), [1, 2, 0], "after failures");
        choice.succeeded(&choice.begin(&all, 1));
        assert_eq!(order(&choice, &all), [1, 2, 0], "after a success");

        let old = choice.begin(&all, 2);
        let birth = pool.birth(0);
        assert!(!place.set([3, 1, 2].map(address).into()), "the same ones");
        assert!(place.set([4, 2, 1].map(address).into()));
        let all = choice.update(&place, &pool).expect("three");
        assert_eq!(order(&choice, &all), [1, 2, 0], "it is still there");
        choice.succeeded(&old);
        assert_eq!(order(&choice, &all), [1, 2, 0], "another has that place");
        assert_ne!(pool.birth(0), birth, "3 is no more");
        assert!(place.set([4, 2, 2].map(address).into()), "nor is 1");
        assert!(place.set([4, 5, 1].map(address).into()));
        let all = choice.update(&place, &pool).expect("three");
        assert_eq!(order(&choice, &all), [0, 1, 2], "it is no more");
    }
}
