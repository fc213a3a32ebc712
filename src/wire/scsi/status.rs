//! Status codes (SAM-5, 5.3.1).

/// GOOD.
pub const GOOD: u8 = 0x00;
/// CHECK CONDITION: sense data says why.
pub const CHECK_CONDITION: u8 = 0x02;
/// CONDITION MET: PRE-FETCH, all blocks are in the cache.
pub const CONDITION_MET: u8 = 0x04;
/// BUSY: the same command may succeed later.
pub const BUSY: u8 = 0x08;
/// RESERVATION CONFLICT.
pub const RESERVATION_CONFLICT: u8 = 0x18;
/// TASK SET FULL.
pub const TASK_SET_FULL: u8 = 0x28;
/// TASK ABORTED.
pub const TASK_ABORTED: u8 = 0x40;
