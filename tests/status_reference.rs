//! Holds `docs/status.md` to what the status listener says: each figure and each metric is explained, and what is explained is there.

#[path = "support/sources.rs"]
mod sources;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sources::rust_files;
use support::{Config, Mode};

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
fn everything() -> Config {
    Config::new(Mode::Epoll)
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

#[test]
fn each_figure_of_the_status_page_is_explained() {
    let proxy = everything().start();
    support::eventually("the server is down", || proxy.server(0)["state"] == "down");
    let mut names = BTreeSet::new();
    members(&proxy.status(), &mut names);
    assert!(names.contains("queue") && names.contains("result") && names.contains("at"));
    let explained: BTreeSet<_> = PAGE
        .split('`')
        .skip(1)
        .step_by(2)
        .flat_map(|code| code.split(|char: char| !char.is_ascii_alphanumeric() && char != '_'))
        .collect();
    let silent: Vec<_> = names
        .iter()
        .filter(|name| !explained.contains(name.as_str()))
        .collect();
    assert!(silent.is_empty(), "docs/status.md lacks {silent:?}");
}
