//! Reads one table of the file by the key table: unknown keys, wrong types and values out of range become complaints.
//!
//! Where a value is refused its default stands in, so that the check goes on and finds the next complaint.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::complaint::{Complaints, Flaw, nearest};
use super::keys::{Key, Kind, ROOT, Section, Value};
use super::{address, units};

/// A table of the file, or its absence.
pub(super) struct Reader<'a> {
    section: &'static Section,
    table: Option<&'a DeTable<'a>>,
    span: Range<usize>,
    complaints: &'a Complaints<'a>,
}

impl<'a> Reader<'a> {
    /// Reads the whole file. Complains about unknown keys, as all readers do.
    pub(super) fn root(document: &'a Spanned<DeTable<'a>>, complaints: &'a Complaints<'a>) -> Self {
        Self::open(&ROOT, Some(document.get_ref()), document.span(), complaints)
    }

    fn open(
        section: &'static Section,
        table: Option<&'a DeTable<'a>>,
        span: Range<usize>,
        complaints: &'a Complaints<'a>,
    ) -> Self {
        for (name, _) in table.into_iter().flatten() {
            if section.key(name.get_ref()).is_none() {
                complaints.error(&name.span(), unknown_key(section, name.get_ref()));
            }
        }
        Self {
            section,
            table,
            span,
            complaints,
        }
    }

    /// Where the table starts.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Where the key's value stands; the table's start when it is not given.
    pub(super) fn span_of(&self, name: &str) -> Range<usize> {
        self.given(name).map_or(self.span(), Spanned::span)
    }

    /// Whether the file gives this key.
    pub(super) fn gives(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// Whether the file gives this key a good value other than its default.
    pub(super) fn changes(&self, name: &str) -> bool {
        let key = self.key(name);
        let value = self.given(name).map(|given| read(key, given.get_ref()));
        matches!(value, Some(Ok(value)) if Some(value) != key.default)
    }

    /// Whether the file gives this key a value that it does not take.
    pub(super) fn refuses(&self, name: &str) -> bool {
        self.given(name)
            .is_some_and(|given| read(self.key(name), given.get_ref()).is_err())
    }

    /// Whether the file gives no element of this list. A list of the wrong type is complained about elsewhere.
    pub(super) fn lacks(&self, name: &str) -> bool {
        match self.given(name).map(Spanned::get_ref) {
            None => true,
            Some(DeValue::Array(items)) => items.is_empty(),
            Some(_) => false,
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Flag(flag)) => flag,
            other => mismatch(name, other),
        }
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        self.number_or_word(name)
            .unwrap_or_else(|| mismatch(name, None))
    }

    /// `None` is the key's word, such as `off`, or a required key without a good value.
    pub(super) fn number_or_word(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Value::Number(number)) => Some(number),
            Some(Value::Word(_)) | None => None,
            other => mismatch(name, other),
        }
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        self.duration_or_word(name)
            .unwrap_or_else(|| mismatch(name, None))
    }

    /// `None` is the key's word, such as `off`.
    pub(super) fn duration_or_word(&self, name: &str) -> Option<Duration> {
        match self.value(name) {
            Some(Value::Duration(duration)) => Some(duration),
            Some(Value::Word(_)) => None,
            other => mismatch(name, other),
        }
    }

    pub(super) fn size(&self, name: &str) -> u64 {
        self.size_or_word(name)
            .unwrap_or_else(|| mismatch(name, None))
    }

    /// `None` is the key's word, such as `off`.
    pub(super) fn size_or_word(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Value::Size(bytes)) => Some(bytes),
            Some(Value::Word(_)) => None,
            other => mismatch(name, other),
        }
    }

    /// A text or choice. `None` is the key's word, a default from elsewhere, or a required key without a good value.
    pub(super) fn text(&self, name: &str) -> Option<Spanned<&'a str>> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(Spanned::new(self.span_of(name), text)),
            Some(Value::Word(_) | Value::Derived(_)) | None => None,
            other => mismatch(name, other),
        }
    }

    /// A text made into a value by `make`, whose complaint it gets. `None` as for [`Reader::text`], and when `make` refuses.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        make: impl FnOnce(&str) -> Result<T, Flaw>,
    ) -> Option<T> {
        let text = self.text(name)?;
        self.complaints.check(
            &text.span(),
            make(text.get_ref()).map_err(|flaw| flaw.of(name)),
        )
    }

    /// One of the key's choices.
    pub(super) fn choice(&self, name: &str) -> &'a str {
        self.text(name)
            .map_or_else(|| mismatch(name, None), Spanned::into_inner)
    }

    /// The texts of a list; what is no text is complained about and left out.
    pub(super) fn texts(&self, name: &str) -> Vec<Spanned<&'a str>> {
        let text = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::String(text) => Some(Spanned::new(item.span(), text.as_ref())),
            other => {
                self.complaints
                    .error(&item.span(), wrong_type(self.key(name), other));
                None
            }
        };
        self.items(name).into_iter().filter_map(text).collect()
    }

    /// The table of that name, if the file has it.
    pub(super) fn table_if_given(&self, name: &str) -> Option<Reader<'a>> {
        let given = self.given(name)?;
        let table = self.as_table(name, given)?;
        Some(Reader::open(
            self.inner(name),
            Some(table),
            given.span(),
            self.complaints,
        ))
    }

    /// The table of that name; an absent one has every default.
    pub(super) fn table(&self, name: &str) -> Reader<'a> {
        let absent = || Reader::open(self.inner(name), None, self.span(), self.complaints);
        self.table_if_given(name).unwrap_or_else(absent)
    }

    /// The tables of that name, `[[name]]` or `name = [{ ... }]`.
    pub(super) fn tables(&self, name: &str) -> Vec<Reader<'a>> {
        let open = |item: &'a Spanned<DeValue<'a>>| {
            let table = self.as_table(name, item)?;
            Some(Reader::open(
                self.inner(name),
                Some(table),
                item.span(),
                self.complaints,
            ))
        };
        self.items(name).into_iter().filter_map(open).collect()
    }

    fn as_table(&self, name: &str, given: &'a Spanned<DeValue<'a>>) -> Option<&'a DeTable<'a>> {
        match given.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.complaints
                    .error(&given.span(), wrong_type(self.key(name), other));
                None
            }
        }
    }

    fn items(&self, name: &str) -> Vec<&'a Spanned<DeValue<'a>>> {
        match self.given(name).map(|given| (given, given.get_ref())) {
            None => Vec::new(),
            Some((_, DeValue::Array(items))) => items.iter().collect(),
            Some((given, other)) => {
                self.complaints
                    .error(&given.span(), wrong_type(self.key(name), other));
                Vec::new()
            }
        }
    }

    fn inner(&self, name: &str) -> &'static Section {
        match self.key(name).kind {
            Kind::Table(section) | Kind::Tables(section) => section,
            _ => mismatch(name, None),
        }
    }

    fn key(&self, name: &str) -> &'static Key {
        self.section
            .key(name)
            .expect("the check asks for keys of the table only; each parse asks for all")
    }

    fn given(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(name)
    }

    /// The key's value, or its default when it is absent or refused. `None` is a required key without a good value.
    fn value(&self, name: &str) -> Option<Value<'a>> {
        let key = self.key(name);
        if let Some(given) = self.given(name) {
            let value = self
                .complaints
                .check(&given.span(), read(key, given.get_ref()));
            return value.or(key.default);
        }
        if key.default.is_none() {
            let flaw = Flaw::new(format!("{} needs `{name}`", self.section.title));
            self.complaints.error(&self.span(), flaw);
        }
        key.default
    }
}

/// A key was asked for what it is not; any test that parses a file finds it.
fn mismatch<T>(name: &str, value: Option<Value<'_>>) -> T {
    unreachable!("key {name} is of another kind: {value:?}")
}

/// Keys of other tables that are named in place of an unknown one.
const ALIKE_MAX: usize = 3;
/// A table with no more keys than these is shown whole before them.
const SHORT_TABLE: usize = 5;

fn unknown_key(section: &'static Section, name: &str) -> Flaw {
    let flaw = Flaw::new(format!(
        "there is no key `{}` {}",
        name.escape_debug(),
        place(section)
    ));
    flaw.help(in_place_of(section, name))
}

/// What to write in place of a key that the table does not have: one of its own that is meant, or the table that has it; else one of another
/// table that is meant; else all that there are.
fn in_place_of(section: &'static Section, name: &str) -> String {
    let keys = || section.keys.iter().map(|key| key.name);
    if let Some(near) = nearest(name, keys()) {
        return format!("did you mean `{near}`?");
    }
    let tables = ROOT.all();
    let mut help = Vec::new();
    if let Some(alike) = keys().find(|key| share_a_word(key, name)) {
        help.push(format!("did you mean `{alike}`?"));
    }
    let homes = tables.iter().filter(|table| table.key(name).is_some());
    let homes: Vec<_> = homes.map(|table| place(table)).collect();
    if !homes.is_empty() {
        let order = if ROOT.key(name).is_some() {
            ", before the first [table]"
        } else {
            ""
        };
        help.push(format!("`{name}` can stand {}{order}", homes.join(" or ")));
    }
    if !help.is_empty() {
        return help.join(" ");
    }
    let others = tables.iter().flat_map(|table| {
        let alike = table.keys.iter().filter(|key| share_a_word(key.name, name));
        alike.map(|key| format!("`{}` {}", key.name, place(table)))
    });
    let others: Vec<_> = others.take(ALIKE_MAX).collect();
    let own: Vec<_> = keys().collect();
    let own = format!("there are {}", own.join(", "));
    let verb = if others.len() == 1 { "is" } else { "are" };
    match (others.is_empty(), section.keys.len() <= SHORT_TABLE) {
        (true, _) => own,
        (false, true) => format!("{own}; elsewhere {}", others.join(" and ")),
        (false, false) => format!("there {verb} {}", others.join(" and ")),
    }
}

/// Whether two names of keys have a part in common, as `header_count` and `headers`.
fn share_a_word(one: &str, other: &str) -> bool {
    let words = |name: &str| -> Vec<String> {
        let parts = name.split(['_', '-']).filter(|part| part.len() > 3);
        parts
            .map(|part| part.trim_end_matches('s').to_lowercase())
            .collect()
    };
    let others = words(other);
    words(one).iter().any(|word| others.contains(word))
}

fn place(section: &Section) -> String {
    match section.title {
        "" => "at the top of the file".to_owned(),
        title => format!("in {title}"),
    }
}

/// Makes a value of the key's kind and range from what the file gives.
fn read<'a>(key: &Key, given: &'a DeValue<'a>) -> Result<Value<'a>, Flaw> {
    match (key.kind, given) {
        (_, DeValue::String(text)) if key.word == Some(text) => Ok(Value::Word(text)),
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
        (Kind::Number(min, max), DeValue::Integer(number)) => {
            integer(key, number, min, max).map(Value::Number)
        }
        (Kind::Size(min, max), DeValue::Integer(bytes)) => {
            integer(key, bytes, min, max).map(Value::Size)
        }
        (Kind::Size(min, max), DeValue::String(text)) => {
            let bytes = units::size(text).map_err(|flaw| flaw.of(key.name))?;
            if (min..=max).contains(&bytes) {
                Ok(Value::Size(bytes))
            } else {
                Err(out_of_range(key, text))
            }
        }
        (Kind::Duration(min, max), DeValue::String(text)) => {
            let duration = units::duration(text).map_err(|flaw| flaw.of(key.name))?;
            if (min..=max).contains(&duration) {
                Ok(Value::Duration(duration))
            } else {
                Err(out_of_range(key, text))
            }
        }
        (Kind::Duration(..), DeValue::Integer(number)) => {
            let unit = format!("durations have a unit: write \"{number}s\" or \"{number}ms\"");
            Err(Flaw::new(format!("{} is {number} without a unit", key.name)).help(unit))
        }
        (Kind::Choice(choices), DeValue::String(text)) => {
            let unknown = || {
                Flaw::new(format!(
                    "{} is \"{text}\"; it takes {}",
                    key.name,
                    key.takes()
                ))
            };
            let known = choices.contains(&text.as_ref());
            if known {
                Ok(Value::Text(text))
            } else {
                Err(unknown().nearest(text, choices.iter().copied()))
            }
        }
        (Kind::Text(_), DeValue::String(text)) => Ok(Value::Text(text)),
        (_, other) => Err(wrong_type(key, other)),
    }
}

fn integer(key: &Key, given: &DeInteger<'_>, min: u64, max: u64) -> Result<u64, Flaw> {
    let number = u64::from_str_radix(given.as_str(), given.radix()).ok();
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| out_of_range(key, &given.to_string()))
}

fn out_of_range(key: &Key, given: &str) -> Flaw {
    Flaw::new(format!("{} is {given}; it takes {}", key.name, key.takes()))
}

fn wrong_type(key: &Key, given: &DeValue<'_>) -> Flaw {
    let given_type = match given {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let flaw = Flaw::new(format!(
        "{} takes {}, not {given_type}",
        key.name,
        key.takes()
    ));
    match in_place_of_type(key, given) {
        Some(help) => flaw.help(help),
        None => flaw,
    }
}

/// What a value of the wrong type was probably meant to be.
fn in_place_of_type(key: &Key, given: &DeValue<'_>) -> Option<String> {
    let unquoted = |value: &str| Some(format!("write {value}, without quotes"));
    match (key.kind, given) {
        (Kind::Tables(section), DeValue::Table(_)) => {
            let (title, name) = (section.title, key.name);
            Some(format!("write {title}, or {name} = [{{ ... }}]"))
        }
        (Kind::Tables(_), DeValue::String(text)) if key.name == "server" => {
            let known = address::server(text).is_ok() && !text.contains(['"', '\\']);
            let address = if known { text } else { "127.0.0.1:9001" };
            Some(format!("write server = [{{ address = \"{address}\" }}]"))
        }
        (Kind::Number(min, max), DeValue::String(text)) => {
            let number = text.parse().ok();
            let number = number.filter(|number| (min..=max).contains(number))?;
            unquoted(&number.to_string())
        }
        (Kind::Flag, DeValue::String(text)) => match text.to_lowercase().as_str() {
            "true" | "yes" | "on" => unquoted("true"),
            "false" | "no" | "off" => unquoted("false"),
            _ => None,
        },
        _ => None,
    }
}
