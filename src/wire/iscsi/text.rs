//! `key=value` text (RFC 7143 section 6.1) as Login and Text PDUs carry it: walked in place, written into a bounded
//! buffer. Joining the parts of a text that is spread over PDUs by the C bit is the caller's business.

use core::fmt::{self, Write};

/// Longest key, bytes.
pub const KEY_MAX: usize = 63;
/// Longest value of any kind, bytes.
pub const VALUE_MAX: usize = 8192;

/// Why a text is malformed. The walk ends there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextError {
    /// A pair without `=`.
    NoEquals,
    /// The last pair has no NUL behind it.
    NoEnd,
    /// A key that is empty, too long, or has letters other than A-Z a-z 0-9 . - + @ _ # /.
    Key,
    /// A value of more than [`VALUE_MAX`] bytes.
    ValueTooLong,
    /// A value that is not UTF-8.
    NotUtf8,
}

/// Walks the pairs of a complete text.
#[derive(Clone, Debug)]
pub struct Pairs<'a>(&'a [u8]);

impl<'a> Pairs<'a> {
    /// Over the data segment of a PDU, or over the joined ones of a text; padding excluded.
    pub fn new(text: &'a [u8]) -> Pairs<'a> {
        Pairs(text)
    }

    fn take(&mut self) -> Result<Option<(&'a str, &'a str)>, TextError> {
        // Each pair is followed by at least one NUL.
        while let [0, rest @ ..] = self.0 {
            self.0 = rest;
        }
        if self.0.is_empty() {
            return Ok(None);
        }
        let equals = self.0.iter().take(KEY_MAX + 1).position(|b| matches!(b, b'=' | 0));
        let (key, value) = match equals {
            Some(at) if self.0[at] == b'=' => (&self.0[..at], &self.0[at + 1..]),
            None if self.0.len() > KEY_MAX => return Err(TextError::Key),
            _ => return Err(TextError::NoEquals),
        };
        if key.is_empty() || !key.iter().all(|b| b.is_ascii_alphanumeric() || b".-+@_#/".contains(b)) {
            return Err(TextError::Key);
        }
        let Some(end) = value.iter().take(VALUE_MAX + 1).position(|b| *b == 0) else {
            return Err(if value.len() > VALUE_MAX { TextError::ValueTooLong } else { TextError::NoEnd });
        };
        self.0 = &value[end + 1..];
        let key = core::str::from_utf8(key).map_err(|_| TextError::Key)?;
        let value = core::str::from_utf8(&value[..end]).map_err(|_| TextError::NotUtf8)?;
        Ok(Some((key, value)))
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a str, &'a str), TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.take().transpose();
        if matches!(item, Some(Err(_))) {
            self.0 = &[];
        }
        item
    }
}

/// The buffer of a [`TextWriter`] is full; nothing of the pair was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Writes pairs into a buffer that it never outgrows.
#[derive(Debug)]
pub struct TextWriter<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> TextWriter<'a> {
    /// Over the whole of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> TextWriter<'a> {
        TextWriter { buffer, len: 0 }
    }
    /// Behind `len` bytes that are already text.
    pub fn append(buffer: &'a mut [u8], len: usize) -> TextWriter<'a> {
        assert!(len <= buffer.len());
        TextWriter { buffer, len }
    }
    /// Bytes written.
    pub fn len(&self) -> usize {
        self.len
    }
    /// True when nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The text so far.
    pub fn text(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// `key=value` and its NUL. Numbers and everything else that can be displayed are values; text must not hold NUL.
    pub fn push(&mut self, key: &str, value: impl fmt::Display) -> Result<(), Full> {
        self.whole(|w| write!(w, "{key}={value}"))
    }

    /// `key=0x...`: a binary value in hexadecimal.
    pub fn push_binary(&mut self, key: &str, value: &[u8]) -> Result<(), Full> {
        self.whole(|w| {
            write!(w, "{key}=0x")?;
            value.iter().try_for_each(|byte| write!(w, "{byte:02x}"))
        })
    }

    /// `key=Yes` or `key=No`.
    pub fn push_bool(&mut self, key: &str, value: bool) -> Result<(), Full> {
        self.push(key, if value { "Yes" } else { "No" })
    }

    /// Runs `write` and puts a NUL behind it, or takes back what it wrote.
    fn whole(&mut self, write: impl FnOnce(&mut Self) -> fmt::Result) -> Result<(), Full> {
        let before = self.len;
        let done = write(self).and_then(|()| self.write_str("\0"));
        done.map_err(|fmt::Error| {
            self.len = before;
            Full
        })
    }
}

impl Write for TextWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = &mut self.buffer[self.len..];
        let room = free.get_mut(..text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}
