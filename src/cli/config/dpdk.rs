//! `[net.dpdk]`: the card that the reactors poll themselves.

use super::read::{ConfigError, Section};
use crate::net::{ADDRESSES_MAX, Address, DpdkConfig, MTU_MAX, MTU_MIN, PortName, VLAN_MAX};
use std::net::IpAddr;

/// What to say in a build that cannot do it.
const NOT_BUILT: &str = "this build cannot poll a network card: it was made without the feature `dpdk`; \
     build it with `cargo build --release --features dpdk` (Debian: apt-get install libdpdk-dev libclang-dev)";

/// `[net]`, of which there is only `[net.dpdk]`. In a build without the driver the section is checked all the same, and then
/// refused.
pub fn net(s: Section<'_>) -> Result<Option<DpdkConfig>, ConfigError> {
    let config = dpdk(s.section("dpdk")?, s.has("dpdk"))?;
    if config.is_some() && !cfg!(feature = "dpdk") {
        return Err(s.wrong("dpdk", NOT_BUILT));
    }
    s.finish().map(|()| config)
}

fn dpdk(s: Section<'_>, wanted: bool) -> Result<Option<DpdkConfig>, ConfigError> {
    let port = s.parsed("port", PortName::parse)?;
    let addresses = s.one_or_more("address", Address::parse)?;
    let gateways = s.one_or_more("gateway", str::parse::<IpAddr>)?;
    let mtu = s.number("mtu", u64::from(MTU_MIN)..=u64::from(MTU_MAX))?;
    let vlan = s.number("vlan", 1..=u64::from(VLAN_MAX))?;
    let buffers = s.number("mbufs", 64..=1 << 20)?;
    let ring = |key| s.number(key, 32..=32768).map(|n| n.map(|n| n as u16));
    let (rx_ring, tx_ring) = (ring("rx_queue")?, ring("tx_queue")?);
    let eal = s.list("eal", |text| if text.is_empty() { Err("is empty") } else { Ok(text.to_owned()) })?;
    if !wanted {
        return s.finish().map(|()| None);
    }
    let port = s.required("port", port)?;
    let first = s.required("address", addresses.first().copied())?;
    if addresses.len() > ADDRESSES_MAX {
        return Err(s.wrong("address", format!("there may be at most {ADDRESSES_MAX} addresses")));
    }
    for (i, gateway) in gateways.iter().enumerate() {
        if !addresses.iter().any(|a| a.is_neighbour(*gateway)) {
            return Err(s.wrong("gateway", format!("{gateway} is not on the link of any address")));
        }
        if gateways[..i].iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            return Err(s.wrong("gateway", "there is one gateway for IPv4 and one for IPv6"));
        }
    }
    let default = DpdkConfig::new(port, first);
    let config = DpdkConfig {
        addresses,
        gateways,
        mtu: mtu.map_or(default.mtu, |n| n as u16),
        vlan: vlan.map(|n| n as u16),
        buffers: buffers.map(|n| n as u32),
        rx_ring,
        tx_ring,
        eal,
        ..default
    };
    s.finish().map(|()| Some(config))
}
