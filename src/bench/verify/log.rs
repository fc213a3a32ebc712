//! The verify log: what was sent, acknowledged and seen, in a file that outlives the target and the bench process, so that
//! the next run can hold the target to it.
//!
//! The file is a header and then records of 16 bytes, appended and never changed. An intent is in the file before its
//! write leaves; an acknowledgement may be missing (the process died between the two), which only makes the check
//! weaker. Several workers append to one file; each appends whole records, and no block has two writers.
//!
//! ```text
//! header  magic "PlxVerif"  version u32  block size u32  volume u64  writer u64  first block u64  blocks u64  zero u32  CRC32C
//! record  block u40  kind u8  count u16 | generation u32 | CRC32C of the 12 bytes before
//! ```
//! A record that fails its CRC at the very end of the file is the torn tail of a killed process and is dropped; anywhere
//! else the file is damaged and refused.

use super::ledger::Ledger;
use crate::base::crc::crc32c;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"PlxVerif";
const VERSION: u32 = 1;
const HEADER: usize = 56;
/// Bytes of one record.
pub const RECORD: usize = 16;
/// Blocks one record can name.
const COUNT_MAX: u64 = 0xffff;
/// The file is rewritten when it holds more than this many records and four times what its state needs.
const REWRITE_AT: u64 = 1 << 16;

/// Whose log it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The volume's identity (`About::identity`).
    pub volume: u64,
    /// Bytes per logical block.
    pub block_size: u32,
    /// The writer number in every stamp; the same for the life of the log.
    pub writer: u64,
    /// First block the ledger covers.
    pub first: u64,
    /// Blocks the ledger covers.
    pub blocks: u64,
}

/// Why a log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system said no.
    #[error("verify log {0}: {1}")]
    Io(PathBuf, io::Error),
    /// It is not a verify log, or its header is damaged.
    #[error("verify log {0}: not a verify log of version {VERSION}")]
    NotALog(PathBuf),
    /// It belongs to another volume or block size.
    #[error(
        "verify log {0}: belongs to another volume ({1:016x}, {2}-byte blocks); this one is {3:016x}, {4}-byte blocks"
    )]
    OtherVolume(PathBuf, u64, u32, u64, u32),
    /// Another run has it open.
    #[error("verify log {0}: in use by another run")]
    InUse(PathBuf),
    /// A record in the middle fails its checksum.
    #[error("verify log {0}: damaged at byte {1}")]
    Damaged(PathBuf, u64),
}

/// What a record says about its blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fact {
    /// This generation is about to be sent.
    Intent,
    /// This generation was acknowledged.
    Acknowledged,
    /// This generation was returned by a read.
    Seen,
    /// A run began; the generation is its number.
    Run,
}

impl Fact {
    fn from_code(code: u8) -> Option<Fact> {
        [Fact::Intent, Fact::Acknowledged, Fact::Seen, Fact::Run].get(usize::from(code).wrapping_sub(1)).copied()
    }
}

/// A record, unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// What is said.
    pub fact: Fact,
    /// First block, below 2^40.
    pub block: u64,
    /// Blocks, 1..=65535.
    pub count: u16,
    /// Of which generation.
    pub generation: u32,
}

impl Record {
    /// The record's bytes.
    pub fn emit(&self) -> [u8; RECORD] {
        assert!(self.block < 1 << 40, "block number beyond the log's range");
        let word = self.block | (self.fact as u64 + 1) << 40 | u64::from(self.count) << 48;
        let mut out = [0; RECORD];
        out[..8].copy_from_slice(&word.to_le_bytes());
        out[8..12].copy_from_slice(&self.generation.to_le_bytes());
        let crc = crc32c(&out[..12]);
        out[12..].copy_from_slice(&crc.to_le_bytes());
        out
    }
    /// Reads a record; `None` when it is not whole.
    pub fn parse(bytes: &[u8; RECORD]) -> Option<Record> {
        if bytes[12..] != crc32c(&bytes[..12]).to_le_bytes() {
            return None;
        }
        let word = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let fact = Fact::from_code((word >> 40) as u8)?;
        let generation = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
        Some(Record { fact, block: word & ((1 << 40) - 1), count: (word >> 48) as u16, generation })
    }
}

/// Appends `fact` about the block to `out`, as part of the record before it when that says the same of the block before.
pub fn append(out: &mut Vec<u8>, fact: Fact, block: u64, generation: u32) {
    if let Some(last) = out.last_chunk::<RECORD>().and_then(Record::parse) {
        let joins = last.fact == fact && last.generation == generation && last.block + u64::from(last.count) == block;
        if joins && u64::from(last.count) < COUNT_MAX {
            let at = out.len() - RECORD;
            out[at..].copy_from_slice(&Record { count: last.count + 1, ..last }.emit());
            return;
        }
    }
    out.extend(Record { fact, block, count: 1, generation }.emit());
}

/// An open log. Clone it for each worker.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

/// What opening a log yields.
#[derive(Debug)]
pub struct Opened {
    /// To append to.
    pub log: Log,
    /// What the file says about every block of the old and the new range together.
    pub ledger: Ledger,
    /// The writer number all stamps of this log bear.
    pub writer: u64,
    /// Number of this run in the log's life, from 1.
    pub run: u32,
}

impl Log {
    /// Opens the log at `path`, or creates it. `identity.first` and `.blocks` are the range of this run;
    /// `identity.writer` is used only for a new file.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(path: &Path, identity: Identity) -> Result<Opened, LogError> {
        let failed = |e| LogError::Io(path.to_owned(), e);
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let mut file = lock(path, file)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            return Log::begin(path, file, identity);
        }
        let known = read_header(path, &mut file, &identity)?;
        let first = known.first.min(identity.first);
        let end = (known.first + known.blocks).max(identity.first + identity.blocks);
        let identity = Identity { first, blocks: end - first, ..known };
        let replayed = replay(path, &file, identity)?;
        let run = replayed.runs + 1;
        let grew = identity != known;
        let log = if grew || replayed.records > REWRITE_AT.max(4 * compact_records(&replayed.ledger)) {
            rewrite(path, identity, &replayed)?
        } else {
            file.set_len(replayed.valid_len).map_err(failed)?;
            Log { path: path.to_owned(), file }
        };
        log.begin_run(run)?;
        Ok(Opened { log, ledger: replayed.ledger, writer: identity.writer, run })
    }

    fn begin(path: &Path, mut file: File, identity: Identity) -> Result<Opened, LogError> {
        file.write_all(&emit_header(&identity)).map_err(|e| LogError::Io(path.to_owned(), e))?;
        let log = Log { path: path.to_owned(), file };
        log.begin_run(1)?;
        Ok(Opened { log, ledger: Ledger::new(identity.first, identity.blocks), writer: identity.writer, run: 1 })
    }

    fn begin_run(&self, run: u32) -> Result<(), LogError> {
        self.write(&Record { fact: Fact::Run, block: 0, count: 1, generation: run }.emit())
    }

    /// Appends whole records with one system call.
    ///
    /// # Errors
    /// [`LogError::Io`]; the run must not go on, since its writes could no longer be accounted for.
    pub fn write(&self, records: &[u8]) -> Result<(), LogError> {
        debug_assert!(records.len().is_multiple_of(RECORD));
        (&self.file).write_all(records).map_err(|e| LogError::Io(self.path.clone(), e))
    }

    /// A second handle for another worker.
    ///
    /// # Errors
    /// [`LogError::Io`] when no descriptor is left.
    pub fn duplicate(&self) -> Result<Log, LogError> {
        let file = self.file.try_clone().map_err(|e| LogError::Io(self.path.clone(), e))?;
        Ok(Log { path: self.path.clone(), file })
    }
}

fn emit_header(id: &Identity) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&id.block_size.to_le_bytes());
    for (at, word) in [(16, id.volume), (24, id.writer), (32, id.first), (40, id.blocks)] {
        out[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32c(&out[..HEADER - 4]);
    out[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn read_header(path: &Path, file: &mut File, wanted: &Identity) -> Result<Identity, LogError> {
    let mut h = [0; HEADER];
    file.read_exact(&mut h).map_err(|_| LogError::NotALog(path.to_owned()))?;
    let crc_holds = h[HEADER - 4..] == crc32c(&h[..HEADER - 4]).to_le_bytes();
    if h[..8] != MAGIC || h[8..12] != VERSION.to_le_bytes() || !crc_holds {
        return Err(LogError::NotALog(path.to_owned()));
    }
    let word = |at: usize| u64::from_le_bytes(h[at..at + 8].try_into().expect("eight bytes"));
    let block_size = u32::from_le_bytes(h[12..16].try_into().expect("four bytes"));
    let known = Identity { volume: word(16), block_size, writer: word(24), first: word(32), blocks: word(40) };
    if (known.volume, known.block_size) != (wanted.volume, wanted.block_size) {
        let path = path.to_owned();
        return Err(LogError::OtherVolume(path, known.volume, known.block_size, wanted.volume, wanted.block_size));
    }
    Ok(known)
}

struct Replayed {
    ledger: Ledger,
    runs: u32,
    records: u64,
    /// Bytes up to the end of the last whole record.
    valid_len: u64,
}

fn replay(path: &Path, file: &File, id: Identity) -> Result<Replayed, LogError> {
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut out = Replayed { ledger: Ledger::new(id.first, id.blocks), runs: 0, records: 0, valid_len: HEADER as u64 };
    let mut bad_at = None;
    let mut bytes = [0; RECORD];
    let mut at = HEADER as u64;
    loop {
        match input.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(out),
            Err(e) => return Err(LogError::Io(path.to_owned(), e)),
        }
        match (Record::parse(&bytes), bad_at) {
            (Some(_), Some(bad)) => return Err(LogError::Damaged(path.to_owned(), bad)),
            (Some(record), None) => {
                apply(&mut out, &record).ok_or_else(|| LogError::Damaged(path.to_owned(), at))?;
                out.records += 1;
                out.valid_len = at + RECORD as u64;
            }
            (None, _) => bad_at = bad_at.or(Some(at)),
        }
        at += RECORD as u64;
    }
}

/// `None` when the record names blocks outside the log's range.
fn apply(out: &mut Replayed, record: &Record) -> Option<()> {
    if record.fact == Fact::Run {
        out.runs = out.runs.max(record.generation);
        return Some(());
    }
    let end = record.block + u64::from(record.count);
    if record.count == 0 || !out.ledger.covers(record.block) || !out.ledger.covers(end - 1) {
        return None;
    }
    for block in record.block..end {
        match record.fact {
            Fact::Intent => out.ledger.replay_intent(block, record.generation),
            fact => out.ledger.replay_known(block, record.generation, fact == Fact::Acknowledged),
        }
    }
    Some(())
}

/// Calls `each` with the facts that give `ledger` its state.
fn facts(ledger: &Ledger, mut each: impl FnMut(Fact, u64, u32)) {
    let mut from = ledger.first();
    // Floors and ceilings in separate passes, so that neighbours join into one record.
    while let Some(block) = ledger.next_written(from) {
        let floor = ledger.floor(block);
        if floor != 0 {
            each(if ledger.is_acknowledged(block) { Fact::Acknowledged } else { Fact::Seen }, block, floor);
        }
        from = block + 1;
    }
    from = ledger.first();
    while let Some(block) = ledger.next_written(from) {
        if ledger.ceiling(block) != ledger.floor(block) {
            each(Fact::Intent, block, ledger.ceiling(block));
        }
        from = block + 1;
    }
}

fn compact_records(ledger: &Ledger) -> u64 {
    let mut count = 0;
    let mut last = None;
    facts(ledger, |fact, block, generation| {
        if last != Some((fact, block.wrapping_sub(1), generation)) {
            count += 1;
        }
        last = Some((fact, block, generation));
    });
    count
}

/// Two runs on one log would each hold the target to half of the truth.
fn lock(path: &Path, file: File) -> Result<File, LogError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::InUse(path.to_owned())),
        Err(TryLockError::Error(e)) => Err(LogError::Io(path.to_owned(), e)),
    }
}

/// Replaces the file by one that holds the state and nothing else. The new file is whole, and locked, before it takes
/// the old one's name.
fn rewrite(path: &Path, id: Identity, replayed: &Replayed) -> Result<Log, LogError> {
    let failed = |e| LogError::Io(path.to_owned(), e);
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    // Whatever a killed run left under this name is of no use.
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(&fresh).map_err(failed)?;
    let file = lock(path, file)?;
    write_state(&file, id, replayed).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)?;
    Ok(Log { path: path.to_owned(), file })
}

fn write_state(file: &File, id: Identity, replayed: &Replayed) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&emit_header(&id))?;
    out.write_all(&Record { fact: Fact::Run, block: 0, count: 1, generation: replayed.runs }.emit())?;
    let mut pending = Vec::with_capacity(1 << 16);
    let mut written = Ok(());
    facts(&replayed.ledger, |fact, block, generation| {
        append(&mut pending, fact, block, generation);
        if pending.len() >= (1 << 16) - RECORD && written.is_ok() {
            written = out.write_all(&pending);
            pending.clear();
        }
    });
    written?;
    out.write_all(&pending)?;
    out.flush()
}

#[cfg(test)]
mod tests;
