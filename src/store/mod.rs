//! The log store: volumes kept in crash-safe logs, one per slice of a device, each owned by one reactor at a time.
//!
//! A [`Slice`] is sans-I/O above its device queue: time and queue are arguments, nothing is allocated per request, and
//! the same inputs give the same outputs. `format` is the pure code of what is on the medium; `fsck` checks a medium
//! with nothing but that.
//!
//! ```text
//! write -> open batch -> sealed -> written -> flushed -> stable: index switches, request ends      (log, apply)
//! read  -> index -> device -> checksum                                                             (read)
//! parts of blocks, large writes, whatever overlaps them                                            (staging)
//! checkpoint -> leaves, directories, manifest into the log -> superblock                           (checkpoint)
//! cleaning -> live blocks of the best victim into the cold stream                                  (segments, clean)
//! open  -> superblock -> checkpoint -> log after it -> new incarnation                             (start, replay)
//! ```

mod apply;
mod checkpoint;
mod clean;
mod config;
mod device_ops;
mod error;
pub mod format;
pub mod fsck;
mod index;
mod log;
mod look;
pub mod planted;
mod read;
mod replay;
mod request;
mod scrub;
mod segments;
mod slice;
mod space;
mod staging;
mod start;
mod superblock;
#[cfg(test)]
mod tests;
mod token;
mod usage;
mod volume_ops;
mod walk;
mod window;
mod write;

pub use config::{Limits, PROBE_BYTES, Probed, SliceConfig, StoreName, layout, probe};
pub use error::{Damage, StoreError};
pub use format::batch::Stamp;
pub use format::{FormatError, Name, VERSION, VolumeMeta};
pub use request::{Ended, Io, Outcome, Phase};
pub use scrub::ScrubProgress;
pub use slice::Slice;
pub use usage::{Counters, Usage};
