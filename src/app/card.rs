//! The card that the reactors poll themselves, if one is configured: opened before them, closed after them. What the rest of
//! the node sees of it is a net per core.

use super::serve::{Options, ServeError};
use crate::net::{AnyNet, NetError};

/// Makes a core's net, on the thread of its reactor.
pub type NetMaker = Box<dyn FnOnce() -> Result<AnyNet, NetError> + Send>;

/// What has to stay until the reactors have ended.
pub struct Card {
    #[cfg(feature = "dpdk")]
    _dpdk: crate::net::Dpdk,
}

fn kernel_only(options: &Options) -> NetMaker {
    let (engine, tcp) = (options.engine, options.tcp.clone());
    Box::new(move || AnyNet::new(engine, tcp))
}

/// Opens what is configured; a net for each core.
#[cfg(not(feature = "dpdk"))]
pub fn open(options: &Options) -> Result<(Option<Card>, Vec<NetMaker>), ServeError> {
    if options.dpdk.is_some() {
        return Err(ServeError::Card("this build has no feature `dpdk`".to_owned()));
    }
    Ok((None, options.cpus.iter().map(|_| kernel_only(options)).collect()))
}

/// Opens what is configured; a net for each core.
#[cfg(feature = "dpdk")]
pub fn open(options: &Options) -> Result<(Option<Card>, Vec<NetMaker>), ServeError> {
    use crate::net::{Dpdk, Prefix, Seed, Stack, StackConfig};

    let Some(config) = &options.dpdk else {
        return Ok((None, options.cpus.iter().map(|_| kernel_only(options)).collect()));
    };
    let cores = options.cpus.len();
    let (dpdk, seeds) = Dpdk::start(config, cores as u16).map_err(|e| ServeError::Card(e.to_string()))?;
    let polled = seeds.len();
    tracing::info!("net.dpdk: {}", dpdk.about());
    let addresses: Vec<String> = config.addresses.iter().map(|a| a.ip.to_string()).collect();
    tracing::info!("net.dpdk: reactors 0 to {} poll it for {} and never sleep", polled - 1, addresses.join(", "));
    if polled < cores {
        tracing::warn!(
            "net.dpdk: the port has {polled} queue pairs: reactors from {polled} on serve the kernel's addresses only"
        );
    }
    let prefix = |a: &crate::net::Address| Prefix { address: a.ip, bits: a.prefix };
    let ours: Vec<_> = config.addresses.iter().map(|a| a.ip).collect();
    let mut seeds = seeds.into_iter();
    let mut nets = Vec::with_capacity(cores);
    for _ in 0..cores {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(ServeError::Random)?;
        let stack = StackConfig {
            addresses: config.addresses.iter().map(prefix).collect(),
            gateways: config.gateways.clone(),
            mtu: usize::from(config.mtu),
            vlan: config.vlan,
            ..StackConfig::new(prefix(&config.addresses[0]), u64::from_le_bytes(random))
        };
        let (engine, tcp, ours) = (options.engine, options.tcp.clone(), ours.clone());
        let seed = seeds.next();
        let maker = move || {
            let port = seed.map(Seed::open).transpose().map_err(|e| NetError::Engine("dpdk", e))?;
            let stack = port.map(|port| Stack::new(port, stack)).transpose()?;
            AnyNet::with_stack(engine, tcp, stack, ours)
        };
        nets.push(Box::new(maker) as NetMaker);
    }
    Ok((Some(Card { _dpdk: dpdk }), nets))
}
