//! Holds `docs/configuration.md` and the files in `config/` to the key table, and the key table to what the parser does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlane::config::keys::{Key, Kind, ROOT, Section, Value};
use ringlane::config::{Config, Reading};

const PAGE: &str = include_str!("../docs/configuration.md");
const FULL: &str = include_str!("../config/full.toml");

/// A configuration that has each table of the file once. `{title}` marks where a key can be added.
const EACH_TABLE: &str = r"
{}
[log]
{[log]}
[access_log]
{[access_log]}
[admin]
{[admin]}
[timeouts]
{[timeouts]}
[limits]
{[limits]}
[rate_limit]
{[rate_limit]}
[forward]
{[forward]}
[[listen]]
{[[listen]]}
[[upstream]]
{[[upstream]]}
[upstream.pool]
{[upstream.pool]}
[upstream.health]
{[upstream.health]}
[upstream.passive]
{[upstream.passive]}
[upstream.sticky]
{[upstream.sticky]}
[[upstream.server]]
{[[upstream.server]]}
[[route]]
{[[route]]}
";

/// What required keys are given, so that the rest has a valid file around it.
const REQUIRED: [(&str, &str, &str); 7] = [
    ("[[listen]]", "address", "\"127.0.0.1:8080\""),
    ("[rate_limit]", "requests", "100"),
    ("[[upstream]]", "name", "\"app\""),
    (
        "[upstream.sticky]",
        "key",
        "\"0123456789abcdef0123456789abcdef\"",
    ),
    ("[upstream.sticky]", "cookie", "\"app\""),
    ("[[upstream.server]]", "address", "\"127.0.0.1:9001\""),
    ("[[route]]", "upstream", "\"app\""),
];

/// Keys that take their whole range only beside another one.
const COMPANIONS: [(&str, &str, (&str, &str)); 3] = [
    ("[upstream.health]", "fast_interval", ("interval", "\"1h\"")),
    ("[upstream.health]", "timeout", ("interval", "\"1h\"")),
    ("[upstream.sticky]", "same_site", ("secure", "true")),
];

/// One row of a table of the page: section, key, default, what it takes.
type Row = (String, String, String, String);

fn documented() -> Vec<Row> {
    let mut title = String::new();
    let mut rows = Vec::new();
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            title = if heading == "Top of the file" {
                String::new()
            } else {
                heading.trim_matches('`').to_owned()
            };
        }
        if line.starts_with("| `") {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [key, default, takes, meaning] = cells[..] else {
                panic!("four cells: {line}")
            };
            assert!(meaning.len() > 3, "{line}");
            let plain = |cell: &str| cell.trim_matches('`').to_owned();
            rows.push((title.clone(), plain(key), plain(default), takes.to_owned()));
        }
    }
    rows
}

/// Every key with a value of its own, that is, no table.
fn keys() -> Vec<(&'static Section, &'static Key)> {
    let sections = ROOT.all().into_iter();
    let all = sections.flat_map(|section| section.keys.iter().map(move |key| (section, key)));
    all.filter(|(_, key)| !matches!(key.kind, Kind::Table(_) | Kind::Tables(_)))
        .collect()
}

/// The file with every table, and these keys (section, name, value as TOML) beside the required ones.
fn file_with(given: &[(&str, &str, &str)]) -> String {
    let mut text = EACH_TABLE.to_owned();
    for section in ROOT.all() {
        let of_section = |keys: &[(&str, &str, &str)]| -> Vec<(String, String)> {
            let mine = keys.iter().filter(|key| key.0 == section.title);
            mine.map(|(_, name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let mut lines = of_section(given);
        for required in of_section(&REQUIRED) {
            if lines.iter().all(|(name, _)| *name != required.0) {
                lines.push(required);
            }
        }
        let lines: Vec<_> = lines
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        text = text.replacen(&format!("{{{}}}", section.title), &lines.join("\n"), 1);
    }
    text
}

/// A key with a value, and what must stand beside it.
fn with_companion<'a>(section: &'a str, key: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let of_key = COMPANIONS
        .iter()
        .filter(|(of, name, _)| *of == section && *name == key);
    of_key
        .map(|(_, _, (name, value))| (section, *name, *value))
        .collect()
}

fn parse(given: &[(&str, &str, &str)]) -> Result<Config, String> {
    let text = file_with(given);
    let show = |complaints: Vec<_>| {
        complaints
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    Config::parse(&text, "test.toml").map_err(show)
}

#[test]
fn the_page_has_every_key_with_default_and_range_and_no_other() {
    let in_code: Vec<Row> = keys()
        .into_iter()
        .map(|(section, key)| {
            let default = key
                .default
                .map_or("required".to_owned(), |default| default.to_string());
            (
                section.title.to_owned(),
                key.name.to_owned(),
                default,
                key.takes(),
            )
        })
        .collect();
    let on_page = documented();
    for row in &in_code {
        assert!(on_page.contains(row), "not on the page: {row:?}");
    }
    for row in &on_page {
        assert!(
            in_code.contains(row),
            "on the page, but not in the code: {row:?}"
        );
    }
    assert_eq!(on_page, in_code, "the page's order is the table's");
}

#[test]
fn giving_a_documented_default_changes_nothing() {
    let plain = parse(&[]).expect("a valid file");
    let mut tried = 0;
    for (section, key, default, _) in documented() {
        if [
            "required",
            "the address",
            "the server's address",
            "the user's own group",
        ]
        .contains(&&*default)
        {
            continue;
        }
        let config = parse(&[(&section, &key, &default)])
            .unwrap_or_else(|complaints| panic!("{complaints}"));
        assert_eq!(config, plain, "{section} {key} = {default}");
        tried += 1;
    }
    assert!(tried > 50, "{tried}");
}

/// Values as TOML of a key's kind: inside its range at both ends, and just outside.
fn bounds(kind: Kind) -> (Vec<String>, Vec<String>) {
    let millisecond = Duration::from_millis(1);
    match kind {
        Kind::Number(min, max) => {
            let outside = [i128::from(min) - 1, i128::from(max) + 1];
            (
                vec![min.to_string(), max.to_string()],
                outside.iter().map(ToString::to_string).collect(),
            )
        }
        Kind::Size(min, max) => {
            let text = |bytes| Value::Size(bytes).to_string();
            let inside = vec![text(min), text(max), min.to_string(), max.to_string()];
            (
                inside,
                vec![
                    text(min - 1),
                    text(max + 1),
                    (min - 1).to_string(),
                    (max + 1).to_string(),
                ],
            )
        }
        Kind::Duration(min, max) => {
            let text = |duration| Value::Duration(duration).to_string();
            (
                vec![text(min), text(max)],
                vec![
                    text(min.saturating_sub(millisecond)),
                    text(max + millisecond),
                ],
            )
        }
        Kind::Flag => (
            vec!["true".to_owned(), "false".to_owned()],
            vec!["1".to_owned(), "\"true\"".to_owned()],
        ),
        Kind::Choice(choices) => (
            choices
                .iter()
                .map(|choice| format!("\"{choice}\""))
                .collect(),
            vec!["\"nonsense\"".to_owned()],
        ),
        Kind::Text(_) => (Vec::new(), vec!["1".to_owned()]),
        Kind::Texts(_) => (
            vec!["[]".to_owned()],
            vec!["[1]".to_owned(), "\"\"".to_owned()],
        ),
        Kind::Table(_) | Kind::Tables(_) => (Vec::new(), Vec::new()),
    }
}

#[test]
fn each_key_takes_its_range_and_nothing_beyond() {
    for (section, key) in keys() {
        let (inside, outside) = bounds(key.kind);
        for value in inside {
            let mut given = with_companion(section.title, key.name);
            given.push((section.title, key.name, &value));
            let result = parse(&given);
            assert!(
                result.is_ok(),
                "{} {} = {value}: {result:?}",
                section.title,
                key.name
            );
        }
        for value in outside {
            let error = parse(&[(section.title, key.name, &value)]).expect_err(key.name);
            assert!(error.contains(key.name), "{error}");
        }
        // A key takes "off" or "auto" only where the page says so.
        for word in ["off", "auto"] {
            let is_text = matches!(key.kind, Kind::Text(_) | Kind::Choice(_));
            let accepted = parse(&[(section.title, key.name, &format!("\"{word}\""))]).is_ok();
            assert!(
                is_text || accepted == (key.word == Some(word)),
                "{} {}",
                section.title,
                key.name
            );
        }
    }
}

/// The fields of [`Config`] that are not called as their key begins.
fn field(section: &str, key: &'static str) -> &'static str {
    match (section, key) {
        ("", "io") => "mode",
        ("", "cpus") => "shards",
        ("[admin]", "enabled") => "admin",
        ("[upstream.health]", "type") => "kind",
        _ => key,
    }
}

#[test]
fn each_key_sets_its_own_field() {
    let mut tried = 0;
    for (section, key) in keys() {
        let companion = with_companion(section.title, key.name);
        let plain = format!("{:#?}", parse(&companion).expect("a valid file"));
        let default = key.default.map(|default| default.to_string());
        let word = key.word.map(|word| format!("\"{word}\""));
        let mut values = word.into_iter().chain(bounds(key.kind).0);
        let Some(value) = values.find(|value| Some(value) != default.as_ref()) else {
            continue;
        };
        let mut given = companion;
        given.push((section.title, key.name, &value));
        let config = parse(&given).expect(key.name);
        let changed = format!("{config:#?}");
        let difference = plain
            .lines()
            .zip(changed.lines())
            .find(|(before, after)| before != after);
        let (_, after) = difference.unwrap_or_else(|| panic!("{} changes nothing", key.name));
        let field = field(section.title, key.name);
        assert!(
            after.trim_start().starts_with(field),
            "{} {} changes {after}",
            section.title,
            key.name
        );
        tried += 1;
    }
    assert!(tried > 45, "{tried}");
}

#[test]
fn required_keys_are_required() {
    let in_table: BTreeSet<_> = keys()
        .iter()
        .filter(|(_, key)| key.default.is_none())
        .map(|(section, key)| (section.title, key.name))
        .collect();
    let here: BTreeSet<_> = REQUIRED
        .iter()
        .map(|(section, name, _)| (*section, *name))
        .collect();
    assert_eq!(in_table, here);
    for (section, name, value) in REQUIRED {
        let line = format!("{name} = {value}\n");
        let text = file_with(&[]);
        let at = text.find(&format!("\n{section}\n")).expect(section);
        let (before, after) = text.split_at(at);
        let without = after.replacen(&format!("\n{line}"), "\n", 1);
        let error = Config::parse(&format!("{before}{without}"), "test.toml").expect_err(name);
        assert!(
            error
                .iter()
                .any(|complaint| complaint.message == format!("{section} needs `{name}`")),
            "{error:?}"
        );
    }
}

#[test]
fn full_toml_has_every_key_with_its_default() {
    let mut rest = FULL.lines();
    let mut title = "";
    for (section, key) in keys() {
        // Keys stand in the table's order, so going forward finds each in its own section.
        let line = rest
            .by_ref()
            // What depends on the machine, and what needs a secret, stands there as a comment.
            .map(|line| line.strip_prefix("# ").unwrap_or(line))
            .inspect(|line| {
                if line.starts_with('[') {
                    title = line.split_whitespace().next().unwrap_or_default();
                }
            })
            .find(|line| line.starts_with(&format!("{} = ", key.name)))
            .unwrap_or_else(|| {
                panic!(
                    "{} {} is not in full.toml, or not in its place",
                    section.title, key.name
                )
            });
        assert_eq!(title, section.title, "{}", key.name);
        let expected = match key.default {
            None | Some(Value::Derived(_)) => continue,
            Some(default) => format!("{} = {default} ", key.name),
        };
        assert!(
            format!("{line} ").starts_with(&expected),
            "{line}\nexpected {expected}"
        );
    }
}

/// What everybody can read there would be no secret.
#[test]
fn full_toml_has_no_key_that_is_taken() {
    let (before, rest) = FULL
        .split_once("# [upstream.sticky]")
        .expect("the table, as a comment");
    let (table, after) = rest.split_once("\n\n").expect("its end");
    let table = table.replace("\n# ", "\n");
    let text = format!("{before}[upstream.sticky]{table}\n\n{after}");

    let complaints = Reading::parse(&text, "full.toml").complaints;
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    let short = "the key has 20 bytes; 32 are the least";
    assert!(complaints[0].message.contains(short), "{complaints:#?}");

    let text = text.replace("openssl rand -hex 32", &"0f".repeat(32));
    let complaints = Reading::parse(&text, "full.toml").complaints;
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let entries = std::fs::read_dir(directory).expect("config/ exists");
    let paths = entries.map(|entry| entry.expect("config/ is readable").path());
    paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect()
}

#[test]
fn every_file_in_config_is_valid_and_without_warning() {
    let files = files();
    for name in ["ringlane.toml", "full.toml", "edge.toml"] {
        assert!(files.iter().any(|file| file.ends_with(name)), "{name}");
    }
    for file in files {
        let Reading { config, complaints } = Reading::load(&file);
        assert!(complaints.is_empty(), "{}: {complaints:#?}", file.display());
        assert!(config.is_some(), "{}", file.display());
    }
}

#[test]
fn edge_toml_takes_failing_servers_down() {
    let config = Config::parse(include_str!("../config/edge.toml"), "edge.toml").expect("valid");
    for upstream in &config.upstreams {
        assert!(upstream.health.is_some(), "{}", upstream.name);
        assert!(upstream.passive.is_some(), "{}", upstream.name);
    }
}

#[test]
fn ringlane_toml_proxies_to_the_demo_origins() {
    let config =
        Config::parse(include_str!("../config/ringlane.toml"), "ringlane.toml").expect("valid");
    let servers: Vec<_> = config.upstreams[0]
        .servers
        .iter()
        .map(|server| server.address.to_string())
        .collect();
    assert_eq!(
        servers,
        ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]
    );
    assert_eq!(config.listens[0].address.to_string(), "0.0.0.0:8080");
}

#[test]
fn the_pages_example_is_valid() {
    let (_, rest) = PAGE.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let reading = Reading::parse(example, "configuration.md");
    assert!(reading.complaints.is_empty(), "{:#?}", reading.complaints);
}
