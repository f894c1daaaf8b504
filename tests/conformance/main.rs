//! The conformance suite: raw bytes in on the client's side, a scripted origin on the other, judged by what both got.
//!
//! `cargo test --test conformance` holds Ringlane against it in both io modes; `scripts/conformance` prints scores, also of nginx and
//! `HAProxy`. The cases are in `cases/`, one file a topic; `docs/conformance.md` says how to read them.

mod case;
mod client;
mod deviations;
mod judge;
mod message;
mod options;
mod origin;
mod report;
#[allow(dead_code, missing_docs, unreachable_pub)] // the fuzz crate's, where its items are public
#[path = "../../fuzz/src/strict.rs"]
mod strict;
#[path = "../support/mod.rs"]
mod support;
mod target;
mod text;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use case::{Case, Level};
use deviations::DEVIATIONS;
use options::Options;
use report::Verdict;
use support::Mode;
use target::Target;

/// Between two pieces that must not arrive together.
const PAUSE: Duration = Duration::from_millis(20);
/// What probes are answered with.
const PROBE_BODY: &str = "the answer to the probe";
/// Proxies at work at once, each with an origin of its own. Cases mostly wait.
const WORKERS: usize = 8;

const FILES: &[(&str, &str)] = &[
    ("chunked", include_str!("cases/chunked.txt")),
    ("connection", include_str!("cases/connection.txt")),
    ("content_length", include_str!("cases/content_length.txt")),
    ("expect", include_str!("cases/expect.txt")),
    ("fields", include_str!("cases/fields.txt")),
    ("pipelining", include_str!("cases/pipelining.txt")),
    ("request_line", include_str!("cases/request_line.txt")),
    (
        "response_chunked",
        include_str!("cases/response_chunked.txt"),
    ),
    (
        "response_framing",
        include_str!("cases/response_framing.txt"),
    ),
    ("response_head", include_str!("cases/response_head.txt")),
    ("target", include_str!("cases/target.txt")),
    ("trailers", include_str!("cases/trailers.txt")),
    (
        "transfer_encoding",
        include_str!("cases/transfer_encoding.txt"),
    ),
    ("upgrade", include_str!("cases/upgrade.txt")),
];

fn cases() -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for (topic, file) in FILES {
        cases.extend(case::parse(topic, file)?);
    }
    check_list(&cases)?;
    Ok(cases)
}

/// Names are unique, and known deviations exist and are not about security.
fn check_list(cases: &[Case]) -> Result<(), String> {
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    if names.len() < all {
        return Err("two cases have one name".to_owned());
    }
    for (name, _) in DEVIATIONS {
        match cases.iter().find(|case| case.name == *name) {
            None => return Err(format!("no case is called {name}")),
            Some(case) if case.level == Level::Security => {
                return Err(format!("{name} is about security: no deviation is allowed"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Holds `target` against the cases, and hands each verdict to `done`.
fn hold<'c>(
    target: Target,
    cases: &[&'c Case],
    done: impl Fn(&Verdict<'c>) + Sync,
) -> Result<Vec<Verdict<'c>>, String> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::new());
    let work = || -> Result<(), String> {
        let origin = origin::Origin::start().map_err(|error| format!("origin: {error}"))?;
        let mut running = target.start(origin.address)?;
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = client::play(case, running.address(), &origin)
                .and_then(|seen| judge::judge(case, &seen));
            let verdict = Verdict {
                case,
                failure: outcome.err(),
            };
            done(&verdict);
            verdicts.lock().expect("no panic inside").push(verdict);
        }
        running.check()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS.min(cases.len()))
            .map(|_| scope.spawn(work))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|cause| Err(support::panic_text(&*cause).to_owned()))
        })
    })?;
    let mut verdicts = verdicts.into_inner().expect("no panic inside");
    verdicts.sort_by_key(|verdict| cases.iter().position(|case| case.name == verdict.case.name));
    Ok(verdicts)
}

/// The verdict of the test on a case: a known deviation must deviate.
fn outcome(verdict: &Verdict<'_>) -> Result<(), String> {
    let known = DEVIATIONS
        .iter()
        .any(|(name, _)| *name == verdict.case.name);
    match (&verdict.failure, known) {
        (None, false) | (Some(_), true) => Ok(()),
        (None, true) => Err("it conforms, but is listed as a known deviation".to_owned()),
        (Some(why), false) => {
            let Case { rule, about, .. } = verdict.case;
            Err(format!("{rule}: {about}\n{why}"))
        }
    }
}

/// All cases in both modes, as tests.
fn test(options: &Options, cases: &[Case]) -> Result<bool, String> {
    let started = Instant::now();
    let all = cases.len() * 2;
    let mut failures = Vec::new();
    let (mut passed, mut run) = (0, 0);
    for (mode, suffix) in [(Mode::Uring, "uring"), (Mode::Epoll, "epoll")] {
        let unavailable = mode == Mode::Uring
            && std::env::var_os("RINGLANE_TEST_NO_URING").is_some_and(|value| value == "1");
        let full_name = |case: &Case| format!("{}::{suffix}", case.name);
        let chosen: Vec<&Case> = cases
            .iter()
            .filter(|case| !unavailable && options.chooses(&full_name(case)))
            .collect();
        println!("\nrunning {} tests", chosen.len());
        run += chosen.len();
        let verdicts = hold(Target::Ringlane(mode), &chosen, |verdict| {
            let word = if outcome(verdict).is_ok() {
                "ok"
            } else {
                "FAILED"
            };
            println!("test {} ... {word}", full_name(verdict.case));
        })?;
        for verdict in &verdicts {
            match outcome(verdict) {
                Ok(()) => passed += 1,
                Err(why) => failures.push((full_name(verdict.case), why)),
            }
        }
    }
    Ok(report::sum_up(
        passed,
        &failures,
        all - run,
        started.elapsed(),
    ))
}

/// Scores of the targets asked for. False when Ringlane fails a case that it is not known to fail.
fn compare(options: &Options, cases: &[Case]) -> Result<bool, String> {
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|case| options.chooses(&case.name))
        .collect();
    let mut rows = String::new();
    let mut good = true;
    for target in &options.against {
        let verdicts = hold(*target, &chosen, |_| {})?;
        print!("{}", report::failed(*target, &verdicts, options.verbose));
        rows += &report::score(*target, &verdicts);
        rows.push('\n');
        if matches!(target, Target::Ringlane(_)) {
            good &= verdicts.iter().all(|verdict| outcome(verdict).is_ok());
        }
    }
    print!("{}\n{rows}", report::HEADING);
    Ok(good)
}

fn main() -> ExitCode {
    let run = || -> Result<bool, String> {
        let options = Options::read(std::env::args().skip(1))?;
        let cases = cases()?;
        if options.list {
            for case in &cases {
                println!("{}: test", case.name);
            }
            return Ok(true);
        }
        if options.against.is_empty() {
            test(&options, &cases)
        } else {
            compare(&options, &cases)
        }
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::FAILURE
        }
    }
}
