//! The commands from a fresh session to a usable logical unit, one at a time. Pure: an answer in, the next command out.
//! The first session looks at the unit; the others only take their unit attentions.

use super::cdb::{self, Cdb};
use super::{Error, Step};
use crate::initiator::{Disk, Failure, ScsiError};
use crate::wire::iscsi::Lun;
use crate::wire::scsi::status;

/// Bytes asked for by every command here that returns data.
pub(super) const ANSWER_MAX: u32 = 4096;
/// READ CAPACITY(16) parameter data, bytes (SBC-3).
const CAPACITY_LEN: u32 = 32;
/// Most unit attentions (and other passing conditions) that are taken from a unit before it must be ready.
const ATTENTIONS_MAX: u32 = 16;
/// Sense key UNIT ATTENTION.
const UNIT_ATTENTION: u8 = 6;
/// Sense key ILLEGAL REQUEST.
const ILLEGAL_REQUEST: u8 = 5;
/// Transfer limit assumed for a unit that states none, bytes.
const UNLIMITED_TRANSFER: u32 = 1 << 20;

/// A command to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub cdb: Cdb,
    /// Bytes of data that it may return.
    pub len: u32,
    /// To the well-known place for REPORT LUNS instead of the unit.
    pub any_unit: bool,
}

/// The scan of one session.
#[derive(Debug)]
pub(super) struct Scan {
    pub step: Step,
    /// Looks at the unit, instead of only waiting until it is ready.
    whole: bool,
    lun: u16,
    target: String,
    attentions: u32,
    block_size: u32,
    blocks: u64,
    transfer_blocks: u32,
    identity: Option<(u8, Vec<u8>)>,
}

impl Scan {
    /// A scan that begins with [`Scan::ask`].
    pub fn new(whole: bool, lun: u16, target: &str) -> Scan {
        Scan {
            step: if whole { Step::ReportLuns } else { Step::TestUnitReady },
            whole,
            lun,
            target: target.into(),
            attentions: 0,
            block_size: 0,
            blocks: 0,
            transfer_blocks: 0,
            identity: None,
        }
    }

    /// The command of this step.
    pub fn ask(&self) -> Ask {
        let page = |page| Ask { cdb: cdb::inquiry(page, ANSWER_MAX as u16), len: ANSWER_MAX, any_unit: false };
        match self.step {
            Step::ReportLuns => Ask { cdb: cdb::report_luns(ANSWER_MAX), len: ANSWER_MAX, any_unit: true },
            Step::Inquiry => page(None),
            Step::Identification => page(Some(0x83)),
            Step::BlockLimits => page(Some(0xb0)),
            Step::ReadCapacity => Ask { cdb: cdb::read_capacity(CAPACITY_LEN), len: CAPACITY_LEN, any_unit: false },
            _ => Ask { cdb: cdb::test_unit_ready(), len: 0, any_unit: false },
        }
    }

    /// The answer to [`Scan::ask`]; true when the unit is usable.
    ///
    /// # Errors
    /// Why it is not.
    pub fn answered(&mut self, answer: Result<&[u8], Failure>) -> Result<bool, Error> {
        let data = match answer {
            Ok(data) => data,
            Err(Failure::Scsi(e)) if passing(e) && self.attentions < ATTENTIONS_MAX => {
                self.attentions += 1;
                return Ok(false);
            }
            // Not every unit has every page.
            Err(Failure::Scsi(e)) if self.optional() && e.key == ILLEGAL_REQUEST => &[],
            Err(failure) => return Err(Error::Refused { step: self.step, failure }),
        };
        self.step = match self.step {
            Step::ReportLuns => {
                let there: Vec<u16> = luns(data).collect();
                if !there.contains(&self.lun) {
                    return Err(Error::NoLun { wanted: self.lun, there });
                }
                Step::TestUnitReady
            }
            Step::TestUnitReady if self.whole => Step::Inquiry,
            Step::Inquiry => {
                // Peripheral qualifier 000b, device type 00h: a connected direct access block device.
                if data.first() != Some(&0) {
                    return Err(Error::Unsupported("a device type other than disk"));
                }
                Step::Identification
            }
            Step::Identification => {
                self.identity = designators(data).max_by_key(|(rank, _)| *rank).map(|(rank, d)| (rank, d.to_vec()));
                Step::BlockLimits
            }
            Step::BlockLimits => {
                self.transfer_blocks = word(data, 8).unwrap_or(0);
                Step::ReadCapacity
            }
            Step::ReadCapacity => {
                let last = data.first_chunk::<8>().map(|b| u64::from_be_bytes(*b));
                self.blocks = last.and_then(|l| l.checked_add(1)).ok_or(Error::Unsupported("no capacity"))?;
                self.block_size = word(data, 8).unwrap_or(0);
                if !matches!(self.block_size, 512 | 4096) {
                    return Err(Error::Unsupported("blocks of neither 512 nor 4096 bytes"));
                }
                Step::Running
            }
            _ => Step::Running,
        };
        Ok(self.step == Step::Running)
    }

    /// What the whole scan found.
    pub fn disk(&self) -> Disk {
        let limit = match self.transfer_blocks {
            0 => UNLIMITED_TRANSFER,
            blocks => blocks.saturating_mul(self.block_size),
        };
        let named = || format!("{}/{}", self.target, self.lun).into_bytes();
        let identity = self.identity.as_ref().map_or_else(named, |(_, bytes)| bytes.clone());
        Disk { block_size: self.block_size, blocks: self.blocks, io_bytes_max: limit, identity }
    }

    fn optional(&self) -> bool {
        matches!(self.step, Step::Identification | Step::BlockLimits)
    }
}

/// True for an answer after which the same command may succeed.
fn passing(e: ScsiError) -> bool {
    e.key == UNIT_ATTENTION || matches!(e.status, status::BUSY | status::TASK_SET_FULL)
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4).and_then(|b| b.first_chunk()).map(|b| u32::from_be_bytes(*b))
}

/// The units of REPORT LUNS parameter data.
fn luns(data: &[u8]) -> impl Iterator<Item = u16> {
    let len = word(data, 0).unwrap_or(0) as usize;
    let list = data.get(8..).unwrap_or(&[]);
    list[..len.min(list.len())].chunks_exact(8).filter_map(|b| Lun(b.try_into().ok()?).number())
}

/// Designators of the logical unit in the Device Identification page, each with how well it names the medium: a UUID best,
/// since NVMe knows the same, then NAA, EUI-64, T10 vendor identification.
fn designators(page: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = page.get(4..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        let (head, behind) = rest.split_first_chunk::<4>()?;
        let body = behind.get(..usize::from(head[3]))?;
        rest = &behind[body.len()..];
        // ASSOCIATION 00b: the addressed logical unit.
        let of_unit = head[1] & 0x30 == 0;
        Some(match head[1] & 0x0f {
            _ if !of_unit => (0, body),
            0xa => (4, body.get(2..18).unwrap_or(body)),
            3 => (3, body),
            2 => (2, body),
            1 => (1, body),
            _ => (0, body),
        })
    })
    .filter(|(rank, _)| *rank > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mutate::{Mutator, hex};

    fn scan_to(step: Step) -> Scan {
        let mut scan = Scan::new(true, 3, "iqn.2016-06.io.spdk:d");
        scan.step = step;
        scan
    }

    const LUNS: &str = "00000010 00000000 0000000000000000 0003000000000000";
    const CAPACITY: &str = "00000000000fffff 00001000 00 03 c000 00000000 00000000 00000000 00000000";
    const LIMITS: &str = "00b0003c 00 00 0000 00000400 00000000";
    const PAGE_83: &str = "0083 0022 01 03 00 08 6001405000000001 01 0a 00 12 10 00 07070707070707070707070707070707";

    #[test]
    fn a_whole_scan() {
        let mut scan = Scan::new(true, 3, "iqn.2016-06.io.spdk:d");
        let attention = Failure::Scsi(ScsiError { status: 2, key: 6, asc: 0x2900 });
        assert!(scan.ask().any_unit);
        assert!(!scan.answered(Ok(&hex(LUNS))).unwrap());
        assert_eq!(scan.ask(), Ask { cdb: cdb::test_unit_ready(), len: 0, any_unit: false });
        assert!(!scan.answered(Err(attention)).unwrap());
        assert_eq!(scan.step, Step::TestUnitReady, "once more");
        for (step, data) in [
            (Step::Inquiry, ""),
            (Step::Identification, "00"),
            (Step::BlockLimits, PAGE_83),
            (Step::ReadCapacity, LIMITS),
        ] {
            assert!(!scan.answered(Ok(&hex(data))).unwrap());
            assert_eq!(scan.step, step);
        }
        assert!(scan.answered(Ok(&hex(CAPACITY))).unwrap());
        let want = Disk { block_size: 4096, blocks: 1 << 20, io_bytes_max: 4 << 20, identity: vec![7; 16] };
        assert_eq!(scan.disk(), want);
        let mut ready = Scan::new(false, 3, "t");
        assert!(ready.answered(Ok(&[])).unwrap(), "the other sessions only wait until the unit is ready");
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let refused = |step, answer: Result<&[u8], Failure>| scan_to(step).answered(answer).unwrap_err().to_string();
        assert!(refused(Step::ReportLuns, Ok(&hex("00000008 00000000 0001000000000000"))).contains("there are [1]"));
        assert!(refused(Step::Inquiry, Ok(&[5])).contains("other than disk"));
        assert!(refused(Step::ReadCapacity, Ok(&[0; 8])).contains("neither 512"));
        assert!(refused(Step::ReadCapacity, Ok(&[255; 12])).contains("no capacity"));
        let illegal = Failure::Scsi(ScsiError { status: 2, key: 5, asc: 0x2400 });
        assert!(refused(Step::ReadCapacity, Err(illegal)).contains("READ CAPACITY failed"));
        assert!(!scan_to(Step::BlockLimits).answered(Err(illegal)).unwrap(), "not every unit has the page");
        let mut endless = scan_to(Step::TestUnitReady);
        let busy = Failure::Scsi(ScsiError { status: status::BUSY, key: 0, asc: 0 });
        let tries = (0..100).take_while(|_| endless.answered(Err(busy)).is_ok()).count();
        assert_eq!(tries, ATTENTIONS_MAX as usize);
    }

    #[test]
    fn broken_answers_never_panic() {
        let corpus = [LUNS, CAPACITY, LIMITS, PAGE_83].map(hex).to_vec();
        let mut source = Mutator::new(3, corpus);
        for round in 0..200_000u32 {
            let steps = [Step::ReportLuns, Step::Inquiry, Step::Identification, Step::BlockLimits, Step::ReadCapacity];
            let mut scan = scan_to(steps[round as usize % steps.len()]);
            let _ = scan.answered(Ok(source.next()));
            let _ = scan.disk();
        }
    }
}
