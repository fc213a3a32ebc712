//! What Identify tells, proved and in the driver's terms: of the controller, and of a namespace.

use super::error::{ControllerError, Format};
use super::prp::TRANSFER_MAX;
use super::regs::Cap;
use crate::wire::nvme::feature::event_config;
use crate::wire::nvme::{get_ascii, identify};

/// ONCS bits.
const ONCS_DSM: u16 = 1 << 2;
const ONCS_WRITE_ZEROES: u16 = 1 << 3;
/// OACS: Doorbell Buffer Config.
const OACS_DOORBELLS: u16 = 1 << 8;
/// Blocks that the 16-bit NLB of Write Zeroes can name.
const BLOCKS_MAX: u64 = 1 << 16;

/// A controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControllerFacts {
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Firmware revision.
    pub firmware: String,
    /// Bytes per transfer at most: a multiple of 4096, at most [`TRANSFER_MAX`].
    pub transfer_max: u32,
    /// A write may be lost by a power cut until a flush.
    pub volatile_cache: bool,
    /// Blocks written whole or not at all across a power cut.
    pub atomic_blocks: u32,
    /// Write Zeroes is there.
    pub write_zeroes: bool,
    /// Bytes per Write Zeroes at most, beside the 65536 blocks; `None`: no limit.
    pub zeroes_max: Option<u64>,
    /// Dataset Management is there.
    pub discard: bool,
    /// Blocks per deallocated range at most.
    pub discard_blocks: u32,
    /// SGLs in I/O commands.
    pub sgl: bool,
    /// Shadow doorbells.
    pub shadow: bool,
    /// Asynchronous Event Requests it takes at once.
    pub events: u16,
    /// The events worth asking for.
    pub event_config: u32,
    /// Commands per queue it can take, where it says so.
    pub commands_max: Option<u16>,
}

impl ControllerFacts {
    /// From Identify Controller, and the NVM command set's own where the controller has it (2.0 and later).
    pub fn of(
        cap: Cap,
        id: &identify::Controller,
        nvm: Option<&identify::NvmController>,
    ) -> Result<ControllerFacts, ControllerError> {
        // Units of CAP.MPSMIN; proved to be 4096 before.
        let units = |shift: u8| {
            (shift != 0).then(|| cap.page_min().saturating_mul(1u64.checked_shl(shift.into()).unwrap_or(u64::MAX)))
        };
        let transfer_max = units(id.mdts).unwrap_or(u64::MAX).min(u64::from(TRANSFER_MAX)) as u32;
        let (oncs, oacs) = (id.oncs.get(), id.oacs.get());
        // Without the limits of 2.0 nobody knows whether MDTS binds Write Zeroes too; some controllers think so.
        let zeroes_max = nvm.map_or(units(id.mdts), |n| units(n.wzsl));
        let blocks = |n: Option<&identify::NvmController>| n.map(|n| n.dmrsl.get()).filter(|b| *b != 0);
        Ok(ControllerFacts {
            serial: get_ascii(&id.serial).to_owned(),
            model: get_ascii(&id.model).to_owned(),
            firmware: get_ascii(&id.firmware).to_owned(),
            transfer_max,
            volatile_cache: id.vwc & 1 != 0,
            atomic_blocks: u32::from(id.awupf.get()) + 1,
            write_zeroes: oncs & ONCS_WRITE_ZEROES != 0,
            zeroes_max,
            discard: oncs & ONCS_DSM != 0,
            discard_blocks: blocks(nvm).unwrap_or(u32::MAX),
            sgl: matches!(id.sgls.get() & 3, 1 | 2),
            shadow: oacs & OACS_DOORBELLS != 0,
            events: u16::from(id.aerl) + 1,
            // Critical warnings of SMART (bits 4:0), and changed namespaces where the controller tells.
            event_config: 0x1f | id.oaes.get() & event_config::NAMESPACE,
            commands_max: Some(id.maxcmd.get()).filter(|n| *n != 0),
        })
    }
}

/// A namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamespaceFacts {
    /// Its number.
    pub nsid: u32,
    /// 2^n bytes per block: 9 or 12.
    pub block_shift: u32,
    /// Blocks, at least 1.
    pub blocks: u64,
    /// Blocks written whole or not at all across a power cut, where the namespace has a figure of its own.
    pub atomic_blocks: Option<u32>,
    /// Writes fail.
    pub read_only: bool,
    /// Write Zeroes may deallocate, and deallocated blocks read as zeroes.
    pub zeroes_deallocate: bool,
}

impl NamespaceFacts {
    /// From Identify Namespace.
    pub fn of(nsid: u32, id: &identify::Namespace) -> Result<NamespaceFacts, Format> {
        if id.nsze.get() == 0 {
            return Err(Format::Empty);
        }
        // FLBAS: the low four bits in 3:0, two more in 6:5.
        let index = id.flbas & 0xf | (id.flbas & 0x60) >> 1;
        let format = id.lbaf[usize::from(index)];
        if format.metadata.get() != 0 {
            return Err(Format::Metadata(format.metadata.get()));
        }
        let block_shift = u32::from(format.data_shift);
        if block_shift != 9 && block_shift != 12 {
            return Err(Format::Block(format.data_shift));
        }
        let own = id.nsfeat & 2 != 0;
        // Atomicity that ends at borders inside the namespace holds for one block anywhere.
        let atomic = if id.nabspf.get() != 0 { 1 } else { u32::from(id.nawupf.get()) + 1 };
        Ok(NamespaceFacts {
            nsid,
            block_shift,
            blocks: id.nsze.get().min(u64::MAX >> block_shift),
            atomic_blocks: own.then_some(atomic),
            read_only: id.nsattr & 1 != 0,
            zeroes_deallocate: id.dlfeat & 0b1111 == 0b1001,
        })
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks << self.block_shift
    }
}

/// What one command may ask for, in bytes; multiples of the block size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Read and Write.
    pub transfer: u64,
    /// Write Zeroes.
    pub zeroes: u64,
    /// A deallocated range.
    pub discard: u64,
}

impl Limits {
    /// For a namespace of a controller.
    pub fn of(controller: &ControllerFacts, namespace: &NamespaceFacts) -> Limits {
        let block = 1u64 << namespace.block_shift;
        let whole = |bytes: u64| (bytes & !(block - 1)).max(block);
        let zeroes = (BLOCKS_MAX * block).min(controller.zeroes_max.unwrap_or(u64::MAX));
        Limits {
            transfer: whole(u64::from(controller.transfer_max).min(BLOCKS_MAX * block)),
            zeroes: whole(zeroes),
            discard: u64::from(controller.discard_blocks) * block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;
    use zerocopy::little_endian::{U16, U32, U64};

    fn namespace(shift: u8, metadata: u16) -> identify::Namespace {
        let mut id = identify::Namespace::new_zeroed();
        id.nsze = U64::new(1000);
        id.flbas = 1 << 5 | 2;
        id.lbaf[18].data_shift = shift;
        id.lbaf[18].metadata = U16::new(metadata);
        id
    }

    #[test]
    fn formats_we_do_not_do_are_named() {
        let of = |shift, metadata| NamespaceFacts::of(7, &namespace(shift, metadata));
        assert_eq!(of(9, 0).unwrap().bytes(), 512_000);
        assert_eq!(of(12, 0).unwrap().bytes(), 4_096_000);
        assert_eq!(of(12, 8), Err(Format::Metadata(8)));
        for shift in [0, 8, 10, 13, 31, 64, 255] {
            assert_eq!(of(shift, 0), Err(Format::Block(shift)));
        }
        assert_eq!(NamespaceFacts::of(1, &identify::Namespace::new_zeroed()), Err(Format::Empty));
    }

    #[test]
    fn power_loss_facts_are_the_namespaces_own_where_it_has_them() {
        let mut id = namespace(12, 0);
        id.nawupf = U16::new(7);
        assert_eq!(NamespaceFacts::of(1, &id).unwrap().atomic_blocks, None);
        id.nsfeat = 2;
        assert_eq!(NamespaceFacts::of(1, &id).unwrap().atomic_blocks, Some(8));
        id.nabspf = U16::new(31);
        assert_eq!(NamespaceFacts::of(1, &id).unwrap().atomic_blocks, Some(1));
        assert!(!NamespaceFacts::of(1, &id).unwrap().zeroes_deallocate);
        // Deallocated blocks that read as anything else do not help Write Zeroes.
        for (dlfeat, helps) in [(0b1001, true), (0b0001, false), (0b1000, false), (0b1010, false), (0b1_1001, true)] {
            id.dlfeat = dlfeat;
            assert_eq!(NamespaceFacts::of(1, &id).unwrap().zeroes_deallocate, helps, "{dlfeat:b}");
        }
    }

    #[test]
    fn limits_keep_to_what_the_controller_says() {
        let mut id = identify::Controller::new_zeroed();
        let of = |id: &_, nvm: Option<&_>| ControllerFacts::of(Cap(0), id, nvm).unwrap();
        assert_eq!((of(&id, None).transfer_max, of(&id, None).zeroes_max), (TRANSFER_MAX, None));
        id.mdts = 5;
        id.oncs = U16::new(0xc);
        let facts = of(&id, None);
        assert_eq!((facts.transfer_max, facts.zeroes_max), (128 << 10, Some(128 << 10)));
        id.mdts = 255;
        assert_eq!(of(&id, None).transfer_max, TRANSFER_MAX);
        let nvm = identify::NvmController::new_zeroed();
        assert_eq!(of(&id, Some(&nvm)).zeroes_max, None);
        let nvm = identify::NvmController { wzsl: 3, dmrsl: U32::new(100), ..nvm };
        let facts = of(&id, Some(&nvm));
        let namespace = NamespaceFacts::of(1, &namespace(9, 0)).unwrap();
        let want = Limits { transfer: 1 << 20, zeroes: 32768, discard: 51200 };
        assert_eq!(Limits::of(&facts, &namespace), want);
        let roomy = ControllerFacts { zeroes_max: None, discard_blocks: u32::MAX, ..facts };
        assert_eq!(Limits::of(&roomy, &namespace).zeroes, 32 << 20);
        assert_eq!(Limits::of(&roomy, &namespace).discard, u64::from(u32::MAX) * 512);
    }
}
