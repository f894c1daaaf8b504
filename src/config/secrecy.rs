//! Keeps secrets out of the lines that complaints show, and their files from others.

use std::fs;
use std::net::IpAddr;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::complaint::{Complaints, Flaw, nearest};
use super::keys::{ROOT, Section};

/// Keys whose values are secret wherever they stand, misplaced ones included.
const SECRETS: [&str; 4] = ["key", "previous_keys", "token", "headers"];
/// What all those keys have in their names.
const WORDS: [&str; 3] = ["key", "token", "headers"];
/// Keys for the path of a secret's file. Some write the secret itself there.
const FILES: [&str; 2] = ["key_file", "token_file"];

/// The tables in which secrets stand, by name. A key there that is none of theirs may be a secret's, misspelt.
fn tables() -> impl Iterator<Item = (&'static str, &'static Section)> {
    let holds = |section: &&Section| SECRETS.iter().any(|key| section.key(key).is_some());
    let name = |section: &Section| section.title.trim_matches(['[', ']']).rsplit('.').next();
    (ROOT.all().into_iter().filter(holds))
        .filter_map(move |section| Some((name(section)?, section)))
}

/// What a complaint calls a secret's file: its path, unless that may be the secret itself.
pub(super) fn file_name(path: &str) -> String {
    if may_be_secret(path) {
        "this file".to_owned()
    } else {
        format!("`{path}`")
    }
}

/// Warns of a secret's file that is not kept from others.
pub(super) fn check_file(path: &Path, span: &Range<usize>, complaints: &Complaints<'_>) {
    if fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0) {
        let name = file_name(&path.to_string_lossy());
        let flaw = Flaw::new(format!("every user may read {name}"));
        complaints.warning(span, flaw.help("take that right away with chmod o="));
    }
}

/// Whether the value of one of [`FILES`] may be no path: secrets may have slashes, but hardly begin like this.
fn may_be_secret(path: &str) -> bool {
    !path.starts_with(['/', '.'])
}

/// The file's text with asterisks for its secrets; every byte and every character keeps its place.
pub(super) fn concealed(text: &str, document: &DeTable<'_>, broken: bool) -> String {
    let mut spans = Vec::new();
    in_table(document, None, &mut spans);
    if broken {
        spans.extend(in_lines(text));
    }
    spans.extend(in_comments(text));
    // An old secret may stand in a comment behind.
    let comment = |secret: &Range<usize>| {
        let behind = text.get(secret.end..)?.lines().next()?;
        Some(secret.end + behind.find('#')?..secret.end + behind.len())
    };
    spans.extend(spans.iter().filter_map(comment).collect::<Vec<_>>());
    let mut shown = text.to_owned();
    for span in spans {
        let stars: Option<String> = shown
            .get(span.clone())
            .map(|secret| secret.chars().map(star).collect());
        if let Some(stars) = stars {
            shown.replace_range(span, &stars);
        }
    }
    shown
}

/// Stands for a character, and is as long in UTF-8.
fn star(character: char) -> char {
    match (character, character.len_utf8()) {
        ('\n' | '\r', _) => character,
        (_, 1) => '*',
        (_, 2) => '\u{d7}',
        (_, 3) => '\u{2217}',
        _ => '\u{1f7b6}',
    }
}

/// Looks for secrets below a table; `section` is given for a table with secrets.
fn in_table(table: &DeTable<'_>, section: Option<&Section>, spans: &mut Vec<Range<usize>>) {
    for (name, value) in table {
        let name: &str = name.get_ref();
        let misspelt = match section {
            Some(section) => section.key(name).is_none() && !is_plain_misspelt(name, section),
            None => has_word(name) && !plain_keys().any(|plain| plain == name),
        };
        let no_path = FILES.contains(&name) && value.get_ref().as_str().is_none_or(may_be_secret);
        if misspelt || SECRETS.contains(&name) || no_path {
            whole(value, spans);
        } else {
            let section = tables().find(|(table, _)| *table == name);
            in_value(value, section.map(|(_, section)| section), spans);
        }
    }
}

/// Whether a name that a section does not have is close to one that it has, and that is no secret's.
fn is_plain_misspelt(name: &str, section: &Section) -> bool {
    let near = nearest(name, section.keys.iter().map(|key| key.name));
    !has_word(name) && near.is_some_and(|near| !has_word(near))
}

/// Whether a name has a secret's word in it.
fn has_word(name: &str) -> bool {
    let name = name.to_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// The names of all keys that are no secret's.
fn plain_keys() -> impl Iterator<Item = &'static str> {
    (ROOT.all().into_iter().flat_map(|section| section.keys))
        .map(|key| key.name)
        .filter(|name| !SECRETS.contains(name))
}

/// Of a table that a dotted key makes, the span is only that key's.
fn whole(value: &Spanned<DeValue<'_>>, spans: &mut Vec<Range<usize>>) {
    spans.push(value.span());
    if let DeValue::Table(table) = value.get_ref() {
        table.iter().for_each(|(_, value)| whole(value, spans));
    }
}

/// Looks for secrets in a value; `section` is given where a table with secrets should stand.
fn in_value(
    value: &Spanned<DeValue<'_>>,
    section: Option<&Section>,
    spans: &mut Vec<Range<usize>>,
) {
    match value.get_ref() {
        DeValue::Table(table) => in_table(table, section, spans),
        DeValue::Array(items) => {
            // Among tables a text may be an item of a list whose beginning was lost.
            let is_table = |item: &Spanned<DeValue<'_>>| item.get_ref().is_table();
            let has_tables = items.iter().any(is_table);
            for item in items {
                if has_tables && !is_table(item) {
                    spans.push(item.span());
                } else {
                    in_value(item, section, spans);
                }
            }
        }
        _ if section.is_some() => spans.push(value.span()),
        _ => {}
    }
}

/// Comments with a secret's word in them, wherever they stand. What looks like one within a value is taken for one.
fn in_comments(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let begin = start;
        start += line.len();
        let at = line.find('#')?;
        has_word(&line[at..]).then(|| begin + at + 1..begin + line.trim_end().len())
    })
}

/// Of a file that is no TOML: all from where a secret may begin up to the next line that some other key or a header begins. It hides
/// too much rather than too little.
fn in_lines(text: &str) -> Vec<Range<usize>> {
    let plain: Vec<&str> = plain_keys().collect();
    let (mut spans, mut start, mut hides) = (Vec::new(), 0, false);
    for line in text.split_inclusive('\n') {
        let from = match beginning(line, &plain) {
            Beginning::Plain => secret(line),
            _ if hides => Some(0),
            Beginning::Unknown(at) => Some(secret(line).map_or(at, |secret| secret.min(at))),
            Beginning::Other => secret(line),
        };
        hides = from.is_some();
        spans.extend(from.map(|at| start + at..start + line.len()));
        start += line.len();
    }
    spans
}

/// What a line of a broken file begins with.
enum Beginning {
    /// A header, or a key with its `=`, and every name in it is one of the file's and no secret's.
    Plain,
    /// A name that the file does not have, perhaps a secret's, misspelt, and where its value begins; or part of a value, whose key may be
    /// lost, and where that begins.
    Unknown(usize),
    /// A comment, brackets, or nothing.
    Other,
}

fn beginning(line: &str, plain: &[&str]) -> Beginning {
    let opened = line.trim_start();
    let begins = |at: char| is_bare(at) || matches!(at, '"' | '\'' | '=' | '#');
    let mut rest = opened.trim_start_matches(|at| !begins(at));
    let is_nothing = rest.is_empty() || rest.starts_with('#');
    let begun = line.len() - rest.len();
    let mut unknown = None;
    let mut name;
    loop {
        (name, rest) = split_name(rest.trim_start());
        if !plain.contains(&name) {
            unknown = unknown.or(Some(value(line, line.len() - rest.len())));
        }
        rest = rest.trim_start();
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None => break,
        }
    }
    let closed = rest.trim_start_matches(']').trim_start();
    let header = opened.starts_with('[')
        && rest.starts_with(']')
        && (closed.is_empty() || closed.starts_with('#'));
    // A secret in Base64 may end so.
    let behind = rest.trim_start_matches('=').trim_start();
    let stands_alone = behind.is_empty() || behind.starts_with([',', ']', '}', '#']);
    let at_rest = value(line, line.len() - rest.len());
    match unknown {
        None if header || opened.starts_with('[') && rest.is_empty() => Beginning::Plain,
        // `head=ers = [...]`: no value begins with a letter and goes on with these.
        None if rest.starts_with('=') && is_word(behind) && behind.contains(['=', '"', '\'']) => {
            Beginning::Unknown(at_rest)
        }
        None if rest.starts_with('=') => match behind_text(behind) {
            // Another key whose line has come behind this one.
            Some(other) => Beginning::Unknown(value(line, line.len() - other.len())),
            None => Beginning::Plain,
        },
        _ if is_nothing || is_network(name) => Beginning::Other,
        _ if stands_alone => Beginning::Unknown(begun),
        Some(at) if rest.starts_with(['=', ':']) => Beginning::Unknown(at),
        Some(_) => Beginning::Unknown(begun),
        // A secret's name may have a character too many, or one lost.
        None if SECRETS.iter().any(|secret| secret.starts_with(name)) => {
            Beginning::Unknown(at_rest)
        }
        None => Beginning::Other,
    }
}

/// What is behind a value in quotes, where nothing may be.
fn behind_text(text: &str) -> Option<&str> {
    let quoted = |quote| text.strip_prefix(quote)?.split_once(quote);
    let (_, behind) = quoted('"').or_else(|| quoted('\''))?;
    let behind = behind.trim_start();
    let is_wrong = !behind.is_empty() && !behind.starts_with([',', ']', '}', '#', '"', '\'']);
    is_wrong.then_some(behind)
}

/// Whether a text begins with a letter.
fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Whether a list's item is an address or network, and so no secret.
fn is_network(item: &str) -> bool {
    item.parse::<IpNet>().is_ok() || item.parse::<IpAddr>().is_ok()
}

/// The bare or quoted name that a text begins with, perhaps an empty one, and what follows it.
fn split_name(text: &str) -> (&str, &str) {
    let quoted = |quote| text.strip_prefix(quote)?.split_once(quote);
    let end = text.find(|at| !is_bare(at)).unwrap_or(text.len());
    quoted('"')
        .or_else(|| quoted('\''))
        .unwrap_or_else(|| text.split_at(end))
}

/// Whether a name without quotes may have this character.
fn is_bare(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

/// Where a secret may begin in a line, or the inline form of a table that has secrets.
fn secret(line: &str) -> Option<usize> {
    let words = WORDS
        .iter()
        .filter_map(|word| Some(line.find(word)? + word.len()));
    let inline = |(name, _): (&str, _)| {
        let mut ends = line.match_indices(name).map(|(at, _)| at + name.len());
        ends.find(|&end| {
            line[end..]
                .trim_start_matches(['"', '\'', ' ', '\t'])
                .starts_with('=')
        })
    };
    let start = words.chain(tables().filter_map(inline)).min();
    start.map(|at| value(line, at))
}

/// Where the value begins after a name that ends at `end`.
fn value(line: &str, end: usize) -> usize {
    line.len()
        - line[end..]
            .trim_start_matches(['=', '"', '\'', ' ', '\t'])
            .len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Reading;

    fn shown(text: &str) -> String {
        let (document, errors) = DeTable::parse_recoverable(text);
        concealed(text, document.get_ref(), !errors.is_empty())
    }

    #[track_caller]
    fn assert_hidden(text: &str, name_stays: bool) {
        let shown = shown(text);
        assert_eq!(shown.len(), text.len());
        assert!(!shown.contains("s3cret"), "{shown}");
        let stays = shown.contains("name = \"a\"");
        assert_eq!(stays, name_stays, "{text}\n{shown}");
    }

    #[test]
    fn secrets_become_asterisks() {
        let cases = [
            (
                "[[upstream]]\nname = \"a\"\n[upstream.sticky]\nkey = \"s3cret\"\n",
                true,
            ),
            (
                "[[upstream]]\nsticky = { cookie = \"id\", key = 's3cret', name = \"a\" }",
                false,
            ),
            (
                "[[upstream]]\nsticky.previous_keys = [\n\"s3cret\", 's3cret',\n]\nname = \"a\"",
                true,
            ),
            (
                "[[upstream]]\nname = \"a\"\nsticky = { ky = \"s3cret\" }",
                true,
            ),
            ("[[upstream]]\nname = \"a\"\nkey = \"s3cret\"", true),
            ("name = \"a\"\nkey = \"s3cret", true),
            ("name = \"a\"\n[admin]\ntoken = \"s3cret\"", true),
            ("name = \"a\"\n[admin]\ntokn = \"s3cret\"", true),
            ("name = \"a\"\ntoken = \"s3cret", true),
            ("name = \"a\"\nsticky = { key = \"s3cret\" cookie }", true),
            ("name = \"a\"\nkey \"s3cret", true),
            (
                "name = \"a\"\nsticky = { k.ey = \"s3cret\", to.ken.x = 's3cret' }",
                true,
            ),
            ("[admin]\ntoken =\n  \"s3cret\"\nname = \"a\"", true),
            (
                "key =\n\"s3cret\"\n\n# s3cret\n[[upstream]]\nname = \"a\"",
                true,
            ),
            (
                "previous_keys =\n[\"s3cret=\",\n's3cret=',\n]\nname = \"a\"",
                true,
            ),
            (
                "previous_keys = [\n\"s3cret=\"\n\"s3cret=\"\n]\nname = \"a\"",
                true,
            ),
            (
                "previous_keys = [\n\"s3cret=\n\"s3cret=\"]\nname = \"a\"",
                true,
            ),
            (
                "previous_keys = [\ns3cret=,\ns3cret==\n]\nname = \"a\"",
                true,
            ),
            ("key = \"\\q\ns3cret=\"\nname = \"a\"", true),
            (
                "key = \"\"\"\ns3cret=\nabc = s3cret\n\"\"\nname = \"a\"",
                false,
            ),
            ("key = '''\n[s3cret]\n''\nname = \"a\"", false),
            ("admin = { token = \"s3cret\",\nname = \"a\"", false),
            ("admin = { tokn = \"s3cret\",\nname = \"a\"", false),
            ("admin = {\ntokn = \"s3cret\",\nname = \"a\"", false),
            ("sticky = {\nky\n= \"s3cret\",\nname = \"a\"", false),
            ("admin.token =\n\"s3cret\"\nname = \"a\"", true),
            ("key . 's3cret'\nname = \"a\"", true),
            ("}okn = 's3cret'\nname = \"a\"", true),
            ("admin . tokn =\n\"s3cret\"\nname = \"a\"", true),
            ("\"admin\".'tok\" = \"s3cret\"\nname = \"a\"", true),
            ("admin.\"to\\u006ben\" = \"s3cret\nname = \"a\"", true),
            ("admin.token: s3cret=\nname = \"a\"", true),
            ("[admin] token s3cret=\nname = \"a\"", false),
            ("[admin]\ntokn = \"s3cret\nname = \"a\"", false),
            ("[admin]\ntokn\n= \"s3cret\nname = \"a\"", true),
            ("[admin]\nTOKEN \"s3cret\"\nname = \"a\"", true),
            ("# token = s3cret\n# s3cret\nname = \"a\"\n=", true),
            ("token = \"x\" # was s3cret\nname = \"a\"", true),
            ("address = \"x\" # Token = s3cret\nname = \"a\"", true),
            ("head ers = [\"s3cret\"]\nname = \"a\"", true),
            ("head[rs = [\"s3cret\"]\nname = \"a\"", true),
            ("head}rs = [\"s3cret\"]\nname = \"a\"", true),
            ("head=ers = [\"s3cret\"]\nname = \"a\"", true),
            ("address = \"x\"oken = \"s3cret\"\nname = \"a\"", true),
            ("s3cret\"\"\"\nname = \"a\"", true),
            (
                "server = [{ address = \"a:1\" }, \"s3cret\"]\nname = \"a\"",
                true,
            ),
            ("  \"Authorization: s3cret\",\n]\nname = \"a\"", true),
            ("s3cret\n'''\nname = \"a\"", true),
            ("s3cret==\n]\nname = \"a\"", true),
            ("name = \"a\" # token = s3cret\n=", true),
            (
                "previous_keys = [\n\"x\", # s3cret\n] # s3cret\nname = \"a\"",
                true,
            ),
        ];
        for (text, name_stays) in cases {
            assert_hidden(text, name_stays);
        }
    }

    #[test]
    fn misplaced_secrets_become_asterisks() {
        for text in [
            "sticky = \"s3cret\"\nname = \"a\"",
            "sticky = [\"s3cret\", ['s3cret']]\nname = \"a\"",
            "admin = 's3cret'\nname = \"a\"",
            "sticky_key = \"s3cret\"\nname = \"a\"",
            "Key = \"s3cret\"\nname = \"a\"",
            "admin_token = [\"s3cret\"]\nname = \"a\"",
            "keys.x = \"s3cret\"\nname = \"a\"",
            "name = \"a\"\n[upstream.sticky]\nkey_file = \"s3cret/=\"",
            "name = \"a\"\n[admin]\ntoken_file = \"s3cret\"",
            "name = \"a\"\n[upstream.sticky]\nkey_file = [\"s3cret\", \"s3cret\"]",
            "name = \"a\"\n[admin]\ntoken_file = { x = \"s3cret\" }",
            "name = \"a\"\n[upstream.health]\nheaders = [\"Authorization: s3cret\"]",
            "name = \"a\"\nhealth = { header = [\"s3cret\"] }\nheaders = \"s3cret",
        ] {
            assert_hidden(text, true);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "[upstream.sticky]\nkey_file = \"/etc/ringlane/keys\"",
            "[admin]\ntoken_file = \"./token\"",
            "[limits]\nheader_count = 7",
            "header_count = 60s",
            "[upstream.health]\nintervall = \"1s\"",
            "header_count 5",
            "uri: \"1KiB\"",
            "[limits",
            "exempt = [\n\"10.0.0.0/8\"\n\"::1\"\n]",
        ] {
            assert_eq!(shown(text), text);
        }
        // A comment is hidden to its end.
        assert_eq!(shown("# the key\nuri = 1 # 2"), "#********\nuri = 1 # 2");
    }

    #[test]
    fn bytes_and_characters_keep_their_places() {
        let text = "key = \"a\u{e4}\u{feff}\u{1f600}\r\n\"\nname = 1";
        let hidden = shown(text);
        let places = |text: &str| -> Vec<_> { text.char_indices().map(|(at, _)| at).collect() };
        assert_eq!(places(&hidden), places(text));
        assert!(
            !hidden.contains('\u{e4}') && !hidden.contains('\u{1f600}'),
            "{hidden}"
        );
    }

    proptest! {
        /// One mistake anywhere: a character or a line break too many, or one lost.
        #[test]
        fn no_complaint_shows_a_secret(at in 0.0..1.0_f64, much in "|[ -~]|[\r\n\t\u{e4}]|\"\"\"|\n\n", lost in 0..2_usize) {
            let text = "[admin]\naddress = \"127.0.0.1:9900\"\ntoken = \"QQQQ\" # QQQQ\n\n[[upstream]]\nname = \"a\"\n\
                server = [\n  { address = \"127.0.0.1:9001\" },\n]\n[upstream.sticky]\ncookie = \"id\"\nkey = 'QQQQ'\n\
                previous_keys = [\n  \"QQQQ=\", # QQQQ\n  'QQQQ=',\n]\n\n[[upstream]]\nname = \"b\"\n\
                server = [{ address = \"127.0.0.1:9002\" }]\nsticky = { secure = true, key = \"QQQQ\" }\n\
                [upstream.health]\nheaders = [\n  \"Authorization: QQQQ\",\n]\n\
                [[upstream]]\nname = \"c\"\n[upstream.health]\nheaders = [\"Authorization: QQQQ\"]\n";
            let at = (at * text.len() as f64) as usize;
            let (before, after) = text.split_at(at);
            let after = &after[lost.min(after.len())..];
            let text = format!("{before}{much}{after}");
            for complaint in Reading::parse(&text, "a.toml").complaints {
                let complaint = complaint.to_string();
                prop_assert!(!complaint.contains("QQ"), "{complaint}\n{text}");
            }
        }
    }
}
