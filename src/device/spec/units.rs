//! The words of a spec's values: sizes in bytes, times in nanoseconds, paths with escapes. Each is written so that it
//! reads back as the same value.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Bytes, displayed with the largest unit that divides them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes(pub u64);

/// Nanoseconds, displayed with the largest unit that divides them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nanos(pub u64);

const SIZES: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
const TIMES: [(&str, u64); 4] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, ns) = TIMES.iter().find(|(_, ns)| self.0.is_multiple_of(*ns)).expect("1 ns divides all");
        write!(f, "{}{unit}", self.0 / ns)
    }
}

/// Reads `4096`, `4KiB`, `1G`, ..: powers of 1024 only, in any case. Decimal units (`MB`) are refused, because half of
/// the world means the other thing by them. `None` also when the size exceeds 64 bits.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        "p" | "pib" => 50,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Reads `250ns`, `100us`, `2ms`, `1s`. A bare number is refused, except 0.
pub fn parse_nanos(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return (number == 0).then_some(0);
    }
    let (_, ns) = TIMES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*ns)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

/// Writes a path with the characters that mean something in a spec as `%XX`.
pub fn write_path(f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
    for part in path.as_os_str().as_bytes().utf8_chunks() {
        for c in part.valid().chars() {
            if matches!(c, ',' | ';' | '(' | ')' | '%') || c.is_control() || c.is_whitespace() && c != ' ' {
                c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|b| write!(f, "%{b:02X}"))?;
            } else {
                write!(f, "{c}")?;
            }
        }
        part.invalid().iter().try_for_each(|b| write!(f, "%{b:02X}"))?;
    }
    Ok(())
}

/// Reads what [`write_path`] wrote. `Err` holds the byte offset of a bad escape.
pub fn parse_path(text: &str) -> Result<PathBuf, usize> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let at = text.len() - tail.len() - 1;
        let pair = tail.get(..2).and_then(|p| std::str::from_utf8(p).ok());
        let pair = pair.filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit())).ok_or(at)?;
        // NUL ends a path in every system call; it can not be part of one.
        let byte = u8::from_str_radix(pair, 16).ok().filter(|b| *b != 0).ok_or(at)?;
        bytes.push(byte);
        rest = &tail[2..];
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}
