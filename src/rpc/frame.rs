//! Cuts a byte stream into JSON values: SPDK's framing (ECOSYSTEM: no length prefix, no newline needed, values may be
//! pretty-printed and concatenated, and arrive in any pieces). Every byte is looked at once, whatever the pieces.
//!
//! The framer only finds where a value ends, and refuses early what can not become one: other text between values,
//! brackets that do not match, nesting past [`DEPTH_MAX`], a value past the size limit. Whether the value is JSON is for the
//! parser to say. After an error there is no way to find the next value: the stream is to be closed.

/// Deepest nesting of a request (RELIABILITY section 4).
pub const DEPTH_MAX: u32 = 32;

/// Why a stream can not be cut any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Something other than `{`, `[` or white space stands where a value should begin.
    #[error("a request begins with '{{' or '['")]
    Start,
    /// A closing bracket of the wrong kind.
    #[error("brackets do not match")]
    Bracket,
    /// A byte that no JSON text has at this place.
    #[error("byte {0:#04x} is not JSON here")]
    Byte(u8),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX}")]
    Depth,
    /// Larger than the limit.
    #[error("larger than {0} bytes")]
    Size(usize),
}

/// The cutter of one stream.
#[derive(Debug)]
pub struct Framer {
    bytes: Vec<u8>,
    /// Where the unfinished value, or the white space before it, begins.
    start: usize,
    /// The next byte to look at.
    at: usize,
    depth: u32,
    /// One bit per level, the innermost lowest: 1 is an object.
    kinds: u32,
    string: bool,
    escape: bool,
    max: usize,
    failed: Option<FrameError>,
}

impl Framer {
    /// A stream whose values have at most `max` bytes.
    pub fn new(max: usize) -> Framer {
        Framer {
            bytes: Vec::new(),
            start: 0,
            at: 0,
            depth: 0,
            kinds: 0,
            string: false,
            escape: false,
            max,
            failed: None,
        }
    }

    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.at -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// True when a value has begun and not ended.
    pub fn partial(&self) -> bool {
        self.depth > 0
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The next whole value, if it has arrived. After an error, always that error.
    pub fn next_value(&mut self) -> Result<Option<&[u8]>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        while self.at < self.bytes.len() {
            if self.at - self.start >= self.max {
                return Err(self.fail(FrameError::Size(self.max)));
            }
            match self.look(self.bytes[self.at]) {
                Ok(false) => self.at += 1,
                Ok(true) => {
                    self.at += 1;
                    let from = std::mem::replace(&mut self.start, self.at);
                    return Ok(Some(&self.bytes[from..self.at]));
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(None)
    }

    fn fail(&mut self, error: FrameError) -> FrameError {
        self.failed = Some(error);
        self.bytes = Vec::new();
        (self.start, self.at, self.depth) = (0, 0, 0);
        error
    }

    /// Looks at one byte; true when it ends the value.
    fn look(&mut self, byte: u8) -> Result<bool, FrameError> {
        if self.string {
            return self.look_in_string(byte).map(|()| false);
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                if self.depth == 0 {
                    self.start = self.at + 1;
                }
                Ok(false)
            }
            b'{' | b'[' => self.open(byte == b'{').map(|()| false),
            _ if self.depth == 0 => Err(FrameError::Start),
            b'}' | b']' => self.close(byte == b'}'),
            b'"' => {
                self.string = true;
                Ok(false)
            }
            b',' | b':' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'E' | b'a'..=b'z' => Ok(false),
            other => Err(FrameError::Byte(other)),
        }
    }

    fn look_in_string(&mut self, byte: u8) -> Result<(), FrameError> {
        match byte {
            0..0x20 => return Err(FrameError::Byte(byte)),
            _ if self.escape => self.escape = false,
            b'\\' => self.escape = true,
            b'"' => self.string = false,
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, object: bool) -> Result<(), FrameError> {
        if self.depth == DEPTH_MAX {
            return Err(FrameError::Depth);
        }
        self.depth += 1;
        self.kinds = self.kinds << 1 | u32::from(object);
        Ok(())
    }

    fn close(&mut self, object: bool) -> Result<bool, FrameError> {
        if (self.kinds & 1 == 1) != object {
            return Err(FrameError::Bracket);
        }
        self.kinds >>= 1;
        self.depth -= 1;
        Ok(self.depth == 0)
    }
}

#[cfg(test)]
mod tests;
