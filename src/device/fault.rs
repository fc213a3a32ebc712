//! Faults on purpose: a queue around a queue that fails, tears, flips, loses or misdirects chosen operations. The
//! rules come from the spec and can be changed while I/O runs through a [`FaultHandle`] (RPC, tests); every core's
//! queue to the medium shares them, and their counters.
//!
//! What a wrapped device promises still holds: a failed flush kills it for ever ([`DeviceError::Dead`]), as it does a
//! real one, until [`FaultHandle::revive`].

mod queue;

pub use queue::FaultQueue;

use super::spec::{Bytes, parse_bytes};
use super::{DeviceError, OpKind};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What happens to an operation that a rule applies to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It ends with this error and does not reach the medium. On a Flush, or as [`DeviceError::Dead`], it kills the
    /// device.
    Error(DeviceError),
    /// One bit of the data is wrong: in the reader's buffer, or on the medium (the writer's buffer comes back intact).
    Flip,
    /// At most this many bytes (and less than all) are transferred, in whole blocks; then it ends with
    /// [`DeviceError::Media`]: a torn write.
    Short(u64),
    /// It ends well but never reaches the medium: a phantom write, a lying flush.
    Lose,
    /// It is done this many bytes away (wrapping at the end of the medium), and ends well.
    Misdirect(i64),
    /// The byte at this place of the transfer has `value` exclusive-ored onto it, where the data is longer than that:
    /// in the reader's buffer, or on the medium (the writer's buffer comes back intact).
    Corrupt {
        /// Offset in the operation's data, bytes.
        at: u64,
        /// Which bits to change; not 0.
        value: u8,
    },
    /// It is kept back until [`FaultHandle::release`], and then done.
    Hold,
}

impl Action {
    /// Reads the value of `do=`.
    pub fn parse(text: &str) -> Option<Action> {
        Some(match text.split_once(':') {
            None => match text {
                "eio" => Action::Error(DeviceError::Media),
                "enospc" => Action::Error(DeviceError::NoSpace),
                "dead" => Action::Error(DeviceError::Dead),
                "unsupported" => Action::Error(DeviceError::Unsupported),
                "flip" => Action::Flip,
                "lose" => Action::Lose,
                "hold" => Action::Hold,
                _ => return None,
            },
            Some(("os", number)) => Action::Error(DeviceError::Os(number.parse().ok().filter(|n| *n > 0)?)),
            Some(("short", bytes)) => Action::Short(parse_bytes(bytes)?),
            Some(("misdirect", by)) => {
                let (sign, by) = by.strip_prefix('-').map_or((1, by), |b| (-1, b));
                Action::Misdirect(i64::try_from(parse_bytes(by)?).ok().filter(|n| *n != 0)? * sign)
            }
            Some(("corrupt", how)) => {
                let (at, value) = how.split_once(':')?;
                let value = value.parse().ok().filter(|v| *v != 0)?;
                Action::Corrupt { at: parse_bytes(at)?, value }
            }
            Some(_) => return None,
        })
    }

    /// Whether the action means anything for this kind of operation.
    pub fn fits(self, kind: OpKind) -> bool {
        match self {
            Action::Error(_) | Action::Hold => true,
            Action::Flip | Action::Corrupt { .. } | Action::Short(_) => matches!(kind, OpKind::Read | OpKind::Write),
            Action::Lose => kind != OpKind::Read,
            Action::Misdirect(_) => kind != OpKind::Flush,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Error(DeviceError::Media) => f.write_str("eio"),
            Action::Error(DeviceError::NoSpace) => f.write_str("enospc"),
            Action::Error(DeviceError::Dead) => f.write_str("dead"),
            Action::Error(DeviceError::Unsupported) => f.write_str("unsupported"),
            Action::Error(DeviceError::Os(number)) => write!(f, "os:{number}"),
            Action::Flip => f.write_str("flip"),
            Action::Short(bytes) => write!(f, "short:{}", Bytes(*bytes)),
            Action::Lose => f.write_str("lose"),
            Action::Hold => f.write_str("hold"),
            Action::Corrupt { at, value } => write!(f, "corrupt:{}:{value}", Bytes(*at)),
            Action::Misdirect(by) => {
                write!(f, "misdirect:{}{}", if *by < 0 { "-" } else { "" }, Bytes(by.unsigned_abs()))
            }
        }
    }
}

/// Which operations an action happens to. Operations that match kind and range are counted from 0; of these the ones
/// from `begin` up to, not including, `end` are candidates, and each candidate is hit with the given probability.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultRule {
    /// What happens.
    pub action: Action,
    /// Only this kind; any when `None`.
    pub op: Option<OpKind>,
    /// Only operations that touch a byte of this half-open range; all by default. A Flush counts as touching offset 0.
    pub offsets: (u64, u64),
    /// First candidate.
    pub begin: u64,
    /// First operation that is no candidate any more.
    pub end: u64,
    /// Probability in parts per million, at most 1,000,000.
    pub per_million: u32,
}

impl FaultRule {
    /// The rule that applies to every operation the action fits.
    pub fn always(action: Action) -> FaultRule {
        FaultRule { action, op: None, offsets: (0, u64::MAX), begin: 0, end: u64::MAX, per_million: 1_000_000 }
    }

    /// The rule that applies to one operation of `kind`: the `nth` from now, counted from 0.
    pub fn nth(action: Action, kind: OpKind, nth: u64) -> FaultRule {
        FaultRule { op: Some(kind), begin: nth, end: nth + 1, ..FaultRule::always(action) }
    }

    fn matches(&self, kind: OpKind, offset: u64, len: u64) -> bool {
        self.op.is_none_or(|k| k == kind)
            && self.action.fits(kind)
            && offset < self.offsets.1
            && self.offsets.0 < offset.saturating_add(len.max(1))
    }
}

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "do={}", self.action)?;
        if let Some(op) = self.op {
            write!(f, ",op={}", op.name())?;
        }
        if self.offsets != (0, u64::MAX) {
            write!(f, ",offset={}..{}", Bytes(self.offsets.0), Bytes(self.offsets.1))?;
        }
        if self.begin != 0 {
            write!(f, ",begin={}", self.begin)?;
        }
        if self.end != u64::MAX {
            write!(f, ",end={}", self.end)?;
        }
        if self.per_million != 1_000_000 {
            write!(f, ",p=0.{:06}", self.per_million)?;
        }
        Ok(())
    }
}

/// A rule in force.
#[derive(Debug)]
struct Armed {
    rule: FaultRule,
    seen: AtomicU64,
    hits: AtomicU64,
}

/// A rule in force and what it did, for reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultReport {
    /// The rule.
    pub rule: FaultRule,
    /// Operations that matched its kind and range.
    pub seen: u64,
    /// Operations it was applied to.
    pub hits: u64,
}

#[derive(Debug)]
struct Shared {
    version: AtomicU64,
    rules: Mutex<Arc<[Armed]>>,
    dead: AtomicBool,
    /// Counts calls of [`FaultHandle::release`].
    releases: AtomicU64,
}

/// The control side of a faulty medium; clones share it. Changing rules never stops a reactor: a queue looks at a
/// version number and fetches the new rules without waiting.
#[derive(Clone, Debug)]
pub struct FaultHandle(Arc<Shared>);

impl FaultHandle {
    /// A medium's rules at the start.
    pub fn new(rules: &[FaultRule]) -> FaultHandle {
        let rules = Mutex::new(armed(rules));
        let (version, releases) = (AtomicU64::new(0), AtomicU64::new(0));
        FaultHandle(Arc::new(Shared { version, rules, dead: AtomicBool::new(false), releases }))
    }

    /// Replaces all rules; counters start again from 0. Empty: no more faults.
    pub fn set(&self, rules: &[FaultRule]) {
        *self.0.rules.lock().unwrap_or_else(PoisonError::into_inner) = armed(rules);
        self.0.version.fetch_add(1, Ordering::Release);
    }

    /// The rules in force and what they did.
    pub fn report(&self) -> Vec<FaultReport> {
        let rules = self.0.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let read = |a: &Armed| FaultReport {
            rule: a.rule.clone(),
            seen: a.seen.load(Ordering::Relaxed),
            hits: a.hits.load(Ordering::Relaxed),
        };
        rules.iter().map(read).collect()
    }

    /// Lets every operation go on that is held back now, without being looked at again. Rules stay as they are.
    pub fn release(&self) {
        self.0.releases.fetch_add(1, Ordering::Release);
    }

    /// True once a flush was made to fail or the device to die.
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// Plugs a dead device in again.
    pub fn revive(&self) {
        self.0.dead.store(false, Ordering::Relaxed);
    }
}

fn armed(rules: &[FaultRule]) -> Arc<[Armed]> {
    rules.iter().map(|r| Armed { rule: r.clone(), seen: AtomicU64::new(0), hits: AtomicU64::new(0) }).collect()
}

#[cfg(test)]
mod tests;
