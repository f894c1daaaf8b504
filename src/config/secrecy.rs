//! Keeps secrets out of the lines that complaints show.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys whose values are secret wherever they stand, misplaced ones included.
const SECRETS: [&str; 3] = ["key", "previous_keys", "token"];
/// Tables with secrets. A key there that is none of theirs may be a secret's, misspelt.
const TABLES: [(&str, &[&str]); 2] = [
    ("admin", &["enabled", "address", "orders", "token_file"]),
    (
        "sticky",
        &[
            "cookie",
            "key_file",
            "max_age",
            "path",
            "domain",
            "same_site",
            "secure",
            "http_only",
        ],
    ),
];

/// The file's text with asterisks for its secrets; every byte and every character keeps its place.
pub(super) fn concealed(text: &str, document: &DeTable<'_>, broken: bool) -> String {
    let mut spans = Vec::new();
    in_table(document, None, &mut spans);
    if broken {
        spans.extend(in_lines(text));
    }
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

/// Looks for secrets below a table; `plain` are the keys of a table with secrets that are none.
fn in_table(table: &DeTable<'_>, plain: Option<&[&str]>, spans: &mut Vec<Range<usize>>) {
    for (name, value) in table {
        let name: &str = name.get_ref();
        let misspelt = plain.is_some_and(|plain| !plain.contains(&name));
        if misspelt || SECRETS.contains(&name) {
            spans.push(value.span());
            continue;
        }
        let inner = TABLES.iter().find(|(table, _)| *table == name);
        in_value(value, inner.map(|(_, plain)| *plain), spans);
    }
}

fn in_value(value: &Spanned<DeValue<'_>>, plain: Option<&[&str]>, spans: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => in_table(table, plain, spans),
        DeValue::Array(items) => items.iter().for_each(|item| in_value(item, plain, spans)),
        _ => {}
    }
}

/// Of a file that is no TOML: the rest of each line where a secret may begin.
fn in_lines(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let secret = ["key", "token"]
            .iter()
            .filter_map(|name| line.find(name))
            .min()
            .and_then(|at| Some(at + line[at..].find(['=', '"', '\''])?));
        spans.extend(secret.map(|at| start + at + 1..start + line.len()));
        start += line.len();
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let (document, errors) = DeTable::parse_recoverable(text);
        concealed(text, document.get_ref(), !errors.is_empty())
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
        ];
        for (text, name_stays) in cases {
            let shown = shown(text);
            assert_eq!(shown.len(), text.len());
            assert!(!shown.contains("s3cret"), "{shown}");
            assert_eq!(shown.contains("name = \"a\""), name_stays, "{shown}");
        }
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
}
