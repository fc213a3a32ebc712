//! The steps from an open admin connection to a usable namespace, one command at a time: Connect, enable the controller,
//! identify it, ask for queues, find and identify the namespace. Pure: an answer in, the next command out.

use super::{Config, Error};
use crate::base::Time;
use crate::wire::fabrics::{CATTR_DISABLE_SQFC, Connect, ConnectData, Property, property};
use crate::wire::fabrics::{CNTLID_DYNAMIC, result_authreq, result_cntlid};
use crate::wire::nvme::Sqe;
use crate::wire::nvme::admin::{Feature, Identify};
use crate::wire::nvme::feature::{fid, queue_counts, queue_counts_dword};
use crate::wire::nvme::identify::{self, cns, nidt};
use crate::wire::nvme::{IDENTIFY_LEN, StatusCode, get_ascii, sc};
use std::fmt;
use zerocopy::FromBytes;

/// Entries of the admin queue, 0's based (32, as the fabrics chapter requires at least).
const ADMIN_SQSIZE: u16 = 31;
/// Between two looks at CSTS.RDY, ns.
const READY_POLL_NS: u64 = 2_000_000;
/// Transfer limit assumed for a controller that states none, bytes.
const UNLIMITED_TRANSFER: u32 = 1 << 20;

/// What an association is doing; for error messages and progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the Display text says what each step is")]
pub enum Step {
    Connecting,
    Handshake,
    AdminConnect,
    ReadCap,
    Enable,
    WaitReady,
    IdentifyController,
    SetQueues,
    ListNamespaces,
    IdentifyNamespace,
    Descriptors,
    IoConnect,
    KeepAlive,
    Running,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Connecting => "connecting",
            Step::Handshake => "negotiating the connection",
            Step::AdminConnect => "Connect of the admin queue",
            Step::ReadCap => "reading the controller's capabilities",
            Step::Enable => "enabling the controller",
            Step::WaitReady => "waiting for the controller to be ready",
            Step::IdentifyController => "Identify Controller",
            Step::SetQueues => "asking for I/O queues",
            Step::ListNamespaces => "listing namespaces",
            Step::IdentifyNamespace => "Identify Namespace",
            Step::Descriptors => "reading the namespace's identifiers",
            Step::IoConnect => "Connect of an I/O queue",
            Step::KeepAlive => "keeping the association alive",
            Step::Running => "running commands",
        })
    }
}

/// A namespace, and what its controller allows on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// NSID.
    pub nsid: u32,
    /// Bytes per logical block.
    pub block_size: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Namespace UUID, NGUID or EUI64, whichever is there first in that order; zero-padded. `None`: none is.
    pub id: Option<[u8; 16]>,
    /// Largest transfer, bytes.
    pub io_bytes_max: u32,
    /// A volatile write cache is present: completed writes are durable only after a Flush.
    pub volatile_cache: bool,
    /// Write protected.
    pub read_only: bool,
    /// Model and serial number of the controller.
    pub model: String,
    /// Serial number.
    pub serial: String,
}

/// The answer to the last command.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// Success, with dwords 0 and 1 and the data it returned.
    Good(u64, &'a [u8]),
    /// Refused.
    Bad(StatusCode),
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this; it returns so many bytes of data.
    Send(Sqe, u32),
    /// Send this after some time.
    SendAt(Time, Sqe),
    /// Send a Connect with this data.
    Connect(Sqe, Box<ConnectData>),
    /// The admin side is done: connect the I/O queues.
    Done,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Setup {
    pub step: Step,
    pub cntlid: u16,
    /// MQES, 0's based.
    mqes: u16,
    page_bytes: u64,
    /// In-capsule data of I/O commands, bytes.
    pub in_capsule_max: u32,
    nsid: u32,
    mdts: u8,
    vwc: bool,
    model: String,
    serial: String,
    /// Complete once [`Next::Done`] was returned.
    pub namespace: Option<Namespace>,
}

impl Setup {
    /// Before the connection.
    pub fn new() -> Setup {
        Setup {
            step: Step::Connecting,
            cntlid: 0,
            mqes: 0,
            page_bytes: 4096,
            in_capsule_max: 0,
            nsid: 0,
            mdts: 0,
            vwc: false,
            model: String::new(),
            serial: String::new(),
            namespace: None,
        }
    }

    /// Entries of an I/O queue, 0's based, for `depth` commands at once: one entry more, as far as the controller has
    /// them. That many commands may be under way.
    pub fn io_sqsize(&self, depth: u16) -> u16 {
        depth.min(self.mqes).max(1)
    }

    /// The Connect of queue `qid`.
    pub fn connect(&self, config: &Config, qid: u16) -> Next {
        let (sqsize, cntlid, kato) = match qid {
            0 => (ADMIN_SQSIZE, CNTLID_DYNAMIC, config.kato_ms),
            _ => (self.io_sqsize(config.depth), self.cntlid, 0),
        };
        let connect = Connect { format: 0, qid, sqsize, cattr: CATTR_DISABLE_SQFC, kato };
        let data = ConnectData::new(config.hostid, cntlid, &config.subnqn, &config.hostnqn);
        Next::Connect(connect.sqe(0), Box::new(data))
    }

    /// The connection is negotiated: the first command.
    pub fn begin(&mut self, config: &Config) -> Next {
        self.step = Step::AdminConnect;
        self.connect(config, 0)
    }

    /// The last command was answered: the next one.
    pub fn answered(&mut self, answer: &Answer<'_>, config: &Config, now: Time) -> Result<Next, Error> {
        let (value, data) = match answer {
            Answer::Good(value, data) => (*value, *data),
            // A controller may have no identifiers to tell.
            Answer::Bad(_) if self.step == Step::Descriptors => (0, [].as_slice()),
            Answer::Bad(status) if *status == sc::INVALID_NAMESPACE => return Err(Error::NoNamespace(config.nsid)),
            Answer::Bad(status) => return Err(Error::Refused { step: self.step, status: *status }),
        };
        match self.step {
            Step::AdminConnect => self.connected(value),
            Step::ReadCap => Ok(self.capable(value)),
            Step::Enable => Ok(self.look_ready(None)),
            Step::WaitReady => Ok(self.maybe_ready(value as u32, now)),
            Step::IdentifyController => self.controller(data, config),
            Step::SetQueues => self.queues(value, config),
            Step::ListNamespaces => self.listed(data),
            Step::IdentifyNamespace => self.identified(data, config),
            Step::Descriptors => Ok(self.described(data)),
            step => unreachable!("no command is under way while {step}"),
        }
    }

    fn connected(&mut self, value: u64) -> Result<Next, Error> {
        match result_authreq(value) {
            0 => {}
            r if r & 2 != 0 => return Err(Error::Unsupported("in-band authentication")),
            _ => return Err(Error::Unsupported("a secure channel (TLS)")),
        }
        self.cntlid = result_cntlid(value);
        self.step = Step::ReadCap;
        Ok(Next::Send(Property::get(0, property::CAP, true), 0))
    }

    fn capable(&mut self, cap: u64) -> Next {
        self.mqes = property::cap_mqes(cap);
        // CAP.MPSMIN, bits 51:48, is the unit of MDTS.
        self.page_bytes = 4096 << (cap >> 48 & 0xf);
        self.step = Step::Enable;
        Next::Send(Property::set(0, property::CC, false, u64::from(property::CC_ENABLE_NVM)), 0)
    }

    fn look_ready(&mut self, at: Option<Time>) -> Next {
        self.step = Step::WaitReady;
        let sqe = Property::get(0, property::CSTS, false);
        at.map_or(Next::Send(sqe, 0), |at| Next::SendAt(at, sqe))
    }

    fn maybe_ready(&mut self, csts: u32, now: Time) -> Next {
        if csts & property::CSTS_RDY == 0 {
            return self.look_ready(Some(now.after_ns(READY_POLL_NS)));
        }
        self.step = Step::IdentifyController;
        identify(cns::CONTROLLER, 0)
    }

    fn controller(&mut self, data: &[u8], config: &Config) -> Result<Next, Error> {
        let Ok((c, _)) = identify::Controller::ref_from_prefix(data) else { return Err(short(self.step)) };
        if c.controller_type == 2 {
            return Err(Error::Unsupported("to be asked for its discovery log only (it is a discovery controller)"));
        }
        self.mdts = c.mdts;
        self.vwc = c.vwc & 1 != 0;
        get_ascii(&c.model).clone_into(&mut self.model);
        get_ascii(&c.serial).clone_into(&mut self.serial);
        // A capsule is the 64-byte SQE and its data; data at an offset behind the SQE is not done on TCP.
        let capsule = if c.icdoff.get() == 0 { c.ioccsz.get().saturating_mul(16).saturating_sub(64) } else { 0 };
        self.in_capsule_max = capsule;
        self.step = Step::SetQueues;
        let count = queue_counts_dword(u32::from(config.queues), u32::from(config.queues));
        Ok(Next::Send(Feature::set(0, fid::QUEUES, 0, count), 0))
    }

    fn queues(&mut self, value: u64, config: &Config) -> Result<Next, Error> {
        let (submission, completion) = queue_counts(value as u32);
        let granted = submission.min(completion);
        if granted < u32::from(config.queues) {
            return Err(Error::Queues { wanted: config.queues, granted });
        }
        if let Some(nsid) = config.nsid {
            return Ok(self.identify_namespace(nsid));
        }
        self.step = Step::ListNamespaces;
        Ok(identify(cns::ACTIVE_LIST, 0))
    }

    fn listed(&mut self, data: &[u8]) -> Result<Next, Error> {
        let Ok((list, _)) = identify::NamespaceList::ref_from_prefix(data) else { return Err(short(self.step)) };
        let first = list.iter().next().ok_or(Error::NoNamespace(None))?;
        Ok(self.identify_namespace(first))
    }

    fn identify_namespace(&mut self, nsid: u32) -> Next {
        self.nsid = nsid;
        self.step = Step::IdentifyNamespace;
        identify(cns::NAMESPACE, nsid)
    }

    fn identified(&mut self, data: &[u8], config: &Config) -> Result<Next, Error> {
        let Ok((ns, _)) = identify::Namespace::ref_from_prefix(data) else { return Err(short(self.step)) };
        let blocks = ns.nsze.get();
        if blocks == 0 {
            // An inactive NSID is answered with zeroes.
            return Err(Error::NoNamespace(config.nsid));
        }
        let format = usize::from(ns.flbas & 0xf | (ns.flbas & 0x60) >> 1);
        if ns.lbaf.get(format).is_none_or(|f| f.metadata.get() != 0) {
            return Err(Error::Unsupported("metadata with every block"));
        }
        let size = ns.block_size().filter(|s| [512, 4096].contains(s));
        let block_size = size.ok_or(Error::Unsupported("logical blocks of other than 512 or 4096 bytes"))?;
        let first_set = |id: &[u8]| id.iter().any(|b| *b != 0);
        let id = if first_set(&ns.nguid) {
            Some(ns.nguid)
        } else if first_set(&ns.eui64) {
            Some(padded(&ns.eui64))
        } else {
            None
        };
        let limit = if self.mdts == 0 { u64::from(UNLIMITED_TRANSFER) } else { self.page_bytes << self.mdts.min(31) };
        self.namespace = Some(Namespace {
            nsid: self.nsid,
            block_size,
            blocks,
            id,
            io_bytes_max: limit.min(65_536 * u64::from(block_size)).min(1 << 30) as u32,
            volatile_cache: self.vwc,
            read_only: ns.nsattr & 1 != 0,
            model: self.model.clone(),
            serial: self.serial.clone(),
        });
        self.step = Step::Descriptors;
        Ok(identify(cns::DESCRIPTORS, self.nsid))
    }

    fn described(&mut self, data: &[u8]) -> Next {
        let ns = self.namespace.as_mut().expect("identified before its descriptors");
        if let Some((_, uuid)) = identify::descriptors(data).find(|(kind, id)| *kind == nidt::UUID && id.len() == 16) {
            ns.id = Some(padded(uuid));
        }
        self.step = Step::IoConnect;
        Next::Done
    }
}

fn identify(cns: u8, nsid: u32) -> Next {
    Next::Send(Identify { cns, cntid: 0, specific: 0, csi: 0, nsid }.sqe(0), IDENTIFY_LEN as u32)
}

fn padded(id: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out[..id.len()].copy_from_slice(id);
    out
}

/// A structure shorter than it must be; can not happen, since a Read is checked for its length.
fn short(step: Step) -> Error {
    Error::Refused { step, status: sc::DATA_TRANSFER_ERROR }
}
