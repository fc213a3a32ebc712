//! Additional header segments (11.2.2): what may follow the basic header segment of a SCSI command.

use super::PAD;

/// One additional header segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ahs<'a> {
    /// Extended CDB: the bytes of the CDB beyond the first 16 (11.2.2.3).
    ExtendedCdb(&'a [u8]),
    /// Expected Bidirectional Read Data Length, bytes (11.2.2.4).
    BidirectionalRead(u32),
    /// A type that RFC 7143 does not know.
    Unknown(u8),
}

/// The segments do not fill the length that the header gave them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Walks the segments of one PDU.
#[derive(Clone, Debug)]
pub struct Segments<'a>(&'a [u8]);

impl<'a> Segments<'a> {
    /// Over the bytes that `TotalAHSLength` covers.
    pub fn new(bytes: &'a [u8]) -> Segments<'a> {
        Segments(bytes)
    }

    fn take(&mut self) -> Result<Ahs<'a>, Malformed> {
        // AHSLength counts the bytes behind AHSType, padding excluded; the whole segment is padded to words.
        let (head, rest) = self.0.split_first_chunk::<4>().ok_or(Malformed)?;
        let [high, low, kind, _] = *head;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let body = len.checked_sub(1).ok_or(Malformed)?;
        let padded = body.next_multiple_of(PAD);
        if padded > rest.len() {
            return Err(Malformed);
        }
        let (body, rest) = (&rest[..body], &rest[padded..]);
        self.0 = rest;
        match kind {
            1 => Ok(Ahs::ExtendedCdb(body)),
            2 => body.try_into().map(|b| Ahs::BidirectionalRead(u32::from_be_bytes(b))).map_err(|_| Malformed),
            other => Ok(Ahs::Unknown(other)),
        }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Result<Ahs<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.take();
        if item.is_err() {
            self.0 = &[];
        }
        Some(item)
    }
}
