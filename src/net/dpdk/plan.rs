//! Sizes: how large frames may come, how many buffers there are, and what a virtual device has to be told about both. Known
//! before DPDK starts, because its memory has to hold them all.

use super::config::{DpdkConfig, PortName};

/// Length of a ring unless the configuration or the driver says otherwise.
const RING: u16 = 1024;
/// Buffers beside those in a ring: those under way to and in the stack, and in the thread's own cache.
const BEYOND_RING: u32 = 1024;
/// Ethernet header, two VLAN tags, trailing checksum.
const OVERHEAD: u32 = 14 + 8 + 4;
/// Cards cut receive buffers in powers of two; the smallest that all of them take.
const BUFFER_MIN: u32 = 2048;
/// What DPDK keeps for itself of each buffer, beside its headroom.
const BUFFER_BASE: u64 = 256;

/// An `AF_PACKET` socket between two ends of one kernel sees what the other end hands to its card: up to 64 KiB in one frame, to
/// be cut by hardware that is not there. A slot of its ring must hold that, or such frames arrive cut off. A slot is the
/// largest that still fits a buffer of DPDK (65535 bytes with its headroom), and the driver expects slots without gaps between
/// them: a block is 32 slots and, at 511 pages, a whole number of pages.
const PACKET_SLOT: u32 = 511 * 128;
const PACKET_BLOCK: u32 = PACKET_SLOT * 32;
/// Slots of its ring in each direction: 32 MiB.
const PACKET_SLOTS: u32 = 512;
/// Bytes of a slot before the frame's buffer is counted.
const PACKET_HEAD: u32 = 32;

/// The driver that receives through a socket of the kernel.
const PACKET: &str = "net_af_packet";
/// Shared memory between two processes.
const MEMIF: &str = "net_memif";

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// The device with all its arguments, as DPDK wants it written.
    pub device: String,
    /// Queues asked for: one per core.
    pub cores: u16,
    /// Bytes of the largest frame that may come.
    pub rx_bytes: u16,
    /// Bytes of the largest frame that is sent.
    pub tx_bytes: u16,
    /// Buffers of each core, received and sent.
    pub rx_buffers: u32,
    pub tx_buffers: u32,
    /// Rings wished for.
    pub rx_ring: u16,
    pub tx_ring: u16,
    /// Frames may come whose TCP checksum is left to hardware that is not there.
    pub unfinished: bool,
    /// The kernel's interface below the port.
    pub interface: Option<String>,
}

impl Plan {
    /// For `cores` cores.
    ///
    /// # Errors
    /// Arguments of the device that contradict each other.
    pub fn new(config: &DpdkConfig, cores: u16) -> Result<Plan, String> {
        let frame = (u32::from(config.mtu) + OVERHEAD).next_power_of_two().max(BUFFER_MIN);
        let (rx_ring, tx_ring) = (config.rx_ring.unwrap_or(RING), config.tx_ring.unwrap_or(RING));
        let mut plan = Plan {
            device: config.port.device().to_owned(),
            cores,
            rx_bytes: frame as u16,
            tx_bytes: frame as u16,
            rx_buffers: config.buffers.unwrap_or(u32::from(rx_ring) + BEYOND_RING),
            tx_buffers: config.buffers.unwrap_or(u32::from(tx_ring) + BEYOND_RING),
            rx_ring,
            tx_ring,
            unfinished: false,
            interface: config.port.argument("iface").map(str::to_owned),
        };
        let PortName::Virtual { name, arguments } = &config.port else { return Ok(plan) };
        let mut arguments = arguments.clone();
        let mut default = |key: &str, value: u32| {
            if config.port.argument(key).is_none() {
                arguments.push((key.to_owned(), value.to_string()));
            }
        };
        if name.starts_with(PACKET) {
            default("qpairs", u32::from(cores));
            if config.port.argument("framesz").is_none() && config.port.argument("blocksz").is_none() {
                default("framesz", PACKET_SLOT);
                default("blocksz", PACKET_BLOCK);
                default("framecnt", PACKET_SLOTS);
            }
            let slot = config.port.argument("framesz").map_or(Ok(PACKET_SLOT), str::parse::<u32>);
            let slot = slot.ok().filter(|slot| (PACKET_HEAD..=PACKET_SLOT).contains(slot));
            let slot = slot.ok_or_else(|| format!("framesz must be a number up to {PACKET_SLOT}"))?;
            plan.rx_bytes = (slot - PACKET_HEAD) as u16;
            // What has been received lies in the socket's ring, not in buffers.
            plan.rx_buffers = config.buffers.unwrap_or(BEYOND_RING / 2);
            plan.unfinished = true;
        } else if name.starts_with(MEMIF) {
            default("bsize", frame);
            default("rsize", rx_ring.max(tx_ring).next_power_of_two().ilog2());
        }
        for (key, value) in arguments {
            plan.device.extend([",", &key, "=", &value]);
        }
        Ok(plan)
    }

    /// Bytes of all pools.
    pub fn pool_bytes(&self) -> u64 {
        let of = |count: u32, bytes: u16| u64::from(count) * (u64::from(bytes) + BUFFER_BASE);
        u64::from(self.cores) * (of(self.rx_buffers, self.rx_bytes) + of(self.tx_buffers, self.tx_bytes))
    }
}

/// A ring length that the driver takes, nearest to the one wished for.
pub(super) fn ring(wished: u16, (min, max, align): (u16, u16, u16)) -> u16 {
    let max = if max == 0 { u16::MAX } else { max };
    let ring = wished.clamp(min.min(max), max);
    let align = align.max(1);
    (ring / align * align).max(align)
}

#[cfg(test)]
mod tests {
    use super::super::config::Address;
    use super::*;

    fn plan(port: &str, mtu: u16) -> Result<Plan, String> {
        let address = Address::parse("10.77.0.2/24").unwrap();
        Plan::new(&DpdkConfig { mtu, ..DpdkConfig::new(PortName::parse(port).unwrap(), address) }, 2)
    }

    #[test]
    fn frames_fit_their_buffers() {
        assert_eq!(plan("0000:00:03.0", 1500).unwrap().rx_bytes, 2048);
        let jumbo = plan("0000:00:03.0", 9000).unwrap();
        assert_eq!((jumbo.rx_bytes, jumbo.tx_bytes, jumbo.unfinished), (16384, 16384, false));
        assert_eq!(jumbo.pool_bytes(), 2 * 2 * 2048 * (16384 + 256));
    }

    #[test]
    fn virtual_devices_are_told_what_they_need() {
        let veth = plan("net_af_packet0,iface=v1", 1500).unwrap();
        assert_eq!(veth.device, "net_af_packet0,iface=v1,qpairs=2,framesz=65408,blocksz=2093056,framecnt=512");
        assert!(PACKET_BLOCK.is_multiple_of(4096) && PACKET_SLOT.is_multiple_of(16));
        assert_eq!((veth.rx_bytes, veth.tx_bytes, veth.interface.as_deref()), (65376, 2048, Some("v1")));
        assert!(veth.rx_bytes <= u16::MAX - 128);
        let small = plan("net_af_packet0,iface=v1,framesz=2048,qpairs=1", 1500).unwrap();
        assert_eq!((small.device.as_str(), small.rx_bytes), ("net_af_packet0,iface=v1,framesz=2048,qpairs=1", 2016));
        assert!(plan("net_af_packet0,iface=v1,framesz=131072", 1500).is_err());
        assert_eq!(plan("net_memif0,role=client", 9000).unwrap().device, "net_memif0,role=client,bsize=16384,rsize=10");
        assert_eq!(plan("net_null0", 1500).unwrap().device, "net_null0");
    }

    #[test]
    fn rings_are_what_the_driver_takes() {
        assert_eq!(ring(1024, (0, 65535, 1)), 1024);
        assert_eq!(ring(1024, (32, 512, 32)), 512);
        assert_eq!(ring(100, (32, 4096, 32)), 96);
        assert_eq!(ring(1, (64, 4096, 8)), 64);
        assert_eq!(ring(1024, (0, 0, 0)), 1024);
    }
}
