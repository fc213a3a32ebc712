//! Sizes, durations and counts as people write them on a command line. Used by the arguments of `pollux bench` and by
//! everything that prints a figure for people; nothing here is on a data path.

use std::time::Duration;

/// Why a quantity was refused; names the text and what would have been accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct BadQuantity {
    text: String,
    wanted: &'static str,
}

fn bad(text: &str, wanted: &'static str) -> BadQuantity {
    BadQuantity { text: text.to_owned(), wanted }
}

/// Splits `12.5k` into its number and its suffix.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// Bytes: a whole number with an optional suffix `k`, `m`, `g` or `t` (powers of 1024, case-blind, `B` or `iB` may
/// follow).
///
/// # Errors
/// [`BadQuantity`] for anything else, and for sizes of 2^64 bytes and more.
pub fn parse_size(text: &str) -> Result<u64, BadQuantity> {
    const WANTED: &str = "a size such as 512, 4k, 128k, 1g";
    let (number, suffix) = split(text.trim());
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad(text, WANTED)),
    };
    let count: u64 = number.parse().map_err(|_| bad(text, WANTED))?;
    count.checked_mul(1 << shift).ok_or_else(|| bad(text, WANTED))
}

/// A plain count, with `k` and `m` for thousands and millions.
///
/// # Errors
/// [`BadQuantity`] for anything else.
pub fn parse_count(text: &str) -> Result<u64, BadQuantity> {
    const WANTED: &str = "a count such as 1000, 10k, 2m";
    let (number, suffix) = split(text.trim());
    let factor = match suffix.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        _ => return Err(bad(text, WANTED)),
    };
    let count: u64 = number.parse().map_err(|_| bad(text, WANTED))?;
    count.checked_mul(factor).ok_or_else(|| bad(text, WANTED))
}

/// A duration: a decimal number with an optional suffix `us`, `ms`, `s` (the default), `m` or `h`.
///
/// # Errors
/// [`BadQuantity`] for anything else, and beyond a year.
pub fn parse_duration(text: &str) -> Result<Duration, BadQuantity> {
    const WANTED: &str = "a duration such as 10, 0.5s, 250ms, 2m";
    let (number, suffix) = split(text.trim());
    let seconds = match suffix {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad(text, WANTED)),
    };
    let count: f64 = number.parse().map_err(|_| bad(text, WANTED))?;
    let total = count * seconds;
    if !(0.0..=31_536_000.0).contains(&total) {
        return Err(bad(text, WANTED));
    }
    Ok(Duration::from_secs_f64(total))
}

/// A stretch of the target: `LEN` or `OFFSET+LEN`, both in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Parses a [`ByteRange`].
///
/// # Errors
/// [`BadQuantity`] when either part is not a size, or `len` is 0.
pub fn parse_range(text: &str) -> Result<ByteRange, BadQuantity> {
    let (offset, len) = match text.split_once('+') {
        Some((offset, len)) => (parse_size(offset)?, parse_size(len)?),
        None => (0, parse_size(text)?),
    };
    if len == 0 {
        return Err(bad(text, "a range such as 1g or 512m+1g"));
    }
    Ok(ByteRange { offset, len })
}

/// Bytes for people: the largest binary unit that leaves a number of at least 1.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 { format!("{value:.0} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A whole number with its thousands set apart: `1 234 567`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at != 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_accept_the_usual_spellings_and_nothing_else() {
        for (text, want) in [("512", 512), ("4k", 4096), ("4K", 4096), ("128KiB", 131_072), ("1g", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for text in ["", "k", "4x", "-1", "1.5k", "99999999999t"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_size("4q").unwrap_err().to_string(), "`4q` is not a size such as 512, 4k, 128k, 1g");
    }

    #[test]
    fn durations_counts_and_ranges() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        assert!(parse_duration("1d").is_err() && parse_duration("s").is_err() && parse_duration("9999999h").is_err());
        assert_eq!((parse_count("10k"), parse_count("2m")), (Ok(10_000), Ok(2_000_000)));
        assert_eq!(parse_range("1m+4k"), Ok(ByteRange { offset: 1 << 20, len: 4096 }));
        assert_eq!(parse_range("4k"), Ok(ByteRange { offset: 0, len: 4096 }));
        assert!(parse_range("0").is_err() && parse_range("4k+").is_err());
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(show_count(1_234_567), "1 234 567");
        assert_eq!(show_count(12), "12");
        assert_eq!((show_size(4096), show_size(1536), show_size(5)), ("4 KiB".into(), "1.5 KiB".into(), "5 B".into()));
    }
}
