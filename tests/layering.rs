//! Imports run one way: cli, server, shard, downstream, exchange, then upstream, balance and http1, then net. The codec and the policies
//! know nothing of ours, which keeps them easy to test, to fuzz and to bench.

#[path = "support/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sources::rust_files;

/// What each module imports, beside itself: no more, so that a new import is seen. `runtime` builds rings; the sample origin and the
/// relay stand on it.
const ALLOWED: &[(&str, &str)] = &[
    ("cli", "server origin relay config"),
    ("server", "shard upstream admin health net telemetry config"),
    ("shard", "downstream exchange upstream net telemetry config"),
    ("downstream", "exchange http1 net telemetry"),
    ("exchange", "upstream balance http1 net telemetry config"),
    ("upstream", "balance net health telemetry config"),
    ("balance", ""),
    ("http1", ""),
    ("net", "config"),
    ("admin", "health net telemetry config"),
    ("health", "http1 net config"),
    ("telemetry", "config"),
    ("config", ""),
    ("origin", "runtime"),
    ("relay", "runtime net"),
    ("runtime", "net"),
];

#[test]
fn imports_run_one_way() {
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<(&str, &str)> = ALLOWED
        .iter()
        .flat_map(|(name, allowed)| allowed.split_whitespace().map(move |one| (*name, one)))
        .collect();
    for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let Some(module) = module_of(&file) else {
            continue;
        };
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!(
                "{}: give the module `{module}` its place in this test",
                file.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file");
        for import in &imports(&text) {
            unused.retain(|(from, to)| !(*from == module && to == import));
            if *import != module && !allowed.split(' ').any(|one| one == import) {
                wrong.push(format!(
                    "{}: `{module}` must not import `{import}`",
                    file.display()
                ));
            }
        }
    }
    wrong.extend(
        (unused.iter()).map(|(module, import)| format!("`{module}` does not import `{import}`")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn finds_imports() {
    let text = "use crate::a::B;\nuse std::c;\npub(crate) use crate::{d, e::{F, g}, h::*};\nlet x = crate::i::j();\n// crate::k\n/// [`crate::l`]\n";
    assert_eq!(
        imports(text),
        ["a", "d", "e", "h", "i"].map(str::to_owned).into()
    );
}

/// The top-level module of a file; none for `lib.rs` and `main.rs`, which name all of them.
fn module_of(file: &Path) -> Option<String> {
    let inside = file
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .expect("inside src");
    let first = Path::new(inside.components().next()?.as_os_str())
        .file_stem()?
        .to_str()?
        .to_owned();
    (!matches!(first.as_str(), "lib" | "main")).then_some(first)
}

/// The modules of ours that a file names after `crate::`, comments aside.
fn imports(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let code = code.join("\n");
    code.split("crate::")
        .skip(1)
        .flat_map(first_names)
        .collect()
}

/// The first names of a path or of a group of paths: `a::b` gives `a`, `{a, b::{c, d}}` gives `a` and `b`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| {
        text.trim()
            .chars()
            .take_while(|each| each.is_alphanumeric() || *each == '_')
            .collect::<String>()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let mut names = vec![String::new()];
    let mut depth = 0;
    for each in group.chars() {
        match each {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 => names.last_mut().expect("never empty").push(each),
            _ => {}
        }
    }
    names
        .iter()
        .map(|text| name(text))
        .filter(|name| !name.is_empty())
        .collect()
}
