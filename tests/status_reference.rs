//! Holds `docs/status.md` to what the status listener says: each figure and each metric is explained, and what is explained is there.

#[path = "support/sources.rs"]
mod sources;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sources::rust_files;
use support::{Config, Mode, in_each_mode};

const PAGE: &str = include_str!("../docs/status.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The words of a text that begin like a metric's name.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
        .filter(|word| word.starts_with("ringlane_") || word.starts_with("process_"))
        .collect()
}

/// The metrics that the source names, each in quotes.
fn served() -> BTreeSet<String> {
    let mut served = BTreeSet::new();
    for file in rust_files(&root().join("src/admin")) {
        let text = fs::read_to_string(file).expect("a source file");
        let quoted = text.split('"').skip(1).step_by(2);
        served.extend(
            quoted
                .filter(|quoted| metrics(quoted).contains(quoted))
                .map(str::to_owned),
        );
    }
    served
}

#[test]
fn each_metric_is_explained() {
    let served = served();
    assert!(served.len() > 80, "{served:?}");
    let explained = metrics(PAGE);
    let silent: Vec<_> = served
        .iter()
        .filter(|name| !explained.contains(name.as_str()))
        .collect();
    assert!(silent.is_empty(), "docs/status.md lacks {silent:?}");
}

#[test]
fn no_document_names_a_metric_that_is_not_there() {
    let served = served();
    let docs = fs::read_dir(root().join("docs")).expect("a directory");
    let mut files = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    files.extend(docs.map(|file| file.expect("an entry").path()));
    files.retain(|file| file.extension().is_some_and(|kind| kind == "md"));
    for file in files {
        let text = fs::read_to_string(&file).expect("a document");
        for name in metrics(&text) {
            let family = name.trim_end_matches("_bucket").trim_end_matches('_');
            let known = served.iter().any(|metric| {
                // A group of metrics may be named by what they begin with, as in `ringlane_upstream_queue_*`.
                metric == family || name.ends_with('_') && metric.starts_with(name)
            });
            assert!(known, "{}: there is no {name}", file.display());
        }
    }
}

/// Every setting that adds to the status page.
fn everything(mode: Mode) -> Config {
    Config::new(mode)
        .key("limits.memory = \"256MiB\"")
        .tables("[admin]\naddress = \"127.0.0.1:0\"\n")
        .upstream(
            &["127.0.0.1:9"],
            "queue = 1\n\
             health = { interval = \"100ms\" }\n\
             sticky = { cookie = \"c\", key = \"0123456789abcdef0123456789abcdef\" }",
        )
}

/// The names of all members, but those that are data themselves: statuses and their classes.
fn members(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if !name.starts_with(|first: char| first.is_ascii_digit()) {
                    names.insert(name.clone());
                }
                members(value, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| members(item, names)),
        _ => {}
    }
}

/// The names of figures in the first column of the page's tables for `/lb/status`.
fn figures() -> BTreeSet<&'static str> {
    let mut figures = BTreeSet::new();
    let mut in_table = false;
    for line in PAGE.lines() {
        if line.starts_with("| `/lb/status` | `/metrics` |") {
            in_table = true;
        } else if !line.starts_with('|') {
            in_table = false;
        } else if in_table {
            figures.extend(words(line.split('|').nth(1).unwrap_or_default()));
        }
    }
    figures
}

/// The words of a text's code.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .flat_map(|code| code.split(|char: char| !char.is_ascii_alphanumeric() && char != '_'))
        .filter(|word| !word.is_empty())
}

fn each_figure_of_the_status_page_is_explained(mode: Mode) {
    let proxy = everything(mode).start();
    support::eventually("the server is down", || proxy.server(0)["state"] == "down");
    let mut names = BTreeSet::new();
    members(&proxy.status(), &mut names);
    assert!(names.contains("queue") && names.contains("result") && names.contains("at"));
    let with_ring = mode == Mode::Uring;
    assert_eq!(names.contains("cq_lost"), with_ring);
    let explained: BTreeSet<_> = words(PAGE).collect();
    let silent: Vec<_> = names
        .iter()
        .filter(|name| !explained.contains(name.as_str()))
        .collect();
    assert!(silent.is_empty(), "docs/status.md lacks {silent:?}");

    if with_ring {
        let figures = figures();
        assert!(figures.len() > 80, "{figures:?}");
        let gone: Vec<_> = figures
            .iter()
            .filter(|figure| !names.contains(**figure))
            .collect();
        assert!(gone.is_empty(), "/lb/status has no {gone:?}");
    }
}

in_each_mode!(each_figure_of_the_status_page_is_explained);
