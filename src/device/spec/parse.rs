//! The parser behind `Spec::from_str`: a cursor over the text that knows at every moment which column it is at.

use super::units::parse_path;
use super::{
    Create, FileSpec, NESTED_MAX, NullSpec, Prealloc, Problem, RamSpec, Spec, SpecError, parse_bytes, parse_nanos,
};
use crate::device::OpKind;
use crate::device::delay::Latency;
use crate::device::fault::{Action, FaultRule};
use crate::device::nvme::{NvmeSpec, PciAddress};
use std::path::PathBuf;

/// Parses the whole text.
pub(super) fn spec(text: &str) -> Result<Spec, SpecError> {
    let mut cursor = Cursor { text, at: 0 };
    let spec = one(&mut cursor, 0)?;
    match cursor.peek() {
        None => Ok(spec),
        Some(c) => Err(cursor.error(cursor.at, &c.to_string(), Problem::Unexpected)),
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// A word and where it starts.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    at: usize,
}

/// `key` or `key=value`.
struct Pair<'a> {
    key: Word<'a>,
    value: Option<Word<'a>>,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }
    fn eat(&mut self, c: char) -> bool {
        let hit = self.peek() == Some(c);
        self.at += if hit { c.len_utf8() } else { 0 };
        hit
    }
    fn until(&mut self, stops: &[char]) -> Word<'a> {
        let at = self.at;
        let len = self.text[at..].find(stops).unwrap_or(self.text.len() - at);
        self.at += len;
        Word { text: &self.text[at..at + len], at }
    }
    fn error(&self, at: usize, key: &str, problem: Problem) -> SpecError {
        debug_assert!(at <= self.text.len());
        SpecError { column: at + 1, key: key.to_owned(), problem }
    }
    fn bad(&self, word: Word<'_>, problem: Problem) -> SpecError {
        self.error(word.at, word.text, problem)
    }
    /// The next `,key[=value]`.
    fn pair(&mut self) -> Pair<'a> {
        let key = self.until(&['=', ',', ';', '(', ')']);
        let value = self.eat('=').then(|| self.until(&[',', ';', '(', ')']));
        Pair { key, value }
    }
}

impl<'a> Pair<'a> {
    fn value(&self, c: &Cursor<'_>) -> Result<Word<'a>, SpecError> {
        self.value.filter(|v| !v.text.is_empty()).ok_or_else(|| c.bad(self.key, Problem::NeedsValue))
    }
    fn alone(&self, c: &Cursor<'_>) -> Result<bool, SpecError> {
        if self.value.is_some() { Err(c.bad(self.key, Problem::NoValue)) } else { Ok(true) }
    }
    /// The value read by `read`; a failure names the key and the column of the value.
    fn read<T>(&self, c: &Cursor<'_>, problem: Problem, read: impl Fn(&str) -> Option<T>) -> Result<T, SpecError> {
        let value = self.value(c)?;
        read(value.text).ok_or_else(|| c.error(value.at, self.key.text, problem))
    }
}

/// Stores a value that may come once.
fn once<T>(slot: &mut Option<T>, value: T, c: &Cursor<'_>, key: Word<'_>) -> Result<(), SpecError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(c.bad(key, Problem::Twice)),
    }
}

/// Sets a flag that may come once.
fn flag(slot: &mut bool, pair: &Pair<'_>, c: &Cursor<'_>) -> Result<(), SpecError> {
    if std::mem::replace(slot, pair.alone(c)?) { Err(c.bad(pair.key, Problem::Twice)) } else { Ok(()) }
}

fn one(c: &mut Cursor<'_>, depth: usize) -> Result<Spec, SpecError> {
    let kind = c.until(&[':', '(', ')', ',', ';']);
    match kind.text {
        "ram" | "null" | "uring" | "aio" | "file" | "nvme" if !c.eat(':') => Err(c.error(c.at, ":", Problem::End)),
        "fault" | "delay" if !c.eat('(') => Err(c.error(c.at, "(", Problem::End)),
        "ram" => ram(c),
        "null" => null(c),
        "uring" | "aio" => file(c, false),
        "file" => file(c, true),
        "nvme" => nvme(c),
        "fault" | "delay" if depth == NESTED_MAX => Err(c.bad(kind, Problem::Nested)),
        "fault" => fault(c, depth),
        "delay" => delay(c, depth),
        _ => Err(c.bad(kind, Problem::Kind)),
    }
}

/// The size right after `ram:` or `null:`, and its place for a later complaint.
fn leading_size<'a>(c: &mut Cursor<'a>) -> Result<(u64, Word<'a>), SpecError> {
    let word = c.until(&[',', ';', '(', ')']);
    let bytes = parse_bytes(word.text).ok_or_else(|| c.bad(word, Problem::Size))?;
    Ok((bytes, word))
}

fn block_size(pair: &Pair<'_>, c: &Cursor<'_>) -> Result<u32, SpecError> {
    pair.read(c, Problem::BlockSize, |v| v.parse().ok().filter(|b| matches!(b, 512 | 4096)))
}

fn whole_blocks(c: &Cursor<'_>, at: Word<'_>, size: u64, block: Option<u32>) -> Result<(), SpecError> {
    let fits = size != 0 && size.is_multiple_of(u64::from(block.unwrap_or(super::BLOCK_DEFAULT)));
    if fits { Ok(()) } else { Err(c.bad(at, Problem::Multiple)) }
}

fn ram(c: &mut Cursor<'_>) -> Result<Spec, SpecError> {
    let (size, place) = leading_size(c)?;
    let (mut block, mut lazy) = (None, false);
    while c.eat(',') {
        let pair = c.pair();
        match pair.key.text {
            "bs" => once(&mut block, block_size(&pair, c)?, c, pair.key)?,
            "lazy" => flag(&mut lazy, &pair, c)?,
            _ => return Err(c.bad(pair.key, Problem::Key)),
        }
    }
    whole_blocks(c, place, size, block)?;
    Ok(Spec::Ram(RamSpec { size, block, lazy }))
}

fn null(c: &mut Cursor<'_>) -> Result<Spec, SpecError> {
    let (size, place) = leading_size(c)?;
    let (mut block, mut nofill) = (None, false);
    while c.eat(',') {
        let pair = c.pair();
        match pair.key.text {
            "bs" => once(&mut block, block_size(&pair, c)?, c, pair.key)?,
            "nofill" => flag(&mut nofill, &pair, c)?,
            _ => return Err(c.bad(pair.key, Problem::Key)),
        }
    }
    whole_blocks(c, place, size, block)?;
    Ok(Spec::Null(NullSpec { size, block, nofill }))
}

fn path(c: &mut Cursor<'_>) -> Result<PathBuf, SpecError> {
    let word = c.until(&[',', ';', '(', ')']);
    if word.text.is_empty() {
        return Err(c.bad(word, Problem::Path));
    }
    parse_path(word.text).map_err(|at| c.error(word.at + at, "%", Problem::Escape))
}

fn file(c: &mut Cursor<'_>, made: bool) -> Result<Spec, SpecError> {
    let start = c.at;
    let mut spec = FileSpec::new(path(c)?);
    let (mut size, mut prealloc) = (None, None);
    while c.eat(',') {
        let pair = c.pair();
        match pair.key.text {
            "bs" => once(&mut spec.block, block_size(&pair, c)?, c, pair.key)?,
            "dsync" => flag(&mut spec.dsync, &pair, c)?,
            "buffered" => flag(&mut spec.buffered, &pair, c)?,
            "readonly" if made => return Err(c.bad(pair.key, Problem::Contradiction)),
            "readonly" => flag(&mut spec.read_only, &pair, c)?,
            "poll" => flag(&mut spec.poll, &pair, c)?,
            "size" if made => {
                let bytes = pair.read(c, Problem::Size, parse_bytes)?;
                once(&mut size, (bytes, pair.key), c, pair.key)?;
            }
            "prealloc" if made => once(&mut prealloc, prealloc_of(&pair, c)?, c, pair.key)?,
            _ => return Err(c.bad(pair.key, Problem::Key)),
        }
    }
    if made {
        let (size, at) = size.ok_or_else(|| c.error(start, "size", Problem::Missing))?;
        whole_blocks(c, at, size, spec.block)?;
        spec.create = Some(Create { size, prealloc: prealloc.unwrap_or(Prealloc::Sparse) });
    }
    Ok(Spec::File(spec))
}

fn prealloc_of(pair: &Pair<'_>, c: &Cursor<'_>) -> Result<Prealloc, SpecError> {
    if pair.value.is_none() {
        return Ok(Prealloc::Zero);
    }
    pair.read(c, Problem::Word, |v| match v {
        "zero" => Some(Prealloc::Zero),
        "fallocate" => Some(Prealloc::Fallocate),
        _ => None,
    })
}

fn nvme(c: &mut Cursor<'_>) -> Result<Spec, SpecError> {
    let word = c.until(&[',', ';', '(', ')']);
    let (address, nsid) = word.text.split_once('/').map_or((word.text, None), |(a, n)| (a, Some(n)));
    let address: PciAddress = address.parse().map_err(|_| c.error(word.at, address, Problem::Address))?;
    let mut spec = NvmeSpec::new(address);
    if let Some(text) = nsid {
        // 0 and FFFFFFFFh name no single namespace.
        let nsid = number(text).and_then(|n| u32::try_from(n).ok()).filter(|n| !matches!(*n, 0 | u32::MAX));
        let at = word.at + word.text.len() - text.len();
        spec.nsid = Some(nsid.ok_or_else(|| c.error(at, text, Problem::Number))?);
    }
    while c.eat(',') {
        let pair = c.pair();
        match pair.key.text {
            "readonly" => flag(&mut spec.read_only, &pair, c)?,
            "nosgl" => flag(&mut spec.no_sgl, &pair, c)?,
            "timeout" => {
                let time = pair.read(c, Problem::Time, |v| parse_nanos(v).filter(|ns| *ns != 0))?;
                once(&mut spec.timeout_ns, time, c, pair.key)?;
            }
            "unsafe_noiommu" => flag(&mut spec.unsafe_noiommu, &pair, c)?,
            _ => return Err(c.bad(pair.key, Problem::Key)),
        }
    }
    Ok(Spec::Nvme(spec))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn close(c: &mut Cursor<'_>) -> Result<(), SpecError> {
    match c.peek() {
        _ if c.eat(')') => Ok(()),
        None => Err(c.error(c.at, ")", Problem::End)),
        Some(other) => Err(c.error(c.at, &other.to_string(), Problem::Unexpected)),
    }
}

fn fault(c: &mut Cursor<'_>, depth: usize) -> Result<Spec, SpecError> {
    let inner = Box::new(one(c, depth + 1)?);
    let (mut rules, mut seed) = (Vec::new(), None);
    while c.eat(';') {
        let start = c.at;
        let first = c.pair();
        if first.key.text == "seed" {
            once(&mut seed, first.read(c, Problem::Number, number)?, c, first.key)?;
        } else {
            rules.push(rule(c, start, first)?);
        }
    }
    close(c)?;
    Ok(Spec::Fault { inner, rules, seed: seed.unwrap_or(0) })
}

fn rule(c: &mut Cursor<'_>, start: usize, first: Pair<'_>) -> Result<FaultRule, SpecError> {
    let (mut action, mut op, mut range, mut begin, mut end, mut p) = (None, None, None, None, None, None);
    let mut pair = first;
    loop {
        let key = pair.key;
        match key.text {
            "do" => once(&mut action, pair.read(c, Problem::Word, Action::parse)?, c, key)?,
            "op" => once(&mut op, pair.read(c, Problem::Word, OpKind::parse)?, c, key)?,
            "offset" => once(&mut range, pair.read(c, Problem::Range, offsets)?, c, key)?,
            "begin" => once(&mut begin, pair.read(c, Problem::Number, number)?, c, key)?,
            "end" => once(&mut end, pair.read(c, Problem::Number, number)?, c, key)?,
            "p" => once(&mut p, pair.read(c, Problem::Probability, per_million)?, c, key)?,
            _ => return Err(c.bad(key, Problem::Key)),
        }
        if !c.eat(',') {
            break;
        }
        pair = c.pair();
    }
    let action = action.ok_or_else(|| c.error(start, "do", Problem::Missing))?;
    let mut rule = FaultRule::always(action);
    rule.op = op;
    rule.offsets = range.unwrap_or(rule.offsets);
    rule.begin = begin.unwrap_or(rule.begin);
    rule.end = end.unwrap_or(rule.end);
    rule.per_million = p.unwrap_or(rule.per_million);
    if rule.begin >= rule.end {
        return Err(c.error(start, "end", Problem::Range));
    }
    Ok(rule)
}

fn offsets(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once("..")?;
    let (from, to) = (parse_bytes(from)?, parse_bytes(to)?);
    (from < to).then_some((from, to))
}

/// A probability as parts per million: exact, so that a spec reads back as it was written.
fn per_million(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 6 {
        return None;
    }
    let part: u32 = format!("{part:0<6}").parse().ok()?;
    let whole: u32 = whole.parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(part).filter(|p| *p <= 1_000_000)
}

fn delay(c: &mut Cursor<'_>, depth: usize) -> Result<Spec, SpecError> {
    let inner = Box::new(one(c, depth + 1)?);
    let (mut latency, mut seed) = (Latency::default(), None);
    let mut given: Vec<&str> = Vec::new();
    while c.eat(';') {
        loop {
            let pair = c.pair();
            if pair.key.text == "seed" {
                once(&mut seed, pair.read(c, Problem::Number, number)?, c, pair.key)?;
            } else {
                let ns = latency.slot(pair.key.text).ok_or_else(|| c.bad(pair.key, Problem::Key))?;
                *ns = pair.read(c, Problem::Time, parse_nanos)?;
                if given.contains(&pair.key.text) {
                    return Err(c.bad(pair.key, Problem::Twice));
                }
                given.push(pair.key.text);
            }
            if !c.eat(',') {
                break;
            }
        }
    }
    close(c)?;
    Ok(Spec::Delay { inner, latency, seed: seed.unwrap_or(0) })
}
