//! Reading TOML so that whatever is wrong is said with file, line, column, key and reason: a table that is asked for its
//! keys one by one, and at the end refuses those nobody asked for.

use crate::device::parse_bytes;
use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a configuration file, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The key: names joined by dots, indices in brackets; empty for the file as a whole.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// A file's text.
#[derive(Debug)]
pub struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    /// `text` is what `file` holds.
    pub fn new(file: &'a Path, text: &'a str) -> Source<'a> {
        Source { file, text }
    }

    /// The file's outermost table.
    pub fn parse(&self) -> Result<Spanned<DeTable<'a>>, ConfigError> {
        DeTable::parse(self.text).map_err(|e| self.error(&e.span().unwrap_or(0..0), "", e.message()))
    }

    fn error(&self, span: &Range<usize>, key: &str, reason: impl Into<String>) -> ConfigError {
        let before = &self.text[..span.start.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        ConfigError { file: self.file.to_owned(), line, column, key: key.to_owned(), reason: reason.into() }
    }
}

/// A table of the file.
#[derive(Debug)]
pub struct Section<'a> {
    source: &'a Source<'a>,
    path: String,
    span: Range<usize>,
    /// `None` when the file does not have it.
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The outermost table.
    pub fn whole(source: &'a Source<'a>, table: &'a Spanned<DeTable<'a>>) -> Section<'a> {
        Section {
            source,
            path: String::new(),
            span: table.span(),
            table: Some(table.get_ref()),
            asked: RefCell::default(),
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.table?.get(key)
    }

    /// An error at the value of `key`, or at the table when the key is not there.
    pub fn wrong(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        let span = self.table.and_then(|t| t.get(key)).map_or(self.span.clone(), Spanned::span);
        self.source.error(&span, &self.path_of(key), reason)
    }

    /// Refuses keys that nobody asked for.
    pub fn finish(self) -> Result<(), ConfigError> {
        let asked = self.asked.borrow();
        match self.table.into_iter().flat_map(DeTable::keys).find(|key| !asked.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some(key) => {
                let reason = format!("unknown key; known here are {}", asked.join(", "));
                Err(self.source.error(&key.span(), &self.path_of(key.get_ref()), reason))
            }
        }
    }

    /// `Some` value or an error that says what is missing.
    pub fn required<T>(&self, key: &'static str, value: Option<T>) -> Result<T, ConfigError> {
        value.ok_or_else(|| self.wrong(key, "is missing"))
    }

    fn mistyped(&self, key: &str, wanted: &str, got: &DeValue<'_>) -> ConfigError {
        self.wrong(key, format!("must be {wanted}, not {} {}", article(got), got.type_str()))
    }

    /// A whole number in the range.
    pub fn number(&self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Some(number) = integer(value.get_ref()) else {
            return Err(self.mistyped(key, "a whole number", value.get_ref()));
        };
        self.within(key, number, &range).map(Some)
    }

    /// A size: a number of bytes, or a string like `"64KiB"`.
    pub fn bytes(&self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let bytes = match value.get_ref() {
            DeValue::String(text) => parse_bytes(text).map(i128::from),
            other => integer(other),
        };
        let wanted = "must be a number of bytes or a size like \"64KiB\" or \"1GiB\"";
        self.within(key, bytes.ok_or_else(|| self.wrong(key, wanted))?, &range).map(Some)
    }

    fn within(&self, key: &str, number: i128, range: &RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let fits = u64::try_from(number).ok().filter(|n| range.contains(n));
        fits.ok_or_else(|| self.wrong(key, format!("must be {} to {}, not {number}", range.start(), range.end())))
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref().as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => Err(self.mistyped(key, "true or false", value.get_ref())),
        }
    }

    /// A string.
    pub fn text(&self, key: &'static str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some(text.as_ref())),
            other => Err(self.mistyped(key, "a string", other)),
        }
    }

    /// A string that `parse` takes.
    pub fn parsed<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        parse(text).map(Some).map_err(|e| self.wrong(key, e.to_string()))
    }

    /// One of the words.
    pub fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(self.wrong(key, format!("must be one of {}, not '{text}'", known.join(", "))))
            }
        }
    }

    /// An array of strings that `parse` takes; empty when the key is not there.
    pub fn list<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, ConfigError> {
        let items = self.array(key)?;
        let one = |(i, item): (usize, &Spanned<DeValue<'_>>)| {
            let path = format!("{}[{i}]", self.path_of(key));
            let text =
                item.get_ref().as_str().ok_or_else(|| self.source.error(&item.span(), &path, "must be a string"))?;
            parse(text).map_err(|e| self.source.error(&item.span(), &path, e.to_string()))
        };
        items.iter().enumerate().map(one).collect()
    }

    /// A string that `parse` takes, or an array of such strings; empty when the key is not there.
    pub fn one_or_more<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, ConfigError> {
        match self.get(key).map(Spanned::get_ref) {
            None => Ok(Vec::new()),
            Some(DeValue::Array(_)) => self.list(key, parse),
            Some(DeValue::String(_)) => Ok(self.parsed(key, parse)?.into_iter().collect()),
            Some(other) => Err(self.mistyped(key, "a string or an array of strings", other)),
        }
    }

    fn array(&self, key: &'static str) -> Result<&'a [Spanned<DeValue<'a>>], ConfigError> {
        let Some(value) = self.get(key) else { return Ok(&[]) };
        match value.get_ref() {
            DeValue::Array(items) => Ok(&items[..]),
            other => Err(self.mistyped(key, "an array", other)),
        }
    }

    /// A table; an empty one when the key is not there.
    pub fn section(&self, key: &'static str) -> Result<Section<'a>, ConfigError> {
        let (table, span) = match self.get(key) {
            None => (None, self.span.clone()),
            Some(value) => match value.get_ref() {
                DeValue::Table(table) => (Some(table), value.span()),
                other => return Err(self.mistyped(key, "a table", other)),
            },
        };
        Ok(Section { source: self.source, path: self.path_of(key), span, table, asked: RefCell::default() })
    }

    /// An array of tables; empty when the key is not there.
    pub fn sections(&self, key: &'static str) -> Result<Vec<Section<'a>>, ConfigError> {
        let one = |(i, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let path = format!("{}[{i}]", self.path_of(key));
            let table = item.get_ref().as_table();
            let table = table.ok_or_else(|| self.source.error(&item.span(), &path, "must be a table"))?;
            Ok(Section { source: self.source, path, span: item.span(), table: Some(table), asked: RefCell::default() })
        };
        self.array(key)?.iter().enumerate().map(one).collect()
    }

    /// True when the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|t| t.contains_key(key))
    }
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    let number = value.as_integer()?;
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Integer(_) | DeValue::Array(_) => "an",
        _ => "a",
    }
}
