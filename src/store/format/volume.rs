//! What the log keeps about a volume besides its blocks, and the fixed-size name type.

use super::FormatError;
use crate::base::{BLOCK, VolumeId};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A name of at most 64 bytes of UTF-8, kept inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    bytes: [u8; Name::MAX],
    len: u8,
}

impl Name {
    /// Most bytes of a name.
    pub const MAX: usize = 64;

    /// `None` when the name is longer than [`Name::MAX`] bytes or contains a NUL.
    pub fn new(name: &str) -> Option<Name> {
        if name.len() > Name::MAX || name.contains('\0') {
            return None;
        }
        let mut bytes = [0; Name::MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Name { bytes, len: name.len() as u8 })
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("both constructors prove UTF-8")
    }
    /// Zero-padded to its full size, as on the medium.
    pub fn padded(&self) -> [u8; Name::MAX] {
        self.bytes
    }
    /// From its form on the medium.
    pub fn from_padded(bytes: [u8; Name::MAX]) -> Result<Name, FormatError> {
        let len = bytes.iter().position(|b| *b == 0).unwrap_or(Name::MAX);
        let clean = bytes[len..].iter().all(|b| *b == 0) && std::str::from_utf8(&bytes[..len]).is_ok();
        if clean { Ok(Name { bytes, len: len as u8 }) } else { Err(FormatError::Field) }
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A volume as every slice of its store knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeMeta {
    /// Its id, never reused within the life of the store.
    pub id: VolumeId,
    /// Stable identity towards hosts.
    pub uuid: [u8; 16],
    /// Name within the store.
    pub name: Name,
    /// Bytes; a multiple of 4096, so that no block is half inside. At most [`VolumeMeta::BYTES_MAX`].
    pub bytes: u64,
    /// Bytes per logical block: 512 or 4096.
    pub lba_bytes: u32,
    /// Space is taken on write and given back by unmap. (A thick volume is the upper layers' promise; the log itself
    /// reserves nothing.)
    pub thin: bool,
    /// The target refuses writes.
    pub read_only: bool,
    /// When it was created, in the creator's terms (seconds since 1970 by the control plane); opaque here.
    pub created: u64,
}

/// A [`VolumeMeta`] on the medium.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct VolumeBytes {
    id: U32,
    lba_bytes: U32,
    bytes: U64,
    created: U64,
    uuid: [u8; 16],
    name: [u8; Name::MAX],
    flags: u8,
    reserved: [u8; 7],
}

const _: () = assert!(size_of::<VolumeBytes>() == VolumeMeta::ENCODED);

const FLAG_THIN: u8 = 1;
const FLAG_READ_ONLY: u8 = 2;

impl VolumeMeta {
    /// Bytes of the encoded form.
    pub const ENCODED: usize = 112;
    /// Largest volume: 4 PiB.
    pub const BYTES_MAX: u64 = 1 << 52;

    /// Blocks of 4 KiB.
    pub fn blocks(&self) -> u64 {
        self.bytes / BLOCK as u64
    }
    /// Proves the ranges of all fields.
    pub fn check(&self) -> Result<(), FormatError> {
        let lba_ok = self.lba_bytes == 512 || self.lba_bytes == 4096;
        if !lba_ok || !self.bytes.is_multiple_of(BLOCK as u64) || self.bytes > Self::BYTES_MAX {
            return Err(FormatError::Field);
        }
        Ok(())
    }
    /// Its form on the medium.
    pub fn encode(&self) -> VolumeBytes {
        let flags = if self.thin { FLAG_THIN } else { 0 } | if self.read_only { FLAG_READ_ONLY } else { 0 };
        VolumeBytes {
            id: self.id.0.into(),
            lba_bytes: self.lba_bytes.into(),
            bytes: self.bytes.into(),
            created: self.created.into(),
            uuid: self.uuid,
            name: self.name.padded(),
            flags,
            reserved: [0; 7],
        }
    }
    /// From its form on the medium; the caller has proven the checksum around it.
    pub fn decode(bytes: &[u8]) -> Result<VolumeMeta, FormatError> {
        let (raw, _) = VolumeBytes::read_from_prefix(bytes).map_err(|_| FormatError::Short)?;
        if raw.flags & !(FLAG_THIN | FLAG_READ_ONLY) != 0 || raw.reserved != [0; 7] {
            return Err(FormatError::Field);
        }
        let meta = VolumeMeta {
            id: VolumeId(raw.id.get()),
            uuid: raw.uuid,
            name: Name::from_padded(raw.name)?,
            bytes: raw.bytes.get(),
            lba_bytes: raw.lba_bytes.get(),
            thin: raw.flags & FLAG_THIN != 0,
            read_only: raw.flags & FLAG_READ_ONLY != 0,
            created: raw.created.get(),
        };
        meta.check()?;
        Ok(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_metas_round_trip() {
        assert!(Name::new(&"x".repeat(65)).is_none() && Name::new("a\0b").is_none());
        let full = Name::new(&"y".repeat(64)).unwrap();
        assert_eq!(Name::from_padded(full.padded()).unwrap(), full);
        let mut hole = full.padded();
        hole[3] = 0;
        assert_eq!(Name::from_padded(hole), Err(FormatError::Field));
        let meta = VolumeMeta {
            id: VolumeId(7),
            uuid: [9; 16],
            name: full,
            bytes: 5 << 20,
            lba_bytes: 512,
            thin: true,
            read_only: false,
            created: 44,
        };
        assert_eq!(VolumeMeta::decode(meta.encode().as_bytes()), Ok(meta));
        assert_eq!(VolumeMeta::decode(&[0; 50]), Err(FormatError::Short));
        let bad = VolumeMeta { lba_bytes: 1024, ..meta };
        assert_eq!(VolumeMeta::decode(bad.encode().as_bytes()), Err(FormatError::Field));
    }
}
