//! Opening a port: the environment layer, the device, its queues and pools, and back.

use super::config::{DpdkConfig, PortName};
use super::eal;
use super::ffi::{self, Description, Pool, PortId, offload};
use super::plan::{Plan, ring};
use super::port::Seed;
use super::share::Share;
use crate::net::stack::PortFacts;
use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a card may take to find its link.
const LINK_LIMIT: Duration = Duration::from_secs(10);
/// How often it is asked.
const LINK_EVERY: Duration = Duration::from_millis(100);
/// Frames that a port brings or takes at once.
const BURST: usize = 64;

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum DpdkError {
    /// The configuration contradicts itself.
    #[error("net.dpdk.port: {0}")]
    Config(String),
    /// DPDK did not do what was asked.
    #[error("{what}: {source}{}", aside(.said))]
    Step {
        /// What was tried.
        what: String,
        /// Its reason.
        source: io::Error,
        /// What its log says.
        said: String,
    },
    /// The interface below the port is smaller than the configuration wants.
    #[error("net.dpdk.mtu is {wanted}, but {below} carries {has}: set it first (ip link set dev {below} mtu {wanted})")]
    Mtu {
        /// The interface or device.
        below: String,
        /// What it carries.
        has: u16,
        /// What it should.
        wanted: u16,
    },
}

fn aside(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

fn step<T>(what: impl Into<String>, result: io::Result<T>) -> Result<T, DpdkError> {
    result.map_err(|source| DpdkError::Step { what: what.into(), source, said: eal::said() })
}

/// DPDK with one open port. Dropped by the thread that started it, after every [`Seed`] and port made of it.
pub struct Dpdk {
    port: Option<PortId>,
    pools: Vec<Pool>,
    users: Arc<()>,
    about: String,
}

impl Dpdk {
    /// Starts DPDK for this process, which can be done once, and opens the port with a queue pair for each of the first
    /// so many of `cores` cores as the port has: the cores from 0 on.
    ///
    /// # Errors
    /// What could not be had; nothing is left open.
    pub fn start(config: &DpdkConfig, cores: u16) -> Result<(Dpdk, Vec<Seed>), DpdkError> {
        let plan = Plan::new(config, cores).map_err(DpdkError::Config)?;
        step("starting DPDK", eal::start(config, &plan))?;
        let mut dpdk = Dpdk { port: None, pools: Vec::new(), users: Arc::new(()), about: String::new() };
        let seeds = dpdk.open(config, &plan)?;
        Ok((dpdk, seeds))
    }

    /// The port in a line, for the log.
    pub fn about(&self) -> &str {
        &self.about
    }

    fn open(&mut self, config: &DpdkConfig, plan: &Plan) -> Result<Vec<Seed>, DpdkError> {
        let device = config.port.device();
        let name = CString::new(device).map_err(|_| DpdkError::Config("a zero byte".into()))?;
        let unbound = match config.port {
            PortName::Pci(_) => ": is it there, and bound to vfio-pci (pollux device bind)?",
            PortName::Virtual { .. } => "",
        };
        let port = step(format!("no port {device}{unbound}"), PortId::find(&name))?;
        self.port = Some(port);
        let has = step("asking the port what it is", port.describe())?;
        let queues = plan.cores.min(has.max_rx_queues).min(has.max_tx_queues).max(1);
        let offloads = offloads(&has);
        // Drivers that know of no frame larger than the standard's may carry larger ones all the same.
        let mtu = config.mtu.min(has.max_mtu);
        let large = has.max_frame != 0 && u32::from(mtu) + 18 > has.max_frame;
        let announced = if large { 1500 } else { mtu };
        step("configuring the port", port.configure(queues, offloads, queues > 1 && has.rss != 0, announced))?;
        let rx = ring(plan.rx_ring, (has.rx_ring_min, has.rx_ring_max, has.rx_ring_align));
        let tx = ring(plan.tx_ring, (has.tx_ring_min, has.tx_ring_max, has.tx_ring_align));
        let mut senders = Vec::new();
        for queue in 0..queues {
            let receive =
                self.pool("rx", queue, plan.rx_buffers.max(u32::from(rx) / 2), plan.rx_bytes, has.numa_node)?;
            let send = self.pool("tx", queue, plan.tx_buffers, plan.tx_bytes, has.numa_node)?;
            step(format!("queue {queue}"), port.set_queue(queue, (rx, tx), has.numa_node, &receive))?;
            senders.push(send);
        }
        set_mtu(port, config, plan, &has, !large)?;
        step("starting the port", port.start())?;
        if config.addresses.iter().any(|a| a.ip.is_ipv6())
            && let Err(e) = port.all_multicast()
        {
            tracing::debug!("{device}: receiving all multicast frames: {e}");
        }
        let up = wait_for_link(port, &config.port);
        let sums = offloads & offload::TX_TCP != 0;
        let facts = PortFacts {
            mac: has.mac,
            mtu: usize::from(config.mtu),
            receive_checks_ip: true,
            receive_checks_tcp: true,
            // Twenty bytes: not worth a second kind of frames.
            transmit_sums_ip: false,
            transmit_sums_tcp: sums,
            // What the port is handed has no segment size with it.
            tso_bytes_max: None,
            burst: BURST,
        };
        self.about = about(config, &has, queues, offloads, up);
        let seed = |(queue, (pool, share)): (usize, (Pool, Share))| Seed {
            port,
            queue: queue as u16,
            pool,
            facts,
            sums,
            unfinished: plan.unfinished,
            share,
            users: self.users.clone(),
        };
        Ok(senders.into_iter().zip(Share::among(usize::from(queues))).enumerate().map(seed).collect())
    }

    fn pool(&mut self, kind: &str, queue: u16, count: u32, bytes: u16, node: i32) -> Result<Pool, DpdkError> {
        let name = CString::new(format!("pollux_{kind}{queue}")).expect("letters and digits");
        let pool = step(format!("{count} buffers of {bytes} bytes"), Pool::new(&name, count, bytes, node))?;
        self.pools.push(pool);
        Ok(pool)
    }
}

impl Drop for Dpdk {
    fn drop(&mut self) {
        if Arc::strong_count(&self.users) > 1 {
            // A reactor that did not stop still polls; the end of the process gives everything back.
            tracing::warn!("DPDK is left open: its port is in use");
            return;
        }
        if let Some(port) = self.port.take() {
            port.close();
        }
        self.pools.drain(..).for_each(Pool::free);
        ffi::stop();
    }
}

/// What of the port's offloads is used. Scattered receive is not: every buffer holds the largest frame.
fn offloads(has: &Description) -> u32 {
    has.offloads & (offload::RX_IP | offload::RX_TCP | offload::TX_TCP | offload::TX_FAST_FREE)
}

/// Sets the MTU where the driver has a say over it; where it has none, what counts is what lies below it.
fn set_mtu(port: PortId, config: &DpdkConfig, plan: &Plan, has: &Description, settable: bool) -> Result<(), DpdkError> {
    let wanted = config.mtu;
    let refused = if settable { port.set_mtu(wanted).err() } else { None };
    if !settable && matches!(config.port, PortName::Pci(_)) {
        let has = has.max_frame.saturating_sub(18) as u16;
        return Err(DpdkError::Mtu { below: config.port.device().to_owned(), has, wanted });
    }
    let below = match &plan.interface {
        Some(name) => {
            let path = format!("/sys/class/net/{name}/mtu");
            std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).map(|mtu| (name.clone(), mtu))
        }
        None => None,
    };
    match (below, refused) {
        (Some((below, mtu)), _) if mtu < wanted => Err(DpdkError::Mtu { below, has: mtu, wanted }),
        (Some(_), _) | (None, None) => Ok(()),
        (None, Some(e)) if e.raw_os_error() == Some(libc::ENOTSUP) => Ok(()),
        (None, Some(e)) => {
            tracing::debug!("{}: setting the MTU: {e}", plan.device);
            Err(DpdkError::Mtu { below: config.port.device().to_owned(), has: has.max_mtu.min(has.mtu), wanted })
        }
    }
}

/// Waits for a card's link; a virtual device has its peer when that comes.
fn wait_for_link(port: PortId, name: &PortName) -> bool {
    let limit = if matches!(name, PortName::Pci(_)) { LINK_LIMIT } else { Duration::ZERO };
    let start = std::time::Instant::now();
    loop {
        if port.link().unwrap_or(false) {
            return true;
        }
        if start.elapsed() >= limit {
            tracing::warn!("{}: no link yet; the net comes with it", name.device());
            return false;
        }
        std::thread::sleep(LINK_EVERY);
    }
}

fn about(config: &DpdkConfig, has: &Description, queues: u16, offloads: u32, up: bool) -> String {
    let bytes: Vec<u8> = has.driver.iter().map(|c| *c as u8).collect();
    let driver = CStr::from_bytes_until_nul(&bytes).map(|d| d.to_string_lossy().into_owned()).unwrap_or_default();
    let mac: Vec<String> = has.mac.iter().map(|b| format!("{b:02x}")).collect();
    let names = [(offload::RX_IP, "verifies IP"), (offload::RX_TCP, "verifies TCP"), (offload::TX_TCP, "sums TCP")];
    let does: Vec<&str> = names.iter().filter(|(bit, _)| offloads & bit != 0).map(|(_, name)| *name).collect();
    format!(
        "{}, port {} ({driver}, {}, link {}), MTU {}, queue pairs: {queues}, offloads: {}",
        ffi::version(),
        config.port.device(),
        mac.join(":"),
        if up { "up" } else { "down" },
        config.mtu,
        if does.is_empty() { "none".to_owned() } else { does.join(", ") }
    )
}
