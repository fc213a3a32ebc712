//! Device specs: one line of text that names a medium and the wrappers around it, as the command line, the
//! configuration and the RPC journal write it. Parsing refuses whatever it does not know, with the column, the key and
//! the reason; [`std::fmt::Display`] writes the line that parses to an equal value.
//!
//! ```text
//! ram:SIZE[,bs=512|4096][,lazy]                             memory, lost at exit
//! null:SIZE[,bs=512|4096][,nofill]                          reads zeroes (or nothing: nofill), forgets writes
//! uring:PATH[,bs=512|4096][,dsync][,buffered][,readonly][,poll]
//!                                                           an existing regular file or block device
//! aio:PATH[,...]                                            another name of uring
//! file:PATH,size=SIZE[,prealloc[=zero|fallocate]][,...]     as uring; the file is made or grown first
//! nvme:ADDRESS[/NSID][,readonly][,nosgl][,timeout=TIME][,unsafe_noiommu]
//!                                                           a namespace of an NVMe controller bound to vfio-pci;
//!                                                           ADDRESS as lspci -D writes it: 0000:02:00.0
//! fault(SPEC[;RULE]...)     RULE: do=ACTION[,op=KIND][,offset=FROM..TO][,begin=N][,end=N][,p=0..1]  or  seed=N
//! delay(SPEC[;KEY=TIME[,KEY=TIME]...])      KEY: KIND or KIND_p99, TIME: 100us, 2ms, ..; or seed=N
//! ```
//! KIND is `read`, `write`, `flush`, `zeroes` or `discard`; ACTION is `eio`, `enospc`, `dead`, `unsupported`, `os:N`,
//! `flip`, `corrupt:AT:XOR`, `short:BYTES`, `lose`, `misdirect:[-]BYTES` or `hold`. SIZE takes `KiB`, `MiB`, `GiB`, `TiB`, `PiB` or one of
//! `k m g t p`, all powers of 1024. In a PATH the characters `, ; ( ) %` and anything unprintable are written as `%XX`.

mod parse;
mod units;

pub use units::{Bytes, Nanos, parse_bytes, parse_nanos};

use super::delay::Latency;
use super::fault::FaultRule;
use super::nvme::NvmeSpec;
use std::fmt;
use std::path::PathBuf;

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spec {
    /// Memory of this process.
    Ram(RamSpec),
    /// A device that keeps nothing.
    Null(NullSpec),
    /// A regular file or block device through `io_uring`.
    File(FileSpec),
    /// A namespace of an NVMe controller that this process drives.
    Nvme(NvmeSpec),
    /// Faults on the way to the inner device.
    Fault {
        /// The device behind.
        inner: Box<Spec>,
        /// The rules it starts with; the first that applies to an operation decides.
        rules: Vec<FaultRule>,
        /// Seed of the rules' random choices.
        seed: u64,
    },
    /// Extra latency on the way back from the inner device.
    Delay {
        /// The device behind.
        inner: Box<Spec>,
        /// The latencies it starts with.
        latency: Latency,
        /// Seed of the choice of the slow one percent.
        seed: u64,
    },
}

/// A RAM device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RamSpec {
    /// Bytes, a multiple of the block size.
    pub size: u64,
    /// Block size in bytes, 512 or 4096; 4096 when not given.
    pub block: Option<u32>,
    /// Take the memory at first touch instead of at open.
    pub lazy: bool,
}

/// A null device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NullSpec {
    /// Bytes it claims to have, a multiple of the block size.
    pub size: u64,
    /// Block size in bytes, 512 or 4096; 4096 when not given.
    pub block: Option<u32>,
    /// Leave read buffers as they are instead of zeroing them. For measuring only: what an earlier user of the buffer
    /// left is what the reader gets.
    pub nofill: bool,
}

/// A file or block device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSpec {
    /// Where it is.
    pub path: PathBuf,
    /// Block size in bytes, 512 or 4096. Not given: a block device's logical block size; 4096 on a regular file.
    pub block: Option<u32>,
    /// Open with `O_DSYNC`: every acknowledged write is durable, no flush needed.
    pub dsync: bool,
    /// Go through the page cache instead of `O_DIRECT`.
    pub buffered: bool,
    /// Refuse writes, and let other readers open it too.
    pub read_only: bool,
    /// Poll the device for completions (`IORING_SETUP_IOPOLL`) where it offers that; a core with operations under way
    /// then never sleeps.
    pub poll: bool,
    /// Make or grow the regular file first.
    pub create: Option<Create>,
}

impl FileSpec {
    /// The defaults for `path`.
    pub fn new(path: impl Into<PathBuf>) -> FileSpec {
        FileSpec {
            path: path.into(),
            block: None,
            dsync: false,
            buffered: false,
            read_only: false,
            poll: false,
            create: None,
        }
    }
}

/// How a regular file is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Create {
    /// Bytes; the file is grown to it and never shrunk.
    pub size: u64,
    /// What is behind its blocks.
    pub prealloc: Prealloc,
}

/// What is behind the blocks of a file that is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prealloc {
    /// Nothing: space comes with the first write, and may be missing then.
    Sparse,
    /// Space without content (`fallocate`): no write can run out of space, but the first one to each extent changes
    /// the filesystem's metadata, which costs as much again at the next flush.
    Fallocate,
    /// Zeroes written to every block that has no content: later writes overwrite in place, as on a block device.
    /// Takes as long as writing the size once; a file already written is left alone.
    Zero,
}

/// What is wrong with a spec, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: `{key}`: {problem}")]
pub struct SpecError {
    /// Where in the text, counted in bytes from 1.
    pub column: usize,
    /// The key or word the problem is about.
    pub key: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// The kinds of mistakes in a spec.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// The word before the `:` or `(` names no device.
    #[error("unknown kind of device; known: ram, null, uring, aio, file, nvme, fault, delay")]
    Kind,
    /// A key this device does not have.
    #[error("unknown key for this device")]
    Key,
    /// The key came before.
    #[error("given twice")]
    Twice,
    /// The key must be given.
    #[error("missing")]
    Missing,
    /// The key stands alone.
    #[error("takes no value")]
    NoValue,
    /// The key needs a value.
    #[error("needs a value")]
    NeedsValue,
    /// Not a size.
    #[error("not a size: a number with KiB, MiB, GiB, TiB or PiB, or a plain count of bytes")]
    Size,
    /// Not a time.
    #[error("not a time: a number with ns, us, ms or s")]
    Time,
    /// Not a number, or out of range.
    #[error("not a number in range")]
    Number,
    /// Not a probability.
    #[error("not a probability: 0 to 1 with at most six decimals")]
    Probability,
    /// A block size other than 512 and 4096.
    #[error("block size must be 512 or 4096")]
    BlockSize,
    /// Not a multiple of the block size, or zero.
    #[error("must be a multiple of the block size, and not 0")]
    Multiple,
    /// Not one of the words this key takes.
    #[error("not one of the words known here")]
    Word,
    /// Not a PCI address.
    #[error("not a PCI address: DOMAIN:BUS:DEVICE.FUNCTION in hexadecimal, such as 0000:02:00.0")]
    Address,
    /// An empty path.
    #[error("the path is empty")]
    Path,
    /// `%` not followed by two hexadecimal digits.
    #[error("% must be followed by two hexadecimal digits; write %25 for % itself")]
    Escape,
    /// A range whose start is not below its end.
    #[error("not a range FROM..TO with FROM below TO")]
    Range,
    /// A character that closes or separates in the wrong place.
    #[error("unexpected here")]
    Unexpected,
    /// The text ends early.
    #[error("missing at the end")]
    End,
    /// Two keys that exclude each other.
    #[error("contradicts another key")]
    Contradiction,
    /// Wrappers nested deeper than [`NESTED_MAX`].
    #[error("nested too deeply")]
    Nested,
}

/// Block size of RAM, null and regular files when the spec gives none.
pub const BLOCK_DEFAULT: u32 = 4096;
/// Wrappers around a device at most.
pub const NESTED_MAX: usize = 8;

impl std::str::FromStr for Spec {
    type Err = SpecError;
    fn from_str(text: &str) -> Result<Spec, SpecError> {
        parse::spec(text)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::Ram(s) => {
                write!(f, "ram:{}", Bytes(s.size))?;
                block(f, s.block)?;
                flags(f, &[("lazy", s.lazy)])
            }
            Spec::Null(s) => {
                write!(f, "null:{}", Bytes(s.size))?;
                block(f, s.block)?;
                flags(f, &[("nofill", s.nofill)])
            }
            Spec::File(s) => s.fmt(f),
            Spec::Nvme(s) => s.fmt(f),
            Spec::Fault { inner, rules, seed } => {
                write!(f, "fault({inner}")?;
                for rule in rules {
                    write!(f, ";{rule}")?;
                }
                seeded(f, *seed)?;
                f.write_str(")")
            }
            Spec::Delay { inner, latency, seed } => {
                write!(f, "delay({inner}")?;
                if *latency != Latency::default() {
                    write!(f, ";{latency}")?;
                }
                seeded(f, *seed)?;
                f.write_str(")")
            }
        }
    }
}

impl fmt::Display for FileSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.create.is_some() { "file:" } else { "uring:" })?;
        units::write_path(f, &self.path)?;
        if let Some(create) = self.create {
            write!(f, ",size={}", Bytes(create.size))?;
            f.write_str(match create.prealloc {
                Prealloc::Sparse => "",
                Prealloc::Fallocate => ",prealloc=fallocate",
                Prealloc::Zero => ",prealloc",
            })?;
        }
        block(f, self.block)?;
        flags(
            f,
            &[("dsync", self.dsync), ("buffered", self.buffered), ("readonly", self.read_only), ("poll", self.poll)],
        )
    }
}

fn block(f: &mut fmt::Formatter<'_>, block: Option<u32>) -> fmt::Result {
    block.map_or(Ok(()), |bs| write!(f, ",bs={bs}"))
}

fn flags(f: &mut fmt::Formatter<'_>, flags: &[(&str, bool)]) -> fmt::Result {
    flags.iter().filter(|(_, on)| *on).try_for_each(|(name, _)| write!(f, ",{name}"))
}

fn seeded(f: &mut fmt::Formatter<'_>, seed: u64) -> fmt::Result {
    if seed == 0 { Ok(()) } else { write!(f, ";seed={seed}") }
}

#[cfg(test)]
mod tests;
