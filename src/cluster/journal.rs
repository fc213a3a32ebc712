//! The state directory: holds the [`State`] durably, one atomic transaction per change. A transaction is on the medium
//! when [`Journal::commit`] returns; after a crash at any point [`Journal::open`] gives exactly the state before or the
//! state after it. redb keeps the records; `lock` keeps a second node out.

use super::record::{Record, RecordError};
use super::state::State;
use crate::base::VolumeId;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, WriteTransaction,
};
use rustix::fs::{FlockOperation, flock};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Once;
use uuid::Uuid;

/// The newest format this build writes and opens. A journal has the oldest format that knows all records ever written to
/// it ([`Record::format`]), so that an older build refuses it only when it must.
pub const FORMAT: u32 = 2;
/// The oldest it opens, and what a new journal has.
const FORMAT_FIRST: u32 = 1;

const META: TableDefinition<&str, u32> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("objects");
/// Bytes redb may cache; the whole journal is far smaller.
const CACHE: usize = 8 << 20;

/// Why the state directory can not be used, or did not take a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process holds the directory.
    #[error("another node uses it")]
    Locked,
    /// The operating system refused.
    #[error("{what}: {}", io::Error::from_raw_os_error(*errno))]
    Os {
        /// The step that failed.
        what: &'static str,
        /// errno; 0 where the system gave none.
        errno: i32,
    },
    /// Written by a newer version.
    #[error("its format {found} is newer than this version's {FORMAT}; it has not been touched")]
    Newer {
        /// The format found.
        found: u32,
    },
    /// The database engine's own format is another one.
    #[error("its database format {0} is not this version's; it has not been touched")]
    Engine(u8),
    /// The database's pages do not hold together.
    #[error("journal.redb is damaged: {0}")]
    Damaged(&'static str),
    /// The database is whole, a record in it is not.
    #[error("journal.redb is damaged: {0}")]
    Record(#[from] RecordError),
    /// An earlier change could not be written. What it left behind is known only after the next start, so nothing more
    /// is taken until then.
    #[error("an earlier change could not be written; restart the node")]
    Failed,
}

impl From<StorageError> for JournalError {
    fn from(e: StorageError) -> JournalError {
        match e {
            StorageError::Io(e) => os("journal.redb", &e),
            StorageError::PreviousIo => JournalError::Failed,
            StorageError::Corrupted(_) => DAMAGED,
            _ => JournalError::Damaged("the database engine refuses it"),
        }
    }
}

impl From<DatabaseError> for JournalError {
    fn from(e: DatabaseError) -> JournalError {
        match e {
            DatabaseError::DatabaseAlreadyOpen => JournalError::Locked,
            DatabaseError::UpgradeRequired(version) => JournalError::Engine(version),
            // An unreadable beginning is reported as an I/O error of kind InvalidData.
            DatabaseError::Storage(StorageError::Io(e)) if e.kind() == io::ErrorKind::InvalidData => {
                JournalError::Damaged("it does not begin as one")
            }
            DatabaseError::Storage(e) => e.into(),
            _ => JournalError::Damaged("the database engine refuses it"),
        }
    }
}

fn os(what: &'static str, e: &io::Error) -> JournalError {
    JournalError::Os { what, errno: e.raw_os_error().unwrap_or(0) }
}

/// Every other error of the engine while a transaction is made.
fn engine(e: impl Into<redb::Error>) -> JournalError {
    match e.into() {
        redb::Error::Io(e) => os("journal.redb", &e),
        redb::Error::PreviousIo => JournalError::Failed,
        redb::Error::Corrupted(_) => DAMAGED,
        redb::Error::TableDoesNotExist(_) => JournalError::Damaged("a table is missing"),
        _ => JournalError::Damaged("the database engine refuses it"),
    }
}

/// An open state directory.
#[derive(Debug)]
pub struct Journal {
    db: Database,
    failed: bool,
    /// Held (flock) as long as the journal is open.
    _lock: Option<File>,
}

impl Journal {
    /// Opens the state directory, makes it (mode 0750) and a new node's state in it if there is none. The journal holds
    /// secrets: whoever else could read it no longer can (mode 0600) before anything is read from it. Refuses a directory that another process holds, that a newer version wrote, or that is damaged.
    pub fn open(dir: &Path, first_id: VolumeId) -> Result<(Journal, State), JournalError> {
        DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(|e| os("create the directory", &e))?;
        let lock = private(&dir.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            rustix::io::Errno::WOULDBLOCK => JournalError::Locked,
            e => JournalError::Os { what: "lock", errno: e.raw_os_error() },
        })?;
        let path = dir.join("journal.redb");
        if !path.try_exists().map_err(|e| os("journal.redb", &e))? {
            make(dir, first_id)?;
        }
        tighten(&private(&path)?)?;
        guarded(|| {
            let db = Builder::new().set_cache_size(CACHE).open(&path)?;
            Journal::check(db, Some(lock))
        })
    }

    /// A journal on the backend, for tests of what a crash leaves behind.
    #[cfg(test)]
    pub(super) fn on(backend: impl redb::StorageBackend, first_id: VolumeId) -> Result<(Journal, State), JournalError> {
        guarded(|| {
            let db = Builder::new().set_cache_size(CACHE).create_with_backend(backend)?;
            let fresh = db.begin_read().map_err(engine)?.list_tables().map_err(engine)?.next().is_none();
            if fresh {
                begin(&db, &State::new(Uuid::from_u128(1), first_id))?;
            }
            Journal::check(db, None)
        })
    }

    /// Verifies the pages and reads the state.
    fn check(mut db: Database, lock: Option<File>) -> Result<(Journal, State), JournalError> {
        // True when nothing had to be repaired: a crash leaves nothing to repair but free pages.
        let whole = db.check_integrity()?;
        tracing::debug!("journal.redb needed {}repair", if whole { "no " } else { "" });
        let read = db.begin_read().map_err(engine)?;
        let meta = read.open_table(META).map_err(engine)?;
        let found = meta.get("format").map_err(engine)?.ok_or(RecordError::Missing("format"))?.value();
        match found {
            FORMAT_FIRST..=FORMAT => {}
            0 => return Err(JournalError::Damaged("it carries an impossible format number")),
            _ => return Err(JournalError::Newer { found }),
        }
        let mut records = Vec::new();
        for row in read.open_table(OBJECTS).map_err(engine)?.iter().map_err(engine)? {
            let (key, value) = row.map_err(engine)?;
            records.push(Record::decode(key.value(), value.value())?);
        }
        drop((meta, read));
        let state = State::from_records(records)?;
        Ok((Journal { db, failed: false, _lock: lock }, state))
    }

    /// Makes the difference between the two states durable, in one transaction. After an error the difference may or
    /// may not be there at the next start, and every later commit fails.
    pub fn commit(&mut self, old: &State, new: &State) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        let (removed, changed) = difference(old, new);
        if removed.is_empty() && changed.is_empty() {
            return Ok(());
        }
        let done = write(&self.db, &removed, &changed);
        self.failed = done.is_err();
        done
    }
}

/// Keys that `new` lacks, and records that it does not share with `old`.
fn difference(old: &State, new: &State) -> (Vec<Vec<u8>>, Vec<Record>) {
    let mut gone: BTreeMap<Vec<u8>, Record> = old.records().map(|r| (r.key(), r)).collect();
    let mut changed = Vec::new();
    for record in new.records() {
        if gone.remove(&record.key()).as_ref() != Some(&record) {
            changed.push(record);
        }
    }
    (gone.into_keys().collect(), changed)
}

fn write(db: &Database, removed: &[Vec<u8>], changed: &[Record]) -> Result<(), JournalError> {
    let write = transaction(db)?;
    {
        let mut objects = write.open_table(OBJECTS).map_err(engine)?;
        for key in removed {
            objects.remove(key.as_slice()).map_err(engine)?;
        }
        for record in changed {
            objects.insert(record.key().as_slice(), record.encode().as_slice()).map_err(engine)?;
        }
        let mut meta = write.open_table(META).map_err(engine)?;
        let has = meta.get("format").map_err(engine)?.map_or(FORMAT_FIRST, |format| format.value());
        let needs = changed.iter().map(Record::format).max().unwrap_or(FORMAT_FIRST);
        if needs > has {
            meta.insert("format", needs).map_err(engine)?;
        }
    }
    write.commit().map_err(engine)
}

/// Opens a database whose pages may be anything. The engine panics on some kinds of damage while it walks them: that is
/// reported as damage too, and where panics abort (release builds) at least the operator reads what it means.
fn guarded<T>(open: impl FnOnce() -> Result<T, JournalError>) -> Result<T, JournalError> {
    static EXPLAIN: Once = Once::new();
    EXPLAIN.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if OPENING.get() {
                eprintln!("pollux: state directory: {DAMAGED} (the database engine stopped: {info})");
            } else {
                usual(info);
            }
        }));
    });
    OPENING.set(true);
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(open));
    OPENING.set(false);
    opened.unwrap_or(Err(DAMAGED))
}

thread_local! {
    /// This thread is inside [`guarded`]; only the panic hook asks.
    static OPENING: Cell<bool> = const { Cell::new(false) };
}

/// What a panic of the engine is reported as.
const DAMAGED: JournalError = JournalError::Damaged("its pages do not hold together");

/// A transaction that is written in two phases: its pages are durable before the header names them. So a page that does
/// not match its checksum is damage and never taken for a commit that a crash cut short.
fn transaction(db: &Database) -> Result<WriteTransaction, JournalError> {
    let mut write = db.begin_write().map_err(engine)?;
    write.set_two_phase_commit(true);
    Ok(write)
}

/// Writes a new node's first transaction.
fn begin(db: &Database, state: &State) -> Result<(), JournalError> {
    let write = transaction(db)?;
    {
        let mut meta = write.open_table(META).map_err(engine)?;
        meta.insert("format", FORMAT_FIRST).map_err(engine)?;
        let mut objects = write.open_table(OBJECTS).map_err(engine)?;
        for record in state.records() {
            objects.insert(record.key().as_slice(), record.encode().as_slice()).map_err(engine)?;
        }
    }
    write.commit().map_err(engine)
}

/// Makes a new node's journal beside its place and moves it there whole, so that a crash leaves none or a good one.
fn make(dir: &Path, first_id: VolumeId) -> Result<(), JournalError> {
    let (new, path) = (dir.join("journal.new"), dir.join("journal.redb"));
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(os("remove journal.new", &e)),
        _ => {}
    }
    let db = Builder::new().set_cache_size(CACHE).create_file(private(&new)?)?;
    begin(&db, &State::new(Uuid::new_v4(), first_id))?;
    drop(db);
    std::fs::rename(&new, &path).map_err(|e| os("rename journal.new", &e))?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| os("sync the directory", &e))
}

/// Opens a file of ours for reading and writing, made if need be, mode 0600.
fn private(path: &Path) -> Result<File, JournalError> {
    let mut how = OpenOptions::new();
    how.read(true).write(true).create(true).truncate(false).mode(0o600);
    how.open(path).map_err(|e| os("open", &e))
}

/// Takes the rights of group and others away from a file of ours: a copy put back by hand may have given them some.
///
/// # Errors
/// [`JournalError::Os`] when they can not be taken away, for the file is another user's: it is not used then.
fn tighten(file: &File) -> Result<(), JournalError> {
    let mode = file.metadata().map_err(|e| os("journal.redb", &e))?.permissions().mode() & 0o7777;
    let others = mode & 0o077;
    if others == 0 {
        return Ok(());
    }
    tracing::warn!("journal.redb holds secrets and had mode {mode:04o}: it has 0600 from now on");
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(|e| os("take rights of others to journal.redb away", &e))
}
