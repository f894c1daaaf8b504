//! When a server changes its state: the rules, without clock or socket.
//!
//! The entry in the table is the truth; a judge only remembers what led up to the next change. So a monitor that starts again
//! goes on from the table.

use std::collections::VecDeque;
use std::time::Duration;

use super::table::{Entry, LastProbe};
use super::{Cause, State};
use crate::config::{Check, Passive};

/// A new state and why.
pub(super) type Verdict = Option<(State, Cause)>;

/// What is remembered of one server between its changes of state.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// Whether the last probe succeeded, and how many in a row did so or did not.
    streak: (bool, u32),
    /// When requests failed, in milliseconds, oldest first; at most `fall` of them.
    failures: VecDeque<u64>,
}

impl Judge {
    /// A probe has ended. The first of all decides at once, so that a start does not take `fall` intervals to find a server that
    /// is down.
    pub(super) fn probed(
        &mut self,
        entry: &Entry,
        check: &Check,
        passive: Option<&Passive>,
        probe: LastProbe,
    ) -> Verdict {
        let ok = probe.result == Cause::ProbeOk;
        let (was_ok, times) = self.streak;
        self.streak = (
            ok,
            if ok == was_ok {
                times.saturating_add(1)
            } else {
                1
            },
        );
        let first = entry.last_probe.is_none();
        let risen = ok && (first || self.streak.1 >= check.rise);
        let fallen = !ok && (first || self.streak.1 >= check.fall);
        // Only passive checks eject.
        let over = || passive.is_none_or(|passive| ejection_over(entry, passive, probe.at_ms));
        match entry.state {
            State::Up | State::Ejected if fallen => Some((State::Down, probe.result)),
            State::Down if risen => Some((State::Up, probe.result)),
            State::Ejected if risen && over() => Some((State::Up, probe.result)),
            _ => None,
        }
    }

    /// Whether the next probe should come sooner than usual.
    pub(super) fn is_changing(&self, state: State) -> bool {
        match state {
            State::Up => !self.streak.0 && self.streak.1 > 0,
            State::Down => self.streak.0,
            State::Ejected => true,
        }
    }

    /// Requests have failed on the server, `count` of them. Whether that is enough to eject it.
    pub(super) fn failed(&mut self, passive: &Passive, count: u32, now_ms: u64) -> bool {
        let oldest_ms = now_ms.saturating_sub(millis(passive.window));
        let fall = passive.fall as usize;
        self.failures
            .extend(std::iter::repeat_n(now_ms, fall.min(count as usize)));
        while self.failures.len() > fall
            || self
                .failures
                .front()
                .is_some_and(|&at_ms| at_ms < oldest_ms)
        {
            self.failures.pop_front();
        }
        self.failures.len() >= fall
    }

    /// The server has changed its state: what led to it is over.
    pub(super) fn changed(&mut self) {
        self.failures.clear();
        self.streak.1 = 0;
    }
}

/// Where no probe brings a server back, time does.
pub(super) fn time_passed(entry: &Entry, passive: &Passive, now_ms: u64) -> Verdict {
    let over = entry.state == State::Ejected && ejection_over(entry, passive, now_ms);
    over.then_some((State::Up, Cause::EjectionOver))
}

/// How many ejections in a row it will be when this server is ejected now.
pub(super) fn next_ejection(entry: &Entry, passive: &Passive, now_ms: u64) -> u8 {
    let up_ms = now_ms.saturating_sub(entry.since_ms);
    if up_ms >= millis(passive.eject_max) {
        1
    } else {
        entry.ejections.saturating_add(1)
    }
}

fn ejection_over(entry: &Entry, passive: &Passive, now_ms: u64) -> bool {
    now_ms.saturating_sub(entry.since_ms) >= ejection_ms(passive, entry.ejections)
}

/// Length of the nth ejection in a row: doubles from `eject` to `eject_max`.
fn ejection_ms(passive: &Passive, nth: u8) -> u64 {
    let doublings = u32::from(nth.saturating_sub(1)).min(32);
    millis(passive.eject)
        .saturating_mul(1 << doublings)
        .min(millis(passive.eject_max))
}

/// Whether one more of `servers` may be ejected when `out` of them are out already.
pub(super) fn may_eject(passive: &Passive, servers: usize, out: usize) -> bool {
    (out + 1) * 100 <= servers * usize::from(passive.max_ejected_percent)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckKind;

    const OK: Cause = Cause::ProbeOk;
    const BAD: Cause = Cause::Timeout;

    fn passive() -> Passive {
        Passive {
            fall: 3,
            window: Duration::from_secs(1),
            eject_max: Duration::from_secs(300),
            eject: Duration::from_secs(10),
            max_ejected_percent: 50,
            statuses: None,
        }
    }

    fn entry(state: State) -> Entry {
        let last_probe = Some(LastProbe {
            at_ms: 0,
            took_us: 0,
            result: OK,
        });
        Entry {
            state,
            last_probe,
            ejections: u8::from(state == State::Ejected),
            ..Entry::ASSUMED_UP
        }
    }

    fn feed(judge: &mut Judge, entry: &Entry, results: &[Cause], at_ms: u64) -> Vec<Verdict> {
        let probe = |&result: &Cause| LastProbe {
            at_ms,
            took_us: 0,
            result,
        };
        let check = Check {
            kind: CheckKind::Tcp,
            interval: Duration::from_secs(5),
            fast_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(3),
            rise: 2,
            fall: 3,
            port: None,
        };
        results
            .iter()
            .map(|r| judge.probed(entry, &check, Some(&passive()), probe(r)))
            .collect()
    }

    #[test]
    fn states_change_after_so_many_results_in_a_row() {
        let down = Some((State::Down, BAD));
        let up = Some((State::Up, OK));
        let cases: [(State, &[Cause], &[Verdict]); 4] = [
            (State::Up, &[BAD, BAD, BAD], &[None, None, down]),
            (
                State::Up,
                &[BAD, BAD, OK, BAD, BAD, BAD],
                &[None, None, None, None, None, down],
            ),
            (State::Down, &[OK, OK], &[None, up]),
            (State::Down, &[OK, BAD, OK, OK], &[None, None, None, up]),
        ];
        for (state, results, verdicts) in cases {
            assert_eq!(
                feed(&mut Judge::default(), &entry(state), results, 0),
                verdicts,
                "{state:?} {results:?}"
            );
        }
    }

    #[test]
    fn the_first_probe_decides_at_once() {
        let unprobed = Entry::ASSUMED_UP;
        assert_eq!(
            feed(&mut Judge::default(), &unprobed, &[BAD], 0),
            [Some((State::Down, BAD))]
        );
        assert_eq!(feed(&mut Judge::default(), &unprobed, &[OK], 0), [None]);
    }

    #[test]
    fn an_ejected_server_comes_back_by_probes_but_not_before_its_time() {
        let mut judge = Judge::default();
        assert_eq!(
            feed(&mut judge, &entry(State::Ejected), &[OK, OK, OK], 9_999),
            [None; 3]
        );
        assert_eq!(
            feed(&mut judge, &entry(State::Ejected), &[OK], 10_000),
            [Some((State::Up, OK))]
        );
        let mut judge = Judge::default();
        assert_eq!(
            feed(&mut judge, &entry(State::Ejected), &[OK], 10_000),
            [None],
            "rise still counts"
        );
        let down = feed(
            &mut Judge::default(),
            &entry(State::Ejected),
            &[BAD, BAD, BAD],
            10,
        );
        assert_eq!(down[2], Some((State::Down, BAD)));
    }

    #[test]
    fn without_probes_time_brings_an_ejected_server_back() {
        assert_eq!(time_passed(&entry(State::Ejected), &passive(), 9_999), None);
        let over = Some((State::Up, Cause::EjectionOver));
        assert_eq!(
            time_passed(&entry(State::Ejected), &passive(), 10_000),
            over
        );
        assert_eq!(time_passed(&entry(State::Down), &passive(), 10_000), None);
    }

    #[test]
    fn failures_eject_when_enough_fall_into_the_window() {
        let mut judge = Judge::default();
        let times = [(0, false), (900, false), (1_500, false), (1_800, true)];
        for (at_ms, enough) in times {
            assert_eq!(judge.failed(&passive(), 1, at_ms), enough, "{at_ms} ms");
        }
        judge.changed();
        assert!(!judge.failed(&passive(), 2, 1_800));
        assert!(judge.failed(&passive(), u32::MAX, 1_800), "many at once");
        assert_eq!(judge.failures.len(), 3, "memory is bounded");
    }

    #[test]
    fn ejections_in_a_row_double_to_the_longest_and_start_again_after_calm() {
        let lengths = [1, 2, 3, 5, 6, 255].map(|nth| ejection_ms(&passive(), nth));
        assert_eq!(lengths, [10_000, 20_000, 40_000, 160_000, 300_000, 300_000]);
        let up = Entry {
            since_ms: 1_000,
            ejections: 4,
            ..entry(State::Up)
        };
        assert_eq!(next_ejection(&up, &passive(), 300_999), 5);
        assert_eq!(next_ejection(&up, &passive(), 301_000), 1);
    }

    #[test]
    fn no_more_than_the_permitted_part_is_ejected() {
        for (percent, servers, out, may) in [
            (50, 2, 0, true),
            (50, 2, 1, false),
            (50, 1, 0, false),
            (50, 3, 0, true),
            (50, 3, 1, false),
            (34, 3, 0, true),
            (33, 3, 0, false),
            (100, 1, 0, true),
            (0, 100, 0, false),
        ] {
            let passive = Passive {
                max_ejected_percent: percent,
                ..passive()
            };
            assert_eq!(
                may_eject(&passive, servers, out),
                may,
                "{percent} % of {servers}, {out} out"
            );
        }
    }

    #[test]
    fn probes_come_faster_while_a_change_is_near() {
        for (state, results, changing) in [
            (State::Up, &[][..], false),
            (State::Up, &[OK], false),
            (State::Up, &[BAD], true),
            (State::Down, &[BAD], false),
            (State::Down, &[OK], true),
            (State::Ejected, &[BAD], true),
        ] {
            let mut judge = Judge::default();
            feed(&mut judge, &entry(state), results, 0);
            assert_eq!(judge.is_changing(state), changing, "{state:?} {results:?}");
        }
    }
}
