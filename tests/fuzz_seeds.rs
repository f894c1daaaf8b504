//! The checks of the fuzz targets, run on their seeds: as they are, cut short anywhere, and with one byte changed anywhere.

use std::fs;
use std::path::{Path, PathBuf};

#[allow(dead_code, missing_docs, unreachable_pub)] // the fuzz crate's, where its items are public
#[path = "../fuzz/src/lib.rs"]
mod checks;

/// Bytes that mean something to one of the parsers.
const TELLING: [u8; 9] = *b"\r\n \t:,;0\0";

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let files = fs::read_dir(&directory).expect("a directory of seeds");
    let seeds: Vec<_> = files
        .map(|file| file.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(path).expect("a seed")))
        .collect();
    assert!(!seeds.is_empty(), "no seeds in {}", directory.display());
    seeds
}

/// Runs `check` on every seed and on variants of it. A check that fails panics; the file's name is printed before.
fn replay(target: &str, check: fn(&[u8])) {
    for (path, seed) in seeds(target) {
        println!("{}", path.display());
        check(&seed);
        for at in 0..seed.len() {
            check(&seed[..at]);
            let mut changed = seed.clone();
            for byte in TELLING {
                changed[at] = byte;
                check(&changed);
            }
        }
    }
}

#[test]
fn request_head() {
    replay("request_head", checks::head::request);
}

#[test]
fn response_head() {
    replay("response_head", checks::head::response);
}

#[test]
fn chunked() {
    replay("chunked", checks::chunked::decode);
}

#[test]
fn body() {
    replay("body", checks::body::transfer);
}

#[test]
fn forward_request() {
    replay("forward_request", checks::forward_request::check);
}

#[test]
fn forward_response() {
    replay("forward_response", checks::forward_response::check);
}

#[test]
fn forwarded_for() {
    replay("forwarded_for", checks::forwarded_for::check);
}

#[test]
fn cookie() {
    replay("cookie", checks::cookie::check);
}

#[test]
fn probe_response() {
    replay("probe_response", checks::probe_response::check);
}

#[test]
fn status_request() {
    replay("status_request", checks::status_request::check);
}

#[test]
fn config() {
    for (path, seed) in seeds("config") {
        println!("{}", path.display());
        // Slow enough that every cut and change would take seconds.
        for end in (0..=seed.len()).rev().step_by(7) {
            checks::config::parse(&seed[..end]);
        }
    }
}
