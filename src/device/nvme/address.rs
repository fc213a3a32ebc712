//! Where a function sits on the PCI bus, as `lspci -D` and `/sys/bus/pci/devices` write it.

use std::fmt;
use std::str::FromStr;

/// Domain, bus, device and function of a PCI function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PciAddress {
    /// PCI segment; 0 on most machines. Up to 32 bits (VMD controllers use numbers above 65535).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

/// The text is not `DDDD:BB:DD.F` or `BB:DD.F`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a PCI address: DOMAIN:BUS:DEVICE.FUNCTION in hexadecimal, such as 0000:02:00.0")]
pub struct NotAnAddress;

impl FromStr for PciAddress {
    type Err = NotAnAddress;

    /// Reads `0000:02:00.0`; without the domain (`02:00.0`) it is domain 0.
    fn from_str(text: &str) -> Result<PciAddress, NotAnAddress> {
        let (rest, function) = text.rsplit_once('.').ok_or(NotAnAddress)?;
        let (rest, device) = rest.rsplit_once(':').ok_or(NotAnAddress)?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        let address = PciAddress {
            domain: number(domain, 8, u32::MAX)?,
            bus: number(bus, 2, 0xff)? as u8,
            device: number(device, 2, 31)? as u8,
            function: number(function, 1, 7)? as u8,
        };
        Ok(address)
    }
}

/// A hexadecimal number of 1 to `digits` digits, at most `most`.
fn number(text: &str, digits: usize, most: u32) -> Result<u32, NotAnAddress> {
    let shape = !text.is_empty() && text.len() <= digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let value = if shape { u32::from_str_radix(text, 16).ok() } else { None };
    value.filter(|v| *v <= most).ok_or(NotAnAddress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_refuses_the_rest() {
        for text in ["0000:02:00.0", "10000:e1:1f.7", "ffffffff:ff:00.1"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
        }
        assert_eq!("2:3.1".parse::<PciAddress>().unwrap().to_string(), "0000:02:03.1");
        let bad = ["", "0", "02:00", "02.0", "0000:02:20.0", "0000:02:00.8", "0000:100:00.0", "x:02:00.0", "0:+2:00.0"];
        for text in bad.iter().chain(&["0000:02:00.0 ", ":02:00.0", "0000:02:00.00", "000000000:02:00.0"]) {
            assert_eq!(text.parse::<PciAddress>(), Err(NotAnAddress), "{text}");
        }
    }
}
