//! What stands behind the `=` of a text key (RFC 7143 section 6.1): numbers, ranges, booleans, lists, binary strings
//! and iSCSI names. Every function is total: `None` is the answer to anything that is not such a value.

/// Longest simple value (a number, a name, one item of a list), bytes.
pub const SIMPLE_MAX: usize = 255;
/// Longest iSCSI name, bytes (4.2.7.1).
pub const NAME_MAX: usize = 223;

/// Answer to a key that this side does not know.
pub const NOT_UNDERSTOOD: &str = "NotUnderstood";
/// Answer to a value that is not acceptable.
pub const REJECT: &str = "Reject";
/// Answer to a key that means nothing in this negotiation.
pub const IRRELEVANT: &str = "Irrelevant";
/// The item of a list that stands for no digest, no authentication and so on.
pub const NONE: &str = "None";
/// The digest of RFC 7143 13.1.
pub const CRC32C: &str = "CRC32C";

/// A value of at most [`SIMPLE_MAX`] bytes.
pub fn simple(value: &str) -> Option<&str> {
    (!value.is_empty() && value.len() <= SIMPLE_MAX).then_some(value)
}

/// The digits of a value that begins with `0` and one of `letters`.
fn behind<'a>(value: &'a str, letters: [&str; 2]) -> Option<&'a str> {
    letters.iter().find_map(|prefix| value.strip_prefix(prefix)).filter(|digits| !digits.is_empty())
}

/// A number below 2^64: decimal without leading zeros, or hexadecimal behind `0x`.
pub fn number(value: &str) -> Option<u64> {
    let value = simple(value)?;
    if let Some(digits) = behind(value, ["0x", "0X"]) {
        let all = digits.bytes().all(|b| b.is_ascii_hexdigit());
        return if all { u64::from_str_radix(digits, 16).ok() } else { None };
    }
    let decimal = value.bytes().all(|b| b.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
    if decimal { value.parse().ok() } else { None }
}

/// A number from `low` to `high`, both included.
pub fn number_within(value: &str, low: u32, high: u32) -> Option<u32> {
    number(value).and_then(|n| u32::try_from(n).ok()).filter(|n| (low..=high).contains(n))
}

/// A range `low~high` with `low` <= `high`.
pub fn range(value: &str) -> Option<(u64, u64)> {
    let (low, high) = value.split_once('~')?;
    let (low, high) = (number(low)?, number(high)?);
    (low <= high).then_some((low, high))
}

/// `Yes` or `No`.
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// The items of a list, in order; an item of an empty or overlong text is a bad list, which ends with `None`.
pub fn list(value: &str) -> impl Iterator<Item = Option<&str>> {
    value.split(',').map(simple)
}

/// Decodes a binary string, `0x` hexadecimal or `0b` base64, into `out` and says how many bytes it has; `None` also when
/// it does not fit. An odd number of hexadecimal digits begins with half a byte, as (n+1)/2 bytes say.
pub fn binary(value: &str, out: &mut [u8]) -> Option<usize> {
    if let Some(digits) = behind(value, ["0x", "0X"]) {
        return hexadecimal(digits.as_bytes(), out);
    }
    base64(behind(value, ["0b", "0B"])?.as_bytes(), out)
}

fn hexadecimal(digits: &[u8], out: &mut [u8]) -> Option<usize> {
    let len = digits.len().div_ceil(2);
    let out = out.get_mut(..len)?;
    let nibble = |digit: u8| (digit as char).to_digit(16).map(|n| n as u8);
    let (half, whole) = digits.split_at(digits.len() % 2);
    let half = half.first().map(|digit| nibble(*digit));
    let pairs = whole.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?));
    for (byte, value) in out.iter_mut().zip(half.into_iter().chain(pairs)) {
        *byte = value?;
    }
    Some(len)
}

fn base64(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let digits = &text[..text.len() - padding];
    // Padding may be left out, but where it stands it must make whole groups of four.
    if padding > 2 || digits.len() % 4 == 1 || (padding != 0 && !text.len().is_multiple_of(4)) {
        return None;
    }
    let len = digits.len() * 3 / 4;
    let out = out.get_mut(..len)?;
    for (group, bytes) in digits.chunks(4).zip(out.chunks_mut(3)) {
        let mut bits = 0u32;
        for digit in group {
            bits = bits << 6 | u32::from(sextet(*digit)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.copy_from_slice(&bits.to_be_bytes()[1..=bytes.len()]);
    }
    Some(len)
}

fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// True for an iSCSI name of one of the three types (4.2.7): `iqn.` with a year and month, `eui.` with 16 and `naa.`
/// with 16 or 32 hexadecimal digits; at most [`NAME_MAX`] bytes, no blanks or control characters.
pub fn is_name(name: &str) -> bool {
    if name.len() > NAME_MAX {
        return false;
    }
    let hex =
        |digits: &str, lens: &[usize]| lens.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    match name.split_at_checked(4) {
        Some(("iqn.", rest)) => {
            let date = rest.as_bytes().first_chunk::<7>();
            date.is_some_and(|d| {
                d.iter().enumerate().all(|(i, b)| if i == 4 { *b == b'-' } else { b.is_ascii_digit() })
            }) && rest.as_bytes().get(7) == Some(&b'.')
                && rest.len() > 8
                && rest.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | ':') || !c.is_ascii())
        }
        Some(("eui.", digits)) => hex(digits, &[16]),
        Some(("naa.", digits)) => hex(digits, &[16, 32]),
        _ => false,
    }
}
