//! Makes or grows the regular file of a `file:` spec and puts space or zeroes behind it. Nothing that was written is
//! lost: the file is never shrunk, and only holes are filled, so a preallocation that was cut off goes on where it
//! was. When it returns, the file, its size and its name are durable.

use crate::device::{Create, OpenError, Prealloc};
use crate::mem::zeroes;
use rustix::fs::{FallocateFlags, SeekFrom};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The largest block a filesystem here deals in.
const PAGE: u64 = 4096;

/// Brings `file` to what `create` says.
pub(super) fn make(
    file: &File,
    path: &Path,
    create: Create,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), OpenError> {
    let at = |what| move |source| OpenError::file(what, path, source);
    let has = file.metadata().map_err(at("stat"))?.len();
    if has > create.size {
        return Err(OpenError::Larger { path: path.to_owned(), has, asked: create.size });
    }
    if has < create.size {
        file.set_len(create.size).map_err(at("grow"))?;
    }
    match create.prealloc {
        Prealloc::Sparse => {}
        Prealloc::Fallocate => reserve(file, create.size).map_err(at("preallocate"))?,
        Prealloc::Zero => {
            // Space first: it fails at once when there is too little, and lays the file out in one piece. Where the
            // filesystem can not do it, the writes below find out.
            match reserve(file, create.size) {
                Err(e) if e.kind() != io::ErrorKind::Unsupported => return Err(at("preallocate")(e)),
                _ => fill(file, has, create.size, progress).map_err(at("preallocate"))?,
            }
        }
    }
    file.sync_all().map_err(at("sync"))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(at("sync the folder of"))
}

fn reserve(file: &File, size: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size)?)
}

/// Writes zeroes to everything below `size` that holds no data; `had` is how long the file was.
fn fill(file: &File, had: u64, size: u64, progress: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    let mut from = 0;
    while from < had {
        let hole = seek(file, SeekFrom::Hole(from), had)?;
        if hole == had {
            break;
        }
        let data = seek(file, SeekFrom::Data(hole), had)?;
        // A hole up to the old end goes on to the end of that block; direct I/O needs whole blocks.
        let end = if data == had { data.next_multiple_of(PAGE).min(size) } else { data };
        zero(file, hole, end, size, progress)?;
        from = data;
    }
    // The new part is one hole, whether or not the filesystem can tell holes. A block that the old end cut in two has
    // its space already, and growing the file made the rest of it zeroes.
    zero(file, had.next_multiple_of(PAGE), size, size, progress)
}

/// The next hole or data, or `end` when there is none before it.
fn seek(file: &File, to: SeekFrom, end: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(at.min(end)),
        Err(rustix::io::Errno::NXIO) => Ok(end),
        Err(e) => Err(e.into()),
    }
}

fn zero(file: &File, from: u64, to: u64, total: u64, progress: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    let zeroes = zeroes();
    let mut at = from;
    while at < to {
        let piece = (to - at).min(zeroes.len() as u64) as usize;
        file.write_all_at(&zeroes[..piece], at)?;
        at += piece as u64;
        progress(at, total);
    }
    Ok(())
}
