//! The command line: what `cargo test` passes on, and what `scripts/conformance` does.

use super::support::Mode;
use super::target::Target;

#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Print scores of these; none: run as tests of Ringlane.
    pub(crate) against: Vec<Target>,
    /// Say why cases failed.
    pub(crate) verbose: bool,
    /// Names only.
    pub(crate) list: bool,
    /// Names must be these, not contain them.
    exact: bool,
    filters: Vec<String>,
    /// Names may not contain these.
    skipped: Vec<String>,
}

impl Options {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--against" => options.against.push(target(words.next().as_deref())?),
                "--verbose" => options.verbose = true,
                "--list" => options.list = true,
                "--exact" => options.exact = true,
                // Those of libtest that change nothing here.
                "--nocapture" | "--no-capture" | "--quiet" | "-q" => {}
                "--skip" => options.skipped.extend(words.next()),
                "--format" | "--test-threads" => drop(words.next()),
                flag if flag.starts_with("--test-threads=") || flag.starts_with("--format=") => {}
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }

    pub(crate) fn chooses(&self, name: &str) -> bool {
        let is_meant = |word: &String| {
            if self.exact {
                name == word
            } else {
                name.contains(word.as_str())
            }
        };
        !self.skipped.iter().any(is_meant)
            && (self.filters.is_empty() || self.filters.iter().any(is_meant))
    }
}

fn target(name: Option<&str>) -> Result<Target, String> {
    match name {
        Some("ringlane") => Ok(Target::Ringlane(Mode::Uring)),
        Some("nginx") => Ok(Target::Nginx),
        Some("haproxy") => Ok(Target::Haproxy),
        other => Err(format!(
            "--against takes ringlane, nginx or haproxy, not {}",
            other.unwrap_or("nothing")
        )),
    }
}
