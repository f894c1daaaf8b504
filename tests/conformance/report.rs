//! What is printed: test by test as libtest does, or a table of scores.

use std::fmt::Write as _;
use std::time::Duration;

use super::case::{Case, Level};
use super::target::Target;

/// A case's verdict.
pub(crate) struct Verdict<'c> {
    pub(crate) case: &'c Case,
    /// Why it failed.
    pub(crate) failure: Option<String>,
}

/// The last lines of a test run; true when nothing failed.
pub(crate) fn sum_up(
    passed: usize,
    failures: &[(String, String)],
    filtered: usize,
    took: Duration,
) -> bool {
    if !failures.is_empty() {
        println!("\nfailures:\n");
        for (name, why) in failures {
            println!("---- {name} ----\n{why}\n");
        }
        println!("failures:");
        for (name, _) in failures {
            println!("    {name}");
        }
    }
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        failures.len(),
        took.as_secs_f64()
    );
    failures.is_empty()
}

/// A row of the table of scores, and what failed.
pub(crate) fn score(target: Target, verdicts: &[Verdict<'_>]) -> String {
    let mut row = format!("| {} |", target.version());
    for level in Level::ALL {
        let of_level = verdicts.iter().filter(|each| each.case.level == level);
        let passed = of_level
            .clone()
            .filter(|each| each.failure.is_none())
            .count();
        write!(row, " {passed} / {} |", of_level.count()).expect("writing to a string");
    }
    row
}

pub(crate) const HEADING: &str = "| | security | correctness | quality |\n|---|---:|---:|---:|";

/// Names of the cases that failed, with the reasons if `verbose`.
pub(crate) fn failed(target: Target, verdicts: &[Verdict<'_>], verbose: bool) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        if let Some(why) = &verdict.failure {
            let Case {
                name,
                level,
                rule,
                about,
                ..
            } = verdict.case;
            writeln!(
                text,
                "{} fails {name} ({}, {rule}): {about}",
                target.name(),
                level.name()
            )
            .expect("writing to a string");
            if verbose {
                writeln!(text, "  {why}").expect("writing to a string");
            }
        }
    }
    text
}
