//! What a target is told from above: its limits, fixed at start ([`Config`]), and what it exports, replaced as a whole
//! whenever the control plane changes something ([`Snapshot`]).

use crate::volume::Info;
use core::net::SocketAddr;

/// Limits of one core's target. The defaults are the product's; each is enforced where its comment says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Connections on this core at most; more are refused at accept.
    pub connections: usize,
    /// Connections of one host NQN on this core at most; more are refused at Connect (Controller Busy).
    pub connections_per_host: usize,
    /// Connections without a completed Connect at most; more are refused at accept.
    pub unassociated: usize,
    /// The same per peer address; loopback addresses are exempt.
    pub unassociated_per_address: usize,
    /// Time from accept to a completed Connect, ms.
    pub connect_ms: u64,
    /// Controllers owned by this core at most; more are refused at Connect (Controller Busy).
    pub controllers: usize,
    /// Of them, discovery controllers at most: any host may make those, and must not keep out those that have rights.
    pub discovery_controllers: usize,
    /// Keep alive timeouts shorter than this are raised to it, ms.
    pub keep_alive_min_ms: u32,
    /// Keep alive timeouts longer than this are refused at Connect, ms.
    pub keep_alive_max_ms: u32,
    /// Discovery controllers without keep alive end after this long without a command, ms.
    pub discovery_idle_ms: u64,
    /// Asynchronous Event Requests outstanding per controller (AERL + 1).
    pub events: u8,
    /// Abort commands outstanding per controller (ACL + 1).
    pub aborts: u8,
    /// Bytes of one Get Log Page at most.
    pub log_page_bytes: u32,
    /// Bytes waiting to be sent on one connection above which its commands are not read.
    pub unsent_bytes: usize,
    /// MAXH2CDATA: largest data part of one H2CData PDU, bytes; a multiple of 4, at least 4096.
    pub h2c_data_bytes: u32,
    /// CPDA: alignment asked of data from the host, dwords, 0's based; 0 to 31.
    pub cpda: u8,
    /// Accept header digests when the host asks for them.
    pub header_digest: bool,
    /// Accept data digests when the host asks for them.
    pub data_digest: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            connections: crate::base::limits::CONNS_PER_CORE,
            connections_per_host: 256,
            unassociated: 64,
            unassociated_per_address: 8,
            connect_ms: 10_000,
            controllers: 1024,
            discovery_controllers: 256,
            keep_alive_min_ms: 5_000,
            keep_alive_max_ms: 600_000,
            discovery_idle_ms: 120_000,
            events: 4,
            aborts: 4,
            log_page_bytes: 64 * 1024,
            unsent_bytes: 4 << 20,
            h2c_data_bytes: 1 << 20,
            cpda: 0,
            header_digest: true,
            data_digest: true,
        }
    }
}

/// What the node exports over NVMe/TCP. Immutable; a change is a new value with a higher generation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change; GENCTR of the discovery log.
    pub generation: u64,
    /// The transport; `None` refuses every connection.
    pub transport: Option<Transport>,
    /// NVM subsystems, in the order of the discovery log; without the discovery subsystem.
    pub subsystems: Vec<Subsystem>,
    /// Other discovery services that hosts are referred to.
    pub referrals: Vec<Referral>,
}

/// Transport options. They hold for connections and controllers made after they changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transport {
    /// Entries per I/O queue, 2..=1024 (CAP.MQES + 1).
    pub queue_depth: u16,
    /// Entries of the admin queue, 32..=1024.
    pub admin_depth: u16,
    /// I/O queues per controller, 1..=128.
    pub io_queues: u16,
    /// In-capsule data of I/O commands, bytes, 0..=65536, a multiple of 16 (IOCCSZ).
    pub in_capsule_bytes: u32,
    /// Largest transfer of one command, bytes, a power of two in 4096..=1 MiB (MDTS).
    pub io_bytes_max: u32,
    /// Let C2HData carry the status where the host disabled SQ flow control.
    pub c2h_success: bool,
}

impl Default for Transport {
    fn default() -> Transport {
        Transport {
            queue_depth: 128,
            admin_depth: 128,
            io_queues: 64,
            in_capsule_bytes: 16 * 1024,
            io_bytes_max: crate::base::limits::IO_BYTES_MAX as u32,
            c2h_success: true,
        }
    }
}

/// Largest queue, entries: a request's tag has 12 bits for its slot.
pub(super) const QUEUE_DEPTH_MAX: u16 = 1024;

impl Transport {
    /// Every option moved into its range: what comes from above was checked there, and a target must not fail on it.
    #[must_use]
    pub fn clamped(self) -> Transport {
        let io_max = self.io_bytes_max.clamp(4096, crate::base::limits::IO_BYTES_MAX as u32);
        Transport {
            queue_depth: self.queue_depth.clamp(2, QUEUE_DEPTH_MAX),
            admin_depth: self.admin_depth.clamp(32, QUEUE_DEPTH_MAX),
            io_queues: self.io_queues.clamp(1, 128),
            in_capsule_bytes: self.in_capsule_bytes.min(65536) & !15,
            io_bytes_max: 1 << io_max.ilog2(),
            c2h_success: self.c2h_success,
        }
    }
}

/// An NVM subsystem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subsystem {
    /// Its NQN.
    pub nqn: String,
    /// Serial number (SN): up to 20 ASCII characters.
    pub serial: String,
    /// Model number (MN): up to 40 ASCII characters, verbatim.
    pub model: String,
    /// Firmware revision (FR): up to 8 ASCII characters.
    pub firmware: String,
    /// Any host may connect, listed or not.
    pub allow_any_host: bool,
    /// NQNs of the hosts that may connect.
    pub hosts: Vec<String>,
    /// Its namespaces, by ascending NSID.
    pub namespaces: Vec<Namespace>,
    /// Addresses it may be reached at, as the listeners were opened.
    pub listeners: Vec<SocketAddr>,
    /// Smallest controller id handed out; at least 1.
    pub cntlid_min: u16,
    /// Largest; at most `FFEFh`.
    pub cntlid_max: u16,
    /// Largest NSID, 1..=1024 (NN).
    pub max_namespaces: u32,
}

impl Subsystem {
    /// True when `host` may connect.
    pub fn admits(&self, host: &str) -> bool {
        self.allow_any_host || self.hosts.iter().any(|h| h == host)
    }

    /// The namespaces that `host` sees, by ascending NSID. To it the others are NSIDs without a namespace.
    pub fn shown_to<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Namespace> {
        self.namespaces.iter().filter(move |n| n.visible.to(host))
    }
}

/// Which hosts see a namespace, of those that its subsystem admits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Visibility {
    /// All of them.
    All,
    /// Those with one of these NQNs; none when empty.
    Only(Vec<String>),
}

impl Visibility {
    /// True when `host` sees the namespace.
    pub fn to(&self, host: &str) -> bool {
        match self {
            Visibility::All => true,
            Visibility::Only(hosts) => hosts.iter().any(|h| h == host),
        }
    }
}

/// A namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// Its number, 1..=`max_namespaces`.
    pub nsid: u32,
    /// The volume behind it, as it is now.
    pub info: Info,
    /// NGUID; all 0: none.
    pub nguid: [u8; 16],
    /// EUI-64; all 0: none.
    pub eui64: [u8; 8],
    /// UUID descriptor.
    pub uuid: [u8; 16],
    /// ANA group; reported once ANA is.
    pub anagrpid: u32,
    /// Which hosts see it.
    pub visible: Visibility,
}

impl Namespace {
    /// All that a host that sees it can tell of it: where these are equal, nothing has changed for the host.
    pub(super) fn facts(&self) -> (u32, &Info, [u8; 16], [u8; 8], [u8; 16], u32) {
        (self.nsid, &self.info, self.nguid, self.eui64, self.uuid, self.anagrpid)
    }
}

/// A referral to another discovery service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Referral {
    /// Its NQN.
    pub nqn: String,
    /// Where it is.
    pub addr: SocketAddr,
}
