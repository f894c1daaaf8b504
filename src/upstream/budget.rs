//! How many retries an upstream's servers are burdened with.

use std::cell::Cell;

/// Retries allowed beside the share, so that a quiet upstream has some too.
const RESERVE: u64 = 10;
/// What of the past still counts a second later: nine tenths, so that about ten seconds do.
const FADE: u64 = 10;

/// One shard's budget of retries for one upstream: a share of its recent requests, and a small reserve.
///
/// A share of the requests of some seconds, as in Finagle and Linkerd, not of those that run at this moment: when a server dies, all its
/// requests fail at once, and these are the very ones that another server can still answer.
#[derive(Debug)]
pub struct Budget {
    percent: u64,
    requests: Cell<u64>,
    retries: Cell<u64>,
}

impl Budget {
    /// Retries for `percent` of the requests.
    pub fn new(percent: u32) -> Self {
        Self {
            percent: percent.into(),
            requests: Cell::new(0),
            retries: Cell::new(0),
        }
    }

    /// Counts a request, not its retries.
    #[inline]
    pub fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// Takes a retry out of the budget. False when it is used up.
    pub fn take(&self) -> bool {
        let allowed = self.requests.get() * self.percent / 100 + RESERVE;
        let left = self.retries.get() < allowed;
        self.retries.set(self.retries.get() + u64::from(left));
        left
    }

    /// Lets the past count less. Called once a second.
    pub fn fade(&self) {
        for count in [&self.requests, &self.retries] {
            count.set(count.get() - count.get().div_ceil(FADE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &Budget, tries: usize) -> usize {
        (0..tries).filter(|_| budget.take()).count()
    }

    #[test]
    fn a_share_of_the_requests_and_the_reserve() {
        let budget = Budget::new(20);
        assert_eq!(taken(&budget, 100), 10, "the reserve alone");
        (0..1000).for_each(|_| budget.count_request());
        assert_eq!(taken(&budget, 1000), 200);
        assert!(!budget.take());
    }

    #[test]
    fn what_was_used_up_comes_back() {
        let budget = Budget::new(1);
        assert_eq!(taken(&budget, 100), 10);
        budget.fade();
        assert_eq!(taken(&budget, 100), 1, "a tenth of it after a second");
        (0..30).for_each(|_| budget.fade());
        assert_eq!(taken(&budget, 100), 10);
    }

    #[test]
    fn old_requests_allow_no_retries() {
        let budget = Budget::new(100);
        (0..1000).for_each(|_| budget.count_request());
        (0..60).for_each(|_| budget.fade());
        assert_eq!(taken(&budget, 1000), 10);
    }
}
