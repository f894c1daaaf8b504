//! What is wrong with a configuration file, and where.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::ops::Range;

/// Whether a complaint keeps the program from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, but probably not meant so.
    Warning,
}

/// One thing that is wrong with a configuration file.
///
/// Its `Display` form has several lines: the message, the place, the line itself with a caret, and the help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Whether it keeps the program from starting.
    pub severity: Severity,
    /// The file, as the caller named it.
    pub file: String,
    /// Where in the file; `None` when the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// Where in a file, and the text that stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// How many characters are meant, at least 1, none beyond the line's end.
    pub width: usize,
    /// The whole line.
    pub text: String,
}

impl Complaint {
    /// A complaint about the file as a whole.
    pub(super) fn about_file(file: &str, message: String) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            place: None,
            message,
            help: None,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.message)?;
        let gutter = self
            .place
            .as_ref()
            .map_or(1, |place| place.line.to_string().len());
        match &self.place {
            Some(place) => place.show(&self.file, gutter, f)?,
            None => write!(f, "\n --> {}", self.file)?,
        }
        match &self.help {
            Some(help) => write!(f, "\n{:gutter$} = help: {help}", ""),
            None => Ok(()),
        }
    }
}

impl Place {
    fn new(text: &str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        let column = text[line_start..start].chars().count();
        let end = floor(text, span.end.min(line_start + line.len()));
        let width = text
            .get(start..end)
            .map_or(0, |meant| meant.chars().count());
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: column + 1,
            width: width.max(1),
            // A control character would move the caret or reach the terminal.
            text: line.replace(char::is_control, " "),
        }
    }

    fn show(&self, file: &str, gutter: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (empty, indent, caret) = ("", " ".repeat(self.column - 1), "^".repeat(self.width));
        writeln!(
            f,
            "\n{empty:gutter$}--> {file}:{}:{}",
            self.line, self.column
        )?;
        writeln!(f, "{empty:gutter$} |")?;
        writeln!(f, "{} | {}", self.line, self.text)?;
        write!(f, "{empty:gutter$} | {indent}{caret}")
    }
}

/// The last character boundary at or before `index`. Spans come from a parser that also reports stray bytes.
fn floor(text: &str, index: usize) -> usize {
    (0..=index)
        .rev()
        .find(|&index| text.is_char_boundary(index))
        .unwrap_or(0)
}

/// What is wrong with a value, said by code that does not know where the value stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    message: String,
    help: Option<String>,
}

impl Flaw {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    /// Adds what to write instead.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }

    /// Adds `did you mean ...?` when a candidate is close to `word`.
    pub(super) fn nearest<'a>(
        self,
        word: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        match nearest(word, candidates) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// Message and help, where there is no place to show.
    pub(super) fn into_sentence(self) -> String {
        match self.help {
            Some(help) => format!("{}; {help}", self.message),
            None => self.message,
        }
    }

    /// Puts the key's name before the message.
    pub(super) fn of(self, key: &str) -> Self {
        Self {
            message: format!("{key}: {}", self.message),
            ..self
        }
    }
}

/// The candidate that a person who wrote `word` most likely meant, if one is near enough.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let reach = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The complaints found so far in one file. Shared by all readers of the file, hence the cell.
pub(super) struct Complaints<'a> {
    file: &'a str,
    text: &'a str,
    found: RefCell<Vec<Complaint>>,
}

impl<'a> Complaints<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            found: RefCell::default(),
        }
    }

    pub(super) fn error(&self, span: &Range<usize>, flaw: Flaw) {
        self.add(Severity::Error, Some(span), flaw);
    }

    pub(super) fn warning(&self, span: &Range<usize>, flaw: Flaw) {
        self.add(Severity::Warning, Some(span), flaw);
    }

    /// An error of the file as a whole.
    pub(super) fn file_error(&self, flaw: Flaw) {
        self.add(Severity::Error, None, flaw);
    }

    /// Takes a result's value, or complains and gives `None`.
    pub(super) fn check<T>(&self, span: &Range<usize>, result: Result<T, Flaw>) -> Option<T> {
        result.map_err(|flaw| self.error(span, flaw)).ok()
    }

    /// The line of a span, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        Place::new(self.text, span).line
    }

    fn add(&self, severity: Severity, span: Option<&Range<usize>>, flaw: Flaw) {
        self.found.borrow_mut().push(Complaint {
            severity,
            file: self.file.to_owned(),
            place: span.map(|span| Place::new(self.text, span)),
            message: flaw.message,
            help: flaw.help,
        });
    }

    /// All complaints in the file's order, those of the whole file last.
    pub(super) fn into_sorted(self) -> Vec<Complaint> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|complaint| match &complaint.place {
            Some(place) => (place.line, place.column),
            None => (usize::MAX, 0),
        });
        found
    }
}

/// Finds what was given twice, and where it stood first.
pub(super) struct Seen<K>(HashMap<K, Range<usize>>);

impl<K: Eq + Hash> Seen<K> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Notes the key. `Some` is where it stood before.
    pub(super) fn note(&mut self, key: K, span: &Range<usize>) -> Option<Range<usize>> {
        match self.0.entry(key) {
            Entry::Occupied(first) => Some(first.get().clone()),
            Entry::Vacant(free) => {
                free.insert(span.clone());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_complaint_shows_its_line() {
        let complaints = Complaints::new("a.toml", "x = 1\n\tconect = \"ü\"\r\n");
        complaints.error(
            &(7..13),
            Flaw::new("unknown key").nearest("conect", ["connect"]),
        );
        let shown = complaints
            .into_sorted()
            .pop()
            .map(|complaint| complaint.to_string());
        let expected = concat!(
            "error: unknown key\n",
            " --> a.toml:2:2\n",
            "  |\n",
            "2 |  conect = \"ü\"\n",
            "  |  ^^^^^^\n",
            "  = help: did you mean `connect`?"
        );
        assert_eq!(shown.as_deref(), Some(expected));
    }

    #[test]
    fn places() {
        let text = "ab\n\nüx = 1\r\nend";
        // (span, line, column, width)
        let cases = [
            (0..2, 1, 1, 2),
            (2..3, 1, 3, 1),
            (3..3, 2, 1, 1),
            (4..6, 3, 1, 1),
            (6..7, 3, 2, 1),
            (4..99, 3, 1, 6),
            (13..16, 4, 1, 3),
            (99..120, 4, 4, 1),
        ];
        for (span, line, column, width) in cases {
            let place = Place::new(text, &span);
            assert_eq!(
                (place.line, place.column, place.width),
                (line, column, width),
                "{span:?}"
            );
        }
    }

    #[test]
    fn near_words() {
        let cases = [
            ("conect_timeout", Some("connect_timeout")),
            ("timeout_connect", None),
            ("ap", Some("app")),
            ("pap", Some("app")),
            ("zzz", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(
                nearest(word, ["connect_timeout", "app", "other"]),
                expected,
                "{word:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_span_panics(text in "[a-zü\n\r\t]{0,12}", start in 0_usize..16, length in 0_usize..16) {
            let place = Place::new(&text, &(start..start + length));
            prop_assert!(place.line >= 1 && place.column >= 1 && place.width >= 1);
        }
    }
}
