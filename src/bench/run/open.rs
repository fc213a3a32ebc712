//! Opens what one worker drives: its share of the connections, with its own net.

use super::{Options, RunError, fresh_number, share, workers};
use crate::auth::chap::Credentials;
use crate::base::CoreId;
use crate::bench::clock::Clock;
use crate::bench::device::Device;
use crate::bench::hostid::{initiator_name, this_host};
use crate::bench::remote::{Remote, Shape};
use crate::initiator::url::Url;
use crate::initiator::{Client, iscsi, nvme};
use crate::net::{Tcp, TcpConfig};
use crate::wire::{iscsi as iscsi_wire, nvme_tcp};
use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};

/// The first address of the host.
pub(super) fn resolve(url: &Url) -> Result<SocketAddr, RunError> {
    let refused = |why: String| RunError::Target(url.to_string(), why);
    let mut addrs = (url.host(), url.port()).to_socket_addrs().map_err(|e| refused(e.to_string()))?;
    addrs.next().ok_or_else(|| refused("the name has no address".into()))
}

/// Worker `index`'s association.
pub(super) fn nvme(
    options: &Options,
    url: &nvme::url::Url,
    addr: SocketAddr,
    index: usize,
    clock: &Clock,
) -> Result<Remote<nvme::Initiator, Tcp>, RunError> {
    let host = this_host(options.hostnqn.as_deref());
    let mut config = nvme::Config::new(addr, &url.nqn, &host.nqn, host.id);
    config.nsid = url.nsid;
    config.queues = conns(options, index);
    config.depth = options.depth;
    config.digests = nvme_tcp::Digests { header: options.header_digest, data: options.data_digest };
    config.command_ms = options.timeout.as_millis() as u64;
    config.reconnect_ms = options.reconnect.as_millis() as u64;
    remote(nvme::Initiator::new(config), options, url, index, clock)
}

/// Worker `index`'s sessions.
pub(super) fn iscsi(
    options: &Options,
    url: &iscsi::url::Url,
    addr: SocketAddr,
    index: usize,
    clock: &Clock,
) -> Result<Remote<iscsi::Initiator, Tcp>, RunError> {
    // Runs at the same time, and the workers of one, must not end each other's sessions: random ISIDs (RFC 7143 11.12.5,
    // format 10b), whose qualifier counts the sessions of a worker.
    let random = fresh_number().to_le_bytes();
    let isid = [0x80, random[0], random[1], random[2], 0, 0];
    let name = initiator_name(options.initiator.as_deref());
    let mut config = iscsi::Config::new(addr, Some(&url.target), &name, isid);
    config.lun = url.lun;
    let mutual = options.chap_target.as_ref().map(|(name, secret)| (name.clone(), secret.clone().into_bytes()));
    let user = url.user.clone();
    config.credentials = user.map(|(name, secret)| Credentials { name, secret: secret.into_bytes(), mutual });
    if !options.chap_algorithms.is_empty() {
        config.algorithms.clone_from(&options.chap_algorithms);
    }
    config.seed = fresh_number();
    config.sessions = conns(options, index);
    config.depth = options.depth;
    config.digests = iscsi_wire::Digests { header: options.header_digest, data: options.data_digest };
    config.command_ms = options.timeout.as_millis() as u64;
    config.reconnect_ms = options.reconnect.as_millis() as u64;
    remote(iscsi::Initiator::new(config), options, url, index, clock)
}

fn conns(options: &Options, index: usize) -> u16 {
    share(u64::from(options.conns), index, workers(options)) as u16
}

fn remote<C: Client>(
    client: C,
    options: &Options,
    url: &impl Display,
    index: usize,
    clock: &Clock,
) -> Result<Remote<C, Tcp>, RunError> {
    let refused = |why: String| RunError::Target(url.to_string(), why);
    let conns = conns(options, index);
    let tcp = TcpConfig { conns_max: usize::from(conns) + 1, ..TcpConfig::default() };
    let net = Tcp::new(tcp).map_err(|e| refused(e.to_string()))?;
    let shape = Shape { name: url.to_string(), conns, depth: options.depth, io_bytes: options.block_bytes };
    Remote::connect(client, shape, net, clock).map_err(|e| refused(e.to_string()))
}

/// Worker `index`'s queue.
pub(super) fn device(options: &Options, medium: &crate::device::Medium, index: usize) -> Result<Device, RunError> {
    let depth = u32::from(conns(options, index)) * u32::from(options.depth);
    Device::open(medium, CoreId(index as u16), depth, options.block_bytes)
        .map_err(|e| RunError::Target(medium.spec().to_string(), e.to_string()))
}
