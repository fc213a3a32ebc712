//! What an operator may choose about the net on DPDK. Part of every build, so that a build without the driver can say so
//! instead of calling the section of its configuration unknown.

use std::net::IpAddr;

/// Bytes of the largest IP packet a frame may be asked to carry.
pub const MTU_MAX: u16 = 9000;
/// The smallest: what IPv6 asks of every link (RFC 8200, section 5).
pub const MTU_MIN: u16 = 1280;
/// The largest VLAN number; 0 and 4095 are reserved (IEEE 802.1Q, 9.6).
pub const VLAN_MAX: u16 = 4094;
/// Addresses of one port at most.
pub const ADDRESSES_MAX: usize = 8;

/// The network card, as DPDK names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortName {
    /// A PCI function, with its domain: `0000:00:03.0`. It is bound to vfio-pci (`pollux device bind`).
    Pci(String),
    /// A device that a driver makes up: its name and its arguments, like `net_af_packet0` and `iface=eth1`.
    Virtual {
        /// The driver's name and a number.
        name: String,
        /// `key=value`, in the order written.
        arguments: Vec<(String, String)>,
    },
}

impl PortName {
    /// Reads a name as written in the configuration.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<PortName, String> {
        const FORM: &str = "must be a PCI address like 0000:00:03.0, or a DPDK device like net_af_packet0,iface=eth1";
        if text.starts_with("net_") {
            let mut parts = text.split(',');
            let name = parts.next().unwrap_or_default().to_owned();
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.chars().all(plain) || !name.ends_with(|c: char| c.is_ascii_digit()) {
                return Err(format!("device name '{name}' must be letters and underscores and end in a number"));
            }
            let argument = |part: &str| match part.split_once('=') {
                Some((key, value)) if !key.is_empty() && !value.is_empty() && !part.contains(char::is_whitespace) => {
                    Ok((key.to_owned(), value.to_owned()))
                }
                _ => Err(format!("argument '{part}' of the device must be key=value")),
            };
            return Ok(PortName::Virtual { name, arguments: parts.map(argument).collect::<Result<_, _>>()? });
        }
        let hex = |part: &str, len: usize| part.len() == len && part.chars().all(|c| c.is_ascii_hexdigit());
        let whole = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
        let (slot, function) = whole.rsplit_once('.').ok_or(FORM)?;
        match slot.split(':').collect::<Vec<_>>()[..] {
            [domain, bus, device] if hex(domain, 4) && hex(bus, 2) && hex(device, 2) && hex(function, 1) => {
                Ok(PortName::Pci(whole.to_ascii_lowercase()))
            }
            _ => Err(FORM.to_owned()),
        }
    }

    /// The device's name, without arguments.
    pub fn device(&self) -> &str {
        match self {
            PortName::Pci(address) => address,
            PortName::Virtual { name, .. } => name,
        }
    }

    /// The value of an argument.
    pub fn argument(&self, key: &str) -> Option<&str> {
        match self {
            PortName::Pci(_) => None,
            PortName::Virtual { arguments, .. } => {
                arguments.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
            }
        }
    }
}

/// An address of the port, and how many of its leading bits all hosts on the link share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// 0..=32 for IPv4, 0..=128 for IPv6.
    pub prefix: u8,
}

impl Address {
    /// Reads `ADDRESS/BITS`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Address, String> {
        let form = || "must be ADDRESS/BITS, like 192.0.2.2/24 or 2001:db8::2/64".to_owned();
        let (ip, bits) = text.split_once('/').ok_or_else(form)?;
        let ip: IpAddr = ip.parse().map_err(|_| form())?;
        let prefix: u8 = bits.parse().map_err(|_| form())?;
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return Err(format!("{ip} is not an address that a card can have"));
        }
        let most = if ip.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > most {
            Err(format!("the bits must be 1 to {most}"))
        } else {
            Ok(Address { ip, prefix })
        }
    }

    /// True when `ip` is on the same link by this address's prefix.
    pub fn is_neighbour(&self, ip: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        ip.is_ipv4() == self.ip.is_ipv4() && (bits(ip) ^ bits(self.ip)) >> (128 - u32::from(self.prefix)) == 0
    }
}

/// `[net.dpdk]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DpdkConfig {
    /// Which card.
    pub port: PortName,
    /// Its addresses: 1..=[`ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
    /// Where everything beyond the link is sent; one per family at most.
    pub gateways: Vec<IpAddr>,
    /// Bytes of the largest IP packet: [`MTU_MIN`]..=[`MTU_MAX`].
    pub mtu: u16,
    /// The VLAN all frames belong to: 1..=[`VLAN_MAX`].
    pub vlan: Option<u16>,
    /// Frame buffers per core for received frames, and as many for those to be sent; `None`: by the length of the rings.
    pub buffers: Option<u32>,
    /// Length of the receive ring of each core; `None`: 1024, or what the driver allows.
    pub rx_ring: Option<u16>,
    /// The same of the transmit ring.
    pub tx_ring: Option<u16>,
    /// Arguments handed to DPDK's environment layer as they are, after those we choose.
    pub eal: Vec<String>,
}

impl DpdkConfig {
    /// The defaults, for a port and an address.
    pub fn new(port: PortName, address: Address) -> DpdkConfig {
        DpdkConfig {
            port,
            addresses: vec![address],
            gateways: Vec::new(),
            mtu: 1500,
            vlan: None,
            buffers: None,
            rx_ring: None,
            tx_ring: None,
            eal: Vec::new(),
        }
    }

    /// True when `ip` is an address of the port.
    pub fn is_ours(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|a| a.ip == ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_operators_write_them() {
        assert_eq!(PortName::parse("0000:00:03.0"), Ok(PortName::Pci("0000:00:03.0".into())));
        assert_eq!(PortName::parse("5E:00.1"), Ok(PortName::Pci("0000:5e:00.1".into())));
        let veth = PortName::parse("net_af_packet0,iface=veth1,qpairs=2").unwrap();
        assert_eq!(
            (veth.device(), veth.argument("iface"), veth.argument("qpairs")),
            ("net_af_packet0", Some("veth1"), Some("2"))
        );
        assert_eq!(veth.argument("framesz"), None);
        for bad in [
            "",
            "eth0",
            "0000:00:03",
            "0000.00.03.0",
            "00000:00:03.0",
            "net_tap",
            "net_tap0,iface",
            "net_tap0,=x",
            "net tap0",
        ] {
            assert!(PortName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_bits_and_neighbours() {
        let v4 = Address::parse("10.77.0.2/24").unwrap();
        assert!(v4.is_neighbour("10.77.0.255".parse().unwrap()) && !v4.is_neighbour("10.77.1.2".parse().unwrap()));
        assert!(!v4.is_neighbour("::1".parse().unwrap()));
        let v6 = Address::parse("2001:db8::2/64").unwrap();
        assert!(
            v6.is_neighbour("2001:db8::ffff:1".parse().unwrap()) && !v6.is_neighbour("2001:db8:1::2".parse().unwrap())
        );
        assert!(Address::parse("10.0.0.1/32").unwrap().is_neighbour("10.0.0.1".parse().unwrap()));
        for bad in
            ["10.77.0.2", "10.77.0.2/33", "10.77.0.2/0", "0.0.0.0/8", "127.0.0.1/8", "224.0.0.1/4", "::/64", "x/24"]
        {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
