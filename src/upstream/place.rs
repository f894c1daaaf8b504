//! Where a server is: the addresses that its name leads to, and which of them a shard connects to.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
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
    /// What [`Choice::addresses`] is a copy of. Held, so that nothing else can be where it is while pointers are compared.
    seen: RefCell<Option<Arc<Vec<Address>>>>,
    addresses: RefCell<Addresses>,
    first: Cell<usize>,
    /// Connections that have come about.
    taken: Cell<u64>,
    /// Addresses that connections of the pool may lead to.
    used: RefCell<Vec<Address>>,
    /// The [`Addresses::number`] with which the pool was last renewed. The pool keeps no connection to earlier ones.
    renewed: Cell<u32>,
}

/// A server's addresses, in a shard's own copy: a connection takes no count of references that shards share.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    all: Rc<[Address]>,
    /// Which of those that the shard has had.
    number: u32,
}

impl Deref for Addresses {
    type Target = [Address];

    fn deref(&self) -> &[Address] {
        &self.all
    }
}

/// A connection on its way to one of a server's addresses.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// [`Addresses::number`].
    addresses: u32,
    index: usize,
    /// [`Choice::taken`] when it began.
    taken: u64,
}

impl Choice {
    /// The addresses as they are now, none while a name has not been resolved. When one is no more that was used, connections of the pool
    /// are not used again.
    pub fn update(&self, place: &Place, pool: &Pool) -> Addresses {
        let now = place.0.load();
        let mut seen = self.seen.borrow_mut();
        if seen.as_ref().map(Arc::as_ptr) != now.as_ref().map(Arc::as_ptr) {
            seen.clone_from(&now);
            self.change(now.as_ref().map_or(&[], |all| all.as_slice()));
        }
        let addresses = self.addresses.borrow().clone();
        let mut used = self.used.borrow_mut();
        if !used.iter().all(|one| addresses.contains(one)) {
            pool.renew();
            used.clear();
            self.renewed.set(addresses.number);
        }
        addresses
    }

    /// Takes over new addresses. The one that was tried first stays so, if it is among them.
    #[cold]
    fn change(&self, all: &[Address]) {
        let mut addresses = self.addresses.borrow_mut();
        let first = addresses.get(self.first.get());
        let at = all.iter().position(|one| Some(one) == first);
        self.first.set(at.unwrap_or(0));
        *addresses = Addresses {
            all: all.into(),
            number: addresses.number.wrapping_add(1),
        };
    }

    /// The indices of `count` addresses, in the order to try them.
    pub fn order(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.first.get();
        (0..count).map(move |turn| (first + turn) % count)
    }

    /// Begins to try one of these addresses, which may have changed since.
    pub fn begin(&self, addresses: &Addresses, index: usize) -> Attempt {
        // Before the connection is there: the address may be no more when it is.
        let mut used = self.used.borrow_mut();
        if addresses.number >= self.renewed.get() && !used.contains(&addresses[index]) {
            used.push(addresses[index].clone());
        }
        Attempt {
            addresses: addresses.number,
            index,
            taken: self.taken.get(),
        }
    }

    /// The connection has come about.
    pub fn succeeded(&self, attempt: Attempt) {
        self.taken.update(|taken| taken + 1);
        if self.addresses.borrow().number == attempt.addresses {
            self.first.set(attempt.index);
        }
    }

    /// It has not, and that is the server's doing. Where others have come about meanwhile, this one was an exception.
    pub fn failed(&self, attempt: Attempt) {
        let addresses = self.addresses.borrow();
        let now = (addresses.number, self.first.get(), self.taken.get());
        if now == (attempt.addresses, attempt.index, attempt.taken) {
            self.first.set((attempt.index + 1) % addresses.len());
        }
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

    fn pool() -> Pool {
        Pool::new(&config::Pool {
            max_idle: 1,
            idle_timeout: Duration::from_secs(1),
            max_age: None,
            max_requests: None,
        })
    }

    #[test]
    fn what_took_the_last_connection_is_tried_first() {
        let pool = pool();
        let (place, choice) = (Place::default(), Choice::default());
        assert_eq!(choice.update(&place, &pool).len(), 0);
        assert!(place.set([1, 2, 3].map(address).into()));
        let all = choice.update(&place, &pool);
        assert_eq!(order(&choice, &all), [0, 1, 2]);
        let (lost, other) = (choice.begin(&all, 0), choice.begin(&all, 0));
        choice.succeeded(other);
        choice.failed(lost);
        assert_eq!(order(&choice, &all), [0, 1, 2], "an exception");
        let failures = [(); 2].map(|()| choice.begin(&all, 0));
        for failure in failures {
            choice.failed(failure);
        }
        assert_eq!(order(&choice, &all), [1, 2, 0], "after failures");
        choice.succeeded(choice.begin(&all, 1));
        assert_eq!(order(&choice, &all), [1, 2, 0], "after a success");

        let old = choice.begin(&all, 2);
        let birth = pool.birth(0);
        assert!(!place.set([3, 1, 2].map(address).into()), "the same ones");
        assert!(place.set([4, 2, 1].map(address).into()));
        let all = choice.update(&place, &pool);
        assert_eq!(order(&choice, &all), [1, 2, 0], "it is still there");
        choice.succeeded(old);
        assert_eq!(order(&choice, &all), [1, 2, 0], "another has that place");
        assert_ne!(pool.birth(0), birth, "3 is no more");
        assert!(place.set([4, 2, 2].map(address).into()), "nor is 1");
        assert!(place.set([4, 5, 1].map(address).into()));
        let before = all;
        let all = choice.update(&place, &pool);
        assert_eq!(order(&choice, &all), [0, 1, 2], "it is no more");
        choice.succeeded(choice.begin(&before, 2));
        assert_eq!(
            order(&choice, &all),
            [0, 1, 2],
            "begun with what was there before"
        );
    }

    #[test]
    fn a_connect_from_before_a_move_renews_the_pool_no_more() {
        let pool = pool();
        let (place, choice) = (Place::default(), Choice::default());
        assert!(place.set([1, 2].map(address).into()));
        let before = choice.update(&place, &pool);
        choice.begin(&before, 0);
        assert!(place.set(vec![address(3)]));
        choice.begin(&choice.update(&place, &pool), 0);
        let birth = pool.birth(0);
        choice.begin(&before, 1);
        choice.update(&place, &pool);
        assert_eq!(pool.birth(0), birth);

        // Where the pool is as it was, the connection would stay.
        assert!(place.set([3, 4].map(address).into()));
        let before = choice.update(&place, &pool);
        assert!(place.set(vec![address(3)]));
        choice.update(&place, &pool);
        assert_eq!(pool.birth(0), birth, "4 was not used");
        choice.begin(&before, 1);
        choice.update(&place, &pool);
        assert_ne!(pool.birth(0), birth, "4 is no more");
    }
}
