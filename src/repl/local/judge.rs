//! Reads whose data stays here because only a verdict on it is wanted: Compare, and the look for zeroes that tells which
//! blocks of a raw device hold anything.

use super::{JUDGE, Local, find};
use crate::base::limits::LOOK_BYTES_MAX;
use crate::base::{CHUNK, Status};
use crate::device::Queue;
use crate::mem::{Buf, Pool};
use crate::repl::{Detail, Ended, Home, Kind, Outcome, Part, Payload, Run};

/// What the data of a read is held against.
pub(super) struct Judged {
    tag: u64,
    against: Against,
}

enum Against {
    /// These bytes.
    Expected(Buf),
    /// Zeroes, block by block of this many bytes.
    Zeroes(usize),
}

impl<Q: Queue> Local<Q> {
    /// Compare is a read whose data stays here.
    pub(super) fn compare(&mut self, part: &Part, payload: Payload<'_>, pool: &mut Pool) -> Outcome {
        if self.judged.len() == self.judged_max {
            return Outcome::Later(payload.into_buf());
        }
        let Some(buf) = pool.get(part.len as usize) else { return Outcome::Later(payload.into_buf()) };
        let expected = match owned(payload, pool) {
            Ok(expected) => expected,
            Err(back) => {
                pool.put(buf);
                return Outcome::Later(back);
            }
        };
        self.read_to_judge(part, buf, Against::Expected(expected), pool)
    }

    /// Whether the first blocks of a part are mapped. A log's index knows; on a raw device what is all zeroes counts as
    /// not mapped, because it reads the same.
    pub(super) fn look(&mut self, part: &Part, pool: &mut Pool) -> Outcome {
        match part.home {
            Home::Log { store, slices } => {
                let ended = |status, detail| Outcome::Done(Ended { tag: part.tag, status, detail, buf: None });
                match find(&mut self.slices, &mut self.devices, store, slices, part) {
                    None => ended(Status::Gone, Detail::NONE),
                    Some((slice, _)) => match slice.mapped_run(part.volume, part.offset, part.len) {
                        Ok(Some((mapped, len))) => ended(Status::Ok, Detail::of_run(Run { mapped, len })),
                        Ok(None) => Outcome::Later(None),
                        Err(status) => ended(status, Detail::NONE),
                    },
                }
            }
            Home::Raw(device) => {
                let Some(caps) = self.caps(device) else { return super::gone(part.tag) };
                let block = caps.block_size as usize;
                let most = LOOK_BYTES_MAX.min(caps.io_bytes_max as usize) as u32;
                let part = Part { len: part.len.min(most), ..*part };
                if self.judged.len() == self.judged_max {
                    return Outcome::Later(None);
                }
                let Some(buf) = pool.get(part.len as usize) else { return Outcome::Later(None) };
                match self.read_to_judge(&part, buf, Against::Zeroes(block), pool) {
                    Outcome::Later(buf) => {
                        pool.put_all(buf);
                        Outcome::Later(None)
                    }
                    other => other,
                }
            }
        }
    }

    fn read_to_judge(&mut self, part: &Part, buf: Buf, against: Against, pool: &mut Pool) -> Outcome {
        debug_assert!(u64::from(part.len) <= CHUNK, "one buffer");
        let slot = self.judged.insert(Judged { tag: part.tag, against });
        let reading = Part { kind: Kind::Read, tag: JUDGE | slot as u64, ..*part };
        match self.read(&reading, buf, pool) {
            Outcome::Done(e) => Outcome::Done(self.judge(slot, e, pool)),
            Outcome::Pending => Outcome::Pending,
            Outcome::Later(buf) => {
                pool.put_all(buf);
                match self.judged.remove(slot).against {
                    Against::Expected(expected) => Outcome::Later(Some(expected)),
                    Against::Zeroes(_) => Outcome::Later(None),
                }
            }
        }
    }

    /// The verdict on a read that has ended.
    pub(super) fn judge(&mut self, slot: usize, read: Ended, pool: &mut Pool) -> Ended {
        let Judged { tag, against } = self.judged.remove(slot);
        let buf = read.buf.expect("a read ends with its buffer");
        let (mut status, mut detail) = (read.status, Detail::NONE);
        match against {
            Against::Expected(expected) => {
                if status.is_ok()
                    && let Some(at) = first_difference(&buf, &expected)
                {
                    (status, detail) = (Status::CompareMismatch, Detail::differing(at));
                }
                pool.put(expected);
            }
            Against::Zeroes(block) => {
                if status.is_ok() {
                    detail = Detail::of_run(leading_run(&buf, block));
                }
            }
        }
        pool.put(buf);
        Ended { tag, status, detail, buf: None }
    }
}

/// The bytes of a payload in a buffer of this core's or of whoever gave it; `Err` when none is free.
pub(super) fn owned(payload: Payload<'_>, pool: &mut Pool) -> Result<Buf, Option<Buf>> {
    match payload {
        Payload::Owned(buf) => Ok(buf),
        Payload::Borrowed(bytes) => {
            let mut copy = pool.get(bytes.len()).ok_or(None)?;
            copy.copy_from_slice(bytes);
            Ok(copy)
        }
        Payload::None => panic!("a compare has a payload"),
    }
}

/// Where two byte strings of one length differ first.
pub(super) fn first_difference(a: &[u8], b: &[u8]) -> Option<u32> {
    assert_eq!(a.len(), b.len(), "what is compared has one length");
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(a, b)| a != b).map(|at| at as u32)
}

/// How many of the first blocks are all zeroes, or hold something, as the first one does.
fn leading_run(bytes: &[u8], block: usize) -> Run {
    let mut blocks = bytes.chunks(block).map(|b| b.iter().any(|b| *b != 0));
    let mapped = blocks.next().expect("a look has a length");
    let more = blocks.take_while(|m| *m == mapped).count();
    Run { mapped, len: ((1 + more) * block) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_differences_are_found() {
        let mut bytes = [0u8; 4 * 512];
        assert_eq!(leading_run(&bytes, 512), Run { mapped: false, len: 2048 });
        bytes[1535] = 1;
        assert_eq!(leading_run(&bytes, 512), Run { mapped: false, len: 1024 });
        bytes[0] = 1;
        assert_eq!(leading_run(&bytes, 512), Run { mapped: true, len: 512 });
        assert_eq!(first_difference(&bytes, &bytes), None);
        let other = [0u8; 4 * 512];
        assert_eq!(first_difference(&bytes[1..], &other[1..]), Some(1534));
    }
}
